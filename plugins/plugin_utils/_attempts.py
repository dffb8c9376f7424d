# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the attempts of one dispatch came to, and what follows from it. Pure."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ._queue import Hold, HOLDS

Attempt = c.Mapping[str, t.Any]
Facts = c.Mapping[str, t.Any]

RESOURCES = "resources"  # the failure class of a package that asks for more than the machines have

LONGEST_PAUSE = 600.0  # seconds that a machine is passed over at most, unless the first time is longer
MAX_STALE = 4  # builds that one dispatch brings home for earlier ones, before it gives up

_OUTCOMES = {"built": "was built", "failed": "failed", "infrastructure": "was not built", "error": "was not built"}


def passed_over(attempts: c.Iterable[Attempt]) -> list[str]:
    """Return the machines on which an earlier attempt failed: they are used only if no other has room.

    And then not at once, see not_before().
    """
    return sorted({str(attempt["machine"]) for attempt in attempts if attempt.get("infrastructure")})


def not_before(attempts: c.Iterable[Attempt], interval: float) -> dict[str, float]:
    """Return until when (monotonic) machines on which attempts failed get no further one, though no other has room.

    From C(interval) seconds on, twice as long after each failure: else a broken machine, which is always the least
    loaded one, uses up all attempts within seconds while the others are busy.
    """
    moments: dict[str, float] = {}
    pauses: dict[str, float] = {}
    for attempt in attempts:
        if attempt.get("infrastructure"):
            machine = str(attempt["machine"])
            pauses[machine] = min(2 * pauses[machine], max(interval, LONGEST_PAUSE)) if machine in pauses else interval
            moments[machine] = float(attempt.get("ended") or 0.0) + pauses[machine]
    return moments


def blames_package(attempts: c.Iterable[Attempt], machine: str, reason: str) -> bool:
    """Return whether the build ended for this infrastructure reason on another machine before.

    The same on two machines is no accident of a machine: the package itself asks for too much.
    """
    return any(
        attempt.get("reason") == reason
        and attempt.get("machine") != machine
        and attempt.get("recorded")
        and not attempt.get("stale")
        for attempt in attempts
    )


def may_try_again(attempts: c.Sequence[Attempt], *, limit: int, retries: int) -> bool:
    """Return whether another attempt is allowed after these.

    C(limit) bounds all attempts, C(retries) how often a build may be started again after one that was recorded as a
    failure of the infrastructure. A build that was begun for an earlier dispatch and only brought home does not count;
    there is one on each machine at most, and a machine that says to have another one each time is not believed for ever.
    """
    own = [attempt for attempt in attempts if not attempt.get("stale")]
    builds = sum(1 for attempt in own if attempt.get("recorded"))
    return len(own) < limit and builds <= retries and len(attempts) - len(own) <= MAX_STALE


def hold_state(clean: Facts) -> Hold | None:
    """Return as what the lease is to be kept aside, None when nothing of the job is left on the client.

    C(clean) is what clean_chroot returned, or what it failed with.
    """
    if clean.get("cleaned"):
        return None
    held = clean.get("held")
    return t.cast(Hold, held) if held in HOLDS else "lost"


def describe(lease: Facts, record: Facts, failure: Facts, clean: Facts, ended: float = 0.0) -> dict[str, t.Any]:
    """Return what the attempt came to, with a sentence for a person. C(ended) is when it ended (monotonic)."""
    package, machine = lease["package"], lease["machine"]
    left = hold_state(clean)
    stale = bool(record.get("stale"))
    if record.get("recorded"):
        outcome, reason = str(record["outcome"]), str(record["reason"])
        message = _recorded_message(package, machine, record)
        infrastructure = outcome == "infrastructure"
        if stale:
            outcome = "stale"
            message += f". That is what an earlier dispatch asked for: {package} is still to be built."
    else:
        infrastructure = bool(failure.get("infrastructure"))
        outcome, reason = "infrastructure" if infrastructure else "error", str(failure.get("reason") or "error")
        why = failure.get("msg") or "the step gave no reason"
        message = f"{package} was not built on {machine}: {why}"
        if left == "uncollected":
            message = f"The build of {package} on {machine} ended, but its results are not at home: {why}"
    if left is not None:
        message += f" Its chroot on {machine} is left as {left}{_why_left(clean)}."
    return {
        "machine": machine,
        "outcome": outcome,
        "reason": reason,
        "infrastructure": infrastructure,
        "recorded": bool(record.get("recorded")),
        "stale": stale,
        "ended": ended,
        "log": record.get("log", ""),
        "msg": message,
    }


def _recorded_message(package: str, machine: str, record: Facts) -> str:
    version = f" {record['version']}" if record.get("version") else ""
    ending = _OUTCOMES.get(str(record["outcome"]), str(record["outcome"]))
    message = f"{package}{version} {ending} on {machine} after {record.get('seconds', 0.0):.1f} s"
    if record["outcome"] != "built":
        message += f": {record['reason']}"
        message += f" in {record['phase']}" if record.get("phase") else ""
        message += f" ({record['detail']})" if record.get("detail") else ""
        message += _class_message(record)
    if record.get("broken"):
        built = record["outcome"] == "built"
        message += ", though it is marked as broken" if built else ". It is marked as broken, so nobody is told"
    return f"{message}. Log: {record.get('log', '')}"


def _class_message(record: Facts) -> str:
    """Return the class of the failure, unless it says no more than the reason, and the line that tells it."""
    name, line = record.get("failure_class"), record.get("line")
    message = f", {name}" if name and name != record["reason"] else ""
    return f"{message}, line {record['line_number']}: {line}" if line else message


def _why_left(clean: Facts) -> str:
    why = str(clean.get("msg") or clean.get("why") or "")
    return f" ({' '.join(why.split())[:300]})" if why else ""
