# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action record_result: history, failure record, logs/ and errors/ in one transaction."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import LEASE_ARGUMENT, StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._verdict import record_build


class ActionModule(StepAction):
    """Record what the build came to."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {
        "lease": LEASE_ARGUMENT,
        "status": {"type": "dict"},
        "files": {"type": "list", "elements": "dict", "default": []},
        "attempts": {"type": "list", "elements": "dict", "default": []},
    }
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        lease = arguments["lease"]
        job = lease_job(lease)
        context = self.context(task_vars, package=job.package)
        if self.check_mode:
            return {"changed": True, "recorded": False, "events": []}
        held = context.lease(lease)
        return record_build(context, held, arguments["status"], arguments["files"], arguments["attempts"])
