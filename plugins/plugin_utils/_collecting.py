# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What dispatches that died have left: which of it is to be brought home, which is nothing any more."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._names import Job
from ._client_steps import ask_results, claim_chroot, clean_chroot, Facts, fetch_results, renewing
from ._context import lease_facts, StepContext
from ._queue import Candidate, CLAIMED, Lease
from ._step import display, StepAction
from ._store import Identity
from ._telling import strange_results, tell
from ._verdict import record_build

Action = t.Literal["leave", "drop", "collect", "clean", "discard"]
KEPT = "kept"


class Abandoned(t.NamedTuple):
    """A job that nobody works on, and what is to be done about it."""

    job: Job
    machine: str
    lease: Lease | None
    action: Action
    why: str


def find_abandoned(
    step: StepAction, context: StepContext, machine: str, task_vars: dict[str, t.Any]
) -> list[Abandoned]:
    """Return the abandoned jobs of the machine: dead owners' leases, held ones, and results without a lease."""
    queue, branch = context.queue, context.settings.branch
    facts = step.remote("machine_info", {"scratchdir": context.settings.scratchdir}, task_vars, machine=machine)
    queue_id = queue.id(make=not step.check_mode)
    ours = [
        (Job.checked(*(entry.get(name) for name in Job._fields)), entry)
        for entry in (*facts["jobs"], *facts["chroots"])
        if entry.get("queue") == queue_id
    ]
    chroots = {job: entry for job, entry in ours if entry.get("state") != KEPT}
    kept = {job for job, entry in ours if entry.get("state") == KEPT}
    leases = {lease.job: lease for lease in queue.all_leases() if lease.machine == machine}
    found = []
    for job in sorted({*chroots, *leases}):
        lease = leases.get(job)
        if job.branch != branch or (lease is not None and lease.state == CLAIMED and queue.judge(lease) == "alive"):
            continue  # another branch's results have another place to go to
        newest = context.store.newest(job.package, queue_id)
        action, why = decide(lease, chroots.get(job), newest, kept=job in kept)
        found.append(Abandoned(job, machine, lease, action, why))
    return found


def decide(
    lease: Lease | None, chroot: c.Mapping[str, t.Any] | None, recorded: int = 0, *, kept: bool = True
) -> tuple[Action, str]:
    """Return what is to be done about a job nobody works on, and why. Pure.

    C(recorded) is the newest of the package's builds that has been recorded: of earlier ones nothing is wanted. What
    was C(kept) for debugging may have had its time.
    """
    owner = "has no lease" if lease is None else f"is {lease.state}" if lease.state != CLAIMED else "has a dead owner"
    if lease is not None and lease.state == KEPT and kept:
        return "leave", "It was left for debugging."
    if chroot is None:
        return "drop", f"The job {owner}, and nothing of it is on the machine."
    build_token = chroot.get("build_token")
    if isinstance(build_token, int) and build_token <= recorded:
        return "discard", f"The job {owner}, and its build, or a later one, has been recorded."
    if chroot.get("running"):
        return "leave", f"The job {owner}, but its build runs; the next dispatch of it attaches."
    if chroot.get("ended"):
        return "collect", f"The job {owner}, and its build has ended."
    return "clean", f"The job {owner}, and nothing was built in its chroot."


def resolve_abandoned(
    step: StepAction,
    context: StepContext,
    abandoned: Abandoned,
    task_vars: dict[str, t.Any],
    news: list[Facts],
    *,
    returning: bool = False,
) -> None:
    """Do what was decided. Raises PortbuildError when somebody else has the job by now, or the machine no room.

    C(news) gets the events that the administrator's tasks are to be told of, also where the rest fails.
    """
    queue, job = context.queue, abandoned.job
    if abandoned.action == "drop" and abandoned.lease is not None and abandoned.lease.state != CLAIMED:
        queue.drop_held(job, abandoned.lease.token)
        return
    candidates = [Candidate(abandoned.machine, context.settings.maxjobs)]
    lease = queue.claim(job, candidates, step.owner, wait=0, returning=returning)
    facts = lease_facts(lease, queue.id())
    recorded = abandoned.action == "discard"
    try:
        if abandoned.action == "collect":
            news += _collect(step, context, lease, facts, task_vars)
            recorded = True
        else:
            news += _tell_recorded(step, context, lease)
        if abandoned.action != "drop":
            clean_chroot(step, context, facts, task_vars, recorded=recorded)
    except BaseException:
        queue.release(lease, hold="uncollected", reason="It could not be collected.")
        raise
    queue.release(lease)


def _collect(step: StepAction, context: StepContext, lease: Lease, facts: Facts, task_vars: Facts) -> list[Facts]:
    """Bring the results home and record them, or say why there is nothing to be had; return what tasks are to be told."""
    try:
        claim_chroot(step, context, facts, task_vars, lease)
        status = ask_results(step, context, facts, task_vars)
        fetched = fetch_results(step, context, facts, status, task_vars)
        events = record_build(context, context.lease(facts), fetched.status, fetched.files, [])["events"]
    except PortbuildError as error:
        if not error.details.get("spoiled"):
            raise
        display.warning(f"The results of {lease.job} on {lease.machine} are given up: {error}")
        events = [strange_results(context, facts, error)]
    return _tell(step, context, lease, events)


def _tell_recorded(step: StepAction, context: StepContext, lease: Lease) -> list[Facts]:
    """Tell of the build if it is recorded: its dispatch may have died before it could. Who knows hears nothing twice."""
    token = lease.build_token
    known = context.store.built(Identity(context.queue.id(), token)) if token is not None else None
    if known is not None and known.build.package == lease.job.package:
        return _tell(step, context, lease, record_build(context, lease, None, (), ())["events"])
    return []


def _tell(
    step: StepAction, context: StepContext, lease: Lease, events: c.Sequence[c.Mapping[str, t.Any]]
) -> list[Facts]:
    with renewing(context.queue, lease):  # a hook may take an hour
        told = tell(context, events, check_tasks=step.check_tasks)
    for problem in told.problems:
        display.warning(problem)
    return told.events
