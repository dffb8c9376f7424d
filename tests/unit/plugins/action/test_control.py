# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machines enter and leave the queue by the action."""

from __future__ import annotations

import pathlib
import types
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.action.control import ActionModule
from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import UnknownMachine
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import QueueError
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._queue_yard import Yard


@pytest.fixture
def yard(tmp_path: pathlib.Path) -> Yard:
    return Yard(tmp_path / "queue", a1=2)


def control(yard: Yard, command: str, machine: str, *, maxjobs: int = 2, reason: str = "") -> dict[str, t.Any]:
    action: t.Any = ActionModule.__new__(ActionModule)
    action._task = types.SimpleNamespace(check_mode=False)
    action.context = lambda _task_vars: types.SimpleNamespace(queue=yard.queue)
    action.maxjobs = lambda *_unused: maxjobs
    task_vars = {"groups": {"build_machines": ["a2"]}, "hostvars": {"a2": {}, "a3": {}}}
    result: dict[str, t.Any] = action.step({"command": command, "machine": machine, "reason": reason}, task_vars)
    return result


@pytest.mark.parametrize("command", ["enter", "drain", "undrain"])
def test_a_mistyped_machine_is_refused(yard: Yard, command: str) -> None:
    before = yard.snapshot()
    with pytest.raises(UnknownMachine, match=r"no machine a11.* Is a1 meant\?"):
        control(yard, command, "a11")
    assert yard.snapshot() == before


def test_a_machine_of_the_queue_or_the_inventory_is_not(yard: Yard) -> None:
    assert control(yard, "drain", "a1")["state"] == "offline"  # it is in no inventory any more
    assert control(yard, "undrain", "a1")["state"] == "online"
    assert control(yard, "enter", "a3")["changed"]
    assert control(yard, "drain", "a2")["changed"]  # before it has entered


def test_a_machine_that_runs_no_jobs_does_not_enter(yard: Yard) -> None:
    assert not control(yard, "enter", "a2", maxjobs=0)["changed"]
    assert yard.counter("a2") is None
    lease = yard.claim("one")
    ended = control(yard, "enter", "a1", maxjobs=0)
    assert (ended["changed"], ended["state"], ended["jobs"]) == (True, "offline", 1)
    assert not control(yard, "enter", "a1", maxjobs=0)["changed"]
    with pytest.raises(QueueError, match="its maxjobs is 0"):
        control(yard, "undrain", "a1", maxjobs=0)
    yard.queue.release(lease)
    assert yard.counter("a1") is None
    ended = control(yard, "enter", "a1", maxjobs=3)
    assert (ended["changed"], ended["state"], yard.counter("a1")) == (True, "online", "0\n")
    assert not control(yard, "enter", "a1", maxjobs=3)["changed"]


def test_what_a_person_took_offline_stays_so(yard: Yard) -> None:
    control(yard, "drain", "a1", reason="new disks")
    assert not control(yard, "enter", "a1", maxjobs=0)["changed"]
    control(yard, "enter", "a1", maxjobs=2)
    assert yard.counter("a1") is None
    control(yard, "undrain", "a1")
    control(yard, "enter", "a1", maxjobs=0)
    control(yard, "drain", "a1", reason="new disks")
    assert control(yard, "enter", "a1", maxjobs=2)["state"] == "offline"
