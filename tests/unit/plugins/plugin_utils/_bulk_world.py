# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A world of machines for a bulk build without any: what runs there goes on when the bulk build dies.

A double of the dispatch, the queue and the machines; record of builds, journal, plan, schedule and bulk are the real ones.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._files import write_json
from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bulk import Bulk, reconcile
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bulk_report import Reporter
from ansible_collections.portbuild.cluster.plugins.plugin_utils._journal import Run, SqliteJournal
from ansible_collections.portbuild.cluster.plugins.plugin_utils._launcher import Ended, Launch, Launcher
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._plan import make_plan, Plan, predict, Slots
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Lease, MachineState
from ansible_collections.portbuild.cluster.plugins.plugin_utils._schedule import Options, Schedule
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import resolve
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import SqliteStore
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import Catalogue, CatalogueInputs, Recipe
from ansible_collections.portbuild.cluster.plugins.plugin_utils._targets import read_targets
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import (
    build,
    JOB,
    make_layout,
    put,
    QUEUE,
)

# Of an earlier boot of this host: whoever asks finds that it is dead.
OUTER = Owner("another boot", "namespace", 42, "start", os.uname().nodename)


@dataclasses.dataclass
class Build:
    """A build on a machine. C(outcome) is how it ends, C(dispatched) whether a dispatch that lives waits for it."""

    token: int
    machine: str
    outcome: str
    content: bytes
    ended: bool = False
    dispatched: bool = True
    recorded: bool = False


class World(Launcher):
    """Machines, their queue, and a launcher of dispatches; also what a package system says of the tree."""

    def __init__(self, directory: pathlib.Path, needs: t.Mapping[str, str], machines: t.Mapping[str, int]) -> None:
        self.needs = {name: tuple(needed.split()) for name, needed in needs.items()}
        self.digests = {name: f"recipe of {name}" for name in needs}
        self.machines = dict(machines)
        self.layout = make_layout(directory)
        pathlib.Path(self.layout.bindist).write_bytes(b"base")
        write_json(self.layout.bindist_facts, {"sha256": "0" * 64, "size": 4})
        self.store = SqliteStore(self.layout.database)
        self.journal = SqliteJournal(self.layout.database)
        self.variables: dict[str, t.Any] = {
            "portbuild_root": self.layout.root,
            "portbuild_arch": JOB.arch,
            "portbuild_branch": JOB.branch,
            "portbuild_targets": ["all"],
        }
        self.outcomes: dict[str, list[str]] = collections.defaultdict(list)  # how the next builds end; then success
        self.running: dict[str, Build] = {}
        self.offline: set[str] = set()
        self.held: dict[str, str] = {}
        self.foreign: collections.Counter[str] = collections.Counter()
        self.began: collections.Counter[str] = collections.Counter()
        self.launches: list[Launch] = []
        self.said: list[str] = []
        self.time = 1000.0
        self.token = 0
        self._reported: list[Ended] = []

    # -- what the bulk build takes it for: a context, a queue, a package system ------------------------------------------

    @property
    def settings(self) -> t.Any:
        return resolve(self.variables, None)

    @property
    def queue(self) -> t.Any:
        return self

    @property
    def system(self) -> t.Any:
        return self

    needs_tree = False

    def catalogue(self, inputs: CatalogueInputs) -> Catalogue:
        names = list(self.needs) if "all" in inputs.targets else [name for name in inputs.targets if name in self.needs]
        left, seen = list(names), set()
        while left:
            name = left.pop()
            if name not in seen:
                seen.add(name)
                left += [needed for needed in self.needs[name] if needed in self.needs]
        recipes = {
            name: Recipe(
                name=name,
                version="1.0",
                digest=self.digests[name],
                needs=tuple(needed for needed in self.needs[name] if needed in self.needs),
                missing=tuple(needed for needed in self.needs[name] if needed not in self.needs),
            )
            for name in sorted(seen)
        }
        unknown = {word: f"There is no {word}." for word in inputs.targets if word != "all" and word not in self.needs}
        return Catalogue(recipes=recipes, targets=tuple(sorted(names)), unknown=unknown)

    def id(self) -> str:
        return QUEUE

    def newest_token(self) -> int:
        return self.token

    def leases(self) -> list[Lease]:
        return [
            Lease(Job(JOB.arch, JOB.branch, name), build.machine, build.token, None, 0, 0, build_token=build.token)
            for name, build in self.running.items()
        ]

    all_leases = leases

    def find(self, job: Job) -> Lease | None:
        return next((lease for lease in self.leases() if lease.job == job), None)

    def judge(self, lease: Lease) -> str:
        return "alive" if self.running[lease.job.package].dispatched else "dead"

    def states(self) -> list[MachineState]:
        found = []
        for name, maxjobs in self.machines.items():
            ours = sum(build.machine == name for build in self.running.values())
            offline = {"reason": "disks"} if name in self.offline else None
            state: t.Any = "offline" if offline else "free"
            found.append(MachineState(name, None, ours, self.foreign[name], 0, maxjobs, offline, [], state))
        return found

    # -- the launcher --------------------------------------------------------------------------------------------------

    def start(self, launch: Launch) -> None:
        name = launch.package
        self.launches.append(launch)
        going = self.running.get(name)
        if going is not None:
            assert not going.dispatched, f"{name} is dispatched twice"
            assert launch.machine == going.machine, f"{name} runs on {going.machine}: it would be begun anew elsewhere"
            going.dispatched = True
            if going.recorded:
                self._release(name)
            elif going.ended:
                self._collect(name)
            return
        for needed in self.needs[name]:
            assert self.store.package(needed) is not None, f"{name} begins before {needed} is there"
        self.token += 1
        self.began[name] += 1
        outcome = self.outcomes[name].pop(0) if self.outcomes[name] else "built"
        self.running[name] = Build(self.token, launch.machine, outcome, self.content(name))

    def content(self, name: str) -> bytes:
        """What a build of the package makes: it depends on nothing but its recipe."""
        return f"{self.digests[name]}".encode()

    def ended(self, seconds: float) -> list[Ended]:
        found, self._reported = self._reported, []
        return found

    def close(self, grace: float) -> bool:
        for going in self.running.values():
            going.dispatched = False
        return True

    # -- what happens --------------------------------------------------------------------------------------------------

    def finish(self, name: str) -> None:
        """Let the build on the machine end; if a dispatch waits for it, it is brought home and recorded."""
        if self.running[name].recorded and self.running[name].dispatched:
            self._release(name)
            return
        self.running[name].ended = True
        if self.running[name].dispatched:
            self._collect(name)

    def _collect(self, name: str) -> None:
        self.record(name)
        self._release(name)

    def record(self, name: str) -> None:
        """Bring the build home."""
        going = self.running[name]
        going.recorded = True
        if going.outcome == "built":
            file = put(self.layout, f"{name}_1.0.deb", going.content)
            self.store.record(build(going.token, package=name, machine=going.machine, ended=self.time), [file])
        elif going.outcome == "failed":
            self.store.record(build(going.token, "failed", package=name, machine=going.machine, ended=self.time))

    def _release(self, name: str) -> None:
        going = self.running.pop(name)
        told: dict[str, t.Any] = {"outcome": going.outcome, "machine": going.machine, "msg": f"{name}: {going.outcome}"}
        if going.outcome == "infrastructure":
            told.update(infrastructure=True, reason="lost", recorded=False)
        elif going.outcome not in ("built", "failed", "held"):  # a reason for a pause
            told.update(outcome="error", reason=going.outcome)
        self._reported.append(Ended(name, told, ""))

    def kill(self, name: str) -> None:
        """The dispatch of one package dies; its build goes on."""
        self.running[name].dispatched = False
        self._reported.append(Ended(name, {}, ""))

    def die(self) -> None:
        """The bulk build and its dispatches die; nobody hears any more of what has just ended."""
        self._reported = []
        self.close(0)

    # -- a bulk build --------------------------------------------------------------------------------------------------

    def begin(self, owner: Owner = OUTER, **options: t.Any) -> Going:
        """Start a bulk build, or go on with the one that died."""
        run = self.journal.begin({"targets": list(self.settings.targets)}, owner)
        rows = reconcile(t.cast("t.Any", self), self.journal, run)
        plan = make_plan(t.cast("t.Any", self), read_targets(self.settings.targets), self.journal, self.held)
        schedule = plan.schedule(Options(**options))
        reporter = Reporter(
            plan,
            schedule,
            self.said.append,
            interval=30.0,
            directory=str(self.layout.branch_directory),
            monotonic=lambda: self.time,
            now=lambda: self.time,
        )
        bulk = Bulk(
            t.cast("t.Any", _Context(self)),
            plan,
            run,
            self.journal,
            self,
            schedule,
            reporter,
            rows,
            monotonic=lambda: self.time,
            now=lambda: self.time,
        )
        bulk.take_over()
        bulk.use([Slots(name, maxjobs) for name, maxjobs in self.machines.items()])
        return Going(self, bulk, plan, run, schedule, reporter)


class _Context:
    """What a step's context is to a bulk build."""

    def __init__(self, world: World) -> None:
        self.settings, self.layout, self.store, self.system = world.settings, world.layout, world.store, world.system
        self.queue = _Queue(world)


class _Queue:
    def __init__(self, world: World) -> None:
        self._world = world

    def machines(self) -> list[MachineState]:
        return self._world.states()

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._world, name)


class Going(t.NamedTuple):
    """A bulk build that goes on."""

    world: World
    bulk: Bulk
    plan: Plan
    run: Run
    schedule: Schedule
    reporter: Reporter

    def step(self, seconds: float = 1.0) -> bool:
        """Let it look around; return whether it goes on."""
        self.world.time += seconds
        return self.bulk.step()

    def to_the_end(self) -> dict[str, t.Any]:
        """Let every build end as it will, one after the other; return the summary."""
        steps = 0
        while self.step(5.0):
            steps += 1
            assert steps < 2000, f"It does not end: {self.schedule.states()}"
            waited_for = [name for name, build in self.world.running.items() if build.dispatched]
            if waited_for:
                self.world.finish(min(waited_for))
        return self.close()

    def close(self) -> dict[str, t.Any]:
        """Let the bulk build write down what came of it."""
        self.bulk.end()
        self.world.journal.end(self.run, "ended")
        machines = [Slots(name, maxjobs) for name, maxjobs in self.world.machines.items()]
        return self.reporter.summary(self.bulk.rows, predict(self.plan, machines, Options()))
