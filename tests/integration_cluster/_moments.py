# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a test meets a dispatch at a certain moment, and looks whether anything was lost.

Nothing in the collection helps with that: the moments are made by holding what the next step needs (a lock, the
database, the mail server), by stopping the process that transfers a file, and by builds that wait to be told.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import socketserver
import sqlite3
import subprocess
import threading
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.cluster._cluster import as_root
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import (
    Ended,
    Farm,
    Running,
    SOURCES,
    wait_for,
)

AGENT = pathlib.Path(__file__).with_name("_agent.py")
SYSTEM_PYTHON = "/usr/bin/python3"
ROLE = "portbuild.cluster.dispatch"
WAIT_TO_BE_TOLD = "\techo waiting; until [ -e /build/go ]; do sleep 0.1; done\n"


class Agent:
    """A helper inside a client; leaving the context ends it."""

    def __init__(self, client: Client, command: str, argument: str) -> None:
        source = AGENT.read_text(encoding="utf-8")
        self._process = subprocess.Popen(
            client.enter([SYSTEM_PYTHON, "-I", "-u", "-c", source, command, argument]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.heard: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> t.Self:
        try:
            self.hear("held", "ready")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.heard.append(line.strip())
            self._lines.put(line.strip())

    def hear(self, *words: str, timeout: float = 60.0) -> str:
        """Return what follows one of the words, when it is said."""
        while True:
            try:
                line = self._lines.get(timeout=timeout)
            except queue.Empty:
                raise AssertionError(f"waited {timeout:.0f} s in vain for {' or '.join(words)}") from None
            if line.split(" ")[0] in words:
                return line.partition(" ")[2]

    def close(self) -> None:
        """End it, and wait until it has undone what it did."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        # When a client freezes, nsenter stops with its child, and nobody but us wakes it.
        subprocess.run(as_root(["kill", "-CONT", "--", f"-{self._process.pid}"]), capture_output=True, check=False)
        self._process.wait(30)
        self._thread.join(30)
        if self._process.stdout is not None:
            self._process.stdout.close()


def gate(client: Client) -> Agent:
    """Hold the lock that the client's modules need to claim, start, hold or clean a chroot."""
    return Agent(client, "gate", f"{client.scratch}/chroots/.lock")


@contextlib.contextmanager
def locked(path: pathlib.Path) -> t.Iterator[None]:
    """Hold a lock on the controller."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def database_held(path: pathlib.Path) -> t.Iterator[None]:
    """Keep everybody else from writing to the database; they may read."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("begin immediate")
        try:
            yield
        finally:
            database.execute("rollback")


# -- processes on the controller ---------------------------------------------------------------------------------------


def processes_of(package: str) -> list[int]:
    """Return the ansible-playbook of the package's dispatch and its workers, which are forks of it."""
    mark = json.dumps({"portbuild_package": package})[1:-1].encode()
    return [pid for pid in all_processes() if mark in command_line(pid)]


def all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid: int) -> bytes:
    """Return the process's arguments; nothing if it has ended, be it reaped or not."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def open_files(pid: int) -> list[str]:
    """Return the names of the files that the process has open."""
    names = []
    with contextlib.suppress(OSError):
        for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                names.append(os.readlink(entry))
    return names


def users_of(path: pathlib.Path, among: t.Iterable[int]) -> list[int]:
    """Return those of the processes that have the file, or one below the directory, open."""
    wanted = str(path.resolve())
    return [pid for pid in among if any(name == wanted or name.startswith(f"{wanted}/") for name in open_files(pid))]


def stop_all(pids: t.Iterable[int]) -> list[int]:
    """Stop the processes and return those that were there."""
    stopped = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
    return stopped


def go_on(pids: t.Iterable[int]) -> None:
    """Let stopped processes go on; those that were killed meanwhile are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def said(output: str, text: str) -> bool:
    """Say whether the text was printed, be it on several lines."""
    return "".join(text.split()) in "".join(output.split())


# -- mail --------------------------------------------------------------------------------------------------------------


class Postbox(socketserver.ThreadingTCPServer):
    """A mail server that says nothing before it is opened."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Postman)
        self.open = threading.Event()
        self.callers: list[t.Any] = []
        self.messages: list[str] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __exit__(self, *_exception: object) -> None:
        self.open.set()
        self.shutdown()
        self.server_close()

    @property
    def variables(self) -> dict[str, t.Any]:
        """The settings that make a dispatch use it."""
        return {"mail_host": "127.0.0.1", "mail_port": self.server_address[1], "mail_to": ["somebody@example.org"]}


class _Postman(socketserver.StreamRequestHandler):
    server: Postbox

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.server.callers.append(self.client_address)
            self.server.open.wait(120)
            self.wfile.write(b"220 postbox\r\n")
            while line := self.rfile.readline():
                if line.upper().startswith(b"DATA"):
                    self.wfile.write(b"354 go ahead\r\n")
                    message = iter(self.rfile.readline, b".\r\n")
                    self.server.messages.append(b"".join(message).decode("utf-8", "replace"))
                self.wfile.write(b"250 yes\r\n")
                if line.upper().startswith(b"QUIT"):
                    break


# -- a package and its dispatches --------------------------------------------------------------------------------------


@dataclasses.dataclass
class Case:
    """A package of the test's own, and what is known of its builds."""

    farm: Farm
    package: str
    sources: pathlib.Path
    stack: contextlib.ExitStack
    variables: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    counts: list[tuple[Client, Agent]] = dataclasses.field(default_factory=list)

    # -- the package

    def source(self, *, build: str = "", ballast: int = 0, result: int = 0) -> None:
        """Make the source package.

        C(build) are commands of its build, C(ballast) and C(result) the least size in MiB of the source and the package.
        """
        likeness = "pb-big" if result else "pb-null"
        target = self.sources / self.package
        shutil.copytree(SOURCES / likeness, target)
        for path in target.glob("debian/*"):
            if path.is_file():
                text = path.read_text(encoding="utf-8").replace(likeness, self.package)
                path.write_text(text.replace("build:\n", f"build:\n{build}", 1), encoding="utf-8")
        if result:
            (target / "debian" / "size").write_text(f"{result}\n", encoding="ascii")
        if ballast:
            (target / "ballast").write_bytes(bytes(ballast << 20))

    def waiting_source(self) -> None:
        """Make a source package whose build waits until it is told to go on."""
        self.source(build=WAIT_TO_BE_TOLD)

    # -- its dispatches

    def start(self, *arguments: str, **variables: t.Any) -> Running:
        """Start a dispatch of the package."""
        wanted = {"package": self.package, "sourcedir": str(self.sources), **self.variables, **variables}
        return self.farm.start("dispatch", *arguments, **wanted)

    def dispatch(self, *arguments: str, timeout: float = 120.0, **variables: t.Any) -> Ended:
        """Dispatch the package."""
        return self.start(*arguments, **variables).end(timeout)

    def processes(self) -> list[int]:
        """Return its dispatches' processes on the controller."""
        return processes_of(self.package)

    def lease(self, machine: str = "client1") -> dict[str, t.Any]:
        """Return the lease that is in force, as the steps hand it on."""
        claims = self.farm.queue / ".claims"
        record = json.loads((claims / f"{machine}:{self.farm.branch}:{self.package}").read_text(encoding="utf-8"))
        return {
            "arch": self.farm.arch,
            "branch": self.farm.branch,
            "package": self.package,
            "machine": machine,
            "queue": (claims / "id").read_text(encoding="ascii").strip(),
            "token": record["token"],
        }

    # -- its build

    def chroot(self, client: Client) -> str:
        return f"{client.scratch}/chroots/{self.farm.arch}/{self.farm.branch}/{self.package}"

    def status(self, client: Client) -> dict[str, t.Any]:
        """Return what the supervisor on the client says; nothing before it says anything."""
        shown = client.run(["cat", f"{self.chroot(client)}/status.json"], check=False)
        return json.loads(shown.stdout) if shown.returncode == 0 else {}

    def wait_until_building(self, client: Client) -> dict[str, t.Any]:
        """Return the status when the build waits to be told."""

        def waiting() -> dict[str, t.Any]:
            status = self.status(client)
            return status if status.get("phase") == "build" and status.get("last_line") == "waiting" else {}

        found: dict[str, t.Any] = wait_for(waiting, f"{self.package} to be built on {client.name}")
        return found

    def wait_until_ended(self, client: Client) -> None:
        """Wait until the build has ended and the supervisor is gone."""
        wait_for(lambda: self.status(client).get("state") == "ended", f"the end of {self.package} on {client.name}")
        wait_for(lambda: not self.farm.supervisors(client), f"the end of the supervisor on {client.name}")

    def let_go(self, client: Client) -> None:
        """Tell the build that waits to go on, or, while that of an earlier build is shown, the one that will."""

        def told() -> bool:
            pid = self.wait_until_building(client)["step_pid"]
            return client.run(["touch", f"/proc/{pid}/root/build/go"], check=False).returncode == 0

        wait_for(told, f"{self.package} to be built on {client.name}")

    def count_on(self, client: Client) -> None:
        """Count the supervisors that are started on the client, until it is switched off."""
        self.counts.append((client, self.stack.enter_context(Agent(client, "census", f"{client.scratch}/chroots"))))

    def supervisors(self) -> list[str]:
        """Return a line for each supervisor that was ever started for the package."""
        heard = [(client.name, line.split(" ")) for client, agent in self.counts for line in agent.heard]
        return sorted({f"{name}: {' '.join(words[1:])}" for name, words in heard if words[0] == self.package})

    # -- the moments

    def wait_for_output(self, running: Running, text: str, timeout: float = 60.0) -> None:
        """Wait until the dispatch has printed the text."""

        def printed() -> bool:
            assert running.process.poll() is None, f"the dispatch ended before {text!r}:\n{running.output()}"
            return said(running.output(), text)

        try:
            wait_for(printed, f"{text!r} of {self.package}", timeout, interval=0.005)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{running.output()}") from None

    def wait_for_task(self, running: Running, name: str, timeout: float = 60.0) -> None:
        """Wait until the task of the role has begun."""
        self.wait_for_output(running, f"TASK [{ROLE} : {name}]", timeout)

    def wait_for_worker_at(self, running: Running, path: pathlib.Path, *, but: t.Collection[int] = ()) -> list[int]:
        """Return the workers of the dispatch that have the file open."""

        def found() -> list[int]:
            return users_of(path, [pid for pid in self.processes() if pid != running.pid and pid not in but])

        workers: list[int] = wait_for(found, f"a step of {self.package} at {path}", interval=0.02)
        return workers

    @contextlib.contextmanager
    def transfer_stopped(self, running: Running, directory: pathlib.Path) -> t.Iterator[list[int]]:
        """Stop the process that writes a file below the directory of the controller."""

        def stopped() -> list[int]:
            assert running.process.poll() is None, f"the dispatch ended:\n{running.output()}"
            began = directory.is_dir() and any(path.is_file() for path in directory.rglob("*"))
            return stop_all(users_of(directory, self._transferring())) if began else []

        pids = wait_for(stopped, f"a transfer into {directory}", interval=0.002)
        try:
            yield pids
        finally:
            go_on(pids)

    def _transferring(self) -> list[int]:
        """Return the processes that run a transfer program."""
        return [
            pid for pid in all_processes() if os.path.basename(command_line(pid).split(b"\0")[0]) in (b"sftp", b"scp")
        ]

    # -- afterwards

    def assert_built_once(self, *, supervisors: int = 1) -> None:
        """Fail unless there was one build, it is recorded once, and its results are there."""
        builds = [(build["outcome"], build["reason"]) for build in self.farm.builds(self.package)]
        assert builds == [("success", "success")], builds
        assert len(self.supervisors()) == supervisors, self.supervisors()
        assert self.farm.log(self.package).count("=== ended:") == 1
        assert not self.farm.failed(self.package)
        assert sorted(path.suffix for path in self.farm.packages.glob(f"{self.package}_*")) == [
            ".buildinfo",
            ".changes",
            ".deb",
        ]

    def assert_nothing_lost(self) -> None:
        """Fail unless no process, slot, chroot, mount or temporary file is left."""
        wait_for(lambda: not self.processes(), f"the end of the dispatches of {self.package}", 20)
        try:
            wait_for(lambda: not any(map(strangers, self.farm.cluster.clients)), "the end of all modules", 90)
        except AssertionError as error:
            raise AssertionError(f"{error}: {[strangers(client) for client in self.farm.cluster.clients]}") from None
        self.farm.assert_idle()
        assert temporary_files(self.farm) == [], temporary_files(self.farm)
        for client in self.farm.cluster.clients:
            assert leftovers(client) == [], f"{client.name}: {leftovers(client)}"


def strangers(client: Client) -> list[str]:
    """Return what runs on the client but sshd and the test's own helpers."""
    ours = [SYSTEM_PYTHON, "-I", "-u", "-c"]
    found = [process.argv for process in client.processes() if process.argv[:4] != ours]
    return [" ".join(argv) for argv in found if not argv[0].startswith(("sshd", "/usr/sbin/sshd"))]


def temporary_files(farm: Farm) -> list[str]:
    """Return what is left on the controller under a temporary name."""
    hidden = [path for path in (farm.queue / ".claims").rglob(".*") if path.is_file()]
    # The counters that the last change of the queue replaced go with the next one.
    newest = max((path.name.split(":")[1] for path in hidden if path.name.startswith(".gone:")), key=int, default="")
    found = [path for path in hidden if not path.name.startswith(f".gone:{newest}:")]
    found += (farm.branch_directory / ".incoming").glob(".*")
    for directory in ("packages/All", "logs", "errors", "distfiles", "workdirs"):
        top = farm.branch_directory / directory
        found += [path for path in top.rglob("*") if path.is_file() and ".incoming" in path.parts]
        found += [path for path in top.rglob(".*") if path.is_file()]
    return sorted(str(path.relative_to(farm.root)) for path in found)


def leftovers(client: Client) -> list[str]:
    """Return what is left in the scratch directory under a temporary name, or on its way into or out of it."""
    places = [f"{client.scratch}/{name}" for name in ("incoming", "trash", "chroots")]
    found = client.run(["find", *places, "-mindepth", "1", "-not", "-type", "d", "-not", "-name", ".lock"], check=False)
    return found.stdout.split()


@contextlib.contextmanager
def case_of(farm: Farm, test: str, sources: pathlib.Path) -> t.Iterator[Case]:
    """Yield a case with a package named after the test, whose builds are counted on all clients."""
    name = re.sub(r"[^a-z0-9]+", "-", test.lower().removeprefix("test_")).strip("-")
    with contextlib.ExitStack() as stack:
        case = Case(farm, f"pb-{name}"[:80].rstrip("-"), sources, stack)
        for client in farm.cluster.clients:
            case.count_on(client)
        yield case
        repair(case)


def repair(case: Case) -> None:
    """Let the machines work again, and nobody work on the package, whatever the test came to."""
    for client in case.farm.cluster.clients:
        client.boot()
        client.thaw()
        if not any(process.argv[0].startswith(("sshd:", "/usr/sbin/sshd")) for process in client.processes()):
            client.start_sshd()
    for pid in case.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
