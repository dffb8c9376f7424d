# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of cleanup: bring home what is finished, then let the client remove what nobody owns."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._cleaning import clean_machine
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import StepAction


class ActionModule(StepAction):
    """Leases without a living owner, chroots without a lease, caches and kept chroots beyond their age."""

    PASSES_OPTIONS = True

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        machine = str(self._task.delegate_to or task_vars["inventory_hostname"])
        return clean_machine(self, self.context(task_vars, machine=machine), machine, task_vars)
