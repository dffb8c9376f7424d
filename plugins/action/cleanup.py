# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of cleanup: bring home what is finished, then let the client remove what nobody owns."""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import NoBindist, read_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._collecting import (
    Abandoned,
    find_abandoned,
    KEPT,
    resolve_abandoned,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._port_tree import NoTree, read_tree
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import display, StepAction

TIME_LIMIT = 1800.0  # seconds for removing what may be many large trees


class ActionModule(StepAction):
    """Leases without a living owner, chroots without a lease, caches and kept chroots beyond their age."""

    PASSES_OPTIONS = True

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        machine = str(self._task.delegate_to or task_vars["inventory_hostname"])
        context = self.context(task_vars, machine=machine)
        done = []
        for abandoned in find_abandoned(self, context, machine, task_vars):
            done.append(self._resolve(context, abandoned, task_vars))
        queue, settings = context.queue, context.settings
        newest = queue.newest_token()  # before the leases: what is claimed from now on has a newer one
        current: dict[str, list[str]] = {"bases": [], "trees": []}
        with contextlib.suppress(NoBindist):
            current["bases"].append(read_bindist(context.layout).sha256)
        with contextlib.suppress(NoTree):
            current["trees"].append(read_tree(context.layout).sha256)
        owned = [lease for lease in queue.all_leases() if lease.machine == machine]
        reply = self.remote(
            "cleanup",
            {
                "scratchdir": settings.scratchdir,
                "queue": queue.id(),
                "token": newest,
                "owned": [dict(lease.job._asdict()) for lease in owned],
                **current,
                "keep_max": settings.keep_max,
                "keep_days": settings.keep_days,
            },
            task_vars,
            machine=machine,
            limit=TIME_LIMIT,
        )
        removed = [str(entry.get("path")) for entry in reply["removed"]]
        for lease in [] if self.check_mode else owned:
            if lease.state == KEPT and any(f"/kept/{lease.job}/" in path for path in removed):
                queue.drop_held(lease.job, lease.token)
        return {**reply, "changed": bool(reply["changed"] or any(entry["changed"] for entry in done)), "leases": done}

    def _resolve(self, context: t.Any, abandoned: Abandoned, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        entry: dict[str, t.Any] = {"job": str(abandoned.job), "action": abandoned.action, "why": abandoned.why}
        if self.check_mode or abandoned.action == "leave":
            return {**entry, "changed": abandoned.action != "leave"}
        try:
            resolve_abandoned(self, context, abandoned, task_vars)
        except PortbuildError as error:
            display.warning(f"{abandoned.job} on {abandoned.machine}: {error}")
            return {**entry, "changed": False, "problem": str(error)}
        return {**entry, "changed": True}
