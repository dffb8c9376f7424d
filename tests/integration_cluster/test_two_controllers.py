# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several controllers on one queue directory: of one host, of another PID namespace, and scripts of the original kind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import subprocess
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster._cluster import as_root
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm, Running, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    let_all_end,
    make_source,
    open_gates,
    wait_for_gates,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._watch import ClientWatch, Held, QueueWatch
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._queue_yard import OLD_SCRIPT

MAXJOBS = {"client1": 1, "client2": 2, "client3": 3}


# Containers on a host share its boot id. Where the tests run in a client of a test bed, that is a mount in /proc.
_CONTAINER = r"""
cat /proc/sys/kernel/random/boot_id > "$1"
mount -t proc proc /proc
cmp -s "$1" /proc/sys/kernel/random/boot_id || mount --bind "$1" /proc/sys/kernel/random/boot_id
shift
exec "$@"
"""


class OtherContainer(Farm):
    """A controller with the same files in a PID namespace of its own, as another container on the host has it."""

    def __init__(self, farm: Farm) -> None:
        super().__init__(farm.cluster, farm.root, arch=farm.arch, branch=farm.branch)
        # Nor do containers share their ssh connections.
        self.sockets = farm.cluster.control_path_dir / "2"
        self.variables["ansible_control_path_dir"] = str(self.sockets)

    def _start(self, argv: list[str]) -> Running:
        self.sockets.mkdir(exist_ok=True)
        environment = [f"{name}={value}" for name, value in self.environment().items()]  # sudo would drop it
        user = ["setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--init-groups", "--"]
        unshare = ["unshare", "--pid", "--fork", "--mount", "--kill-child", "--"]
        container = ["sh", "-c", _CONTAINER, "sh", str(self.root.parent / "boot_id")]
        return super()._start(as_root([*unshare, *container, *user, "env", "-i", *environment, *argv]))


@pytest.fixture(scope="module")
def other(farm: Farm) -> OtherContainer:
    return OtherContainer(farm)


@contextlib.contextmanager
def watched(farm: Farm, foreign: t.Callable[[str], int]) -> t.Iterator[tuple[dict[str, ClientWatch], QueueWatch]]:
    """Watch the clients and the queue in this block."""
    clients = {client.name: ClientWatch(client) for client in farm.cluster.clients}
    queue = QueueWatch(farm, foreign)
    try:
        yield clients, queue
    finally:
        queue.stop()
        for watch in clients.values():
            watch.stop()


@contextlib.contextmanager
def ending(farm: Farm, running: list[Running]) -> t.Iterator[None]:
    """See to it that all have ended after this block, also when it failed."""
    try:
        yield
    finally:
        let_all_end(farm.cluster, running)


# -- two dispatches of one package -----------------------------------------------------------------------------------


def state_of(farm: Farm, package: str) -> dict[str, t.Any]:
    """Return all that a second dispatch of the package must not change."""
    files = {}
    for top in (farm.queue, farm.branch_directory):
        for path in sorted(top.rglob("*")):
            # Opening the database for reading may make, and remove, the files beside it.
            if path.is_file() and not path.name.startswith("portbuild.sqlite") and path.name != "bindist.tar":
                files[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    clients = {}
    for client in farm.cluster.clients:
        marker = client.run(["sh", "-c", f"cat {client.scratch}/chroots/*/*/{package}/job.json"], check=False)
        clients[client.name] = (farm.chroots(client), farm.supervisors(client), marker.stdout)
    builds = farm.builds(package) if (farm.branch_directory / "portbuild.sqlite").exists() else []
    return {"files": files, "clients": clients, "builds": builds}


def test_second_dispatch_says_who_has_the_package(idle: Farm, other: OtherContainer, tmp_path: pathlib.Path) -> None:
    """In the same and in another PID namespace, and nothing is changed by it."""
    make_source(tmp_path, "contested", gate=True)
    arguments: dict[str, t.Any] = {"package": "contested", "sourcedir": str(tmp_path), "check": "off"}
    running = [idle.start("dispatch", **arguments)]
    with ending(idle, running):
        wait_for_gates(idle.cluster, 1, running)
        before = state_of(idle, "contested")
        running += [controller.start("dispatch", **arguments) for controller in (idle, other)]
        for second in running[1:]:
            second.end().fails(
                "contested is being built on client1 already",
                f"by process {running[0].pid} on {os.uname().nodename}",
            )
        assert state_of(idle, "contested") == before
        open_gates(idle.cluster)
        running[0].end().ok()
    assert [build["outcome"] for build in idle.builds("contested")] == ["success"]


# -- two controllers and old scripts ---------------------------------------------------------------------------------


class OldScripts:
    """Scripts of the original kind, which take and give back slots as fast as they can; a context manager.

    They remove the lock file with the lock, as lockf(1) does it.
    """

    def __init__(self, farm: Farm, number: int) -> None:
        self._queue = farm.queue
        self._number = number
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> t.Self:
        pairs = [f"{machine}={maxjobs}" for machine, maxjobs in MAXJOBS.items()]
        for number in range(self._number):
            arguments = [str(self._queue), f"script{number}", "100000", "yes", *pairs]
            self._processes.append(
                subprocess.Popen(["sh", "-c", OLD_SCRIPT, "sh", *arguments], env={**os.environ, "pause": "0.3"})
            )
        return self

    def __exit__(self, *_unused: object) -> None:
        self.stop()
        for path in [self._queue / ".stop", *self._queue.glob(".log-*")]:
            path.unlink()

    def stop(self) -> None:
        """Let the scripts give back what they have, and end."""
        self._queue.joinpath(".stop").touch()
        for process in self._processes:
            process.wait(60)

    def lines(self) -> list[str]:
        """Return what the scripts have done so far."""
        return [line for path in self._queue.glob(".log-*") for line in path.read_text(encoding="ascii").splitlines()]

    def jobs(self, machine: str) -> int:
        """Return how many jobs of scripts are on the machine."""
        lines = self.lines()
        return lines.count(f"+{machine}") - lines.count(f"-{machine}")


def by_hand(farm: Farm, machine: str, change: str) -> None:
    """Change a counter as an administrator does it."""
    script = f"count=$(cat {machine}) && echo $((count {change})) > {machine}"
    subprocess.run(["flock", ".lock", "sh", "-c", script], cwd=farm.queue, check=True, timeout=60)


def test_two_controllers_and_old_scripts_share_a_queue(
    idle: Farm, other: OtherContainer, tmp_path: pathlib.Path
) -> None:
    both = ["both"]  # dispatched by both controllers at once
    packages = {idle: ["one0", "one1", *both], other: ["two0", "two1", *both]}
    for package in {"last", *packages[idle], *packages[other]}:
        make_source(tmp_path, package, commands=["sleep 1"], gate=package in both)
    by_hand(idle, "client3", "+ 1")  # a job that the administrator runs all the time
    running: list[Running] = []
    ended: dict[str, list[Ended]] = {}
    with OldScripts(idle, 2) as scripts:

        def foreign(machine: str) -> int:
            return scripts.jobs(machine) + int(machine == "client3")

        with watched(idle, foreign) as (clients, queue), ending(idle, running):
            wait_for(scripts.lines, "the scripts to begin")
            with Held(idle) as lock:
                for controller, names in packages.items():
                    running += [
                        controller.start("dispatch", package=name, sourcedir=str(tmp_path), check="off")
                        for name in names
                    ]
                # The watch of the queue and the scripts wait with them.
                lock.wait_for(running, 3)
            dispatched = [package for names in packages.values() for package in names]
            # Of each contested package one dispatch waits at the gate until the other has been refused.
            wait_for(
                lambda: sum(process.process.poll() is None for process in running) == len(both),
                "the others to end",
                240,
            )
            scripts.stop()
            # Whoever comes next puts right what the scripts left.
            idle.dispatch("last", sourcedir=str(tmp_path), check="off").ok()
            open_gates(idle.cluster)
            for package, process in zip(dispatched, running, strict=True):
                ended.setdefault(package, []).append(process.end())
        scripted = scripts.lines()
    # The administrator's job is still there, and still counted.
    assert idle.counters() == {"client1": 0, "client2": 0, "client3": 1}
    by_hand(idle, "client3", "- 1")

    assert [problem for page in queue.pages for problem in page.problems(MAXJOBS, scripts=True)] == []
    assert any(page.foreign["client1"] for page in queue.pages), "no script was seen to have a job"
    for watch in clients.values():
        assert watch.most <= MAXJOBS[watch.client.name] - int(watch.client.name == "client3")
    assert {line[0] for line in scripted} == {"+", "-"}
    for package, runs in ended.items():
        winners = [run for run in runs if run.status == 0]
        assert len(winners) == 1, "\n".join(run.output for run in runs)
        for loser in runs:
            if loser is not winners[0]:
                loser.fails(f"{package} is being built on client", "already, by process ")
        assert [build["outcome"] for build in idle.builds(package)] == ["success"]
