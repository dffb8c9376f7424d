# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A bulk build: carries out what the schedule decides, and tells it and the journal what becomes of it.

Whoever dies in here loses nothing: what runs goes on on the machines, what has ended is in the record of builds, and
the journal knows which of it is this run's. The same bulk, started again, takes over from there.
"""

from __future__ import annotations

import collections
import collections.abc as c
import time
import typing as t

from ..module_utils._errors import PortbuildError
from ._bulk_report import Reporter
from ._context import StepContext
from ._journal import Answer, Command, Journal, Row, Run
from ._launcher import Ended, Launch, Launcher
from ._plan import own_reasons, Plan, read_catalogue, Slots, Wishes
from ._queue import Lease
from ._rebuild import depends_on_others, Ingredients
from ._schedule import Dispatch, Schedule, State
from ._store import BuildRecord

GLANCE = 0.5  # seconds to wait for the end of a dispatch before looking at the rest
LOOK_INTERVAL = 2.0  # seconds between looks at the machines and at what people ask
RENEW_INTERVAL = 30.0  # seconds between two signs of life in the journal
PAUSES = {  # seconds after which a package is tried again that could not begin, by nobody's fault
    "stale": 0.0,
    "all_busy": 5.0,
    "queue_locked": 5.0,
    "job_busy": 15.0,
    "no_machine": 30.0,
    "controller": 60.0,
    "controller_disk": 60.0,
    "launcher": 5.0,
}
MOST_PAUSES = 120  # of one package, before that counts as a failure of the infrastructure


def reconcile(context: StepContext, journal: Journal, run: Run) -> dict[str, Row]:
    """Return what the run knows of its packages, those included that ended while nobody looked."""
    rows = journal.rows(run)
    # In this order: a dispatch that is about to end, or to begin, is then seen by its lease, its build or its token.
    newest = context.queue.newest_token()
    leased = {lease.job.package for lease in context.queue.all_leases() if lease.job.branch == context.settings.branch}
    changed = []
    for row in rows.values():
        if row.state != State.RUNNING.value:
            continue
        build = result_of(context, row)
        if build is not None:
            _found(journal, row, build)
        elif row.package in leased:
            continue  # it runs, or waits to be brought home
        else:
            row.state, row.since, row.made_of = State.QUEUED.value, newest, {}
        changed.append(row)
    journal.write(run, changed)
    return rows


def _found(journal: Journal, row: Row, build: BuildRecord) -> None:
    """Note in the row how the package has ended."""
    row.machine, row.seconds, row.ended, row.since = build.machine, build.seconds, build.ended, None
    if build.outcome == "success":
        row.state, row.reason = State.BUILT.value, ""
        note_made_of(journal, row, build)
    else:
        row.state, row.reason = State.FAILED.value, describe_failure(build)


def result_of(context: StepContext, row: Row) -> BuildRecord | None:
    """Return the build that has been recorded since the run began to build the package, if it says something of it."""
    last = context.store.last(row.package, counted=True) if row.since is not None else None
    if last is None or row.since is None or last.build.token <= row.since:
        return None
    return last.build if last.build.queue == context.queue.id() else None


def note_made_of(journal: Journal, row: Row, build: BuildRecord) -> None:
    """Remember what the build was made of, where that is known."""
    if row.made_of:
        journal.note_made_of(row.package, build.identity, row.made_of)


def describe_failure(build: BuildRecord) -> str:
    """Return in a sentence how the build failed."""
    where = f" in {build.phase}" if build.phase else ""
    return f"It failed on {build.machine}: {build.reason}{where}{f' ({build.detail})' if build.detail else ''}."


class Bulk:
    """One run of a bulk build."""

    def __init__(
        self,
        context: StepContext,
        plan: Plan,
        run: Run,
        journal: Journal,
        launcher: Launcher,
        schedule: Schedule,
        reporter: Reporter,
        rows: dict[str, Row],
        *,
        monotonic: c.Callable[[], float] = time.monotonic,
        now: c.Callable[[], float] = time.time,
    ) -> None:
        self._context = context
        self._plan = plan
        self._run = run
        self._journal = journal
        self._launcher = launcher
        self._schedule = schedule
        self._reporter = reporter
        self._monotonic = monotonic
        self._now = now
        self._wishes = Wishes(context, plan.recipes)
        self.rows = rows
        self._machines: dict[str, Slots] = {}
        self._rooms: dict[str, int | None] = {}
        self._paused: collections.Counter[str] = collections.Counter()
        self._looked = self._renewed = float("-inf")

    # -- the run -------------------------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Take over what earlier processes of this run, and dispatches that died, have left."""
        leases = {lease.job.package: lease for lease in self._context.queue.leases() if self._is_orphan(lease)}
        for number in self._schedule.graph.order:
            name = self._schedule.graph.names[number]
            if name not in self._plan.why or not self._schedule.ready(name):
                continue
            row = self.rows.get(name)
            if name in leases:
                self._attach(name, leases[name])
            elif row is not None and row.state == State.BUILT.value and not self._wanted_again(name):
                self._schedule.built(name)
                self._settle(name)
            elif row is not None and row.state == State.FAILED.value and self._same_wish(name, row):
                self._schedule.failed(name, row.reason)
        self._journal.write(self._run, map(self._row, self._schedule.graph.names))

    def use(self, machines: c.Sequence[Slots]) -> None:
        """Use these machines from now on, as far as the queue says that they take jobs. Best first."""
        for name in self._machines.keys() - {machine.name for machine in machines}:
            self._schedule.machine_went(name)
            self._reporter.say(f"Machine {name} is not in the inventory any more: it gets no further packages.")
            del self._rooms[name]
        self._machines = {machine.name: machine for machine in machines}
        self._look_at_machines()

    def step(self) -> bool:
        """Do what there is to do now, waiting a moment for more of it; return whether the run goes on."""
        for ended in self._launcher.ended(GLANCE):
            self._end(ended)
        now = self._monotonic()
        if now - self._looked >= LOOK_INTERVAL:
            self._looked = now
            self._look_at_machines()
            for command in self._journal.asked(self._run):
                self._journal.answer(command.number, self._obey(command))
        if now - self._renewed >= RENEW_INTERVAL:
            self._renewed = now
            self._journal.renew(self._run)
        for dispatch in self._schedule.decide(now):
            self._start(dispatch)
        self._reporter.progress(now)
        if self._schedule.stalled and self._nobody_can_come():
            self._schedule.give_up("No machine takes it.")
        return not self._schedule.finished

    def end(self) -> None:
        """Write down what became of every package."""
        rows = []
        for name in self._schedule.graph.names:
            row, state = self._row(name), self._schedule.state(name)
            if state is not State.FETCHED or row.state != State.BUILT.value:  # else it was built before we took over
                row.state, row.reason = state.value, self._schedule.why(name)
            rows.append(row)
        self._journal.write(self._run, rows)

    # -- taking over ---------------------------------------------------------------------------------------------------

    def _is_orphan(self, lease: Lease) -> bool:
        """Whether the lease is one of a dispatch of this branch that has died."""
        return lease.job.branch == self._context.settings.branch and self._context.queue.judge(lease) == "dead"

    def _attach(self, name: str, lease: Lease) -> None:
        """Let a dispatch adopt what runs, or has ended, on a machine; it counts against the slots from now on."""
        row = self.rows.get(name)
        if row is None or row.state != State.RUNNING.value or row.since is None:
            row = self._row(name)
            row.since = (lease.build_token or lease.token) - 1
            row.made_of = {}  # nobody knows
        self._schedule.started(name, lease.machine, self._monotonic())
        self._launch(row, lease.machine, 1)
        self._reporter.say(f"{lease.machine}: {name} is taken over.")

    def _wanted_again(self, name: str) -> bool:
        settings = self._context.settings
        return bool(own_reasons(self._wishes, self._plan.stock, name, settings))

    def _same_wish(self, name: str, row: Row) -> bool:
        return Ingredients.from_dict(row.made_of) == self._wishes.ingredients(name, self._plan.stock)

    # -- beginning and ending of a package -----------------------------------------------------------------------------

    def _start(self, dispatch: Dispatch) -> None:
        row = self._row(dispatch.package)
        build = result_of(self._context, row)
        if build is not None:  # somebody else was at it
            self._close(dispatch.package, build)
            return
        if row.since is None:  # else it has begun before, and what comes of that still counts
            row.since, row.made_of = self._context.queue.newest_token(), {}
        if not row.made_of:
            row.made_of = self._wishes.ingredients(dispatch.package, self._plan.stock).to_dict()
        self._launch(row, dispatch.machine, dispatch.make_slots)
        self._reporter.started(dispatch)

    def _launch(self, row: Row, machine: str, make_share: int) -> None:
        row.state, row.machine, row.started, row.ended = State.RUNNING.value, machine, self._now(), None
        row.why = self._plan.why.get(row.package, ())
        self._journal.write(self._run, [row])  # before anything begins: whoever comes after us knows of it
        version = self._plan.versions.get(row.package, "")
        asked = f"{row.package}={version}" if version else row.package
        self._launcher.start(Launch(row.package, asked, machine, make_share, row.attempts))

    def _end(self, ended: Ended) -> None:
        name, outcome = ended.package, ended.outcome
        row = self._row(name)
        what, reason = str(outcome.get("outcome") or ""), str(outcome.get("reason") or "")
        message = str(outcome.get("msg") or f"The dispatch of {name} ended without a word.")
        build = result_of(self._context, row) if what in ("built", "failed", "") else None
        if build is not None:
            self._close(name, build, message)
        elif what in ("failed", "dud") or (
            what == "error" and not outcome.get("infrastructure") and reason not in PAUSES
        ):
            self._fail(name, message, ended.log)
        elif reason in PAUSES or what == "stale":
            self._pause(name, PAUSES.get(reason, 0.0), message)
        else:
            self._let_down(name, outcome, message)

    def _close(self, name: str, build: BuildRecord, message: str = "") -> None:
        """Take it that this build is the package's."""
        row = self._row(name)
        row.machine, row.seconds, row.ended = build.machine, build.seconds, self._now()
        if build.outcome != "success":
            self._fail(name, message or describe_failure(build))
            return
        made_of = Ingredients.from_dict(row.made_of)
        package = self._context.store.package(name)
        if package is not None:
            self._plan.stock.put(name, package, made_of if row.made_of else None)
        note_made_of(self._journal, row, build)
        row.state, row.reason, row.since = State.BUILT.value, "", None
        self._journal.write(self._run, [row])
        self._schedule.built(name)
        self._reporter.built(row, build.version)
        self._settle(name)

    def _fail(self, name: str, message: str, log: str = "") -> None:
        row = self._row(name)
        row.state, row.reason, row.since, row.ended = State.FAILED.value, message, None, self._now()
        self._journal.write(self._run, [row])
        self._schedule.failed(name, message)
        self._reporter.failed(row, log)

    def _pause(self, name: str, pause: float, message: str) -> None:
        self._paused[name] += 1
        if self._paused[name] > MOST_PAUSES:
            self._let_down(name, {}, message)
            return
        self._schedule.postponed(name, self._monotonic(), pause, message)
        if self._paused[name] == 1:
            self._reporter.say(f"{name} waits: {message}")

    def _let_down(self, name: str, outcome: dict[str, t.Any], message: str) -> None:
        row = self._row(name)
        if outcome.get("machine"):
            row.attempts = [*row.attempts, {**outcome, "ended": 0.0}]  # whether and when is for the schedule to say
        aside = self._schedule.infrastructure_failed(name, self._monotonic(), message)
        row.state, row.reason = self._schedule.state(name).value, message
        self._journal.write(self._run, [row])
        self._reporter.let_down(row, aside=aside)

    def _settle(self, name: str) -> None:
        """Find those that were to be built only if what they need changes, and need nothing more that is to come."""
        left = [name]
        while left:
            number = self._schedule.graph.number[left.pop()]
            for dependent in map(self._schedule.graph.names.__getitem__, self._schedule.graph.needed_by[number]):
                if not depends_on_others(self._plan.why.get(dependent, ())) or not self._schedule.ready(dependent):
                    continue
                if not self._wanted_again(dependent):
                    self._schedule.fetched(dependent)
                    self._reporter.say(f"{dependent} stays: what it needs has come out as it was.")
                    left.append(dependent)

    def _row(self, name: str) -> Row:
        if name not in self.rows:
            state = self._schedule.state(name)
            self.rows[name] = Row(name, state.value, self._plan.why.get(name, ()), self._schedule.reason(name))
        return self.rows[name]

    # -- machines and people -------------------------------------------------------------------------------------------

    def _look_at_machines(self) -> None:
        """Tell the schedule how much room there is: others use the machines too, and take them out of the queue."""
        states = {state.name: state for state in self._context.queue.machines()}
        mine = collections.Counter(machine.name for machine in self._schedule.pool.where.values())
        for rank, machine in enumerate(self._machines.values()):
            state = states.get(machine.name)
            room: int | None = None
            why = "it is not in the queue"
            if state is not None and state.state in ("free", "full"):
                room = max(0, machine.maxjobs - state.foreign - max(0, state.ours - mine[machine.name]))
            elif state is not None:
                why = str((state.offline or {}).get("reason") or " ".join(state.problems) or state.state)
            self._tell_room(machine, rank, room, why)

    def _tell_room(self, machine: Slots, rank: int, room: int | None, why: str) -> None:
        before = self._rooms.get(machine.name, -1)
        self._rooms[machine.name] = room
        if room == before:
            return
        if room is None:
            self._schedule.machine_went(machine.name)
            self._reporter.say(f"Machine {machine.name} takes no packages: {why}.")
        elif before is None or before == -1:
            self._schedule.machine_came(machine.name, room, rank, machine.tags)
            if before is None:
                self._reporter.say(f"Machine {machine.name} takes packages again.")
        else:
            self._schedule.machine_changed(machine.name, room)

    def _nobody_can_come(self) -> bool:
        """Whether all machines that there are take jobs: then waiting for one changes nothing."""
        return all(room is not None and room > 0 for room in self._rooms.values())

    def _obey(self, command: Command) -> Answer:
        try:
            return Answer(True, self._do(command))
        except PortbuildError as error:
            return Answer(False, str(error))

    def _read_again(self, name: str) -> None:
        """Take the recipe as it is now: somebody may have mended it."""
        recipe = read_catalogue(self._context, [name]).recipes.get(name)
        if recipe is not None and recipe.needs == self._plan.recipes[name].needs:
            self._plan.recipes[name] = recipe

    def _do(self, command: Command) -> str:
        name = command.package
        if command.command == "stop":
            self._schedule.stop()
            self._reporter.say(f"{command.who} says stop: nothing is started any more, what runs goes on to its end.")
            return "The bulk build ends when what runs now has ended."
        if command.command == "retry":
            self._schedule.retry(name)
            self._read_again(name)
            row = self._row(name)
            row.attempts, row.state = [], State.QUEUED.value
            self._paused.pop(name, None)
            self._journal.write(self._run, [row])
            self._reporter.say(f"{command.who} says retry {name}.")
            return f"{name} is tried again, and what was skipped for it comes back."
        return self._reporter.why(name)
