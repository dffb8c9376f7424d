# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a build that ended means: who is to blame, what is recorded, who is told."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import os
import typing as t

from ..module_utils._names import BadName, check_version
from ._attempts import Attempt, blames_package, RESOURCES
from ._classify import classify
from ._context import StepContext
from ._duds import read_duds
from ._events import context_of, events_of
from ._queue import Lease
from ._record import path_of, Recorder, waiting_log
from ._results import build_record, Spoiled
from ._store import BuildRecord, Identity, Recorded, stored_file, StoredFile
from ._text import one_line

OUTCOMES = {"success": "built", "failed": "failed"}
MAX_LEFTOVERS = 1000  # that a message or a step's result names


def record_build(
    context: StepContext,
    lease: Lease,
    status: c.Mapping[str, t.Any] | None,
    files: c.Sequence[c.Mapping[str, t.Any]],
    attempts: c.Sequence[Attempt],
    *,
    stale: bool = False,
) -> dict[str, t.Any]:
    """Record the build that the lease stands for, once, and return what the step says about it.

    Without a status it must have been recorded by a dispatch that died before it could release. C(stale): it was begun
    for a dispatch that asked for something else.
    """
    identity = Identity(context.queue.id(), lease.build_token or lease.token)
    recorder = Recorder(context.store, context.layout, compress_logs=context.settings.compress_logs)
    known = context.store.built(identity)
    if known is not None and known.build.package != lease.job.package:
        raise Spoiled(
            f"The build {identity.token} of {lease.job} is recorded as one of {known.build.package}, on "
            f"{known.build.machine}: one of {known.build.machine} and {lease.machine} has said what is not so.",
            remedy="The package is built again. See what is wrong with these machines.",
        )
    if known is not None:
        recorder.record(known.build)  # changes nothing, but removes what a dispatch that died after the commit left
        events = _events(context, known.build, known.result, status or {})  # told once, however often they are given
        return _facts(context, known.build, known.result, changed=False, events=events, stale=stale)
    stored = [stored_file(entry) for entry in files]
    build = _judge(context, lease, identity, status or {}, stored, attempts)
    result = recorder.record(build, stored)
    recorded = context.store.built(identity)
    build = recorded.build if recorded is not None else build
    events = _events(context, build, result, status or {})
    return _facts(context, build, result, changed=result.first_time, events=events, stale=stale)


def _judge(
    context: StepContext,
    lease: Lease,
    identity: Identity,
    status: c.Mapping[str, t.Any],
    files: c.Sequence[StoredFile],
    attempts: c.Sequence[Attempt],
) -> BuildRecord:
    """Return the record of the build; the second machine that ends it for one and the same reason is not to blame."""
    build = build_record(
        status,
        job=lease.job,
        identity=identity,
        machine=lease.machine,
        version=_version(context, status, files),
        broken=lease.job.package in read_duds(context.layout.duds) or bool(_about(status, "broken")),
        offset=_offset(status),
    )
    resources = build.infrastructure and blames_package(attempts, lease.machine, build.reason)
    if resources:
        build = dataclasses.replace(build, infrastructure=False)
    if build.outcome == "success" or not build.counted:
        return build
    found = classify(
        waiting_log(context.layout, build.package, build.token),
        system=context.settings.system,
        reason=build.reason,
        phase=build.phase,
        detail=build.detail,
    )
    return dataclasses.replace(
        build,
        failure_class=RESOURCES if resources else found.failure_class,
        further=found.further,
        line_number=found.line_number,
        line=found.line,
        around=found.context,
    )


def _version(context: StepContext, status: c.Mapping[str, t.Any], files: c.Sequence[StoredFile]) -> str:
    """Return the version as the results tell it, else as the source does; empty when neither can be believed."""
    built = context.system.version_of([path_of(context.layout, file) for file in files if file.kind == "changes"])
    try:
        return built or check_version(_about(status, "version"))
    except BadName:
        return ""


def _about(status: c.Mapping[str, t.Any], name: str) -> str:
    """Return what the source says of itself under this name."""
    about = status.get("about")
    return one_line(about.get(name), 320) if isinstance(about, dict) else ""


def _offset(status: c.Mapping[str, t.Any]) -> float:
    """Return what the controller's clock is ahead of the client's."""
    offset = status.get("clock_offset")
    return float(offset) if isinstance(offset, (int, float)) and abs(offset) < 1e10 else 0.0


def _facts(
    context: StepContext,
    build: BuildRecord,
    result: Recorded,
    *,
    changed: bool,
    events: list[dict[str, t.Any]],
    stale: bool,
) -> dict[str, t.Any]:
    outcome = "infrastructure" if build.infrastructure else OUTCOMES[build.outcome]
    return {
        "changed": changed,
        "recorded": True,
        "outcome": outcome,
        "reason": build.reason,
        "phase": build.phase,
        "detail": build.detail,
        "failure_class": build.failure_class,
        "further": list(build.further),
        "line_number": build.line_number,
        "line": build.line,
        "version": build.version,
        "seconds": build.seconds,
        "phases": [{"name": phase.name, "seconds": phase.seconds} for phase in build.phases],
        "failures": result.failures,
        "broken": build.broken,
        "log": _log(context, build),
        "events": events,
        "stale": stale,
    }


def _events(
    context: StepContext, build: BuildRecord, result: Recorded, status: c.Mapping[str, t.Any]
) -> list[dict[str, t.Any]]:
    """Return what there is to tell, as the notify step takes it."""
    leftovers = status.get("leftovers")
    leftovers = leftovers[:MAX_LEFTOVERS] if isinstance(leftovers, list) else []
    settings = context.settings
    about = context_of(
        build,
        result,
        arch=settings.arch,
        branch=settings.branch,
        log=_log(context, build),
        leftovers=leftovers,
        maintainer=_about(status, "maintainer"),
    )
    return [{**about, "event": event} for event in events_of(build, result, leftovers=leftovers)]


def _log(context: StepContext, build: BuildRecord) -> str:
    return os.path.join(context.layout.branch_directory, build.log) if build.log else ""
