# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The process of a bulk build. The action starts it in a session of its own and is tied to it by two pipes.

On its standard input it is told, a JSON object a line, first what to do, then each time that the machines have changed.
The end of that input means that the action is gone: the dispatches are ended, the builds go on, and so the next bulk
build can attach to them. What it has to say goes to its standard output, a JSON object a line too.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
import typing as t

from ..module_utils._errors import PortbuildError
from ._bulk import Bulk, reconcile
from ._bulk_report import Reporter
from ._context import StepContext
from ._database import StoreError
from ._journal import NotOurs, Run, SqliteJournal
from ._owner import Owner
from ._plan import make_plan, Plan, plan_lines, predict, Prediction, Slots
from ._queue import QueueError
from ._runner import forget_logs, RunnerLauncher, RunnerOptions
from ._schedule import Options
from ._settings import Settings
from ._space import ControllerDiskFull
from ._targets import read_targets
from ._telling import bulk_event, NOTHING, tell, Told

AGAIN = 5.0  # seconds after which the controller is asked again to do what it could not
GRACE = 20.0  # seconds that dispatches have to end when they are told to


class _Gone(Exception):
    """The action is gone."""


class _Talk:
    """The two pipes."""

    def __init__(self) -> None:
        # Whatever else prints, or reads, must not get in between: dispatches inherit what is standard here.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        self._in = os.fdopen(os.dup(0), encoding="utf-8")
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._heard: queue.Queue[dict[str, t.Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def hear(self, *, wait: bool = False) -> dict[str, t.Any]:
        """Return what was said; empty when nothing was. Raises _Gone when nobody is there any more."""
        try:
            said = self._heard.get(block=wait)
        except queue.Empty:
            return {}
        if said is None:
            raise _Gone
        return said

    def tell(self, **message: t.Any) -> None:
        """Say something."""
        with contextlib.suppress(OSError):  # then the other pipe says so too
            self._out.write(f"{json.dumps(message)}\n")

    def say(self, text: str) -> None:
        """Say a line for people."""
        self.tell(say=text)

    def _listen(self) -> None:
        for line in self._in:
            self._heard.put(json.loads(line))
        self._heard.put(None)


def _machines(said: c.Mapping[str, t.Any]) -> list[Slots]:
    return [Slots(entry["name"], entry["maxjobs"], tuple(entry["tags"])) for entry in said["machines"]]


def schedule_options(settings: Settings) -> Options:
    """Return how the schedule is to deal with trouble."""
    return Options(
        attempts=settings.attempts,
        retry_alone=settings.retry_alone,
        make_slots=settings.make_slots,
    )


def _wish(settings: Settings) -> dict[str, t.Any]:
    """Return what makes two bulk builds the same: an interrupted one goes on only as itself."""
    return {"targets": list(settings.targets), "rebuild": settings.rebuild, "cascade": settings.cascade}


def main() -> int:
    """Run the bulk build that standard input describes."""
    talk = _Talk()
    try:
        said = talk.hear(wait=True)
        facts = _run(said, talk)
    except _Gone:
        return 1
    except PortbuildError as error:
        facts = {"failed": True, "msg": str(error), **error.details}
    except Exception as error:  # nobody else would see it: workers of ansible-core have no standard error
        facts = {"failed": True, "msg": f"The bulk build broke: {error!r}", "exception": traceback.format_exc()}
    talk.tell(facts=facts)
    return 0


def _run(said: dict[str, t.Any], talk: _Talk) -> dict[str, t.Any]:
    context = StepContext(said["variables"])
    settings, machines = context.settings, _machines(said)
    targets = read_targets(settings.targets)
    journal = SqliteJournal(context.layout.database)
    if said["check"]:
        plan = make_plan(context, targets, journal, said["held"])
        return _predicted(plan, _tell_plan(plan, settings, machines, talk))
    owner = Owner.from_dict(said["owner"])
    if owner is None:
        raise PortbuildError("The bulk build does not know who it belongs to.")
    context.layout.make_bulk()
    run = journal.begin(_wish(settings), owner)
    if not run.resumed:
        forget_logs(context.layout.bulk)
    rows = reconcile(context, journal, run)
    plan = make_plan(context, targets, journal, said["held"])
    return _build(context, plan, run, journal, rows, said, talk)


def _tell_plan(plan: Plan, settings: Settings, machines: list[Slots], talk: _Talk) -> Prediction:
    prediction = predict(plan, machines, schedule_options(settings))
    for line in (*plan.problems, *plan_lines(plan, prediction, machines, settings.plan_lines)):
        talk.say(line)
    return prediction


def _predicted(plan: Plan, prediction: Prediction) -> dict[str, t.Any]:
    return {
        "changed": bool(plan.why),
        "plan": {name: list(codes) for name, codes in plan.why.items()},
        "ignored": plan.ignored,
        "unknown": plan.unknown,
        "predicted_seconds": round(prediction.makespan, 3),
        "bound_seconds": round(prediction.bound, 3),
        "critical_path": prediction.path,
        "msg": f"{len(plan.why)} packages would be built.",
    }


def _build(
    context: StepContext,
    plan: Plan,
    run: Run,
    journal: SqliteJournal,
    rows: dict[str, t.Any],
    said: dict[str, t.Any],
    talk: _Talk,
) -> dict[str, t.Any]:
    settings, machines = context.settings, _machines(said)
    prediction = _tell_plan(plan, settings, machines, talk)
    schedule = plan.schedule(schedule_options(settings))
    launcher = RunnerLauncher(RunnerOptions(**said["runner"], directory=context.layout.bulk))
    reporter = Reporter(plan, schedule, talk.say, interval=settings.progress_interval, directory=context.layout.bulk)
    bulk = Bulk(context, plan, run, journal, launcher, schedule, reporter, rows)
    try:
        if run.resumed:
            reporter.say("A bulk build with the same targets was interrupted: it goes on.")
        bulk.take_over()
        bulk.use(machines)
        going, trouble = True, ""
        while going:
            try:
                going = bulk.step()
                trouble = ""
            except NotOurs:
                raise
            except (StoreError, QueueError, ControllerDiskFull, OSError) as error:
                if str(error) != trouble:
                    trouble = str(error)
                    talk.say(f"The controller is in trouble: {trouble} It is tried again every {AGAIN:.0f} s.")
                time.sleep(AGAIN)
            heard = talk.hear()
            if heard:
                bulk.use(_machines(heard))
    except BaseException:
        ended = launcher.close(GRACE)
        with contextlib.suppress(PortbuildError, OSError):
            journal.let_go(run)
        if not ended:
            os.killpg(0, signal.SIGKILL)
        raise
    launcher.close(GRACE)
    bulk.end()
    facts = reporter.summary(bulk.rows, prediction)
    told = _tell_end(context, run, facts, talk)  # whoever dies before the next line tells it again, as the same event
    journal.end(run, "ended")
    words = reporter.last_words(facts)
    for line in (*reporter.what_came_true(bulk.rows, settings.plan_lines), *words):
        talk.say(line)
    changed = bool(facts["built"] or facts["failed"])
    return {
        "changed": changed,
        "failed": not facts["ok"],
        "summary": facts,
        "msg": words[-1],
        "told": told.for_tasks(),
    }


def _tell_end(context: StepContext, run: Run, facts: dict[str, t.Any], talk: _Talk) -> Told:
    """Tell people and hooks what the run came to, unless there was nothing to do."""
    if facts["ok"] and not facts["built"]:
        return NOTHING
    told = tell(context, [bulk_event(context, run, facts)])
    for problem in told.problems:
        talk.say(problem)
    return told


if __name__ == "__main__":
    sys.exit(main())
