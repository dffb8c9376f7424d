# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Making a build machine ready: directories, per-node configuration, base, tree."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import stat
import typing as t

from ._backends import choose, copy_tree
from ._bases import base_path, BASES, has_base, has_tree, install_base, install_tree, TREES
from ._errors import PortbuildError
from ._files import write_atomic
from ._isolation import check_base
from ._node import CONF, render_conf
from ._spares import provide
from ._trash import empty_trash
from ._trees import UnsafePath

# Bases hold set-uid programs nobody maintains, the trash those of hostile builds: only root may pass. Through
# chroots/ the results are collected; each chroot hides its own trees.
_DIRECTORIES = (
    ("", 0o755),
    ("chroots", 0o755),
    ("kept", 0o755),
    (BASES, 0o700),
    (TREES, 0o755),
    ("cache", 0o711),
    ("cache/inputs", 0o700),
    ("cache/archives", 0o711),  # builders open in it what they know the SHA-256 of
    ("lib", 0o755),
    ("spares", 0o700),
    ("trash", 0o700),
)
_INCOMING = "incoming"
# What goes into mount options and shell commands as it is.
_SAFE_PATH = re.compile(r"(/[A-Za-z0-9._@+-]+)+")


class NoAccount(PortbuildError):
    """The account that the controller logs in as does not exist."""


class Plan(t.NamedTuple):
    """What is wanted of the machine."""

    scratch: str
    client_user: str
    node: tuple[tuple[str, t.Any], ...] = ()  # what else the per-node configuration says
    maxjobs: int = 1
    backend: str = "auto"
    base: str = ""
    tree: str = ""


class _Kind(t.NamedTuple):
    """What is extracted from a tarball."""

    name: str  # in the result
    directory: str
    has: t.Callable[[str, str], bool]
    install: t.Callable[[str, str, str], bool]


_BASE = _Kind("base", BASES, has_base, install_base)
_TREE = _Kind("tree", TREES, has_tree, install_tree)


class _Steps:
    """Makes what is not as it should be, or only tells; collects what it found and what is wanted for the diff."""

    def __init__(self, scratch: str, *, really: bool) -> None:
        self.scratch = scratch
        self.really = really
        self.before: list[str] = []
        self.after: list[str] = []
        self.changed = False

    def tell(self, before: str, after: str) -> bool:
        """Note a state and the wanted one; return whether something is to be done about it."""
        self.before.append(before)
        self.after.append(after)
        self.changed = self.changed or before != after
        return before != after and self.really

    def directory(self, relative: str, mode: int, owner: tuple[int, int]) -> None:
        path = os.path.join(self.scratch, relative) if relative else self.scratch
        if self.tell(_describe(path), f"{path}: directory, mode {mode:04o}, owner {owner[0]}:{owner[1]}\n"):
            if relative:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o700)
            else:
                os.makedirs(path, 0o755, exist_ok=True)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if relative else 0))
            try:
                os.fchown(descriptor, *owner)
                os.fchmod(descriptor, mode)
            finally:
                os.close(descriptor)

    def file(self, relative: str, content: str) -> None:
        path = os.path.join(self.scratch, relative)
        before = ""
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
            before = stream.read(1 << 20)
        if self.tell(f"{path}:\n{before}", f"{path}:\n{content}"):
            write_atomic(path, content)

    def extract(self, kind: _Kind, sha256: str) -> dict[str, bool]:
        """Extract a base or a tree if its tarball has arrived; say whether it is needed."""
        there = kind.has(self.scratch, sha256)
        path = os.path.join(self.scratch, kind.directory, sha256)
        tarball = os.path.join(self.scratch, _INCOMING, f"{sha256}.part")
        arrived = os.path.isfile(tarball) and not os.path.islink(tarball)
        needed, installed = f"needs_{kind.name}", f"{kind.name}_installed"
        if self.tell(f"{path}: {'extracted' if there else 'absent'}\n", f"{path}: extracted\n") and arrived:
            try:
                kind.install(self.scratch, tarball, sha256)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(tarball)  # a wrong one is to be sent again
            return {needed: False, installed: True}
        return {needed: not there and not arrived, installed: False}


def _describe(path: str) -> str:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return f"{path}: absent\n"
    if not stat.S_ISDIR(found.st_mode):
        return f"{path}: no directory\n"
    return f"{path}: directory, mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}:{found.st_gid}\n"


def check_scratch(scratch: str) -> str:
    """Return the resolved path of the scratch directory, or raise UnsafePath if it cannot be one."""
    path = os.path.realpath(scratch)
    if not _SAFE_PATH.fullmatch(path) or path.count("/") < 2:
        raise UnsafePath(
            f"{scratch!r} cannot be the scratch directory.",
            remedy="Give an absolute path below a top-level directory, made of letters, digits and . _ @ + -",
        )
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UnsafePath(f"{path} is not a directory.", remedy="Set another portbuild_scratchdir.")
    return path


def _client(name: str) -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise NoAccount(
            f"There is no account {name!r} on this machine.",
            remedy="Create it, or let the setup playbook do so with portbuild_create_client_user.",
            details={"reason": "no_account"},
        ) from None
    return entry.pw_uid, entry.pw_gid


def prepare(plan: Plan, *, really: bool) -> dict[str, t.Any]:
    """Make the machine ready, or only say what would change; return the result of the step."""
    steps = _Steps(check_scratch(plan.scratch), really=really)
    client = _client(plan.client_user)
    for relative, mode in _DIRECTORIES:
        steps.directory(relative, mode, (0, 0))
    steps.directory(_INCOMING, 0o700, client)
    conf = {**dict(plan.node), "client_user": plan.client_user, "maxjobs": plan.maxjobs, "chroot_backend": plan.backend}
    steps.file(CONF, render_conf(conf))
    result: dict[str, t.Any] = {f"needs_{kind.name}": False for kind in (_BASE, _TREE)}
    result.update({f"{kind.name}_installed": False for kind in (_BASE, _TREE)})
    if os.path.isdir(steps.scratch):
        result["backend"], result["backends"] = choose(steps.scratch, plan.backend)
    if plan.base:
        result.update(steps.extract(_BASE, plan.base))
    if result["base_installed"] and result["backend"] == "directory":
        provide(steps.scratch, base_path(steps.scratch, plan.base), copy_tree)
    if plan.base and has_base(steps.scratch, plan.base):
        check_base(base_path(steps.scratch, plan.base))
    if plan.tree:
        result.update(steps.extract(_TREE, plan.tree))
    if really:
        empty_trash(steps.scratch)
    result["changed"] = steps.changed
    result["diff"] = {"before": "".join(steps.before), "after": "".join(steps.after)}
    return result
