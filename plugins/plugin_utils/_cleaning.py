# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Cleaning a machine: bring home what is finished, then let the client remove what nobody owns."""

from __future__ import annotations

import typing as t

from ..module_utils._errors import PortbuildError
from ._collecting import Abandoned, find_abandoned, KEPT, resolve_abandoned
from ._context import StepContext
from ._looking import current_tarballs
from ._step import display, StepAction
from ._telling import NOTHING

Facts = dict[str, t.Any]
TIME_LIMIT = 1800.0  # seconds for removing what may be many large trees


def clean_machine(
    step: StepAction,
    context: StepContext,
    machine: str,
    task_vars: Facts,
    *,
    limit: float = TIME_LIMIT,
    returning: bool = False,
) -> Facts:
    """Clean the machine, and return what was done about which lease, what was removed, and what tasks are to be told.

    C(returning): a check took the machine offline, and brings it back. An error has what tasks are to be told in its
    details.
    """
    news: list[Facts] = []
    try:
        done = [
            _resolve(step, context, abandoned, task_vars, news, returning=returning)
            for abandoned in find_abandoned(step, context, machine, task_vars)
        ]
        reply = _remove(step, context, machine, task_vars, limit=limit)
    except PortbuildError as error:
        error.details["told"] = _for_tasks(context, news)
        raise
    changed = bool(reply["changed"] or any(entry["changed"] for entry in done))
    return {**reply, "changed": changed, "leases": done, "told": _for_tasks(context, news)}


def _for_tasks(context: StepContext, news: list[Facts]) -> Facts:
    return NOTHING._replace(tasks=context.settings.hook_tasks, events=news).for_tasks()


def _remove(step: StepAction, context: StepContext, machine: str, task_vars: Facts, *, limit: float) -> Facts:
    """Let the client remove what nobody owns, and return what it says."""
    queue, settings = context.queue, context.settings
    newest = queue.newest_token()  # before the leases: what is claimed from now on has a newer one
    owned = [lease for lease in queue.all_leases() if lease.machine == machine]
    reply = step.remote(
        "cleanup",
        {
            "scratchdir": settings.scratchdir,
            "queue": queue.id(make=not step.check_mode),
            "token": newest,
            "owned": [dict(lease.job._asdict()) for lease in owned],
            **current_tarballs(context, needed_only=False)._asdict(),
            "keep_max": settings.keep_max,
            "keep_days": settings.keep_days,
            "cache_days": settings.cache_days,
            "cache_max": settings.cache_max,
        },
        task_vars,
        machine=machine,
        limit=limit,
    )
    removed = [str(entry.get("path")) for entry in reply["removed"]]
    for lease in [] if step.check_mode else owned:
        if lease.state == KEPT and any(f"/kept/{lease.job}/" in path for path in removed):
            queue.drop_held(lease.job, lease.token)
    return reply


def _resolve(
    step: StepAction,
    context: StepContext,
    abandoned: Abandoned,
    task_vars: Facts,
    news: list[Facts],
    *,
    returning: bool,
) -> Facts:
    entry: Facts = {"job": str(abandoned.job), "action": abandoned.action, "why": abandoned.why}
    if step.check_mode or abandoned.action == "leave":
        return {**entry, "changed": abandoned.action != "leave"}
    try:
        resolve_abandoned(step, context, abandoned, task_vars, news, returning=returning)
    except PortbuildError as error:
        display.warning(f"{abandoned.job} on {abandoned.machine}: {error}")
        return {**entry, "changed": False, "problem": str(error)}
    return {**entry, "changed": True}
