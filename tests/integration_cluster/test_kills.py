# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever is killed at whatever moment: nothing is lost, and nothing is built twice."""

from __future__ import annotations

import collections.abc as c
import contextlib
import json
import pathlib
import re
import signal
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, Running, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._moments import (
    Agent,
    Case,
    case_of,
    database_held,
    gate,
    locked,
    Postbox,
)

Moment = t.Callable[[Case], t.ContextManager[Running]]
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}


@pytest.fixture
def case(idle: Farm, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> t.Iterator[Case]:
    """A package named after the test."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")
    with case_of(idle, f"pb-{name}"[:80].rstrip("-"), tmp_path) as case:
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
    case.source(build="\tmkdir -p tree; head -c 64M /dev/urandom > tree/ballast\n")
    running = case.start()
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
    case.source()
    database = case.farm.branch_directory / "portbuild.sqlite"
    with database_held(database):
        running = case.start()
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
    assert f"{case.package} 1.0 was built on client1" in ended.output
    case.assert_built_once()
    case.assert_nothing_lost()
