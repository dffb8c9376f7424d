# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action control: machines enter and leave the queue, packages are held and released, a bulk build is spoken with."""

from __future__ import annotations

import getpass
import os
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._names import check_machine
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bulk_commands import ask, why
from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import check_known, inventory_machines
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._holds import hold, read_holds, unhold
from ansible_collections.portbuild.cluster.plugins.plugin_utils._journal import SqliteJournal
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import QueueError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import BadArguments, StepAction

# What a person says of a machine is understood of a package too, and the other way round.
_OF_MACHINE = {"hold": "drain", "unhold": "undrain"}
_OF_PACKAGE = {"drain": "hold", "undrain": "unhold"}


_OF_BULK = ("stop", "retry", "why")
COMMANDS = ["enter", "drain", "undrain", "hold", "unhold", *_OF_BULK]


class ActionModule(StepAction):
    """Enter a machine into the queue, drain it, bring it back; hold a package, release it; speak with a bulk build."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {
        "command": {"type": "str", "required": True, "choices": COMMANDS},
        "machine": {"type": "str", "default": ""},
        "package": {"type": "str", "default": ""},
        "reason": {"type": "str", "default": ""},
    }
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        command, machine, package = arguments["command"], arguments["machine"], arguments["package"]
        if command in _OF_BULK:
            return self._bulk(command, package, who(task_vars), task_vars)
        if bool(machine) == bool(package):
            raise BadArguments(
                f"To {command}, either a machine or a package must be named"
                + (f", not both {machine} and {package}." if machine else "."),
                remedy="Give portbuild_machine or portbuild_package.",
            )
        by = who(task_vars)
        if machine:
            return self._machine(_OF_MACHINE.get(command, command), machine, arguments["reason"], by, task_vars)
        if command == "enter":
            raise BadArguments(f"The package {package} cannot be entered into a queue.", remedy="Name a machine.")
        return self._package(_OF_PACKAGE.get(command, command), package, arguments["reason"], by, task_vars)

    def _bulk(self, command: str, asked: str, by: str, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Speak with the bulk build that runs."""
        context = self.context(task_vars, package=asked.partition("=")[0] or None)
        if command != "stop" and not asked:
            raise BadArguments(f"{command} needs a package.", remedy="Give portbuild_package.")
        package = _name(context, asked, unknown_too=True) if asked else ""
        journal = SqliteJournal(context.layout.database)
        told: dict[str, t.Any] = {"changed": command != "why", "state": "", "jobs": 0}
        if command == "why":
            return {**told, "msg": why(journal, package, by)}
        if self.check_mode:
            return {**told, "msg": f"A bulk build that runs would be told: {command} {package}".rstrip() + "."}
        return {**told, "msg": ask(journal, command, package, by)}

    def _machine(self, command: str, name: str, reason: str, by: str, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        machine = check_machine(name)
        context = self.context(task_vars)
        queue = context.queue
        known = {*(state.name for state in queue.machines()), *inventory_machines(task_vars)}
        if command == "enter":  # whatever the group that setup was applied to
            known.update(map(str, task_vars["hostvars"]))
        check_known(machine, known)
        maxjobs = self.maxjobs(context, task_vars, machine)
        changed: bool
        if command == "enter":
            changed = queue.enter(machine, maxjobs, dry_run=self.check_mode)
        elif command == "undrain" and maxjobs == 0:
            raise QueueError(
                f"Machine {machine} cannot take jobs: its maxjobs is 0.",
                remedy="Set portbuild_maxjobs and run the setup playbook for it.",
            )
        elif command == "undrain":
            changed = queue.undrain(machine, maxjobs, dry_run=self.check_mode)
        else:
            changed = queue.offline(machine, reason, by, dry_run=self.check_mode)
        state = next((state for state in queue.machines() if state.name == machine), None)
        told: dict[str, t.Any] = {
            "changed": changed,
            "state": "offline" if state is None or state.offline else "online",
            "jobs": 0 if state is None else state.jobs,
        }
        if self.check_mode:
            told["state"] = "offline" if command == "drain" else "online" if command == "undrain" else told["state"]
        jobs = f"{told['jobs']} job{'s' if told['jobs'] != 1 else ''}"
        ending = f"what runs there goes on ({jobs})" if told["state"] == "offline" else f"it runs {jobs}"
        return {**told, "msg": f"Machine {machine} {self._verb()} {told['state']}; {ending}."}

    def _package(self, command: str, asked: str, reason: str, by: str, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        context = self.context(task_vars, package=asked.partition("=")[0])
        package = _name(context, asked, unknown_too=command == "unhold")
        if command == "hold":
            changed = hold(context.layout, package, reason, by, now=time.time(), dry_run=self.check_mode)
        else:
            changed = unhold(context.layout, package, dry_run=self.check_mode)
        held = read_holds(context.layout).get(package)
        told: dict[str, t.Any] = {"changed": changed, "state": "held" if command == "hold" else "free", "jobs": 0}
        sentence = (
            held.sentence(package) if held and command == "hold" else f"{package} {self._verb()} {told['state']}."
        )
        return {**told, "msg": sentence}

    def _verb(self) -> str:
        return "would be" if self.check_mode else "is"


def _name(context: StepContext, asked: str, *, unknown_too: bool) -> str:
    """Return the name of the package that is asked for, maybe by another.

    One that has gone from the INDEX since it was held can still be released.
    """
    if unknown_too and asked in read_holds(context.layout):
        return asked
    return context.system.resolve(asked, context.layout.index)[0]


def who(task_vars: t.Mapping[str, t.Any]) -> str:
    """Return who says so: AWX's user, who became root here, or whose process this is."""
    named = task_vars.get("awx_user_name") or task_vars.get("tower_user_name") or os.environ.get("SUDO_USER")
    if named:
        return str(named)
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an account
        return f"uid {os.getuid()}"
