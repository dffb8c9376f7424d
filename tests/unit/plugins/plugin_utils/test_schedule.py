# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The schedule: each rule by example, and any order of events against a model that looks at everything each time."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, RuleBasedStateMachine

from ansible_collections.portbuild.cluster.plugins.plugin_utils._graph import Graph
from ansible_collections.portbuild.cluster.plugins.plugin_utils._schedule import (
    BAD,
    BadEvent,
    Dispatch,
    Limits,
    Options,
    Schedule,
    State,
    THERE,
)


def make(
    tree: dict[str, str], machines: dict[str, int], seconds: dict[str, float] | None = None, **more: t.Any
) -> Schedule:
    graph = Graph((name, needs.split()) for name, needs in tree.items())
    schedule = Schedule(graph, graph.seconds(seconds or {}), **more)
    for name, maxjobs in machines.items():
        schedule.machine_came(name, maxjobs)
    return schedule


def placed(found: list[Dispatch]) -> list[str]:
    return [f"{dispatch.package}@{dispatch.machine}" for dispatch in found]


def over(schedule: Schedule) -> bool:
    return schedule.finished


def states(schedule: Schedule) -> dict[str, str]:
    return {name: state.value for name, state in schedule.states().items()}


# -- order -------------------------------------------------------------------------------------------------------------


def test_longest_remaining_path_first_then_by_name() -> None:
    schedule = make(
        {"short": "", "long": "", "first": "", "last": "first", "b": "", "a": ""},
        {"m": 1},
        {"short": 1, "long": 50, "first": 1, "last": 60, "a": 7, "b": 7},
    )
    order = []
    while not schedule.finished:
        (dispatch,) = schedule.decide(0)
        order.append(dispatch.package)
        schedule.built(dispatch.package)
    assert order == ["first", "last", "long", "a", "b", "short"]


def test_without_history_early() -> None:
    schedule = make({"new": "", "usual": "", "long": ""}, {"m": 3}, {"usual": 5, "long": 10})
    assert [dispatch.package for dispatch in schedule.decide(0)] == ["long", "new", "usual"]


def test_fewest_jobs_then_rank_and_never_above_maxjobs() -> None:
    schedule = make(dict.fromkeys("abcdefgh", ""), {})
    schedule.machine_came("late", 2, rank=2)
    schedule.machine_came("early", 3, rank=1)
    assert placed(schedule.decide(0)) == ["a@early", "b@late", "c@early", "d@late", "e@early"]
    assert schedule.decide(0) == []
    schedule.built("b")
    assert placed(schedule.decide(0)) == ["f@late"]
    schedule.machine_changed("late", 1)
    schedule.built("d")
    assert schedule.decide(0) == []
    schedule.machine_went("early")
    schedule.built("a")
    assert schedule.decide(0) == []
    schedule.machine_came("early", 3, rank=1)
    assert placed(schedule.decide(0)) == ["g@early"]


def test_given_priorities_replace_the_path() -> None:
    schedule = make(dict.fromkeys("abc", ""), {"m": 3}, priorities=[1.0, 3.0, 2.0])
    assert [dispatch.package for dispatch in schedule.decide(0)] == ["b", "c", "a"]


# -- propagation -------------------------------------------------------------------------------------------------------


def test_skipped_names_the_chain_and_comes_back() -> None:
    schedule = make({"a": "", "b": "a", "c": "b", "other": "", "d": "c other"}, {"m": 2})
    schedule.decide(0)
    schedule.failed("a", "configure")
    assert states(schedule) == {"a": "failed", "b": "skipped", "c": "skipped", "d": "skipped", "other": "running"}
    assert schedule.culprits("d") == ("c", "b", "a")
    assert schedule.reason("d") == "a is failed (by way of c, b)."
    assert schedule.reason("b") == "a is failed."
    assert schedule.reason("a") == "configure"
    assert schedule.blocks("a") == 3
    schedule.failed("other")
    with pytest.raises(BadEvent, match=r"c is skipped\. Retry a"):
        schedule.retry("c")
    schedule.retry("a")
    assert states(schedule) == {"a": "queued", "b": "queued", "c": "queued", "d": "skipped", "other": "failed"}
    assert schedule.culprits("d") == ("other",)
    assert schedule.counts[State.QUEUED] == 3


def test_ignored_cycles_and_missing_are_reasons() -> None:
    schedule = make(
        {"a": "", "b": "a", "x": "y", "y": "x", "z": "nowhere", "good": "", "after": "y"},
        {"m": 9},
        ignored={"a": "It is marked BROKEN."},
    )
    assert placed(schedule.decide(0)) == ["good@m"]
    assert states(schedule) == {
        **dict.fromkeys("axyz", "ignored"), "b": "skipped", "after": "skipped", "good": "running"
    }  # fmt: skip
    assert schedule.reason("a") == "It is marked BROKEN."
    assert schedule.reason("y") == "It is in a cycle of 2: x needs y needs x."
    assert schedule.reason("z") == "It needs nowhere, which is not there."
    with pytest.raises(BadEvent, match=r"a is ignored\. Only what failed"):
        schedule.retry("a")


def test_fetched_counts_as_there() -> None:
    schedule = make({"a": "", "b": "a", "c": "b"}, {"m": 9}, fetched=["a"])
    assert placed(schedule.decide(0)) == ["b@m"]
    schedule.failed("b")
    schedule.fetched("b")
    assert placed(schedule.decide(0)) == ["c@m"]
    schedule.built("c")
    assert schedule.finished
    with pytest.raises(BadEvent, match="c is said to be fetched, but it is built"):
        schedule.fetched("c")


# -- trouble -----------------------------------------------------------------------------------------------------------


def test_infrastructure_does_not_count_and_goes_elsewhere_later() -> None:
    schedule = make({"a": "", "b": "a"}, {"m": 1, "n": 1})
    assert placed(schedule.decide(0)) == ["a@m"]
    assert not schedule.infrastructure_failed("a", 100, "The disk is full.")
    assert schedule.state("b") is State.QUEUED
    assert schedule.decide(100) == []
    assert schedule.why("a") == "It is tried again soon: 1 of 5 attempts are gone. The disk is full."
    assert schedule.wake_at() == 110
    assert schedule.decide(110) == [Dispatch("a", "n", 1, 1, 2)]
    schedule.infrastructure_failed("a", 200)
    assert schedule.wake_at() == 220
    assert placed(schedule.decide(220)) == ["a@m"]  # both let it down, so either will do


def test_postponed_is_no_attempt_and_no_debit() -> None:
    schedule = make({"a": ""}, {"m": 1}, options=Options(attempts=1, debits=1))
    for time in (0.0, 5.0, 10.0):
        assert placed(schedule.decide(time)) == ["a@m"]
        schedule.postponed("a", time, 5.0, "Its slot is taken.")
        assert schedule.decide(time + 4) == []
        assert schedule.why("a") == "It is tried again soon. Its slot is taken."
    with pytest.raises(BadEvent, match="postponed"):
        schedule.postponed("a", 11.0, 5.0, "")


def test_lost_at_last_and_the_machine_is_not_blamed_for_one_package() -> None:
    schedule = make({"killer": "", "b": "killer"}, {"m": 1}, options=Options(attempts=4))
    now = 0.0
    for _unused in range(4):
        now = schedule.wake_at() or now
        assert placed(schedule.decide(now)) == ["killer@m"]
        assert not schedule.infrastructure_failed("killer", now, "It does not answer.")
    assert states(schedule) == {"killer": "lost", "b": "skipped"}
    assert schedule.reason("killer") == "It does not answer. That was attempt 4."
    assert schedule.finished
    schedule.retry("killer")
    assert placed(schedule.decide(now)) == ["killer@m"]


def test_machine_is_set_aside_and_tried_again() -> None:
    schedule = make(dict.fromkeys("abcde", ""), {"bad": 1, "good": 1}, options=Options(backoff=1e6))
    assert placed(schedule.decide(0)) == ["a@bad", "b@good"]
    schedule.infrastructure_failed("a", 0)
    assert placed(schedule.decide(0)) == ["c@bad"]
    schedule.infrastructure_failed("c", 0)
    assert placed(schedule.decide(0)) == ["d@bad"]
    assert schedule.infrastructure_failed("d", 0)
    assert schedule.decide(0) == []
    assert schedule.wake_at() == 300
    assert placed(schedule.decide(300)) == ["e@bad"]
    assert schedule.infrastructure_failed("e", 300)  # once more is enough now, and for twice as long
    assert (schedule.wake_at(), schedule.pool.machine("bad").back_at) == (600, 900)


def test_retry_alone_at_the_end() -> None:
    schedule = make(dict.fromkeys("abc", "") | {"d": "a"}, {"m": 2}, options=Options(retry_alone=True))
    schedule.decide(0)
    schedule.failed("a")
    schedule.failed("b")
    assert placed(schedule.decide(0)) == ["c@m"]
    assert not over(schedule)
    schedule.built("c")
    assert placed(schedule.decide(0)) == ["a@m"]
    assert schedule.state("d") is State.QUEUED
    schedule.built("a")
    assert placed(schedule.decide(0)) == ["b@m"]
    schedule.failed("b")
    assert placed(schedule.decide(0)) == ["d@m"]
    schedule.built("d")
    assert schedule.finished
    assert schedule.decide(0) == []
    assert schedule.state("b") is State.FAILED


def test_retried_by_a_person_and_alone() -> None:
    schedule = make({"a": "", "b": "", "c": "a b"}, {"m": 2}, options=Options(retry_alone=True))
    schedule.decide(0)
    schedule.failed("a")
    schedule.retry("a")
    assert placed(schedule.decide(0)) == ["a@m"]
    schedule.failed("a")
    schedule.failed("b")
    assert placed(schedule.decide(0)) == ["a@m"]
    schedule.failed("a")
    assert states(schedule) == {"a": "failed", "b": "queued", "c": "skipped"}


def test_stop_lets_what_runs_end() -> None:
    schedule = make({"a": "", "b": "a"}, {"m": 2})
    schedule.decide(0)
    schedule.stop()
    assert not over(schedule)
    schedule.built("a")
    assert schedule.decide(0) == []
    assert schedule.finished
    assert schedule.why("b") == "Nothing is started any more."


def test_why_no_machine_takes_it() -> None:
    limits = {"a": Limits(tags=frozenset({"big"})), "c": Limits(slots=2), "d": Limits(alone=True)}
    schedule = make({"a": "", "b": "", "c": "", "d": ""}, {"m": 2}, limits=limits)
    schedule.machine_changed("n", 4, tags=["big"])
    schedule.machine_went("n", "new disks")
    assert schedule.why("a") == "No machine with big takes packages (n: new disks)."
    assert schedule.why("b") == "It waits for a slot."
    assert schedule.why("c") == "It waits for 2 slots on one machine."
    assert schedule.why("d") == "It waits for a machine on which nothing else runs."
    schedule.machine_changed("m", 2, others=2)
    assert schedule.why("b") == "It waits for a slot: others use all of them."
    schedule.machine_changed("m", 0)
    assert schedule.why("b") == "No machine takes packages (m: it has no slots; n: new disks)."


def test_nobody_takes_it() -> None:
    schedule = make({"a": "", "b": "a"}, {"m": 2}, limits={"a": Limits(tags=frozenset({"big"}))})
    assert schedule.decide(0) == []
    assert schedule.stalled
    assert (schedule.why("a"), schedule.why("b")) == ("No machine with big takes packages.", "It waits for a.")
    schedule.give_up("No machine takes it.")
    assert states(schedule) == {"a": "lost", "b": "skipped"}
    assert schedule.finished


# -- limits ------------------------------------------------------------------------------------------------------------


def test_alone_and_heavy_get_a_machine_kept() -> None:
    for limits in (Limits(alone=True), Limits(slots=2), Limits(slots=9)):
        schedule = make(dict.fromkeys("abcd", ""), {"m": 2}, {"a": 9, "b": 8, "c": 7, "d": 6}, limits={"c": limits})
        assert placed(schedule.decide(0)) == ["a@m", "b@m"]
        schedule.built("a")
        assert schedule.decide(0) == []
        schedule.built("b")
        assert placed(schedule.decide(0)) == ["c@m"]
        schedule.machine_changed("m", 2)
        assert schedule.decide(0) == []
        schedule.built("c")
        assert placed(schedule.decide(0)) == ["d@m"]


def test_heavy_prefers_machines_that_are_large_enough() -> None:
    schedule = make({"a": ""}, {"small": 1, "large": 4}, limits={"a": Limits(slots=3)})
    assert schedule.decide(0) == [Dispatch("a", "large", 3, 3, 1)]


def test_tags() -> None:
    schedule = make(dict.fromkeys("abc", ""), {"m": 3}, limits={"a": Limits(tags=frozenset({"ssd"}))})
    schedule.machine_came("n", 1, tags=["ssd", "fast"])
    assert placed(schedule.decide(0)) == ["a@n", "b@m", "c@m"]


def test_not_together() -> None:
    schedule = make(dict.fromkeys("abc", ""), {"m": 3}, limits={"b": Limits(not_with=frozenset({"a", "gone"}))})
    assert placed(schedule.decide(0)) == ["a@m", "c@m"]
    assert schedule.why("b") == "It must not run together with a."
    schedule.failed("a")
    assert placed(schedule.decide(0)) == ["b@m"]


def test_idle_slots_give_make_jobs_to_the_critical_path() -> None:
    tree = {"a": "", "b": "", "c": "a"}
    schedule = make(tree, {"m": 6}, {"a": 90, "b": 5, "c": 9}, options=Options(make_slots=4))
    assert schedule.decide(0) == [Dispatch("a", "m", 1, 4, 1), Dispatch("b", "m", 1, 1, 1)]
    schedule = make(tree, {"m": 1}, {"a": 90, "b": 5, "c": 9}, options=Options(make_slots=4))
    assert schedule.decide(0) == [Dispatch("a", "m", 1, 1, 1)]


# -- what a journal tells ----------------------------------------------------------------------------------------------


def test_running_builds_are_taken_over() -> None:
    schedule = make(dict.fromkeys("abc", ""), {"m": 1, "n": 1})
    schedule.started("c", "m", 0)
    assert schedule.machine("c") == "m"
    assert placed(schedule.decide(0)) == ["a@n"]
    schedule.started("a", "m", 0)  # the dispatcher found it elsewhere
    assert schedule.machine("a") == "m"
    assert placed(schedule.decide(0)) == ["b@n"]


def test_an_old_place_in_line_does_not_count() -> None:
    schedule = make({"a": "", "b": ""}, {"m": 1}, options=Options(attempts=2))
    schedule.started("a", "m", 0)
    schedule.infrastructure_failed("a", 0)
    assert placed(schedule.decide(0)) == ["b@m"]
    schedule.built("b")
    assert schedule.decide(0) == []
    assert placed(schedule.decide(10)) == ["a@m"]
    schedule.infrastructure_failed("a", 10)
    schedule.retry("a")
    assert placed(schedule.decide(10)) == ["a@m"]
    assert not over(schedule)


def test_parked_behind_one_after_the_other() -> None:
    both = Limits(not_with=frozenset("ab"))
    schedule = make(dict.fromkeys("abc", ""), {"m": 3}, {"a": 9, "b": 8, "c": 7}, limits={"c": both})
    assert placed(schedule.decide(0)) == ["a@m", "b@m"]
    schedule.built("a")
    assert schedule.decide(0) == []
    schedule.infrastructure_failed("b", 0)
    assert placed(schedule.decide(0)) == ["c@m"]
    assert schedule.decide(10) == []
    schedule.built("c")
    assert placed(schedule.decide(10)) == ["b@m"]


def test_nonsense_is_refused() -> None:
    schedule = make({"a": "", "b": "a"}, {"m": 1})
    with pytest.raises(BadEvent, match="b is said to be built, but it is queued, and 1 of what it needs"):
        schedule.built("b")
    with pytest.raises(BadEvent, match="a is said to be let down by its machine"):
        schedule.infrastructure_failed("a", 0)
    schedule.built("a")  # before this schedule began
    with pytest.raises(BadEvent, match="a is said to be failed, but it is built"):
        schedule.failed("a")


def test_estimate() -> None:
    schedule = make({"a": "", "b": "a", "c": ""}, {"m": 2}, {"a": 10, "b": 10, "c": 4})
    assert schedule.estimate(0) == 20
    schedule.decide(0)
    assert schedule.estimate(6) == 14
    schedule.built("a")
    schedule.decide(10)
    assert schedule.estimate(10) == 10


# -- any order of events -----------------------------------------------------------------------------------------------

SIZE = 7
PACKAGES = [f"p{number}" for number in range(SIZE)]
MACHINES = ["m", "n"]
TAG = frozenset({"ssd"})

limits = st.builds(
    Limits,
    slots=st.sampled_from([1, 1, 1, 2, 5]),
    alone=st.sampled_from([False, False, True]),
    tags=st.sampled_from([frozenset(), frozenset(), TAG]),
    not_with=st.frozensets(st.sampled_from(PACKAGES), max_size=2),
)

# What ends many packages at once, or without a build, would leave nothing to look at.
seldom = st.sampled_from([False] * 5 + [True])


class AnyOrder(RuleBasedStateMachine):
    """Events as they come; the model works out everything anew from what ended how."""

    @initialize(
        tree=st.lists(st.sets(st.integers(0, SIZE - 1), max_size=3), min_size=SIZE, max_size=SIZE),
        cyclic=st.sampled_from([False, False, False, True]),
        limited=st.dictionaries(st.sampled_from(PACKAGES), limits, max_size=4),
        ignored=st.sets(st.sampled_from(PACKAGES), max_size=1),
        fetched=st.sets(st.sampled_from(PACKAGES), max_size=2),
        seconds=st.lists(st.integers(1, 5), min_size=SIZE, max_size=SIZE),
        attempts=st.integers(1, 3),
        retry_alone=st.booleans(),
        maxjobs=st.integers(1, 3),
    )
    def begin(
        self,
        tree: list[set[int]],
        cyclic: bool,
        limited: dict[str, Limits],
        ignored: set[str],
        fetched: set[str],
        seconds: list[int],
        attempts: int,
        retry_alone: bool,
        maxjobs: int,
    ) -> None:
        self.needs = {
            f"p{number}": {f"p{needed}" for needed in needs if cyclic or needed < number}
            for number, needs in enumerate(tree)
        }
        graph = Graph(self.needs.items())
        self.limits = {name: limited.get(name, Limits()) for name in PACKAGES}
        self.options = Options(attempts=attempts, retry_alone=retry_alone, debits=2)
        self.schedule = Schedule(
            graph,
            [float(value) for value in seconds],
            limits=limited,
            ignored=dict.fromkeys(ignored, "said so"),
            fetched=fetched,
            options=self.options,
        )
        self.ended: dict[str, State] = dict.fromkeys(ignored | graph.reasons.keys(), State.IGNORED)
        self.ended.update(dict.fromkeys(fetched, State.FETCHED))
        self.running: dict[str, str] = {}
        self.alone: set[str] = set()
        self.attempts: dict[str, int] = {}
        self.not_before: dict[str, float] = {}
        self.dispatched: dict[str, int] = {}
        self.allowed: dict[str, int] = dict.fromkeys(PACKAGES, 1)
        self.failures: dict[str, int] = {}
        self.maxjobs: dict[str, int] = {}
        self.tagged: set[str] = set()
        self.now = 0.0
        self.came("m", maxjobs, tagged=maxjobs > 1)

    # what the model knows

    def is_bad(self, name: str, seen: frozenset[str] = frozenset()) -> bool:
        if name in self.ended:
            return self.ended[name] in BAD
        return name not in seen and any(self.is_bad(needed, seen | {name}) for needed in self.needs[name])

    def expected(self, name: str) -> State:
        if name in self.running:
            return State.RUNNING
        return self.ended.get(name) or (State.SKIPPED if self.is_bad(name) else State.QUEUED)

    def is_ready(self, name: str) -> bool:
        there = all(self.ended.get(needed) in THERE for needed in self.needs[name])
        return there and self.expected(name) is State.QUEUED

    def used(self, machine: str) -> int:
        limit = self.maxjobs[machine]
        return sum(min(limit, self.limits[name].slots) for name, where in self.running.items() if where == machine)

    # what happens

    @rule(pause=st.sampled_from([0.0, 1.0, 15.0, 400.0]))
    def decide(self, pause: float) -> None:
        self.now += pause
        if not self.running and all(self.expected(name) is not State.QUEUED for name in PACKAGES):
            for name, state in list(self.ended.items()):
                if state is State.FAILED and self.options.retry_alone and self.failures[name] == 1:
                    del self.ended[name]
                    self.alone.add(name)
                    self.allowed[name] += 1
        for dispatch in self.schedule.decide(self.now):
            self.check(dispatch)
            self.running[dispatch.package] = dispatch.machine
            self.dispatched[dispatch.package] = self.dispatched.get(dispatch.package, 0) + 1

    def check(self, dispatch: Dispatch) -> None:
        name, machine = dispatch.package, dispatch.machine
        limit = self.limits[name]
        assert self.expected(name) is State.QUEUED
        assert all(self.ended.get(needed) in THERE for needed in self.needs[name])
        assert self.dispatched.get(name, 0) < self.allowed[name]
        assert self.now >= self.not_before.get(name, 0.0)
        assert machine in self.maxjobs
        here = [other for other, where in self.running.items() if where == machine]
        assert len(here) < self.maxjobs[machine]
        assert self.used(machine) + min(limit.slots, self.maxjobs[machine]) <= self.maxjobs[machine]
        assert not here or not (limit.alone or name in self.alone)
        assert not any(self.limits[other].alone or other in self.alone for other in here)
        assert not limit.tags or machine in self.tagged
        assert not any(other in limit.not_with or name in self.limits[other].not_with for other in self.running)

    def end(self, data: st.DataObject) -> str:
        name: str = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[name]
        return name

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def built(self, data: st.DataObject) -> None:
        name = self.end(data)
        self.schedule.built(name)
        self.ended[name] = State.BUILT

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def failed(self, data: st.DataObject) -> None:
        name = self.end(data)
        self.schedule.failed(name)
        self.ended[name] = State.FAILED
        self.failures[name] = self.failures.get(name, 0) + 1
        self.not_before.pop(name, None)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def let_down(self, data: st.DataObject) -> None:
        name = self.end(data)
        self.schedule.infrastructure_failed(name, self.now)
        self.attempts[name] = self.attempts.get(name, 0) + 1
        self.allowed[name] += 1
        self.not_before[name] = self.now + 10.0 * 2 ** (self.attempts[name] - 1)
        if self.attempts[name] >= self.options.attempts:
            self.ended[name] = State.LOST

    @precondition(lambda self: self.running)
    @rule(data=st.data(), pause=st.sampled_from([0.0, 5.0, 500.0]))
    def postponed(self, data: st.DataObject, pause: float) -> None:
        name = self.end(data)
        self.schedule.postponed(name, self.now, pause, "Not now.")
        self.allowed[name] += 1
        self.not_before[name] = self.now + pause

    @rule(name=st.sampled_from(PACKAGES))
    def retry(self, name: str) -> None:
        if self.ended.get(name) not in (State.FAILED, State.LOST):
            with pytest.raises(BadEvent):
                self.schedule.retry(name)
            return
        self.schedule.retry(name)
        if self.ended.pop(name) is State.FAILED:
            self.allowed[name] += 1
        self.attempts.pop(name, None)
        self.failures.pop(name, None)
        self.not_before.pop(name, None)

    @rule(name=st.sampled_from(PACKAGES), really=seldom)
    def fetched(self, name: str, really: bool) -> None:
        if not really:
            return
        if self.expected(name) in (State.RUNNING, State.BUILT, State.FETCHED):
            with pytest.raises(BadEvent):
                self.schedule.fetched(name)
            return
        self.schedule.fetched(name)
        self.ended[name] = State.FETCHED

    @precondition(lambda self: self.maxjobs)
    @rule(data=st.data())
    def started(self, data: st.DataObject) -> None:
        """Begin or move a build as the dispatcher does, which asks nobody."""
        able = [name for name in PACKAGES if name in self.running or self.is_ready(name)]
        if not able:
            return
        name = data.draw(st.sampled_from(able))
        machine = data.draw(st.sampled_from(sorted(self.maxjobs)))
        if name not in self.running:
            self.allowed[name] += 1
            self.dispatched[name] = self.dispatched.get(name, 0) + 1
        self.schedule.started(name, machine, self.now)
        self.running[name] = machine

    @rule(really=seldom)
    def give_up(self, really: bool) -> None:
        if not really:
            return
        ready = [name for name in PACKAGES if self.is_ready(name)]
        self.schedule.give_up("Nobody takes it.")
        self.ended.update(dict.fromkeys(ready, State.LOST))
        for name in ready:
            self.allowed[name] += 1

    @rule(
        machine=st.sampled_from(MACHINES),
        maxjobs=st.integers(0, 3),
        tagged=st.booleans(),
        what=st.sampled_from(["came", "changed", "went"]),
    )
    def machines(self, machine: str, maxjobs: int, tagged: bool, what: str) -> None:
        if what == "came" or machine not in self.maxjobs:
            self.came(machine, maxjobs, tagged)
        elif what == "changed":
            self.schedule.machine_changed(machine, maxjobs)
            self.maxjobs[machine] = maxjobs
        elif machine not in self.running.values():  # else the model would not know its room any more
            self.schedule.machine_went(machine)
            del self.maxjobs[machine]

    def came(self, machine: str, maxjobs: int, tagged: bool) -> None:
        self.schedule.machine_came(machine, maxjobs, tags=TAG if tagged else ())
        self.maxjobs[machine] = maxjobs
        (self.tagged.add if tagged else self.tagged.discard)(machine)

    @rule(name=st.sampled_from(PACKAGES))
    def nonsense(self, name: str) -> None:
        if name not in self.running and not self.is_ready(name):
            with pytest.raises(BadEvent):
                self.schedule.built(name)

    # what must be true

    @invariant()
    def states_are_the_model_s(self) -> None:
        if not hasattr(self, "schedule"):
            return
        found = self.schedule.states()
        assert found == {name: self.expected(name) for name in PACKAGES}
        assert self.schedule.counts == {state: list(found.values()).count(state) for state in State}
        for name, state in found.items():
            if state is State.SKIPPED:
                chain = (name, *self.schedule.culprits(name))
                assert all(needed in self.needs[other] for other, needed in zip(chain, chain[1:]))
                assert found[chain[-1]] in BAD - {State.SKIPPED}
            assert self.schedule.why(name) or state not in BAD
            assert self.schedule.ready(name) == self.is_ready(name)

    def teardown(self) -> None:
        """Let all that can be built be built: nothing is forgotten, nothing waits for ever."""
        if not hasattr(self, "schedule"):
            return
        self.came("m", 2, True)
        for _unused in range(10 * SIZE):
            if self.schedule.finished:
                break
            wake = self.schedule.wake_at()
            self.decide(max(0.0, (wake or 0.0) - self.now))
            assert not self.schedule.stalled
            for name in sorted(self.running):
                self.schedule.built(name)
                self.running.pop(name)
                self.ended[name] = State.BUILT
        assert self.schedule.finished
        self.states_are_the_model_s()
        assert not {State.QUEUED, State.RUNNING} & set(self.schedule.states().values())


AnyOrder.TestCase.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
