# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action cleanup_controller: logs and work directories beyond their age go, and mail that waits."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._pruning import find_old, remove_old
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import display, StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._telling import NOTHING, tell


class ActionModule(StepAction):
    """Remove what is beyond its age, and say so; send the mail that waits."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {}
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        context = self.context(task_vars)
        settings = context.settings
        old = find_old(context.layout, log_days=settings.log_days, workdir_days=settings.workdir_days, now=time.time())
        problems = [] if self.check_mode else remove_old(old)
        told = NOTHING if self.check_mode else tell(context, [])
        for problem in told.problems:
            display.warning(problem)
        return {
            "changed": len(old) > len(problems) or bool(told.sent),
            "sent": told.sent,
            "removed": [entry._asdict() for entry in old],
            "problems": problems,
        }
