# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of clean_chroot."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._client_steps import clean_chroot
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import LEASE_ARGUMENT, StepAction


class ActionModule(StepAction):
    """Clean the chroot, or hold it while there is something in it that is not at home yet."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {
        "lease": LEASE_ARGUMENT,
        "recorded": {"type": "bool", "default": False},
    }
    PASSES_OPTIONS = True

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        lease = arguments["lease"]
        context = self.context(task_vars, machine=lease["machine"], package=lease_job(lease).package)
        return clean_chroot(self, context, lease, task_vars, recorded=arguments["recorded"])
