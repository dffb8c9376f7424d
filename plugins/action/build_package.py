# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of build_package: send what the build needs, then wait for its end whatever the connection does."""

from __future__ import annotations

import collections
import functools
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.module_utils._files import sha256_file
from ansible_collections.portbuild.cluster.plugins.module_utils._names import incoming_path
from ansible_collections.portbuild.cluster.plugins.plugin_utils._client_steps import check_results
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_job, StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._requests import BuildRequest, make_request, note_of
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import Settings
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import (
    display,
    LEASE_ARGUMENT,
    StepAction,
    StepFailed,
    Watch,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._telling import strange_results
from ansible_collections.portbuild.cluster.plugins.plugin_utils._text import number_of, one_line

PROGRESS_INTERVAL = 60.0  # seconds of build between two lines of progress
END_TIME = 3600.0  # seconds a build may take beyond its limit: for waiting for files, packing and copying
MOST_SENDINGS = 3  # of one file in one build
SLACK = 45.0  # seconds a reply may take beyond the poll itself before the client counts as frozen


class ActionModule(StepAction):
    """Start the build or attach to it, and wait for its end by long poll."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {"lease": LEASE_ARGUMENT, "chroot": {"type": "dict", "required": True}}

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        lease, machine = arguments["lease"], arguments["lease"]["machine"]
        job = lease_job(lease)
        context = self.context(task_vars, machine=machine, package=job.package)
        if self.check_mode:
            return {"changed": True, "status": {}}
        queue = context.queue
        held = context.lease(lease)
        with make_request(context, lease, arguments["chroot"]) as request:
            for warning in request.warnings:
                display.warning(warning)
            if held.build_token is None:
                # Remembered before anything starts: whoever adopts the job knows that such a build may exist.
                held = queue.update(held, build_token=held.token, asked=note_of(request.asked, held.token))
            stale = held.details.get("asked") != note_of(request.asked, held.build_token or 0)
            if stale:
                display.display(
                    f"{job.package} on {machine}: what is there was begun for an earlier dispatch, which asked for "
                    "something else. It is brought home first, then the package is built anew."
                )
            with Watch(queue, held) as watch:
                reply = self._wait(context, lease, request, task_vars, watch)
        # The client told its clock a moment ago, when the chroot was claimed: good enough to put a time on a log.
        offset = arguments["chroot"].get("clock_offset")
        return {**reply, "changed": True, "status": {**reply["status"], "clock_offset": offset, "stale": stale}}

    def _wait(
        self,
        context: StepContext,
        lease: dict[str, t.Any],
        request: BuildRequest,
        task_vars: dict[str, t.Any],
        watch: Watch,
    ) -> dict[str, t.Any]:
        settings, machine = context.settings, lease["machine"]
        attach = {"lease": lease, "scratchdir": settings.scratchdir, "wait": settings.poll_interval}
        wanted: dict[str, t.Any] = {**attach, "request": request.build, "script": request.script}
        supplier = _Supplier(self, request, lease, settings)
        shown = 0.0
        give_up = time.monotonic() + settings.timeout + END_TIME

        def poll(arguments: dict[str, t.Any]) -> dict[str, t.Any]:
            limit = settings.poll_interval + SLACK
            return self.remote("build_package", arguments, task_vars, machine=machine, limit=limit)

        while True:
            reply = self.persistently(functools.partial(poll, wanted), watch, patience=settings.reconnect_timeout)
            status = reply["status"]
            if reply["state"] == "ended":
                self._check_results(context, lease, status)
                return reply
            if time.monotonic() > give_up:
                raise StepFailed(
                    f"Machine {machine} says that the build still runs, long after its limit of {settings.timeout} s.",
                    reason="client",
                    infrastructure=True,
                )
            if reply["state"] == "waiting":
                supplier.supply(reply, watch)
                continue
            wanted = attach  # it has begun
            seconds = number_of(status.get("seconds"))
            if seconds - shown >= PROGRESS_INTERVAL:
                shown = seconds
                last = one_line(status.get("last_line"), 200)
                display.display(
                    f"{lease['package']} on {machine}: {one_line(status.get('phase'), 40)}, {shown:.0f} s: {last}"
                )

    @staticmethod
    def _check_results(context: StepContext, lease: dict[str, t.Any], status: dict[str, t.Any]) -> None:
        """What is malformed, or endless, does not get any further than this."""
        try:
            check_results(context, status, lease["package"])
        except PortbuildError as error:
            error.details["events"] = [strange_results(context, lease, error)]
            raise


class _Supplier:
    """Sends the files that the client asks for; it may ask only for what the request offered."""

    def __init__(self, step: StepAction, request: BuildRequest, lease: dict[str, t.Any], settings: Settings) -> None:
        self._step = step
        self._offered = request.offered
        self._lease = lease
        self._settings = settings
        self._sent: collections.Counter[str] = collections.Counter()

    def supply(self, reply: dict[str, t.Any], watch: Watch) -> None:
        """Send what the reply says is needed. Where it goes is ours to say, not the machine's."""
        machine = self._lease["machine"]
        for problem in reply["problems"]:
            display.warning(f"Machine {machine}: {one_line(problem, 300)}")
        for need in reply["needs"]:
            sha256 = str(need.get("sha256"))
            local = self._offered.get(sha256)
            if local is None:
                raise StepFailed(
                    f"Machine {machine} asks for {str(need)[:200]}, which was not offered to it.",
                    reason="client",
                    infrastructure=True,
                )
            if self._sent[sha256]:
                self._look_again(local, sha256)
            self._sent[sha256] += 1
            remote = incoming_path(self._settings.scratchdir, sha256, lease_job(self._lease))
            send = functools.partial(self._step.send, local, remote, machine=machine)
            self._step.persistently(send, watch, patience=self._settings.reconnect_timeout)

    def _look_again(self, local: str, sha256: str) -> None:
        """Find out why a file is asked for again: it was lost on the way, or is not what it was any more."""
        if sha256_file(local) != sha256:
            raise StepFailed(
                f"{local} has changed since it was recorded with the SHA-256 {sha256}.",
                remedy="Build the package that it belongs to anew.",
                reason="damaged",
                infrastructure=False,
            )
        if self._sent[sha256] >= MOST_SENDINGS:
            machine = self._lease["machine"]
            raise StepFailed(
                f"{local} was sent to machine {machine} {MOST_SENDINGS} times and never arrived as it is here.",
                reason="transfer",
                infrastructure=True,
            )
