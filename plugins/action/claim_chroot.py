# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of claim_chroot."""

from __future__ import annotations

import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import read_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import LEASE_ARGUMENT, StepAction, StepFailed


class ActionModule(StepAction):
    """Claim a clean chroot on the machine of the lease."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {"lease": LEASE_ARGUMENT}
    PASSES_OPTIONS = True

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        lease, machine = arguments["lease"], arguments["lease"]["machine"]
        job = lease_job(lease)
        context = self.context(task_vars, machine=machine, package=job.package)
        settings, queue = context.settings, context.queue
        held = None if self.check_mode else context.lease(lease)
        try:
            reply = self.remote(
                "claim_chroot",
                {
                    "lease": lease,
                    "scratchdir": settings.scratchdir,
                    "maxjobs": settings.maxjobs,
                    "backend": settings.chroot_backend,
                    "base": read_bindist(context.layout).sha256,
                    "client_user": settings.client_user,
                    "min_free": settings.machine_min_free,
                    "orphans": [dict(other.job._asdict()) for other in queue.held() if other.machine == machine],
                },
                task_vars,
                machine=machine,
            )
        except StepFailed as error:
            if error.details.get("reason") == "machine_full" and held is not None:
                # The slot was a dead owner's whose build still runs: the client knows better than the counter.
                running = [Job.checked(*(job.get(name) for name in Job._fields)) for job in error.details.get("jobs", [])]
                queue.reinstate(held, running)
            raise
        if held is not None and isinstance(reply.get("build_token"), int):
            queue.update(held, build_token=reply["build_token"])
        return reply
