# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action notify: tell people what happened."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import display, LEASE_ARGUMENT, StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._telling import tell


class ActionModule(StepAction):
    """Send or spool the messages of these events."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {
        "lease": LEASE_ARGUMENT,
        "events": {"type": "list", "elements": "dict", "required": True},
    }
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        job = lease_job(arguments["lease"])
        context = self.context(task_vars, package=job.package)
        told = tell(context, [] if self.check_mode else arguments["events"])
        for problem in told.problems:
            display.warning(problem)
        return {"changed": bool(told.sent or told.spooled), "sent": told.sent, "spooled": told.spooled}
