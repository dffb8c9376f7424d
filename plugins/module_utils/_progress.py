# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a running build tells: its log and its status file."""

from __future__ import annotations

import os
import time
import typing as t

from ._files import sha256_file, write_json

SCHEMA = 1
LOG = "log"
STATUS = "status.json"

# Reasons for which the machine or the network is to blame, not the package.
INFRASTRUCTURE = frozenset(("fetch_infrastructure", "machine_disk_full", "chroot", "lost", "killed"))

_LAST_LINE = 200


class BuildLog:
    """The build's output, framed by lines of the supervisor's own, up to a limit."""

    def __init__(self, path: str, *, limit: int, owner: tuple[int, int]) -> None:
        self.path = path
        self.size = 0
        self._limit = limit
        self._tail = b""
        self._full = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o640)
        os.fchown(self._descriptor, *owner)
        os.fchmod(self._descriptor, 0o640)

    def write(self, data: bytes) -> bool:
        """Add output of the build; return whether the limit allows for more."""
        if self._limit and self.size + len(data) > self._limit:
            data = data[: max(0, self._limit - self.size)]
            self._full = True
        self._append(data)
        return not self._full

    def frame(self, text: str) -> None:
        """Add a line of the supervisor's, limit or not, at the beginning of a line."""
        start = b"" if self._tail.endswith(b"\n") or not self.size else b"\n"
        self._append(start + text.encode("utf-8", "replace") + b"\n")

    def _append(self, data: bytes) -> None:
        if not data:
            return
        self._tail = (self._tail + data[-2000:])[-2000:]
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    @property
    def last_line(self) -> str:
        """The last line that is not empty, made printable."""
        lines = self._tail.decode("utf-8", "replace").splitlines()
        for line in reversed(lines):
            if line.strip():
                return "".join(char if char.isprintable() else " " for char in line.strip())[:_LAST_LINE]
        return ""

    def close(self) -> None:
        """Make it durable."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)


class Status:
    """The status file: replaced as a whole at every change, so that a reader never sees half of it."""

    def __init__(
        self,
        path: str,
        values: dict[str, t.Any],
        *,
        now: t.Callable[[], float] = time.time,
        monotonic: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._now = now
        self._monotonic = monotonic
        self._began = monotonic()
        self._written = 0.0
        self.values: dict[str, t.Any] = {**initial_status(), "started": now(), **values}

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return self._monotonic() - self._began

    def write(self, *, durable: bool = False, **changes: t.Any) -> None:
        """Change values, and write them all."""
        self.values.update(changes, updated=self._now(), seconds=round(self.elapsed(), 3))
        # Only the end must survive a power failure: whatever ran before it is lost in one anyway.
        write_json(self._path, self.values, durable=durable)
        self._written = self._monotonic()

    def refresh(self, every: float, **changes: t.Any) -> None:
        """Write if the last time is long enough ago."""
        if self._monotonic() - self._written >= every:
            self.write(**changes)

    def end(self, reason: str, detail: str, infrastructure: bool, **changes: t.Any) -> None:
        """Write for the last time."""
        self.write(
            durable=True,
            state="ended",
            reason=reason,
            detail=detail,
            infrastructure=infrastructure,
            ended=self._now(),
            needs=[],
            **changes,
        )


def initial_status() -> dict[str, t.Any]:
    """Return every field of a status, before anything is known."""
    return {
        "schema": SCHEMA,
        "token": 0,
        "state": "running",
        "phase": "",
        "step": "",
        "reason": None,
        "infrastructure": False,
        "detail": "",
        "exit": None,
        "signal": None,
        "started": None,
        "updated": None,
        "ended": None,
        "seconds": 0.0,
        "phases": [],
        "cpu_seconds": 0.0,
        "peak_memory": 0,
        "limits": "",
        "pid": 0,
        "pid_start": "",
        "step_pid": 0,
        "step_start": "",
        "boot_id": "",
        "log_bytes": 0,
        "last_line": "",
        "needs": [],
        "about": {},
        "leftovers": [],
        "warnings": [],
        "manifest": [],
    }


def log_entry(chroot: str, package: str) -> list[dict[str, t.Any]]:
    """Return the manifest's entry for the log, if there is one."""
    path = os.path.join(chroot, LOG)
    if not os.path.exists(path):
        return []
    size = os.path.getsize(path)
    return [{"name": f"{package}.log", "kind": "log", "size": size, "sha256": sha256_file(path), "path": LOG}]
