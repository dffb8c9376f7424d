# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import (
    check_known,
    find_candidates,
    inventory_machines,
    UnknownMachine,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Candidate
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import SettingError


def test_candidates_stand_in_mlist_and_inventory_in_the_order_of_mlist() -> None:
    candidates, others = find_candidates(["a10", "a1", "gone"], ["a1", "new", "a10"], lambda _name: 2)
    assert candidates == [Candidate("a10", 2), Candidate("a1", 2)]
    assert sorted(others) == ["gone", "new"]
    assert "not in the inventory" in others["gone"]
    assert "not in mlist" in others["new"]


def test_without_mlist_the_inventory_gives_the_order() -> None:
    candidates, others = find_candidates(None, ["b", "a"], lambda _name: 1)
    assert [candidate.name for candidate in candidates] == ["b", "a"]
    assert others == {}


def test_an_empty_mlist_means_no_machine() -> None:
    assert find_candidates([], ["a"], lambda _name: 1)[0] == []


def test_a_machine_that_cannot_be_used_is_reported_and_the_rest_goes_on() -> None:
    def maxjobs(name: str) -> int:
        if name == "bad":
            raise SettingError("maxjobs is 'many'.")
        return 0 if name == "off" else 1

    candidates, others = find_candidates(None, ["bad", "off", "a:b", "good"], maxjobs)
    assert candidates == [Candidate("good", 1)]
    assert others["bad"] == "maxjobs is 'many'."
    assert others["off"] == "Its maxjobs is 0."
    assert "malformed" in others["a:b"]


def test_machines_of_the_inventory_are_those_of_the_group() -> None:
    assert inventory_machines({"groups": {"all": ["x"], "build_machines": ["b", "a"]}}) == ["b", "a"]
    assert inventory_machines({}) == []


def test_a_machine_that_nobody_knows_is_refused_with_the_nearest_name() -> None:
    assert check_known("a1", {"a1", "a2"}) == "a1"
    with pytest.raises(UnknownMachine, match=r"no machine a11, neither .* Is a1 meant\?"):
        check_known("a11", ["b7", "a1"])
    with pytest.raises(UnknownMachine, match=r"Known are: b7\."):
        check_known("something", ["b7"])
