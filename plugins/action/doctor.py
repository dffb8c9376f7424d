# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action doctor: what is wrong with the controller, or with one machine, and all of it together as a report."""

from __future__ import annotations

import importlib.metadata
import platform
import typing as t

from ansible import constants
from ansible.errors import AnsibleError
from ansible.release import __version__ as ansible_version

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _doctor
from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import inventory_machines
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._doctor import CONTROLLER, Finding
from ansible_collections.portbuild.cluster.plugins.plugin_utils._looking import current_tarballs, look, wishes
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import given_client_user, SETTINGS
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import MachineUnreachable, StepAction
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import get_system, system_names

Facts = dict[str, t.Any]
Examined = tuple[StepContext | None, list[Finding]]


class ActionModule(StepAction):
    """Examine, and never fail for what is found."""

    ARGUMENTS: t.ClassVar[Facts] = {
        "examine": {"type": "str", "required": True, "choices": ["machine", "controller"]},
        "findings": {"type": "list", "elements": "dict", "default": []},
        "missing": {"type": "list", "elements": "str", "default": []},
    }

    def step(self, arguments: Facts, task_vars: Facts) -> Facts:
        if arguments["examine"] == "machine":
            return _result(self._machine(str(task_vars["inventory_hostname"]), task_vars))
        findings = self._controller(task_vars)
        findings += [_doctor.finding(found) for found in arguments["findings"]]
        findings += [
            Finding(name, "PROBLEM", "It could not be examined.", "See the messages of its tasks.")
            for name in arguments["missing"]
        ]
        return _result(findings)

    def _context(self, subject: str, task_vars: Facts, machine: str | None) -> Examined:
        """Return what holds there, if the settings allow for it, and what is wrong with them."""
        findings: list[Finding] = []
        variables: Facts = {}
        for name, value in task_vars.items():
            if name.startswith("portbuild_") or name == "ansible_user":
                try:
                    variables[name] = self._templar.template(value)
                except AnsibleError as error:
                    findings.append(
                        Finding(subject, "PROBLEM", f"{name} has no value: {error}", "Correct its template.")
                    )
        findings += _doctor.variables(subject, variables)
        variables = {name: value for name, value in variables.items() if name in SETTINGS or name == "ansible_user"}
        for last in (False, True):
            try:
                return StepContext(variables, variables, machine=machine), findings
            except PortbuildError as error:
                if not last:  # else it has been said, or nothing can be looked at without it
                    findings += _doctor.bad_settings(subject, error)
                variables.update(_doctor.defaults(error))
        return None, findings

    # -- a machine -------------------------------------------------------------------------------------------------

    def _machine(self, machine: str, task_vars: Facts) -> list[Finding]:
        context, findings = self._context(machine, task_vars, machine)
        if context is None:
            return findings
        settings = context.settings
        user = given_client_user(context.variables, context.config, machine, context.variables)
        self.log_in(task_vars, machine, user, settings.sudo_cmd)
        try:
            facts = look(
                self,
                wishes(settings, current_tarballs(context)),
                task_vars,
                machine=machine,
                max_clock_offset=settings.max_clock_offset,
                limit=settings.check_timeout,
            )
        except MachineUnreachable as error:
            return [*findings, _doctor.unreachable(machine, str(error), settings.client_user)]
        except (PortbuildError, AnsibleError) as error:
            return [*findings, _doctor.unable(machine, str(error))]
        return [*findings, *_doctor.machine_facts(machine, facts, max_clock_offset=settings.max_clock_offset)]

    # -- the controller --------------------------------------------------------------------------------------------

    def _controller(self, task_vars: Facts) -> list[Finding]:
        context, findings = self._context(CONTROLLER, task_vars, None)
        findings += _doctor.versions(_programs("" if context is None else context.settings.system))
        if context is None:
            return findings
        inventory = inventory_machines(task_vars)
        findings += _doctor.conf_files(context.config, inventory)
        findings += _doctor.directories(context.layout)
        findings.append(_doctor.space(context.layout, context.settings.min_free))
        findings += _doctor.branch(context)

        def maxjobs(machine: str) -> int:
            return self.maxjobs(context, task_vars, machine)

        findings += _doctor.machines(context, inventory, maxjobs, int(constants.DEFAULT_FORKS))
        return findings


def _programs(system: str) -> list[_doctor.Program]:
    return [
        _doctor.Program("ansible-core", ansible_version, "2.19"),
        _doctor.Program("Python", platform.python_version(), "3.11"),
        _doctor.Program("ansible-runner", _installed("ansible-runner"), "2.4.0", needed=False),
        *(
            _doctor.Program(library, _installed(library), oldest, needed=name == system)
            for name in system_names()
            for library, oldest in get_system(name).libraries.items()
        ),
    ]


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _result(findings: list[Finding]) -> Facts:
    problems = sum(found.level == "PROBLEM" for found in findings)
    return {
        "changed": False,
        "problems": problems,
        "findings": [found.to_dict() for found in findings],
        "lines": _doctor.report(findings),
        "msg": _doctor.summary(findings),
    }
