# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action record_result: history, failure record, logs/ and errors/ in one transaction."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job, StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Lease
from ansible_collections.portbuild.cluster.plugins.plugin_utils._requests import asked_for, note_of
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
        context = self.context(task_vars, machine=lease["machine"], package=job.package)
        if self.check_mode:
            return {"changed": True, "recorded": False, "events": []}
        held = context.lease(lease)
        status = arguments["status"]
        stale = _is_stale(context, lease, held) if status is None else bool(status.get("stale"))
        return record_build(context, held, status, arguments["files"], arguments["attempts"], stale=stale)


def _is_stale(context: StepContext, lease: dict[str, t.Any], held: Lease) -> bool:
    """Return whether what was recorded by a dispatch that died is not what is asked for now."""
    try:
        asked = asked_for(context, lease)
    except PortbuildError:  # the attempt to build it will say what is wrong with the source
        return True
    return held.details.get("asked") != note_of(asked, held.build_token or 0)
