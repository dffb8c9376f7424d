# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine that cannot give a chroot does not use up all attempts at once."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import aimed_at
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm


def test_a_machine_that_fails_is_left_alone_for_a_while(idle: Farm) -> None:
    arguments = aimed_at(idle, idle.cluster["client1"])
    full: dict[str, t.Any] = {"machine_min_free": "1000T", "attempts": 3, "retry_interval": "3s"}
    ended = idle.dispatch("pb-null", *arguments, **full).fails(
        "pb-null was not built on client1", "none is busy; passed over after a failure there: client1"
    )
    claims = [step["seconds"] for step in ended.steps if step["step"] == "Claim a machine"]
    assert len(claims) == 3
    assert claims[1] > 2
    assert claims[2] > 5
