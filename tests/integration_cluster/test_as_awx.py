# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The job templates, run as AWX runs them; cancelled ones leave nothing behind that the next job does not find."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._awx import Job
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    closed_gates,
    make_source,
    open_gates,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._tree import (
    assert_nothing_runs,
    make_tree,
    QUICK,
    summary,
    times_built,
)


@pytest.fixture
def awx(idle: Farm, tmp_path: pathlib.Path) -> t.Iterator[Farm]:
    """The controller, with variables that AWX has in its inventory: nothing but a survey's answers comes with a job."""
    before = dict(idle.variables)
    idle.variables["portbuild_sourcedir"] = str(tmp_path / "sources")
    idle.variables.update({f"portbuild_{name}": value for name, value in QUICK.items()})
    yield idle
    idle.variables.clear()
    idle.variables.update(before)


def at_gates(farm: Farm, job: Job, count: int) -> None:
    """Wait until so many builds wait."""

    def enough() -> bool:
        assert job.running(), job.output()
        return len(closed_gates(farm.cluster)) >= count

    wait_for(enough, f"{count} builds at their gates", 120, 0.2)


def test_dispatch_with_its_events(awx: Farm, tmp_path: pathlib.Path) -> None:
    make_source(tmp_path / "sources", "pba-one")
    job = Job(awx, tmp_path, "dispatch.yml", package="pba-one", machine="", keep_workdir="no", noclean="false").ok()
    assert [build["outcome"] for build in awx.builds("pba-one")] == ["success"]
    counters = [event["counter"] for event in job.events]
    assert counters == list(range(1, len(counters) + 1))
    assert [path for path in job.files() if path.name.endswith("partial.json")] == []
    assert len(job.files()) == len(job.events)
    kinds = {event["event"] for event in job.events}
    assert {"playbook_on_start", "playbook_on_task_start", "runner_on_ok", "playbook_on_stats"} <= kinds
    assert "pba-one 1.0 was built on client" in " ".join(job.output().split())
    secret = job.key.read_bytes()
    assert not [path for path in job.directory.rglob("*") if path.is_file() and secret in path.read_bytes()]
    job.assert_nothing_orphaned(20)


def test_what_looks_after_the_farm(awx: Farm, tmp_path: pathlib.Path) -> None:
    checked = Job(awx, tmp_path, "checkmachines.yml").ok()
    assert all((awx.root / awx.arch / "loads" / client.name).exists() for client in awx.cluster.clients)
    Job(awx, tmp_path, "cleanup.yml", machines="").ok()  # a field that was emptied means what its default says
    drained = Job(awx, tmp_path, "drain.yml", machine="client3", reason="as AWX does").ok()
    status = Job(awx, tmp_path, "status.yml", ask_machines="false").ok()
    assert "as AWX does" in status.output() and "alice" in status.output()
    Job(awx, tmp_path, "undrain.yml", machine="client3").ok()
    for job in (checked, drained, status):
        job.assert_nothing_orphaned(20)


@pytest.mark.parametrize("by_file", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["by-agent", "by-file"])
def test_a_small_bulk(awx: Farm, tmp_path: pathlib.Path, by_file: bool) -> None:
    names = {f"pba-{by_file:d}a": "", f"pba-{by_file:d}b": f"pba-{by_file:d}a"}
    make_tree(tmp_path / "sources", names)
    job = Job(awx, tmp_path, "bulk.yml", by_file=by_file, targets="".join(f"{name}\n" for name in names)).ok()
    assert sorted(summary(awx)["built"]) == sorted(names)
    assert times_built(awx, names) == dict.fromkeys(names, 1)
    job.assert_nothing_orphaned(20)
    assert_nothing_runs(awx)


def test_a_cancelled_dispatch_is_gone_on_with(awx: Farm, tmp_path: pathlib.Path) -> None:
    make_source(tmp_path / "sources", "pba-gate", gate=True)
    job = Job(awx, tmp_path, "dispatch.yml", package="pba-gate")
    at_gates(awx, job, 1)
    job.cancel()
    job.assert_nothing_orphaned(20)
    assert len(awx.leases()) == 1
    again = Job(awx, tmp_path, "dispatch.yml", package="pba-gate")
    wait_for(lambda: "TASK [portbuild.cluster.dispatch : Build the package]" in again.output(), "the job", 60)
    assert list(closed_gates(awx.cluster)) == ["pba-gate"]  # still the build of the first job
    open_gates(awx.cluster)
    again.ok()
    assert [build["outcome"] for build in awx.builds("pba-gate")] == ["success"]
    again.assert_nothing_orphaned(20)


def test_a_cancelled_bulk_is_collected_and_gone_on_with(awx: Farm, tmp_path: pathlib.Path) -> None:
    names = {"pbc-a": "", "pbc-b": "", "pbc-c": "pbc-a pbc-b"}
    make_tree(tmp_path / "sources", names, gates=["pbc-a", "pbc-b"])
    job = Job(awx, tmp_path, "bulk.yml", targets="all")
    at_gates(awx, job, 2)
    job.cancel()
    job.assert_nothing_orphaned(40)
    assert_nothing_runs(awx)
    open_gates(awx.cluster)
    wait_for(lambda: not any(map(awx.supervisors, awx.cluster.clients)), "the end of the builds", 60)
    cleanup = Job(awx, tmp_path, "cleanup.yml").ok()  # what has ended meanwhile comes home
    assert awx.leases() == [], job.output() + cleanup.output()
    awx.assert_idle()
    assert times_built(awx, ["pbc-a", "pbc-b"]) == {"pbc-a": 1, "pbc-b": 1}
    Job(awx, tmp_path, "bulk.yml", targets="all").ok()
    assert times_built(awx, names) == dict.fromkeys(names, 1)
    assert_nothing_runs(awx)
