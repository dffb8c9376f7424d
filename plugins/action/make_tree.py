# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""make_tree: the tarball of the tree that the branch is built from, made on the controller."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._port_tree import read_tree
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._tree_sources import find_source, make_tree


class ActionModule(StepAction):
    """Make the branch's tree, unless it is there in the wanted state."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {}
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        context = self.context(task_vars)
        settings, layout = context.settings, context.layout
        if not context.system.needs_tree:
            return {"changed": False, "path": "", "sha256": "", "msg": f"{settings.system} builds from no tree."}
        if not settings.tree:
            tree = read_tree(layout)
            return {
                "changed": False,
                "path": tree.path,
                "sha256": tree.sha256,
                "msg": f"Branch {layout.branch} keeps its tree.",
            }
        made = make_tree(layout, find_source(settings.tree, settings.tree_revision), really=not self.check_mode)
        what = "would be made" if self.check_mode and made.changed else "is"
        result: dict[str, t.Any] = {
            "changed": made.changed,
            "path": layout.tree,
            "sha256": made.tree.sha256 if made.tree and not (made.changed and self.check_mode) else "",
            "msg": f"The tree of {layout.branch} {what} {made.after.get('source')}, {made.after.get('revision')}.",
            **made.after,
        }
        if self._task.diff:
            result["diff"] = {"before": made.before, "after": made.after}
        return result
