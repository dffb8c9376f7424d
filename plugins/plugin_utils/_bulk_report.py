# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a bulk build tells people while it runs, and what it leaves for them and for programs when it has ended."""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import time
import typing as t

from ..module_utils._files import write_json
from ._bulk_commands import STATUS_SCHEMA
from ._journal import Row
from ._plan import Plan, predicted_time, Prediction
from ._rebuild import describe
from ._schedule import Dispatch, Schedule, State
from ._text import clock, duration, one_line, table

SUMMARY_SCHEMA = 1
MOST_WAITING = 200  # packages that a status names
MOST_FAILURES = 50  # that the last words name
_TRIED = (State.BUILT, State.FAILED, State.SKIPPED, State.LOST)


class Reporter:
    """Says a line for each event, one with the state of affairs now and then, and keeps that for others to read."""

    def __init__(
        self,
        plan: Plan,
        schedule: Schedule,
        tell: c.Callable[[str], None],
        *,
        interval: float,
        directory: str,
        monotonic: c.Callable[[], float] = time.monotonic,
        now: c.Callable[[], float] = time.time,
    ) -> None:
        self._plan = plan
        self._schedule = schedule
        self._tell = tell
        self._interval = interval
        self._directory = directory
        self._monotonic = monotonic
        self._now = now
        self._began = self._told = monotonic()
        self._began_at = now()
        self._keep_status()

    # -- while it runs -------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Say a line."""
        self._tell(f"[{clock(self._monotonic() - self._began)}] {text}")

    def started(self, dispatch: Dispatch) -> None:
        """Say that a package begins."""
        more = f", attempt {dispatch.attempt}" if dispatch.attempt > 1 else ""
        more += f", {dispatch.make_slots} slots' worth of make jobs" if dispatch.make_slots > 1 else ""
        self.say(f"{dispatch.machine}: {dispatch.package} begins{more} {self._counts()}")

    def built(self, row: Row, version: str) -> None:
        """Say that a package was built."""
        what = f"{row.package} {version}".rstrip()
        self.say(f"{row.machine}: {what} built in {duration(row.seconds)} {self._counts()}")

    def failed(self, row: Row, log: str = "") -> None:
        """Say that a package failed, and how many it takes along."""
        blocked = self._schedule.blocks(row.package)
        along = f" It takes {blocked} along." if blocked else ""
        printed = f" What the dispatch printed: {log}." if log else ""
        self.say(f"FAILED {one_line(row.reason, 500)}{along}{printed} {self._counts()}")

    def let_down(self, row: Row, log: str = "", *, aside: bool) -> None:
        """Say that a machine let a package down."""
        then = "given up" if row.state == State.LOST.value else "tried again"
        machine = f" {row.machine} is set aside for some time." if aside else ""
        printed = f" What the dispatch printed: {log}." if log else ""
        self.say(f"{row.package} is {then}: {one_line(row.reason, 500)}{machine}{printed} {self._counts()}")

    def progress(self, now: float) -> None:
        """Say how far it is, if it is time to."""
        if now - self._told < self._interval:
            return
        self._told = now
        counts = self._schedule.counts
        left = (
            f"about {duration(self._schedule.estimate(now))} to go"
            if self._schedule.pool.slots
            else "no machine takes packages"
        )
        self.say(
            f"{self._counts()} running {counts[State.RUNNING]}, queued {counts[State.QUEUED]}, "
            f"failed {counts[State.FAILED]}, skipped {counts[State.SKIPPED]}, given up {counts[State.LOST]}; {left}"
        )
        self._keep_status()

    def why(self, package: str) -> str:
        """Return why the package is where it is."""
        state = self._schedule.state(package)
        codes = self._plan.why.get(package, ())
        because = f" It is to be built because {describe(codes)}." if codes else ""
        where = self._schedule.machine(package)
        reason = f"It runs on {where}." if where else self._schedule.why(package)
        if state is State.FETCHED:
            reason = "It is there, and nothing that it is made of has changed."
        return f"{package} is {state.value}. {reason}{because}".replace("  ", " ")

    def _counts(self) -> str:
        counts = self._schedule.counts
        done = sum(counts[state] for state in _TRIED)
        return f"({done}/{done + counts[State.QUEUED] + counts[State.RUNNING]})"

    def _keep_status(self) -> None:
        with contextlib.suppress(OSError):  # the next one will do
            write_json(os.path.join(self._directory, "status.json"), self.status(), durable=False)

    def status(self) -> dict[str, t.Any]:
        """Return the state of affairs for programs."""
        names = self._schedule.graph.names
        states = self._schedule.states()
        waiting = [name for name in names if states[name] is State.QUEUED][:MOST_WAITING]
        return {
            "schema": STATUS_SCHEMA,
            "began": self._began_at,
            "at": self._now(),
            "counts": {state.value: count for state, count in self._schedule.counts.items()},
            "running": [
                {"package": names[number], "machine": machine.name}
                for number, machine in self._schedule.pool.where.items()
            ],
            "waiting": [{"package": name, "why": self._schedule.why(name)} for name in waiting],
            "to_go": self._schedule.estimate(self._monotonic()),
        }

    # -- at the end ----------------------------------------------------------------------------------------------------

    def summary(self, rows: c.Mapping[str, Row], prediction: Prediction) -> dict[str, t.Any]:
        """Return what came of it all, for programs, and leave it in C(summary.json)."""
        names = [name for name in self._schedule.graph.names if name in rows]

        def those(*states: State) -> list[str]:
            return [name for name in names if rows[name].state in {state.value for state in states}]

        blocks = {name: self._schedule.blocks(name) for name in those(State.FAILED)}
        failed = sorted(blocks, key=lambda name: (-blocks[name], name))
        lost = those(State.LOST)
        skipped = {name: self._schedule.reason(name) for name in those(State.SKIPPED)}
        excused = {name for name in skipped if self._culprit(name) in self._plan.left_out} - self._plan.named
        unfinished = those(State.QUEUED, State.RUNNING)
        # What is marked as broken, or held, was not to be built, unless somebody asked for just that.
        refused = self._plan.ignored.keys() - (self._plan.left_out - self._plan.named)
        ok = not (failed or lost or unfinished or self._plan.unknown or refused or skipped.keys() - excused)
        facts = {
            "schema": SUMMARY_SCHEMA,
            "ok": ok,
            "began": self._began_at,
            "ended": self._now(),
            "seconds": round(self._monotonic() - self._began, 3),
            "predicted_seconds": round(prediction.makespan, 3),
            "bound_seconds": round(prediction.bound, 3),
            "slots": prediction.slots,
            "built": those(State.BUILT),
            "stayed": those(State.FETCHED),
            "failed": [
                {
                    "package": name,
                    "reason": rows[name].reason,
                    "blocks": blocks[name],
                    "machine": rows[name].machine,
                }
                for name in failed
            ],
            "skipped": skipped,
            "given_up": {name: rows[name].reason for name in lost},
            "unfinished": unfinished,
            "ignored": dict(sorted(self._plan.ignored.items())),
            "unknown": self._plan.unknown,
            "packages": {
                name: {"machine": rows[name].machine, "seconds": rows[name].seconds, "why": list(rows[name].why)}
                for name in those(State.BUILT, State.FAILED)
            },
        }
        write_json(os.path.join(self._directory, "summary.json"), facts)
        return facts

    def _culprit(self, name: str) -> str:
        chain = self._schedule.culprits(name)
        return chain[-1] if chain else ""

    def what_came_true(self, rows: c.Mapping[str, Row], most: int) -> list[str]:
        """Return the plan's table with what came of it, the packages that took longest first."""
        done = [
            row
            for name in self._plan.why
            if (row := rows.get(name)) and row.state in (State.BUILT.value, State.FAILED.value)
        ]
        done.sort(key=lambda row: (-row.seconds, row.package))
        lines = table(
            ("package", "came out", "on", "took", "planned", "because"),
            [
                (
                    row.package,
                    row.state,
                    row.machine,
                    duration(row.seconds),
                    predicted_time(self._plan, row.package),
                    describe(self._plan.why[row.package]),
                )
                for row in done[:most]
            ],
        )
        return lines + ([f"and {len(done) - most} more: see summary.json."] if len(done) > most else [])

    def last_words(self, facts: c.Mapping[str, t.Any]) -> list[str]:
        """Return the summary as a person reads it: failures first, those that block the most before the others."""
        lines = []
        for entry in facts["failed"][:MOST_FAILURES]:
            blocks = f" (blocks {entry['blocks']})" if entry["blocks"] else ""
            lines.append(f"failed: {entry['package']}{blocks}: {one_line(entry['reason'], 500)}")
        if len(facts["failed"]) > MOST_FAILURES:
            lines.append(f"and {len(facts['failed']) - MOST_FAILURES} more that failed: see summary.json.")
        lines += [f"given up: {name}: {one_line(reason, 500)}" for name, reason in facts["given_up"].items()][
            :MOST_FAILURES
        ]
        lines += [f"unknown: {message}" for message in facts["unknown"].values()][:MOST_FAILURES]
        predicted = (
            f"predicted were {duration(facts['predicted_seconds'])}, at least {duration(facts['bound_seconds'])}"
        )
        if self._plan.new & self._plan.why.keys():
            predicted = "no prediction could be made of all of it"
        lines.append(f"It took {duration(facts['seconds'])} on {facts['slots']} slots; {predicted}.")
        lines.append(
            f"{len(facts['built'])} built, {len(facts['stayed'])} stayed as they are, {len(facts['failed'])} failed, "
            f"{len(facts['skipped'])} skipped, {len(facts['ignored'])} ignored, {len(facts['unfinished'])} not tried, "
            f"{len(facts['given_up']) + len(facts['unknown'])} could not run."
        )
        return lines
