# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Copies of a base that were used and are as new again, so that the next chroot need not be copied.

Copying a base of 13,000 files takes seconds, and several times that on a file system from which as many were just
removed. So the tree of a job is not removed but restored, in the background: what the build added goes, what it
changed or removed comes from the base again.

What was changed is told by inode number and ctime, written down when the tree was made. Nothing that a build may do
changes a file and leaves its ctime alone: only the clock sets it, and a build has neither CAP_SYS_TIME nor
CAP_SYS_ADMIN. Restored trees stand in C(<scratch>/spares/<sha256 of the base>/).
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import secrets
import stat
import sys
import time
import typing as t

from ._beneath import opened
from ._errors import PortbuildError
from ._process import check_run, LINUX
from ._trees import open_beneath, remove_entry

SPARES = "spares"
MOST = 3  # per base; each takes the disk space of the base
_TICK = 0.02  # seconds, at least: two changes within the kernel's tick get the same ctime
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MANY = 0.5  # of the entries to be replaced: then a plain copy is as good

Stamp = tuple[int, int]  # inode number and ctime, for a directory (0, 0): it is put right in any case
Stamps = dict[str, Stamp]

# FS_IOC_GETFLAGS, and those of the flags that somebody sets on purpose (chattr(1)).
_GET_FLAGS = 0x80086601 if sys.maxsize > 1 << 32 else 0x80046601
_SETTABLE = 0x628340FB


class NotRestored(PortbuildError):
    """A tree that is better removed."""


def usable_here() -> bool:
    """Return whether trees can be restored on this system."""
    return LINUX


def _walk(directory: int, prefix: str = "") -> t.Iterator[tuple[str, os.stat_result]]:
    """Yield every entry below the open directory, directories before their contents. For trees that nobody changes."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    for name, status in found:
        yield prefix + name, status
        if stat.S_ISDIR(status.st_mode):
            with opened(os.open(name, _DIRECTORY, dir_fd=directory)) as below:
                yield from _walk(below, f"{prefix}{name}/")


def take_stamps(tree: str, target: str) -> None:
    """Write down what a pristine tree looks like; the file appears when it is complete."""
    with opened(os.open(tree, _DIRECTORY)) as directory:
        stamps = {
            path: (0, 0) if stat.S_ISDIR(status.st_mode) else (status.st_ino, status.st_ctime_ns)
            for path, status in _walk(directory)
        }
    partial = os.path.join(os.path.dirname(target), f".stamps.{secrets.token_hex(4)}")
    with open(partial, "x", encoding="ascii") as stream:
        json.dump(stamps, stream)  # names that are no UTF-8 come through as escaped surrogates
    os.rename(partial, target)
    time.sleep(_TICK)


def _read_stamps(path: str) -> Stamps:
    with open(path, encoding="ascii") as stream:
        return {name: (inode, ctime) for name, (inode, ctime) in json.load(stream).items()}


class _Restoration:
    """Makes a tree like the base again. What is missing is collected first and copied in one go."""

    def __init__(self, tree: str, base: str, stamps: Stamps) -> None:
        self._tree = tree
        self._base = base
        self._stamps = stamps
        self._seen: set[str] = set()
        self._parted = False  # a file with another name was removed

    def run(self) -> None:
        looking = True
        while looking:
            self._seen.clear()
            self._parted = False
            with opened(os.open(self._tree, _DIRECTORY)) as directory:
                self._sift(directory, "")
            looking = self._parted  # the other name of what was removed, seen before, is a file with one link now
        missing = sorted(self._stamps.keys() - self._seen)
        if len(missing) > _MANY * len(self._stamps):
            raise NotRestored("Most of the tree was changed.")
        if missing:
            script = (
                'tar -C "$1" --xattrs "--xattrs-include=*" --acls --no-recursion --null -T - -cf -'
                ' | tar -C "$2" --xattrs "--xattrs-include=*" --acls --numeric-owner -xpf -'
            )
            names = b"\0".join(os.fsencode(f"./{path}") for path in missing)
            check_run(
                ["/bin/sh", "-c", script, "sh", self._base, self._tree], "Restoring a chroot", input=names, timeout=600
            )
        with opened(os.open(self._base, _DIRECTORY)) as base, opened(os.open(self._tree, _DIRECTORY)) as tree:
            _like(base, tree)
            self._directories(base, tree, "")

    def _sift(self, directory: int, prefix: str) -> None:
        """Remove from the open directory what is not as it was."""
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        for name, status in found:
            path = prefix + name
            wanted = self._stamps.get(path)
            if stat.S_ISDIR(status.st_mode):
                if wanted == (0, 0):
                    self._seen.add(path)
                    with opened(os.open(name, _DIRECTORY, dir_fd=directory)) as below:
                        self._sift(below, f"{path}/")
                    continue
            elif wanted == (status.st_ino, status.st_ctime_ns):
                self._seen.add(path)
                continue
            # A directory may hold such files, too.
            self._parted = self._parted or stat.S_ISDIR(status.st_mode) or status.st_nlink > 1
            remove_entry(directory, name)

    def _directories(self, base: int, tree: int, prefix: str) -> None:
        """Give every directory what the base's has; that the two have the same entries is checked on the way."""
        with os.scandir(base) as entries:
            wanted = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        with os.scandir(tree) as entries:
            if wanted != {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}:
                raise NotRestored(f"/{prefix} is not as in the base.")
        for name, is_directory in wanted.items():
            if is_directory:
                with (
                    opened(os.open(name, _DIRECTORY, dir_fd=base)) as source,
                    opened(os.open(name, _DIRECTORY, dir_fd=tree)) as target,
                ):
                    self._directories(source, target, f"{prefix}{name}/")
                    _like(source, target)
        _like(base, tree)


def _like(source: int, target: int) -> None:
    """Give a directory owner, mode, extended attributes (so also lists of access rights) and time of another."""
    if _flags(source) != _flags(target):
        raise NotRestored("Somebody has set flags on a directory.")
    wanted, found = os.fstat(source), os.fstat(target)
    if (wanted.st_uid, wanted.st_gid) != (found.st_uid, found.st_gid):
        os.fchown(target, wanted.st_uid, wanted.st_gid)
    attributes = {name: os.getxattr(source, name) for name in os.listxattr(source)}
    for name in os.listxattr(target):
        if name not in attributes:
            os.removexattr(target, name)
    for name, value in attributes.items():
        os.setxattr(target, name, value)
    if wanted.st_mode != os.fstat(target).st_mode:
        os.fchmod(target, stat.S_IMODE(wanted.st_mode))
    if wanted.st_mtime_ns != os.fstat(target).st_mtime_ns:
        os.utime(target, ns=(wanted.st_atime_ns, wanted.st_mtime_ns))


def _flags(directory: int) -> int:
    buffer = array.array("l", [0])
    with contextlib.suppress(OSError):  # a file system without flags
        fcntl.ioctl(directory, _GET_FLAGS, buffer)
    return buffer[0] & _SETTABLE


def take(fs: str, base: str, root: str, stamps: str) -> bool:
    """Move a spare tree of the base, if there is one, to C(fs/root), and what is known of it to C(fs/stamps)."""
    shelf = os.path.join(os.path.dirname(os.path.dirname(base)), SPARES, os.path.basename(base))
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(shelf):
            taken = os.path.join(fs, f".{root}.{secrets.token_hex(4)}")
            try:
                os.rename(os.path.join(shelf, name), taken)  # whoever can rename it has it
            except FileNotFoundError:
                continue
            os.rename(os.path.join(taken, "stamps"), os.path.join(fs, stamps))
            os.rename(os.path.join(taken, "root"), os.path.join(fs, root))
            os.rmdir(taken)
            return True
    return False


def provide(scratch: str, base: str, copy: t.Callable[[str, str], None]) -> None:
    """Make a spare tree of the base ahead of the first job, unless there is one."""
    shelves = os.path.join(scratch, SPARES)
    shelf = os.path.join(shelves, os.path.basename(base))
    os.makedirs(shelf, 0o700, exist_ok=True)
    if not usable_here() or os.listdir(shelf):
        return
    with opened(open_beneath(scratch, SPARES)) as directory:
        for name in os.listdir(directory):
            if name.startswith(".new."):  # of a killed setup
                remove_entry(directory, name)
    new = os.path.join(shelves, f".new.{secrets.token_hex(4)}")
    os.mkdir(new, 0o700)
    copy(base, os.path.join(new, "root"))
    take_stamps(os.path.join(new, "root"), os.path.join(new, "stamps"))
    os.rename(new, os.path.join(shelf, secrets.token_hex(8)))


def reclaim(scratch: str, entry: str) -> None:
    """Restore the tree of a chroot that was thrown away, and put it with the spares; raises whatever is in the way.

    What is left of the entry, everything in any case of failure, is still to be removed.
    """
    fs = os.path.join(entry, "fs")
    if not usable_here() or not os.path.exists(os.path.join(fs, "stamps")):
        return
    base = os.readlink(os.path.join(fs, "base"))
    shelf = os.path.join(scratch, SPARES, os.path.basename(base))
    if os.path.dirname(base) != os.path.join(scratch, "bases") or not os.path.isdir(base):
        return
    for directory in (os.path.dirname(shelf), shelf):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
    if len(os.listdir(shelf)) >= MOST:
        return
    tree, stamps = os.path.join(fs, "root"), os.path.join(fs, "stamps")
    known = _read_stamps(stamps)
    os.unlink(stamps)  # a restoration that is cut short is not to be trusted
    _Restoration(tree, base, known).run()
    spare = os.path.join(entry, "spare")
    os.mkdir(spare, 0o700)
    take_stamps(tree, os.path.join(spare, "stamps"))
    os.rename(tree, os.path.join(spare, "root"))
    os.rename(spare, os.path.join(shelf, secrets.token_hex(8)))


def remove_spares(scratch: str, sha256: str) -> None:
    """Remove the spares of a base that goes."""
    with contextlib.suppress(FileNotFoundError), opened(open_beneath(scratch, SPARES)) as directory:
        remove_entry(directory, sha256)
