# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What there is to tell people and hooks: what happens, which of it is the same, and what others get to know of it.

An event is a dictionary with the name of what happened in C(event). It comes from a step's result and holds what a build
machine said: C(facts_of) makes of it what may be shown.
"""

from __future__ import annotations

import collections.abc as c
import hashlib
import re
import typing as t

from ._store import BuildRecord, Recorded
from ._text import number_of, one_line, printable

Event = t.Literal[
    "failure",
    "fetch_problem",
    "plist",
    "broken_built",
    "builds_again",
    "machine_lost",
    "machine_back",
    "bulk_ended",
]

EVENTS: tuple[Event, ...] = t.get_args(Event)
MENDED: tuple[Event, ...] = ("broken_built", "builds_again")  # what ends a row of failures
PRIVILEGES = ("setuid", "setgid", "world_writable")  # listed for whoever reads it, and no errors
SCHEMA = 1

# What makes a problem the same as one before it, beside the package: it is not told again for some time.
_CAUSES: dict[str, tuple[str, ...]] = {
    "failure": ("failure_class", "reason"),
    "fetch_problem": ("machine", "reason", "detail"),
    "plist": (),
}
_VARIES = re.compile(r"\b[0-9a-f]{16,}\b|[0-9]+")  # sums, sizes and tokens in a sentence
_OF_A_BUILD = ("arch", "branch", "package", "queue", "token")
_OF_A_MACHINE = ("arch", "machine", "since")  # of one outage, whichever branch looks after the machine
_IDENTITIES = {
    "machine_lost": _OF_A_MACHINE,
    "machine_back": _OF_A_MACHINE,
    "bulk_ended": ("arch", "branch", "run", "begun"),  # runs are counted anew in a new database
}

# -- what happened -----------------------------------------------------------------------------------------------------


def events_of(build: BuildRecord, recorded: Recorded, *, leftovers: c.Sequence[t.Any] = ()) -> list[Event]:
    """Return what there is to tell about a build that was recorded."""
    if not build.counted:
        return []
    if build.outcome == "failed":
        return [] if build.broken else ["failure"]
    events: list[Event] = []
    if any(isinstance(leftover, dict) and leftover.get("kind") not in PRIVILEGES for leftover in leftovers):
        events.append("plist")
    if recorded.broken_built:
        events.append("broken_built")
    elif recorded.builds_again:  # of a package marked BROKEN the other message says as much
        events.append("builds_again")
    return events


def context_of(build: BuildRecord, recorded: Recorded | None = None, **more: t.Any) -> dict[str, t.Any]:
    """Return what an event says of a build. C(more) is arch, branch, log (a path), maintainer and so on."""
    fields = ("queue", "token", "package", "version", "machine", "outcome", "reason", "phase", "detail", "seconds")
    context = {name: getattr(build, name) for name in fields}
    context.update({name: getattr(build, name) for name in ("failure_class", "line_number", "line")})
    context.update({name: list(getattr(build, name)) for name in ("further", "around")})
    context["at"] = build.ended
    if recorded is not None:
        context["failures"] = recorded.failures
    return {**context, **more}


# -- which is which ----------------------------------------------------------------------------------------------------


def identity_of(event: c.Mapping[str, t.Any]) -> str:
    """Return a name for this very event, which may be given again after a crash."""
    name = str(event.get("event"))
    return _named(event, [name, *(str(event.get(field, "")) for field in _IDENTITIES.get(name, _OF_A_BUILD))])


def is_problem(event: c.Mapping[str, t.Any]) -> bool:
    """Whether the event may come again and again for one and the same cause."""
    return event.get("event") in _CAUSES


def problem_of(event: c.Mapping[str, t.Any], name: str | None = None) -> str:
    """Return a name for the event, or another of that C(name), of this package."""
    fields = [name or str(event.get("event")), *(str(event.get(field, "")) for field in _OF_A_BUILD[:3])]
    return _named({**event, "event": fields[0]}, fields)


def cause_of(event: c.Mapping[str, t.Any]) -> str:
    """Return what tells the cause of a problem from other causes of the same one."""
    said = {field: one_line(event.get(field), 200) for field in _CAUSES[event["event"]]}
    texts = [_VARIES.sub("#", text) if field == "detail" else text for field, text in said.items()]
    return "/".join([*texts, _leftovers_of(event)] if event["event"] == "plist" else texts)


def _leftovers_of(event: c.Mapping[str, t.Any]) -> str:
    """Return a digest of what was left, in whatever order and by whichever item it was found."""
    rows = _rows(event.get("leftovers"), ("kind", "path"))
    left = sorted({(row["kind"], row["path"]) for row in rows if row["kind"] not in PRIVILEGES})
    return hashlib.sha256("\0".join(text for row in left for text in row).encode("utf-8", "replace")).hexdigest()[:32]


def _named(event: c.Mapping[str, t.Any], fields: c.Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join(fields).encode("utf-8", "replace")).hexdigest()
    about = next((str(event[name]) for name in ("package", "machine", "branch") if event.get(name)), "")
    about = re.sub(r"[^A-Za-z0-9+._,~@-]", "_", about)[:100]
    return f"{fields[0]}.{about}.{digest[:32]}"


# -- what others get to know -------------------------------------------------------------------------------------------

_TEXTS = (
    *("arch", "branch", "package", "version", "machine", "outcome", "reason", "phase", "detail", "failure_class"),
    *("line", "log", "maintainer", "summary"),
)
_NUMBERS = ("at", "seconds", "since")
_COUNTS = ("failures", "token", "line_number")


def facts_of(event: c.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the event as templates and hooks get it: always the same keys, no value of which can break a line."""
    facts: dict[str, t.Any] = {"schema": SCHEMA, "id": identity_of(event), "event": one_line(event.get("event"), 40)}
    facts.update({name: one_line(event.get(name), 500) for name in _TEXTS})
    facts.update({name: number_of(event.get(name)) for name in _NUMBERS})
    facts.update({name: int(number_of(event.get(name))) for name in _COUNTS})
    facts["further"] = [one_line(name, 40) for name in sequence(event.get("further"))]
    facts["around"] = [printable(line) for line in sequence(event.get("around")) if isinstance(line, str)]
    facts["problems"] = [one_line(problem, 1000) for problem in sequence(event.get("problems"))]
    facts["leftovers"] = _rows(event.get("leftovers"), ("kind", "path", "item"))
    facts["jobs"] = [one_line(job, 500) for job in sequence(event.get("jobs"))]
    blocks = event.get("blocks")
    facts["blocks"] = None if blocks is None else int(number_of(blocks))  # nobody knows, or how many
    facts["blocked"] = [one_line(name, 200) for name in sequence(event.get("blocked"))]
    counts = event.get("counts")
    known = counts.items() if isinstance(counts, dict) else ()
    facts["counts"] = {one_line(name, 40): int(number_of(count)) for name, count in known}
    facts["failed"] = _rows(event.get("failed"), ("package", "reason"), ("blocks",))
    return facts


def sequence(value: t.Any) -> c.Sequence[t.Any]:
    """Return the list, if it is one, and not more of it than anybody reads."""
    return value[:10000] if isinstance(value, (list, tuple)) else ()


def _rows(value: t.Any, texts: c.Sequence[str], counts: c.Sequence[str] = ()) -> list[dict[str, t.Any]]:
    rows = [row for row in sequence(value) if isinstance(row, dict)]
    return [
        {
            **{name: one_line(row.get(name), 500) for name in texts},
            **{name: int(number_of(row.get(name))) for name in counts},
        }
        for row in rows
    ]
