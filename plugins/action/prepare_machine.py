# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of prepare_machine: what must be on a build machine before the first job."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import read_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._conf import record_system
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._port_tree import NoTree, read_tree
from ansible_collections.portbuild.cluster.plugins.plugin_utils._published import Published
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import PREFIX, SETTINGS, Settings
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import StepAction

TIME_LIMIT = 3600.0  # seconds for extracting; a ports tree has 250,000 files
# What FreeBSD's drivers find in the per-node configuration; what is left to its default is not written there.
NODE = ("zfs_dataset", "devfs_ruleset", "mount_fdescfs", "mount_procfs")


def is_set(settings: Settings, field: str) -> bool:
    """Return whether the setting differs from its default."""
    return bool(getattr(settings, field) != SETTINGS[f"{PREFIX}{field}"].default)


class ActionModule(StepAction):
    """Directories, configuration, bindist and tree of one machine; a tarball travels only if it is not there."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {}
    PASSES_OPTIONS = True

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        machine = str(task_vars["inventory_hostname"])
        context = self.context(task_vars, machine=machine)
        settings, layout = context.settings, context.layout
        bindist = read_bindist(layout)
        tree = self._tree(context)
        recorded = record_system(layout.root, layout.arch, settings.system, check_mode=self.check_mode)
        if not self.check_mode:
            for directory in layout.directories:
                os.makedirs(directory, exist_ok=True)
        wanted = {
            "scratchdir": settings.scratchdir,
            "client_user": settings.client_user,
            "node": {name: getattr(settings, name) for name in NODE if is_set(settings, name)},
            "maxjobs": settings.maxjobs,
            "backend": settings.chroot_backend,
            "base": bindist.sha256,
            "tree": tree.sha256 if tree else "",
        }
        reply = self.remote("prepare_machine", wanted, task_vars, machine=machine, limit=TIME_LIMIT)
        changed = recorded or reply["changed"]
        needed = [
            tarball
            for tarball, is_needed in ((bindist, reply["needs_base"]), (tree, reply["needs_tree"]))
            if tarball is not None and is_needed
        ]
        if needed and not self.check_mode:
            for tarball in needed:
                self.send(tarball.path, f"{settings.scratchdir}/incoming/{tarball.sha256}.part", machine=machine)
            reply = self.remote("prepare_machine", wanted, task_vars, machine=machine, limit=TIME_LIMIT)
        return {**reply, "changed": changed or reply["changed"]}

    def _tree(self, context: StepContext) -> Published | None:
        """Return the tree that the machine must have."""
        if not context.system.needs_tree:
            return None
        try:
            return read_tree(context.layout)
        except NoTree:
            if self.check_mode:  # it would have been made before
                return None
            raise
