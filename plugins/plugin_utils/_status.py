# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How the cluster stands: machines, what runs, what is left, what is held; as facts and as a table. Pure."""

from __future__ import annotations

import collections.abc as c
import time
import typing as t

from ._holds import Held
from ._queue import CLAIMED, Lease, MachineState
from ._text import duration, number_of, one_line, printable, table

Facts = dict[str, t.Any]
Told = c.Mapping[str, c.Mapping[str, t.Any]]  # what machines were asked, by name

_LINE = 160  # characters of the last line of a log
_REASON = 200


def describe_machines(
    states: c.Iterable[MachineState], inventory: c.Sequence[str], loads: c.Mapping[str, str], told: Told
) -> list[Facts]:
    """Return the machines, best first, then those that are in no inventory any more."""
    known = {state.name: state for state in states}
    return [
        _machine(name, known.get(name), loads.get(name, ""), told.get(name) or {})
        for name in dict.fromkeys((*inventory, *sorted(known)))
    ]


def _machine(name: str, state: MachineState | None, load: str, told: c.Mapping[str, t.Any]) -> Facts:
    now = told.get("load")
    fresh = " ".join(f"{number_of(value):.2f}" for value in now[:3]) if isinstance(now, list) else ""
    offline = (state.offline if state else None) or {}
    reasons = [offline.get("reason"), *(state.problems if state else []), told.get("problem")]
    return {
        "machine": name,
        "state": state.state if state else "absent",
        "jobs": state.jobs if state else 0,
        "foreign": state.foreign if state else 0,
        "maxjobs": state.maxjobs if state else 0,
        "load": fresh or one_line(load, 60).replace(",", ""),
        "since": number_of(offline.get("since")),
        "by": one_line(offline.get("by"), 100),
        "reason": " ".join(dict.fromkeys(filter(None, (one_line(reason, _REASON) for reason in reasons)))),
    }


def describe_jobs(
    leases: c.Iterable[Lease],
    told: Told,
    *,
    now: float,
    alive: c.Callable[[Lease], bool],
    average: c.Callable[[str, str], float | None],
) -> tuple[list[Facts], list[Facts]]:
    """Return the jobs that have a slot, longest first, and what is left of others."""
    running, left = [], []
    for lease in leases:
        seen = _seen(lease, told.get(lease.machine) or {})
        about = {
            "package": lease.job.package,
            "branch": lease.job.branch,
            "machine": lease.machine,
            "token": lease.token,
            "state": lease.state,
        }
        if lease.state != CLAIMED:
            left.append({**about, "reason": one_line(lease.reason, _REASON), "running": bool(seen.get("running"))})
            continue
        claimed = max(0.0, now - lease.claimed)
        running.append(
            {
                **about,
                "elapsed": round(max(claimed, number_of(seen.get("age"))), 1),
                "usual": average(lease.job.branch, lease.job.package),
                "phase": one_line(seen.get("phase"), 40),
                "last_line": one_line(printable(str(seen.get("last_line") or "")), _LINE),
                "owner": str(lease.owner or "unknown"),
                "alive": alive(lease),
            }
        )
    return sorted(running, key=lambda job: (-job["elapsed"], job["package"])), left


def _seen(lease: Lease, told: c.Mapping[str, t.Any]) -> c.Mapping[str, t.Any]:
    """Return what the machine says of the job's chroot."""
    for name in ("jobs", "chroots"):
        for entry in told.get(name) or ():
            if isinstance(entry, c.Mapping) and [entry.get(part) for part in lease.job._fields] == list(lease.job):
                return entry
    return {}


def describe_holds(holds: c.Mapping[str, Held]) -> list[Facts]:
    """Return the packages on hold."""
    return [{"package": package, **held._asdict()} for package, held in sorted(holds.items())]


# -- for people --------------------------------------------------------------------------------------------------------


def render(status: c.Mapping[str, t.Any]) -> list[str]:
    """Return the status as lines."""
    lines = table(
        ("machine", "state", "jobs", "load", "since", "by", "why"),
        [
            (
                machine["machine"],
                machine["state"],
                f"{machine['jobs']}/{machine['maxjobs'] or '?'}",
                machine["load"],
                _moment(machine["since"]),
                machine["by"],
                machine["reason"],
            )
            for machine in status["machines"]
        ],
    )
    lines += _section(
        "Running",
        ("package", "branch", "machine", "phase", "for", "usually", "last line"),
        [
            (
                job["package"],
                job["branch"],
                job["machine"],
                job["phase"] + ("" if job["alive"] else " (its dispatch is dead)"),
                duration(job["elapsed"]),
                "" if job["usual"] is None else duration(job["usual"]),
                job["last_line"],
            )
            for job in status["running"]
        ],
        "Nothing runs.",
    )
    lines += [f"The bulk build: {status['bulk']}"] if status["bulk"] else []
    lines += _section("Waiting", ("package", "why"), [(job["package"], job["why"]) for job in status["waiting"]], "")
    lines += _section(
        "Left on machines",
        ("package", "branch", "machine", "as", "why"),
        [(job["package"], job["branch"], job["machine"], job["state"], job["reason"]) for job in status["left"]],
        "",
    )
    lines += _section(
        "On hold",
        ("package", "since", "by", "why"),
        [(held["package"], _moment(held["since"]), held["by"], held["reason"]) for held in status["holds"]],
        "",
    )
    return [*lines, *status["problems"]]


def _section(title: str, head: c.Sequence[str], rows: c.Sequence[c.Sequence[str]], nothing: str) -> list[str]:
    if rows:
        return ["", f"{title}:", *table(head, rows)]
    return ["", nothing] if nothing else []


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else ""
