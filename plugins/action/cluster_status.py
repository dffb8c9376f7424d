# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action cluster_status: how a machine stands, asked for shortly, and how the cluster does as a whole."""

from __future__ import annotations

import contextlib
import functools
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bulk_commands import going
from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import inventory_machines
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._holds import read_holds
from ansible_collections.portbuild.cluster.plugins.plugin_utils._journal import SqliteJournal
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._looking import Current, look, wishes
from ansible_collections.portbuild.cluster.plugins.plugin_utils._status import (
    describe_holds,
    describe_jobs,
    describe_machines,
    render,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import SqliteStore
from ansible_collections.portbuild.cluster.plugins.plugin_utils._text import one_line

Facts = dict[str, t.Any]
ASK_LIMIT = 10.0  # seconds that a machine may take: somebody looks at the screen


class ActionModule(StepAction):
    """Ask one machine, or put together what is known."""

    ARGUMENTS: t.ClassVar[Facts] = {
        "ask": {"type": "bool", "default": False},
        "told": {"type": "list", "elements": "dict", "default": []},
    }

    def step(self, arguments: Facts, task_vars: Facts) -> Facts:
        if arguments["ask"]:
            return {"changed": False, "told": self._ask(str(task_vars["inventory_hostname"]), task_vars)}
        context = self.context(task_vars)
        told = {str(entry.get("machine")): entry for entry in arguments["told"]}
        status = _status(context, inventory_machines(task_vars), told)
        return {"changed": False, **status, "lines": render(status)}

    def _ask(self, machine: str, task_vars: Facts) -> Facts:
        """Return what the machine says of its jobs, or why it says nothing."""
        context = self.context(task_vars, machine=machine)
        settings = context.settings
        told: Facts = {"machine": machine}
        if not settings.ask_machines:
            return told
        try:
            facts = look(
                self,
                {**wishes(settings, Current([], [])), "last_lines": True},
                task_vars,
                machine=machine,
                max_clock_offset=settings.max_clock_offset,
                limit=min(ASK_LIMIT, settings.check_timeout),
            )
        except PortbuildError as error:
            return {**told, "problem": one_line(str(error), 300)}
        return {**told, **{name: facts[name] for name in ("jobs", "chroots")}, "load": facts.get("load")}


def _status(context: StepContext, inventory: list[str], told: dict[str, Facts]) -> Facts:
    queue, layout = context.queue, context.layout
    problems: list[str] = []
    states = queue.machines()
    loads = {name: _load(layout, name) for name in {*inventory, *(state.name for state in states)}}

    @functools.cache
    def durations(branch: str) -> dict[str, float]:
        try:
            return SqliteStore(Layout(layout.root, layout.arch, branch).database).durations()
        except PortbuildError as error:
            problems.append(f"How long packages of {branch} take is not known: {error}")
            return {}

    running, left = describe_jobs(
        queue.all_leases(),
        told,
        now=time.time(),
        alive=lambda lease: queue.judge(lease) == "alive",
        average=lambda branch, package: durations(branch).get(package),
    )
    bulk = going(SqliteJournal(layout.database), layout)
    return {
        "machines": describe_machines(states, inventory, loads, told),
        "running": running,
        "bulk": bulk.sentence if bulk else "",
        "waiting": bulk.waiting if bulk else [],
        "left": left,
        "holds": describe_holds(read_holds(layout, problems)),
        "problems": problems,
    }


def _load(layout: Layout, machine: str) -> str:
    """Return the load averages that checkmachines saw last."""
    with (
        contextlib.suppress(OSError, PortbuildError),
        open(layout.load(machine), encoding="utf-8", errors="replace") as stream,
    ):
        return stream.read(200)
    return ""
