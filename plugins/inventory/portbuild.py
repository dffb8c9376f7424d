# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inventory plugin: the original's directory of an architecture as an inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: portbuild
short_description: Build machines from mlist and portbuild.conf
version_added: 1.0.0
description:
  - Reads the directory of an architecture in its original form, C(mlist), C(portbuild.conf) and C(portbuild.<machine>),
    and yields its build machines in the group C(build_machines), in the order of C(mlist), which is best first.
  - The files are shell assignments. They are parsed and never executed. A line that is anything else is skipped with a
    warning that names file and line, and the rest counts.
  - Every setting that the files give a machine becomes its host variable, with the prefix C(portbuild_); the settings
    of the whole architecture become variables of all hosts, the controller included. A value that cannot be used is
    warned about and left out; a dispatch that needs it says why it is refused.
  - C(client_user) becomes C(ansible_user), or V(root) where it is not set. C(sudo_cmd) becomes C(ansible_become),
    C(ansible_become_method), C(ansible_become_exe) and C(ansible_become_flags); if it is empty nothing is become.
    The flag V(-n) is always among the flags, so that there is never a prompt.
  - C(doas) is run through the P(ansible.builtin.sudo#become) plugin, with C(doas) for its executable. The two take the
    same arguments, and ansible-core has no plugin for C(doas).
  - All hosts, and the controller, get C(portbuild_root), C(portbuild_arch) and, where it is given, C(portbuild_branch).
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - ansible.builtin.constructed
options:
  plugin:
    description: Says that the file is for this plugin.
    type: str
    required: true
    choices:
      - portbuild.cluster.portbuild
  root:
    description:
      - The directory that the architectures are in; it becomes C(portbuild_root).
      - A relative path is taken from the directory that the inventory file is in.
    type: str
    required: true
  arch:
    description: The architecture whose directory is read; it becomes C(portbuild_arch).
    type: str
    required: true
  branch:
    description: The release line; it becomes C(portbuild_branch), unless something stronger sets that.
    type: str
seealso:
  - plugin: ansible.builtin.sudo
    plugin_type: become
"""

EXAMPLES = r"""
---
# File portbuild.yml. Its name must end in portbuild.yml or portbuild.yaml.
plugin: portbuild.cluster.portbuild
root: /var/portbuild
arch: amd64

---
# The machines of a site by rack, under addresses that differ from their names.
plugin: portbuild.cluster.portbuild
root: /var/portbuild
arch: debian-amd64
branch: bookworm
compose:
  ansible_host: inventory_hostname ~ '.example.org'
keyed_groups:
  - key: inventory_hostname[:2]
    prefix: rack
"""

import os
import typing as t

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible.template import trust_as_template
from ansible.utils.display import Display

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.module_utils._names import check_branch
from ansible_collections.portbuild.cluster.plugins.plugin_utils._conf import load_directory, Problem
from ansible_collections.portbuild.cluster.plugins.plugin_utils._inventory import (
    GROUP,
    machine_variables,
    shared_variables,
)

display = Display()


def _readable(value: t.Any) -> t.Any:
    """Keep ansible-inventory from wrapping each string in a mark of distrust.

    Strings with a brace keep it: what stands in the files is data, and no template in it is ever evaluated.
    """
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) and "{" not in value else value


class InventoryModule(BaseInventoryPlugin, Constructable):
    """The machines of an architecture, best first."""

    NAME = "portbuild.cluster.portbuild"

    def verify_file(self, path: str) -> bool:
        """Return whether the file is meant for this plugin."""
        return bool(super().verify_file(path)) and path.endswith(("portbuild.yml", "portbuild.yaml"))

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        """Fill the inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        root = os.path.join(os.path.dirname(os.path.abspath(path)), os.path.expanduser(self.get_option("root")))
        try:
            self._fill(os.path.normpath(root))
        except PortbuildError as error:
            raise AnsibleParserError(f"{path}: {error}") from error

    def _fill(self, root: str) -> None:
        config = load_directory(root, self.get_option("arch"))
        if not config.has_mlist:
            raise PortbuildError(
                f"There is no {config.mlist}.", remedy="It names the build machines, one per line, best first."
            )
        variables, problems = shared_variables(config)
        variables["portbuild_root"] = root
        if self.get_option("branch"):
            variables["portbuild_branch"] = check_branch(self.get_option("branch"))
        self._set("all", variables, problems)
        self.inventory.add_group(GROUP)
        for machine in config.machines:
            self.inventory.add_host(machine, group=GROUP)
            self._set(machine, *machine_variables(config, machine))
            self._construct(machine)

    def _set(self, entity: str, variables: dict[str, t.Any], problems: list[Problem]) -> None:
        for problem in problems:
            display.warning(str(problem))
        for name, value in variables.items():
            self.inventory.set_variable(entity, name, _readable(value))

    def _construct(self, machine: str) -> None:
        known = self.inventory.get_host(machine).get_vars()
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), known, machine, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), known, machine, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, machine, strict=strict)
