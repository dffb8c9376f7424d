# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Chroot backends: how a clean root is made from a base, and thrown away.

C(directory) copies the base; it works everywhere. C(overlay) stacks a writable layer on disk on the base, C(tmpfs)
one in memory, C(zfs) clones a snapshot: nothing is copied, and cleaning is dropping what was written.

A job's directory holds everything of its roots in C(fs/), which only root can enter: a build may have made set-uid
files, and nobody on the machine may reach them by a path::

    fs/base          a symbolic link to the base, for whoever enters a kept chroot by hand
    fs/root          directory: the tree; otherwise where it is mounted
    fs/upper fs/work overlay: the layer
    fs/memory        tmpfs on Linux: where the file system in memory is mounted
    fs/dataset       zfs: the name of the file system above the chroot's own
    fs/root.NAME …   the same for each additional fresh root

On Linux, roots are mounted by the supervisor, in its own mount namespace, and vanish with it. On FreeBSD the
supervisor unmounts them, or whoever finds what a killed one left. This is what the drivers of both have in common.
"""

from __future__ import annotations

import abc
import contextlib
import os
import re
import secrets
import typing as t

from . import _spares
from ._beneath import opened
from ._errors import PortbuildError
from ._files import BadFile, read_json
from ._process import check_run, LINUX
from ._trees import open_beneath, remove_entry, usage


class BackendFailed(PortbuildError):
    """A root that could not be made."""


class Backend(abc.ABC):
    """One way to have clean roots. C(chroot) is a job's directory, C(base) the directory of an extracted base."""

    name: t.ClassVar[str]

    @abc.abstractmethod
    def probe(self, scratch: str) -> str:
        """Return why the backend cannot be used in this scratch directory, "" if it can: found out by trying."""

    def create(self, chroot: str, base: str) -> None:
        """Prepare a claimed chroot, once. What a killed attempt left is done over; what is complete is kept."""
        prepare(chroot, base)

    @abc.abstractmethod
    def mount(self, chroot: str, base: str, *, name: str = "root", size: int = 0) -> str:
        """Make a clean root and return its path, which is a mount point on Linux.

        The build's own root is C(root); any other name is an additional one from the same base. A root of that name
        that has been used before is thrown away. C(size) is how many bytes a root in memory may take, 0 for half of
        the memory. On Linux the caller is in a mount namespace of its own, with private
        propagation.
        """

    @abc.abstractmethod
    def drop(self, chroot: str, name: str) -> None:
        """Unmount a root and throw it away. The caller is the one that mounted it."""

    def preserve(self, chroot: str) -> None:
        """Put on disk what would vanish with the mounts, for a chroot that is kept. The caller mounted it."""

    def usage(self, chroot: str) -> int:
        """Return the bytes that the job takes on disk beyond the base, its results and its log included."""
        return usage(chroot, skip=("inputs", "repo"))  # hard links into the cache

    def enter(self, chroot: str) -> str:
        """Return the shell command by which an administrator looks into a chroot that was kept.

        It holds the chroot's lock meanwhile, so that nobody removes it.
        """
        return f"{self.locked(chroot)} chroot {chroot}/fs/root /bin/sh"

    @staticmethod
    def locked(chroot: str) -> str:
        """Return the words before a command that hold the chroot's lock while it runs; without -k lockf removes it."""
        return f"lockf -k -t 0 {chroot}/lock"

    def unmount(self, path: str) -> None:
        """Unmount everything at and below the path, as this process sees it."""

    def watched(self, chroot: str, root: str) -> tuple[str, str]:
        """Return a path on the file system that the build's root is on, and the root if that is full on its own."""
        del root
        return chroot, ""

    def discard(self, chroot: str) -> None:
        """Throw away what the chroot has outside of its directory, which goes next. Nothing of it is mounted."""

    def strays(self, scratch: str, chroots: t.Collection[str]) -> list[str]:
        """Return what the backend has outside of directories for none of these chroots, by name."""
        del scratch, chroots
        return []

    def remove_stray(self, name: str) -> None:
        """Throw such a thing away."""


def prepare(chroot: str, base: str) -> str:
    """Make C(fs/) and return its path."""
    fs = os.path.join(chroot, "fs")
    with contextlib.suppress(FileExistsError):
        os.mkdir(fs, 0o700)
    link = os.path.join(fs, "base")
    if not os.path.islink(link):
        os.symlink(base, link)
    return fs


def _made(path: str) -> str:
    os.mkdir(path, 0o700)
    return path


def part_name(name: str, what: str) -> str:
    """Return the name in C(fs/) of what belongs to the root of this name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,80}", name):
        raise ValueError(f"{name!r} cannot be the name of a root")
    return what if name == "root" else f"{what}.{name}"


def remove_parts(chroot: str, *parts: str) -> None:
    """Remove parts of C(fs/) that exist."""
    with opened(open_beneath(chroot, "fs")) as directory:
        for part in parts:
            with contextlib.suppress(FileNotFoundError):
                remove_entry(directory, part)


def copy_tree(source: str, target: str) -> None:
    """Copy the tree with everything that root can copy; the target is complete or absent."""
    parent, name = os.path.split(target)
    with opened(os.open(parent, os.O_RDONLY | os.O_DIRECTORY)) as directory:
        for left in os.listdir(directory):
            if left.startswith(f".{name}."):  # by a killed copy
                remove_entry(directory, left)
    partial = os.path.join(parent, f".{name}.{secrets.token_hex(4)}")
    if LINUX:  # cp beats a pipe of two tars and unpacking the tarball, whose bytes pass through memory once more
        check_run(["cp", "-ax", "--", source, partial], f"Copying {source}", timeout=3600)
    else:  # cp knows no hard links there
        os.mkdir(partial)
        pour_tree(source, partial)
    os.rename(partial, target)


def pour_tree(source: str, target: str) -> None:
    """Copy the contents of a tree into an empty directory, with owners, modes, hard links and file flags."""
    # A shell that knows no pipefail (before FreeBSD 13) shows the first tar's failure by the second's.
    script = (
        '(set -o pipefail) 2>/dev/null && set -o pipefail; tar -C "$1" -cf - . | tar -C "$2" --numeric-owner -xpf -'
    )
    check_run(["/bin/sh", "-c", script, "sh", source, target], f"Copying {source}", timeout=3600)


def like(base: str, directory: str) -> None:
    """Make the directory, which becomes the top of a root, with owner and mode of the base's top."""
    top = os.stat(base)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    os.chown(directory, top.st_uid, top.st_gid)
    os.chmod(directory, top.st_mode & 0o7777)


def base_bytes(base: str) -> int:
    """Return the bytes on disk of an extracted base, as written down when it was."""
    try:
        size = read_json(f"{base}.json").get("bytes")
    except (FileNotFoundError, BadFile):
        size = None
    return size if isinstance(size, int) else usage(base)


class Directory(Backend):
    """A copy of the base for each job."""

    name = "directory"

    def probe(self, scratch: str) -> str:
        if os.geteuid() != 0:
            return "only root can chroot"
        if os.statvfs(scratch).f_flag & getattr(os, "ST_NOEXEC", 8):
            return "the scratch directory is on a file system that is mounted noexec"
        return ""

    def create(self, chroot: str, base: str) -> None:
        self._fill(prepare(chroot, base), base, "root")

    def _fill(self, fs: str, base: str, name: str) -> None:
        """Have a clean tree for the root of this name: a spare one, or a copy."""
        part, stamps = part_name(name, "root"), part_name(name, "stamps")
        root = os.path.join(fs, part)
        if os.path.isdir(root) or _spares.take(fs, base, part, stamps):
            return
        copy_tree(base, root)
        if _spares.usable_here():
            _spares.take_stamps(root, os.path.join(fs, stamps))

    def mount(self, chroot: str, base: str, *, name: str = "root", size: int = 0) -> str:  # noqa: ARG002
        fs = prepare(chroot, base)
        root, used = os.path.join(fs, part_name(name, "root")), os.path.join(fs, part_name(name, "used"))
        if os.path.exists(used):
            remove_parts(chroot, part_name(name, "root"), part_name(name, "stamps"))
        self._fill(fs, base, name)
        with open(used, "wb"):
            pass
        self.show(root)
        return root

    def show(self, root: str) -> None:
        """Do what else it takes for a process to have this directory as its root."""

    def drop(self, chroot: str, name: str) -> None:
        fs, part, stamps = os.path.join(chroot, "fs"), part_name(name, "root"), part_name(name, "stamps")
        self.unmount(os.path.join(fs, part))
        left = os.path.join(fs, f".dropped.{secrets.token_hex(4)}")
        prepare(_made(left), base := os.readlink(os.path.join(fs, "base")))
        for source, target in ((stamps, "stamps"), (part, "root")):
            with contextlib.suppress(FileNotFoundError):
                os.rename(os.path.join(fs, source), os.path.join(left, "fs", target))
        with contextlib.suppress(OSError, ValueError, PortbuildError):
            _spares.reclaim(os.path.dirname(os.path.dirname(base)), left)
        remove_parts(chroot, os.path.basename(left), part_name(name, "used"))

    def usage(self, chroot: str) -> int:
        fs = os.path.join(chroot, "fs")
        try:
            roots = sum(name == "root" or name.startswith("root.") for name in os.listdir(fs))
            return max(super().usage(chroot) - roots * base_bytes(os.readlink(os.path.join(fs, "base"))), 0)
        except FileNotFoundError:
            return super().usage(chroot)
