# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action control: machines enter and leave the queue."""

from __future__ import annotations

import getpass
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._names import check_machine
from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import check_known, inventory_machines
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import QueueError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import StepAction


class ActionModule(StepAction):
    """Enter a machine into the queue, drain it, bring it back."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {
        "command": {"type": "str", "required": True, "choices": ["enter", "drain", "undrain"]},
        "machine": {"type": "str", "required": True},
        "reason": {"type": "str", "default": ""},
    }
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        machine = check_machine(arguments["machine"])
        context = self.context(task_vars)
        queue = context.queue
        known = {*(state.name for state in queue.machines()), *inventory_machines(task_vars)}
        if arguments["command"] == "enter":  # whatever the group that setup was applied to
            known.update(map(str, task_vars["hostvars"]))
        check_known(machine, known)
        maxjobs = self.maxjobs(context, task_vars, machine)
        changed: bool
        if arguments["command"] == "enter":
            changed = queue.enter(machine, maxjobs, dry_run=self.check_mode)
        elif arguments["command"] == "undrain" and maxjobs == 0:
            raise QueueError(
                f"Machine {machine} cannot take jobs: its maxjobs is 0.",
                remedy="Set portbuild_maxjobs and run the setup playbook for it.",
            )
        elif arguments["command"] == "undrain":
            changed = queue.undrain(machine, maxjobs, dry_run=self.check_mode)
        else:
            changed = queue.offline(machine, arguments["reason"], getpass.getuser(), dry_run=self.check_mode)
        state = next((state for state in queue.machines() if state.name == machine), None)
        return {
            "changed": changed,
            "state": "offline" if state is None or state.offline else "online",
            "jobs": 0 if state is None else state.jobs,
        }
