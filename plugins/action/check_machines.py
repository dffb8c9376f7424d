# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action check_machines: one look at one machine, and what follows from it. Each machine has a worker of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.module_utils._files import write_atomic
from ansible_collections.portbuild.cluster.plugins.module_utils._lock import Lock, LockTimeout
from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._checks import (
    decide,
    History,
    read_history,
    standing,
    write_history,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._cleaning import clean_machine
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._events import Event
from ansible_collections.portbuild.cluster.plugins.plugin_utils._looking import current_tarballs, look, wishes
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import MachineState, StaleLease
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import (
    BadArguments,
    display,
    MachineUnreachable,
    StepAction,
    StepFailed,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._telling import machine_event, NOTHING, tell, Told
from ansible_collections.portbuild.cluster.plugins.plugin_utils._text import number_of, one_line

Facts = dict[str, t.Any]
CLEANING_LIMIT = 600.0  # seconds that removing may take when a machine comes back
REASON_LIMIT = 500  # characters of what is noted as the reason


class ActionModule(StepAction):
    """Take a machine out of the queue that is not fit to build, bring back one that is again."""

    ARGUMENTS: t.ClassVar[Facts] = {
        "rounds": {"type": "bool", "default": False},
        "canary_since": {"type": "float", "default": 0.0},
    }

    def step(self, arguments: Facts, task_vars: Facts) -> Facts:
        if arguments["rounds"]:
            interval = self.context(task_vars).settings.interval
            return again_and_again(interval) if interval else {"changed": False}
        machine = str(self._task.delegate_to or task_vars["inventory_hostname"])
        context = self.context(task_vars, machine=machine)
        check = _Check(self, context, machine, task_vars)
        if self.check_mode:  # a look alone
            return check.run()
        os.makedirs(context.layout.checks, exist_ok=True)
        try:
            with Lock(context.layout.check_lock(machine), timeout=0):
                return check.run_canary(arguments["canary_since"]) if arguments["canary_since"] else check.run()
        except LockTimeout:
            return check.result("busy", f"{machine} is being checked by somebody else.")


class _Check:
    """A check of one machine. The lock on its file of checks is held, but for check mode."""

    def __init__(self, step: StepAction, context: StepContext, machine: str, task_vars: Facts) -> None:
        self.step = step
        self.context = context
        self.machine = machine
        self.task_vars = task_vars
        self.began = time.time()
        self.history = read_history(context.layout.check(machine))
        self.facts: Facts = {}
        self.told = NOTHING

    def result(self, state: str, message: str, *, changed: bool = False, **more: t.Any) -> Facts:
        """Return the facts of the step."""
        load = self.facts.get("load", [])
        told: Facts = {"changed": changed, "machine": self.machine, "state": state, "msg": message, "load": load}
        return {**told, "checked": self.began, "canary": "", "cleaned": [], "told": self.told.for_tasks(), **more}

    def run(self) -> Facts:
        """Look at the machine, and do what follows."""
        problem, unreachable = self._ask()
        state = self._state()
        action, why = decide(standing(state), problem, self.history, self.began)
        if action == "take_out":
            return self._take_out(state, problem, unreachable=unreachable)
        if action in ("wait", "return") and not self.step.check_mode:
            self._tell_lost()
        if action == "wait":
            return self.result("waiting", f"{self.machine} {why}.")
        if action == "return":
            return self._return()
        if standing(state) == "in" and self.history.away:
            self._come_back()
        else:
            self._remember_boot()
        return self.result(state.state if state else "absent", f"{self.machine} {why.rstrip('.')}.")

    def run_canary(self, since: float) -> Facts:
        """Let the machine in if it has built the canary since then."""
        store, canary = self.context.store, self.context.settings.canary
        name = self.context.system.resolve(canary, self.context.layout.index)[0]
        last = store.last(name)
        if last is None or last.build.machine != self.machine or last.recorded < since:
            return self.result(
                "offline", f"{self.machine} stays offline: {canary} was not built there. It is tried again."
            )
        if last.build.outcome != "success":
            problem = f"It could not build {canary}: {last.build.reason} {last.build.detail}".strip() + "."
            self._lost_again(problem)
            return self.result("offline", f"{self.machine} stays offline. {problem}", changed=True)
        problem, unreachable = self._ask()
        if problem:
            return self._take_out(self._state(), problem, unreachable=unreachable)
        return self._enter([])

    # -- the machine -----------------------------------------------------------------------------------------------

    def _ask(self) -> tuple[str, bool]:
        """Return the machine's problem, empty if it is fit, and whether it could not be reached at all.

        A connection that ends at once may be one that was kept open over a reboot: it is tried once more.
        """
        limit = float(self.context.settings.check_timeout)
        # Outside of what follows: a file of the controller that cannot be read is no fault of the machine.
        wanted = wishes(self.context.settings, current_tarballs(self.context))
        began = time.monotonic()
        try:
            try:
                self._look(wanted, limit)
            except MachineUnreachable:
                left = limit - (time.monotonic() - began)
                if left < limit / 2:
                    raise
                self.step.drop_connection()
                self._look(wanted, left)
        except MachineUnreachable as error:
            return one_line(str(error), REASON_LIMIT), True
        except PortbuildError as error:
            return one_line(f"It answers, but cannot run what it is to run: {error}", REASON_LIMIT), False
        self._note_load()
        return one_line(" ".join(str(line) for line in self.facts["unfit"]), REASON_LIMIT), False

    def _look(self, wanted: Facts, limit: float) -> None:
        self.facts = look(
            self.step,
            wanted,
            self.task_vars,
            machine=self.machine,
            max_clock_offset=self.context.settings.max_clock_offset,
            limit=limit,
        )

    def _note_load(self) -> None:
        load = self.facts.get("load")
        numbers = [number_of(value) for value in load] if isinstance(load, list) else []
        self.facts["load"] = numbers[:3]
        if numbers and not self.step.check_mode:
            path = self.context.layout.load(self.machine)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_atomic(path, ", ".join(f"{number:.2f}" for number in numbers[:3]) + "\n", durable=False)

    def _state(self) -> MachineState | None:
        return next((state for state in self.context.queue.machines() if state.name == self.machine), None)

    # -- out -------------------------------------------------------------------------------------------------------

    def _take_out(self, state: MachineState | None, problem: str, *, unreachable: bool) -> Facts:
        first = standing(state) == "in"
        changed = self.context.queue.take_out(self.machine, problem, dry_run=self.step.check_mode)
        if changed and first:
            self._save(self.history.after_loss(self.began))
        if not self.step.check_mode:
            self._tell_lost()
        since = number_of((state.offline or {}).get("since")) if state else 0.0
        given_up = self._give_up(since or self.began) if unreachable else []
        would = "would go" if self.step.check_mode else "goes"
        message = (
            f"{self.machine} {would} offline. {problem}" if first else f"{self.machine} is still offline. {problem}"
        )
        if given_up:
            message += f" Given up there: {', '.join(given_up)}."
        return self.result("offline", message, changed=changed or bool(given_up), given_up=given_up)

    def _give_up(self, since: float) -> list[str]:
        """Take the slots from jobs whose owner is dead as well, once the machine has been away for long.

        A dispatch that lives gives its machine up by itself, after its own portbuild_reconnect_timeout.
        """
        queue, settings = self.context.queue, self.context.settings
        if self.began - since < max(settings.reconnect_timeout, settings.lease_ttl):
            return []
        given_up = []
        for lease in queue.leases():
            if lease.machine != self.machine or queue.judge(lease) == "alive":
                continue
            with contextlib.suppress(StaleLease):  # somebody wants it
                if self.step.check_mode or queue.release(lease, hold="lost", reason="Its machine is away."):
                    given_up.append(str(lease.job))
        return given_up

    # -- back ------------------------------------------------------------------------------------------------------

    def _return(self) -> Facts:
        """Clean the machine of what its crash left, look again, and let it in, or ask for the canary."""
        if self.step.check_mode:
            return self.result(
                "returning", f"{self.machine} answers again: it would be cleaned and brought back.", changed=True
            )
        try:
            cleaned = clean_machine(
                self.step, self.context, self.machine, self.task_vars, limit=CLEANING_LIMIT, returning=True
            )
        except StepFailed as error:
            self._add_news(error.details.get("told"))
            self._lost_again(f"It could not be cleaned: {error}")
            return self.result(
                "offline", f"{self.machine} stays offline. It could not be cleaned: {error}", changed=True
            )
        self._add_news(cleaned["told"])
        removed = [*cleaned["leases"], *cleaned["removed"]]
        problem, _unreachable = self._ask()
        if problem:
            self._lost_again(problem)
            return self.result("offline", f"{self.machine} stays offline. {problem}", changed=True, cleaned=removed)
        canary = self.context.settings.canary
        if canary:
            message = f"{self.machine} answers again; it is to build {canary} before it gets other jobs."
            return self.result("proving", message, changed=bool(cleaned["changed"]), canary=canary, cleaned=removed)
        return self._enter(removed)

    def _enter(self, cleaned: list[t.Any]) -> Facts:
        """Let the machine into the queue with its true count: what was started elsewhere does not survive a reboot."""
        boot_id = one_line(self.facts.get("boot_id"), 64)
        rebooted = bool(self.history.boot_id) and boot_id != self.history.boot_id
        if not self.context.queue.bring_back(self.machine, running=self._running(), rebooted=rebooted):
            return self.result("offline", f"{self.machine} was taken out of the queue by somebody else meanwhile.")
        self._come_back()
        state = self._state()
        jobs = state.jobs if state else 0
        message = f"{self.machine} is back, with {jobs} job{'s' if jobs != 1 else ''}."
        return self.result("returned", message, changed=True, cleaned=cleaned)

    def _running(self) -> list[Job]:
        """Return the jobs of this queue that the machine says to be building."""
        jobs, queue_id = [], self.context.queue.id()
        for entry in (*self.facts["jobs"], *self.facts["chroots"]):
            if entry.get("running") and entry.get("queue") == queue_id:
                with contextlib.suppress(PortbuildError):
                    jobs.append(Job.checked(*(entry.get(name) for name in Job._fields)))
        return jobs

    # -- history ---------------------------------------------------------------------------------------------------

    def _lost_again(self, problem: str) -> None:
        """Let the machine wait longer, and say why."""
        self.context.queue.take_out(self.machine, one_line(problem, REASON_LIMIT))
        self._save(self.history.after_loss(self.began))

    def _come_back(self) -> None:
        """Tell that the machine is in the queue again, whoever has brought it back, and note that, with its boot."""
        if self.step.check_mode or self._tell_back():
            boot_id = one_line(self.facts.get("boot_id"), 64) or self.history.boot_id
            self._save(self.history.after_return(self.began, boot_id))
        else:  # the next round tells it
            self._remember_boot()

    def _remember_boot(self) -> None:
        boot_id = one_line(self.facts.get("boot_id"), 64)
        if boot_id and boot_id != self.history.boot_id:
            self._save(dataclasses.replace(self.history, boot_id=boot_id))

    # -- people and hooks ------------------------------------------------------------------------------------------

    def _tell_lost(self) -> None:
        """Tell that the machine is offline, once for all its jobs. Who died before he could is made up for."""
        state = self._state()
        record = (state.offline if state else None) or {}
        since = number_of(record.get("since"))
        if standing(state) != "ours" or since == self.history.told:
            return
        jobs = [str(lease.job) for lease in self.context.queue.leases() if lease.machine == self.machine]
        told = self._tell("machine_lost", since=since, reason=str(record.get("reason") or ""), jobs=jobs)
        if not told.untold:  # else the next round tells it
            self._save(dataclasses.replace(self.history, told=since))

    def _tell_back(self) -> bool:
        since = self.history.outage
        return not self._tell("machine_back", since=since, seconds=max(0.0, self.began - since)).untold

    def _tell(self, event: Event, *, since: float, **more: t.Any) -> Told:
        happened = machine_event(self.context, event, self.machine, since=since, **more)
        told = tell(self.context, [happened], check_tasks=self.step.check_tasks)
        for problem in told.problems:
            display.warning(problem)
        self.told = told._replace(events=[*self.told.events, *told.events])
        return told

    def _add_news(self, told: t.Any) -> None:
        """Let the administrator's tasks hear of builds that were brought home, too."""
        if told and told["events"]:
            self.told = self.told._replace(tasks=told["tasks"], events=[*self.told.events, *told["events"]])

    def _save(self, history: History) -> None:
        self.history = history
        if not self.step.check_mode:
            write_history(self.context.layout.check(self.machine), history)


def again_and_again(interval: int) -> t.NoReturn:
    """Run the playbook that this task is part of, with the same command line, in rounds, until somebody ends it.

    A round that takes longer than the interval is followed by the next at once. One that fails is no reason to stop.
    """
    if not re.fullmatch(r"ansible-playbook[0-9.-]*", os.path.basename(sys.argv[0])):
        raise BadArguments(
            "portbuild_interval works with ansible-playbook only.",
            remedy="Use a timer, and leave portbuild_interval at 0.",
        )
    command = [sys.executable, *sys.argv, "-e", "portbuild_interval=0"]
    while True:
        began = time.monotonic()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        for line in re.findall(r'"msg": "(.*)"', done.stdout):
            display.display(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")
        if done.returncode != 0:
            display.display(
                f"A round ended with {done.returncode}: {one_line(done.stdout[-1000:] + done.stderr[-1000:], 2000)}"
            )
        time.sleep(max(0.0, interval - (time.monotonic() - began)))
