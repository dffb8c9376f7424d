# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of prepare_machine: what must be on a build machine before the first job."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import read_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._conf import record_system
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import StepAction


class ActionModule(StepAction):
    """Directories, per-node configuration and bindist of one machine; the tarball travels only if it is not there."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {}
    PASSES_OPTIONS = True

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        machine = str(task_vars["inventory_hostname"])
        context = self.context(task_vars, machine=machine)
        settings, layout = context.settings, context.layout
        bindist = read_bindist(layout)
        recorded = record_system(layout.root, layout.arch, settings.system, check_mode=self.check_mode)
        if not self.check_mode:
            for directory in layout.directories:
                os.makedirs(directory, exist_ok=True)
        wanted = {
            "scratchdir": settings.scratchdir,
            "client_user": settings.client_user,
            "maxjobs": settings.maxjobs,
            "backend": settings.chroot_backend,
            "base": bindist.sha256,
        }
        reply = self.remote("prepare_machine", wanted, task_vars, machine=machine, limit=900)
        changed = recorded or reply["changed"]
        if reply["needs_base"] and not self.check_mode:
            self.send(bindist.path, f"{settings.scratchdir}/incoming/{bindist.sha256}.part", machine=machine)
            reply = self.remote("prepare_machine", wanted, task_vars, machine=machine, limit=900)
        return {**reply, "changed": changed or reply["changed"]}
