# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of fetch_results: nothing a client says is believed, nothing half arrives."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._client_steps import fetch_results
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import LEASE_ARGUMENT, StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._telling import strange_results


class ActionModule(StepAction):
    """Bring the log and the results home."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {"lease": LEASE_ARGUMENT, "status": {"type": "dict"}}
    PASSES_OPTIONS = True

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        lease = arguments["lease"]
        context = self.context(task_vars, machine=lease["machine"], package=lease_job(lease).package)
        if self.check_mode:
            return {"changed": True, "files": [], "status": {}}
        try:
            fetched = fetch_results(self, context, lease, arguments["status"], task_vars)
        except PortbuildError as error:
            if not error.details.get("unreachable_machine"):  # of that checkmachines tells, once for all its jobs
                error.details["events"] = [strange_results(context, lease, error)]
            raise
        return {"changed": True, **fetched._asdict()}
