# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The chroots of a build machine: claimed, found, held and cleaned.

A job has at most one chroot, C(<scratch>/chroots/ARCH/BRANCH/PACKAGE/). Its marker C(job.json) says whose it is; who
comes with an older token than the marker's is refused. The supervisor holds an flock on C(lock) in it for as long
as it lives, so whether a build runs is never guessed. A chroot that is kept for debugging moves to
C(<scratch>/kept/ARCH/BRANCH/PACKAGE/TOKEN), out of the way of the job's next build.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import time
import typing as t

from ._attach import remove_remains
from ._backends import BACKENDS
from ._bases import find_base, find_tree
from ._errors import PortbuildError
from ._files import BadFile, NewerFile, read_json, refuse_newer, write_json
from ._isolation import check_base
from ._lock import is_locked, Lock, LockTimeout
from ._names import BadName, check_sha256, chroot_path, CHROOTS, Job, relative_chroot
from ._process import boot_id, process_start_time
from ._progress import STATUS
from ._trash import throw_away

SCHEMA = 1
KEPT_CHROOTS = "kept"

CLAIMED = "claimed"  # nothing was started
STARTED = "started"  # a supervisor was started
UNCOLLECTED = "uncollected"  # ended, with results that are not at home yet; holds no slot
KEPT = "kept"  # left for debugging; holds no slot and is never used again
STATES = (CLAIMED, STARTED, UNCOLLECTED, KEPT)

_STORE_TIMEOUT = 60.0  # for the lock that serialises claims; it is held for milliseconds
_POPULATE_TIMEOUT = 600.0
_YOUNG = 60.0  # seconds from a claim to the start of its supervisor, which take one
_KILL_TIMEOUT = 20.0  # from the supervisor's death to the end of everything below it
_MAX_JSON = 1 << 22


class StaleToken(PortbuildError):
    """Somebody with a newer token has the job now."""


class ForeignChroot(PortbuildError):
    """The chroot belongs to another controller's queue."""


class MachineFull(PortbuildError):
    """The machine runs as many jobs as it may."""


class ChrootBusy(PortbuildError):
    """Something holds the chroot and cannot be ended."""


class BadMarker(PortbuildError):
    """A chroot whose marker cannot be read."""


class ChrootMissing(PortbuildError):
    """The job has no chroot on this machine."""


@dataclasses.dataclass(frozen=True)
class Marker:
    """The content of C(job.json)."""

    queue: str
    job: Job
    token: int
    state: str
    backend: str
    base: str
    client_user: str
    created: float
    boot_id: str
    build_token: int | None = None
    reason: str = ""
    tree: str = ""  # the recipes that are built from; empty for a package system without a tree

    @classmethod
    def from_dict(cls, values: dict[str, t.Any], where: str) -> Marker:
        """Check what was read; raises BadMarker or NewerFile."""
        refuse_newer(values, SCHEMA, where)

        def field(name: str, *kinds: type) -> t.Any:
            value = values.get(name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise BadMarker(f"{where}: {name!r} is {value!r:.80}, expected {kinds[0].__name__}.", remedy=_BY_HAND)
            return value

        if field("schema", int) != SCHEMA:
            raise BadMarker(f"{where} has schema {values['schema']}, this version knows {SCHEMA}.", remedy=_BY_HAND)
        token, created, build_token = (
            field("token", int),
            field("created", int, float),
            field("build_token", int, type(None)),
        )
        for name, number in (("token", token), ("created", created), ("build_token", build_token)):
            if number is not None and not 0 <= number < 1 << 62:  # also not a NaN
                raise BadMarker(f"{where}: {name!r} is out of range.", remedy=_BY_HAND)
        try:
            job = Job.checked(values.get("arch"), values.get("branch"), values.get("package"))
            base = check_sha256(values.get("base"))
            tree = check_sha256(values["tree"]) if values.get("tree") else ""
        except BadName as error:
            raise BadMarker(f"{where}: {error.message}", remedy=_BY_HAND) from None
        if field("state", str) not in STATES or field("backend", str) not in BACKENDS:
            raise BadMarker(f"{where}: unknown state or backend.", remedy=_BY_HAND)
        return cls(
            queue=field("queue", str),
            job=job,
            token=token,
            state=field("state", str),
            backend=field("backend", str),
            base=base,
            client_user=field("client_user", str),
            created=float(created),
            boot_id=field("boot_id", str),
            build_token=build_token,
            reason=field("reason", str),
            tree=tree,
        )

    def to_dict(self) -> dict[str, t.Any]:
        """Return what is written."""
        values = dataclasses.asdict(self)
        del values["job"]
        return {"schema": SCHEMA, **self.job._asdict(), **values}


_BY_HAND = "Look at the chroot; if nothing in it is needed, remove it with the cleanup playbook."


@dataclasses.dataclass(frozen=True)
class Chroot:
    """A chroot as it was found."""

    path: str
    marker: Marker
    status: dict[str, t.Any]  # what the supervisor wrote last; empty before it wrote anything
    running: bool  # a supervisor holds its lock

    @property
    def job(self) -> Job:
        """Return whose chroot it is."""
        return self.marker.job

    @property
    def ended(self) -> bool:
        """Return whether the build came to its end and said how."""
        return not self.running and self.marker.state != CLAIMED and self.status.get("state") == "ended"

    def is_done(self, recorded: int) -> bool:
        """Return whether what was built in it has been recorded, or superseded by a build that was, of this token."""
        return self.marker.build_token is not None and self.marker.build_token <= recorded

    @property
    def holds_slot(self) -> bool:
        """Return whether the chroot counts against the machine's maxjobs."""
        return self.running or (self.marker.state in (CLAIMED, STARTED) and not self.ended)

    def describe(self, now: float) -> dict[str, t.Any]:
        """Return what a person or the controller wants to know of it."""
        marker = self.marker
        return {
            "arch": marker.job.arch,
            "branch": marker.job.branch,
            "package": marker.job.package,
            "path": self.path,
            "state": marker.state,
            "reason": marker.reason,
            "running": self.running,
            "ended": self.ended,
            "phase": str(self.status.get("phase") or ""),
            "result": str(self.status.get("reason") or ""),
            "backend": marker.backend,
            "base": marker.base,
            "tree": marker.tree,
            "queue": marker.queue,
            "token": marker.token,
            "build_token": marker.build_token,
            "age": max(round(now - marker.created), 0),
        }


class Stray(t.NamedTuple):
    """A directory where a chroot should be, without a marker that says whose it is."""

    path: str
    relative: str
    why: str
    running: bool
    newer: bool = False  # whether a later version can say whose it is


def _names(path: str) -> list[str]:
    """Return the entries of a directory that are not for bookkeeping."""
    try:
        return sorted(name for name in os.listdir(path) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_status(path: str) -> dict[str, t.Any]:
    """Return what the supervisor wrote last about a chroot, or nothing."""
    try:
        return read_json(os.path.join(path, STATUS))
    except (OSError, BadFile):
        return {}


class ChrootStore:
    """All chroots of one scratch directory."""

    def __init__(
        self,
        scratch: str,
        *,
        now: t.Callable[[], float] = time.time,
        boot: t.Callable[[], str] = boot_id,
        sleep: t.Callable[[float], None] = time.sleep,
        monotonic: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self.scratch = os.path.realpath(scratch)
        self._now = now
        self._boot = boot
        self._sleep = sleep
        self._monotonic = monotonic

    # -- looking ---------------------------------------------------------------------------------------------------

    def path(self, job: Job) -> str:
        """Return where the job's chroot is, or would be."""
        return chroot_path(self.scratch, job)

    def find(self, job: Job) -> Chroot | None:
        """Return the job's chroot, None if there is none; raises BadMarker or NewerFile if it cannot be told whose it is."""
        path = self.path(job)
        return self._read(path, job) if os.path.lexists(path) else None

    def get(self, job: Job, *, queue: str, token: int) -> Chroot:
        """Return the job's chroot for whoever has this token; raises ChrootMissing, ForeignChroot, StaleToken."""
        chroot = self.find(job)
        if chroot is None:
            raise ChrootMissing(f"There is no chroot of {job} on this machine.", remedy="Claim it first.")
        self._admit(chroot, queue, token)
        return chroot

    def survey(self) -> tuple[list[Chroot], list[Stray]]:
        """Return all chroots, kept ones included, and what is in the place of one."""
        chroots: list[Chroot] = []
        strays: list[Stray] = []
        for kind, depth in ((CHROOTS, 3), (KEPT_CHROOTS, 4)):
            for relative in self._walk(kind, depth):
                path = os.path.join(self.scratch, relative)
                try:
                    chroots.append(self._read(path, None if kind == KEPT_CHROOTS else Job(*relative.split("/")[1:])))
                except PortbuildError as error:
                    newer = isinstance(error, NewerFile)
                    strays.append(Stray(path, relative, error.message, self._is_locked(path), newer))
        return chroots, strays

    def kept(self, job: Job, *, queue: str, token: int) -> Chroot | None:
        """Return the chroot that was kept of the job under this token, if one was."""
        for relative in self._walk("/".join((KEPT_CHROOTS, *Job.checked(*job))), 1):
            with contextlib.suppress(BadMarker, NewerFile):
                chroot = self._read(os.path.join(self.scratch, relative), None)
                if (chroot.marker.queue, chroot.marker.token) == (queue, token):
                    return chroot
        return None

    def all(self) -> list[Chroot]:
        """Return all chroots, kept ones included."""
        return self.survey()[0]

    def _walk(self, relative: str, depth: int) -> t.Iterator[str]:
        if depth == 0:
            yield relative
            return
        path = os.path.join(self.scratch, relative)
        if not os.path.islink(path):
            for name in _names(path):
                yield from self._walk(f"{relative}/{name}", depth - 1)

    def _read(self, path: str, job: Job | None) -> Chroot:
        where = os.path.join(path, "job.json")
        if os.path.islink(path) or not os.path.isdir(path):
            raise BadMarker(f"{path} is not a directory.", remedy=_BY_HAND)
        locked = self._is_locked(path)  # before the status: what does not run now has written its last
        try:
            marker = Marker.from_dict(read_json(where, limit=_MAX_JSON), where)
        except FileNotFoundError:
            raise BadMarker(f"{path} has no marker job.json.", remedy=_BY_HAND) from None
        except (OSError, BadFile) as error:
            raise BadMarker(str(error), remedy=_BY_HAND) from None
        if job is not None and marker.job != job:
            raise BadMarker(f"{where} is the marker of {marker.job}, not of {job}.", remedy=_BY_HAND)
        if marker.state == CLAIMED:  # nothing was started; it is locked while it is populated
            return Chroot(path, marker, {}, running=False)
        return Chroot(path, marker, read_status(path), running=locked)

    def _is_locked(self, path: str) -> bool:
        try:
            return is_locked(os.path.join(path, "lock"))
        except OSError:
            return False

    # -- claiming --------------------------------------------------------------------------------------------------

    def claim(
        self,
        job: Job,
        *,
        queue: str,
        token: int,
        maxjobs: int,
        backend: str,
        base: str,
        client_user: str,
        orphans: t.Collection[Job] | None = None,
        recorded: int = 0,
        tree: str = "",
    ) -> Chroot:
        """Return the job's chroot, ready to build in, marked with this token.

        A build of the job that runs is attached to, results of one that ended are kept: C(status) and C(running)
        tell. What is left of an attempt that came to nothing is thrown away, and so is a build up to the token
        C(recorded): nobody wants its results any more. C(orphans) are the jobs of the same queue that hold no slot
        any more: they count only while they run. Without that knowledge, a chroot in which nothing runs counts for as
        long as it is young.

        Raises BaseMissing, BaseRefused, TreeMissing, MachineFull, StaleToken, ForeignChroot, ChrootBusy, BadMarker or
        NewerFile.
        """
        base_directory = find_base(self.scratch, base)
        if tree:
            find_tree(self.scratch, tree)
        check_base(base_directory)  # here, so that a machine that cannot build is passed over at once
        before = self._admissible(job, queue, token)
        if before is not None and before.running and before.is_done(recorded):
            self.end(job, queue=queue, token=token)
        with self._exclusively():
            self._sweep()
            found = self._usable(job, queue, token, (backend, base, tree), recorded)
            if found is None or not found.running:
                self._check_room(job, queue, maxjobs, orphans)
            if found is None:
                marker = Marker(
                    queue, job, token, CLAIMED, backend, base, client_user, self._now(), self._boot(), tree=tree
                )
                self._make(marker)
            else:
                # What was held without a slot has one again, and is collected in it.
                state = STARTED if found.marker.state == UNCOLLECTED else found.marker.state
                self._mark(found, token=token, state=state, client_user=client_user, reason="")
        chroot = self.get(job, queue=queue, token=token)
        if chroot.marker.state == CLAIMED:
            with self._holding(chroot.path, timeout=_POPULATE_TIMEOUT):  # a module without a controller may be at it
                BACKENDS[backend].create(chroot.path, base_directory)
        return chroot

    def start(self, job: Job, *, queue: str, token: int) -> Chroot:
        """Mark that a supervisor is about to be started for this token."""
        with self._exclusively():
            chroot = self.get(job, queue=queue, token=token)
            return self._mark(chroot, token=token, state=STARTED, build_token=token, boot_id=self._boot())

    def would_claim(
        self,
        job: Job,
        *,
        queue: str,
        token: int,
        maxjobs: int,
        backend: str,
        base: str,
        orphans: t.Collection[Job] | None = None,
        recorded: int = 0,
        tree: str = "",
    ) -> Chroot | None:
        """Return what claim() would find, None if it would make a new chroot; raises as it would. Changes nothing."""
        check_base(find_base(self.scratch, base))
        if tree:
            find_tree(self.scratch, tree)
        found = self._admissible(job, queue, token)
        if found is None or not found.running:
            self._check_room(job, queue, maxjobs, orphans)
        usable = found is not None and self._is_usable(found, (backend, base, tree), recorded)
        return found if usable else None

    def _admissible(self, job: Job, queue: str, token: int) -> Chroot | None:
        """Return the job's chroot unless it is another's; None also for one that died before it was marked."""
        try:
            found = self.find(job)
        except BadMarker:
            path = self.path(job)
            if self._is_locked(path) or os.path.lexists(os.path.join(path, "status.json")):
                raise  # something was built in it: not to be thrown away unseen
            return None
        if found is not None:
            self._admit(found, queue, token)
        return found

    def _usable(self, job: Job, queue: str, token: int, made_of: tuple[str, str, str], recorded: int) -> Chroot | None:
        """Return the job's chroot if it can be gone on with; throw away what cannot."""
        found = self._admissible(job, queue, token)
        if found is not None and self._is_usable(found, made_of, recorded):
            return found
        if os.path.lexists(self.path(job)):
            self._throw_away(self.path(job))
        return None

    def _is_usable(self, found: Chroot, made_of: tuple[str, str, str], recorded: int) -> bool:
        """C(made_of) are backend, base and tree: a chroot in which nothing was started is made anew for others."""
        if found.is_done(recorded):
            return False
        if found.running or found.ended:
            return True
        marker = found.marker
        fresh = marker.state == CLAIMED and marker.boot_id == self._boot()
        return fresh and (marker.backend, marker.base, marker.tree) == made_of

    def _admit(self, chroot: Chroot, queue: str, token: int) -> None:
        marker = chroot.marker
        if marker.queue != queue:
            raise ForeignChroot(
                f"{chroot.path} belongs to the controller with the queue {marker.queue}, not to {queue}.",
                remedy="Give each controller's arch a name of its own, or clean up from the other controller.",
                details={"queue": marker.queue, "token": marker.token},
            )
        if token < marker.token:
            raise StaleToken(
                f"{chroot.job} was taken over: its chroot is marked with token {marker.token}, this is {token}.",
                remedy="Nothing is to be done: whoever has the newer token goes on with the job.",
                details={"token": token, "newer_token": marker.token},
            )

    def _check_room(self, job: Job, queue: str, maxjobs: int, orphans: t.Collection[Job] | None) -> None:
        now = self._now()

        def counts(chroot: Chroot) -> bool:
            if chroot.running or chroot.marker.queue != queue or not chroot.holds_slot:
                return chroot.holds_slot
            return now - chroot.marker.created < _YOUNG if orphans is None else chroot.job not in orphans

        chroots, strays = self.survey()
        busy = [chroot for chroot in chroots if chroot.job != job and counts(chroot)]
        count = len(busy) + sum(stray.running for stray in strays)
        if count >= maxjobs:
            jobs = [chroot.describe(now) for chroot in busy]
            names = ", ".join(
                f"{chroot.job} ({'running' if chroot.running else chroot.marker.state})" for chroot in busy[:20]
            )
            raise MachineFull(
                f"The machine has {count} jobs, at most {maxjobs} are allowed: {names or 'chroots without markers'}.",
                remedy="If nobody has these jobs any more, run the cleanup playbook.",
                details={"jobs": jobs, "maxjobs": maxjobs},
            )

    def _make(self, marker: Marker) -> None:
        """Make the job's directory with its marker in it, in one step."""
        parent = self.scratch
        for part in relative_chroot(marker.job).split("/")[:-1]:
            parent = os.path.join(parent, part)
            _make_directory(parent)
        new = os.path.join(self.scratch, CHROOTS, f".new.{secrets.token_hex(8)}")
        _make_directory(new)
        # Not durable: a chroot that has lost its marker with the power is one in which nothing was built.
        write_json(os.path.join(new, "job.json"), marker.to_dict(), durable=False)
        os.rename(new, self.path(marker.job))

    def _sweep(self) -> None:
        """Throw away what claims that died have left."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(os.path.join(self.scratch, CHROOTS)):
                if name.startswith(".new."):
                    throw_away(self.scratch, f"{CHROOTS}/{name}")

    def _mark(self, chroot: Chroot, *, durable: bool = False, **changes: t.Any) -> Chroot:
        marker = dataclasses.replace(chroot.marker, **changes)
        if marker != chroot.marker:
            write_json(os.path.join(chroot.path, "job.json"), marker.to_dict(), durable=durable)
        return dataclasses.replace(chroot, marker=marker)

    # -- holding and cleaning --------------------------------------------------------------------------------------

    def hold(self, job: Job, *, queue: str, token: int, state: str, reason: str = "") -> Chroot:
        """Keep the job's chroot without a slot, as C(uncollected) or C(kept); nothing in it runs any more then."""
        self.end(job, queue=queue, token=token)
        with self._exclusively():
            chroot = self.get(job, queue=queue, token=token)
            with self._holding(chroot.path):
                chroot = self._mark(chroot, durable=True, token=token, state=state, reason=reason)
                if state == KEPT:
                    chroot = self._put_aside(chroot)
        return dataclasses.replace(chroot, running=False)

    def _put_aside(self, chroot: Chroot) -> Chroot:
        place = self.scratch
        for part in (KEPT_CHROOTS, *chroot.job):
            place = os.path.join(place, part)
            _make_directory(place)
        place = os.path.join(place, f"{chroot.marker.token}-{secrets.token_hex(2)}")
        os.rename(chroot.path, place)
        self._tidy(os.path.dirname(relative_chroot(chroot.job)))
        return dataclasses.replace(chroot, path=place)

    def clean(self, job: Job, *, queue: str, token: int) -> bool:
        """End what runs in the job's chroot and throw it away; return whether there was one."""
        try:
            self.end(job, queue=queue, token=token)
        except ChrootMissing:
            return False
        except BadMarker:
            pass  # for _admissible() to judge
        with self._exclusively():
            self._admissible(job, queue, token)
            if not os.path.lexists(self.path(job)):
                return False
            self._throw_away(self.path(job))
        return True

    def discard(self, found: Chroot | Stray) -> bool:
        """Throw away a chroot that nobody owns; False if it is not there any more as it was found."""
        with self._exclusively():
            try:
                current = self._read(found.path, None)
            except BadMarker:
                if isinstance(found, Chroot) or not os.path.lexists(found.path):
                    return False
            else:
                if isinstance(found, Stray) or current.marker.token != found.marker.token:
                    return False
                deadline = self._monotonic() + _KILL_TIMEOUT
                while self._kill(current):
                    self._pause(deadline, current)
            self._throw_away(found.path)
        return True

    def _throw_away(self, path: str) -> None:
        relative = os.path.relpath(path, self.scratch)
        if os.path.isdir(path) and not os.path.islink(path):
            with self._holding(path):
                remove_remains(path)
                for driver in BACKENDS.values():  # whatever the marker says, if there is one
                    driver.discard(path)
                throw_away(self.scratch, relative)
        else:
            throw_away(self.scratch, relative)
        self._tidy(os.path.dirname(relative))

    def _tidy(self, relative: str) -> None:
        """Remove directories that have become empty."""
        while relative.count("/") >= 1:
            try:
                os.rmdir(os.path.join(self.scratch, relative))
            except OSError:
                return
            relative = os.path.dirname(relative)

    def end(self, job: Job, *, queue: str, token: int) -> Chroot:
        """Kill the supervisor of the job's chroot, and with it all that it started; return the chroot as it is then."""
        deadline = self._monotonic() + _KILL_TIMEOUT
        while True:
            with self._exclusively():  # whoever adopts the job in this moment must not lose what runs
                chroot = self.get(job, queue=queue, token=token)
                if not self._kill(chroot):
                    remove_remains(chroot.path)
                    return chroot
            self._pause(deadline, chroot)

    def _kill(self, chroot: Chroot) -> bool:
        """Kill the supervisor that is known to hold the chroot's lock; return whether something held it."""
        if not self._is_locked(chroot.path):
            return False
        status = read_status(chroot.path)
        pid, start = status.get("pid"), status.get("pid_start")
        if not isinstance(pid, int) or pid <= 1 or start is None or status.get("boot_id") != self._boot():
            return True
        if process_start_time(pid) == str(start):  # or the pid is another's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True

    def _pause(self, deadline: float, chroot: Chroot) -> None:
        if self._monotonic() >= deadline:
            raise ChrootBusy(
                f"What holds {chroot.path}/lock did not end within {_KILL_TIMEOUT:g} s.",
                remedy=f"See what it is: fuser -v {chroot.path}/lock",
            )
        self._sleep(0.02)

    # -- locks -----------------------------------------------------------------------------------------------------

    def _exclusively(self) -> Lock:
        """Return the lock under which chroots are made, marked and moved. Chroots' own locks are taken after it."""
        _make_directory(os.path.join(self.scratch, CHROOTS))
        return Lock(os.path.join(self.scratch, CHROOTS, ".lock"), timeout=_STORE_TIMEOUT, mode=0o600)

    @contextlib.contextmanager
    def _holding(self, path: str, *, timeout: float = _KILL_TIMEOUT) -> t.Iterator[None]:
        """Hold the chroot's own lock: no supervisor runs in it, and nobody populates it."""
        try:
            with Lock(os.path.join(path, "lock"), timeout=timeout, mode=0o600):
                yield
        except LockTimeout as error:
            raise ChrootBusy(f"{path} is in use: {error.message}", remedy=error.remedy) from None


def _make_directory(path: str) -> None:
    """Make a directory that everybody may pass through: results and logs are collected by client_user."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    os.chmod(path, 0o755)  # noqa: S103  # whatever the umask
