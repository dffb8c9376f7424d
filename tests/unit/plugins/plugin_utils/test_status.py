# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the cluster stands."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._holds import Held
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Lease, MachineState
from ansible_collections.portbuild.cluster.plugins.plugin_utils._status import (
    describe_holds,
    describe_jobs,
    describe_machines,
    render,
    table,
)

NOW = 1_800_000_000.0


def machine(name: str, **more: t.Any) -> MachineState:
    values = {
        "counter": 0,
        "ours": 0,
        "foreign": 0,
        "held": 0,
        "maxjobs": 2,
        "offline": None,
        "problems": [],
        "state": "free",
        **more,
    }
    return MachineState(name=name, **values)


def lease(package: str, machine: str = "a1", *, age: float = 60.0, **more: t.Any) -> Lease:
    return Lease(Job("amd64", "14", package), machine, 7, None, NOW - age, NOW - age, **more)


def status(**more: t.Any) -> dict[str, t.Any]:
    return {"machines": [], "running": [], "bulk": "", "waiting": [], "left": [], "holds": [], "problems": [], **more}


def jobs(leases: list[Lease], told: t.Any = None) -> tuple[list[dict[str, t.Any]], list[dict[str, t.Any]]]:
    return describe_jobs(leases, told or {}, now=NOW, alive=lambda lease: True, average=lambda *_names: 30.0)


def test_machines_stand_in_the_order_of_the_inventory() -> None:
    offline = {"reason": "new disks", "by": "ada", "since": 86400.0}
    states = [machine("a1", ours=1), machine("a2", state="offline", offline=offline), machine("gone", maxjobs=0)]
    told = {"a1": {"load": [0.5, 1, 2.25]}, "a3": {"problem": "It cannot be reached."}}
    found = describe_machines(states, ["a3", "a2", "a1"], {"a1": "9, 9, 9\n", "a2": "0.10, 0.20, 0.30\n"}, told)  # type: ignore[arg-type]
    assert [entry["machine"] for entry in found] == ["a3", "a2", "a1", "gone"]
    assert render(status(machines=found)) == [
        "machine  state    jobs  load            since             by   why",
        "a3       absent   0/?                                          It cannot be reached.",
        "a2       offline  0/2   0.10 0.20 0.30  1970-01-02 00:00  ada  new disks",
        "a1       free     1/2   0.50 1.00 2.25",
        "gone     free     0/?",
        "",
        "Nothing runs.",
    ]


def test_jobs_with_what_their_machine_says() -> None:
    seen = {"arch": "amd64", "branch": "14", "package": "old", "phase": "build", "age": 3700, "running": True}
    told = {
        "a1": {"jobs": [{**seen, "last_line": "\x1b[31mchecking\x1b[0m for gcc\x07"}, {"arch": 1}, 5], "chroots": None}
    }
    running, left = jobs([lease("new"), lease("old"), lease("lost", state="lost", reason="away")], told)
    assert [(job["package"], job["elapsed"], job["phase"]) for job in running] == [
        ("old", 3700.0, "build"),
        ("new", 60.0, ""),
    ]
    assert "checking for gcc" in running[0]["last_line"]
    assert [(job["package"], job["state"], job["reason"]) for job in left] == [("lost", "lost", "away")]
    lines = render(status(running=running, left=left, holds=describe_holds({"hello": Held("too new", "ada", 0.0)})))
    assert any(line.startswith("old      14      a1       build  1 h 1 min  30.0 s") for line in lines)
    assert "Left on machines:" in lines and "On hold:" in lines
    assert "hello    ada  too new" in lines


def test_a_job_whose_dispatch_is_dead_says_so() -> None:
    running, _left = describe_jobs([lease("foo")], {}, now=NOW, alive=lambda lease: False, average=lambda *_names: None)
    assert any("(its dispatch is dead)" in line for line in render(status(running=running)))


def test_what_waits_has_its_place() -> None:
    lines = render(status(waiting=[{"package": "foo", "why": "needs bar"}]))
    assert lines[-2:] == ["package  why", "foo      needs bar"]


@pytest.mark.parametrize("rows", [[], [("", "")]], ids=["no rows", "nothing in them"])
def test_an_empty_table(rows: list[tuple[str, str]]) -> None:
    assert all(not line for line in table(("a", "b"), rows))


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
_ENTRY = st.fixed_dictionaries(
    {"arch": st.just("amd64"), "branch": st.just("14"), "package": st.just("foo")},
    optional={"phase": _JSON, "age": _JSON, "last_line": _JSON, "running": _JSON},
)


@given(st.fixed_dictionaries({}, optional={"jobs": st.lists(_ENTRY, max_size=2), "load": _JSON, "problem": _JSON}))
def test_whatever_a_machine_says_makes_lines(told) -> None:
    running, left = jobs([lease("foo")], {"a1": told})
    found = describe_machines([machine("a1")], ["a1"], {}, {"a1": told})
    lines = render(status(machines=found, running=running, left=left))
    assert all("\n" not in line and "\x1b" not in line for line in lines)
