# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import time
import types
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _collecting, _step
from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import Candidate
from ansible_collections.portbuild.cluster.plugins.plugin_utils._collecting import (
    Abandoned,
    Action,
    decide,
    resolve_abandoned,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._hook import check_file
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Lease
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import BuildRecord
from ansible_collections.portbuild.cluster.plugins.plugin_utils._telling import NOTHING, Told
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._queue_yard import dead_owner


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


@pytest.mark.parametrize(("action", "recorded"), [("discard", True), ("drop", True), ("clean", False)])
def test_a_build_whose_dispatch_died_before_it_could_tell_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, action: Action, recorded: bool
) -> None:
    where = {"root": str(tmp_path), "arch": "amd64", "branch": "14", "system": "debian"}
    context = StepContext({f"portbuild_{name}": value for name, value in where.items()})
    for directory in context.layout.directories:
        os.makedirs(directory, exist_ok=True)
    queue = context.queue
    queue.enter("a1", 1)
    job = Job("amd64", "14", "foo")
    left = queue.claim(job, [Candidate("a1", 1)], dead_owner(), wait=0)
    queue.update(left, build_token=left.token)
    if recorded:
        build = BuildRecord(
            queue=queue.id(), token=left.token, package="foo", machine="a1", outcome="failed", reason="timeout"
        )
        context.store.record(build)
    told: list[t.Any] = []
    news: list[dict[str, t.Any]] = []

    def tell(_context: StepContext, events: list[t.Any], **_named: t.Any) -> Told:
        told.extend((event["event"], event["token"]) for event in events)
        return NOTHING._replace(events=[{"event": event["event"]} for event in events])

    monkeypatch.setattr(_collecting, "tell", tell)
    monkeypatch.setattr(_collecting, "clean_chroot", lambda *_x, **_y: None)
    step: t.Any = types.SimpleNamespace(owner=Owner.of(os.getpid()), check_tasks=check_file)
    resolve_abandoned(step, context, Abandoned(job, "a1", queue.find(job), action, ""), {}, news)
    assert told == ([("failure", left.token)] if recorded else [])
    assert news == ([{"event": "failure"}] if recorded else [])
    assert queue.all_leases() == []


def test_a_slow_hook_loses_no_adopted_lease(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_step, "RENEW_INTERVAL", 0.05)
    where = {"root": str(tmp_path), "arch": "amd64", "branch": "14", "system": "debian"}
    context = StepContext({f"portbuild_{name}": value for name, value in where.items()})
    for directory in context.layout.directories:
        os.makedirs(directory, exist_ok=True)
    queue, job = context.queue, Job("amd64", "14", "foo")
    queue.enter("a1", 1)
    left = queue.claim(job, [Candidate("a1", 1)], dead_owner(), wait=0)
    queue.update(left, build_token=left.token)
    context.store.record(
        BuildRecord(queue=queue.id(), token=left.token, package="foo", machine="a1", outcome="failed", reason="timeout")
    )
    renewed = []

    def tell(*_unused: t.Any, **_named: t.Any) -> Told:
        for _moment in range(2):
            found = queue.find(job)
            renewed.append(found.renewed if found else 0.0)
            time.sleep(0.3)
        return NOTHING

    monkeypatch.setattr(_collecting, "tell", tell)
    step: t.Any = types.SimpleNamespace(owner=Owner.of(os.getpid()), check_tasks=check_file)
    resolve_abandoned(step, context, Abandoned(job, "a1", queue.find(job), "drop", ""), {}, [])
    assert renewed[1] > renewed[0] + 0.1
