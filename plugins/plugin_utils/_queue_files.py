# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The queue in a directory, in the original's format, for everybody on one local file system.

    .lock                               flock or lockf on it; taken for every change
    <machine>                           its number of jobs; exists while it has room (see _queue_books.py)
    .claims/<machine>:<branch>:<package>        a lease that holds a slot; its mtime is when it was renewed
    .claims/held/<machine>:<branch>:<package>   a lease that holds none
    .claims/journal                     what we left in the counter files, and the last token: the last line holds
    .claims/token                       no token above this was ever given out
    .claims/id                          the identity of this queue
    .claims/.next:<n>:<machine>, .gone:<n>:<machine>    a counter on its way in or out, in commit n
    .offline/<machine>                  why, since when and by whom it gets no jobs

Whatever is killed between two writes, the next one who takes the lock finds out what was done: counters follow
leases, and a commit first says in the journal what it is going to do, then renames files out of and into place, so
that a file's presence tells how far it got. Nothing is synced to the disk but the token and the id: what a power
failure takes are claims of processes that died with it, while a token given out twice would break the fencing.
For the same reason nothing that is written at every claim is renamed over another file: ext4 takes that for a wish to
have the data on the disk, and four times as long for a claim (ten times on a busy disk).
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import errno
import functools
import json
import os
import re
import secrets
import stat
import typing as t
from dataclasses import dataclass, replace

from ..module_utils._files import refuse_newer, write_atomic, write_json
from ..module_utils._lock import Lock, LockTimeout
from ..module_utils._names import BadName, check_branch, check_machine, check_package, Job
from ..module_utils._process import boot_id
from ._owner import Owner
from ._queue import (
    Candidate,
    CHECK,
    choose_machine,
    CLAIMED,
    Hold,
    HOLDS,
    JobBusy,
    Lease,
    LEASE_SCHEMA,
    MachineState,
    NoMachine,
    Queue,
    QueueError,
    QueueLocked,
    StaleLease,
)
from ._queue_books import (
    Condition,
    condition,
    Entry,
    first_sight,
    is_count,
    Malformed,
    observe,
    parse_counter,
    Seen,
    UNKNOWN,
    wanted,
)

LOCK_TIMEOUT = 30.0
NAME_MAX = 255
TOKENS_AT_ONCE = 1000  # one sync to the disk for so many claims
_MAXJOBS = "maxjobs"  # in the record of a machine that is offline because this is 0
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_RECORD_LIMIT = 1 << 16
_JOURNAL_SCHEMA = 1
_JOURNAL_LIMIT = 1 << 18  # then it is begun anew with its last line
_JOURNAL_TAIL = 1 << 12  # holds the last line, unless there are dozens of machines

_Key = tuple[str, str]  # branch, package


class _Paths:
    """Where everything is."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.lock = os.path.join(directory, ".lock")
        self.claims = os.path.join(directory, ".claims")
        self.held_claims = os.path.join(self.claims, "held")
        self.offline = os.path.join(directory, ".offline")
        self.journal = os.path.join(self.claims, "journal")
        self.token = os.path.join(self.claims, "token")
        self.id = os.path.join(self.claims, "id")

    def counter(self, machine: str) -> str:
        return f"{self.directory}/{machine}"

    def lease(self, machine: str, key: _Key) -> str:
        return f"{self.claims}/{_lease_name(machine, key)}"

    def held(self, machine: str, key: _Key) -> str:
        return f"{self.held_claims}/{_lease_name(machine, key)}"

    def next(self, serial: int, machine: str) -> str:
        return f"{self.claims}/.next:{serial}:{machine}"

    def gone(self, serial: int, machine: str) -> str:
        return f"{self.claims}/.gone:{serial}:{machine}"


@functools.lru_cache(maxsize=4096)
def _lease_name(machine: str, key: _Key) -> str:
    name = f"{check_machine(machine)}:{check_branch(key[0])}:{check_package(key[1])}"
    if len(name) > NAME_MAX:
        raise BadName(
            f"The names of machine {machine}, branch {key[0]} and package {key[1]} have {len(name)} characters together.",
            remedy=f"At most {NAME_MAX} fit into the name of a lease.",
        )
    return name


@functools.lru_cache(maxsize=4096)
def _parse_lease_name(name: str) -> tuple[str, _Key] | None:
    """Return machine, branch and package; None for a file that is no lease, because nobody could claim or release it."""
    parts = name.split(":")
    if len(parts) != 3:
        return None
    try:
        return check_machine(parts[0]), (check_branch(parts[1]), check_package(parts[2]))
    except BadName:
        return None


def _read(path: str, limit: int) -> tuple[bytes, os.stat_result] | None:
    """Return a regular file's content and status; None when it is missing. Raises ValueError for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(error.strerror) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("expected a regular file")
        data = os.read(descriptor, limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise ValueError(f"expected at most {limit} bytes")
    return data, status


def _parse_object(data: bytes) -> dict[str, t.Any]:
    """Return the JSON object, or raise ValueError."""
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def _last_line(path: str) -> tuple[bytes, int, bool]:
    """Return the last complete line of a file, the file's size, and whether an incomplete line follows."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", 0, False
    except OSError as error:
        raise ValueError(error.strerror) from None
    try:
        size = os.fstat(descriptor).st_size
        tail = min(size, _JOURNAL_TAIL)
        while True:
            data = os.pread(descriptor, tail, size - tail)
            end = data.rfind(b"\n")
            begin = data.rfind(b"\n", 0, max(0, end)) + 1
            if begin > 0 or tail == size:  # else it may begin before the tail
                return data[begin : max(0, end)], size, end + 1 < len(data)
            tail = min(size, 16 * tail)
    except OSError as error:  # a directory
        raise ValueError(error.strerror) from None
    finally:
        os.close(descriptor)


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_machine(name: str) -> bool:
    try:
        check_machine(name)
    except BadName:
        return False
    return True


@dataclass
class _Look:
    """A machine as it is found: C(entry) has what others did worked in."""

    entry: Entry
    seen: Seen
    ours: int
    offline: bool

    @property
    def condition(self) -> Condition:
        return condition(self.entry, self.seen)

    @property
    def jobs(self) -> int:
        return self.entry.foreign + self.ours

    @property
    def usable(self) -> bool:
        return self.condition is Condition.GOOD and not self.offline


class _Books:
    """The queue directory as it was when the lock was taken."""

    def __init__(self, paths: _Paths, arch: str) -> None:
        self.paths = paths
        self.arch = arch
        self.slots: dict[str, set[_Key]] = {}
        self.hidden: set[str] = set()
        for name in _list(paths.claims):
            if name.startswith("."):
                self.hidden.add(name)
            elif parsed := _parse_lease_name(name):
                self.slots.setdefault(parsed[0], set()).add(parsed[1])
        self.offline = set(_list(paths.offline))
        self.entries: dict[str, t.Any] = {}  # as in the journal: most operations need one machine of many
        self.serial = 0
        self.token = 0
        self.ceiling = 0
        self.boot = ""
        self.stored_id = ""
        self.journal_size = 0
        self.torn = False  # whether the journal ends in a line whose writer was killed before anything else was done
        self._looks: dict[str, _Look | None] = {}
        self._load()

    # -- the journal -------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Read the journal. If it is lost, foreign jobs on machines that are full are forgotten, nothing else."""
        value: dict[str, t.Any] = {}
        with contextlib.suppress(ValueError):
            line, self.journal_size, self.torn = _last_line(self.paths.journal)
            if line:
                value = _parse_object(line)
        refuse_newer(value, _JOURNAL_SCHEMA, self.paths.journal)
        self.serial = value["serial"] if _is_number(value.get("serial")) else 0
        self.token = value["token"] if _is_number(value.get("token")) else 0
        self.ceiling = value["ceiling"] if _is_number(value.get("ceiling")) else 0
        self.boot = value["boot_id"] if isinstance(value.get("boot_id"), str) else ""
        self.stored_id = value["id"] if _is_id(value.get("id")) else ""
        machines, pending = value.get("machines"), value.get("pending")
        self.entries = dict(machines) if isinstance(machines, dict) else {}
        for name, before in pending.items() if isinstance(pending, dict) else ():
            entry = self.entry(name)
            if entry is not None and (before is None or is_count(before)):
                self.entries[name] = replace(entry, shown=self._left(name, entry.shown, before)).to_dict()

    def entry(self, machine: str) -> Entry | None:
        """Return what the books say about the machine."""
        return Entry.from_dict(self.entries.get(machine))

    def _left(self, machine: str, shown: int | None, before: int | None) -> int | None:
        """Return what the last commit left in the machine's counter, depending on how far it got."""
        taken_out = os.path.basename(self.paths.gone(self.serial, machine)) in self.hidden
        put_in = shown is not None and os.path.basename(self.paths.next(self.serial, machine)) not in self.hidden
        if put_in:
            return shown
        return None if taken_out else before

    def identity(self) -> str:
        """Return the identity of the queue from its own file, else from the journal, else nothing."""
        with contextlib.suppress(ValueError):
            found = _read(self.paths.id, 64)
            identity = "" if found is None else found[0].decode("ascii", "replace").strip()
            if _is_id(identity):
                self.stored_id = identity
        return self.stored_id

    def dump(self, pending: c.Mapping[str, int | None]) -> bytes:
        """Return a line for the journal."""
        value = {
            "schema": _JOURNAL_SCHEMA,
            "id": self.stored_id,
            "boot_id": self.boot,
            "token": self.token,
            "ceiling": self.ceiling,
            "serial": self.serial,
            "machines": self.entries,
            "pending": pending,
        }
        return json.dumps(value).encode("utf-8") + b"\n"

    # -- machines ----------------------------------------------------------------------------------------------

    def look(self, machine: str, maxjobs: int = UNKNOWN) -> _Look | None:
        """Return how the machine stands, None when it is not in the queue. A maxjobs replaces the one known."""
        look = self._looks[machine] if machine in self._looks else self._look(machine, maxjobs)
        if look is not None and maxjobs not in (UNKNOWN, look.entry.maxjobs):
            look.entry = replace(look.entry, maxjobs=maxjobs)
        self._looks[machine] = look
        return look

    def _look(self, machine: str, maxjobs: int) -> _Look | None:
        seen = self.seen(machine)
        ours = len(self.slots.get(machine, ()))
        entry = self.entry(machine)
        if entry is None:
            entry = first_sight(seen, ours, maxjobs or self._maxjobs_by_leases(machine))
            if entry is None:
                return None
        return _Look(observe(entry, seen), seen, ours, machine in self.offline)

    def seen(self, machine: str) -> Seen:
        """Return what is in the place of the machine's counter."""
        try:
            found = _read(self.paths.counter(machine), 64)
        except ValueError as error:
            return Malformed(str(error))
        return None if found is None else parse_counter(found[0])

    def _maxjobs_by_leases(self, machine: str) -> int:
        """Return the maxjobs that the machine's leases remember: for when the journal was lost."""
        return max((self.lease(machine, key).maxjobs for key in self.slots.get(machine, ())), default=UNKNOWN)

    def outcome(self, look: _Look, *, extra: int = 0, repaired: bool = False) -> tuple[Entry, Seen]:
        """Return what is to be remembered of the machine and what its counter is to say.

        A counter that was removed by hand or is malformed is left alone, unless the machine is being repaired.
        """
        if look.condition is not Condition.GOOD and not repaired:
            return look.entry, look.seen
        target = wanted(look.entry, look.ours + extra, offline=look.offline)
        return replace(look.entry, shown=target), target

    def prepare(self, machine: str, maxjobs: int, jobs: int | None, *, repair: bool) -> _Look | None:
        """Look at a machine as it is to be: entered with this maxjobs and, where somebody counted, these jobs."""
        look = self.look(machine, maxjobs)
        if look is None and maxjobs != UNKNOWN:
            look = _Look(Entry(None, 0, maxjobs), None, 0, machine in self.offline)
            self._looks[machine] = look
        if look is not None and repair:
            look.offline = False
        if look is not None and jobs is not None and (repair or look.condition is Condition.GOOD):
            look.entry = replace(look.entry, foreign=max(0, jobs - look.ours))
        return look

    def machine_names(self) -> list[str]:
        """Return all machines there is any trace of."""
        names = {name for name in _list(self.paths.directory) if not name.startswith(".")}
        names.update(self.entries, self.slots, self.offline)
        return sorted(name for name in names if _is_machine(name))

    # -- leases ------------------------------------------------------------------------------------------------

    def machines_of(self, key: _Key) -> list[str]:
        """Return the machines on which the job has a slot: one, if nobody copied lease files."""
        return [machine for machine, keys in self.slots.items() if key in keys]

    def lease(self, machine: str, key: _Key) -> Lease:
        """Return a lease that is there."""
        return _read_lease(self.paths.lease(machine, key), Job(self.arch, *key), machine)

    def held(self) -> list[tuple[str, _Key]]:
        """Return machine, branch and package of the leases that hold no slot."""
        return sorted(parsed for name in self.held_names() if (parsed := _parse_lease_name(name)) is not None)

    def held_names(self) -> list[str]:
        """Return what is in the directory of the leases that hold no slot."""
        return _list(self.paths.held_claims)

    def held_lease(self, machine: str, key: _Key) -> Lease:
        """Return a held lease that is there."""
        lease = _read_lease(self.paths.held(machine, key), Job(self.arch, *key), machine)
        if lease.state not in HOLDS:
            lease.state = "uncollected"  # its state could not be written (a full disk): the cautious one
        return lease


def _read_lease(path: str, job: Job, machine: str) -> Lease:
    """Return the lease in the file. What is malformed has nobody's token, so that only time ends it."""
    renewed, record = 0.0, {}
    with contextlib.suppress(ValueError):
        found = _read(path, _RECORD_LIMIT)
        if found is not None:
            renewed = found[1].st_mtime
            record = _parse_object(found[0])
    refuse_newer(record, LEASE_SCHEMA, path)
    return Lease.from_record(job, machine, renewed, record)


def _is_number(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _is_id(value: t.Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16}", value) is not None


class _Writer(_Books):
    """The books with the pen, for who holds the lock."""

    def __init__(self, paths: _Paths, arch: str, mode: int) -> None:
        super().__init__(paths, arch)
        self.mode = mode
        self.dirty = False  # whether something must be remembered though no counter changes
        self.fresh = False  # whether the queue came into being just now

    # -- machines ----------------------------------------------------------------------------------------------

    def settle(self, machines: c.Iterable[str], *, claiming: str = "", repairing: str = "") -> None:
        """Make the counters of the machines say what holds, with one job more on the one being claimed."""
        before: dict[str, Seen] = {}
        for machine in machines:
            look = self.look(machine)
            if look is None:
                continue
            entry, target = self.outcome(look, extra=int(machine == claiming), repaired=machine == repairing)
            if target != look.seen:
                before[machine] = look.seen
            described = entry.to_dict()
            if described != self.entries.get(machine):
                self.entries[machine] = described
                self.dirty = True
        if self.dirty or before:
            self._commit(before)

    def _commit(self, before: c.Mapping[str, Seen]) -> None:
        """Write the books, then the counter files; C(before) is what was found in the files that change."""
        self.serial += 1
        for machine in before:
            shown = self.entries[machine]["shown"]
            if shown is not None:
                self._write(self.paths.next(self.serial, machine), b"%d\n" % shown)
        self._append(
            self.dump({machine: None if isinstance(seen, Malformed) else seen for machine, seen in before.items()})
        )
        for machine, seen in before.items():
            self._put_counter(machine, seen)
            self._looks.pop(machine, None)
        self._sweep()
        self.dirty = False

    def _put_counter(self, machine: str, seen: Seen) -> None:
        path = self.paths.counter(machine)
        if seen is not None:
            try:
                os.rename(path, self.paths.gone(self.serial, machine))
            except FileNotFoundError:  # removed by hand, without the lock, since we looked: that counts, see _left()
                self.entries[machine]["shown"] = None if isinstance(seen, Malformed) else seen
                return
        if self.entries[machine]["shown"] is not None:
            os.rename(self.paths.next(self.serial, machine), path)

    def _append(self, line: bytes) -> None:
        if self.journal_size > _JOURNAL_LIMIT:
            write_atomic(self.paths.journal, line, mode=self.mode, durable=False)
            return
        if self.torn:
            line = b"\n" + line
        descriptor = os.open(
            self.paths.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, self.mode
        )
        try:
            if self.journal_size == 0:
                os.fchmod(descriptor, self.mode)
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.paths.journal)
        finally:
            os.close(descriptor)
        self.journal_size += len(line)
        self.torn = False

    def _write(self, path: str, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, self.mode)
        try:
            os.write(descriptor, data)
            os.fchmod(descriptor, self.mode)
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        """Remove what earlier commits have left."""
        self._remove(f"{self.paths.claims}/{name}" for name in self.hidden)
        self._remove(f"{self.paths.offline}/{name}" for name in self.offline if name.startswith("."))
        self.hidden.clear()

    def _remove(self, paths: c.Iterable[str]) -> None:
        """Remove files of killed writers: who holds the lock knows that nobody needs them."""
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)

    # -- leases ------------------------------------------------------------------------------------------------

    def held_names(self) -> list[str]:
        names = super().held_names()
        self._remove(f"{self.paths.held_claims}/{name}" for name in names if name.startswith("."))
        return names

    def write_lease(self, lease: Lease) -> None:
        """Write a lease that holds a slot."""
        path = self.paths.lease(lease.machine, _key(lease.job))
        self._write_record(path, lease)
        os.utime(path, (lease.renewed, lease.renewed))

    def remove_lease(self, lease: Lease) -> None:
        """Remove a lease; its slot is free when the machine is settled."""
        os.unlink(self.paths.lease(lease.machine, _key(lease.job)))
        self._count(lease, -1)

    def hold(self, lease: Lease, state: Hold, reason: str) -> None:
        """Take the slot from a lease but remember it."""
        os.rename(self.paths.lease(lease.machine, _key(lease.job)), self.paths.held(lease.machine, _key(lease.job)))
        self._count(lease, -1)
        self.describe_held(lease, state, reason)

    def describe_held(self, lease: Lease, state: Hold, reason: str) -> None:
        """Write why a lease is held. When the disk is full this is not lost: held_lease() assumes the cautious state."""
        lease.state, lease.reason = state, reason
        with _full_disk_tolerated():
            self._write_record(self.paths.held(lease.machine, _key(lease.job)), lease)

    def _write_record(self, path: str, lease: Lease) -> None:
        # On one line: the encoder for readable JSON takes several times as long, and everybody waits for it.
        write_atomic(path, json.dumps(lease.record()) + "\n", mode=self.mode, durable=False)

    def unhold(self, lease: Lease) -> None:
        """Give a held lease a slot again."""
        os.rename(self.paths.held(lease.machine, _key(lease.job)), self.paths.lease(lease.machine, _key(lease.job)))
        self._count(lease, +1)

    def _count(self, lease: Lease, change: int) -> None:
        keys = self.slots.setdefault(lease.machine, set())
        (keys.add if change > 0 else keys.discard)(_key(lease.job))
        self._looks.pop(lease.machine, None)

    # -- identity and tokens -----------------------------------------------------------------------------------

    def identify(self) -> str:
        """Return the identity of the queue; make one if there is none, here or in the books."""
        if self.identity():
            return self.stored_id
        self.fresh = True
        self.stored_id = secrets.token_hex(8)
        write_atomic(self.paths.id, self.stored_id + "\n", mode=self.mode)
        return self.stored_id

    def next_token(self, now: float) -> int:
        """Return a token higher than all before. It is remembered by the next settle()."""
        if self.boot != _boot_id() or self.token >= self.ceiling:
            self._raise_ceiling(now)
        self.token += 1
        self.dirty = True
        return self.token

    def _raise_ceiling(self, now: float) -> None:
        """Reserve more tokens, on the disk: the journal is not synced and may be older than the last token, or lost."""
        self.identify()
        ceiling = self._ceiling()
        self.token = max(self.token, ceiling or 0)
        if ceiling is None and not self.fresh:
            # Lost as well: jump ahead of anything ever given out, which was less than one token per millisecond.
            self.token = max(self.token, int(now * 1000))
        self.ceiling = self.token + TOKENS_AT_ONCE
        write_atomic(self.paths.token, f"{self.ceiling}\n", mode=self.mode)
        self.boot = _boot_id()

    def _ceiling(self) -> int | None:
        with contextlib.suppress(ValueError):
            found = _read(self.paths.token, 64)
            if found is not None and re.fullmatch(rb"[0-9]{1,18}\n?", found[0]):
                return int(found[0])
        return None


@functools.cache
def _boot_id() -> str:
    return boot_id()


@contextlib.contextmanager
def _full_disk_tolerated() -> c.Iterator[None]:
    """Go on without what could not be written: only where the next one to take the lock makes up for it."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise


def _key(job: Job) -> _Key:
    return job.branch, job.package


def _rooms(
    books: _Books, candidates: c.Sequence[Candidate], returning: c.Callable[[str], bool] = lambda _machine: False
) -> dict[str, int]:
    """Return the number of jobs of each candidate that may take one. Raises NoMachine if none is in the queue at all.

    One that is offline may if it is C(returning).
    """
    looks = {candidate.name: books.look(candidate.name, candidate.maxjobs) for candidate in candidates}
    if not any(looks.values()):
        raise NoMachine(
            "None of the candidate machines is in the queue: " + (", ".join(looks) or "there is no candidate") + ".",
            remedy="Run the setup playbook for at least one of them.",
            details={"machines": list(looks)},
        )
    return {
        name: look.jobs
        for name, look in looks.items()
        if look is not None and (look.usable or (look.condition is Condition.GOOD and returning(name)))
    }


def _prefer_held(
    held: c.Sequence[Lease],
    candidates: c.Sequence[Candidate],
    rooms: c.Mapping[str, int],
    passed_over: c.Collection[str],
) -> tuple[c.Sequence[Candidate], c.Collection[str]]:
    """Return the candidates and those passed over in view of what is left of the job's earlier builds.

    Results to collect and a build that may still run are worth waiting for, while their machine is there. What was
    lost is worth a look if its machine has room. A chroot kept for debugging is left in peace while another has room.
    """
    there = {
        candidate.name: candidate
        for candidate in candidates
        if candidate.name in rooms and candidate.name not in passed_over
    }
    for lease in sorted(held, key=lambda lease: lease.token, reverse=True):
        machine = there.get(lease.machine)
        if machine is None or lease.state == "kept":
            continue
        if lease.state != "lost" or rooms[machine.name] < machine.maxjobs:
            return [machine], passed_over
    return candidates, {*passed_over, *(lease.machine for lease in held if lease.state == "kept")}


def _stale(lease: Lease, current: Lease | None) -> StaleLease:
    who = "It was released." if current is None else f"It belongs to {current.owner or 'an unknown owner'} now."
    return StaleLease(
        f"The lease {lease.token} of {lease.job} on {lease.machine} is not in force any more. {who}",
        remedy="Another dispatch has taken the job over: leave it to that one.",
        details={"token": lease.token, "current": None if current is None else current.to_dict()},
    )


def _in_force(lease: Lease, current: Lease | None) -> Lease:
    """Return the current lease if it is this one, else raise StaleLease."""
    if current is None or current.token != lease.token or lease.token < 1:
        raise _stale(lease, current)
    return current


class FileQueue(Queue):
    """The queue directory C(directory) of C(arch). Making one touches nothing."""

    def __init__(self, directory: str, *, arch: str, lock_timeout: float = LOCK_TIMEOUT, **clocks: t.Any) -> None:
        super().__init__(arch=arch, **clocks)
        self._paths = _Paths(directory)
        self._lock_timeout = lock_timeout

    # -- getting in --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _write_books(self, timeout: float | None = None) -> c.Iterator[_Writer]:
        """Take the lock, open the books for writing."""
        paths = self._paths
        try:
            # What the directory grants its group (or everybody), files in it must grant too.
            shared = stat.S_IMODE(os.stat(paths.directory).st_mode)
            mode = 0o644 | (shared & 0o022)
            with Lock(paths.lock, timeout=self._lock_timeout if timeout is None else timeout, mode=mode):
                if not os.path.isdir(paths.offline):  # the last one made
                    for directory in (paths.claims, paths.held_claims, paths.offline):
                        os.makedirs(directory, exist_ok=True)
                        os.chmod(directory, shared)
                yield _Writer(paths, self.arch, mode)
        except LockTimeout as error:
            raise QueueLocked(error.message, remedy=error.remedy, details=error.details) from error
        except OSError as error:
            raise self._unusable(error) from error

    @contextlib.contextmanager
    def _read_books(self) -> c.Iterator[_Books]:
        """Open the books for reading, under a shared lock if it can be had: without it numbers may be one off."""
        with contextlib.ExitStack() as stack:
            try:
                with contextlib.suppress(LockTimeout, FileNotFoundError, PermissionError):
                    stack.enter_context(Lock(self._paths.lock, timeout=1.0, exclusive=False, create=False))
                yield _Books(self._paths, self.arch)
            except OSError as error:
                raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> QueueError:
        directory = self._paths.directory
        if not os.path.isdir(directory):
            return NoMachine(f"The queue directory {directory} does not exist.", remedy="Run the setup playbook.")
        return QueueError(
            f"The queue directory {directory} cannot be used: {error.strerror or error} ({error.filename}).",
            remedy="Its files must be readable and writable for whoever dispatches, and its disk must have room.",
            details={"path": error.filename, "errno": error.errno},
        )

    # -- looking -----------------------------------------------------------------------------------------------

    def id(self, *, make: bool = True) -> str:
        with self._read_books() as books:
            identity = books.identity()
            if not identity:
                os.stat(self._paths.directory)  # one that is not set up yet is no queue at all
        if identity or not make:
            return identity
        with self._write_books() as writer:
            return writer.identify()

    def newest_token(self) -> int:
        with self._read_books() as books:
            return books.token

    def choose(self, candidates: c.Sequence[Candidate], *, passed_over: c.Collection[str] = ()) -> str | None:
        with self._read_books() as books:
            return choose_machine(candidates, _rooms(books, candidates), passed_over)

    def find(self, job: Job) -> Lease | None:
        with self._read_books() as books:
            found = [books.lease(machine, _key(job)) for machine in books.machines_of(_key(job))]
            found = found or [books.held_lease(machine, key) for machine, key in books.held() if key == _key(job)]
            return max(found, key=lambda lease: lease.token, default=None)

    def machines(self) -> list[MachineState]:
        with self._read_books() as books:
            held = [machine for machine, dummy_key in books.held()]
            return [self._state(books, name, held.count(name)) for name in books.machine_names()]

    def _state(self, books: _Books, name: str, held: int) -> MachineState:
        look = books.look(name) or _Look(Entry(None, 0, UNKNOWN), books.seen(name), 0, name in books.offline)
        problems = []
        if isinstance(look.seen, Malformed):
            problems.append(f"The counter file {self._paths.counter(name)} is malformed: {look.seen}.")
        elif look.condition is Condition.REMOVED:
            problems.append("The counter file was removed by hand, or another program took the last slots.")
        state: t.Literal["free", "full", "offline", "unusable"] = "free"
        if look.offline or look.condition is Condition.REMOVED:
            state = "offline"
        elif look.condition is Condition.MALFORMED:
            state = "unusable"
        elif wanted(look.entry, look.ours, offline=False) is None:
            state = "full"
        return MachineState(
            name=name,
            counter=look.seen if isinstance(look.seen, int) else None,
            ours=look.ours,
            foreign=look.entry.foreign,
            held=held,
            maxjobs=look.entry.maxjobs,
            offline=self._offline_record(name) if look.offline else None,
            problems=problems,
            state=state,
        )

    def _offline_record(self, machine: str) -> dict[str, t.Any]:
        """Return why the machine is offline; a person may have made the file with touch or echo."""
        path = os.path.join(self._paths.offline, machine)
        record: dict[str, t.Any] = {"reason": "", "since": 0.0, "by": ""}
        with contextlib.suppress(ValueError):
            found = _read(path, _RECORD_LIMIT)
            if found is not None:
                data, status = found
                record.update(reason=data.decode("utf-8", "replace").strip()[:1000], since=status.st_mtime)
                record.update(_parse_object(data))
        return record

    def leases(self) -> list[Lease]:
        with self._read_books() as books:
            names = sorted((machine, key) for machine, keys in books.slots.items() for key in keys)
            return [books.lease(machine, key) for machine, key in names]

    def held(self) -> list[Lease]:
        with self._read_books() as books:
            return [books.held_lease(machine, key) for machine, key in books.held()]

    def all_leases(self) -> list[Lease]:
        with self._read_books() as books:
            names = sorted((machine, key) for machine, keys in books.slots.items() for key in keys)
            leases = [books.lease(machine, key) for machine, key in names]
            return [*(books.held_lease(machine, key) for machine, key in books.held()), *leases]

    # -- claiming ----------------------------------------------------------------------------------------------

    def _mark(self, candidates: c.Sequence[Candidate]) -> dict[str, tuple[int, int, int]]:
        mark = {}
        for candidate in candidates:
            with contextlib.suppress(OSError):
                status = os.stat(self._paths.counter(candidate.name))
                mark[candidate.name] = (status.st_ino, status.st_mtime_ns, status.st_size)
        return mark

    def _freed(self, candidates: c.Sequence[Candidate], mark: t.Any) -> bool:
        return any(mark.get(name) != there for name, there in self._mark(candidates).items())

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
        for candidate in candidates:
            _lease_name(candidate.name, _key(job))  # raises for names that are malformed or too long together
        timeout = self._lock_timeout if patience is None else min(self._lock_timeout, max(patience, 1.0))
        with self._write_books(timeout) as books:
            return self._attempt_locked(
                books, job, candidates, owner, passed_over, resting, thorough=thorough, returning=returning
            )

    def _attempt_locked(
        self,
        books: _Writer,
        job: Job,
        candidates: c.Sequence[Candidate],
        owner: Owner,
        passed_over: c.Collection[str],
        resting: c.Collection[str],
        *,
        thorough: bool,
        returning: bool,
    ) -> Lease | None:
        names = [candidate.name for candidate in candidates]
        rooms = _rooms(books, candidates, self._taken_out) if returning else _rooms(books, candidates)
        rooms = {name: jobs for name, jobs in rooms.items() if name not in resting}
        existing = self._existing(books, job)
        if existing is not None and existing.machine in names:
            return self._take(books, existing, job, owner, names)
        if existing is not None:  # on a machine that nobody can go to now
            self._hold(books, existing, "lost", "Its machine is no candidate any more.")
        held = [books.held_lease(machine, key) for machine, key in books.held() if key == _key(job)]
        candidates, passed_over = _prefer_held(held, candidates, rooms, passed_over)
        chosen = choose_machine(candidates, rooms, passed_over)
        took_over: list[Lease] = []
        if chosen is None and thorough:
            chosen, took_over = self._take_over(books, candidates, rooms, passed_over)
        if chosen is None:
            books.settle(names)
            return None
        here = next((lease for lease in held if lease.machine == chosen), None)
        lease = here or Lease(job, chosen, 0, owner, 0.0, 0.0)
        if here is not None:
            books.unhold(here)
        lease = self._take(books, lease, job, owner, names, new=here is None)
        lease.took_over = took_over
        lease.left = [other for other in held if other is not here]
        return lease

    def _existing(self, books: _Writer, job: Job) -> Lease | None:
        """Return the dead owner's lease of the job, if there is one. Raises JobBusy if its owner lives."""
        found = sorted(
            (books.lease(machine, _key(job)) for machine in books.machines_of(_key(job))), key=lambda lease: lease.token
        )
        for lease in found:
            if self.judge(lease) == "alive":
                raise JobBusy(
                    f"{job} is being built on {lease.machine} already, by {lease.owner or 'an unknown owner'}.",
                    remedy="Wait for it to end. If nothing runs there, its claim ends by itself "
                    f"when it has not been renewed for {self.lease_ttl:g} s.",
                    details={"machine": lease.machine, "lease": lease.to_dict()},
                )
        for lease in found[:-1]:  # somebody copied lease files: only the newest can be right
            self._hold(books, lease, "lost", "There is a newer lease of the same job.")
        return found[-1] if found else None

    def _hold(self, books: _Writer, lease: Lease, state: Hold, reason: str) -> None:
        books.hold(lease, state, reason)
        books.settle([lease.machine])

    def _take(
        self, books: _Writer, old: Lease, job: Job, owner: Owner, names: c.Sequence[str], *, new: bool = False
    ) -> Lease:
        """Write the lease for its new owner. A new lease is counted first: killed in between, nothing is left of it."""
        now = self._now()
        token = books.next_token(now)
        books.settle(names, claiming=old.machine if new else "")
        look = books.look(old.machine)
        lease = Lease(
            job=job,
            machine=old.machine,
            token=token,
            owner=owner,
            claimed=now,
            renewed=now,
            build_token=None if old.state == "kept" else old.build_token,
            maxjobs=look.entry.maxjobs if look else UNKNOWN,
            details=old.details,
            adopted=not new,
            held=old.state if old.state in HOLDS else None,
        )
        books.write_lease(lease)
        return lease

    def _take_over(
        self,
        books: _Writer,
        candidates: c.Sequence[Candidate],
        rooms: c.Mapping[str, int],
        passed_over: c.Collection[str],
    ) -> tuple[str | None, list[Lease]]:
        """Take slots from owners that are dead: their jobs are held until somebody wants them again."""
        dead: dict[str, list[Lease]] = {}
        for candidate in candidates:
            if candidate.name in rooms:
                leases = [books.lease(candidate.name, key) for key in books.slots.get(candidate.name, ())]
                dead[candidate.name] = sorted(filter(self._may_be_robbed, leases), key=lambda lease: lease.renewed)
        jobs = {name: rooms[name] - len(leases) for name, leases in dead.items()}
        chosen = choose_machine(candidates, jobs, passed_over)
        if chosen is None:
            return None, []
        look = books.look(chosen)
        needed = rooms[chosen] + 1 - (look.entry.maxjobs if look else 0)
        victims = dead[chosen][:needed]
        for lease in victims:
            books.hold(lease, "orphan", "Its owner died, and its slot was needed.")
        return chosen, victims

    def _may_be_robbed(self, lease: Lease) -> bool:
        spared = 0 < lease.spared_until - self._now() <= self.lease_ttl  # beyond that: a wrong clock
        return not spared and self.judge(lease) == "dead"

    # -- a lease's life ----------------------------------------------------------------------------------------

    def _current(self, lease: Lease) -> Lease | None:
        """Return what stands where the lease should, None if there is nothing. Takes no lock: files are whole."""
        path = self._paths.lease(lease.machine, _key(lease.job))
        if not os.path.lexists(path):
            return None
        return _read_lease(path, lease.job, lease.machine)

    def verify(self, lease: Lease) -> None:
        _in_force(lease, self._current(lease))

    def renew(self, lease: Lease) -> Lease:
        path = self._paths.lease(lease.machine, _key(lease.job))
        now = self._now()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _stale(lease, None) from None
        try:
            _in_force(lease, self._current(lease))
            # If somebody has replaced the file meanwhile, it is the old one that is touched: no harm, and no lock.
            os.utime(descriptor, (now, now))
        finally:
            os.close(descriptor)
        return replace(lease, renewed=now)

    def update(self, lease: Lease, **values: t.Any) -> Lease:
        with self._write_books() as books:
            current = _in_force(lease, self._current(lease))
            if "build_token" in values:
                current.build_token = values.pop("build_token")
            current.details.update(values)
            books.write_lease(current)
            return replace(current, adopted=lease.adopted, held=lease.held, left=lease.left, took_over=lease.took_over)

    def release(self, lease: Lease, *, hold: Hold | None = None, reason: str = "") -> bool:
        with self._write_books() as books:
            current = self._current(lease)
            if current is None:
                return self._release_held(books, lease, hold, reason)
            _in_force(lease, current)
            if hold is None:
                books.remove_lease(current)
            else:
                books.hold(current, hold, reason)
            with _full_disk_tolerated():  # the slot is free; the counter follows with the next claim
                books.settle([lease.machine])
            return True

    def _release_held(self, books: _Writer, lease: Lease, hold: Hold | None, reason: str) -> bool:
        """Release a lease whose slot was taken over, because its owner seemed dead: it knows best what is left."""
        path = self._paths.held(lease.machine, _key(lease.job))
        if not os.path.lexists(path):
            return False
        current = books.held_lease(lease.machine, _key(lease.job))
        if current.token != lease.token or current.state != "orphan":
            return False
        if hold is None:
            os.unlink(path)
        else:
            books.describe_held(current, hold, reason)
        return True

    def reinstate(self, lease: Lease, jobs: c.Collection[Job] | None = None) -> list[Lease]:
        wanted_back = [robbed.job for robbed in lease.took_over] if jobs is None else jobs
        with self._write_books() as books:
            _in_force(lease, self._current(lease))
            back = self._give_back(books, lease.machine, wanted_back)
            books.settle([lease.machine])
            return back

    def _give_back(self, books: _Writer, machine: str, jobs: c.Collection[Job]) -> list[Lease]:
        """Give the machine's held leases of the jobs their slots back, unless the job has one already."""
        back = []
        for holder, key in books.held():
            if holder != machine or Job(self.arch, *key) not in jobs or books.machines_of(key):
                continue
            held = books.held_lease(machine, key)
            books.unhold(held)
            held.state, held.reason = CLAIMED, ""
            held.spared_until = self._now() + self.lease_ttl
            books.write_lease(held)
            back.append(held)
        return back

    def drop_held(self, job: Job, token: int) -> bool:
        with self._write_books() as books:
            for machine, key in books.held():
                if key == _key(job) and books.held_lease(machine, key).token == token:
                    os.unlink(self._paths.held(machine, key))
                    return True
        return False

    # -- machines in and out -----------------------------------------------------------------------------------

    def enter(self, machine: str, maxjobs: int, *, jobs: int | None = None, dry_run: bool = False) -> bool:
        check_machine(machine)
        if not is_count(maxjobs):
            raise QueueError(f"The maxjobs of machine {machine} is {maxjobs!r}, expected a number.")
        if maxjobs == 0:
            return self._leave(machine, dry_run=dry_run)
        if not dry_run:
            os.makedirs(self._paths.directory, exist_ok=True)
        return self._change(machine, maxjobs, jobs, repair=False, dry_run=dry_run)

    def undrain(
        self, machine: str, maxjobs: int | None = None, *, jobs: int | None = None, dry_run: bool = False
    ) -> bool:
        check_machine(machine)
        return self._change(machine, maxjobs or UNKNOWN, jobs, repair=True, dry_run=dry_run)

    def offline(self, machine: str, reason: str, by: str, *, dry_run: bool = False) -> bool:
        check_machine(machine)
        with self._read_books() as seen:
            known = self._offline_record(machine) if machine in seen.offline else None
            # What a check did becomes a person's wish by this, even for the same reason.
            changed = known is None or known["reason"] != reason or known["by"] == CHECK
        if not dry_run:
            self._put_offline(machine, {"reason": reason, "by": by} if changed else None)
        return changed

    def take_out(self, machine: str, reason: str, *, dry_run: bool = False) -> bool:
        check_machine(machine)
        with self._read_books() if dry_run else self._write_books() as books:
            look = books.look(machine)
            known = self._offline_record(machine) if machine in books.offline else None
            if look is None or look.condition is Condition.REMOVED or (known and known["by"] != CHECK):
                return False
            if known and known["reason"] == reason:
                return False
            if isinstance(books, _Writer):
                since = {"since": known["since"]} if known else {}
                look.offline = True
                self._note_offline(books, machine, {"reason": reason, "by": CHECK, **since})
            return True

    def bring_back(
        self, machine: str, *, running: c.Collection[Job] = (), rebooted: bool = False, dry_run: bool = False
    ) -> bool:
        check_machine(machine)
        with self._read_books() if dry_run else self._write_books() as books:
            if machine not in books.offline or not self._taken_out(machine):
                return False
            if isinstance(books, _Writer):
                self._give_back(books, machine, running)
                os.unlink(os.path.join(self._paths.offline, machine))
                books.offline.discard(machine)
                look = books.look(machine)
                if look is not None and rebooted and look.condition is Condition.GOOD:
                    look.entry = replace(look.entry, foreign=0)
                books.settle([machine])
            return True

    def _taken_out(self, machine: str) -> bool:
        """Return whether it was a check that took the machine offline."""
        return bool(self._offline_record(machine)["by"] == CHECK)

    def _leave(self, machine: str, *, dry_run: bool) -> bool:
        """Take a machine out of the queue that is to run no jobs: as offline, until it is entered with more than none."""
        with self._read_books() as seen:
            changed = seen.look(machine) is not None and machine not in seen.offline
        if changed and not dry_run:
            self._put_offline(machine, {"reason": "Its maxjobs is 0.", "by": "", _MAXJOBS: 0})
        return changed

    def _put_offline(self, machine: str, record: dict[str, t.Any] | None) -> None:
        """Write why the machine is offline, where that is new, and see to its counter in any case."""
        with self._write_books() as books:
            if record is not None:
                self._note_offline(books, machine, record)
            else:
                books.settle([machine])

    def _note_offline(self, books: _Writer, machine: str, record: dict[str, t.Any]) -> None:
        """Write why the machine is offline, and take its counter away."""
        path = os.path.join(self._paths.offline, machine)
        write_json(path, {"since": self._now(), **record}, mode=books.mode)
        books.offline.add(machine)
        books.settle([machine])

    def _change(self, machine: str, maxjobs: int, jobs: int | None, *, repair: bool, dry_run: bool) -> bool:
        with self._read_books() if dry_run else self._write_books() as books:
            was_offline = machine in books.offline and (repair or self._offline_record(machine).get(_MAXJOBS) == 0)
            look = books.prepare(machine, maxjobs, jobs, repair=repair)
            if look is not None and was_offline:
                look.offline = False
            if look is None and not was_offline:
                raise NoMachine(f"Machine {machine} is not in the queue.", remedy="Run the setup playbook for it.")
            changed = was_offline
            if look is not None:
                entry, target = books.outcome(look, repaired=repair)
                changed = changed or target != look.seen or entry != books.entry(machine)
            if isinstance(books, _Writer):
                if was_offline:
                    os.unlink(os.path.join(self._paths.offline, machine))
                books.settle([machine], repairing=machine if repair else "")
            return changed
