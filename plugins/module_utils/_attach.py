# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Dealing with a supervisor from outside: does it live, how did it end, and stopping it.

Whether a supervisor lives is told by the lock of its chroot, which the kernel drops with it. Its status file tells
the rest, and is trusted about a pid only together with the process's start time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import typing as t

from ._cgroups import remove_job_groups
from ._errors import PortbuildError
from ._files import BadFile, read_json, write_json
from ._lock import is_locked, try_lock
from ._process import boot_id, process_start_time
from ._progress import initial_status, log_entry, STATUS
from ._remains import clear_chroot

LOCK = "lock"
_STEP_SECONDS = 10.0


class SupervisorStuck(PortbuildError):
    """A supervisor that does not end."""


def supervisor_alive(chroot: str) -> bool:
    """Return whether a supervisor, or something of its build, is alive in the chroot."""
    return is_locked(os.path.join(chroot, LOCK))


def read_status(chroot: str) -> dict[str, t.Any] | None:
    """Return the status that the supervisor wrote, None if no build was ever started here."""
    path = os.path.join(chroot, STATUS)
    try:
        return {**initial_status(), **read_json(path)}
    except FileNotFoundError:
        return None
    except BadFile:
        # Only a crash of the machine leaves that: the file is replaced as a whole.
        return {**initial_status(), "boot_id": "unreadable"}


def settle(chroot: str, package: str, *, now: t.Callable[[], float] = time.time) -> dict[str, t.Any] | None:
    """Return the status; where a supervisor died without writing its end, write it in its place first."""
    status = read_status(chroot)
    if status is None or status["state"] == "ended":
        return status
    lock = try_lock(os.path.join(chroot, LOCK))
    if lock is None:
        return status
    with contextlib.closing(_Releasing(lock)):
        status = read_status(chroot)  # it may have ended between the first look and the lock
        if status is None or status["state"] == "ended":
            return status
        _remove_remains(chroot, status)
        rebooted = status["boot_id"] != boot_id()
        reason = "lost" if rebooted else "killed"
        detail = "The machine was restarted during the build." if rebooted else "The supervisor died during the build."
        manifest = log_entry(chroot, package)
        status.update(
            state="ended",
            reason=reason,
            infrastructure=True,
            detail=detail,
            ended=now(),
            updated=now(),
            needs=[],
            step_pid=0,
            manifest=manifest,
            log_bytes=manifest[0]["size"] if manifest else 0,
        )
        write_json(os.path.join(chroot, STATUS), status)
    return status


class _Releasing:
    """contextlib.closing for a lock that was taken by trying."""

    def __init__(self, lock: t.Any) -> None:
        self._lock = lock

    def close(self) -> None:
        self._lock.release()


def stop_supervisor(chroot: str, timeout: float = 10.0) -> bool:
    """End the build in the chroot, if one runs; return whether one did.

    Asked by SIGTERM, the supervisor ends its step, writes its status (reason C(killed)) and goes; one that has not
    within C(timeout) seconds is killed, and takes its step with it. When this returns, no process, mount or control
    group of the build is left. Raises SupervisorStuck if that cannot be had.
    """
    path = os.path.join(chroot, LOCK)
    alive = is_locked(path)
    for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, _STEP_SECONDS)):
        if _signal_until_unlocked(chroot, path, number, patience):
            break
    else:
        status = read_status(chroot) or {}
        raise SupervisorStuck(
            f"The supervisor of {chroot} (pid {status.get('pid', 'unknown')}) still holds {path}.",
            remedy=f"See who holds it: fuser -v {path}",
            details={"reason": "chroot_busy", "chroot": chroot, "pid": status.get("pid")},
        )
    remove_remains(chroot)
    return alive


def remove_remains(chroot: str) -> None:
    """Wait for the end of what a dead supervisor has left dying, and remove its control groups, jails and mounts.

    For whoever killed it; nothing holds the chroot's lock any more.
    """
    status = read_status(chroot)
    if status is not None:
        _remove_remains(chroot, status)
    else:
        clear_chroot(chroot)


def _signal_until_unlocked(chroot: str, path: str, number: int, patience: float) -> bool:
    """Send the signal once the supervisor's pid is known for sure, and wait until the lock is free."""
    deadline = time.monotonic() + patience
    sent = False
    while is_locked(path):
        if not sent:
            pid = _verified_pid(read_status(chroot))
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                sent = True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _verified_pid(status: dict[str, t.Any] | None) -> int:
    """Return the supervisor's pid if the process of that number is the one that wrote the status, else 0."""
    if status is None or status["boot_id"] != boot_id():
        return 0
    return status["pid"] if _is(status["pid"], status["pid_start"]) else 0


def _is(pid: t.Any, start: t.Any) -> bool:
    return isinstance(pid, int) and pid > 1 and bool(start) and process_start_time(pid) == start


def _remove_remains(chroot: str, status: dict[str, t.Any]) -> None:
    """Wait for the end of a step whose supervisor died, and remove the control groups."""
    if status["boot_id"] == boot_id():
        deadline = time.monotonic() + _STEP_SECONDS
        while _is(status["step_pid"], status["step_start"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(status["step_pid"], signal.SIGKILL)
            if time.monotonic() > deadline:
                raise SupervisorStuck(f"A step of the build (pid {status['step_pid']}) cannot be killed.")
            time.sleep(0.01)
    remove_job_groups(chroot)
    clear_chroot(chroot)
