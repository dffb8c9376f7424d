# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The books of the queue: what a counter file says, what it means, and what it should say. Pure.

A counter file holds the number of jobs on its machine and exists while the machine has room. Our jobs are counted
from the leases, never from the counters. What others (an old script, an administrator) do to a counter is told from
its difference to what we wrote last, and kept: C(foreign). So

    total = foreign + leases        a file with the total stands there exactly while total < maxjobs
"""

from __future__ import annotations

import enum
import re
import typing as t
from dataclasses import dataclass, replace

MAX_JOBS = 1_000_000  # beyond any machine: a counter above it is garbage
UNKNOWN = 0  # the maxjobs of a machine that nobody has told us about yet

_COUNTER = re.compile(rb"[ \t]*([0-9]{1,7})[ \t\r]*\n?")


class Malformed(str):
    """What is wrong with a counter file."""

    __slots__ = ()


# What is found in a machine's place: its counter, nothing, or something that is no counter.
Seen = t.Union[int, None, Malformed]


class Condition(enum.Enum):
    """What a machine's counter file says about it, beyond the number."""

    GOOD = "good"
    REMOVED = "removed"  # by hand, below maxjobs: offline until somebody puts it back
    MALFORMED = "malformed"


@dataclass(frozen=True)
class Entry:
    """What we know about a machine: the counter we left there (None: no file), foreign jobs and maxjobs by then."""

    shown: int | None
    foreign: int
    maxjobs: int

    @classmethod
    def from_dict(cls, value: t.Any) -> Entry | None:
        """Return the entry that to_dict() described, None when it is none."""
        if not isinstance(value, dict):
            return None
        shown: t.Any = value.get("shown")
        foreign: t.Any = value.get("foreign")
        maxjobs: t.Any = value.get("maxjobs")
        if (shown is None or is_count(shown)) and is_count(foreign) and is_count(maxjobs):
            return cls(shown, foreign, maxjobs)
        return None

    def to_dict(self) -> dict[str, t.Any]:
        """Return the entry as JSON has it."""
        return {"shown": self.shown, "foreign": self.foreign, "maxjobs": self.maxjobs}


def is_count(value: t.Any) -> bool:
    """Return whether the value can be a number of jobs."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_JOBS


def parse_counter(data: bytes) -> Seen:
    """Return the number in a counter file."""
    match = _COUNTER.fullmatch(data)
    number = int(match.group(1)) if match else -1
    if 0 <= number <= MAX_JOBS:
        return number
    return Malformed(
        f"expected one number of jobs, found {data[:40]!r}"
        if data
        else "expected a number of jobs, found an empty file"
    )


def condition(entry: Entry, seen: Seen) -> Condition:
    """Return what the counter file says about the machine."""
    if isinstance(seen, Malformed):
        return Condition.MALFORMED
    if seen is None and entry.shown is not None:
        return Condition.REMOVED
    return Condition.GOOD


def first_sight(seen: Seen, ours: int, maxjobs: int) -> Entry | None:
    """Return the entry of a machine that the books do not have, None when it is not in the queue at all.

    Normally it is one that an old script or a person entered. If the books were lost, its leases still stand there.
    """
    if isinstance(seen, int):
        return Entry(seen, max(0, seen - ours), maxjobs)
    if seen is None and ours == 0:
        return None
    if seen is None and UNKNOWN < maxjobs <= ours:
        return Entry(None, 0, maxjobs)
    return Entry(ours, 0, maxjobs)  # REMOVED or MALFORMED, until somebody says what holds


def observe(entry: Entry, seen: Seen) -> Entry:
    """Return the entry with what others did since we wrote last. A removed or malformed counter says nothing: wait.

    Who finds no file believes the machine full and, releasing a job, writes maxjobs - 1: so an appearing file is
    compared with maxjobs. It stands for one job less at least, whatever maxjobs the other one believes in.
    """
    if not isinstance(seen, int) or seen == entry.shown:
        return entry
    change = min(-1, seen - entry.maxjobs) if entry.shown is None else seen - entry.shown
    return replace(entry, shown=seen, foreign=max(0, entry.foreign + change))


def wanted(entry: Entry, ours: int, *, offline: bool) -> int | None:
    """Return what should stand in the counter file, None when there should be none."""
    total = entry.foreign + ours
    room = total < entry.maxjobs or entry.maxjobs == UNKNOWN
    return total if room and not offline else None
