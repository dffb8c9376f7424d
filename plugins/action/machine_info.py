# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of machine_info: the ad-hoc host check takes what it needs from the portbuild_ variables."""

from __future__ import annotations

import contextlib
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import NoBindist, read_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._port_tree import NoTree, read_tree
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import given_client_user, resolve
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import StepAction

BRANCH_VARIABLES = ("portbuild_root", "portbuild_arch", "portbuild_branch")
MAX_OFFSET = 60.0  # seconds that a clock may be off: beyond it make believes that files come from the future


class ActionModule(StepAction):
    """Tell what the machine is, what runs on it, and what makes it unfit."""

    PASSES_OPTIONS = True

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        machine = str(self._task.delegate_to or task_vars["inventory_hostname"])
        wishes = self._wishes(task_vars, machine)
        asked = time.time()
        reply = self.remote("machine_info", wishes, task_vars, machine=machine)
        answered = time.time()
        clock = reply["clock"].get("seconds")
        if isinstance(clock, (int, float)):
            # The client read its clock at some moment in between; what is nearer to zero is true for one of them.
            offset = clock - min(max(clock, asked), answered)
            reply["clock_offset"] = round(offset, 3)
            if abs(offset) > MAX_OFFSET:
                reply["fit"] = False
                reply["unfit"].append(f"Its clock is {offset:+.0f} s off the controller's; set it, for example by NTP.")
        return reply

    def _wishes(self, task_vars: dict[str, t.Any], machine: str) -> dict[str, t.Any]:
        """Return what the machine should be like. Without a branch nothing is asked of its bindists and trees."""
        variables = self.portbuild_variables(task_vars)
        bases: list[str] = []
        trees: list[str] = []
        if all(variables.get(name) for name in BRANCH_VARIABLES):
            context: StepContext = self.context(task_vars, machine=machine)
            settings = context.settings
            with contextlib.suppress(NoBindist):
                bases.append(read_bindist(context.layout).sha256)
            if context.system.needs_tree:
                with contextlib.suppress(NoTree):
                    trees.append(read_tree(context.layout).sha256)
        else:
            settings = resolve({}, None, machine=machine, machine_variables=variables)
            self.log_in(task_vars, machine, given_client_user({}, None, machine, variables), settings.sudo_cmd)
        return {
            "scratchdir": settings.scratchdir,
            "maxjobs": settings.maxjobs,
            "client_user": settings.client_user,
            "backend": settings.chroot_backend,
            "min_free": settings.machine_min_free,
            "bases": bases,
            "trees": trees,
        }
