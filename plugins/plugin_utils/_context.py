# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What holds for one job: its settings, where its files stand, its queue, its record, its package system."""

from __future__ import annotations

import collections.abc as c
import functools
import typing as t

from ..module_utils._names import Job
from ._conf import ArchConfig, load_directory
from ._layout import ArchLayout, Layout
from ._queue import Lease, Queue, StaleLease
from ._queue_files import FileQueue
from ._settings import resolve, Settings
from ._store import SqliteStore, Store
from ._systems import get_system, PackageSystem

WHERE = ("portbuild_root", "portbuild_arch")


class StepContext:
    """What holds for one job: settings, paths, queue, store. Made anew in every step; reads only small files."""

    def __init__(
        self,
        variables: c.Mapping[str, t.Any],
        machine_variables: c.Mapping[str, t.Any] | None = None,
        *,
        package: str | None = None,
        machine: str | None = None,
    ) -> None:
        self.variables = variables
        # What says where the files are cannot come from them.
        where = resolve({name: variables.get(name) for name in WHERE}, None)
        layout = ArchLayout(where.root, where.arch)
        self.config: ArchConfig = load_directory(layout.root, layout.arch)
        self.settings: Settings = resolve(
            variables, self.config, machine=machine, package=package, machine_variables=machine_variables
        )
        self.layout = Layout(self.settings.root, self.settings.arch, self.settings.branch)

    @functools.cached_property
    def queue(self) -> Queue:
        """The queue directory of the arch."""
        return FileQueue(self.layout.queue, arch=self.settings.arch, lease_ttl=self.settings.lease_ttl)

    @functools.cached_property
    def store(self) -> Store:
        """The record of builds of the branch."""
        return SqliteStore(self.layout.database)

    @property
    def system(self) -> PackageSystem:
        """The driver of the arch's package system."""
        return get_system(self.settings.system)

    def lease(self, facts: c.Mapping[str, t.Any]) -> Lease:
        """Return the lease in force that a step's argument names, or raise StaleLease."""
        job = lease_job(facts)
        lease = self.queue.find(job)
        if lease is None or lease.token != facts["token"]:
            now = "nobody holds it now" if lease is None else f"token {lease.token} holds it now"
            raise StaleLease(f"The lease of {job} with token {facts['token']} is not in force any more: {now}.")
        return lease


def lease_facts(lease: Lease, queue: str) -> dict[str, t.Any]:
    """Return the lease as the steps hand it on."""
    return {**lease.job._asdict(), "machine": lease.machine, "queue": queue, "token": lease.token}


def lease_job(lease: c.Mapping[str, t.Any]) -> Job:
    """Return the job of a lease argument, its names checked."""
    return Job.checked(lease["arch"], lease["branch"], lease["package"])
