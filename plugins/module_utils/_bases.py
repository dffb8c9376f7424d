# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Bases and trees: what comes to a machine as a tarball and is extracted once, under the tarball's SHA-256.

A base is a clean system that chroots are made from. A tree holds recipes, such as the FreeBSD ports tree; builds see
it read-only.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ._errors import PortbuildError
from ._files import BadFile, read_json, sha256_file, write_json
from ._lock import Lock
from ._names import check_sha256
from ._process import check_run, run
from ._spares import remove_spares
from ._tarballs import check_members
from ._trash import throw_away
from ._trees import usage

BASES = "bases"
TREES = "trees"
_EXTRACT_TIMEOUT = 3600.0


class BaseMissing(PortbuildError):
    """The base that a chroot is to be made from is not on this machine."""


class TreeMissing(PortbuildError):
    """The tree that is to be built from is not on this machine."""


class BadBase(PortbuildError):
    """A tarball that is not the expected one, or not a system."""


class Extracted(t.NamedTuple):
    """An extracted base or tree. The SHA-256 is that of its tarball."""

    sha256: str
    path: str
    bytes: int
    installed: float


def _path(scratch: str, kind: str, sha256: str) -> str:
    return os.path.join(scratch, kind, check_sha256(sha256))


def base_path(scratch: str, sha256: str) -> str:
    """Return where the base is, or would be."""
    return _path(scratch, BASES, sha256)


def tree_path(scratch: str, sha256: str) -> str:
    """Return where the tree is, or would be."""
    return _path(scratch, TREES, sha256)


def has_base(scratch: str, sha256: str) -> bool:
    """Return whether the base is there: it is complete if it is."""
    return os.path.isdir(base_path(scratch, sha256))


def has_tree(scratch: str, sha256: str) -> bool:
    """Return whether the tree is there: it is complete if it is."""
    return os.path.isdir(tree_path(scratch, sha256))


def find_base(scratch: str, sha256: str) -> str:
    """Return the path of the base, or raise BaseMissing."""
    if not has_base(scratch, sha256):
        raise BaseMissing(
            f"The base {sha256} is not on this machine.",
            remedy="Run the setup playbook: it brings the current bindist of the branch.",
            details={"base": sha256, "present": [base.sha256 for base in all_bases(scratch)]},
        )
    return base_path(scratch, sha256)


def find_tree(scratch: str, sha256: str) -> str:
    """Return the path of the tree, or raise TreeMissing."""
    if not has_tree(scratch, sha256):
        raise TreeMissing(
            f"The tree {sha256} is not on this machine.",
            remedy="Run the setup playbook: it brings the current tree of the branch.",
            details={"tree": sha256, "present": [tree.sha256 for tree in all_trees(scratch)]},
        )
    return tree_path(scratch, sha256)


def all_bases(scratch: str) -> list[Extracted]:
    """Return the bases on this machine, oldest first."""
    return _all(scratch, BASES)


def all_trees(scratch: str) -> list[Extracted]:
    """Return the trees on this machine, oldest first."""
    return _all(scratch, TREES)


def _all(scratch: str, kind: str) -> list[Extracted]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(os.path.join(scratch, kind)):
            with contextlib.suppress(PortbuildError):
                path = _path(scratch, kind, name)
                if os.path.isdir(path):
                    found.append(_describe(path))
    return sorted(found, key=lambda entry: (entry.installed, entry.sha256))


def _describe(path: str) -> Extracted:
    try:
        notes = read_json(f"{path}.json")
    except (FileNotFoundError, BadFile):
        notes = {}
    size, installed = notes.get("bytes"), notes.get("installed")
    return Extracted(
        os.path.basename(path),
        path,
        size if isinstance(size, int) else 0,
        float(installed) if isinstance(installed, (int, float)) else os.stat(path).st_mtime,
    )


def install_base(scratch: str, tarball: str, sha256: str, *, now: t.Callable[[], float] = time.time) -> bool:
    """Extract the tarball unless that was done before; return whether anything was done.

    The base appears under its name when it is complete and on the disk. A killed attempt is done over.
    """
    return _install(scratch, BASES, tarball, sha256, extract_base, now)


def install_tree(scratch: str, tarball: str, sha256: str, *, now: t.Callable[[], float] = time.time) -> bool:
    """Extract the tarball of a tree, as install_base() does; everybody may read what comes of it."""
    return _install(scratch, TREES, tarball, sha256, _extract_tree, now)


def _install(
    scratch: str,
    kind: str,
    tarball: str,
    sha256: str,
    extract: t.Callable[[str, str], None],
    now: t.Callable[[], float],
) -> bool:
    path = _path(scratch, kind, sha256)
    if os.path.isdir(path):
        return False
    shelf = os.path.dirname(path)
    with Lock(os.path.join(shelf, ".lock"), timeout=_EXTRACT_TIMEOUT):
        if os.path.isdir(path):
            return False
        found = sha256_file(tarball)
        if found != sha256:
            raise BadBase(f"{tarball} has the SHA-256 {found}, expected {sha256}.", remedy="Transfer it again.")
        partial = f".{sha256}.partial"
        with contextlib.suppress(FileNotFoundError):
            throw_away(scratch, f"{kind}/{partial}")
        extracted = os.path.join(shelf, partial)
        os.mkdir(extracted, 0o755)
        os.chmod(extracted, 0o755)  # noqa: S103  # whatever the umask: builds look into it as an ordinary user
        extract(tarball, extracted)
        write_json(f"{path}.json", {"schema": 1, "bytes": usage(extracted), "installed": now()})
        os.sync()  # or a power failure leaves a complete tree of empty files
        # A tree that was packed with the directory it stands in is that directory.
        inner = _only_directory(extracted) if kind == TREES else ""
        os.rename(os.path.join(extracted, inner) if inner else extracted, path)
        if inner:
            os.rmdir(extracted)
    return True


def _only_directory(path: str) -> str:
    """Return the name of the one directory in the directory, if there is nothing else."""
    names = os.listdir(path)
    only = names[0] if len(names) == 1 else ""
    whole = os.path.join(path, only)
    return only if only and os.path.isdir(whole) and not os.path.islink(whole) else ""


def extract_base(tarball: str, target: str) -> None:
    """Extract a system with all that its files have, or raise BadBase."""
    argv = ["tar", "-C", target, "--numeric-owner", "-xpf", tarball]
    if "GNU tar" in run(["tar", "--version"], timeout=10).stdout:  # bsdtar restores them unasked
        argv[1:1] = ["--xattrs", "--xattrs-include=*"]
    check_run(argv, f"Extracting {tarball}", timeout=_EXTRACT_TIMEOUT)
    if not os.path.lexists(os.path.join(target, "bin", "sh")):
        raise BadBase(
            f"{tarball} does not hold a system: there is no bin/sh at its top.", remedy="Make the bindist anew."
        )


def extract_tree_argv(tarball: str, target: str) -> tuple[list[str], list[str]]:
    """Return the two commands, for GNU tar and for bsdtar: extract, owned by root; let everybody read, nobody write.

    Of a tree only names and contents count: no owner, no set-uid bit, no flag and no access list of the tarball comes
    through.
    """
    options = ["--no-same-owner", "--no-same-permissions"]
    return (
        ["tar", "-C", target, *options, "-xf", tarball],
        ["chmod", "-R", "u=rwX,go=rX", target],
    )


def _extract_tree(tarball: str, target: str) -> None:
    check_members(tarball)
    for argv in extract_tree_argv(tarball, target):
        check_run(argv, f"Extracting {tarball}", timeout=_EXTRACT_TIMEOUT)
    if not os.listdir(target):
        raise BadBase(f"{tarball} is empty.", remedy="Make the tree anew.")


def remove_base(scratch: str, sha256: str) -> None:
    """Throw a base away; nothing may use it."""
    _remove(scratch, BASES, sha256)
    remove_spares(scratch, sha256)


def remove_tree(scratch: str, sha256: str) -> None:
    """Throw a tree away; nothing may use it."""
    _remove(scratch, TREES, sha256)


def _remove(scratch: str, kind: str, sha256: str) -> None:
    path = _path(scratch, kind, sha256)
    throw_away(scratch, f"{kind}/{sha256}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.json")


def note_use(scratch: str, sha256: str, *, kind: str = BASES) -> None:
    """Remember that the base, or the tree, was used just now."""
    with contextlib.suppress(OSError):
        os.utime(f"{_path(scratch, kind, sha256)}.json")
