# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Reaching into a tree that hostile code has written, without ever leaving it.

Every path is walked one component at a time with O_NOFOLLOW, from a descriptor of the tree's top: a symbolic link
anywhere is an error, never a way out. The callers see to it that nobody changes the tree meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing as t

from ._errors import PortbuildError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for a writer. O_NOCTTY: nor may a terminal become ours.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# What open(2) says of a symbolic link that must not be followed: ELOOP on Linux, EMLINK on FreeBSD; with O_DIRECTORY
# either may say ENOTDIR.
_LINK_ERRORS = (errno.ELOOP, errno.EMLINK)

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISREG, "a regular file"),
)


class UnsafeFile(PortbuildError):
    """Something else than the plain file or directory that was expected."""


def components(path: str) -> list[str]:
    """Split a path inside the tree, absolute or not, into its components; C(..) is refused."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise UnsafeFile(f"The path {path!r} leads out of the tree.")
    return parts


def kind_of(mode: int) -> str:
    """Say in words what a file of this mode is."""
    for test, name in _KINDS:
        if test(mode):
            return name
    return "something unknown"


def open_top(path: str) -> int:
    """Open the top of a tree; the path up to it is ours and trusted."""
    return os.open(path, _DIRECTORY)


def open_directory(top: int, path: str, *, create: bool = False, mode: int = 0o755) -> int:
    """Open a directory beneath the top; the caller closes it.

    With C(create) missing components are made. Raises FileNotFoundError, or UnsafeFile when a component is
    anything but a directory.
    """
    current = os.dup(top)
    try:
        for part in components(path):
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, mode, dir_fd=current)
            following = _open_component(current, part, path)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current


def _open_component(directory: int, name: str, path: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, *_LINK_ERRORS):
            raise
        found = kind_of(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
        raise UnsafeFile(f"{name!r} in the path {path!r} is {found} where a directory is expected.") from None


def open_file(directory: int, name: str) -> int:
    """Open a regular file with a single link for reading; the caller closes it.

    It is looked at before it is opened, because merely opening a device can have consequences.
    """
    _check_regular(os.stat(name, dir_fd=directory, follow_symlinks=False), name)
    try:
        descriptor = os.open(name, _FILE, dir_fd=directory)
    except OSError as error:
        if error.errno in _LINK_ERRORS:
            raise UnsafeFile(f"{name!r} is a symbolic link where a regular file is expected.") from None
        raise
    try:
        _check_regular(os.fstat(descriptor), name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeFile(f"{name!r} is {kind_of(status.st_mode)} where a regular file is expected.")
    if status.st_nlink != 1:
        # A hard link may be to a file that the build could not read, or may still change through the other name.
        raise UnsafeFile(f"{name!r} has {status.st_nlink} links where a file of its own is expected.")


def read_text(top: int, path: str, *, limit: int = 1 << 20, cut: bool = False) -> str | None:
    """Return the content of a small file beneath the top, or None if there is none.

    One that is larger than C(limit) bytes raises UnsafeFile, or with C(cut) loses what is beyond, to whole lines.
    """
    directory_path, _separator, name = path.rpartition("/")
    try:
        with opened(open_directory(top, directory_path)) as directory, opened(open_file(directory, name)) as file:
            data = b""
            while chunk := os.read(file, limit + 1 - len(data)):
                data += chunk
    except FileNotFoundError:
        return None
    if len(data) > limit and cut:
        data = data[: data.rfind(b"\n", 0, limit) + 1]
    if len(data) > limit:
        raise UnsafeFile(f"{path!r} is larger than {limit} bytes.")
    return data.decode("utf-8", "replace")


def replace_text(top: int, path: str, text: str, *, mode: int = 0o644) -> None:
    """Make a small file beneath the top hold this text, replacing whatever had its name."""
    directory_path, _separator, name = path.rpartition("/")
    with opened(open_directory(top, directory_path, create=True)) as directory:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, mode, dir_fd=directory), "w", encoding="utf-8") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), mode)


def remove(top: int, path: str) -> None:
    """Remove a file beneath the top, whatever its kind, if it is there; raises UnsafeFile for a directory."""
    directory_path, _separator, name = path.rpartition("/")
    with contextlib.suppress(FileNotFoundError), opened(open_directory(top, directory_path)) as directory:
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise UnsafeFile(f"{path!r} is a directory where a file is expected.")
        os.unlink(name, dir_fd=directory)


@contextlib.contextmanager
def opened(descriptor: int) -> t.Iterator[int]:
    """Close the descriptor at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)
