# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Twelve dispatches at once on machines that take one, two and three jobs.

An administrator's shell holds the queue's lock until all twelve wait for it, and every build waits at a gate, so that
all slots are known to be taken at once. What is asserted was seen on the clients and in the queue directory.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm, Running, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    closed_gates,
    let_all_end,
    make_source,
    open_gates,
    wait_for_gates,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._watch import (
    ClientWatch,
    Held,
    Page,
    QueueWatch,
    read_page,
)

PACKAGES = [f"rush{number:02}" for number in range(12)]
MAXJOBS = {"client1": 1, "client2": 2, "client3": 3}
SLOTS = sum(MAXJOBS.values())

# The fewest jobs, among equals the first; a machine that is full is out: by hand, for empty machines with 1, 2, 3 slots.
ORDER = ["client1", "client2", "client3", "client2", "client3", "client3"]


@dataclasses.dataclass
class Rush:
    """What was seen."""

    farm: Farm
    while_held: Page
    full: Page
    partly: Page
    running_when_full: set[str]
    ended: dict[str, Ended]
    clients: dict[str, ClientWatch]
    queue: QueueWatch

    @property
    def first(self) -> list[str]:
        """The packages that got the first slots, in the order in which they did."""
        tokens = {package: self.farm.builds(package)[0]["token"] for package in self.running_when_full}
        return sorted(tokens, key=lambda package: t.cast("int", tokens[package]))


@pytest.fixture(scope="module")
def rush(farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Rush:
    farm.assert_idle()
    sources = tmp_path_factory.mktemp("sources")
    for package in PACKAGES:
        make_source(sources, package, gate=True)
    clients = {client.name: ClientWatch(client) for client in farm.cluster.clients}
    queue = QueueWatch(farm)
    running: dict[str, Running] = {}
    try:
        with Held(farm) as lock:
            for package in PACKAGES:
                running[package] = farm.start("dispatch", package=package, sourcedir=str(sources), check="off")
            # One more: the watch of the queue waits with them.
            lock.wait_for(running.values(), 1)
            while_held = read_page(farm)
        full, at_gates = look_when_full(farm, running.values())
        waiting = [package for package in PACKAGES if package not in at_gates]
        wait_for(lambda: all("for a machine" in running[package].output() for package in waiting), "words of waiting")
        partly = let_all_but_some_end(farm, running)
        open_gates(farm.cluster)
        ended = {package: process.end() for package, process in running.items()}
    finally:
        let_all_end(farm.cluster, running.values())
        queue.stop()
        for watch in clients.values():
            watch.stop()
    return Rush(farm, while_held, full, partly, at_gates, ended, clients, queue)


def look_when_full(farm: Farm, running: t.Iterable[Running]) -> tuple[Page, set[str]]:
    """Return what stands in the queue when every slot has a build at its gate, and which builds these are."""
    at_gates = set(wait_for_gates(farm.cluster, SLOTS, running))
    with Held(farm):
        return read_page(farm), at_gates


def let_all_but_some_end(farm: Farm, running: dict[str, Running]) -> Page:
    """Let builds end until the last ones, one of which on client3, hold some of the slots; return the page then."""

    def alive() -> list[str]:
        return [package for package, process in running.items() if process.process.poll() is None]

    def last_ones() -> bool:
        gates = closed_gates(farm.cluster)
        if len(alive()) > SLOTS:
            open_gates(farm.cluster, list(gates)[: len(alive()) - SLOTS])
        return len(alive()) == len(gates) == SLOTS

    wait_for(last_ones, "the last builds to be at their gates", 240, 0.3)
    package = next(gate.package for gate in closed_gates(farm.cluster).values() if gate.client.name == "client3")
    open_gates(farm.cluster, [package])
    wait_for(lambda: package not in alive(), f"{package} to end")
    with Held(farm):
        return read_page(farm)


def test_shell_that_holds_the_lock_is_waited_for(rush: Rush) -> None:
    assert rush.while_held.leases == {"client1": [], "client2": [], "client3": []}
    assert rush.while_held.counters == {"client1": "0\n", "client2": "0\n", "client3": "0\n"}
    assert rush.while_held.chroots == {"client1": [], "client2": [], "client3": []}


def test_never_more_jobs_than_maxjobs_and_all_slots_are_used(rush: Rush) -> None:
    assert {name: watch.most for name, watch in rush.clients.items()} == MAXJOBS
    for watch in rush.clients.values():
        assert watch.looks > 50, "the client was hardly looked at"
        assert max(len(sight.supervisors) for sight in watch.sights) == MAXJOBS[watch.client.name]
        assert max(len(sight.locked) for sight in watch.sights) == MAXJOBS[watch.client.name]


def test_machines_are_chosen_as_the_original_did(rush: Rush) -> None:
    assert [rush.farm.builds(package)[0]["machine"] for package in rush.first] == ORDER


def test_counters_are_what_old_scripts_expect(rush: Rush) -> None:
    assert rush.full.counters == {"client1": None, "client2": None, "client3": None}
    assert rush.partly.counters == {"client1": None, "client2": None, "client3": "2\n"}
    assert [problem for page in rush.queue.pages for problem in page.problems(MAXJOBS)] == []


def test_each_was_built_once(rush: Rush) -> None:
    for package in PACKAGES:
        rush.ended[package].ok()
        assert [build["outcome"] for build in rush.farm.builds(package)] == ["success"]
        assert len([pid for watch in rush.clients.values() for pid in watch.builds(package)]) == 1
        assert rush.farm.packages.joinpath(f"{package}_1.0_all.deb").stat().st_size > 0
        assert rush.farm.log(package).count("=== ended: success") == 1
        assert not rush.farm.failed(package)


def test_output_says_what_happened(rush: Rush) -> None:
    for package in PACKAGES:
        output = rush.ended[package].output
        built = re.findall(
            rf"{package} 1\.0 was built on (client[123]) after [0-9.]+ s\. Log: (\S+/{package}\.log)", output
        )
        assert [machine for machine, _log in built] == [rush.farm.builds(package)[0]["machine"]]
        assert pathlib.Path(built[0][1]).read_text(encoding="utf-8") == rush.farm.log(package)
        waited = bool(re.search(rf"{package} (waits|has waited [0-9]+ s) for a machine: all are busy\.", output))
        assert waited == (package not in rush.running_when_full)
        assert not re.search(r"WARNING|ERROR|Traceback|DEPRECAT", output), output


def test_everything_is_idle_afterwards(rush: Rush) -> None:
    rush.farm.assert_idle()


def test_reading_the_pages_finds_problems() -> None:
    """The judge of the pages can find fault: too many jobs, wrong counters, chroots nobody has a lease for."""
    one = {"a": ["p", "q"]}
    assert len(Page({"a": None}, one, {"a": 0}, one).problems({"a": 1})) == 1
    assert len(Page({"a": "1\n"}, one, {"a": 0}, one).problems({"a": 3})) == 1
    assert len(Page({"a": "2\n"}, {"a": ["p"]}, {"a": 1}, one).problems({"a": 3})) == 1
    assert Page({"a": "2\n"}, one, {"a": 0}, one).problems({"a": 3}) == []
    assert Page({"a": None}, one, {"a": 1}, one).problems({"a": 3}) == []
    assert len(Page({"a": None}, one, {"a": 0}, one).problems({"a": 3})) == 1
    assert Page({"a": None}, one, {"a": 0}, one).problems({"a": 3}, scripts=True) == []
    assert Page({"a": "3\n"}, one, {"a": 0}, one).problems({"a": 4}, scripts=True) == []
    for counter in ("1\n", "4\n"):
        assert len(Page({"a": counter}, one, {"a": 0}, one).problems({"a": 4}, scripts=True)) == 1
