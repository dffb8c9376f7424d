# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bulk builds that are hurt: killed, told to stop, with machines that die, come back, or have no room."""

from __future__ import annotations

import hashlib
import os
import pathlib
import random
import signal
import threading
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._killing import children, command_line, kill
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    closed_gates,
    let_all_end,
    open_gates,
    wait_for_gates,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._tree import (
    assert_nothing_runs,
    bulk,
    make_tree,
    start_bulk,
    summary,
    times_built,
)

TEN = {
    "pbk-a": "", "pbk-b": "", "pbk-c": "pbk-a", "pbk-d": "pbk-a pbk-b", "pbk-e": "", "pbk-f": "pbk-c",
    "pbk-g": "pbk-d pbk-e", "pbk-h": "", "pbk-i": "pbk-f pbk-g", "pbk-j": "pbk-h",
}  # fmt: skip


def debs(farm: Farm, names: t.Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of what there is of each package."""
    paths = {name: farm.packages / f"{name}_1.0_all.deb" for name in names}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.exists()}


def run_and_kill(farm: Farm, tree: pathlib.Path, kills: int, seed: int) -> None:
    """Kill a bulk build so many times at random moments, then let it come to its end."""
    rng = random.Random(seed)
    for number in range(kills):
        running = start_bulk(farm, tree)
        try:
            running.process.wait(rng.uniform(1.0, 12.0))
        except Exception:
            kill(running, ("main", "dispatch", "everything", "child")[number % 4])
    last = bulk(farm, tree).ok()
    assert "0 failed, 0 skipped" in last.output


@pytest.mark.slow
@pytest.mark.parametrize("kills", [20])
def test_killed_at_random_moments(idle: Farm, tmp_path: pathlib.Path, kills: int) -> None:
    names = {name.replace("pbk", f"pbk{kills}"): needs.replace("pbk", f"pbk{kills}") for name, needs in TEN.items()}
    tree = make_tree(tmp_path, names, {key: ["sleep 1"] for key in names})
    run_and_kill(idle, tree, kills, seed=20261122 + kills)
    assert times_built(idle, names) == dict.fromkeys(names, 1)
    assert all(len(idle.builds(name)) == 1 for name in names)
    disturbed = debs(idle, names)
    assert disturbed.keys() == names.keys()
    assert_nothing_runs(idle)
    idle.assert_idle()
    bulk(idle, tree, rebuild="all").ok()  # the same, undisturbed
    assert debs(idle, names) == disturbed


def test_why_retry_and_stop_from_another_terminal(idle: Farm, tmp_path: pathlib.Path) -> None:
    needs = {"pbs-bad": "", "pbs-after": "pbs-bad", "pbs-slow": "", "pbs-last": "pbs-slow"}
    tree = make_tree(tmp_path / "tree", needs, {"pbs-bad": ["test -e debian/good"]}, gates=["pbs-slow"])
    running = start_bulk(idle, tree)
    try:
        wait_for_gates(idle.cluster, 1, [running])
        wait_for(lambda: "FAILED pbs-bad" in running.output(), "the failure", 120)
        idle.play("why", package="pbs-after", sourcedir=str(tree)).ok()
        said = idle.play("why", package="pbs-last").ok().output
        assert "pbs-last is queued. It waits for pbs-slow. It is to be built because there is none." in said
        (tree / "pbs-bad" / "debian" / "good").touch()
        assert "pbs-bad is tried again" in idle.play("retry", package="pbs-bad").ok().output
        wait_for(lambda: "pbs-after 1.0 built" in running.output(), "what comes back", 120)
        idle.play("retry", package="pbs-slow").fails(
            "pbs-slow is running. Only what failed or was lost can be retried."
        )
        bulk(idle, tree).fails("A bulk build of this branch runs already")
        assert "ends when what runs now has ended" in idle.play("stop").ok().output
        open_gates(idle.cluster)
        running.end().fails("3 built", "1 not tried")
    finally:
        let_all_end(idle.cluster, [running])
    assert summary(idle)["unfinished"] == ["pbs-last"]
    idle.play("stop").fails("No bulk build of this branch runs.")
    assert "In the last bulk build pbs-last was queued." in idle.play("why", package="pbs-last").ok().output
    assert "1 built, 3 stayed" in bulk(idle, tree).ok().output


def test_interrupted_by_a_signal_leaves_no_orphan(idle: Farm, tmp_path: pathlib.Path) -> None:
    tree = make_tree(tmp_path, {"pbi-one": "", "pbi-two": ""}, gates=["pbi-one", "pbi-two"])
    running = start_bulk(idle, tree)
    wait_for_gates(idle.cluster, 2, [running])
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(60)
    wait_for(lambda: not _runs(idle), "the dispatches to end", 60)
    assert len(closed_gates(idle.cluster)) == 2  # builds go on
    again = start_bulk(idle, tree)
    try:
        wait_for(lambda: "pbi-two is taken over" in again.output(), "the builds to be taken over", 60)
        open_gates(idle.cluster)
        again.end().ok()
    finally:
        let_all_end(idle.cluster, [again])
    assert times_built(idle, ["pbi-one", "pbi-two"]) == {"pbi-one": 1, "pbi-two": 1}


def _runs(farm: Farm) -> bool:
    try:
        assert_nothing_runs(farm)
    except AssertionError:
        return True
    return False


def test_cleanup_while_it_runs(idle: Farm, tmp_path: pathlib.Path) -> None:
    """What runs, and what a dispatch that was killed has left for the run to go on with, stays what it is."""
    names = [f"pbc-{number}" for number in range(4)]
    tree = make_tree(tmp_path, dict.fromkeys(names, ""), gates=names)
    running = start_bulk(idle, tree)
    try:
        gates = wait_for_gates(idle.cluster, 4, [running])
        foreseen = idle.play("cleanup", "--check").ok()
        assert "changed=0" in foreseen.output
        for _number in range(2):
            idle.play("cleanup").ok()
        dispatches = [pid for pid in children(running.pid) if b"portbuild.cluster.dispatch" in command_line(pid)]
        os.kill(min(dispatches), signal.SIGKILL)
        idle.play("cleanup").ok()
        assert closed_gates(idle.cluster) == gates
        open_gates(idle.cluster)
        assert "4 built" in running.end().ok().output
    finally:
        let_all_end(idle.cluster, [running])
    assert times_built(idle, names) == dict.fromkeys(names, 1)


@pytest.mark.slow
def test_machines_grow_and_go_and_come_back(idle: Farm, tmp_path: pathlib.Path) -> None:
    """More slots by an edit of the inventory, and a machine that is gone for a while, while it runs."""
    names = [f"pbm-{number}" for number in range(9)]
    tree = make_tree(tmp_path, dict.fromkeys(names, ""), gates=names)
    inventory, client = idle.cluster.inventory, idle.cluster["client3"]
    before = inventory.read_text(encoding="utf-8")
    assert before.count("portbuild_maxjobs: 2") == 1
    running = start_bulk(idle, tree, reconnect_timeout="3s")
    try:
        wait_for_gates(idle.cluster, 6, [running])
        inventory.write_text(before.replace("portbuild_maxjobs: 2", "portbuild_maxjobs: 4"), encoding="utf-8")
        wait_for_gates(idle.cluster, 8, [running])
        client.kill()
        wait_for(
            lambda: "pbm-" in running.output() and "is tried again" in running.output(), "the loss to be seen", 120
        )
        open_gates(idle.cluster)
        time.sleep(2)
        client.boot()
        while running.process.poll() is None:
            open_gates(idle.cluster)
            time.sleep(0.5)
        assert "9 built" in running.end().ok().output
    finally:
        inventory.write_text(before, encoding="utf-8")
        let_all_end(idle.cluster, [running])
        idle.play("cleanup")
    assert times_built(idle, names) == dict.fromkeys(names, 1)


class Killer(threading.Thread):
    """Kills the machine that one package comes to, each time, and boots it again: what a package does that kills it."""

    def __init__(self, cluster: Cluster, package: str) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.package = package
        self.killed: list[str] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.2):
            gate = closed_gates(self.cluster).get(self.package)
            if gate is not None:
                self.killed.append(gate.client.name)
                gate.client.kill()
                time.sleep(4)
                gate.client.boot()


@pytest.mark.slow
def test_a_package_that_kills_its_machines(idle: Farm, tmp_path: pathlib.Path) -> None:
    needs = {"pbz-kills": "", "pbz-after": "pbz-kills", **{f"pbz-{number}": "" for number in range(6)}}
    tree = make_tree(tmp_path, needs, gates=["pbz-kills"])
    killer = Killer(idle.cluster, "pbz-kills")
    killer.start()
    try:
        ended = bulk(idle, tree, attempts=2, reconnect_timeout="3s", timeout=900)
    finally:
        killer.done.set()
        killer.join(60)
        idle.play("cleanup").ok()
    ended.fails("given up: pbz-kills", "6 built", "1 skipped")
    found = summary(idle)
    assert found["skipped"] == {"pbz-after": "pbz-kills is lost."}
    assert found["failed"] == []
    assert len(killer.killed) >= 2
    assert not idle.failed("pbz-kills")


def test_a_machine_without_room_is_blamed_and_the_rest_goes_on(idle: Farm, tmp_path: pathlib.Path) -> None:
    client = idle.cluster["client3"]
    chroots = f"{client.scratch}/chroots"
    client.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", chroots])
    try:
        tree = make_tree(tmp_path, {f"pbf-{number}": "" for number in range(8)})
        ended = bulk(idle, tree, timeout=900).ok()
    finally:
        client.run(["umount", "-l", chroots])
        idle.play("cleanup")
    assert "8 built" in ended.output
    assert {entry["machine"] for entry in summary(idle)["packages"].values()} <= {"client1", "client2"}
    assert "client3 is set aside" in ended.output
