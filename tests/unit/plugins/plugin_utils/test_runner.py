# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a dispatch is told, and what is heard of it. That it runs is for the cluster tests to show."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._launcher import Launch
from ansible_collections.portbuild.cluster.plugins.plugin_utils._runner import _Heard, _variables
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import refuse_unknown


def event(kind: str, result: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    return {"event": kind, "event_data": {"res": result, **more}}


def test_the_variables_are_settings() -> None:
    variables = _variables(Launch("foo", "foo=1.0", "a1", 2, [], 12, ("bar", "baz")))
    refuse_unknown(variables)
    assert (variables["portbuild_package"], variables["portbuild_machine"]) == ("foo=1.0", "a1")
    assert variables["__dispatch_blocks"] == {"blocks": 12, "blocked": ["bar", "baz"]}


def test_the_last_outcome_counts() -> None:
    heard = _Heard()
    assert heard({"event": "playbook_on_start"}) is False
    heard(event("runner_on_failed", {"msg": "The build failed", "reason": "failed"}))
    heard(event("runner_on_ok", {"outcome": {"outcome": "infrastructure", "machine": "a1"}}))
    heard(event("runner_on_ok", {"outcome": {"outcome": "built", "machine": "a2"}}))
    heard(event("runner_on_failed", {"msg": "an assertion"}))
    assert heard.outcome == {"outcome": "built", "machine": "a2"}


@pytest.mark.parametrize("ignored", [True, False], ids=["ignored", "counts"])
def test_a_failure_outside_of_an_attempt(ignored: bool) -> None:
    heard = _Heard()
    heard(event("runner_on_failed", {"msg": "All are busy.", "reason": "all_busy"}, ignore_errors=ignored))
    expected = {"outcome": "error", "reason": "all_busy", "infrastructure": False, "msg": "All are busy."}
    assert heard.outcome == ({} if ignored else expected)


@pytest.mark.parametrize("result", [None, "text", {"outcome": "text"}, {"outcome": {}}], ids=str)
def test_other_events_say_nothing(result: t.Any) -> None:
    heard = _Heard()
    heard({"event": "runner_on_ok", "event_data": {"res": result}})
    assert heard.outcome == {}
