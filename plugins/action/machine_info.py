# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of machine_info: the ad-hoc host check takes what it needs from the portbuild_ variables."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._looking import Current, current_tarballs, look, wishes
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import given_client_user, resolve
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import StepAction

BRANCH_VARIABLES = ("portbuild_root", "portbuild_arch", "portbuild_branch")


class ActionModule(StepAction):
    """Tell what the machine is, what runs on it, and what makes it unfit."""

    PASSES_OPTIONS = True

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        machine = str(self._task.delegate_to or task_vars["inventory_hostname"])
        variables = self.portbuild_variables(task_vars)
        if all(variables.get(name) for name in BRANCH_VARIABLES):
            context: StepContext = self.context(task_vars, machine=machine)
            settings = context.settings
            wanted = wishes(settings, current_tarballs(context))
        else:  # nothing is asked of its bindists and trees
            settings = resolve({}, None, machine=machine, machine_variables=variables)
            self.log_in(task_vars, machine, given_client_user({}, None, machine, variables), settings.sudo_cmd)
            wanted = wishes(settings, Current([], []))
        return look(self, wanted, task_vars, machine=machine, max_clock_offset=settings.max_clock_offset)
