# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller half of make_bindist: make the tarball on a build machine, bring it home."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import NoBindist, publish_bindist, read_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._record import INCOMING
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._temporary import own_directory

TIME_LIMIT = 7200.0  # seconds for making it; half a minute is usual, if nothing is fetched from afar
FACTS = ("sha256", "size", "made", "suite", "architecture", "sources", "release", "osrelease", "osreldate", "origin")


class ActionModule(StepAction):
    """Make the branch's bindist unless it has one."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {}
    PASSES_OPTIONS = True

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        machine = str(self._task.delegate_to or task_vars["inventory_hostname"])
        context = self.context(task_vars, machine=machine)
        settings, layout = context.settings, context.layout
        with contextlib.suppress(NoBindist):
            present = read_bindist(layout)
            if not settings.bindist_rebuild:
                message = f"Branch {layout.branch} has its bindist: {present.path}"
                return {"changed": False, "path": present.path, "sha256": present.sha256, "msg": message}
        tarball = settings.bindist_tarball
        would = {
            "changed": True,
            "msg": f"{machine} would make the bindist of {layout.branch} for {layout.bindist}.",
        }
        if tarball and os.path.isfile(tarball):
            if self.check_mode:  # it is not sent
                return would
            tarball = self._sent(tarball, machine)
        wish: dict[str, t.Any] = {
            "path": f"{settings.scratchdir}/bindist/{settings.arch}-{settings.branch}.tar",
            "tarball": tarball or None,
            "release": settings.bindist_release or None,
            "suite": settings.bindist_suite or settings.branch,
            "components": list(settings.bindist_components),
            "mirror": settings.bindist_mirror or None,
            "variant": settings.bindist_variant,
            "include": list(settings.bindist_extra_packages),
            "build_user": settings.build_user,
            "proxy": settings.http_proxy or None,
            "force": settings.bindist_rebuild,
        }
        made = self.remote("make_bindist", wish, task_vars, machine=machine, limit=TIME_LIMIT)
        if self.check_mode:
            return would
        os.makedirs(os.path.dirname(layout.bindist), exist_ok=True)
        # Hundreds of megabytes: whoever is killed in here leaves them to the next to remove.
        with own_directory(os.path.join(layout.tarballs, INCOMING), "bindist.") as directory:
            temporary = os.path.join(directory, os.path.basename(layout.bindist))
            self.receive(wish["path"], temporary, machine=machine)
            facts = {name: made[name] for name in FACTS if name in made}
            if settings.bindist_tarball:
                facts["origin"] = settings.bindist_tarball  # not the temporary name that it had there
            bindist = publish_bindist(layout, temporary, {"machine": machine, **facts})
        message = f"{machine} made the bindist of {layout.branch}: {bindist.path}, {bindist.size >> 20} MiB"
        return {"changed": True, "path": bindist.path, "sha256": bindist.sha256, "msg": message}

    def _sent(self, tarball: str, machine: str) -> str:
        """Send the controller's tarball to a temporary directory of the login account; it goes with the step."""
        remote = f"{self.temporary_directory(machine)}/base"
        self.send(tarball, remote, machine=machine)
        return remote
