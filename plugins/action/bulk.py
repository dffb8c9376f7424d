# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action bulk: run the process of a bulk build, say what it says, and let nothing of it be left."""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleError

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bulk_process import BulkDied, BulkProcess
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._holds import read_holds
from ansible_collections.portbuild.cluster.plugins.plugin_utils._outer import (
    configuration,
    environment,
    extra_vars,
    InventoryWatch,
    playbook_arguments,
    playbook_command,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import PREFIX
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import display, StepAction

LISTEN = 5.0  # seconds between two looks at the inventory


class ActionModule(StepAction):
    """Build many packages."""

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {}
    _requires_connection = False

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        context = self.context(task_vars)
        self.check_telling(context.settings)
        for problem in context.config.problems:
            display.warning(str(problem))
        machines = self._machines(context, task_vars)
        wish = {
            "variables": context.variables,
            "machines": machines,
            "held": self._held(context),
            "check": self.check_mode,
            "owner": self.owner.to_dict(),
            "runner": {} if self.check_mode else self._runner(context, task_vars),
        }
        layout = context.layout
        files = [layout.conf, layout.mlist, *(layout.machine_conf(machine["name"]) for machine in machines)]
        watch = InventoryWatch(self._loader, files)
        process = BulkProcess(wish)
        try:
            return self._listen(process, watch, context, machines)
        finally:
            process.end()

    def _listen(
        self, process: BulkProcess, watch: InventoryWatch, context: StepContext, machines: list[dict[str, t.Any]]
    ) -> dict[str, t.Any]:
        facts: dict[str, t.Any] | None = None
        looked = time.monotonic()
        while (messages := process.messages(LISTEN)) is not None:
            for message in messages:
                if "say" in message:
                    display.display(message["say"])
                facts = message.get("facts", facts)
            if time.monotonic() - looked < LISTEN:
                continue  # a bulk build that says much must not have the inventory looked at each time
            looked = time.monotonic()
            found = self._changed_machines(context, watch)
            if found and found != machines:
                machines = found
                process.tell({"machines": machines})
        if facts is None:
            raise BulkDied(
                "The process of the bulk build has died.",
                remedy="Start the same bulk build again: it goes on where it was.",
            )
        return facts

    def _changed_machines(self, context: StepContext, watch: InventoryWatch) -> list[dict[str, t.Any]]:
        """Return the machines of an inventory that has been changed; none when it has not, or while it is no good."""
        if not watch.changed():
            return []
        try:
            found = self._machines(StepContext(context.variables), watch.read())
        except (AnsibleError, PortbuildError, OSError) as error:
            display.warning(f"The inventory has been changed and cannot be read now: {error}")
            return []
        if not found:
            display.warning("The inventory has been changed and has no build machine now: the ones it had are used.")
        return found

    def _machines(self, context: StepContext, task_vars: dict[str, t.Any]) -> list[dict[str, t.Any]]:
        """Return the machines, best first."""
        candidates, others = self.candidates(context, task_vars)
        for name, why in others.items():
            display.warning(f"{name} gets no packages: {why}")
        return [
            {**candidate._asdict(), "tags": self.machine_settings(context, task_vars, candidate.name).tags}
            for candidate in candidates
        ]

    @staticmethod
    def _held(context: StepContext) -> dict[str, str]:
        """Return the packages that are held, with a sentence on each."""
        problems: list[str] = []
        held = {name: held.sentence(name) for name, held in read_holds(context.layout, problems).items()}
        for problem in problems:
            display.warning(problem)
        return held

    def _runner(self, context: StepContext, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Return how dispatches are to be run: as we are, and with what the play has set."""
        known = {**self._set_by_play(context, task_vars), **extra_vars(self._loader)}
        return {
            "command": playbook_command(),
            "arguments": playbook_arguments(),
            "extra_vars": {name: value for name, value in known.items() if name != "portbuild_targets"},
            "environment": environment(),
            "configuration": configuration(),
            "cwd": self._loader.get_basedir(),
        }

    @staticmethod
    def _set_by_play(context: StepContext, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Return the settings that the inventory does not have: those of the play, of roles and of tasks.

        With C(--user), this host's C(ansible_user) is that one: as an extra variable it would be every machine's.
        """
        known = task_vars["hostvars"].get(task_vars["inventory_hostname"]) or {}
        settings = {name: value for name, value in context.variables.items() if name.startswith(PREFIX)}
        return {name: value for name, value in settings.items() if known.get(name) != value}
