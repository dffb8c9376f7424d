# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of claim_machine: validate everything, then take a slot."""

from __future__ import annotations

import functools
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._attempts import not_before, passed_over
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import read_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import GROUP
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_facts, StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._duds import read_duds
from ansible_collections.portbuild.cluster.plugins.plugin_utils._holds import Held, read_holds
from ansible_collections.portbuild.cluster.plugins.plugin_utils._port_tree import read_tree
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Candidate, Lease, NoMachine
from ansible_collections.portbuild.cluster.plugins.plugin_utils._requests import our_packages
from ansible_collections.portbuild.cluster.plugins.plugin_utils._space import check_space
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import display, StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import Identity

MESSAGE_INTERVAL = 60.0  # seconds between two lines that say that it still waits


class ActionModule(StepAction):
    """Claim the least loaded machine; adopt the job of a dispatch that died."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {
        "package": {"type": "str", "required": True},
        "attempts": {"type": "list", "elements": "dict", "default": []},
    }

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        context, package = self._resolve(arguments["package"], task_vars)
        settings, queue = context.settings, context.queue
        self.check_telling(settings)
        for problem in context.config.problems:
            display.warning(str(problem))
        job = Job.checked(settings.arch, settings.branch, package)
        why = read_duds(context.layout.duds).get(package)
        if why is not None and not settings.trybroken:
            return _not_tried(package, why)
        problems: list[str] = []
        held = read_holds(context.layout, problems).get(package)
        for line in problems:
            display.warning(line)
        if held is not None:
            return _held_back(package, held)
        read_bindist(context.layout)  # without one there is nothing to build in
        if context.system.needs_tree:
            read_tree(context.layout)
        if queue.find(job) is None:  # else it may be being built already, with what there was then
            context.system.check_ready(package, context.layout.index, functools.partial(our_packages, context))
        check_space(
            context.layout.branch_directory,
            min_free=settings.min_free,
            remedy="Make room there, or lower portbuild_min_free: until then nothing is claimed.",
        )
        candidates, others = self.candidates(context, task_vars)
        if settings.machine:
            candidates = _only(settings.machine, candidates, others)
        for state in queue.machines():
            if state.state == "unusable":
                display.warning(f"{state.name} gets no jobs: {' '.join(state.problems)}")
        if self.check_mode:
            return {"changed": True, "not_candidates": others, **_prediction(job, queue.choose(candidates))}
        started = time.monotonic()
        lease = queue.claim(
            job,
            candidates,
            self.owner,
            passed_over=passed_over(arguments["attempts"]),
            not_before=not_before(arguments["attempts"], settings.retry_interval),
            wait=settings.claim_timeout or None,
            poll=settings.retry_interval,
            on_wait=_WaitMessages(job),
            # What checkmachines took offline proves itself by this before it gets anything else.
            returning=bool(settings.machine) and arguments["package"] == settings.canary,
        )
        queue_id = queue.id()
        # What a dispatch left that came to its own end is not what is wanted now, be it recorded or not.
        recorded = lease.held in (None, "orphan") and _is_recorded(context, lease, queue_id)
        return {
            "changed": True,
            "lease": lease_facts(lease, queue_id),
            "adopted": lease.adopted,
            "recorded": recorded,
            "waited": round(time.monotonic() - started, 3),
            "not_candidates": others,
        }

    def _resolve(self, asked: str, task_vars: dict[str, t.Any]) -> tuple[StepContext, str]:
        """Return the context of the package that is asked for, and its name; it may be asked for by another."""
        context = self.context(task_vars, package=asked.partition("=")[0])
        package, _version = context.system.resolve(asked, context.layout.index)
        if package != asked:
            context = self.context(task_vars, package=package)
        return context, package


def _is_recorded(context: StepContext, lease: Lease, queue_id: str) -> bool:
    """Return whether the build that the lease stands for has been recorded, as one of this package."""
    if lease.build_token is None:
        return False
    known = context.store.built(Identity(queue_id, lease.build_token))
    return known is not None and known.build.package == lease.job.package


def _not_tried(package: str, why: str) -> dict[str, t.Any]:
    message = f"{package} is a dud ({why}) and was not tried. Set portbuild_trybroken to try it all the same."
    return {"changed": False, "outcome": {"outcome": "dud", "reason": "dud", "msg": message, "again": False}}


def _only(machine: str, candidates: list[Candidate], others: dict[str, str]) -> list[Candidate]:
    """Return the one candidate that is wanted, or raise NoMachine."""
    wanted = [candidate for candidate in candidates if candidate.name == machine]
    if not wanted:
        raise NoMachine(
            f"Machine {machine} gets no jobs: {others.get(machine, f'it is not in the inventory group {GROUP}.')}",
            remedy="Name another portbuild_machine, or none.",
        )
    return wanted


def _held_back(package: str, held: Held) -> dict[str, t.Any]:
    message = f"{held.sentence(package)} It was not tried. Release it with the unhold playbook."
    return {"changed": False, "outcome": {"outcome": "held", "reason": "held", "msg": message, "again": False}}


def _prediction(job: Job, machine: str | None) -> dict[str, t.Any]:
    """Return what check mode says: the lease that would be taken now carries no valid token."""
    if machine is None:
        message = f"{job.package} would wait: no build machine has room now."
        return {"outcome": {"outcome": "predicted", "reason": "", "msg": message, "again": False}}
    lease = {**job._asdict(), "machine": machine, "queue": "", "token": 0}
    return {"lease": lease, "adopted": False, "recorded": False, "waited": 0.0}


class _WaitMessages:
    """Says now and then that the claim waits, and why; at once when there is another reason."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._said = 0.0
        self._why = ""

    def __call__(self, waited: float, why: str) -> None:
        if why != self._why or waited - self._said >= MESSAGE_INTERVAL:
            waits = f"has waited {waited:.0f} s" if waited >= 1.0 else "waits"
            display.display(f"{self._job.package} {waits} for a machine: {why.rstrip('.')}.")
            self._said, self._why = waited, why
