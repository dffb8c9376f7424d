# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of fetch_results: nothing a client says is believed, nothing half arrives."""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._chroots import chroot_path
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._results import Arrival, Receiver, check_manifest
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import LEASE_ARGUMENT, StepAction, Watch


class ActionModule(StepAction):
    """Bring the log and the results home."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {"lease": LEASE_ARGUMENT, "status": {"type": "dict"}}

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        lease, machine = arguments["lease"], arguments["lease"]["machine"]
        job = lease_job(lease)
        context = self.context(task_vars, machine=machine, package=job.package)
        settings = context.settings
        if self.check_mode:
            return {"changed": True, "files": []}
        held = context.lease(lease)
        chroot = chroot_path(settings.scratchdir, job)
        receiver = Receiver(
            context.layout,
            job,
            held.token,
            build_token=held.build_token,
            store=context.store,
            min_free=settings.min_free,
            verify=lambda: context.queue.verify(held),
        )
        with Watch(context.queue, held) as watch, receiver:
            status = arguments["status"] or self._ask(settings.scratchdir, lease, task_vars)
            for arrival in receiver.plan(check_manifest(status)):
                self.persistently(
                    functools.partial(self._fetch, receiver, arrival, chroot, machine),
                    watch,
                    machine=machine,
                    patience=settings.reconnect_timeout,
                )
            watch.check()
            files = receiver.publish()
        return {"changed": True, "files": [file._asdict() for file in files]}

    def _fetch(self, receiver: Receiver, arrival: Arrival, chroot: str, machine: str) -> None:
        with receiver.receiving(arrival) as local:
            self.receive(f"{chroot}/{arrival.remote}", local, machine=machine)

    def _ask(self, scratchdir: str, lease: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Return the status from the client, where the step is used without the one before it."""
        reply = self.remote(
            "fetch_results", {"lease": lease, "scratchdir": scratchdir}, task_vars, machine=lease["machine"]
        )
        return t.cast("dict[str, t.Any]", reply["status"])
