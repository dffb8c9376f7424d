# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The choice of a machine and the books behind the counters, against models written independently of them."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Candidate, choose_machine
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue_books import (
    Condition,
    condition,
    Entry,
    first_sight,
    Malformed,
    observe,
    parse_counter,
    Seen,
    wanted,
)

# One name is a prefix of others: names are compared whole.
names = st.sampled_from(["a1", "a10", "a100", "a2", "b", "b-1", "b.1"])


def original_choice(mlist: list[str], maxjobs: dict[str, int], counters: dict[str, int], avoid: set[str]) -> str | None:
    """Choose as the original's script did: down the mlist, remember the first with the smallest counter."""
    for allowed in ([name for name in mlist if name not in avoid], mlist):
        best, least = None, 10**9
        for name in allowed:
            if name in counters and counters[name] < maxjobs[name] and counters[name] < least:
                best, least = name, counters[name]
        if best is not None:
            return best
    return None


@settings(max_examples=5000, deadline=None)
@given(
    mlist=st.lists(names, unique=True),
    limits=st.lists(st.integers(1, 4), min_size=7, max_size=7),
    counters=st.dictionaries(names, st.integers(0, 5)),
    avoid=st.sets(names),
)
def test_choice_is_the_original_one(
    mlist: list[str], limits: list[int], counters: dict[str, int], avoid: set[str]
) -> None:
    maxjobs = dict(zip(mlist, limits))
    candidates = [Candidate(name, maxjobs[name]) for name in mlist]
    assert choose_machine(candidates, counters, avoid) == original_choice(mlist, maxjobs, counters, avoid)


def test_choice_by_example() -> None:
    candidates = [Candidate("a1", 2), Candidate("a10", 1), Candidate("b", 3)]
    assert choose_machine(candidates, {"a1": 0, "a10": 0, "b": 0}) == "a1"
    assert choose_machine(candidates, {"a1": 1, "a10": 0, "b": 0}) == "a10"
    assert choose_machine(candidates, {"a1": 1, "a10": 1, "b": 1}) == "a1"
    assert choose_machine(candidates, {"a1": 2, "a10": 1, "b": 2}) == "b"
    assert choose_machine(candidates, {"a1": 2, "a10": 1, "b": 3}) is None
    assert choose_machine(candidates, {"a10": 0}, ["a10"]) == "a10"
    assert choose_machine(candidates, {"a10": 0, "b": 2}, ["a10"]) == "b"
    assert choose_machine([], {"a1": 0}) is None


@pytest.mark.parametrize(
    ("data", "number"), [(b"0\n", 0), (b"3", 3), (b"       2\n", 2), (b"12\r\n", 12), (b"007\n", 7)]
)
def test_counters_as_shells_write_them(data: bytes, number: int) -> None:
    assert parse_counter(data) == number


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"-1\n", b"1 2\n", b"1\n2\n", b"x", b"9999999\n", b"1.0\n", "٣\n".encode(), b"\0" * 5]
)
def test_malformed_counters_say_so(data: bytes) -> None:
    assert isinstance(parse_counter(data), Malformed)


@given(st.binary(max_size=64))
def test_any_counter_is_a_number_or_malformed(data: bytes) -> None:
    seen = parse_counter(data)
    assert isinstance(seen, Malformed) or (isinstance(seen, int) and int(data) == seen)


class World:
    """A machine on which we and old scripts really run jobs, its counter file, and our books about it.

    The script does what the original did: it goes by the file alone.
    """

    def __init__(self, maxjobs: int) -> None:
        self.maxjobs = maxjobs
        self.file: Seen = 0
        self.entry: Entry | None = None
        self.ours = 0
        self.scripts = 0
        self.look()  # it is entered

    def look(self) -> Entry:
        """Open the books and settle the counter, as every operation under the lock does."""
        entry = (
            first_sight(self.file, self.ours, self.maxjobs) if self.entry is None else observe(self.entry, self.file)
        )
        assert entry is not None
        entry = Entry(entry.shown, entry.foreign, self.maxjobs)
        if condition(entry, self.file) is Condition.GOOD:
            self.file = wanted(entry, self.ours, offline=False)
            entry = Entry(self.file, entry.foreign, entry.maxjobs)
        self.entry = entry
        return entry

    def claim(self) -> None:
        entry = self.look()
        if condition(entry, self.file) is Condition.GOOD and entry.foreign + self.ours < self.maxjobs:
            self.ours += 1
            self.look()

    def release(self) -> None:
        self.ours -= self.ours > 0
        self.look()

    def script_claims(self) -> None:
        if isinstance(self.file, int):
            self.scripts += 1
            self.file = self.file + 1 if self.file + 1 < self.maxjobs else None

    def script_releases(self) -> None:
        if self.scripts:
            self.scripts -= 1
            if self.file is None:
                self.file = self.maxjobs - 1
            elif isinstance(self.file, int):
                self.file -= 1


@settings(max_examples=1500, deadline=None)
@given(
    maxjobs=st.integers(1, 4),
    steps=st.lists(st.sampled_from(["claim", "release", "script_claims", "script_releases"]), max_size=30),
)
def test_books_follow_the_world(maxjobs: int, steps: list[str]) -> None:
    world = World(maxjobs)
    for name in steps:
        getattr(world, name)()
        assert world.ours + world.scripts <= maxjobs
    while world.scripts:
        world.script_releases()
    entry = world.look()
    if condition(entry, world.file) is Condition.GOOD:
        assert entry.foreign == 0, "all scripts are done, none may be counted"
    while world.ours:
        world.release()
    assert world.file == 0 and world.entry == Entry(0, 0, maxjobs)


@settings(max_examples=1000, deadline=None)
@given(steps=st.lists(st.sampled_from(["claim", "release"]) | st.integers(1, 4), max_size=30))
def test_changing_maxjobs_never_lets_more_in(steps: list[str | int]) -> None:
    world = World(2)
    for change in steps:
        before = world.ours
        if isinstance(change, int):
            world.maxjobs = change
        else:
            getattr(world, change)()
        world.look()
        assert world.ours <= max(before, world.maxjobs)
        assert world.file == (world.ours if world.ours < world.maxjobs else None)


def step(entry: Entry, seen: Seen, ours: int, offline: bool = False) -> t.Any:
    entry = observe(entry, seen)
    if condition(entry, seen) is not Condition.GOOD:
        return condition(entry, seen)
    return entry.foreign, wanted(entry, ours, offline=offline)


def test_foreign_jobs_by_example() -> None:
    ours_2_of_4 = Entry(shown=2, foreign=0, maxjobs=4)
    assert step(ours_2_of_4, 2, 2) == (0, 2)
    assert step(ours_2_of_4, 3, 2) == (1, 3), "a script took one"
    assert step(ours_2_of_4, 0, 2) == (0, 2), "somebody wrote nonsense: our leases count"
    assert step(ours_2_of_4, 2, 1) == (0, 1), "a release died before it wrote the counter"
    assert step(ours_2_of_4, None, 2) is Condition.REMOVED
    assert step(ours_2_of_4, Malformed("x"), 2) is Condition.MALFORMED
    full = Entry(shown=None, foreign=1, maxjobs=2)
    assert step(full, None, 1) == (1, None)
    assert step(full, None, 0) == (1, 1), "a late release of ours puts the counter back"
    assert step(full, 1, 1) == (0, 1), "the script released"
    assert step(full, 1, 0, offline=True) == (0, None), "a script's late release does not bring an offline machine back"


def test_lost_books_by_example() -> None:
    assert first_sight(None, 0, 2) is None, "not in the queue"
    assert first_sight(3, 1, 4) == Entry(3, 2, 4)
    assert first_sight(1, 2, 4) == Entry(1, 0, 4), "counters never win against leases"
    assert first_sight(None, 2, 2) == Entry(None, 0, 2), "full"
    removed = first_sight(None, 1, 2)
    assert removed is not None and condition(removed, None) is Condition.REMOVED
