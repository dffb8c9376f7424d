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
from ..module_utils._names import Job
from ._bulk_report import Reporter
from ._context import StepContext
from ._journal import Answer, Command, Journal, Row, Run
from ._launcher import Ended, Launch, Launcher
from ._plan import Plan, read_catalogue, Slots
from ._queue import CLAIMED, Lease
from ._rebuild import depends_on_others, Ingredients
from ._schedule import Dispatch, Schedule, State
from ._store import BuildRecord, Identity

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
_TO_GO_ON_WITH = (CLAIMED, "uncollected", "orphan")  # states of leases
MOST_SILENT = 10  # dispatches in a row that may die before they say a word: then it is not theirs to say
SOME = 10  # packages that a message names of those which a failure blocks
MOST_PAUSES = 120  # of one package, before that counts as a failure of the infrastructure


class DispatchesDie(PortbuildError):
    """No dispatch comes to its end: something is wrong with the controller."""


def _before(lease: Lease) -> int:
    """Return a token that is older than any build which the lease stands for."""
    return (lease.build_token or lease.token) - 1


def _is_its_own_fault(outcome: c.Mapping[str, t.Any]) -> bool:
    """Whether a dispatch failed before or after the build, for a reason of the package's own."""
    own = outcome.get("outcome") == "error" and not outcome.get("infrastructure")
    return own and outcome.get("reason") not in PAUSES


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
        self.rows = rows
        self._machines: dict[str, Slots] = {}
        self._rooms: dict[str, tuple[int, int] | None] = {}  # slots and others' jobs; None for one that takes no jobs
        self._heard: collections.deque[Ended] = collections.deque()
        self._decided: collections.deque[Dispatch] = collections.deque()
        self._tidying: set[str] = set()
        self._silent = 0  # dispatches in a row that died before they said a word
        self._paused: collections.Counter[str] = collections.Counter()
        self._looked = self._renewed = float("-inf")

    # -- the run -------------------------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Take over what earlier processes of this run, and dispatches that died, have left."""
        leases = {lease.job.package: lease for lease in self._context.queue.all_leases() if self._is_left(lease)}
        for number in self._schedule.graph.order:
            name = self._schedule.graph.names[number]
            if name not in self._plan.why or not self._schedule.ready(name):
                continue
            row = self.rows.get(name)
            if row is not None and row.attempts and row.state == State.QUEUED.value:
                self._schedule.let_down_before(name, [str(attempt.get("machine")) for attempt in row.attempts])
            if row is not None and row.state == State.BUILT.value and not self._wanted_again(name):
                self._schedule.built(name)
                self._settle(name)
            elif row is not None and row.state == State.FAILED.value and self._same_wish(name, row):
                self._schedule.failed(name, row.reason)
            elif name in leases:
                self._attach(name, leases.pop(name))
        self._journal.write(self._run, map(self._row, self._schedule.graph.names))
        for name, lease in leases.items():
            if name not in self._schedule.graph or not self._schedule.ready(name):
                self._tidy(lease)

    def use(self, machines: c.Sequence[Slots]) -> None:
        """Use these machines from now on, as far as the queue says that they take jobs. Best first."""
        for name in self._machines.keys() - {machine.name for machine in machines}:
            self._schedule.machine_went(name, "it is not in the inventory any more")
            self._reporter.say(f"Machine {name} is not in the inventory any more: it gets no further packages.")
            del self._rooms[name]
        self._machines = {machine.name: machine for machine in machines}
        self._look_at_machines()

    def step(self) -> bool:
        """Do what there is to do now, waiting a moment for more of it; return whether the run goes on.

        It may raise for reasons that pass, such as a full disk, and be called again: nothing is forgotten by that.
        """
        self._heard.extend(self._launcher.ended(GLANCE))
        while self._heard:
            self._end(self._heard[0])
            self._heard.popleft()
        now = self._monotonic()
        if now - self._looked >= LOOK_INTERVAL:
            self._look_at_machines()
            for command in self._journal.asked(self._run):
                self._journal.answer(command.number, self._obey(command))
            self._looked = now
        if now - self._renewed >= RENEW_INTERVAL:
            self._journal.renew(self._run)
            self._renewed = now
        while self._decided or self._decide(now):
            self._start(self._decided[0])
            self._decided.popleft()
        self._reporter.progress(now)
        if self._schedule.stalled:
            self._give_up_what_nobody_takes()
        return not self._schedule.finished or bool(self._tidying)

    def _decide(self, now: float) -> bool:
        """Have the schedule decide, also on what the start of others has changed; say whether there is something to start."""
        self._decided.extend(self._schedule.decide(now))
        return bool(self._decided)

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

    def _is_left(self, lease: Lease) -> bool:
        """Whether the lease is one of this branch whose dispatch has died, with something on a machine to go on with."""
        if lease.job.branch != self._context.settings.branch or lease.state not in _TO_GO_ON_WITH:
            return False
        return lease.state != CLAIMED or self._context.queue.judge(lease) == "dead"

    def _attach(self, name: str, lease: Lease) -> None:
        """Let a dispatch adopt what runs, or has ended, on a machine; it counts against the slots from now on."""
        row = self._row(name)
        if row.since is None:
            row.since, row.made_of = _before(lease), {}  # nobody knows what it is made of
        self._schedule.started(name, lease.machine, self._monotonic())
        self._launch(row, lease.machine, 1)
        self._reporter.say(f"{lease.machine}: {name} is taken over.")

    def _tidy(self, lease: Lease) -> None:
        """Let a dispatch clean up after one that died when all was recorded; it builds nothing."""
        token = lease.build_token
        if token is None or self._context.store.built(Identity(self._context.queue.id(), token)) is None:
            return  # it is not this run's to go on with
        self._tidying.add(lease.job.package)
        self._launcher.start(Launch(lease.job.package, lease.job.package, lease.machine, 1, []))

    def _wanted_again(self, name: str) -> bool:
        return bool(self._plan.wishes.reasons(name, self._plan.stock))

    def _same_wish(self, name: str, row: Row) -> bool:
        return Ingredients.from_dict(row.made_of) == self._plan.wishes.ingredients(name, self._plan.stock)

    # -- beginning and ending of a package -----------------------------------------------------------------------------

    def _start(self, dispatch: Dispatch) -> None:
        name = dispatch.package
        row = self._row(name)
        build = result_of(self._context, row)
        if build is not None:  # somebody else was at it
            self._close(name, build)
            return
        lease = self._lease(name)
        if lease is not None and self._is_left(lease):
            self._attach(name, lease)
            return
        if lease is not None and lease.state == CLAIMED:
            if row.since is None:
                row.since, row.made_of = _before(lease), {}
            self._wait_for(name, lease)
            return
        if row.since is None:  # else it has begun before, and what comes of that still counts
            row.since, row.made_of = self._context.queue.newest_token(), {}
        if not row.made_of:
            row.made_of = self._plan.wishes.ingredients(name, self._plan.stock).to_dict()
        self._launch(row, dispatch.machine, dispatch.make_slots)
        self._reporter.started(dispatch)

    def _wait_for(self, name: str, lease: Lease) -> None:
        """Put off what somebody else is building: whether that takes hours is not for us to say."""
        message = f"{name} is being built on {lease.machine} already, by {lease.owner or 'an unknown owner'}."
        self._schedule.postponed(name, self._monotonic(), PAUSES["job_busy"], message)
        if not self._paused[name]:
            self._paused[name] = 1
            self._reporter.say(f"{name} waits: {message}")

    def _launch(self, row: Row, machine: str, make_share: int) -> None:
        row.state, row.machine, row.started, row.ended = State.RUNNING.value, machine, self._now(), None
        row.why = self._plan.why.get(row.package, ())
        self._journal.write(self._run, [row])  # before anything begins: whoever comes after us knows of it
        version = self._plan.versions.get(row.package, "")
        asked = f"{row.package}={version}" if version else row.package
        blocked = self._schedule.needed_for(row.package)
        some = tuple(blocked[:SOME])
        self._launcher.start(Launch(row.package, asked, machine, make_share, row.attempts, len(blocked), some))

    def _end(self, ended: Ended) -> None:
        name, outcome = ended.package, ended.outcome
        if name in self._tidying:
            self._tidying.remove(name)
            return
        row = self._row(name)
        what, reason = str(outcome.get("outcome") or ""), str(outcome.get("reason") or "")
        message = str(outcome.get("msg") or f"The dispatch of {name} ended without a word.")
        self._silent = 0 if outcome else self._silent + 1
        build = result_of(self._context, row) if what in ("built", "failed", "") else None
        if build is not None:
            self._close(name, build, message, ended.log)
            if not outcome and (lease := self._left(name)) is not None:
                self._tidy(lease)
        elif self._silent > MOST_SILENT:
            raise DispatchesDie(
                f"{self._silent} dispatches in a row have died before they said a word. {ended.log}".strip(),
                remedy="See what they printed, put it right, and start the same bulk build again.",
            )
        elif not outcome and (lease := self._left(name)) is not None:
            self._attach(name, lease)
        elif what in ("failed", "dud", "held") or _is_its_own_fault(outcome):
            self._fail(name, message, ended.log)
        elif reason in PAUSES or what in ("stale", ""):
            self._pause(name, PAUSES.get(reason, 0.0 if what else PAUSES["launcher"]), message)
        else:
            self._let_down(name, outcome, message, ended.log)

    def _left(self, name: str) -> Lease | None:
        """Return what a dispatch that died has left of the package, if there is something to go on with."""
        lease = self._lease(name)
        return lease if lease is not None and self._is_left(lease) else None

    def _lease(self, name: str) -> Lease | None:
        settings = self._context.settings
        return self._context.queue.find(Job(settings.arch, settings.branch, name))

    def _close(self, name: str, build: BuildRecord, message: str = "", log: str = "") -> None:
        """Take it that this build is the package's."""
        row = self._row(name)
        row.machine, row.seconds, row.ended = build.machine, build.seconds, self._now()
        if build.outcome != "success":
            self._fail(name, message or describe_failure(build), log)
            return
        made_of = Ingredients.from_dict(row.made_of) if row.made_of else None
        package = self._context.store.package(name)
        if package is not None:
            self._plan.stock.put(name, package, made_of)
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
            del self._paused[name]
            self._let_down(name, {}, message)
            return
        self._schedule.postponed(name, self._monotonic(), pause, message)
        if self._paused[name] == 1:
            self._reporter.say(f"{name} waits: {message}")

    def _let_down(self, name: str, outcome: dict[str, t.Any], message: str, log: str = "") -> None:
        row = self._row(name)
        if outcome.get("machine"):
            row.attempts = [*row.attempts, {**outcome, "ended": 0.0}]  # whether and when is for the schedule to say
        aside = self._schedule.infrastructure_failed(name, self._monotonic(), message)
        row.state, row.reason = self._schedule.state(name).value, message
        self._journal.write(self._run, [row])
        self._reporter.let_down(row, log, aside=aside)

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
        queue = self._context.queue
        states = {state.name: state for state in queue.machines()}
        running = {self._schedule.graph.names[number] for number in self._schedule.pool.where}
        others = collections.Counter(lease.machine for lease in queue.leases() if self._takes_room(lease, running))
        for rank, machine in enumerate(self._machines.values()):
            state = states.get(machine.name)
            room: tuple[int, int] | None = None
            why = "it is not in the queue"
            if state is not None and state.state in ("free", "full"):
                room = machine.maxjobs, state.foreign + others[machine.name]
            elif state is not None:
                why = str((state.offline or {}).get("reason") or " ".join(state.problems) or state.state)
            self._tell_room(machine, rank, room, why)

    def _takes_room(self, lease: Lease, running: c.Collection[str]) -> bool:
        """Whether the lease has a slot that the schedule does not know of. That of the dead goes to whoever needs it."""
        ours = lease.job.branch == self._context.settings.branch and lease.job.package in running
        return not ours and self._context.queue.judge(lease) == "alive"

    def _tell_room(self, machine: Slots, rank: int, room: tuple[int, int] | None, why: str) -> None:
        new, before = machine.name not in self._rooms, self._rooms.get(machine.name)
        self._rooms[machine.name] = room
        if room is None:
            self._schedule.machine_changed(machine.name, machine.maxjobs, 0, rank, machine.tags)
            self._schedule.machine_went(machine.name, why)
            if new or before is not None:
                self._reporter.say(f"Machine {machine.name} takes no packages: {why}.")
            return
        if before is None:
            self._schedule.machine_came(machine.name, room[0], rank, machine.tags)
            if not new:
                self._reporter.say(f"Machine {machine.name} takes packages again.")
        self._schedule.machine_changed(machine.name, *room, rank, machine.tags)

    def _give_up_what_nobody_takes(self) -> None:
        """Give up what no machine takes, not even one that is away now."""
        tags = [frozenset(machine.tags) for machine in self._machines.values()]
        for name, limit in self._plan.limits.items():
            if tags and self._schedule.ready(name) and not any(limit.tags <= found for found in tags):
                wanted = ", ".join(sorted(limit.tags))
                self._schedule.give_up(f"No machine has all tags that it needs: {wanted}.", [name])
        if self._rooms and all(room is not None and room[0] > room[1] for room in self._rooms.values()):
            self._schedule.give_up("No machine takes it.")

    def _obey(self, command: Command) -> Answer:
        try:
            return Answer(True, self._do(command))
        except PortbuildError as error:
            return Answer(False, str(error))

    def _do(self, command: Command) -> str:
        name = command.package
        if command.command == "stop":
            self._schedule.stop()
            self._reporter.say(f"{command.who} says stop: nothing is started any more, what runs goes on to its end.")
            return "The bulk build ends when what runs now has ended."
        if command.command == "retry":
            recipe = read_catalogue(self._context, [name]).recipes.get(name)
            self._schedule.retry(name)
            row = self._row(name)
            row.attempts, row.state, row.since, row.made_of = [], State.QUEUED.value, None, {}
            if recipe is not None and recipe.needs == self._plan.recipes[name].needs:
                self._plan.recipes[name] = recipe  # somebody may have mended it
            self._paused.pop(name, None)
            self._journal.write(self._run, [row])
            self._reporter.say(f"{command.who} says retry {name}.")
            return f"{name} is tried again, and what was skipped for it comes back."
        return self._reporter.why(name)
