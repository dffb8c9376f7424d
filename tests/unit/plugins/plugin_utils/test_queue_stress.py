# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The queue under stress: kill -9 at every point, many claimers, old scripts beside them, other PID namespaces."""

from __future__ import annotations

import collections.abc as c
import functools
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._lock import Lock
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import AllBusy, JobBusy, Lease
from ansible_collections.portbuild.cluster.tests.bench import bench_queue
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._queue_yard import (
    dead_owner,
    job,
    old_script,
    script_jobs,
    Yard,
)

FORK = multiprocessing.get_context("fork")


# -- killed at every single point --------------------------------------------------------------------------------

STEPS = ("open", "write", "rename", "replace", "unlink", "utime", "mkdir")


def killed_at(number: int, action: c.Callable[[], object]) -> bool:
    """Do the action in a child that is killed before its n-th system call of interest; return whether it was."""
    pid = os.fork()
    if pid == 0:
        calls = itertools.count(1)

        def deadly(call: c.Callable[..., t.Any]) -> c.Callable[..., t.Any]:
            def wrapper(*args: t.Any, **options: t.Any) -> t.Any:
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **options)

            return wrapper

        try:
            for name in STEPS:
                setattr(os, name, deadly(getattr(os, name)))
            action()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), "the action failed by itself"
    return status != 0


class Script:
    """An old-style script that is held still between its steps."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self.jobs = 0

    def claim(self) -> None:
        path = self._yard.directory / "a1"
        if path.exists():
            count = int(path.read_text()) + 1
            if count < self._maxjobs:
                path.write_text(f"{count}\n")
            else:
                path.unlink()
            self.jobs += 1

    def release(self) -> None:
        if self.jobs:
            path = self._yard.directory / "a1"
            path.write_text(f"{int(path.read_text()) - 1 if path.exists() else self._maxjobs - 1}\n")
            self.jobs -= 1

    def nothing(self) -> None:
        pass

    @property
    def _maxjobs(self) -> int:
        return self._yard.candidates[0].maxjobs


def full(yard: Yard) -> None:
    """Let owners that are dead fill the machine."""
    dead = dead_owner()
    while yard.queue.choose(yard.candidates):
        yard.claim(f"dead{len(yard.leases())}", dead)


ACTIONS: dict[str, tuple[c.Callable[[Yard], t.Any], c.Callable[[Yard, t.Any], t.Any]]] = {
    "claim": (lambda yard: None, lambda yard, _none: yard.claim("new")),
    "release": (lambda yard: yard.claim("one"), lambda yard, lease: yard.queue.release(lease)),
    "hold": (lambda yard: yard.claim("one"), lambda yard, lease: yard.queue.release(lease, hold="uncollected")),
    "adopt": (lambda yard: yard.claim("one", dead_owner()), lambda yard, _none: yard.claim("one")),
    "adopt_held": (
        lambda yard: yard.queue.release(yard.claim("one"), hold="uncollected"),
        lambda yard, _none: yard.claim("one"),
    ),
    "take_over": (full, lambda yard, _none: yard.claim("new")),
    "update": (lambda yard: yard.claim("one"), lambda yard, lease: yard.queue.update(lease, build_token=1)),
    "offline": (lambda yard: yard.claim("one"), lambda yard, _none: yard.queue.offline("a1", "x", "y")),
    "undrain": (lambda yard: yard.queue.offline("a1", "x", "y"), lambda yard, _none: yard.queue.undrain("a1")),
}


@pytest.mark.parametrize("meanwhile", ["nothing", "claim", "release"])
@pytest.mark.parametrize("maxjobs", [2, 4])
@pytest.mark.parametrize("name", ACTIONS)
def test_killed_at_every_point(tmp_path: Path, name: str, maxjobs: int, meanwhile: str) -> None:
    """Whatever is killed wherever, and whatever a script does before we look again: every job is counted once."""
    prepare, act = ACTIONS[name]
    for number in itertools.count(1):
        yard = Yard(tmp_path / f"queue{number}", a1=maxjobs)
        script = Script(yard)
        script.claim()
        before = prepare(yard)
        if not killed_at(number, functools.partial(act, yard, before)):
            break
        getattr(script, meanwhile)()
        if yard.queue.machines()[0].offline:
            yard.queue.undrain("a1")
        yard.queue.enter("a1", maxjobs)
        state = yard.queue.machines()[0]
        assert state.ours == len(yard.leases())
        if state.state != "offline":  # else the script took the last slot: its release will tell
            assert state.foreign == script.jobs, f"killed at {number}"
            assert state.counter == (state.jobs if state.jobs < maxjobs else None)
        while script.jobs:
            script.release()
        for lease in [*yard.queue.leases(), *yard.queue.held()]:
            yard.queue.release(take_back(yard, lease))
        if yard.queue.machines()[0].offline is None:
            yard.queue.enter("a1", maxjobs)
            yard.queue.release(yard.claim("last"))
            assert yard.counters() == {"a1": "0\n"}, f"killed at {number}"
        assert yard.leases() == yard.held() == []
        yard.check()
    assert number > 3


def take_back(yard: Yard, lease: Lease) -> Lease:
    """Return the lease for a new owner, though the old one lives: the test itself."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(yard.queue, "judge", lambda _lease: "dead")
        return yard.claim(lease.job.package)


# -- many at once ------------------------------------------------------------------------------------------------


def test_many_claimers_never_exceed_maxjobs(tmp_path: Path) -> None:
    result = bench_queue.run(str(tmp_path), 24, 3.0, [1, 2, 3, 1], work=0.01)
    assert result["never_above_maxjobs"] and result["all_slots_back"] and not result["failed_claimers"]
    assert result["peaks"] == [1, 2, 3, 1], "the slots were used"
    assert result["claims"] > 100


def work(yard: Yard, name: str, deadline: float) -> None:
    """Claim and release until the deadline, with a file that says where."""
    queue = yard.open()
    owner = Owner.of(os.getpid())
    chance = random.Random(name)
    for number in itertools.count():
        if time.monotonic() > deadline:
            os._exit(0)
        try:
            lease = queue.claim(job(f"{name}-{number % 3}"), yard.candidates, owner, wait=deadline - time.monotonic())
        except AllBusy:
            os._exit(0)
        descriptor = os.open(yard.directory / ".tokens", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, b"%d\n" % lease.token)
        os.close(descriptor)
        time.sleep(chance.uniform(0, 0.02))
        queue.verify(lease)
        queue.release(lease)


def start_workers(yard: Yard, names: c.Iterable[str], deadline: float) -> list[t.Any]:
    workers = [FORK.Process(target=work, args=(yard, name, deadline)) for name in names]
    for worker in workers:
        worker.start()
    return workers


def check_totals(yard: Yard) -> None:
    """Check with the lock held: never more jobs than maxjobs, and no counter that promises too much."""
    with Lock(str(yard.directory / ".lock"), timeout=10):
        for candidate in yard.candidates:
            ours = sum(name.startswith(candidate.name + ":") for name in yard.leases())
            total = ours + script_jobs(yard, candidate.name)
            assert total <= candidate.maxjobs
            text = yard.counter(candidate.name)
            assert text is None or total <= int(text) < candidate.maxjobs


@pytest.mark.parametrize("remove", [False, True], ids=["flock", "lockf"])
def test_old_scripts_beside_us(tmp_path: Path, remove: bool) -> None:
    yard = Yard(tmp_path / "queue", a1=1, a10=2, b=3)
    deadline = time.monotonic() + 4
    workers = start_workers(yard, ["w1", "w2", "w3", "w4", "w5"], deadline)
    scripts = [old_script(yard, name, 25, remove=remove) for name in ("s1", "s2")]
    try:
        while time.monotonic() < deadline or any(script.poll() is None for script in scripts):
            check_totals(yard)
            time.sleep(0.02)
            assert time.monotonic() < deadline + 30
        for worker in workers:
            worker.join(20)
    finally:
        for process in [*workers, *scripts]:
            process.kill()
    assert [worker.exitcode for worker in workers] == [0] * 5
    assert [script.wait() for script in scripts] == [0, 0]
    for candidate in yard.candidates:
        yard.queue.enter(candidate.name, candidate.maxjobs)
    assert yard.counters() == {"a1": "0\n", "a10": "0\n", "b": "0\n"}
    assert [state.foreign for state in yard.queue.machines()] == [0, 0, 0]
    assert_tokens_unique(yard)


def assert_tokens_unique(yard: Yard) -> None:
    tokens = (yard.directory / ".tokens").read_text().splitlines()
    assert len(tokens) == len(set(tokens)) > 20


def test_kill_at_random_moments(tmp_path: Path) -> None:
    yard = Yard(tmp_path / "queue", a1=1, a10=2, b=3)
    chance = random.Random(1)
    deadline = time.monotonic() + 6
    running: dict[str, t.Any] = {}
    killed = 0
    while time.monotonic() < deadline - 1:
        for name in [f"w{number}" for number in range(10)]:
            if name not in running:
                running[name] = start_workers(yard, [name], deadline)[0]
        time.sleep(chance.uniform(0, 0.05))
        name = chance.choice(list(running))
        running[name].kill()
        running.pop(name).join()
        killed += 1
        check_totals(yard)
    for worker in running.values():
        worker.join(20)
        assert worker.exitcode == 0
    assert killed > 5  # on a machine with a lot else to do
    left = yard.queue.leases()
    for lease in [*left, *yard.queue.held()]:
        again = yard.claim(lease.job.package, wait=0)
        assert again.adopted and again.token > lease.token
        yard.queue.release(again)
    yard.queue.release(yard.claim("last"))
    assert yard.leases() == yard.held() == []
    assert yard.counters() == {"a1": "0\n", "a10": "0\n", "b": "0\n"}
    assert_tokens_unique(yard)
    yard.check()


# -- another PID namespace ---------------------------------------------------------------------------------------

CLAIM = """
import os, sys, time
from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Candidate, JobBusy
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue_files import FileQueue
queue = FileQueue(sys.argv[1], arch="amd64")
try:
    queue.claim(Job("amd64", "bookworm", sys.argv[2]), [Candidate("a1", 2)], Owner.of(os.getpid()), wait=0)
    print("claimed", flush=True)
except JobBusy:
    print("busy", flush=True)
sys.stdin.read()
"""


def in_namespace(yard: Yard, package: str) -> subprocess.Popen[str]:
    """Claim in a process in a PID namespace of its own, which then waits for the end of its input."""
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        sys.executable,
        "-c",
        CLAIM,
        str(yard.directory),
        package,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.root
def test_owner_in_another_pid_namespace_is_judged_by_time(tmp_path: Path) -> None:
    yard = Yard(tmp_path / "queue", a1=2)
    with in_namespace(yard, "one") as inside:
        assert said(inside) == "claimed"
        owner = yard.queue.leases()[0].owner
        assert owner is not None and owner.pid == 1
        with pytest.raises(JobBusy):
            yard.claim("one")
        inside.communicate("")
    # It is dead now, but nobody can know before its time is over. (Pid 1 lives here, whatever it means.)
    with pytest.raises(JobBusy):
        yard.claim("one")
    yard.offset = yard.queue.lease_ttl + 1
    assert yard.claim("one").adopted


@pytest.mark.root
def test_our_owner_is_not_judged_by_pid_from_another_namespace(tmp_path: Path) -> None:
    yard = Yard(tmp_path / "queue", a1=2)
    yard.claim("one")
    with in_namespace(yard, "one") as inside:
        assert said(inside) == "busy"
        inside.communicate("")
    with in_namespace(yard, "two") as inside:
        assert said(inside) == "claimed"
        with pytest.raises(AllBusy):
            yard.claim("three")
        inside.communicate("")
    assert len(yard.leases()) == 2
