# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever is killed at whatever moment: nothing is lost, and nothing is built twice."""

from __future__ import annotations

import collections.abc as c
import contextlib
import json
import pathlib
import random
import re
import signal
import subprocess
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, Running, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._moments import (
    Agent,
    Case,
    case_of,
    database_held,
    gate,
    go_on,
    locked,
    Postbox,
    said,
    stop_all,
    SYSTEM_PYTHON,
    WAIT_TO_BE_TOLD,
)

Moment = t.Callable[[Case], t.ContextManager[Running]]
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}


@pytest.fixture
def case(idle: Farm, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> t.Iterator[Case]:
    """A package named after the test."""
    # pytest goes on after the yield, whatever happens: pylint: disable-next=contextmanager-generator-missing-cleanup
    with case_of(idle, request.node.name, tmp_path) as case:
        yield case


# -- moments: a dispatch of the package has come to a certain point when they yield it ---------------------------------


@contextlib.contextmanager
def before_the_claim(case: Case) -> c.Iterator[Running]:
    case.source()
    running = case.start()
    case.wait_for_output(running, "PLAY [")
    yield running


@contextlib.contextmanager
def waiting_for_a_machine(case: Case) -> c.Iterator[Running]:
    """All slots are taken by somebody else's jobs, as an old script counts them."""
    case.source()
    farm = case.farm
    with locked(farm.queue / ".lock"):
        for client in farm.cluster.clients:
            (farm.queue / client.name).write_text(f"{client.spec.maxjobs}\n", encoding="ascii")
    try:
        running = case.start()
        case.wait_for_output(running, "all are busy")
        yield running
    finally:
        with locked(farm.queue / ".lock"):
            for client in farm.cluster.clients:
                (farm.queue / client.name).write_text("0\n", encoding="ascii")


@contextlib.contextmanager
def claiming_a_chroot(case: Case) -> c.Iterator[Running]:
    case.source()
    with gate(case.farm.cluster["client1"]) as held:
        running = case.start()
        held.hear("wanted")
        yield running


@contextlib.contextmanager
def starting_the_build(case: Case) -> c.Iterator[Running]:
    """The source package is on its way to the client."""
    case.source(ballast=32)
    client = case.farm.cluster["client1"]
    with Agent(client, "stall", f"{client.scratch}/incoming/*.part") as transfer:
        running = case.start()
        transfer.hear("stopped")
        yield running


@contextlib.contextmanager
def building(case: Case) -> c.Iterator[Running]:
    case.waiting_source()
    running = case.start()
    case.wait_until_building(case.farm.cluster["client1"])
    yield running


@contextlib.contextmanager
def fetching_the_results(case: Case) -> c.Iterator[Running]:
    case.source(build=WAIT_TO_BE_TOLD, result=64)
    running = case.start()
    case.let_go(case.farm.cluster["client1"])
    incoming = case.farm.packages / ".incoming"
    with case.transfer_stopped(running, incoming):
        assert all(path.stat().st_size < 64 << 20 for path in incoming.rglob("*.deb"))
        yield running


@contextlib.contextmanager
def touching_the_results(case: Case) -> c.Iterator[Running]:
    case.source()
    running = case.start()
    case.wait_for_task(running, "Touch the results")
    yield running


@contextlib.contextmanager
def recording_the_result(case: Case) -> c.Iterator[Running]:
    case.waiting_source()
    running = case.start()
    case.let_go(case.farm.cluster["client1"])
    database = case.farm.branch_directory / "portbuild.sqlite"
    with database_held(database):
        case.wait_for_task(running, "Record the result")
        case.wait_for_worker_at(running, database)
        yield running


@contextlib.contextmanager
def cleaning_the_chroot(case: Case) -> c.Iterator[Running]:
    case.waiting_source()
    client = case.farm.cluster["client1"]
    running = case.start()
    case.wait_until_building(client)
    with gate(client) as held:
        case.let_go(client)
        held.hear("wanted")
        yield running


@contextlib.contextmanager
def releasing_the_machine(case: Case) -> c.Iterator[Running]:
    case.waiting_source()
    client = case.farm.cluster["client1"]
    running = case.start()
    case.wait_until_building(client)
    with gate(client) as held:
        case.let_go(client)
        held.hear("wanted")
        lock = case.farm.queue / ".lock"
        with locked(lock):
            held.close()
            case.wait_for_task(running, "Release the machine")
            case.wait_for_worker_at(running, lock)
            yield running


MOMENTS: dict[str, Moment] = {
    "before_claim": before_the_claim,
    "claim_machine": waiting_for_a_machine,
    "claim_chroot": claiming_a_chroot,
    "build_starting": starting_the_build,
    "building": building,
    "fetch_results": fetching_the_results,
    "touch_results": touching_the_results,
    "record_result": recording_the_result,
    "clean_chroot": cleaning_the_chroot,
    "release_machine": releasing_the_machine,
}


@pytest.fixture(scope="module", autouse=True)
def used_before(farm: Farm) -> None:
    """Something was built before: there is a database to be held."""
    if not (farm.branch_directory / "portbuild.sqlite").exists():
        farm.dispatch("pb-null").ok()


@pytest.mark.parametrize("number", SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_killed(case: Case, moment: Moment, number: int) -> None:
    with moment(case) as running:
        running.kill(number)
        # Not one of its workers goes on, even where it waits for something.
        wait_for(lambda: not case.processes(), "the end of the workers", 20)
    again = case.start()
    if moment is building:
        case.wait_for_task(again, "Build the package")
        case.let_go(case.farm.cluster["client1"])
    ended = again.end().ok()
    assert said(ended.output, f"{case.package} 1.0 was built on client1")
    case.assert_built_once()
    case.assert_nothing_lost()


@pytest.mark.parametrize("number", SIGNALS.values(), ids=SIGNALS)
def test_killed_and_the_build_ends_alone(case: Case, number: int) -> None:
    client = case.farm.cluster["client1"]
    with building(case) as running:
        running.kill(number)
        wait_for(lambda: not case.processes(), "the end of the workers", 20)
    case.let_go(client)
    case.wait_until_ended(client)
    assert said(case.dispatch().ok().output, f"{case.package} 1.0 was built on client1")
    case.assert_built_once()
    case.assert_nothing_lost()


@pytest.mark.parametrize("number", SIGNALS.values(), ids=SIGNALS)
def test_killed_while_it_tells_people(case: Case, number: int) -> None:
    case.source(build="\tfalse\n")
    with Postbox() as postbox:
        case.variables = postbox.variables
        running = case.start()
        wait_for(lambda: postbox.callers, "mail", interval=0.02)
        running.kill(number)
        wait_for(lambda: not case.processes(), "the end of the workers", 20)
        postbox.open.set()
        case.dispatch().fails(f"{case.package} 1.0 failed on client1")
        assert len(postbox.messages) == 1, postbox.messages
        assert case.package in postbox.messages[0]
    assert [build["reason"] for build in case.farm.builds(case.package)] == ["failed"]
    assert len(case.supervisors()) == 1
    assert case.farm.failed(case.package)
    case.assert_nothing_lost()


# -- who comes too late ------------------------------------------------------------------------------------------------

LATE = """\
- hosts: localhost
  gather_facts: false
  vars:
    ansible_pipelining: true
  tasks:
    - portbuild.cluster.claim_chroot: {lease: "{{ lease }}"}
      delegate_to: "{{ lease.machine }}"
      ignore_errors: true
      register: claim_chroot
    - portbuild.cluster.build_package: {lease: "{{ lease }}", chroot: "{{ chroot }}"}
      delegate_to: "{{ lease.machine }}"
      ignore_errors: true
      register: build_package
    - portbuild.cluster.fetch_results: {lease: "{{ lease }}", status: "{{ status }}"}
      delegate_to: "{{ lease.machine }}"
      ignore_errors: true
      register: fetch_results
    - portbuild.cluster.touch_results: {lease: "{{ lease }}", files: []}
      ignore_errors: true
      register: touch_results
    - portbuild.cluster.record_result: {lease: "{{ lease }}", status: "{{ status }}"}
      ignore_errors: true
      register: record_result
    - portbuild.cluster.clean_chroot: {lease: "{{ lease }}", recorded: true}
      delegate_to: "{{ lease.machine }}"
      ignore_errors: true
      register: clean_chroot
    - portbuild.cluster.release_machine: {lease: "{{ lease }}"}
      ignore_errors: true
      register: release_machine
    - ansible.builtin.copy:
        dest: "{{ answers }}"
        content: "{{ dict(names | zip(names | map('extract', vars))) | to_json }}"
        mode: "0600"
"""
STEPS = (
    "claim_chroot",
    "build_package",
    "fetch_results",
    "touch_results",
    "record_result",
    "clean_chroot",
    "release_machine",
)


def by_hand(case: Case, lease: dict[str, t.Any], directory: pathlib.Path) -> dict[str, dict[str, t.Any]]:
    """Run each step with the lease, and return what it answers."""
    playbook, answers = directory / "late.yml", directory / "answers.json"
    playbook.write_text(LATE, encoding="utf-8")
    client = case.farm.cluster[lease["machine"]]
    status = {"state": "ended", "reason": "failed", "manifest": []}
    chroot = {"chroot": case.chroot(client), "backend": "overlay", "base": "0" * 64, "state": "started"}
    extra = {"lease": lease, "status": status, "chroot": chroot, "names": STEPS, "answers": str(answers)}
    case.farm.run_playbook(
        str(playbook), "-e", json.dumps(extra), package=case.package, sourcedir=str(case.sources)
    ).end(120).ok()
    found: dict[str, dict[str, t.Any]] = json.loads(answers.read_text(encoding="utf-8"))
    return found


def test_with_an_old_token_no_step_does_anything(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    client = case.farm.cluster["client1"]
    with building(case) as running:
        stale = case.lease()
        running.kill()
    again = case.start()
    case.wait_for_task(again, "Build the package")
    lease = case.lease()
    assert lease["token"] > stale["token"]
    answers = by_hand(case, stale, tmp_path_factory.mktemp("late"))
    assert [step for step in STEPS if answers[step].get("failed") is not True] == []
    assert [step for step in STEPS if answers[step].get("changed") is not False] == []
    for step in STEPS:
        assert re.search("not in force any more|was taken over", answers[step]["msg"]), answers[step]
    assert case.lease() == lease
    assert case.farm.counters()["client1"] is None
    assert case.status(client)["state"] == "running"
    case.let_go(client)
    again.end().ok()
    case.assert_built_once()
    # Nor when nobody has the job any more: there is nothing to clean and to release then, and nothing to publish.
    answers = by_hand(case, lease, tmp_path_factory.mktemp("later"))
    assert [step for step in STEPS if answers[step].get("failed") is not True] == ["clean_chroot", "release_machine"]
    assert [step for step in STEPS if answers[step].get("changed") is not False] == []
    case.assert_built_once()
    case.assert_nothing_lost()


@pytest.mark.parametrize("name", ["fetch_results", "record_result", "release_machine"])
def test_a_worker_that_sleeps_through_everything_does_no_harm(case: Case, name: str) -> None:
    with MOMENTS[name](case) as running:
        asleep = stop_all(pid for pid in case.processes() if pid != running.pid)
        assert asleep
        running.kill()
    try:
        case.dispatch().ok()
        case.assert_built_once()
        later = case.start()  # another build
        case.wait_until_building(case.farm.cluster["client1"])
        lease = case.lease()
    finally:
        go_on(asleep)
    wait_for(lambda: not set(asleep) & set(case.processes()), "the end of who slept", 20)
    assert case.lease() == lease
    case.let_go(case.farm.cluster["client1"])
    later.end().ok()
    assert [build["outcome"] for build in case.farm.builds(case.package)] == ["success", "success"]
    assert len(case.supervisors()) == 2
    case.assert_nothing_lost()


# -- on the client -----------------------------------------------------------------------------------------------------


def attempts(case: Case) -> list[tuple[str, str, bool]]:
    """Return machine, reason and whose fault it was of the recorded builds."""
    builds = case.farm.builds(case.package)
    return [(build["machine"], build["reason"], bool(build["infrastructure"])) for build in builds]


def kill_supervisor(case: Case) -> None:
    client = case.farm.cluster["client1"]
    client.run(["kill", "-KILL", str(case.wait_until_building(client)["pid"])])


def test_the_supervisor_is_killed(case: Case) -> None:
    with building(case) as running:
        kill_supervisor(case)
        case.let_go(case.farm.cluster["client2"])
        ended = running.end().ok()
    assert said(ended.output, f"{case.package} 1.0 was built on client2")
    assert attempts(case) == [("client1", "killed", True), ("client2", "success", False)]
    assert not case.farm.failed(case.package)
    assert len(case.supervisors()) == 2
    case.assert_nothing_lost()


def test_supervisor_and_dispatch_are_killed(case: Case) -> None:
    with building(case) as running:
        running.kill()
        kill_supervisor(case)
    # The module that the dispatch had waiting is still there, and sees it.
    case.wait_until_ended(case.farm.cluster["client1"])
    again = case.start()
    case.let_go(case.farm.cluster["client2"])
    assert said(again.end().ok().output, f"{case.package} 1.0 was built on client2")
    assert attempts(case) == [("client1", "killed", True), ("client2", "success", False)]
    case.assert_nothing_lost()


def test_the_module_that_claims_a_chroot_is_killed(case: Case) -> None:
    case.source()
    client = case.farm.cluster["client1"]
    with gate(client) as held:
        running = case.start()
        client.run(["kill", "-KILL", held.hear("wanted")])
    ended = running.end().ok()
    assert said(ended.output, f"{case.package} 1.0 was built on client2")
    assert said(ended.output, "claim_chroot on client1")
    case.assert_built_once()
    case.assert_nothing_lost()


def test_the_module_that_cleans_a_chroot_is_killed(case: Case) -> None:
    client = case.farm.cluster["client1"]
    with building(case) as running, gate(client) as held:
        case.let_go(client)
        client.run(["kill", "-KILL", held.hear("wanted")])
        ended = running.end().ok()
    assert said(ended.output, "left as lost")
    case.assert_built_once()
    assert case.farm.leases() == [f"held/client1:{case.farm.branch}:{case.package}"]
    assert case.farm.counters()["client1"] == 0
    case.farm.play("cleanup").ok()
    case.assert_nothing_lost()


def test_the_module_that_waits_for_the_build_is_killed(case: Case) -> None:
    client = case.farm.cluster["client1"]
    with building(case) as running:
        waiting = [process.pid for process in client.processes() if process.argv == [SYSTEM_PYTHON]]
        assert waiting
        client.run(["kill", "-KILL", *map(str, waiting)])
        case.let_go(case.farm.cluster["client2"])
        ended = running.end().ok()
    assert said(ended.output, "build_package on client1")
    assert said(ended.output, f"{case.package} 1.0 was built on client2")
    case.assert_nothing_lost()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(case: Case, seed: int) -> None:
    """At random moments, and the next one starts while the workers of the last are still dying."""
    rng = random.Random(seed)
    case.source(result=16)
    began = time.monotonic()
    case.dispatch().ok()
    longest = time.monotonic() - began
    for _round in range(25):
        running = case.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(rng.uniform(0, longest))
        running.kill(rng.choice(list(SIGNALS.values())))
    case.dispatch().ok()
    wait_for(lambda: not case.processes(), "the end of all dispatches", 20)
    builds = case.farm.builds(case.package)
    assert {build["reason"] for build in builds} == {"success"}
    # Each build that was ever started was brought home.
    assert len(builds) == len(case.supervisors())
    case.assert_nothing_lost()
