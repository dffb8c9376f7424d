# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The controller halves of the steps that go to a client: used by their actions, and by what collects after a crash."""

from __future__ import annotations

import collections.abc as c
import functools
import time
import typing as t

from ..module_utils._chroots import chroot_path
from ..module_utils._names import Job
from ._bindist import read_bindist
from ._context import lease_job, StepContext
from ._queue import Lease
from ._results import Arrival, check_manifest, Limits, Receiver
from ._step import StepAction, StepFailed, Watch

Facts = dict[str, t.Any]


def claim_chroot(step: StepAction, context: StepContext, lease: Facts, task_vars: Facts, held: Lease | None) -> Facts:
    """Claim the chroot of the lease; C(held) is the lease in force, None in check mode."""
    settings, queue, machine = context.settings, context.queue, lease["machine"]
    try:
        reply = step.remote(
            "claim_chroot",
            {
                "lease": lease,
                "scratchdir": settings.scratchdir,
                "maxjobs": settings.maxjobs,
                "backend": settings.chroot_backend,
                "base": read_bindist(context.layout).sha256,
                "client_user": settings.client_user,
                "min_free": settings.machine_min_free,
                "orphans": [dict(other.job._asdict()) for other in queue.held() if other.machine == machine],
            },
            task_vars,
            machine=machine,
        )
    except StepFailed as error:
        if error.details.get("reason") == "machine_full" and held is not None:
            # The slot was a dead owner's whose build still runs: the client knows better than the counter.
            queue.reinstate(held, [_job(entry) for entry in error.details.get("jobs", [])])
        raise
    if held is not None and isinstance(reply.get("build_token"), int):
        queue.update(held, build_token=reply["build_token"])
    clock = reply.get("clock")
    return {**reply, "clock_offset": time.time() - clock if isinstance(clock, (int, float)) else 0.0}


def _job(entry: c.Mapping[str, t.Any]) -> Job:
    return Job.checked(*(entry.get(name) for name in Job._fields))


def fetch_results(
    step: StepAction, context: StepContext, lease: Facts, status: Facts | None, task_vars: Facts
) -> list[Facts]:
    """Bring log and results home and return the files; without a status the client is asked for it."""
    settings, machine, job = context.settings, lease["machine"], lease_job(lease)
    held = context.lease(lease)
    chroot = chroot_path(settings.scratchdir, job)
    receiver = Receiver(
        context.layout,
        job,
        held.token,
        build_token=held.build_token,
        store=context.store,
        min_free=settings.min_free,
        verify=lambda: context.queue.verify(held),
    )

    def fetch(arrival: Arrival) -> None:
        with receiver.receiving(arrival) as local:
            step.receive(f"{chroot}/{arrival.remote}", local, machine=machine)

    with receiver, Watch(context.queue, held) as watch:
        told = status or ask_results(step, context, lease, task_vars)
        manifest = check_manifest(
            told,
            limits=Limits(total_bytes=settings.results_limit) if settings.results_limit else None,
            suffixes={"package": context.system.package_suffixes},
        )
        for arrival in receiver.plan(manifest):
            step.persistently(functools.partial(fetch, arrival), watch, patience=settings.reconnect_timeout)
        watch.check()
        return [file._asdict() for file in receiver.publish()]


def ask_results(step: StepAction, context: StepContext, lease: Facts, task_vars: Facts) -> Facts:
    """Return the status of a build that ended, checked by the client half of fetch_results."""
    arguments = {"lease": lease, "scratchdir": context.settings.scratchdir}
    reply = step.remote("fetch_results", arguments, task_vars, machine=lease["machine"])
    return t.cast(Facts, reply["status"])


def clean_chroot(step: StepAction, context: StepContext, lease: Facts, task_vars: Facts, *, recorded: bool) -> Facts:
    """Clean the chroot, or have it held while there is something in it that is not at home yet."""
    settings = context.settings
    arguments = {
        "lease": lease,
        "scratchdir": settings.scratchdir,
        "recorded": recorded,
        "keep": settings.noclean,
        "keep_max": settings.keep_max,
    }
    return step.remote("clean_chroot", arguments, task_vars, machine=lease["machine"])
