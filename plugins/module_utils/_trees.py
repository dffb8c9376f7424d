# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Directory trees that hostile code has written into: removing and measuring them.

Nothing here follows a symbolic link, and nothing crosses a mount: directories are opened one by one, relative to
the one above, and each must be on the same file system as the first. A tree may be deeper than the longest path
and may change while it is looked at.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import stat
import typing as t

from ._beneath import open_directory, open_top, opened
from ._errors import PortbuildError
from ._process import check_run, LINUX

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTRY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_AT_ONCE = 400  # below the usual limit of 1024 descriptors
# FS_IOC_SETFLAGS is _IOW('f', 2, long); alpha, mips, ppc and sparc number the directions otherwise.
_WRITE = 0x80000000 if os.uname().machine.startswith(("alpha", "mips", "ppc", "sparc")) else 0x40000000
_LINUX_SET_FLAGS = _WRITE | array.array("l").itemsize << 16 | ord("f") << 8 | 2


class UnsafePath(PortbuildError):
    """A path that must not be removed or written to."""


def _unescape(word: str) -> str:
    """Undo the octal escapes of mountinfo."""
    head, *rest = word.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] if part[:3].isdigit() else "\\" + part for part in rest)


def mount_points() -> list[str]:
    """Return every mount point that this process can see, in mount order."""
    if LINUX:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
            return [_unescape(line.split(" ", 5)[4]) for line in stream]
    from . import _freebsd  # pylint: disable=import-outside-toplevel  # modules come as source: each costs

    text = check_run(_freebsd.list_mounts(), "Listing the mounts", timeout=30, limit=1 << 24).stdout
    return [mount.point for mount in _freebsd.parse_mounts(text)]


def mounts_below(path: str) -> list[str]:
    """Return the mount points at or below the path (which must be resolved), deepest first."""
    beneath = path.rstrip("/") + "/"
    return [point for point in reversed(mount_points()) if point == path or point.startswith(beneath)]


def open_beneath(top: str, relative: str) -> int:
    """Return a descriptor of the directory C(top/relative), reached without a link and without crossing a mount.

    C(top) itself is trusted. Raises UnsafeFile for a link, UnsafePath for a mount, or FileNotFoundError.
    """
    with opened(open_top(os.path.realpath(top))) as start:
        directory = open_directory(start, relative)
        if os.fstat(directory).st_dev == os.fstat(start).st_dev:
            return directory
    os.close(directory)
    raise UnsafePath(
        f"{top}/{relative} is on another file system than {top}.",
        remedy=f"Unmount what is mounted there: everything below {top} must be on one file system.",
    )


def move_out(top: str, relative: str, trash: str) -> str:
    """Rename C(top/relative) to a new name in the directory C(top/trash), and return that name.

    From then on the path is free, and what was there has no name that anything uses. Raises UnsafePath if
    something is mounted in it, FileNotFoundError if there is nothing.
    """
    parent, _slash, name = relative.rpartition("/")
    if name in ("", ".", "..") or os.path.realpath(top) == "/":
        raise UnsafePath(f"Refusing to remove {relative!r} beneath {top!r}.")
    mounted = mounts_below(os.path.join(os.path.realpath(top), relative))
    if mounted:
        raise UnsafePath(
            f"{', '.join(mounted[:5])} is mounted in {top}/{relative}.",
            remedy="Unmount it, or end the process that mounted it, first.",
        )
    new = f"{name[:80]}.{secrets.token_hex(8)}"
    with opened(open_beneath(top, parent)) as source, opened(open_beneath(top, trash)) as target:
        try:
            os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
        except OSError as error:
            raise _mounted_there(f"{top}/{relative}", error) from None
    return new


def _mounted_there(what: str, error: OSError) -> Exception:
    """Return the error that says so, if the error is what renaming a mount point gives."""
    if error.errno in (errno.EXDEV, errno.EBUSY):
        return UnsafePath(f"{what} cannot be moved ({error.strerror}): is something mounted there?")
    return error


def _clear_flags(name: str, directory: int) -> None:
    """Take away what makes even root's removal fail: immutable and append-only, of the entry and of its directory."""
    if hasattr(os, "lchflags"):  # FreeBSD's takes no dir_fd
        with opened(os.open(".", os.O_RDONLY | os.O_CLOEXEC)) as before:
            try:
                os.fchdir(directory)
                for path in (name, "."):
                    with contextlib.suppress(OSError):  # a file system without flags: something else is the matter
                        os.lchflags(path, 0)
            finally:
                os.fchdir(before)
        return
    none = array.array("l", [0])
    with contextlib.suppress(OSError):  # not every kind of file has flags, nor every file system
        fcntl.ioctl(directory, _LINUX_SET_FLAGS, none)
    with contextlib.suppress(OSError), opened(os.open(name, _ENTRY, dir_fd=directory)) as entry:
        fcntl.ioctl(entry, _LINUX_SET_FLAGS, none)


def _insistently(action: t.Callable[[], None], name: str, directory: int) -> None:
    try:
        action()
    except PermissionError:
        _clear_flags(name, directory)
        action()


def remove_entry(directory: int, name: str) -> None:
    """Remove the entry of the open directory, whatever it is.

    A subdirectory is renamed up into the top of what is removed before it is looked into: so depth costs neither
    descriptors nor recursion, and whatever a kill leaves is found by removing the same entry again. A mount point
    cannot be renamed, so nothing mounted is ever entered.
    """
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        _insistently(_unlinker(name, directory), name, directory)
        return
    device = os.fstat(directory).st_dev
    prefix = secrets.token_hex(8)
    names = (f"{prefix}.{number}" for number in itertools.count())
    with opened(_open_below(name, directory, device)) as top:
        while below := _unlink_files(top):  # reading while removing may skip entries: again, until there are none
            while below:
                current = below.pop()
                with opened(_open_below(current, top, device)) as emptied:
                    while found := _unlink_files(emptied):
                        for entry in found:
                            moved = next(names)
                            _insistently(_mover(entry, moved, emptied, top), entry, emptied)
                            below.append(moved)
                _insistently(_remover(current, top), current, top)
    _insistently(_remover(name, directory), name, directory)


def _open_below(name: str, directory: int, device: int) -> int:
    """Open a subdirectory unless something is mounted on it."""
    below = os.open(name, _DIRECTORY, dir_fd=directory)
    if os.fstat(below).st_dev == device:
        return below
    os.close(below)
    raise UnsafePath(f"A file system is mounted on {name!r}, which was to be removed: it was left alone.")


def _unlink_files(directory: int) -> list[str]:
    """Unlink everything in the open directory that is no directory; return the names of those that are."""
    below = []
    while True:
        count = 0
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    _insistently(_unlinker(entry.name, directory), entry.name, directory)
                    count += 1
                elif not count:
                    below.append(entry.name)
        if not count:
            return below
        below = []


def _mover(name: str, new: str, source: int, target: int) -> t.Callable[[], None]:
    def move() -> None:
        try:
            os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
        except OSError as error:
            raise _mounted_there(repr(name), error) from None

    return move


def _remover(name: str, directory: int) -> t.Callable[[], None]:
    return lambda: os.rmdir(name, dir_fd=directory)


def _unlinker(name: str, directory: int) -> t.Callable[[], None]:
    return lambda: os.unlink(name, dir_fd=directory)


class _Scan:
    """Adds up what a tree occupies."""

    def __init__(self, device: int) -> None:
        self.total = 0
        self._device = device
        self._linked: set[int] = set()

    def add(self, directory: int, skip: t.Container[str] = ()) -> list[str]:
        """Count the entries of the open directory, and return which are directories."""
        below = []
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.name in skip:
                    continue
                with contextlib.suppress(OSError):
                    self._count(entry.stat(follow_symlinks=False))
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
        return below

    def _count(self, found: os.stat_result) -> None:
        if found.st_dev != self._device:
            return
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            if found.st_ino in self._linked:
                return
            self._linked.add(found.st_ino)
        self.total += found.st_blocks * 512


def usage(path: str, *, skip: t.Container[str] = ()) -> int:
    """Return the bytes on disk of the tree, on the file system that its top is on; C(skip) names entries of the top.

    A file with several names counts once. What vanishes meanwhile counts nothing. Directories that still have
    subdirectories to be seen are kept open, so a chain may be of any depth; where more than a few hundred branch
    below one another, which no sane tree does, the rest is not counted.
    """
    try:
        top = open_top(path)
    except FileNotFoundError:
        return 0
    device = os.fstat(top).st_dev
    scan = _Scan(device)
    stack = [(top, scan.add(top, skip))]
    try:
        while stack:
            directory, names = stack[-1]
            if not names:
                os.close(stack.pop()[0])
                continue
            name = names.pop()
            below = -1
            with contextlib.suppress(OSError):
                below = os.open(name, _DIRECTORY, dir_fd=directory)
            if not names:
                os.close(stack.pop()[0])
            if below >= 0:
                if os.fstat(below).st_dev != device or len(stack) >= _OPEN_AT_ONCE:
                    os.close(below)
                else:
                    stack.append((below, scan.add(below)))
    finally:
        for directory, _names in stack:
            os.close(directory)
    return scan.total
