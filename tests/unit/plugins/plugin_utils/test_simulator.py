# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator: the same schedule, with a virtual clock."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._graph import Graph
from ansible_collections.portbuild.cluster.plugins.plugin_utils._schedule import (
    BAD,
    Dispatch,
    Limits,
    Options,
    Schedule,
    State,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._simulator import Build, Outcome, Simulator

TREE = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
SECONDS = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}


def make(slots: int) -> Schedule:
    graph = Graph(TREE.items())
    schedule = Schedule(graph, graph.seconds(SECONDS))
    schedule.machine_came("m", slots)
    return schedule


def duration(dispatch: Dispatch) -> float:
    return SECONDS[dispatch.package]


def test_a_build_in_a_moment() -> None:
    result = Simulator(make(1), duration).run()
    assert (result.makespan, result.work) == (10.0, 10.0)
    result = Simulator(make(2), duration).run()
    assert result.makespan == 8.0
    assert result.builds[-1] == Build("d", "m", 4.0, 8.0, 1, Outcome.BUILT)


def test_failures_and_attempts() -> None:
    schedule = make(2)
    ends = {("b", 1): Outcome.INFRASTRUCTURE, ("c", 1): Outcome.FAILED}
    result = Simulator(schedule, duration, lambda d: ends.get((d.package, d.attempt), Outcome.BUILT)).run()
    assert [(build.package, build.start) for build in result.builds] == [("a", 0), ("b", 1), ("c", 1), ("b", 13)]
    assert schedule.state("d") is State.SKIPPED


def test_people_and_machines() -> None:
    schedule = make(1)
    simulator = Simulator(schedule, duration)
    simulator.at(0.5, lambda: schedule.machine_went("m"))
    simulator.at(20, lambda: schedule.machine_came("n", 2))
    assert simulator.run().makespan == 27.0
    schedule = make(1)
    simulator = Simulator(schedule, duration)
    simulator.at(1.5, schedule.stop)
    assert simulator.run().makespan == 4.0
    assert schedule.counts[State.QUEUED] == 2


def test_what_finds_no_machine_is_given_up() -> None:
    schedule = make(0)
    assert Simulator(schedule, duration).run().makespan == 0.0
    assert schedule.reason("a") == "No machine takes it."


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), slots=st.lists(st.integers(1, 3), min_size=1, max_size=3), retry=st.booleans())
def test_any_build_ends_as_it_must(seed: int, slots: list[int], retry: bool) -> None:
    chance = random.Random(seed)
    names = [f"p{number:02}" for number in range(30)]
    graph = Graph((name, chance.sample(names[:at], min(at, chance.randrange(4)))) for at, name in enumerate(names))
    seconds = [float(chance.randrange(20)) for _unused in names]
    limits = {
        chance.choice(names): Limits(slots=chance.randrange(1, 4), alone=chance.random() < 0.3) for _unused in "123"
    }
    schedule = Schedule(graph, seconds, limits=limits, options=Options(retry_alone=retry))
    for number, maxjobs in enumerate(slots):
        schedule.machine_came(f"m{number}", maxjobs)
    outcomes = [*[Outcome.BUILT] * 8, Outcome.FAILED, Outcome.INFRASTRUCTURE]
    simulator = Simulator(schedule, lambda d: seconds[graph.number[d.package]], lambda _d: chance.choice(outcomes))
    result = simulator.run()
    ended = schedule.states()
    assert not {State.QUEUED, State.RUNNING} & set(ended.values())
    for name, state in ended.items():
        needs_bad = any(ended[graph.names[needed]] in BAD for needed in graph.needs[graph.number[name]])
        assert (state is State.SKIPPED) == needs_bad
    if all(state is State.BUILT for state in ended.values()):
        assert result.makespan >= graph.lower_bound(seconds, sum(slots)) - 1e-6
    for number, maxjobs in enumerate(slots):
        builds = [build for build in result.builds if build.machine == f"m{number}"]
        for moment in {build.start for build in builds}:
            assert sum(build.slots for build in builds if build.start <= moment < build.end) <= maxjobs


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_the_same_again(slots: int) -> None:
    assert Simulator(make(slots), duration).run() == Simulator(make(slots), duration).run()
