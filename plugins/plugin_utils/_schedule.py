# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which package is built next, and where: events come in, decisions go out.

No clock, no input, no output: time comes with the events, so the same events give the same decisions, whether they come
from machines, from a journal or from a simulation. After any event, and at C(wake_at), ask C(decide). What an event
costs is in proportion to the packages that it touches, never to the tree.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import enum
import heapq
import math
import typing as t

from ..module_utils._errors import PortbuildError
from ._graph import Graph
from ._index import some
from ._pool import Machine, Need, PLAIN, Pool

_CRITICAL = 0.9  # of the longest chain that runs: what is as long as that is on the critical path, or soon will be


class BadEvent(PortbuildError):
    """An event that cannot be, as far as the schedule knows."""


class State(enum.Enum):
    """What is with a package."""

    QUEUED = "queued"
    RUNNING = "running"
    BUILT = "built"
    FETCHED = "fetched"
    FAILED = "failed"
    LOST = "lost"  # given up for reasons that are not its own
    SKIPPED = "skipped"
    IGNORED = "ignored"


THERE = frozenset({State.BUILT, State.FETCHED})
BAD = frozenset({State.FAILED, State.LOST, State.SKIPPED, State.IGNORED})


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one package asks for."""

    slots: int = 1
    alone: bool = False  # on its machine
    tags: frozenset[str] = frozenset()  # that its machine must have
    not_with: frozenset[str] = frozenset()  # packages that must not run while it does, wherever


@dataclasses.dataclass(frozen=True)
class Options:
    """How a schedule deals with trouble. Times are in seconds."""

    attempts: int = 5  # that infrastructure may spoil before the package is given up
    backoff: float = 10.0  # after the first; twice as long after each further one
    backoff_limit: float = 600.0
    debits: int = 3  # packages in a row that a machine may let down before it is set aside
    aside: float = 300.0  # at first; twice as long each time until a build gets to its end there
    aside_limit: float = 3600.0
    retry_alone: bool = False  # try what failed once more at the end, alone on a machine
    make_slots: int = 1  # slots' worth of make jobs that a package on the critical path may get


class Dispatch(t.NamedTuple):
    """A decision: build the package there now."""

    package: str
    machine: str
    slots: int
    make_slots: int  # how many slots' worth of make jobs it should get: idle ones too, which stay free for others
    attempt: int


class _Entry(t.NamedTuple):
    """A place in a line: the longest first, then by name. It counts while nobody has given the package another."""

    key: float
    number: int
    version: int


class Schedule:
    """The whole of a build, from the first package to the last."""

    def __init__(
        self,
        graph: Graph,
        seconds: c.Sequence[float],
        *,
        priorities: c.Sequence[float] | None = None,
        limits: c.Mapping[str, Limits] | None = None,
        ignored: c.Mapping[str, str] | None = None,
        fetched: c.Iterable[str] = (),
        options: Options | None = None,
    ) -> None:
        self.graph = graph
        self.options = options or Options()
        self.pool = Pool(debits=self.options.debits, aside=self.options.aside, aside_limit=self.options.aside_limit)
        size = len(graph)
        self._seconds = list(seconds)
        self._states = [State.QUEUED] * size
        self._counts = dict.fromkeys(State, 0)
        self._counts[State.QUEUED] = size
        self._reasons: dict[int, str] = {}
        self._waiting = list(map(len, graph.needs))  # dependencies that are not there yet
        self._bad = [0] * size  # dependencies that will not be there; what is queued has none
        self._versions = [0] * size
        self._lines: dict[Need, list[_Entry]] = {}
        self._delayed: list[tuple[float, int, int]] = []
        self._parked: dict[int, list[_Entry]] = {}  # behind a package that must not run with them
        self._needs: dict[int, Need] = {}
        self._conflicts: dict[int, set[int]] = {}
        self._attempts: dict[int, int] = {}
        self._failures: dict[int, int] = {}
        self._once_more: dict[int, None] = {}  # each once, in the order of their failures
        self._since: dict[int, float] = {}
        self._stopped = False
        self._set_limits(limits or {})
        self._begin(ignored or {}, fetched)
        self._remaining = self._find_remaining()
        self._priorities = self._remaining if priorities is None else list(priorities)
        for number in range(size):
            if self._states[number] is State.QUEUED and not self._waiting[number]:
                self._enqueue(number)

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _set_limits(self, limits: c.Mapping[str, Limits]) -> None:
        for name, limit in limits.items():
            number = self.graph.find(name)
            need = Need(max(1, limit.slots), limit.alone, limit.tags)
            if need != PLAIN:
                self._needs[number] = need
            for other in map(self.graph.number.get, limit.not_with):
                if other is not None and other != number:
                    self._conflicts.setdefault(number, set()).add(other)
                    self._conflicts.setdefault(other, set()).add(number)

    def _begin(self, ignored: c.Mapping[str, str], fetched: c.Iterable[str]) -> None:
        for number in sorted({self.graph.find(name) for name in fetched}):
            self._set(number, State.FETCHED)
            self._seconds[number] = 0.0
            for dependent in self.graph.needed_by[number]:
                self._waiting[dependent] -= 1
        for name, reason in sorted({**self.graph.reasons, **ignored}.items()):
            number = self.graph.find(name)
            if self._states[number] is State.FETCHED:
                continue
            spoilt = self._states[number] is State.SKIPPED
            self._set(number, State.IGNORED, reason)
            if not spoilt:
                self._spoil(number)

    def _find_remaining(self) -> list[float]:
        able = (State.QUEUED, State.FETCHED)
        return self.graph.remaining(
            self._seconds, [number for number in self.graph.order if self._states[number] in able]
        )

    # -- questions -----------------------------------------------------------------------------------------------------

    def state(self, package: str) -> State:
        """Return the state of the package."""
        return self._states[self.graph.find(package)]

    def ready(self, package: str) -> bool:
        """Whether the package is queued and all that it needs is there."""
        number = self.graph.find(package)
        return self._states[number] is State.QUEUED and not self._waiting[number]

    def states(self) -> dict[str, State]:
        """Return the states of all packages."""
        return dict(zip(self.graph.names, self._states, strict=True))

    @property
    def counts(self) -> dict[State, int]:
        """How many packages are in each state."""
        return dict(self._counts)

    def reason(self, package: str) -> str:
        """Return why the package is in a bad state; empty when it is in none."""
        number = self.graph.find(package)
        if self._states[number] is State.SKIPPED:
            chain = self.culprits(package)
            return f"{chain[-1]} is {self.state(chain[-1]).value}" + (
                f" (by way of {', '.join(chain[:-1])})." if len(chain) > 1 else "."
            )
        return self._reasons.get(number, "")

    def culprits(self, package: str) -> tuple[str, ...]:
        """Return why the package is skipped: what it needs, what that needs in turn, and last who is to blame."""
        number = self.graph.find(package)
        chain = []
        while self._states[number] is State.SKIPPED:
            number = next(needed for needed in self.graph.needs[number] if self._states[needed] in BAD)
            chain.append(self.graph.names[number])
        return tuple(chain)

    def blocks(self, package: str) -> int:
        """Return how many packages are skipped that need this one."""
        return sum(self.state(name) is State.SKIPPED for name in self.graph.dependents(package))

    def needed_for(self, package: str) -> list[str]:
        """Return the packages that are to be built and cannot be if this one fails."""
        open_ = (State.QUEUED, State.SKIPPED)
        return [name for name in self.graph.dependents(package) if self.state(name) in open_]

    def machine(self, package: str) -> str:
        """Return where the package runs; empty when it does not."""
        found = self.pool.where.get(self.graph.find(package))
        return found.name if found else ""

    def why(self, package: str) -> str:
        """Return what the package waits for; for the others what the reason for their state is."""
        number = self.graph.find(package)
        if self._states[number] is not State.QUEUED:
            return self.reason(package)
        needs = [self.graph.names[n] for n in self.graph.needs[number] if self._states[n] not in THERE]
        if needs:
            return f"It waits for {some(needs)}."
        running = [self.graph.names[n] for n in sorted(self._conflicts.get(number, ())) if n in self.pool.where]
        if running:
            return f"It must not run together with {some(running)}."
        if any((delayed, version) == (number, self._versions[number]) for _time, delayed, version in self._delayed):
            spoilt = self._attempts.get(number, 0)
            gone = f": {spoilt} of {self.options.attempts} attempts are gone" if spoilt else ""
            return f"It is tried again soon{gone}. {self._reasons[number]}"
        return "Nothing is started any more." if self._stopped else self._why_no_machine(self._need(number))

    def _why_no_machine(self, need: Need) -> str:
        if not self.pool.eligible(need):
            tags = f" with {', '.join(sorted(need.tags))}" if need.tags else ""
            obstacles = "; ".join(self.pool.obstacles(need))
            return f"No machine{tags} takes packages{f' ({obstacles})' if obstacles else ''}."
        if need.alone:
            return "It waits for a machine on which nothing else runs."
        if need.slots > 1:
            return f"It waits for {need.slots} slots on one machine."
        return "It waits for a slot." if self.pool.slots else "It waits for a slot: others use all of them."

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing will."""
        if self._counts[State.RUNNING]:
            return False
        return self._stopped or not (self._counts[State.QUEUED] or self._to_retry())

    @property
    def stalled(self) -> bool:
        """Whether nothing runs and no time will change that, though something is queued: there is no machine for it."""
        return not self.finished and not self._counts[State.RUNNING] and self.wake_at() is None

    def wake_at(self) -> float | None:
        """Return when to ask for decisions even if there is no event until then."""
        while self._delayed and not self._counts_still(*self._delayed[0][1:]):
            heapq.heappop(self._delayed)
        times = [self._delayed[0][0]] if self._delayed else []
        back = self.pool.wake_at()
        if back is not None and self._counts[State.QUEUED]:
            times.append(back)
        return min(times, default=None)

    def estimate(self, now: float) -> float:
        """Return how long it takes from now on at least, if all goes as it went before."""
        work = math.fsum(
            seconds for seconds, state in zip(self._seconds, self._states, strict=True) if state is State.QUEUED
        )
        longest = max((self._remaining[line[0].number] for line in self._lines.values() if line), default=0.0)
        for number, since in self._since.items():
            gone = min(now - since, self._seconds[number])
            work += self._seconds[number] - gone
            longest = max(longest, self._remaining[number] - gone)
        return max(work / max(1, self.pool.slots), longest)

    # -- events: packages ----------------------------------------------------------------------------------------------

    def started(self, package: str, machine: str, now: float) -> None:
        """Take it that the package runs there: as decided, elsewhere, or since before this schedule began."""
        number = self.graph.find(package)
        self._check_ready(number, "started")
        if number in self.pool.where:
            if self.pool.where[number].name == machine:
                return
            self.pool.release(number)
        self._run(number, machine, now)

    def built(self, package: str) -> None:
        """Take it that the package is there."""
        number = self._end(package, "built")
        self._set(number, State.BUILT)
        self._is_there(number)

    def failed(self, package: str, reason: str = "It failed.") -> None:
        """Take it that the package cannot be built, by its own fault."""
        number = self._end(package, "failed")
        self._failures[number] = self._failures.get(number, 0) + 1
        if self.options.retry_alone and self._failures[number] == 1:
            self._once_more[number] = None
        self._set(number, State.FAILED, reason)
        self._spoil(number)

    def infrastructure_failed(self, package: str, now: float, reason: str = "The machine failed.") -> bool:
        """Take it that the package did not get through by no fault of its own; say if its machine was set aside."""
        number = self.graph.find(package)
        if self._states[number] is not State.RUNNING:
            raise self._bad_event(number, "let down by its machine")
        machine = self._release(number)
        aside = self.pool.debit(machine, number, now)
        attempts = self._attempts[number] = self._attempts.get(number, 0) + 1
        if attempts >= self.options.attempts:
            self._set(number, State.LOST, f"{reason} That was attempt {attempts}.")
            self._spoil(number)
            return aside
        need = self._need(number)
        self._needs[number] = need._replace(avoid=need.avoid | {machine.name})
        self._set(number, State.QUEUED, reason)
        pause = min(self.options.backoff_limit, self.options.backoff * 2.0 ** min(attempts - 1, 60))
        self._delay(number, now + pause)
        return aside

    def let_down_before(self, package: str, machines: c.Sequence[str]) -> None:
        """Take it that these machines have let the package down before this schedule began."""
        number = self.graph.find(package)
        self._attempts[number] = len(machines)
        need = self._need(number)
        self._needs[number] = need._replace(avoid=need.avoid | frozenset(machines))
        if self._states[number] is State.QUEUED and not self._waiting[number]:
            self._enqueue(number)

    def postponed(self, package: str, now: float, pause: float, reason: str) -> None:
        """Take it that the package could not begin where it was sent, by nobody's fault: it is queued again after a pause."""
        number = self.graph.find(package)
        if self._states[number] is not State.RUNNING:
            raise self._bad_event(number, "postponed")
        self._release(number)
        self._set(number, State.QUEUED, reason)
        self._delay(number, now + pause)

    def fetched(self, package: str) -> None:
        """Take it that the package is there without having been built, whatever was with it so far."""
        number = self.graph.find(package)
        state = self._states[number]
        if state in THERE or state is State.RUNNING:
            raise self._bad_event(number, "fetched")
        if state in BAD:
            self._mend(number)
        self._set(number, State.FETCHED)
        self._is_there(number)

    def retry(self, package: str) -> None:
        """Try a package again that failed or was lost; what needs it comes back."""
        number = self.graph.find(package)
        state = self._states[number]
        if state is State.SKIPPED:
            raise BadEvent(f"{package} is skipped.", remedy=f"Retry {self.culprits(package)[-1]}, for which it waits.")
        if state not in (State.FAILED, State.LOST):
            raise BadEvent(f"{package} is {state.value}.", remedy="Only what failed or was lost can be retried.")
        self._attempts.pop(number, None)
        self._failures.pop(number, None)
        if number in self._needs:
            self._needs[number] = self._needs[number]._replace(avoid=frozenset())
        self._queue_again(number)

    # -- events: machines and people -----------------------------------------------------------------------------------

    def machine_came(self, machine: str, maxjobs: int, rank: int | None = None, tags: c.Iterable[str] = ()) -> None:
        """Use the machine from now on, with a clean record."""
        self.pool.came(machine, maxjobs, rank, tags)

    def machine_went(self, machine: str, why: str = "") -> None:
        """Start nothing there any more. What runs there is somebody's to report on. C(why) is for people."""
        self.pool.went(machine, why)

    def machine_changed(
        self, machine: str, maxjobs: int, others: int = 0, rank: int | None = None, tags: c.Iterable[str] | None = None
    ) -> None:
        """Run so many packages there at most, from the next one on, of which so many are others' jobs."""
        self.pool.changed(machine, maxjobs, others, rank, tags)

    def stop(self) -> None:
        """Start nothing any more; what runs goes on to its end."""
        self._stopped = True

    def give_up(self, reason: str, packages: c.Iterable[str] | None = None) -> None:
        """Take it that nothing will come for what is queued now, or for these packages of it.

        Lost is what could have begun, what needs that is skipped.
        """
        numbers = range(len(self.graph)) if packages is None else map(self.graph.find, packages)
        for number in numbers:
            if self._states[number] is State.QUEUED and not self._waiting[number]:
                self._set(number, State.LOST, reason)
                self._spoil(number)

    # -- decisions -----------------------------------------------------------------------------------------------------

    def decide(self, now: float) -> list[Dispatch]:
        """Return what is to be started now; each of these runs from now on, as far as the schedule is concerned."""
        self._wake(now)
        if self._stopped:
            return []
        if not self._counts[State.QUEUED] and not self._counts[State.RUNNING]:
            for number in self._to_retry():
                self._needs[number] = self._need(number)._replace(alone=True)
                self._queue_again(number)
            self._once_more.clear()
        found = []
        while (choice := self._next()) is not None:
            number, machine = choice
            found.append((number, self._run(number, machine, now)))
        return self._dispatches(found)

    def _next(self) -> tuple[int, str] | None:
        """Take the first in line that finds a machine.

        Who needs more than a slot and does not find it yet has a machine kept for it, against all that come after it.
        """
        kept: set[str] = set()
        for _entry, need in self._heads():
            machine = self.pool.choose(need, kept)
            if machine is not None:
                return heapq.heappop(self._lines[need]).number, machine.name
            if need.slots > 1 or need.alone:
                drained = self.pool.keep_for(need, kept)
                if drained is not None:
                    kept.add(drained.name)
        return None

    def _heads(self) -> list[tuple[_Entry, Need]]:
        """Return the first of each line, in order; there is a line for each kind of need, so nobody is looked at twice."""
        heads = []
        for need, line in list(self._lines.items()):
            while line and not self._may_run(line[0]):
                heapq.heappop(line)
            if line:
                heads.append((line[0], need))
            else:
                del self._lines[need]
        heads.sort(key=lambda head: head[0])
        return heads

    def _may_run(self, entry: _Entry) -> bool:
        """Say whether the entry counts; park it where a package runs that it must not run with."""
        if not self._counts_still(entry.number, entry.version):
            return False
        for other in self._conflicts.get(entry.number, ()):
            if other in self.pool.where:
                self._parked.setdefault(other, []).append(entry)
                return False
        return True

    def _dispatches(self, found: list[tuple[int, int]]) -> list[Dispatch]:
        extra = self._extra(found)
        return [
            Dispatch(
                self.graph.names[number],
                self.pool.where[number].name,
                slots,
                slots + extra.get(number, 0),
                self._attempts.get(number, 0) + self._failures.get(number, 0) + 1,
            )
            for number, slots in found
        ]

    def _extra(self, found: list[tuple[int, int]]) -> dict[int, int]:
        """Return the idle slots whose make jobs go to packages on the critical path."""
        if self.options.make_slots <= 1 or not found or self._lines:
            return {}
        longest = max(self._remaining[number] for number in self.pool.where)
        idle: dict[str, int] = {}
        extra = {}
        for number, slots in sorted(found, key=lambda item: (-self._remaining[item[0]], item[0])):
            machine = self.pool.where[number]
            left = idle.setdefault(machine.name, machine.idle)
            more = min(left, self.options.make_slots - slots)
            if more > 0 and self._remaining[number] >= _CRITICAL * longest:
                extra[number] = more
                idle[machine.name] -= more
        return extra

    # -- books ---------------------------------------------------------------------------------------------------------

    def _set(self, number: int, state: State, reason: str = "") -> None:
        self._counts[self._states[number]] -= 1
        self._counts[state] += 1
        self._states[number] = state
        if reason:
            self._reasons[number] = reason
        else:
            self._reasons.pop(number, None)

    def _need(self, number: int) -> Need:
        return self._needs.get(number, PLAIN)

    def _counts_still(self, number: int, version: int) -> bool:
        return self._versions[number] == version and self._states[number] is State.QUEUED

    def _enqueue(self, number: int) -> None:
        self._versions[number] += 1
        entry = _Entry(-self._priorities[number], number, self._versions[number])
        heapq.heappush(self._lines.setdefault(self._need(number), []), entry)

    def _delay(self, number: int, until: float) -> None:
        self._versions[number] += 1
        heapq.heappush(self._delayed, (until, number, self._versions[number]))

    def _wake(self, now: float) -> None:
        self.pool.wake(now)
        while self._delayed and self._delayed[0][0] <= now:
            _time, number, version = heapq.heappop(self._delayed)
            if self._counts_still(number, version):
                self._enqueue(number)

    def _run(self, number: int, machine: str, now: float) -> int:
        self._set(number, State.RUNNING)
        self._since[number] = now
        return self.pool.book(number, self.pool.machine(machine), self._need(number))

    def _release(self, number: int) -> Machine:
        machine = self.pool.release(number)
        self._since.pop(number, None)
        for entry in self._parked.pop(number, ()):
            if self._counts_still(entry.number, entry.version):
                heapq.heappush(self._lines.setdefault(self._need(entry.number), []), entry)
        return machine

    def _end(self, package: str, how: str) -> int:
        """Note that the package has come to an end; return its number."""
        number = self.graph.find(package)
        self._check_ready(number, how)
        if number in self.pool.where:
            self.pool.worked(self._release(number))
        return number

    def _check_ready(self, number: int, how: str) -> None:
        """Raise BadEvent unless the package runs, or could: a journal may know more than this schedule."""
        state = self._states[number]
        if state is not State.RUNNING and (state is not State.QUEUED or self._waiting[number]):
            raise self._bad_event(number, how)

    def _bad_event(self, number: int, how: str) -> BadEvent:
        name, state = self.graph.names[number], self._states[number].value
        return BadEvent(
            f"{name} is said to be {how}, but it is {state}, and {self._waiting[number]} of what it needs is not there.",
            remedy="Tell the schedule everything in the order in which it happened.",
        )

    def _to_retry(self) -> list[int]:
        return [number for number in self._once_more if self._states[number] is State.FAILED]

    def _queue_again(self, number: int) -> None:
        self._mend(number)
        self._set(number, State.QUEUED)
        self._enqueue(number)

    def _is_there(self, number: int) -> None:
        """Let those come that waited for nothing but this package."""
        for dependent in self.graph.needed_by[number]:
            self._waiting[dependent] -= 1
            if not self._waiting[dependent] and self._states[dependent] is State.QUEUED:
                self._enqueue(dependent)

    def _spoil(self, number: int) -> None:
        """Skip all that need the package and are not there yet."""
        left = [number]
        while left:
            for dependent in self.graph.needed_by[left.pop()]:
                self._bad[dependent] += 1
                if self._bad[dependent] == 1 and self._states[dependent] is State.QUEUED:
                    self._set(dependent, State.SKIPPED)
                    left.append(dependent)

    def _mend(self, number: int) -> None:
        """Let all come back that were skipped for nothing but this package."""
        left = [number]
        while left:
            for dependent in self.graph.needed_by[left.pop()]:
                self._bad[dependent] -= 1
                if not self._bad[dependent] and self._states[dependent] is State.SKIPPED:
                    self._set(dependent, State.QUEUED)
                    left.append(dependent)
