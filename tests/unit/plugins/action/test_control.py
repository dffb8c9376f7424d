# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machines enter and leave the queue by the action."""

from __future__ import annotations

import pathlib
import types
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.action.control import ActionModule, who
from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import UnknownMachine
from ansible_collections.portbuild.cluster.plugins.plugin_utils._holds import hold, read_holds
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import QueueError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import BadArguments
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._queue_yard import Yard


@pytest.fixture
def yard(tmp_path: pathlib.Path) -> Yard:
    return Yard(tmp_path / "queue", a1=2)


def control(
    yard: Yard, command: str, machine: str = "", *, package: str = "", maxjobs: int = 2, reason: str = ""
) -> dict[str, t.Any]:
    action: t.Any = ActionModule.__new__(ActionModule)
    action._task = types.SimpleNamespace(check_mode=False)
    action.context = lambda _task_vars, **_package: types.SimpleNamespace(
        queue=yard.queue, layout=layout(yard), system=types.SimpleNamespace(resolve=resolve)
    )
    action.maxjobs = lambda *_unused: maxjobs
    task_vars = {"groups": {"build_machines": ["a2"]}, "hostvars": {"a2": {}, "a3": {}}}
    arguments = {"command": command, "machine": machine, "package": package, "reason": reason}
    result: dict[str, t.Any] = action.step(arguments, task_vars)
    return result


def layout(yard: Yard) -> Layout:
    found = Layout(str(yard.directory.parent), "amd64", "14")
    pathlib.Path(found.branch_directory).mkdir(parents=True, exist_ok=True)
    return found


def resolve(asked: str, _index: str) -> tuple[str, str]:
    if asked == "gone":
        raise PortbuildError("The INDEX has no gone.")
    return asked.rpartition("/")[2].partition("=")[0], ""


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


@pytest.mark.parametrize(("take_out", "bring_back"), [("hold", "unhold"), ("drain", "undrain")], ids=["hold", "drain"])
def test_words_for_machines_fit_packages_and_the_other_way_round(yard: Yard, take_out: str, bring_back: str) -> None:
    ended = control(yard, take_out, package="devel/hello", reason="too new")
    assert (ended["changed"], ended["state"]) == (True, "held")
    assert "too new" in ended["msg"]
    assert read_holds(layout(yard))["hello"].by
    assert not control(yard, take_out, package="hello=2.0", reason="too new")["changed"]
    assert control(yard, bring_back, package="hello")["state"] == "free"
    assert read_holds(layout(yard)) == {}

    assert control(yard, take_out, "a1", reason="new disks")["state"] == "offline"
    assert yard.counter("a1") is None
    assert control(yard, bring_back, "a1")["state"] == "online"
    assert yard.counter("a1") == "0\n"


def test_a_package_that_has_gone_can_be_released(yard: Yard) -> None:
    hold(layout(yard), "gone", "", "ada", now=1.0)
    assert control(yard, "unhold", package="gone")["changed"]
    with pytest.raises(PortbuildError):
        control(yard, "hold", package="gone")


@pytest.mark.parametrize(
    ("machine", "package"), [("", ""), ("a1", "hello")], ids=["nothing is named", "both are named"]
)
def test_one_thing_must_be_named(yard: Yard, machine: str, package: str) -> None:
    with pytest.raises(BadArguments, match="portbuild_machine or portbuild_package"):
        control(yard, "hold", machine, package=package)


def test_awx_says_who_it_is() -> None:
    assert who({"awx_user_name": "ada"}) == "ada"
    assert who({})
