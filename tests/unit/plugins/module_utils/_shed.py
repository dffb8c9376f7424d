# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A scratch directory of chroots without real supervisors: a process that holds the lock stands for one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import signal
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._chroots import Chroot, ChrootStore
from ansible_collections.portbuild.cluster.plugins.module_utils._files import write_json
from ansible_collections.portbuild.cluster.plugins.module_utils._lock import Lock
from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.module_utils._process import boot_id, process_start_time

BASE = hashlib.sha256(b"base").hexdigest()
HELLO, DASH = Job("amd64", "12", "hello"), Job("amd64", "12", "dash")


class Shed:
    """The scratch directory. Claims are with the directory backend, which needs no mounts."""

    def __init__(self, scratch: pathlib.Path) -> None:
        self.scratch = scratch
        self.boot = boot_id()
        self.time = 1_000_000_000.0
        self.store = ChrootStore(str(scratch), now=lambda: self.time, boot=lambda: self.boot)
        self.supervisors: list[int] = []
        base = scratch / "bases" / BASE
        base.mkdir(parents=True)
        (base / "file").write_text("clean", encoding="utf-8")

    def claim(self, job: Job = HELLO, *, token: int = 1, queue: str = "q", **more: t.Any) -> Chroot:
        """Claim, with sensible defaults."""
        wanted = {"maxjobs": 99, "backend": "directory", "base": BASE, "client_user": "nobody", **more}
        return self.store.claim(job, queue=queue, token=token, **wanted)

    def start(self, job: Job = HELLO, *, token: int = 1, queue: str = "q", **status: t.Any) -> int:
        """Mark the chroot as started and let a process hold its lock as a supervisor does; return its pid."""
        chroot = self.store.start(job, queue=queue, token=token)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with Lock(os.path.join(chroot.path, "lock"), timeout=5):
                self.write_status(
                    job, state="running", pid=os.getpid(), pid_start=process_start_time(os.getpid()), **status
                )
                os.write(write, b"1")
                time.sleep(60)
            os._exit(0)
        os.close(write)
        os.read(read, 1)
        os.close(read)
        self.supervisors.append(pid)
        return pid

    def write_status(self, job: Job, **values: t.Any) -> None:
        """Write what a supervisor writes."""
        write_json(
            os.path.join(self.store.path(job), "status.json"), {"boot_id": self.boot, "phase": "build", **values}
        )

    def ended(self, job: Job = HELLO, *, token: int = 1, queue: str = "q", reason: str = "success") -> None:
        """Have the chroot look like one in which a build ended."""
        self.store.start(job, queue=queue, token=token)
        self.write_status(job, state="ended", reason=reason, token=token)

    def kill(self, pid: int) -> None:
        """End a supervisor the hard way."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def close(self) -> None:
        """Leave no process behind."""
        for pid in self.supervisors:
            self.kill(pid)

    def trash(self) -> list[str]:
        """Return what waits for its removal."""
        try:
            return sorted(name for name in os.listdir(self.scratch / "trash") if name != ".lock")
        except FileNotFoundError:
            return []
