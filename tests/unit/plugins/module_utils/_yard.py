# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A scratch directory with a tiny base, and jobs in it: real supervisors, namespaces, mounts and control groups."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._attach import stop_supervisor, supervisor_alive
from ansible_collections.portbuild.cluster.plugins.module_utils._build import Builder
from ansible_collections.portbuild.cluster.plugins.module_utils._chroots import ChrootStore
from ansible_collections.portbuild.cluster.plugins.module_utils._names import incoming_path, Job

QUEUE = "0123456789abcdef"
BASE = hashlib.sha256(b"tiny").hexdigest()
PROGRAMS = (
    "sh bash cat ls mkdir sleep ln mkfifo mknod mount umount id tar gzip dd chmod rm mv cp tail touch env stat readlink"
    " setsid head grep hostname dirname basename sync unshare sed find chown kill rmdir"
).split()
BUILDER_ID = 1500


def make_tiny_base(path: pathlib.Path) -> None:
    """Make the smallest tree in which a shell script can do what a build does, from the host's own programs."""
    for name in ("bin", "etc", "tmp", "root", "build"):
        (path / name).mkdir(parents=True)
    (path / "usr").mkdir()
    (path / "usr" / "bin").symlink_to("../bin")
    for program in PROGRAMS:
        found = shutil.which(program)
        if not found:
            continue
        shutil.copy(os.path.realpath(found), path / "bin" / program)
        listing = subprocess.run(["ldd", os.path.realpath(found)], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+\.so\S*)", listing):
            target = path / library.lstrip("/")
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(os.path.realpath(library), target)
    (path / "etc" / "passwd").write_text(
        f"root:x:0:0:root:/root:/bin/sh\nbuilder:x:{BUILDER_ID}:{BUILDER_ID}::/build:/bin/sh\n", encoding="utf-8"
    )
    (path / "etc" / "group").write_text(f"root:x:0:\nbuilder:x:{BUILDER_ID}:\n", encoding="utf-8")


class Yard:
    """A scratch directory."""

    def __init__(self, scratch: pathlib.Path) -> None:
        self.scratch = scratch
        self.store = ChrootStore(str(scratch))
        self._token = 0
        make_tiny_base(scratch / "bases" / BASE)
        (scratch / "bases" / f"{BASE}.json").write_text(
            json.dumps({"schema": 1, "bytes": 20 << 20, "installed": 0}), encoding="utf-8"
        )

    def job(self, package: str = "hello", *, backend: str = "overlay") -> TinyJob:
        """Claim a chroot."""
        self._token += 1
        return TinyJob(self, Job("amd64", "12", package), self._token, backend)

    def close(self) -> None:
        """End whatever still runs."""
        for path in (self.scratch / "chroots").glob("*/*/*"):
            stop_supervisor(str(path), 5)


class TinyJob:
    """One job in the yard."""

    def __init__(self, yard: Yard, job: Job, token: int, backend: str) -> None:
        self.yard = yard
        self.name = job
        self.token = token
        self.backend = backend
        self.claim(token)

    def claim(self, token: int) -> None:
        """Claim, or adopt with a newer token."""
        self.token = token
        chroot = self.yard.store.claim(
            self.name, queue=QUEUE, token=token, maxjobs=99, backend=self.backend, base=BASE, client_user="nobody"
        )
        self.path = pathlib.Path(chroot.path)

    def send(self, content: bytes) -> tuple[str, pathlib.Path]:
        """Put a file where the controller would put it for the job; return its SHA-256, and where it is."""
        digest = hashlib.sha256(content).hexdigest()
        part = pathlib.Path(incoming_path(str(self.yard.scratch), digest, self.name))
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(content)
        return digest, part

    def request(
        self, *steps: dict[str, t.Any], limits: dict[str, t.Any] | None = None, **more: t.Any
    ) -> dict[str, t.Any]:
        """Return a request with these steps, one step "build" by default."""
        return {
            "schema": 1,
            **self.name._asdict(),
            "token": self.token,
            "base": BASE,
            "backend": self.backend,
            "client_user": "nobody",
            "build_user": "builder",
            "steps": list(steps) or [{"name": "build", "phase": "build", "user": "builder"}],
            "limits": {"timeout": 60, "silence": 50, **(limits or {})},
            **more,
        }

    def builder(self, token: int | None = None) -> Builder:
        """Return what the module works with."""
        return Builder(str(self.yard.scratch), self.name, queue=QUEUE, token=self.token if token is None else token)

    def start(self, script: str, *steps: dict[str, t.Any], wait: float = 0, **more: t.Any) -> dict[str, t.Any]:
        """Start the build, and wait a while."""
        return self.builder().run(self.request(*steps, **more), script, wait)

    def build(self, script: str, *steps: dict[str, t.Any], wait: float = 40, **more: t.Any) -> dict[str, t.Any]:
        """Build to the end and return the status, with everything of the build gone."""
        result = self.start(script, *steps, wait=wait, **more)
        assert result["state"] == "ended", result
        self.wait_until_unlocked()
        return result["status"]

    def wait_until_unlocked(self) -> None:
        """Wait until the supervisor is gone."""
        wait_until(lambda: not supervisor_alive(str(self.path)))

    def attach(self, wait: float = 40, token: int | None = None) -> dict[str, t.Any]:
        """Attach without a request."""
        return self.builder(token).run(None, None, wait)

    @property
    def log(self) -> str:
        """The build's log so far."""
        path = self.path / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def status(self) -> dict[str, t.Any]:
        """The status as it is."""
        return json.loads((self.path / "status.json").read_text(encoding="utf-8"))


def wait_until(condition: t.Callable[[], t.Any], seconds: float = 10.0) -> None:
    """Wait for something that must happen soon."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def processes_with(text: str) -> list[int]:
    """Return the pids of processes whose command line contains the text."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
