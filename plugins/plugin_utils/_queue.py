# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The queue: which machine a job goes to, and who holds it.

This is the interface. The queue directory behind it is in _queue_files.py; nothing outside that file may know that
there are files, so that a data base can take their place when several controllers share one cluster.
"""

from __future__ import annotations

import abc
import collections.abc as c
import time
import typing as t
from dataclasses import dataclass, field

from ..module_utils._errors import PortbuildError
from ..module_utils._names import BadName, Job
from ._owner import judge_by_time, Owner

# States of a lease that holds no slot, and what stands on the machine for it:
#   uncollected  a finished build whose results could not be brought home
#   kept         a chroot left for debugging
#   lost         whatever was there when the machine could not be reached any more
#   orphan       a build whose owner died and whose slot another job needed
Hold = t.Literal["uncollected", "kept", "lost", "orphan"]
HOLDS: t.Final[tuple[Hold, ...]] = ("uncollected", "kept", "lost", "orphan")
CLAIMED: t.Final = "claimed"

CHECK: t.Final = "checkmachines"  # who takes machines offline that do not answer, and brings back no others

ALL_BUSY: t.Final = "all are busy"  # why a claim waits
POLL = 15.0  # seconds after which a waiting claim tries again though nothing seems to have changed
GLANCE = 0.25  # seconds between looks at whether something has changed


class QueueError(PortbuildError):
    """The queue cannot be used. C(reason) is a word for programs."""

    reason: t.ClassVar[str] = ""

    def __init__(self, message: str, *, remedy: str = "", details: dict[str, t.Any] | None = None) -> None:
        super().__init__(message, remedy=remedy, details=details)
        if self.reason:
            self.details.setdefault("reason", self.reason)


class QueueLocked(QueueError):
    """Somebody else keeps the queue to himself for too long."""

    reason = "queue_locked"


class JobBusy(QueueError):
    """The job is claimed, and its owner lives."""

    reason = "job_busy"


class AllBusy(QueueError):
    """No machine became free in time."""

    reason = "all_busy"


class NoMachine(QueueError):
    """No candidate is in the queue: waiting would not help."""

    reason = "no_machine"


class StaleLease(QueueError):
    """The lease has gone to another owner, or was released."""


class NotWanted(QueueError):
    """A waiting claim was given up because its owner is gone."""


LEASE_SCHEMA = 1


class Candidate(t.NamedTuple):
    """A machine that the job may go to. Candidates are given best first."""

    name: str
    maxjobs: int


@dataclass
class Lease:
    """The right to use a slot (or, held, a chroot) on a machine for a job.

    C(adopted): the job had a lease before, whose owner is dead or which was C(held) in that state; C(build_token) is
    the token under which its build was started, if one was. C(left): held leases of the job on other machines that
    could not be used now. C(took_over): leases that lost their slot to this one.
    """

    job: Job
    machine: str
    token: int
    owner: Owner | None
    claimed: float
    renewed: float
    build_token: int | None = None
    state: str = CLAIMED
    reason: str = ""
    maxjobs: int = 0
    details: dict[str, t.Any] = field(default_factory=dict)
    spared_until: float = 0.0
    adopted: bool = False
    held: str | None = None
    left: list[Lease] = field(default_factory=list)
    took_over: list[Lease] = field(default_factory=list)

    def to_dict(self) -> dict[str, t.Any]:
        """Return the lease as a step's result has it; from_dict() takes it back."""
        return {
            **self.record(),
            "machine": self.machine,
            "renewed": self.renewed,
            "adopted": self.adopted,
            "held": self.held,
            "left": [lease.to_dict() for lease in self.left],
            "took_over": [lease.to_dict() for lease in self.took_over],
        }

    def record(self) -> dict[str, t.Any]:
        """Return what is to be remembered of the lease."""
        return {
            "schema": LEASE_SCHEMA,
            "arch": self.job.arch,
            "branch": self.job.branch,
            "package": self.job.package,
            "token": self.token,
            "owner": None if self.owner is None else self.owner.to_dict(),
            "claimed": self.claimed,
            "build_token": self.build_token,
            "state": self.state,
            "reason": self.reason,
            "maxjobs": self.maxjobs,
            "spared_until": self.spared_until,
            "details": self.details,
        }

    @classmethod
    def from_record(cls, job: Job, machine: str, renewed: float, value: c.Mapping[str, t.Any]) -> Lease:
        """Return the remembered lease. What is missing or malformed is as if it had never been said."""
        number = _number(value.get("claimed"))
        details = value.get("details")
        return cls(
            job=job,
            machine=machine,
            token=_count(value.get("token")) or 0,
            owner=Owner.from_dict(value.get("owner")),
            claimed=renewed if number is None else number,
            renewed=renewed,
            build_token=_count(value.get("build_token")),
            state=_text(value.get("state")) or CLAIMED,
            reason=_text(value.get("reason")),
            maxjobs=_count(value.get("maxjobs")) or 0,
            details=dict(details) if isinstance(details, dict) else {},
            spared_until=_number(value.get("spared_until")) or 0.0,
        )

    @classmethod
    def from_dict(cls, value: c.Mapping[str, t.Any]) -> Lease:
        """Return the lease that to_dict() described. Arch, branch, package, machine and token suffice."""
        job = Job.checked(value.get("arch"), value.get("branch"), value.get("package"))
        lease = cls.from_record(job, str(value.get("machine") or ""), _number(value.get("renewed")) or 0.0, value)
        lease.adopted = bool(value.get("adopted"))
        lease.held = _text(value.get("held")) or None
        lease.left = [cls.from_dict(item) for item in value.get("left") or ()]
        lease.took_over = [cls.from_dict(item) for item in value.get("took_over") or ()]
        return lease


def _text(value: t.Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: t.Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12:
        return float(value)
    return None


def _count(value: t.Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 else None


MachineCondition = t.Literal["free", "full", "offline", "unusable"]


@dataclass
class MachineState:
    """What the queue knows about a machine.

    C(counter) is what stands in its counter file (None: no file), C(jobs) what we count: C(ours) by leases and
    C(foreign) by others. C(offline) says reason, since and by. C(problems) name what must be put right by hand.
    """

    name: str
    counter: int | None
    ours: int
    foreign: int
    held: int
    maxjobs: int
    offline: dict[str, t.Any] | None
    problems: list[str]
    state: MachineCondition

    @property
    def jobs(self) -> int:
        """The number of jobs on the machine."""
        return self.ours + self.foreign

    @property
    def full(self) -> bool:
        """Whether the machine takes no further job because it has enough."""
        return self.state == "full"


def choose_machine(
    candidates: c.Iterable[Candidate], jobs: c.Mapping[str, int], passed_over: c.Collection[str] = ()
) -> str | None:
    """Return the machine for the next job: the one with the fewest jobs, among equals the best; None when all are full.

    C(jobs) has the machines in the queue that may take jobs. One that is passed over counts only if no other has room.
    """
    room = [
        candidate.name for candidate in candidates if jobs.get(candidate.name, candidate.maxjobs) < candidate.maxjobs
    ]
    return min(room, key=lambda name: (name in passed_over, jobs[name]), default=None)  # min takes the first of equals


def why_none(
    candidates: c.Iterable[Candidate], states: c.Iterable[MachineState], resting: c.Collection[str] = ()
) -> str:
    """Return why no candidate takes a job: in one line, the same as long as nothing is different for a person."""
    known = {state.name: state for state in states}
    full, rest, out = [], [], []
    for name in (candidate.name for candidate in candidates):
        state = known.get(name)
        if state is None:
            out.append(f"{name} is not in the queue")
        elif state.state in ("offline", "unusable"):
            reason = str((state.offline or {}).get("reason") or " ".join(state.problems))
            out.append(f"{name} is {state.state}" + (f" ({_shortened(reason)})" if reason else ""))
        elif name in resting:
            rest.append(name)
        else:
            full.append(name)
    if not rest and not out:
        return ALL_BUSY
    parts = [f"busy: {_listed(full)}"] if full else ["none is busy"]
    parts += [f"passed over after a failure there: {_listed(rest)}"] if rest else []
    return "; ".join([*parts, _listed(out)] if out else parts)


_MOST_NAMED = 8


def _listed(names: c.Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _shortened(text: str) -> str:
    """Return the text on one line of bounded length: a person wrote it, or anything at all in a file of that name."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split()).rstrip(".")
    return line if len(line) <= 100 else line[:97] + "..."


class Queue(abc.ABC):
    """Machines with room, and leases on them. Methods may be called from any thread and process.

    Everything that changes a lease needs the lease's own token: a stale owner can do nothing (StaleLease).
    """

    def __init__(
        self,
        *,
        arch: str,
        now: c.Callable[[], float] = time.time,
        monotonic: c.Callable[[], float] = time.monotonic,
        sleep: c.Callable[[float], None] = time.sleep,
        lease_ttl: float = 600.0,
    ) -> None:
        self.arch = arch
        self.lease_ttl = lease_ttl
        self._now = now
        self._monotonic = monotonic
        self._sleep = sleep

    def judge(self, lease: Lease) -> t.Literal["alive", "dead"]:
        """Return whether the lease's owner lives."""
        if lease.owner is None:
            return judge_by_time(lease.renewed, self._now(), self.lease_ttl)
        return lease.owner.judge(lease.renewed, self._now(), self.lease_ttl)

    def claim(
        self,
        job: Job,
        candidates: c.Sequence[Candidate],
        owner: Owner,
        *,
        passed_over: c.Collection[str] = (),
        not_before: c.Mapping[str, float] | None = None,
        wait: float | None = None,
        poll: float = POLL,
        on_wait: c.Callable[[float, str], None] | None = None,
        still_wanted: c.Callable[[], bool] | None = None,
        returning: bool = False,
    ) -> Lease:
        """Return a lease for the job, waiting at most C(wait) seconds (None: as long as it takes) for a free slot.

        A dead owner's lease of the job is adopted where it stands. A machine that is C(passed_over) is taken only if no
        other has room, and none before the moment (monotonic) that C(not_before) has for it. C(on_wait) is called with the seconds waited so
        far, and why it goes on, after each attempt in vain, C(still_wanted) at every glance: False ends the wait with NotWanted. C(returning)
        is for who brings a machine back: a candidate counts though take_out() has taken it offline.
        """
        if job.arch != self.arch:
            raise BadName(f"The job {job} cannot be claimed in the queue of arch {self.arch}.")
        started = self._monotonic()
        looked_for_dead = started - poll
        why = ALL_BUSY
        while True:
            began = self._monotonic()
            resting = {name: until for name, until in (not_before or {}).items() if until > began}
            mark = self._mark(candidates)
            # Judging every owner is dear, and who waits is woken by every release: once per poll is enough.
            thorough = began - looked_for_dead >= poll
            if thorough:
                looked_for_dead = began
            patience = None if wait is None else max(0.0, wait - (began - started))
            locked: QueueLocked | None = None
            try:
                lease = self._attempt(
                    job,
                    candidates,
                    owner,
                    passed_over,
                    resting,
                    thorough=thorough,
                    patience=patience,
                    returning=returning,
                )
                if lease is not None:
                    return lease
            except QueueLocked as error:  # somebody works on it by hand; there is time
                locked = error
            waited = self._monotonic() - started
            if wait is not None and waited >= wait and locked is not None:
                raise locked
            if wait is not None and waited >= wait:
                raise AllBusy(
                    f"No machine became free for {job} within {wait:g} s.",
                    remedy="Wait longer, or see the status playbook for what runs where.",
                    details={"machines": [candidate.name for candidate in candidates]},
                )
            if on_wait is not None:
                if thorough and locked is None:  # it costs a look at the whole queue
                    why = why_none(candidates, self.machines(), resting)
                on_wait(waited, why if locked is None else locked.message)
            until = min(looked_for_dead + poll, *resting.values()) if resting else looked_for_dead + poll
            until = until if locked is None else self._monotonic()
            self._pause(candidates, mark, until if wait is None else min(until, started + wait), job, still_wanted)

    def _pause(
        self,
        candidates: c.Sequence[Candidate],
        mark: t.Any,
        until: float,
        job: Job,
        still_wanted: c.Callable[[], bool] | None,
    ) -> None:
        """Return when a slot may have become free, at the latest at C(until) (monotonic)."""
        while True:
            if still_wanted is not None and not still_wanted():
                raise NotWanted(f"Waiting for a machine for {job} was given up: its ansible-playbook is gone.")
            remaining = until - self._monotonic()
            if remaining <= 0:
                return
            self._sleep(min(GLANCE, remaining))
            if self._freed(candidates, mark):
                return

    @abc.abstractmethod
    def _mark(self, candidates: c.Sequence[Candidate]) -> t.Any:
        """Return what _freed() compares with."""

    @abc.abstractmethod
    def _freed(self, candidates: c.Sequence[Candidate], mark: t.Any) -> bool:
        """Return whether a candidate may have got room since the mark was made. Cheap, takes no lock."""

    @abc.abstractmethod
    def _attempt(
        self,
        job: Job,
        candidates: c.Sequence[Candidate],
        owner: Owner,
        passed_over: c.Collection[str],
        resting: c.Collection[str],
        *,
        thorough: bool,
        patience: float | None,
        returning: bool = False,
    ) -> Lease | None:
        """Return a lease, or None when all machines are full. C(thorough): take slots of dead owners too.

        A machine that is C(resting) gets nothing new.

        Raises QueueLocked when the queue itself cannot be had within about C(patience) seconds, or soon without.
        """

    @abc.abstractmethod
    def id(self, *, make: bool = True) -> str:
        """Return the identity of this queue, in which tokens rise. Makes one if there is none, or returns nothing."""

    @abc.abstractmethod
    def newest_token(self) -> int:
        """Return the token given out last, 0 if that is not known. Changes nothing."""

    @abc.abstractmethod
    def choose(self, candidates: c.Sequence[Candidate], *, passed_over: c.Collection[str] = ()) -> str | None:
        """Return the machine that a job would get now, None when all are full. Changes nothing."""

    @abc.abstractmethod
    def find(self, job: Job) -> Lease | None:
        """Return the job's lease, else a held one, else None. Changes nothing."""

    @abc.abstractmethod
    def machines(self) -> list[MachineState]:
        """Return the state of all machines in the queue, sorted by name. Changes nothing."""

    @abc.abstractmethod
    def leases(self) -> list[Lease]:
        """Return the leases that hold a slot. Changes nothing."""

    @abc.abstractmethod
    def held(self) -> list[Lease]:
        """Return the leases that hold no slot. Changes nothing."""

    @abc.abstractmethod
    def all_leases(self) -> list[Lease]:
        """Return leases and held ones as they are at one moment: one that changes its state is never missing.

        Changes nothing.
        """

    @abc.abstractmethod
    def renew(self, lease: Lease) -> Lease:
        """Say that the owner lives. Takes no lock and no space; raises StaleLease, or OSError worth another try."""

    @abc.abstractmethod
    def verify(self, lease: Lease) -> None:
        """Raise StaleLease unless the lease is the one in force."""

    @abc.abstractmethod
    def update(self, lease: Lease, **values: t.Any) -> Lease:
        """Remember C(build_token) or, under any other name, a detail of the lease."""

    @abc.abstractmethod
    def release(self, lease: Lease, *, hold: Hold | None = None, reason: str = "") -> bool:
        """Free the slot; with C(hold) remember what is left on the machine. Return False if it was free already."""

    @abc.abstractmethod
    def reinstate(self, lease: Lease, jobs: c.Collection[Job] | None = None) -> list[Lease]:
        """Give held leases on the lease's machine their slots back, because the machine says that they still run.

        C(jobs) are those that run; None means those whose slots this lease took over. They keep their slots for the
        next lease_ttl seconds at least. The lease itself stays, one too many, until its owner releases it.
        """

    @abc.abstractmethod
    def drop_held(self, job: Job, token: int) -> bool:
        """Forget a held lease: nothing of it is left. Return False if there was none."""

    @abc.abstractmethod
    def enter(self, machine: str, maxjobs: int, *, jobs: int | None = None, dry_run: bool = False) -> bool:
        """Put a machine into the queue and return whether that changed anything.

        With a maxjobs of 0 there is nothing to enter: one that is in the queue is taken out of it until it has more.
        One that is in it only gets the maxjobs; one that was taken offline stays so. C(jobs): the number of jobs that
        were found on the machine, where somebody counted.
        """

    @abc.abstractmethod
    def offline(self, machine: str, reason: str, by: str, *, dry_run: bool = False) -> bool:
        """Give a machine no further jobs until undrain() and return whether that changed anything."""

    @abc.abstractmethod
    def undrain(
        self, machine: str, maxjobs: int | None = None, *, jobs: int | None = None, dry_run: bool = False
    ) -> bool:
        """Give a machine jobs again, whatever took it out of the queue, and return whether that changed anything."""

    @abc.abstractmethod
    def take_out(self, machine: str, reason: str, *, dry_run: bool = False) -> bool:
        """Give a machine no further jobs because a check found it bad, and return whether that says anything new.

        What somebody else took offline stays as it is. A further reason replaces the one before, since when does not.
        """

    @abc.abstractmethod
    def bring_back(
        self, machine: str, *, running: c.Collection[Job] = (), rebooted: bool = False, dry_run: bool = False
    ) -> bool:
        """Undo take_out(), and nothing that somebody else did; return whether the machine is in the queue again.

        C(running) are the jobs whose builds the machine says to run: held leases among them get their slots back. With
        C(rebooted) nothing runs there that others had started before.
        """
