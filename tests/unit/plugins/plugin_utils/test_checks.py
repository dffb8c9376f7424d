# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows from a look at a machine."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._checks import (
    decide,
    FIRST_PAUSE,
    History,
    LONGEST_PAUSE,
    pause,
    QUIET,
    read_history,
    standing,
    write_history,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import CHECK
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._queue_yard import dead_owner, job, Yard

NOW = 1_000_000.0


def test_an_outage_has_one_name_while_it_lasts() -> None:
    assert not History().away
    history = History().after_loss(NOW)
    assert (history.away, history.outage) == (True, NOW)
    history = dataclasses.replace(history, told=NOW - 1).after_loss(NOW + 5)  # it could not come back
    assert (history.away, history.outage) == (True, NOW - 1)
    history = history.after_return(NOW + 9, "boot")
    assert not history.away
    assert history.after_loss(NOW + 20).outage == NOW + 20  # nobody was told of this one yet


def test_who_is_lost_often_waits_longer_each_time() -> None:
    assert [pause(outages) for outages in (0, 1, 2, 3, 4)] == [0, 0, FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pause(10**6) == LONGEST_PAUSE
    history = History()
    for number in range(1, 5):
        history = history.after_loss(NOW).after_return(NOW + 1, "boot")
        assert history.outages == number


def test_a_quiet_day_is_forgiveness() -> None:
    flapping = History(outages=7, lost=NOW - QUIET - 20, returned=NOW - QUIET - 10)
    assert flapping.after_loss(NOW).outages == 1
    assert flapping.after_loss(NOW - 60).outages == 8
    # A day offline is no quiet day.
    away = History(outages=7, lost=NOW - QUIET - 5, returned=NOW - QUIET - 10)
    assert away.after_loss(NOW).outages == 8


def test_a_clock_that_was_wrong_keeps_nobody_out_for_ever() -> None:
    assert History(outages=3, lost=NOW * 10).welcome(NOW) == NOW + pause(3)


@pytest.mark.parametrize(
    ("stands", "problem", "history", "action"),
    [
        ("absent", "", History(), "none"),
        ("absent", "gone", History(), "none"),
        ("in", "", History(), "none"),
        ("in", "gone", History(), "take_out"),
        ("ours", "gone", History(1, NOW), "take_out"),
        ("ours", "", History(1, NOW), "return"),
        ("ours", "", History(2, NOW), "wait"),
        ("ours", "", History(2, NOW - FIRST_PAUSE), "return"),
        ("theirs", "", History(), "none"),
        ("theirs", "gone", History(), "none"),
    ],
)
def test_what_is_done(stands: t.Any, problem: str, history: History, action: str) -> None:
    assert decide(stands, problem, history, NOW)[0] == action


def test_histories_are_kept(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "a1.json")
    assert read_history(path) == History()
    history = History(3, 100.0, 50.0, "boot")
    write_history(path, history)
    assert read_history(path) == history


@given(
    st.one_of(
        st.binary(max_size=100),
        st.dictionaries(
            st.sampled_from(["outages", "lost", "returned", "boot_id"]),
            st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.lists(st.integers())),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_rubbish_in_a_history_is_no_history(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("history") / "a1.json"
    path.write_bytes(content)
    history = read_history(str(path))
    assert history.outages >= 0
    assert history.welcome(NOW) <= NOW + LONGEST_PAUSE


# -- the queue ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def yard(tmp_path: pathlib.Path) -> Yard:
    return Yard(tmp_path / "queue", a1=2, a2=1)


def stands(yard: Yard, machine: str) -> str:
    return standing(next((state for state in yard.queue.machines() if state.name == machine), None))


def test_a_machine_goes_and_comes_back(yard: Yard) -> None:
    assert stands(yard, "a1") == "in"
    assert yard.queue.take_out("a1", "gone", dry_run=True)
    assert stands(yard, "a1") == "in"
    assert yard.queue.take_out("a1", "gone")
    assert (stands(yard, "a1"), yard.counter("a1")) == ("ours", None)
    before = yard.snapshot()
    assert not yard.queue.take_out("a1", "gone")
    assert {path: seen for path, seen in before.items() if ".lock" not in path}.items() <= yard.snapshot().items()
    assert yard.claim("one").machine == "a2"
    assert yard.queue.bring_back("a1", dry_run=True)
    assert stands(yard, "a1") == "ours"
    assert yard.queue.bring_back("a1")
    assert (stands(yard, "a1"), yard.counter("a1")) == ("in", "0\n")
    assert not yard.queue.bring_back("a1")
    yard.check()


def test_a_further_reason_does_not_change_since_when(yard: Yard) -> None:
    yard.queue.take_out("a1", "gone")
    (before,) = [state.offline for state in yard.queue.machines() if state.name == "a1"]
    yard.offset = 100.0
    assert yard.queue.take_out("a1", "unfit")
    (after,) = [state.offline for state in yard.queue.machines() if state.name == "a1"]
    assert before and after and (after["reason"], after["by"], after["since"]) == ("unfit", CHECK, before["since"])


def test_what_a_person_did_is_not_undone(yard: Yard) -> None:
    yard.queue.offline("a1", "new disks", "ada")
    assert not yard.queue.take_out("a1", "gone")
    assert not yard.queue.bring_back("a1")
    assert stands(yard, "a1") == "theirs"
    (yard.directory / "a2").unlink()  # the old way
    assert not yard.queue.take_out("a2", "gone")
    assert not yard.queue.bring_back("a2")
    assert stands(yard, "a2") == "theirs"


def test_a_person_takes_over_what_a_check_did(yard: Yard) -> None:
    yard.queue.take_out("a1", "gone")
    assert yard.queue.offline("a1", "gone", "ada")
    assert not yard.queue.bring_back("a1")
    assert yard.queue.undrain("a1", 2)
    yard.queue.take_out("a1", "gone")
    assert yard.queue.undrain("a1", 2)
    assert yard.counter("a1") == "0\n"


def test_a_stranger_is_not_taken_out(yard: Yard) -> None:
    assert not yard.queue.take_out("a9", "gone")
    assert stands(yard, "a9") == "absent"


def test_who_brings_it_back_may_claim_it(yard: Yard) -> None:
    yard.queue.take_out("a1", "gone")
    only = [candidate for candidate in yard.candidates if candidate.name == "a1"]
    lease = yard.claim("canary", candidates=only, returning=True)
    assert (lease.machine, yard.counter("a1"), stands(yard, "a1")) == ("a1", None, "ours")
    yard.queue.release(lease)
    assert yard.counter("a1") is None
    yard.queue.offline("a1", "new disks", "ada")
    with pytest.raises(Exception, match="No machine became free"):
        yard.claim("canary", candidates=only, returning=True)


def test_it_returns_with_what_runs_there(yard: Yard) -> None:
    lease = yard.claim("one", dead_owner())
    assert lease.machine == "a1"
    (yard.directory / "a1").write_text("2\n")  # an old script's job as well
    yard.queue.take_out("a1", "gone")
    yard.queue.release(lease, hold="lost")
    assert yard.queue.bring_back("a1", running=[job("one"), job("other")])
    assert yard.counter("a1") is None  # 2 of 2
    assert yard.leases() == ["a1:bookworm:one"]
    yard.queue.take_out("a1", "gone")
    assert yard.queue.bring_back("a1", rebooted=True)
    assert yard.counter("a1") == "1\n"
