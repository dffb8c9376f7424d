# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action notify: tell people what happened."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._client_steps import if_in_force, renewing
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import display, LEASE_ARGUMENT, StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._telling import NOTHING, tell


class ActionModule(StepAction):
    """Send or spool the messages of these events, and tell the hooks; without an event, send what waits."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {
        "lease": {**LEASE_ARGUMENT, "required": False},
        "events": {"type": "list", "elements": "dict", "default": []},
        "blocks": {"type": "int"},
        "blocked": {"type": "list", "elements": "str", "default": []},
    }
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        lease = arguments["lease"]
        package = lease_job(lease).package if lease else None
        context = self.context(task_vars, package=package)
        if self.check_mode:
            return {"changed": False, **NOTHING._asdict()}
        known = {"blocks": arguments["blocks"], "blocked": arguments["blocked"]}
        events = [{**known, **event} for event in arguments["events"]]
        with renewing(context.queue, if_in_force(context, lease) if lease else None):  # a hook may take an hour
            told = tell(context, events, check_tasks=self.check_tasks)
        for problem in told.problems:
            display.warning(problem)
        return {"changed": bool(told.sent or told.spooled), **told._asdict()}
