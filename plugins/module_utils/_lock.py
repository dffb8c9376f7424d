# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Locks that lockf(1), flock(1) and an administrator's shell take as well: flock(2) on a file.

The kernel drops such a lock when its holder dies, however it dies: there is nothing to clean up after a kill -9.
lockf(1) removes the file when it is done, so a lock counts only while the path still leads to the locked file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
import typing as t

from ._errors import PortbuildError


class LockTimeout(PortbuildError):
    """Somebody else held the lock for too long."""


@t.final
class Lock:
    """An flock on a file, which is created if need be (and C(create)) and never removed; a context manager.

    C(mode) is the mode of a file created here, whatever the umask. A process forked meanwhile shares the lock,
    but release() ends it for both.
    """

    def __init__(
        self, path: str, *, timeout: float, exclusive: bool = True, create: bool = True, mode: int = 0o644
    ) -> None:
        self.path = path
        self._timeout = timeout
        self._operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        self._create = create
        self._mode = mode
        self._descriptor = -1

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *unused: object) -> None:
        self.release()

    def fileno(self) -> int:
        """Return the descriptor that holds the lock, -1 when it is not held."""
        return self._descriptor

    def acquire(self) -> None:
        """Take the lock, or raise LockTimeout."""
        if self._descriptor >= 0:
            raise RuntimeError(f"{self.path} is locked by this very object already")
        deadline = time.monotonic() + self._timeout
        while self._descriptor < 0:
            descriptor = _open(self.path, self._mode if self._create else None)
            if not _flock(descriptor, self._operation, deadline):
                raise LockTimeout(
                    f"The lock {self.path} was held by somebody else for more than {self._timeout:g} s.",
                    remedy=f"See who holds it: fuser -v {self.path}",
                    details={"path": self.path, "timeout": self._timeout},
                )
            self._descriptor = descriptor
            if not _is_at(descriptor, self.path):
                self.release()

    def release(self) -> None:
        """Give the lock back; without effect when it is not held."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would leave it to a forked process
            finally:
                os.close(descriptor)


def try_lock(path: str, *, exclusive: bool = True, mode: int = 0o644) -> Lock | None:
    """Return the lock, taken, or None when somebody else holds it."""
    lock = Lock(path, timeout=0, exclusive=exclusive, mode=mode)
    try:
        lock.acquire()
    except LockTimeout:
        return None
    return lock


def is_locked(path: str) -> bool:
    """Return whether somebody holds an exclusive lock on the file. Creates nothing.

    There is no way to look without touching: for a microsecond this holds a shared lock, so whoever must get a
    lock beside it gives it a timeout, however short, instead of trying once.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _open(path: str, mode: int | None) -> int:
    """Open the file; with a mode create it if it is not there."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            # Another user's lock file: a local file system locks a descriptor that is only readable just as well.
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if mode is None:
                raise
            # Exclusively, to know that the file is ours and its mode still to be set; ENOENT now is the directory's.
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
                os.fchmod(descriptor, mode)
                return descriptor


def _is_at(descriptor: int, path: str) -> bool:
    held = os.fstat(descriptor)
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)


def _try(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _flock(descriptor: int, operation: int, deadline: float) -> bool:
    """Take the lock until the deadline and return True; else close the descriptor and return False.

    flock(2) has no timeout. Trying again and again keeps many waiters busy and is won by the luckiest; a blocking
    call queues in the kernel. So a thread makes it, and a thread that is no longer waited for drops what it gets.
    """
    try:
        if _try(descriptor, operation):
            return True
    except BaseException:
        os.close(descriptor)
        raise
    if deadline <= time.monotonic():
        os.close(descriptor)
        return False
    waiter = _Waiter(descriptor, operation)
    try:
        return waiter.wait(deadline - time.monotonic())
    finally:
        waiter.abandon()


class _Waiter:
    """A thread in a blocking flock. The descriptor is the thread's until wait() has returned True."""

    def __init__(self, descriptor: int, operation: int) -> None:
        self._descriptor = descriptor
        self._operation = operation
        self._decision = threading.Lock()  # who has the descriptor is decided once
        self._finished = threading.Event()
        self._error: OSError | None = None
        self._abandoned = False
        self._delivered = False
        threading.Thread(target=self._block, name="flock", daemon=True).start()

    def _block(self) -> None:
        try:
            fcntl.flock(self._descriptor, self._operation)
        except OSError as error:
            self._error = error
        with self._decision:
            if self._abandoned:
                os.close(self._descriptor)
            self._finished.set()

    def wait(self, timeout: float) -> bool:
        self._finished.wait(timeout)
        with self._decision:
            if not self._finished.is_set():
                return False
            if self._error is not None:
                raise self._error
            self._delivered = True
            return True

    def abandon(self) -> None:
        """Leave the descriptor to the thread, unless the lock was delivered. Called however wait() ended."""
        with self._decision:
            if self._delivered:
                return
            self._abandoned = True
            if self._finished.is_set():
                os.close(self._descriptor)
