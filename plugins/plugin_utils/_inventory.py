# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The host variables that an original directory gives a build machine."""

from __future__ import annotations

import posixpath
import re
import typing as t

from ._conf import ArchConfig, Conf, Problem, Value
from ._settings import DEFAULT_USER, Setting, SETTINGS, unknown_in_conf

GROUP = "build_machines"
SUDO = "ansible.builtin.sudo"


def shared_variables(config: ArchConfig) -> tuple[dict[str, t.Any], list[Problem]]:
    """Return the variables of the controller and all machines, and what is wrong with the files of the arch."""
    problems = [*config.problems, *unknown_in_conf(config.conf)]
    variables = {"portbuild_arch": config.arch, **_variables((config.conf,), problems, of_machines=False)}
    return variables, problems


def machine_variables(config: ArchConfig, machine: str) -> tuple[dict[str, t.Any], list[Problem]]:
    """Return the machine's variables, and what is wrong with its file.

    A setting that cannot be used has no variable, so that whoever resolves it meets the file and its error.
    """
    own = config.for_machine(machine)
    problems = [*own.problems, *unknown_in_conf(own, of_machine=True)]
    variables = _variables((own, config.conf), problems, of_machines=True)
    client_user = variables.get("portbuild_client_user", DEFAULT_USER)
    variables.update(connection_variables(client_user, variables.get("portbuild_sudo_cmd", "")))
    if variables["ansible_user"] != DEFAULT_USER and not variables["ansible_become"]:
        message = f"{machine} is logged in to as {variables['ansible_user']}, but sudo_cmd does not say how that becomes root."
        problems.append(Problem(config.directory, message))
    return variables, problems


def _variables(files: tuple[Conf, ...], problems: list[Problem], *, of_machines: bool) -> dict[str, t.Any]:
    """Return the variables of the files, strongest first; add what cannot be used to the problems."""
    variables: dict[str, t.Any] = {}
    for setting in SETTINGS.values():
        value = _effective(files, setting) if (setting.scope == "machine") == of_machines else None
        if value is None:
            continue
        try:
            variables[setting.name] = setting.kind.plain(value.text)
        except ValueError:
            message = f"{setting.name} cannot be {value.text!r:.80}; expected {setting.kind.expected}."
            problems.append(Problem(value.where, message, (setting.name,)))
    return variables


def _effective(files: tuple[Conf, ...], setting: Setting) -> Value | None:
    """Return what the files say, unless the strongest that says anything cannot be read."""
    for file in files:
        for name in setting.conf_names:
            if name in file.broken:
                return None
            value = file.values.get(name)
            if value is not None and (value.text or setting.kind.empty):
                return value
    return None


def connection_variables(client_user: str, sudo_cmd: str) -> dict[str, t.Any]:
    """Return how Ansible logs in and becomes root: client_user and sudo_cmd in its terms.

    C(doas) has no become plugin in ansible-core, but takes what the one for sudo gives it: flags, C(-u root), a command.
    """
    variables: dict[str, t.Any] = {"ansible_user": client_user, "ansible_become": bool(sudo_cmd)}
    if sudo_cmd:
        command, *flags = sudo_cmd.split()
        is_sudo = posixpath.basename(command) == "sudo"
        if not any(re.fullmatch(r"--non-interactive|-[A-Za-z]*n[A-Za-z]*", flag) for flag in flags):
            flags.append("-n")
        if is_sudo and not any(re.fullmatch(r"--set-home|-[A-Za-z]*H[A-Za-z]*", flag) for flag in flags):
            flags.insert(0, "-H")
        variables["ansible_become_method"] = SUDO
        variables["ansible_become_user"] = "root"
        variables["ansible_become_exe"] = command
        variables["ansible_become_flags"] = " ".join(flags)
    return variables
