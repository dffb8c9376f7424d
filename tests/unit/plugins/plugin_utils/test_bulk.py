# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bulk build from one process to the next: whatever dies when, nothing is built twice and nothing is forgotten."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._bulk import DispatchesDie
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bulk_commands import ask, NotDone, why
from ansible_collections.portbuild.cluster.plugins.plugin_utils._journal import Answer, BulkRuns, NoBulk, NotOurs
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._bulk_world import Build, OUTER, World

TREE = {"a": "", "b": "a", "c": "a", "d": "b c"}


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    return World(tmp_path, TREE, {"m1": 1, "m2": 2})


def test_all_is_built_and_then_nothing(world: World) -> None:
    summary = world.begin().to_the_end()
    assert (summary["ok"], summary["built"], summary["stayed"]) == (True, ["a", "b", "c", "d"], [])
    summary = world.begin().to_the_end()
    assert (summary["ok"], summary["built"], summary["stayed"]) == (True, [], ["a", "b", "c", "d"])
    assert world.began == dict.fromkeys("abcd", 1)


def test_what_fails_takes_its_dependents_along(world: World) -> None:
    world.outcomes["b"] = ["failed"]
    summary = world.begin().to_the_end()
    assert not summary["ok"]
    assert [entry["package"] for entry in summary["failed"]] == ["b"]
    assert summary["failed"][0]["blocks"] == 1
    assert summary["skipped"] == {"d": "b is failed."}
    assert summary["built"] == ["a", "c"]
    assert any("FAILED b: failed It takes 1 along." in line for line in world.said)
    assert world.begin().to_the_end()["built"] == ["b", "d"]


def test_a_dispatch_knows_what_its_package_blocks(world: World) -> None:
    world.begin().to_the_end()
    assert {launch.package: (launch.blocks, launch.blocked) for launch in world.launches} == {
        "a": (3, ("b", "c", "d")),
        "b": (1, ("d",)),
        "c": (1, ("d",)),
        "d": (0, ()),
    }


def test_a_change_spreads_only_if_something_comes_out_of_it(world: World) -> None:
    world.begin().to_the_end()
    world.digests["a"] = "another recipe"
    going = world.begin()
    assert going.plan.why == {"a": ("recipe",), "b": ("dependency",), "c": ("dependency",), "d": ("dependency",)}
    summary = going.to_the_end()
    assert (summary["built"], summary["stayed"]) == (["a", "b", "c"], ["d"])  # b and c came out as they were
    assert "[0:00:20] d stays: what it needs has come out as it was." in world.said


def test_a_cascade_always_goes_on(world: World) -> None:
    world.variables["portbuild_cascade"] = "always"
    world.begin().to_the_end()
    world.digests["a"] = "another recipe"
    world.time += 100
    assert world.begin().to_the_end()["built"] == ["a", "b", "c", "d"]


def test_other_reasons(world: World) -> None:
    world.begin().to_the_end()
    pathlib.Path(world.layout.packages, "a_1.0.deb").unlink()
    pathlib.Path(world.layout.packages, "b_1.0.deb").write_bytes(b"short")
    world.variables["portbuild_package_settings"] = {"c": {"build_options": ["nocheck"]}}
    world.needs["d"] = ("b",)
    assert world.begin().plan.why == {"a": ("missing",), "b": ("damaged",), "c": ("options",), "d": ("needs",)}
    world.variables["portbuild_rebuild"] = "missing"
    assert world.begin().plan.why == {"a": ("missing",), "b": ("damaged",)}
    world.variables.update(portbuild_rebuild="targets", portbuild_targets=["b"])
    assert world.begin().plan.why == {"a": ("missing",), "b": ("forced", "damaged")}


def test_forced_packages_are_built_once_whatever_dies(world: World) -> None:
    world.begin().to_the_end()
    world.variables["portbuild_rebuild"] = "all"
    going = world.begin()
    going.step()
    world.finish("a")
    going.step()
    world.die()
    going = world.begin()
    assert going.run.resumed
    summary = going.to_the_end()
    assert summary["built"] == ["a", "b", "c", "d"]
    assert world.began == dict.fromkeys("abcd", 2)


def test_infrastructure_is_not_the_package_s_fault(world: World) -> None:
    world.outcomes["a"] = ["infrastructure", "infrastructure"]
    summary = world.begin().to_the_end()
    assert summary["ok"]
    assert world.began["a"] == 3
    world.digests["a"] = "another"
    world.outcomes["a"] = ["infrastructure"] * 9
    summary = world.begin().to_the_end()
    assert summary["given_up"].keys() == {"a"}
    assert summary["skipped"].keys() == {"b", "c", "d"}
    assert not summary["ok"]


@pytest.mark.parametrize("reason", ["stale", "all_busy", "job_busy", "controller"])
def test_nobody_s_fault_is_no_attempt(world: World, reason: str) -> None:
    world.outcomes["a"] = [reason] * 20
    assert world.begin(attempts=2).to_the_end()["ok"]


def test_a_dispatch_that_dies_alone_is_gone_on_with_where_it_was(world: World) -> None:
    going = world.begin()
    going.step()
    world.kill("a")
    for _second in range(8):
        going.step()
    assert world.running["a"].dispatched
    assert going.to_the_end()["ok"]
    assert world.began == dict.fromkeys("abcd", 1)


def test_a_dispatch_that_dies_between_record_and_release_leaves_no_slot_taken(world: World) -> None:
    world.machines = {"m": 1}
    going = world.begin()
    going.step()
    world.record("a")
    world.kill("a")
    summary = going.to_the_end()
    assert summary["ok"]
    assert not world.running
    world.digests["d"] = "another"
    going = world.begin()
    going.step()
    world.record("d")
    world.die()
    assert world.begin().to_the_end()["ok"]
    assert not world.running
    assert world.began == {"a": 1, "b": 1, "c": 1, "d": 2}


def test_dispatches_that_never_say_a_word_end_the_run(world: World) -> None:
    going = world.begin()
    with pytest.raises(DispatchesDie, match="11 dispatches in a row"):
        for _second in range(400):
            going.step()
            for name in list(world.running):
                world.kill(name)
                del world.running[name]


def test_what_somebody_else_builds_is_waited_for_and_taken(world: World) -> None:
    world.token = 7
    world.running["a"] = Build(7, "m2", "built", world.content("a"))
    going = world.begin()
    for _minute in range(600):
        assert going.step(60.0)
    world.finish("a")
    world._reported.clear()  # nobody of ours waits for that one
    assert going.to_the_end()["ok"]
    assert world.began == dict.fromkeys("bcd", 1)


def test_a_package_that_is_held_meanwhile_is_nobody_s_fault(world: World) -> None:
    world.outcomes["b"] = ["held"]
    summary = world.begin(debits=1).to_the_end()
    assert [entry["package"] for entry in summary["failed"]] == ["b"]
    assert not any("set aside" in line for line in world.said)


def test_tags_that_no_machine_has(world: World) -> None:
    world.variables["portbuild_package_settings"] = {"b": {"needs_tags": ["large"]}}
    world.offline = {"m2"}
    summary = world.begin().to_the_end()
    assert summary["given_up"] == {"b": "No machine has all tags that it needs: large."}
    assert summary["built"] == ["a", "c"]


def test_attempts_are_not_forgotten(world: World) -> None:
    world.outcomes["a"] = ["infrastructure"] * 9
    for _time in range(3):
        going = world.begin(attempts=3)
        for _second in range(30):
            going.step(5.0)
            for name in list(world.running):
                world.finish(name)
            if world.began["a"] > _time:
                going.step(0.1)
                break
        world.die()
    assert world.began["a"] == 3
    assert world.begin(attempts=3).to_the_end()["given_up"].keys() == {"a"}


@pytest.mark.parametrize(
    ("tree", "held", "targets", "ok"),
    [
        ({"a": "nowhere", "x": "a"}, (), ["x"], False),
        ({"a": "nowhere", "x": "a"}, (), ["all"], False),
        ({"a": "", "x": "a"}, ("a",), ["all"], True),
        ({"a": "", "x": "a"}, ("a",), ["x"], False),
        ({"a": "", "x": "a"}, ("a",), ["a", "all"], False),
    ],
    ids=["missing", "missing-all", "held-all", "held-named", "held-itself"],
)
def test_all_is_well_only_if_all_was_built_that_was_to_be(
    tmp_path: pathlib.Path, tree: dict[str, str], held: tuple[str, ...], targets: list[str], ok: bool
) -> None:
    world = World(tmp_path, tree, {"m": 1})
    world.variables["portbuild_targets"] = targets
    world.held = dict.fromkeys(held, "It is held.")
    assert world.begin().to_the_end()["ok"] is ok


def test_machines_go_and_come(world: World) -> None:
    world.offline = {"m1", "m2"}
    going = world.begin()
    for _second in range(40):
        assert going.step()
    assert not world.running
    assert any("no machine takes packages" in line for line in world.said)
    world.offline = {"m1"}
    going.step(3.0)
    assert {build.machine for build in world.running.values()} == {"m2"}
    world.foreign["m2"] = 2
    world.finish("a")
    going.step(3.0)
    assert not world.running  # others have taken its slots
    world.foreign["m2"] = 1
    going.step(3.0)
    assert len(world.running) == 1
    assert going.to_the_end()["ok"]


def test_nobody_answers_when_nobody_lives(world: World) -> None:
    world.begin().step()
    with pytest.raises(NoBulk):
        ask(world.journal, "stop", "", "me")


def test_who_was_taken_over_can_do_nothing_any_more(world: World) -> None:
    late = world.begin()
    world.begin(dataclasses.replace(OUTER, pid=43))
    with pytest.raises(NotOurs, match="Another process has taken over"):
        late.step()
    assert not world.running


def test_stop_and_go_on(world: World) -> None:
    going = world.begin(Owner.of(os.getpid()))
    going.step()
    number = 0

    def obey() -> Answer | None:
        going.step(3.0)
        return world.journal.answer_to(number)

    number = world.journal.ask("stop", "", "me")
    assert obey() == Answer(True, "The bulk build ends when what runs now has ended.")
    with pytest.raises(BulkRuns, match="runs already"):
        world.journal.begin({}, Owner.of(1))
    summary = going.to_the_end()
    assert summary["built"] == ["a"]
    assert summary["unfinished"] == ["b", "c", "d"]
    assert not summary["ok"]
    assert world.begin().to_the_end()["built"] == ["b", "c", "d"]


def test_retry_and_why(world: World) -> None:
    world.outcomes["b"] = ["failed"]
    going = world.begin(Owner.of(os.getpid()))
    while world.began["b"] == 0 or "b" in world.running:
        going.step()
        if world.running:
            world.finish(min(world.running))
    going.step()
    answers = {
        world.journal.ask("why", "d", "me"): Answer(
            True, "d is skipped. b is failed. It is to be built because there is none."
        ),
        world.journal.ask("retry", "d", "me"): Answer(False, "d is skipped. Retry b, for which it waits."),
        world.journal.ask("why", "nobody", "me"): None,
        world.journal.ask("retry", "b", "me"): Answer(
            True, "b is tried again, and what was skipped for it comes back."
        ),
    }
    world.digests["b"] = "a mended recipe"
    going.step(3.0)
    for number, expected in answers.items():
        answer = world.journal.answer_to(number)
        assert answer is not None
        assert expected is None or answer == expected
    assert going.to_the_end()["ok"]
    assert why(world.journal, "b", "me").startswith("In the last bulk build b was built.")
    assert world.begin().plan.why == {}  # what was built is what there is now
    with pytest.raises(NotDone, match="knows nothing of nobody"):
        why(world.journal, "nobody", "me")


def test_cycles_missing_and_unknown_are_named_and_the_rest_is_built(tmp_path: pathlib.Path) -> None:
    world = World(tmp_path, {"a": "", "x": "y", "y": "x", "z": "nowhere", "b": "z a"}, {"m": 3})
    world.variables["portbuild_targets"] = ["all", "nobody"]
    summary = world.begin().to_the_end()
    assert summary["built"] == ["a"]
    assert summary["ignored"] == {
        "x": "It is in a cycle of 2: x needs y needs x.",
        "y": "It is in a cycle of 2: x needs y needs x.",
        "z": "It needs nowhere, which is not there.",
    }
    assert summary["unknown"] == {"nobody": "There is no nobody."}
    assert not summary["ok"]


NAMES = "abcdef"
trees = st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES), max_size=3), min_size=1).map(
    lambda tree: {
        name: " ".join(sorted(needed for needed in needs if needed < name and needed in tree))
        for name, needs in tree.items()
    }
)
outcomes = st.dictionaries(
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(["built", "failed", "infrastructure", "stale", "job_busy"]), max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(tree=trees, outcomes=outcomes, data=st.data())
def test_whatever_dies_when_the_result_is_that_of_an_undisturbed_run(
    tree: dict[str, str], outcomes: dict[str, list[str]], data: st.DataObject
) -> None:
    """The bulk build dies between any two steps, builds end at any time, whether anybody waits for them or not."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk would wait for each commit
    with tempfile.TemporaryDirectory(dir=memory) as first, tempfile.TemporaryDirectory(dir=memory) as second:
        undisturbed = World(pathlib.Path(first), tree, {"m1": 1, "m2": 2})
        disturbed = World(pathlib.Path(second), tree, {"m1": 1, "m2": 2})
        for world in (undisturbed, disturbed):
            world.outcomes.update({name: list(ends) for name, ends in outcomes.items()})
        expected = undisturbed.begin().to_the_end()
        going = disturbed.begin()
        for _moment in range(data.draw(st.integers(0, 12), label="moments")):
            what = data.draw(st.sampled_from(["step", "finish", "record", "kill", "die"]), label="what")
            dispatched = sorted(name for name, build in disturbed.running.items() if build.dispatched)
            if what == "step":
                going.step(data.draw(st.sampled_from([0.1, 3.0, 60.0])))
            elif what == "finish" and disturbed.running:
                disturbed.finish(data.draw(st.sampled_from(sorted(disturbed.running))))
            elif what == "record" and dispatched:
                name = data.draw(st.sampled_from(dispatched))
                if disturbed.running[name].outcome in ("built", "failed") and not disturbed.running[name].recorded:
                    disturbed.record(name)
            elif what == "kill" and dispatched:
                disturbed.kill(data.draw(st.sampled_from(dispatched)))
            elif what == "die":
                disturbed.die()
                going = disturbed.begin()
        found = going.to_the_end()
        assert _ends(found) == _ends(expected)
        assert disturbed.began == undisturbed.began
        assert not disturbed.running


def _ends(summary: dict[str, t.Any]) -> dict[str, t.Any]:
    names = ("ok", "built", "skipped", "unfinished", "ignored")
    failed = sorted(entry["package"] for entry in summary["failed"])
    return {**{name: summary[name] for name in names}, "failed": failed, "given_up": sorted(summary["given_up"])}
