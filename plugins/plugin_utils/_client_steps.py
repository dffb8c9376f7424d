# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The controller halves of the steps that go to a client: used by their actions, and by what collects after a crash."""

from __future__ import annotations

import collections.abc as c
import contextlib
import functools
import time
import typing as t

from ..module_utils._names import chroot_path, Job
from ._bindist import read_bindist
from ._context import lease_job, StepContext
from ._index_files import publish_made
from ._port_tree import read_tree
from ._queue import Lease, Queue, StaleLease
from ._replies import BadReply
from ._results import Arrival, BadManifest, BadResult, check_manifest, Limits, Manifest, Receiver
from ._step import display, StepAction, StepFailed, TransferFailed, Watch
from ._store import FileConflict, Identity, SET_KINDS

Facts = dict[str, t.Any]

# Seconds for making or removing a chroot. On a slow disk a copy of the base takes many minutes, and a machine that is
# called unreachable meanwhile still holds the chroot's lock when it is to be cleaned.
CHROOT_TIME = 1800.0
TRANSFER_TIME = 300.0  # seconds that the transfer of a file may take, and beyond that
TRANSFER_RATE = 64 << 10  # bytes per second that it must come to


def claim_chroot(step: StepAction, context: StepContext, lease: Facts, task_vars: Facts, held: Lease | None) -> Facts:
    """Claim the chroot of the lease; C(held) is the lease in force, None in check mode."""
    settings, queue, machine = context.settings, context.queue, lease["machine"]
    try:
        with renewing(queue, held):
            reply = step.remote(
                "claim_chroot",
                {
                    "lease": lease,
                    "scratchdir": settings.scratchdir,
                    "maxjobs": settings.maxjobs,
                    "backend": settings.chroot_backend,
                    "base": read_bindist(context.layout).sha256,
                    "tree": read_tree(context.layout).sha256 if context.system.needs_tree else "",
                    "client_user": settings.client_user,
                    "min_free": settings.machine_min_free,
                    "orphans": [dict(other.job._asdict()) for other in queue.held() if other.machine == machine],
                    "recorded": context.store.newest(lease["package"], lease["queue"]),
                },
                task_vars,
                machine=machine,
                limit=CHROOT_TIME,
            )
    except StepFailed as error:
        if error.details.get("reason") == "machine_full" and held is not None:
            # The slot was a dead owner's whose build still runs: the client knows better than the counter.
            jobs = error.details.get("jobs")
            queue.reinstate(
                held, [_job(entry) for entry in jobs if isinstance(entry, dict)] if isinstance(jobs, list) else []
            )
        raise
    build_token = reply.get("build_token")
    if held is not None and build_token is not None and not _may_be_of(context, held, build_token):
        why = f"The chroot's build {build_token} is not one of {held.job}."
        raise BadReply("claim_chroot", machine, why, spoiled=True)  # what is in the chroot is not to be waited for
    if held is not None and build_token != held.build_token:
        # Also None: the build that the lease remembers is lost, and the next one has an identity of its own.
        queue.update(held, build_token=build_token)
    clock = reply.get("clock")
    return {**reply, "clock_offset": time.time() - clock if isinstance(clock, (int, float)) else 0.0}


def renewing(queue: Queue, held: Lease | None) -> contextlib.AbstractContextManager[t.Any]:
    """Renew the lease, if there is one in force, while a step takes long."""
    return contextlib.nullcontext() if held is None else Watch(queue, held)


def if_in_force(context: StepContext, lease: Facts) -> Lease | None:
    """Return the lease in force that a step's argument names, None if it is not in force any more."""
    with contextlib.suppress(StaleLease):
        return context.lease(lease)
    return None


def _may_be_of(context: StepContext, held: Lease, build_token: int) -> bool:
    """Return whether the build in the chroot can be one of the lease's job that nobody has recorded yet.

    The lease remembers a build's token before the build starts. One that it does not know is that of a lease that was
    lost (a power failure), unless it was given to another job: a machine that says so would have the results of its
    own build recorded in the place of that other one's.
    """
    queue = context.queue
    identity = Identity(queue.id(), build_token)
    if not context.store.newest(held.job.package, identity.queue) < build_token <= held.token:
        return False
    if build_token in (held.token, held.build_token):
        return True
    others = (other for other in queue.all_leases() if other.job != held.job)
    return context.store.built(identity) is None and all(
        build_token not in (other.token, other.build_token) for other in others
    )


def _job(entry: c.Mapping[str, t.Any]) -> Job:
    return Job.checked(*(entry.get(name) for name in Job._fields))


class Fetched(t.NamedTuple):
    """What is at home, and how the build that made it ended."""

    files: list[Facts]
    status: Facts


def fetch_results(
    step: StepAction, context: StepContext, lease: Facts, status: Facts | None, task_vars: Facts
) -> Fetched:
    """Bring log and results home; without a status the client is asked for it.

    A build that made a file of another package's has failed, whatever its machine thinks: only its log comes home.
    """
    told = status or ask_results(step, context, lease, task_vars)
    try:
        return Fetched(_fetch(step, context, lease, told, task_vars), told)
    except FileConflict as error:
        failed = {
            **told,
            "reason": "conflict",
            "infrastructure": False,
            "detail": error.message,
            "manifest": _rest(told),
        }
        return Fetched(_fetch(step, context, lease, failed, task_vars), failed)


def _rest(status: Facts) -> list[t.Any]:
    """Return of the manifest what nobody else can have."""
    return [entry for entry in status["manifest"] if entry["kind"] in ("log", "workdir")]


def _fetch(step: StepAction, context: StepContext, lease: Facts, status: Facts, task_vars: Facts) -> list[Facts]:
    settings, machine, job = context.settings, lease["machine"], lease_job(lease)
    held = context.lease(lease)
    chroot = chroot_path(settings.scratchdir, job)
    for_index = job.package == context.system.index_job
    layout = context.layout.for_index() if for_index else context.layout
    receiver = Receiver(
        layout,
        job,
        held.token,
        build_token=held.build_token,
        store=context.store,
        min_free=settings.min_free,
        verify=lambda: context.queue.verify(held),
    )

    def fetch(arrival: Arrival) -> None:
        limit = TRANSFER_TIME + arrival.file.size / TRANSFER_RATE
        with receiver.receiving(arrival) as local:
            step.receive(f"{chroot}/{arrival.remote}", local, machine=machine, limit=limit)

    def fetch_patiently(arrival: Arrival) -> None:
        """Fetch the file; one that came damaged, or not at all, is worth a second try."""
        try:
            fetch(arrival)
        except (BadResult, TransferFailed):
            fetch(arrival)

    with receiver, Watch(context.queue, held) as watch:
        try:
            for arrival in receiver.plan(check_results(context, status, job.package)):
                fetch_one = functools.partial(fetch_patiently, arrival)
                step.persistently(fetch_one, watch, patience=settings.reconnect_timeout)
        except TransferFailed:
            ask_results(step, context, lease, task_vars)  # the machine knows whether the file is there at all
            raise
        watch.check()
        files = receiver.publish()
        if for_index:
            files, odd = publish_made(layout, files)
            for line in odd:
                display.warning(line)
        return [file._asdict() for file in files]


def check_results(context: StepContext, status: Facts, package: str) -> Manifest:
    """Return what a build of the package that ended left on the machine, or raise BadManifest."""
    limit = context.settings.results_limit
    manifest = check_manifest(
        status,
        limits=Limits(total_bytes=limit) if limit else None,
        suffixes={"package": context.system.result_suffixes(package)},
    )
    success = status.get("reason") == "success"
    if success and not any(entry.file.kind == "package" for entry in manifest.files):
        raise BadManifest("The build machine says that the build succeeded, but names no package.")
    made = [entry.file.name for entry in manifest.files if entry.file.kind in SET_KINDS]
    if made and not success:
        raise BadManifest(f"The build machine says that the build did not succeed, but that it made {made[0]!r}.")
    return manifest


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
    # Without one in force the machine refuses to clean, or somebody has cleaned already.
    with renewing(context.queue, if_in_force(context, lease)):
        return step.remote("clean_chroot", arguments, task_vars, machine=lease["machine"], limit=CHROOT_TIME)
