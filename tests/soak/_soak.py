# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tree is built again and again while everything around it breaks, and looked at when all of it is whole again."""

from __future__ import annotations

import collections
import hashlib
import pathlib
import random
import shutil
import time
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import Client, ClientSpec, Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, Running
from ansible_collections.portbuild.cluster.tests.integration_cluster._killing import kill
from ansible_collections.portbuild.cluster.tests.integration_cluster._tree import (
    assert_nothing_runs,
    bulk,
    make_tree,
    start_bulk,
    summary,
)

from ._faults import FAULTS, Ground, Hurt

#: A package for each line, with what it needs. One of them cannot be built, which must come out as often as it is tried.
NEEDS = {
    "soak-a": "", "soak-b": "", "soak-c": "soak-a", "soak-d": "soak-a soak-b", "soak-e": "soak-c soak-d", "soak-f": "",
    "soak-g": "soak-e soak-f", "soak-h": "soak-f", "soak-bad": "", "soak-after": "soak-bad soak-a",
}  # fmt: skip
BAD, SKIPPED = "soak-bad", "soak-after"
GOOD = sorted(NEEDS.keys() - {BAD, SKIPPED})
SPECS = (
    ClientSpec("client1", login="root", maxjobs=1, backend="auto"),
    ClientSpec("client2", login="pbclient", maxjobs=2, backend="tmpfs"),
    ClientSpec("client3", login="pbclient", maxjobs=2, backend="directory"),
)
#: How soon everybody gives up, so that much can happen in little time.
IMPATIENT = {"reconnect_timeout": "6s", "poll_interval": "2s", "retry_interval": "5s", "check_timeout": "10s"}
SSH = "ansible_ssh_extra_args='-o ServerAliveInterval=1 -o ServerAliveCountMax=3'"
SETTLED = 600.0  # seconds for all that was hurt to come to rest


class Soak:
    """One soak: faults at random, and the same for the same seed as far as the machine keeps step."""

    def __init__(
        self, cluster: Cluster, farm: Farm, directory: pathlib.Path, seed: int, say: t.Callable[[str], object]
    ) -> None:
        farm.variables.update({f"portbuild_{name}": value for name, value in IMPATIENT.items()})
        free = farm.variables.pop("portbuild_min_free", "100M")
        conf = farm.queue.parent / "portbuild.conf"
        conf.write_text(f"{conf.read_text(encoding='utf-8')}min_free={free}\n", encoding="utf-8")
        self.tree = make_tree(directory / "tree", NEEDS, {BAD: ["exit 1"], **{name: ["sleep 2"] for name in GOOD}})
        farm.variables["portbuild_sourcedir"] = str(self.tree)
        self.cluster = cluster
        self.farm = farm
        # What needs others would rightly fail for want of them, whoever dispatches it alone.
        alone = [name for name, needs in NEEDS.items() if not needs]
        self.ground = Ground(farm, random.Random(seed), alone)
        self.say = say
        self.begun = time.monotonic()
        self.counts: collections.Counter[str] = collections.Counter()
        self.healing: list[tuple[float, Hurt]] = []
        self.round = 0
        self.next_round()

    # -- the tree ------------------------------------------------------------------------------------------------------

    def next_round(self) -> None:
        """Give every package a new version, so that all of them are to be built again."""
        self.round += 1
        for name in NEEDS:
            path = self.tree / name / "debian" / "changelog"
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(text[text.index("(") : text.index(")") + 1], f"(1.{self.round})", 1))
        self.tell(f"round {self.round} begins")

    def tell(self, text: str) -> None:
        """Say what happens, with the time since the beginning."""
        self.say(f"{time.monotonic() - self.begun:6.1f}  {text}")

    def keep_going(self) -> None:
        """Start again whatever was killed, and the next round when one is complete."""
        for name, running in list(self.ground.running.items()):
            if running.process.poll() is None:
                continue
            running.end()
            del self.ground.running[name]
            if name == "bulk" and running.process.returncode >= 0 and self.is_complete():
                self.next_round()
        if self.ground.whole("inventory"):  # a playbook needs it to begin with; a run copes with half of one
            self.start("bulk", lambda: start_bulk(self.farm, self.tree, "-e", SSH))
            self.start("checkmachines", lambda: self.farm.start("checkmachines", "-e", SSH, interval="5s"))
        for path in (self.farm.root / self.farm.arch / "loads").glob(".checks/*.json"):
            path.unlink(missing_ok=True)  # nobody waits hours for machines that break every minute

    def start(self, name: str, start: t.Callable[[], Running]) -> None:
        """Start it unless it runs."""
        if name not in self.ground.running:
            self.ground.running[name] = start()

    def is_complete(self) -> bool:
        """Whether the round has come to its end as it should."""
        try:
            failed = [entry["package"] for entry in summary(self.farm)["failed"]]
        except FileNotFoundError:
            return False
        there = [(self.farm.packages / f"{name}_1.{self.round}_all.deb").exists() for name in GOOD]
        return all(there) and failed == [BAD]

    # -- faults --------------------------------------------------------------------------------------------------------

    def hurt(self) -> None:
        """Let one thing happen."""
        fault = self.ground.rng.choices(list(FAULTS), list(FAULTS.values()))[0]
        hurt = fault(self.ground)
        if hurt is None:
            return
        self.counts[fault.__name__] += 1
        self.tell(f"fault {self.counts.total()}: {hurt.text}")
        if hurt.heal is not None:
            self.ground.hurt.add(hurt.part)
            self.healing.append((time.monotonic() + hurt.seconds, hurt))

    def heal(self, *, all_of_it: bool = False) -> None:
        """Heal what it is time for."""
        for when, hurt in list(self.healing):
            if all_of_it or when <= time.monotonic():
                assert hurt.heal is not None
                self.healing.remove((when, hurt))
                if hurt.heal() is False and not all_of_it:
                    self.healing.append((time.monotonic() + 2, hurt))
                else:
                    self.ground.hurt.remove(hurt.part)

    def look(self) -> None:
        """Fail if a machine has more builds than it may."""
        for client in self.cluster.clients:
            if client.name in self.ground.hurt:
                continue
            builds = len(set(self.farm.supervisors(client)))
            assert builds <= client.spec.maxjobs, f"{client.name} has {builds} builds: {self.farm.supervisors(client)}"

    def run(self, seconds: float, faults: int) -> None:
        """Let things happen for so long, and until there were so many faults."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end or self.counts.total() < faults:
                self.heal()
                self.keep_going()
                self.look()
                self.hurt()
                time.sleep(self.ground.rng.expovariate(1 / 2.5))
        finally:
            self.heal(all_of_it=True)
        self.tell(f"{self.counts.total()} faults, {self.round} rounds; now everything is left in peace")

    def close(self) -> None:
        """Leave nothing running, however the soak has ended."""
        for running in self.ground.running.values():
            if running.process.poll() is None:
                kill(running, "everything")

    # -- afterwards ----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Have what runs come to its end, and the round to its own."""
        end = time.monotonic() + SETTLED
        for client in self.cluster.clients:
            self.farm.play("undrain", machine=client.name)
        if "checkmachines" in self.ground.running:  # it may have been killed while the inventory could not be read
            self.ground.running.pop("checkmachines").kill()
        for running in self.ground.running.values():
            running.end(SETTLED)
        self.ground.running.clear()
        bulk(self.farm, self.tree)
        while not self.is_complete():
            assert time.monotonic() < end, "the tree was not complete in time"
            bulk(self.farm, self.tree)
        for playbook in ("checkmachines", "cleanup"):
            self.farm.play(playbook, reconnect_timeout="0s").ok()

    def verify(self) -> None:
        """Fail unless all is as after an undisturbed run, and nothing is left over."""
        disturbed = self.results()
        assert {name for name in NEEDS if self.farm.failed(name)} == {BAD}
        self.wait_for_peace()
        bulk(self.farm, self.tree, rebuild="all").fails(f"failed: {BAD} (blocks 1)")
        assert self.results() == disturbed
        again = summary(self.farm)
        assert sorted(again["built"]) == GOOD
        assert list(again["skipped"]) == [SKIPPED]
        self.wait_for_peace()
        self.assert_tidy()

    def results(self) -> dict[str, str]:
        """Return the SHA-256 of every package file of this round."""
        paths = sorted(self.farm.packages.glob(f"soak-*_1.{self.round}_*"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.suffix == ".deb"}

    def wait_for_peace(self) -> None:
        """Wait until the farm is idle: a build that was given up may still run to its end."""
        end = time.monotonic() + 60
        while True:
            try:
                self.farm.assert_idle()
                assert_nothing_runs(self.farm)
            except AssertionError:
                if time.monotonic() > end:
                    raise
                time.sleep(1)
                continue
            return

    def assert_tidy(self) -> None:
        """Fail if anything is left that only a run that is under way may have."""
        assert not list((self.farm.queue / ".offline").glob("*")), "a machine is still offline"
        left = [path for path in self.farm.branch_directory.rglob("*") if path.name.startswith(".tmp")]
        assert left == [], f"temporary files are left: {left}"
        stray = sorted(self.farm.packages.glob(".incoming/*"))
        assert stray == [], f"files are left on their way home: {stray}"
        for client in self.cluster.clients:
            for name in ("incoming", "kept"):
                found = client.run(["sh", "-c", f"ls -A {client.scratch}/{name} 2>/dev/null || :"]).stdout.split()
                assert found == [], f"{client.name}: {name}/ has {found}"
            assert not builders(client), f"{client.name}: {builders(client)}"


def builders(client: Client) -> list[str]:
    """Return what runs on the client besides sshd and its connections."""
    lines = [" ".join(process.argv) for process in client.processes()]
    return [line for line in lines if "sshd" not in line and "portbuild" in line]


def prepare(farm: Farm, bindist: pathlib.Path | None = None) -> None:
    """Have a bindist and machines that are set up."""
    if bindist is not None and bindist.exists():
        shutil.copytree(bindist, farm.branch_directory / "tarballs", dirs_exist_ok=True)
    farm.play("bindist", timeout=900).ok()
    farm.play("setup", timeout=600).ok()
