# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes how long each task took, and its processor time, a JSON object a line, into the file that PORTBUILD_STEPS names."""

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


def cpu_seconds() -> float:
    """Return the processor time of this process and of the workers and ssh clients that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


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
        self._cpu = cpu_seconds()

    def _next(self, name: str) -> None:
        now, cpu = time.monotonic(), cpu_seconds()
        if self._path:
            with open(self._path, "a", encoding="utf-8") as stream:
                seconds = {"seconds": round(now - self._began, 4), "cpu": round(cpu - self._cpu, 4)}
                stream.write(json.dumps({"step": self._name, **seconds}) + "\n")
        self._name, self._began, self._cpu = name, now, cpu

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: bool) -> None:  # noqa: ARG002
        """Note the end of the task before."""
        self._next(task.get_name().rpartition(" : ")[2])

    def v2_playbook_on_stats(self, stats: t.Any) -> None:  # noqa: ARG002
        """Note the end of the last task."""
        self._next("end")
