# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action make_index: is the branch's INDEX the one that is wanted? Accept the one that is given."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._index_files import (
    is_current,
    made_from,
    oddities,
    publish_given,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import SettingError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import display, StepAction


class ActionModule(StepAction):
    """Look at the branch's INDEX; put a given one in place."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {}
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        context = self.context(task_vars)
        settings, layout, job = context.settings, context.layout, context.system.index_job
        if not job:
            raise SettingError(f"The package system {settings.system} of {layout.arch} has no INDEX.")
        known = {"path": layout.index, "job": job, "needed": False}
        if settings.index_file:
            changed, index = publish_given(layout, settings.index_file, check_mode=self.check_mode)
            for line in oddities(index):
                display.warning(line)
            message = f"{settings.index_file} is the INDEX of {layout.branch}: {len(index.entries)} packages."
            return {**known, "changed": changed, "msg": message}
        if is_current(layout, made_from(context)) and not settings.index_rebuild:
            return {**known, "changed": False, "msg": f"{layout.index} was made from what there is now."}
        return {**known, "changed": False, "needed": True, "msg": f"{layout.index} is to be made."}
