# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A controller for tests: its root directory, its ansible commands, and what stands in its files.

Used by the cluster tests, by C(make demo) and by the benchmarks. Everything is done as a user would: through
ansible-playbook, and by looking at the files on the controller and at the clients themselves.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import Client, Cluster

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
COLLECTIONS = pathlib.Path(os.environ.get("PORTBUILD_TEST_COLLECTIONS") or CHECKOUT / ".cache" / "collections")
SOURCES = CHECKOUT / "tests" / "sources"
CALLBACKS = CHECKOUT / "tests" / "callbacks"
_RUNS = itertools.count(1)  # several controllers may have one root


@dataclasses.dataclass
class Ended:
    """What an ansible command came to."""

    argv: list[str]
    status: int
    output: str
    seconds: float
    steps: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)

    def ok(self) -> Ended:
        """Return itself, or fail with all that the command printed."""
        assert self.status == 0, f"{' '.join(self.argv)} ended with {self.status}:\n{self.output}"
        return self

    def fails(self, *phrases: str) -> Ended:
        """Return itself if it failed and printed the phrases."""
        assert self.status != 0, f"{' '.join(self.argv)} succeeded:\n{self.output}"
        flat = " ".join(self.output.replace("\\n", " ").split())
        for phrase in phrases:
            assert phrase in flat, f"{phrase!r} is missing from:\n{self.output}"
        return self


class Running:
    """An ansible command that runs."""

    def __init__(self, argv: list[str], environment: dict[str, str], output: pathlib.Path) -> None:
        self.argv = argv
        self.path = output
        self._stream = output.open("wb")
        self._began = time.monotonic()
        self.process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=self._stream, stderr=subprocess.STDOUT
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        return self.path.read_text(encoding="utf-8", errors="replace")

    def end(self, timeout: float = 300.0) -> Ended:
        """Wait for its end."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{' '.join(self.argv)} did not end in {timeout:.0f} s:\n{self.output()}") from None
        finally:
            self._stream.close()
        return Ended(self.argv, status, self.output(), time.monotonic() - self._began, self.steps())

    def steps(self) -> list[dict[str, t.Any]]:
        """Return how long each task took that has ended so far."""
        path = self.path.with_suffix(".steps")
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the signal to ansible-playbook itself, not to its workers, and reap it."""
        self.process.send_signal(number)
        self.process.wait(60)
        self._stream.close()


class Farm:
    """One controller that uses a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        root: pathlib.Path,
        *,
        arch: str = "debian-amd64",
        branch: str = "bookworm",
        python: str = sys.executable,
        variables: t.Mapping[str, t.Any] | None = None,
    ) -> None:
        self.cluster = cluster
        self.root = root
        self.arch = arch
        self.branch = branch
        self.bin = pathlib.Path(python).parent
        self.variables: dict[str, t.Any] = {
            "portbuild_root": str(root),
            "portbuild_arch": arch,
            "portbuild_branch": branch,
            "portbuild_system": "debian",
            "portbuild_sourcedir": str(SOURCES),
            "portbuild_min_free": "100M",
            "portbuild_machine_min_free": "200M",
            **(variables or {}),
        }
        root.mkdir(parents=True, exist_ok=True)

    # -- commands --------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.bin), os.environ.get("PATH", "/usr/bin:/bin")])
        return {
            **os.environ,
            **self.cluster.environment(),
            "PATH": path,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
            "ANSIBLE_CALLBACKS_ENABLED": "portbuild_steps",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, playbook: str, *arguments: str, **variables: t.Any) -> Running:
        """Start a playbook of the collection. Keyword arguments are portbuild_ variables without their prefix."""
        wanted = {**self.variables, **{f"portbuild_{name}": value for name, value in variables.items()}}
        argv = [str(self.bin / "ansible-playbook"), f"portbuild.cluster.{playbook}", "-e", json.dumps(wanted)]
        return self._start([*argv, *arguments])

    def run_playbook(self, path: str, *arguments: str, **variables: t.Any) -> Running:
        """Start a playbook that is a test's own."""
        wanted = {**self.variables, **{f"portbuild_{name}": value for name, value in variables.items()}}
        return self._start([str(self.bin / "ansible-playbook"), path, "-e", json.dumps(wanted), *arguments])

    def play(self, playbook: str, *arguments: str, timeout: float = 300.0, **variables: t.Any) -> Ended:
        """Run a playbook of the collection to its end."""
        return self.start(playbook, *arguments, **variables).end(timeout)

    def adhoc(self, *arguments: str, timeout: float = 120.0, **variables: t.Any) -> Ended:
        """Run an ad-hoc ansible command to its end."""
        wanted = {**self.variables, **{f"portbuild_{name}": value for name, value in variables.items()}}
        return self._start([str(self.bin / "ansible"), *arguments, "-e", json.dumps(wanted)]).end(timeout)

    def dispatch(self, package: str, *arguments: str, timeout: float = 300.0, **variables: t.Any) -> Ended:
        """Dispatch one package."""
        return self.play("dispatch", *arguments, timeout=timeout, package=package, **variables)

    def _start(self, argv: list[str]) -> Running:
        output = self.root.parent / f"run-{os.getpid()}-{next(_RUNS)}.out"
        environment = {**self.environment(), "PORTBUILD_STEPS": str(output.with_suffix(".steps"))}
        return Running(argv, environment, output)

    # -- state on the controller -----------------------------------------------------------------------------------

    @property
    def queue(self) -> pathlib.Path:
        return self.root / self.arch / "queue"

    @property
    def branch_directory(self) -> pathlib.Path:
        return self.root / self.arch / self.branch

    @property
    def packages(self) -> pathlib.Path:
        return self.branch_directory / "packages" / "All"

    def counters(self) -> dict[str, int | None]:
        """Return each machine's counter, None where there is no file."""
        found: dict[str, int | None] = {}
        for client in self.cluster.clients:
            path = self.queue / client.name
            found[client.name] = int(path.read_text(encoding="ascii")) if path.exists() else None
        return found

    def leases(self) -> list[str]:
        """Return the names of all leases, those kept aside included."""
        claims = self.queue / ".claims"
        return sorted(str(path.relative_to(claims)) for path in claims.rglob("[!.]*:*") if path.is_file())

    def log(self, package: str) -> str:
        return (self.branch_directory / "logs" / f"{package}.log").read_text(encoding="utf-8", errors="replace")

    def failed(self, package: str) -> bool:
        """Whether errors/ says that the last build of the package failed."""
        return (self.branch_directory / "errors" / f"{package}.log").exists()

    def builds(self, package: str) -> list[dict[str, t.Any]]:
        """Return the recorded builds of the package, oldest first, straight from the database."""
        with sqlite3.connect(self.branch_directory / "portbuild.sqlite") as database:
            database.row_factory = sqlite3.Row
            rows = database.execute("select * from builds where package = ? order by rowid", (package,)).fetchall()
        return [dict(row) for row in rows]

    # -- the clients -----------------------------------------------------------------------------------------------

    def chroots(self, client: Client) -> list[str]:
        """Return the chroots that are on the client, as ARCH/BRANCH/PACKAGE."""
        top = f"{client.scratch}/chroots"
        found = client.run(["find", top, "-mindepth", "3", "-maxdepth", "3", "-printf", "%P\\n"], check=False)
        return sorted(found.stdout.split())

    def supervisors(self, client: Client) -> list[str]:
        """Return the command lines of the supervisors that run on the client."""
        lines = (" ".join(process.argv) for process in client.processes())
        return [line for line in lines if "portbuild-supervisor" in line]

    def assert_idle(self) -> None:
        """Fail unless every slot is free and nothing of any build is left anywhere."""
        counters = self.counters()
        assert set(counters.values()) <= {0}, f"slots are taken: {counters}"
        assert self.leases() == [], f"leases are left: {self.leases()}"
        for client in self.cluster.clients:
            assert self.chroots(client) == [], f"{client.name}: chroots are left: {self.chroots(client)}"
            assert self.supervisors(client) == [], f"{client.name}: {self.supervisors(client)}"
            left = [mount for mount in client.mounts(client.scratch) if "/chroots/" in mount.point]
            assert left == [], f"{client.name}: mounts are left: {left}"

    def start_over(self) -> None:
        """Throw away all that jobs have left, as after a power failure of every machine and an administrator's rm."""
        for client in self.cluster.clients:
            client.kill()
            client.boot()
            client.run(["sh", "-c", f"rm -rf --one-file-system {client.scratch}/chroots/* {client.scratch}/kept"])
            (self.queue / client.name).write_text("0\n", encoding="ascii")
        for name in (".claims", ".offline"):
            shutil.rmtree(self.queue / name, ignore_errors=True)


def wait_for(condition: t.Callable[[], t.Any], what: str, timeout: float = 60.0, interval: float = 0.1) -> t.Any:
    """Return the condition's first true value; fail when it has none in time."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {timeout:.0f} s in vain for {what}"
        time.sleep(interval)
