# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._attempts import (
    blames_package,
    describe,
    hold_state,
    may_try_again,
    not_before,
    passed_over,
)

LEASE = {"package": "hello", "machine": "a1"}
BUILT = {"recorded": True, "outcome": "built", "reason": "success", "version": "2.10-3", "seconds": 17.24, "log": "/l"}
CLEANED = {"cleaned": True, "held": ""}


def attempt(machine: str, reason: str, *, infrastructure: bool = True, recorded: bool = True) -> dict[str, object]:
    return {"machine": machine, "reason": reason, "infrastructure": infrastructure, "recorded": recorded}


def test_machines_of_infrastructure_failures_are_passed_over() -> None:
    attempts = [
        attempt("b", "lost"),
        attempt("a", "unreachable"),
        attempt("b", "lost"),
        attempt("c", "x", infrastructure=False),
    ]
    assert passed_over(attempts) == ["a", "b"]


def test_a_machine_is_passed_over_twice_as_long_each_time() -> None:
    failed = [{**attempt("a", "machine_disk_full", recorded=False), "ended": 100.0 * number} for number in range(8)]
    pauses = [not_before(failed[:count], 15.0)["a"] - 100.0 * (count - 1) for count in range(1, 9)]
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]
    others = [{**attempt("b", "x"), "ended": 50.0}, {**attempt("c", "x", infrastructure=False), "ended": 60.0}]
    assert not_before([*failed[:1], *others], 900.0) == {"a": 900.0, "b": 950.0}


@pytest.mark.parametrize(
    ("earlier", "blamed"),
    [
        ([], False),
        ([attempt("a1", "machine_disk_full")], False),  # the same machine again says nothing about the package
        ([attempt("a2", "killed")], False),  # another reason
        ([attempt("a2", "machine_disk_full", recorded=False)], False),  # no build ended for it
        ([attempt("a2", "machine_disk_full")], True),
    ],
)
def test_the_same_reason_on_two_machines_blames_the_package(earlier: list, blamed: bool) -> None:
    assert blames_package(earlier, "a1", "machine_disk_full") is blamed


def test_attempts_are_bounded_in_all_and_by_builds() -> None:
    unbuilt = [attempt("a", "unreachable", recorded=False)] * 5
    assert may_try_again(unbuilt, limit=6, retries=3)
    assert not may_try_again([*unbuilt, unbuilt[0]], limit=6, retries=3)
    built = [attempt("a", "lost")] * 3
    assert may_try_again(built, limit=6, retries=3)
    assert not may_try_again([*built, built[0]], limit=6, retries=3)


@pytest.mark.parametrize(
    ("clean", "state"),
    [
        (CLEANED, None),
        ({"cleaned": False, "held": "uncollected"}, "uncollected"),
        ({"cleaned": False, "held": "kept"}, "kept"),
        ({"failed": True, "msg": "unreachable"}, "lost"),
        ({}, "lost"),
    ],
)
def test_what_is_left_on_the_client_is_remembered(clean: dict, state: str | None) -> None:
    assert hold_state(clean) == state


def test_a_built_package_is_told_with_version_machine_and_log() -> None:
    said = describe(LEASE, BUILT, {}, CLEANED)
    assert said["msg"] == "hello 2.10-3 was built on a1 after 17.2 s. Log: /l"
    assert (said["outcome"], said["infrastructure"]) == ("built", False)


def test_a_failure_is_told_with_phase_and_detail() -> None:
    record = {
        **BUILT,
        "outcome": "failed",
        "reason": "failed",
        "phase": "build",
        "detail": "exit status 2",
        "version": "",
    }
    assert describe(LEASE, record, {}, CLEANED)["msg"] == (
        "hello failed on a1 after 17.2 s: failed in build (exit status 2). Log: /l"
    )


def test_a_step_that_failed_is_told_with_what_is_left() -> None:
    failure = {"infrastructure": True, "reason": "unreachable", "msg": "Machine a1 cannot be reached."}
    said = describe(LEASE, {}, failure, {"failed": True, "msg": "Machine a1\ncannot be reached."})
    assert (said["outcome"], said["reason"]) == ("infrastructure", "unreachable")
    assert said["msg"].endswith("Its chroot on a1 is left as lost (Machine a1 cannot be reached.).")


def test_a_failure_of_our_own_is_not_tried_elsewhere() -> None:
    said = describe(LEASE, {}, {"msg": "A bug."}, CLEANED)
    assert (said["outcome"], said["infrastructure"]) == ("error", False)


def test_results_that_are_not_at_home_are_not_called_unbuilt() -> None:
    failure = {"msg": "The controller's disk is full.", "reason": "error"}
    clean = {"cleaned": False, "held": "uncollected", "why": "It holds results."}
    told = describe(LEASE, {}, failure, clean)
    assert told["msg"] == (
        "The build of hello on a1 ended, but its results are not at home: The controller's disk is full. "
        "Its chroot on a1 is left as uncollected (It holds results.)."
    )
    assert "hello was not built on a1" in describe(LEASE, {}, failure, CLEANED)["msg"]


def test_what_an_earlier_dispatch_asked_for_is_no_answer_and_no_attempt() -> None:
    said = describe(LEASE, {**BUILT, "stale": True}, {}, CLEANED)
    assert (said["outcome"], said["stale"]) == ("stale", True)
    assert said["msg"].endswith("hello is still to be built.")
    assert may_try_again([said, said], limit=1, retries=0)
    assert not may_try_again([said] * 5, limit=9, retries=9)  # a machine that always has another one
    stale = {**attempt("a2", "machine_disk_full"), "stale": True}
    assert not blames_package([stale], "a1", "machine_disk_full")
