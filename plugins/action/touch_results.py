# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action touch_results: one clock for all times."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._record import path_of
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import LEASE_ARGUMENT, StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import stored_file


class ActionModule(StepAction):
    """Set the modification time of what arrived to the controller's time."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {
        "lease": LEASE_ARGUMENT,
        "files": {"type": "list", "elements": "dict", "required": True},
    }
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        lease = arguments["lease"]
        context = self.context(task_vars, package=lease_job(lease).package)
        paths = [path_of(context.layout, stored_file(entry)) for entry in arguments["files"]]
        if not self.check_mode:
            claimed = context.lease(lease).claimed
            paths = [path for path in paths if os.stat(path).st_mtime < claimed]
            for path in paths:
                os.utime(path)
        return {"changed": bool(paths), "touched": paths}
