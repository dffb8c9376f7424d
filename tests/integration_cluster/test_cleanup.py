# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook cleanup: brings home what is finished, removes what nobody owns, and lets alone what runs."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_facts
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Candidate, Lease
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue_files import FileQueue
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster._snapshots import differences, look
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    closed_gates,
    make_source,
    open_gates,
    wait_for_gates,
)

UNCOLLECTED = "cleanup-uncollected"  # its results could not be brought home
RUNNING = "cleanup-running"  # its dispatch was killed, its build goes on
CLAIMED = "cleanup-claimed"  # its dispatch was killed before it came to the client
CHROOT = "cleanup-chroot"  # a chroot that no lease goes with
IMPOSSIBLE = "1000T"  # free space that no disk has


@pytest.fixture
def conf(idle: Farm) -> t.Iterator[pathlib.Path]:
    """The controller's portbuild.conf, in which settings can be changed under a running dispatch."""
    path = idle.queue.parent / "portbuild.conf"
    before = path.read_text(encoding="utf-8")
    yield path
    path.write_text(before, encoding="utf-8")


@pytest.fixture
def sources(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in (UNCOLLECTED, RUNNING):
        make_source(tmp_path, name, gate=True)
    return tmp_path


def claim_and_die(farm: Farm, package: str, machine: str) -> tuple[FileQueue, Lease]:
    """Take a slot as a dispatch does that is gone a moment later."""
    queue = FileQueue(str(farm.queue), arch=farm.arch)
    with subprocess.Popen(["sleep", "60"]) as owner:
        job = Job(farm.arch, farm.branch, package)
        lease = queue.claim(job, [Candidate(machine, 3)], Owner.of(owner.pid), wait=0)
        owner.kill()
    return queue, lease


def leave_uncollected(farm: Farm, conf: pathlib.Path, sources: pathlib.Path) -> None:
    """Build a package whose results find the controller's disk full."""
    before = conf.read_text(encoding="utf-8")
    running = farm.start("dispatch", package=UNCOLLECTED, sourcedir=str(sources))
    wait_for_gates(farm.cluster, 2, [running])
    conf.write_text(f"{before}min_free={IMPOSSIBLE}\n", encoding="utf-8")
    open_gates(farm.cluster, [UNCOLLECTED])
    running.end().fails("The controller's disk is full")
    conf.write_text(before, encoding="utf-8")


def leave_running(farm: Farm, sources: pathlib.Path) -> None:
    """Kill a dispatch while its build runs."""
    running = farm.start("dispatch", package=RUNNING, sourcedir=str(sources))
    wait_for_gates(farm.cluster, 1, [running])
    running.kill()


def leave_a_chroot(farm: Farm) -> None:
    """Have a chroot made, and the lease that it was made for forgotten."""
    queue, lease = claim_and_die(farm, CHROOT, "client3")
    facts = lease_facts(lease, queue.id())
    farm.adhoc("client3", "-m", "portbuild.cluster.claim_chroot", "-a", json.dumps({"lease": facts})).ok()
    queue.release(lease)


def test_cleanup_after_crashes(idle: Farm, conf: pathlib.Path, sources: pathlib.Path) -> None:
    free = idle.variables["portbuild_min_free"]
    farm = Farm(idle.cluster, idle.root)
    del farm.variables["portbuild_min_free"]
    conf.write_text(f"{conf.read_text(encoding='utf-8')}min_free={free}\n", encoding="utf-8")
    client1, client2, client3 = farm.cluster.clients

    leave_running(farm, sources)
    leave_uncollected(farm, conf, sources)
    assert farm.leases() == [f"client1:bookworm:{RUNNING}", f"held/client2:bookworm:{UNCOLLECTED}"]
    leave_a_chroot(farm)
    claim_and_die(farm, CLAIMED, "client2")
    assert farm.chroots(client1) == [f"{farm.arch}/bookworm/{RUNNING}"]
    assert farm.chroots(client2) == [f"{farm.arch}/bookworm/{UNCOLLECTED}"]
    assert farm.chroots(client3) == [f"{farm.arch}/bookworm/{CHROOT}"]
    assert farm.counters() == {"client1": None, "client2": 1, "client3": 0}
    assert not list(farm.packages.glob(f"{UNCOLLECTED}*"))

    before = look(farm)
    foreseen = farm.play("cleanup", "--check", "-v").ok().output
    told = re.findall(r'"action": "(\w+)", "changed": (\w+), "job": "[^"]*/([^"/]+)"', foreseen)
    assert sorted(told) == [
        ("clean", "true", CHROOT),
        ("collect", "true", UNCOLLECTED),
        ("drop", "true", CLAIMED),
        ("leave", "false", RUNNING),
    ]
    assert only_the_build_itself(differences(before, look(farm))) == []

    farm.play("cleanup").ok()
    assert (farm.packages / f"{UNCOLLECTED}_1.0_all.deb").exists()
    assert [build["outcome"] for build in farm.builds(UNCOLLECTED)] == ["success"]
    assert farm.chroots(client1) == [f"{farm.arch}/bookworm/{RUNNING}"]
    assert farm.chroots(client2) == []
    assert farm.chroots(client3) == []
    assert farm.leases() == [f"client1:bookworm:{RUNNING}"]
    assert farm.counters() == {"client1": None, "client2": 0, "client3": 0}
    assert closed_gates(farm.cluster).keys() == {RUNNING}

    again = farm.play("cleanup").ok()
    assert "changed=1" not in again.output

    open_gates(farm.cluster)
    farm.dispatch(RUNNING, sourcedir=str(sources)).ok()
    assert [build["outcome"] for build in farm.builds(RUNNING)] == ["success"]
    farm.assert_idle()


def only_the_build_itself(lines: list[str]) -> list[str]:
    """Leave out what a running build writes."""
    return [line for line in lines if f"/bookworm/{RUNNING}" not in line]
