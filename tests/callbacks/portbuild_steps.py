# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes how long each task took, a JSON object a line, into the file that PORTBUILD_STEPS names."""

from __future__ import annotations

import json
import os
import time
import typing as t

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: portbuild_steps
type: aggregate
short_description: Write how long each task took
description:
  - Used by the demonstration and the benchmarks of portbuild.cluster.
requirements: []
"""


class CallbackModule(CallbackBase):
    """One line when the next task begins, and one at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "portbuild_steps"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._path = os.environ.get("PORTBUILD_STEPS", "")
        self._name = "start-up"
        self._began = time.monotonic()

    def _next(self, name: str) -> None:
        now = time.monotonic()
        if self._path:
            with open(self._path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": self._name, "seconds": round(now - self._began, 4)}) + "\n")
        self._name, self._began = name, now

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: bool) -> None:  # noqa: ARG002
        """Note the end of the task before."""
        self._next(task.get_name().rpartition(" : ")[2])

    def v2_playbook_on_stats(self, stats: t.Any) -> None:  # noqa: ARG002
        """Note the end of the last task."""
        self._next("end")
