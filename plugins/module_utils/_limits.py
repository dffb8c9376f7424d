# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a job may use at most: memory and processes (by control groups on Linux, see C(_cgroups)), disk.

A limit that is exceeded ends the job with a reason of its own, so a limit is watched from outside: a build that
merely fails because something was refused could not be told from a broken one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import typing as t

MEMORY_REASON = "out_of_memory"
DISK_REASON = "disk_full"
MACHINE_DISK_REASON = "machine_disk_full"


class Exceeded(t.NamedTuple):
    """A limit that was exceeded. C(infrastructure) is set when not the job but the machine is to blame."""

    reason: str
    detail: str
    infrastructure: bool = False


class MemoryControl:
    """The memory and process limits of one job. This class limits nothing: what is left is watching from outside."""

    kind = "none"

    def enter(self) -> None:
        """Put the calling process under the limits."""

    def killed(self) -> str:
        """Return "job" if the kernel killed a process for the job's limit, "machine" if for lack of memory, else ""."""
        return ""

    def resident(self) -> int:
        """Return the bytes of memory in use that cannot be dropped, 0 if unknown."""
        return 0

    def refused_processes(self) -> bool:
        """Return whether a process could not be started for the limit of processes."""
        return False

    def limits_processes(self) -> bool:
        """Return whether the number of processes is limited by this."""
        return False

    def remove(self) -> None:
        """Remove what was made for it; everything in the job must be dead or dying."""


class MemoryWatch:
    """Notices that a job exceeded its memory limit, by its control group or else by adding up its processes."""

    def __init__(self, control: MemoryControl, limit: int, resident: t.Callable[[str], int]) -> None:
        """C(resident) adds up the memory of a running step; where there are control groups it is not asked."""
        self._control = control
        self._limit = limit
        self._resident = resident
        self.peak = 0

    def check(self, namespace: str) -> Exceeded | None:
        """C(namespace) is what the running step is known by, see Running."""
        grouped = self._control.kind != "none"
        used = self._control.resident() if grouped else self._resident(namespace)
        self.peak = max(self.peak, used)
        killed = self._control.killed()
        if killed == "machine":
            return Exceeded(MEMORY_REASON, "The machine ran out of memory and the kernel killed a process.", True)
        if killed or (not grouped and self._limit and used > self._limit):
            return Exceeded(MEMORY_REASON, f"The build needed more than its {self._limit} bytes of memory.")
        return None


class DiskWatch:
    """Notices that a job exceeds its disk limit, or that the machine's disk is full.

    Scanning a tree costs seconds, asking the file system costs nothing. What was written to the file system since
    the last scan bounds what the job can have written; only when this bound exceeds the limit is the job's own usage
    scanned, in a child, so that nothing waits for it.
    """

    _SLOW = 60.0  # a neighbour's deletions can hide our writing from the file system's figures: look now and then

    def __init__(
        self,
        path: str,
        usage: t.Callable[[], int],
        *,
        limit: int = 0,
        min_free: int = 0,
        own: str = "",
        begin_child: t.Callable[[], None] = lambda: None,
        monotonic: t.Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch a job whose disk usage C(usage) scans.

        C(own) is the mount point of a file system that belongs to the job alone (tmpfs): full is full.
        C(begin_child) is called first in the process that scans.
        """
        self._path = path
        self._usage = usage
        self._limit = limit
        self._min_free = min_free
        self._own = own
        self._begin_child = begin_child
        self._monotonic = monotonic
        self._used = self._blocks()
        self._written = 0  # since the last scan began: the sum of all growth, as shrinking is not the job's merit
        self._scanned = 0
        self._scan: _Scan | None = None
        self._next_scan = 0.0
        self._forced_scan = monotonic() + self._SLOW

    def _blocks(self) -> int:
        status = os.statvfs(self._path)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def check(self) -> Exceeded | None:
        """Look, cheaply; call this every half second or so."""
        return self._check_own() or self._check_machine() or self._check_limit()

    def _check_own(self) -> Exceeded | None:
        if not self._own:
            return None
        status = os.statvfs(self._own)
        if status.f_blocks and (status.f_bavail == 0 or (status.f_files and status.f_ffree == 0)):
            return Exceeded(DISK_REASON, f"The build filled its {status.f_blocks * status.f_frsize} bytes of disk.")
        return None

    def _check_machine(self) -> Exceeded | None:
        status = os.statvfs(self._path)
        free = status.f_bavail * status.f_frsize
        if self._min_free and free < self._min_free:
            return Exceeded(
                MACHINE_DISK_REASON, f"Only {free} bytes are free on the machine, {self._min_free} are wanted.", True
            )
        if status.f_files and status.f_favail < min(1000, status.f_files // 100):
            return Exceeded(MACHINE_DISK_REASON, f"Only {status.f_favail} inodes are free on the machine.", True)
        return None

    def _check_limit(self) -> Exceeded | None:
        if not self._limit or self._own:
            return None
        used = self._blocks()
        self._written += max(0, used - self._used)
        self._used = used
        self._finish_scan()
        if self._scanned > self._limit:
            return Exceeded(DISK_REASON, f"The build wrote {self._scanned} bytes, {self._limit} are allowed.")
        now = self._monotonic()
        suspicious = self._scanned + self._written > self._limit and now >= self._next_scan
        if self._scan is None and (suspicious or now >= self._forced_scan):
            self._written = 0
            self._scan = _Scan(self._usage, self._begin_child, now)
        return None

    def _finish_scan(self) -> None:
        if self._scan is None or not self._scan.finished():
            return
        now = self._monotonic()
        took = now - self._scan.started
        if self._scan.result is not None:
            self._scanned = self._scan.result
        self._next_scan = now + max(1.0, 5 * took)  # at most a sixth of the time is spent scanning
        self._forced_scan = now + max(self._SLOW, 50 * took)
        self._scan = None

    def final(self) -> Exceeded | None:
        """Tell whether a step that has just failed did so for lack of disk, by a scan if need be."""
        exceeded = self._check_own() or self._check_machine()
        if exceeded or not self._limit or self._own or self._scanned + self._written <= self._limit:
            return exceeded
        self.close()
        with contextlib.suppress(OSError):
            self._scanned = self._usage()
        return self._check_limit()

    def close(self) -> None:
        """End a scan that still runs."""
        if self._scan is not None:
            self._scan.cancel()
            self._scan = None


class _Scan:
    """Usage being scanned in a child process."""

    def __init__(self, usage: t.Callable[[], int], begin: t.Callable[[], None], started: float) -> None:
        self.started = started
        self.result: int | None = None
        self._pipe, write = os.pipe()
        os.set_blocking(self._pipe, False)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                begin()
                os.write(write, str(usage()).encode())
            finally:
                os._exit(0)
        os.close(write)

    def finished(self) -> bool:
        try:
            answer = os.read(self._pipe, 100)
        except BlockingIOError:
            return False
        with contextlib.suppress(ValueError):
            self.result = int(answer)
        self._reap()
        return True

    def cancel(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        os.waitpid(self._pid, 0)
        os.close(self._pipe)
