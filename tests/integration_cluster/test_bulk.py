# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bulk builds of tiny trees: order, plan, what is built again and why, what fails and what that takes along."""

from __future__ import annotations

import pathlib

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster._tree import (
    bulk,
    control,
    make_tree,
    summary,
    times_built,
)

NEEDS = {
    "pbb-a": "",
    "pbb-b": "pbb-a",
    "pbb-c": "pbb-a",
    "pbb-d": "pbb-b pbb-c",
    "pbb-bad": "",
    "pbb-worse": "pbb-bad pbb-a",
}
GOOD = ["pbb-a", "pbb-b", "pbb-c", "pbb-d"]


def test_a_tree_from_nothing_to_nothing_to_do(idle: Farm, tmp_path: pathlib.Path) -> None:
    tree = make_tree(tmp_path, NEEDS, {"pbb-bad": ["echo 'this is why' >&2; exit 1"]})

    plan = bulk(idle, tree, "--check").ok().output
    assert "6 packages to build, 0 stay as they are, 0 ignored, 0 unknown." in plan
    assert "Longest chain: pbb-a > pbb-b > pbb-d." in plan
    assert not idle.packages.joinpath("pbb-a_1.0_all.deb").exists()

    bulk(idle, tree).fails("failed: pbb-bad (blocks 1)", "4 built, 0 stayed as they are, 1 failed, 1 skipped")
    found = summary(idle)
    assert sorted(found["built"]) == GOOD
    assert [entry["package"] for entry in found["failed"]] == ["pbb-bad"]
    assert found["skipped"] == {"pbb-worse": "pbb-bad is failed."}
    assert times_built(idle, GOOD) == dict.fromkeys(GOOD, 1)
    assert idle.failed("pbb-bad")

    again = bulk(idle, tree, targets=["pbb-d"]).ok().output
    assert "0 built, 4 stayed as they are" in again

    text = control("pbb-b", ["pbb-a"]).replace("Section: misc", "Section: misc\nXS-Note: changed")
    tree.joinpath("pbb-b", "debian", "control").write_text(text, encoding="utf-8")
    plan = bulk(idle, tree, "--check", targets=["pbb-d"]).ok().output
    assert "2 packages to build, 2 stay as they are" in plan
    assert "its recipe has changed" in plan
    once_more = bulk(idle, tree, targets=["pbb-d"]).ok().output
    assert "pbb-d stays: what it needs has come out as it was." in once_more
    assert "1 built, 3 stayed as they are" in once_more
    assert times_built(idle, GOOD) == {"pbb-a": 1, "pbb-b": 2, "pbb-c": 1, "pbb-d": 1}

    idle.packages.joinpath("pbb-c_1.0_all.deb").unlink()
    plan = bulk(idle, tree, "--check", targets=["pbb-d", "pbb-nothing"]).ok().output
    assert "there is none" in plan
    assert "unknown: There is no" in plan
