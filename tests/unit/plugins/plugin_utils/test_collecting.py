# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._collecting import decide
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Lease


def lease(state: str = "claimed") -> Lease:
    return Lease(Job("amd64", "14", "foo"), "a1", 7, None, 0.0, 0.0, state=state)


@pytest.mark.parametrize(
    ("lease_", "chroot", "action"),
    [
        (lease(), None, "drop"),
        (lease("lost"), None, "drop"),
        (lease("kept"), None, "leave"),
        (lease(), {"running": True, "ended": False}, "leave"),
        (lease("orphan"), {"running": True, "ended": False}, "leave"),
        (lease(), {"running": False, "ended": True}, "collect"),
        (lease("uncollected"), {"running": False, "ended": True}, "collect"),
        (None, {"running": False, "ended": True}, "collect"),
        (lease(), {"running": False, "ended": False}, "clean"),
    ],
)
def test_what_is_done_about_a_job_nobody_works_on(lease_: Lease | None, chroot: dict | None, action: str) -> None:
    assert decide(lease_, chroot)[0] == action


def test_what_was_kept_is_forgotten_when_it_is_gone() -> None:
    assert decide(lease("kept"), None, kept=False)[0] == "drop"


@pytest.mark.parametrize("chroot", [{"running": True, "ended": False}, {"running": False, "ended": True}])
def test_what_has_been_recorded_or_superseded_is_not_wanted(chroot: dict) -> None:
    assert decide(lease("lost"), {**chroot, "build_token": 7}, 7)[0] == "discard"
    assert decide(lease("lost"), {**chroot, "build_token": 7}, 8)[0] == "discard"
    assert decide(lease("lost"), {**chroot, "build_token": 7}, 6)[0] in ("leave", "collect")
    assert decide(lease("kept"), {**chroot, "build_token": 7}, 8)[0] == "leave"
