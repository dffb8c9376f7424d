# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Directories for files on their way, which nobody's death leaves behind.

Whoever makes one holds a lock on it. One that can be locked belongs to a dead process, and the next process that
needs one removes it.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import fcntl
import os
import secrets
import shutil


def make_directory(base: str, prefix: str) -> tuple[str, int]:
    """Make a directory of this process's own in C(base) and return it with the descriptor that holds its lock."""
    while True:
        path = os.path.join(base, f"{prefix}{secrets.token_hex(6)}")
        with contextlib.suppress(FileNotFoundError):  # another process has just removed the empty one above it
            os.makedirs(path)
        lock = lock_directory(path)
        if lock is not None:
            return path, lock


def lock_directory(path: str) -> int | None:
    """Return the descriptor that holds the lock on the directory, or None if somebody has it or removed it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def dead_directories(base: str) -> c.Iterator[str]:
    """Yield the directories in C(base) of processes that were killed, each while nobody else can have it."""
    with contextlib.suppress(FileNotFoundError), os.scandir(base) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                continue
            lock = lock_directory(entry.path)
            if lock is not None:
                try:
                    yield entry.path
                finally:
                    os.close(lock)


def remove_dead(base: str) -> None:
    """Remove what processes left that were killed."""
    for path in dead_directories(base):
        shutil.rmtree(path, ignore_errors=True)  # what belongs to another user stays for that user


@contextlib.contextmanager
def own_directory(base: str, prefix: str) -> c.Iterator[str]:
    """Yield a directory of this process's own in C(base), and remove it afterwards, and what dead processes left there."""
    remove_dead(base)
    path, lock = make_directory(base, prefix)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
