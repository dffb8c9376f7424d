# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action release_machine: the end of an attempt, whatever happened before."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._attempts import describe, hold_state, may_try_again
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Lease
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import display, LEASE_ARGUMENT, StepAction


class ActionModule(StepAction):
    """Give back the slot and say what the attempt came to."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {
        "lease": LEASE_ARGUMENT,
        "record": {"type": "dict", "default": {}},
        "failure": {"type": "dict", "default": {}},
        "clean": {"type": "dict", "default": {}},
        "attempts": {"type": "list", "elements": "dict", "default": []},
    }
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        lease = arguments["lease"]
        job = lease_job(lease)
        context = self.context(task_vars, package=job.package)
        hold = hold_state(arguments["clean"])
        if self.check_mode:
            message = f"{job.package} would be built on {lease['machine']}."
            outcome = {"outcome": "predicted", "reason": "", "msg": message, "again": False}
            return {"changed": True, "held": hold, "outcome": outcome, "attempts": arguments["attempts"]}
        released = context.queue.release(
            Lease.from_dict(lease), hold=hold, reason=str(arguments["clean"].get("msg") or "")
        )
        attempt = describe(lease, arguments["record"], arguments["failure"], arguments["clean"], time.monotonic())
        attempts = [*arguments["attempts"], attempt]
        settings = context.settings
        again = bool(attempt["infrastructure"] or attempt["stale"]) and may_try_again(
            attempts, limit=settings.attempts, retries=settings.infra_retries
        )
        if again:
            display.display(attempt["msg"])  # of the last attempt the role says it
        return {"changed": released, "held": hold or "", "outcome": {**attempt, "again": again}, "attempts": attempts}
