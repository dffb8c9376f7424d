# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the ansible-playbook that we are in was started with, so that others can be started like it."""

from __future__ import annotations

import collections.abc as c
import configparser
import os
import pathlib
import sys
import typing as t

from ansible import constants
from ansible import context as cli
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.vars import host_group_vars
from ansible.utils.vars import load_extra_vars
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ..module_utils._errors import PortbuildError

_MOST_FILES = 10000  # of one directory of an inventory that are watched

_PROMPTS = {
    "ask_pass": "--ask-pass",
    "become_ask_pass": "--ask-become-pass",
    "ask_vault_pass": "--ask-vault-pass",
}
_OPTIONS = (
    "connection",
    "ssh_common_args",
    "sftp_extra_args",
    "scp_extra_args",
    "ssh_extra_args",
    "become_method",
    "become_user",
)


class NoPrompts(PortbuildError):
    """Somebody would have to be asked for a password, again and again."""


def playbook_command() -> str:
    """Return the path of the ansible-playbook that belongs to this Python."""
    beside = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
    main = sys.argv[0] if os.path.basename(sys.argv[0]) == "ansible-playbook" else ""
    return os.path.abspath(main) if main and os.path.exists(main) else beside


def playbook_arguments() -> list[str]:
    """Return the arguments, with absolute paths; raises NoPrompts for what would ask for a password."""
    args = cli.CLIARGS
    for name, flag in _PROMPTS.items():
        if args.get(name):
            raise NoPrompts(
                f"A bulk build cannot be started with {flag}: each of its dispatches would ask again.",
                remedy="Use keys with an ssh agent, sudo without a password, and a vault password file.",
            )
    found = [
        f"--inventory={source if _is_list(source) else os.path.abspath(source)}"
        for source in args.get("inventory") or ()
    ]
    for identity in args.get("vault_ids") or ():
        label, _at, source = identity.rpartition("@")
        if source in ("prompt", "prompt_ask_vault_pass"):
            raise NoPrompts("A bulk build cannot ask for a vault password.", remedy="Use a vault password file.")
        found.append(f"--vault-id={label}@{_absolute(source)}" if label else f"--vault-id={_absolute(source)}")
    found += [f"--vault-password-file={_absolute(path)}" for path in args.get("vault_password_files") or ()]
    for name in ("become_password_file", "connection_password_file"):
        if args.get(name):
            found.append(f"--{name.replace('_', '-')}={_absolute(args[name])}")
    if args.get("remote_user"):
        found.append(f"--user={args['remote_user']}")
    if args.get("private_key_file"):
        found.append(f"--private-key={_absolute(args['private_key_file'])}")
    if args.get("become"):
        found.append("--become")
    found += [f"--{name.replace('_', '-')}={args[name]}" for name in _OPTIONS if args.get(name)]
    if args.get("timeout"):
        found.append(f"--timeout={args['timeout']}")
    return found


def _is_list(source: str) -> bool:
    """Whether the inventory is a list of hosts rather than a path."""
    return "," in source


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def environment() -> dict[str, str]:
    """Return the environment for a run that mostly waits, but for ANSIBLE_CONFIG: see configuration()."""
    return {
        "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(map(str, constants.COLLECTIONS_PATHS)),
        "ANSIBLE_HOST_KEY_CHECKING": str(constants.HOST_KEY_CHECKING),
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
        "ANSIBLE_FORCE_COLOR": "False",
        "ANSIBLE_NOCOLOR": "True",
        # In AWX this one is ansible-runner's own, and the inner ansible-runner would put its own around it for ever.
        "ANSIBLE_STDOUT_CALLBACK": "default",
    }


def configuration() -> str:
    """Return the configuration in force, and that whoever waits need not look around 1,000 times a second.

    That can only be said in a file: 3.3 percent of a core for each run that waits become 0.3.
    """
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    file = constants.CONFIG_FILE
    if file:
        parser.read_string(pathlib.Path(file).read_text(encoding="utf-8"))
        _make_absolute(parser, os.path.dirname(os.path.abspath(file)))
    if not parser.has_section("defaults"):
        parser.add_section("defaults")
    if not parser.has_option("defaults", "internal_poll_interval"):
        parser.set("defaults", "internal_poll_interval", "0.05")
    lines = []
    for section in parser.sections():
        lines.append(f"[{section}]")
        lines += [f"{name} = {value}".replace("\n", "\n  ") for name, value in parser.items(section)]
    return "\n".join(lines) + "\n"


def _make_absolute(parser: configparser.RawConfigParser, base: str) -> None:
    """Make the paths in the configuration absolute: they count from where the file stands."""
    for definition in constants.config.get_configuration_definitions().values():
        if definition.get("type") not in ("path", "pathlist", "pathspec", "tmppath", "tmp"):
            continue
        separator = {"pathlist": ",", "pathspec": os.pathsep}.get(str(definition["type"]), "")
        for entry in definition.get("ini") or ():
            if not parser.has_option(entry["section"], entry["key"]):
                continue
            value = parser.get(entry["section"], entry["key"])
            parts = value.split(separator) if separator else [value]
            parser.set(
                entry["section"], entry["key"], (separator or "").join(_from(base, part.strip()) for part in parts)
            )


def _from(base: str, path: str) -> str:
    return path if not path or path.startswith(("/", "~", "$", "{{")) else os.path.join(base, path)


def extra_vars(loader: DataLoader) -> dict[str, t.Any]:
    """Return the extra variables of the command line, merged as Ansible does."""
    return dict(load_extra_vars(loader))


class InventoryWatch:
    """Sees that the inventory has been changed, and reads it anew."""

    def __init__(self, loader: DataLoader, more: c.Iterable[str]) -> None:
        self._loader = loader
        self._sources = [
            source if _is_list(source) else os.path.abspath(source) for source in cli.CLIARGS.get("inventory") or ()
        ]
        self._more = list(more)
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether a file of the inventory, or one of the others that count, has changed since the last call."""
        before, self._seen = self._seen, self._look()
        return before != self._seen

    def read(self) -> dict[str, t.Any]:
        """Return C(groups) and C(hostvars) as they are now; raises AnsibleError if they cannot be read."""
        host_group_vars.NAK.clear()
        host_group_vars.FOUND.clear()  # which files there are is asked once in the life of a process
        loader = DataLoader()
        loader.set_vault_secrets(self._loader._vault.secrets)
        inventory = InventoryManager(loader=loader, sources=self._sources)
        manager = VariableManager(loader=loader, inventory=inventory)
        return {"groups": inventory.get_groups_dict(), "hostvars": HostVars(inventory, manager, loader)}

    def _look(self) -> list[tuple[str, int, int]]:
        found = []
        for path in (*self._sources, *self._more):
            beside = [os.path.join(os.path.dirname(path), name) for name in ("group_vars", "host_vars")]
            for place in (path, *beside):
                found += [_stamp(place), *(_stamp(entry) for entry in sorted(_entries(place)))]
        return found


def _entries(path: str) -> list[str]:
    """Return the files below a directory of an inventory; what else there is, is told by the directories' own times."""
    return [os.path.join(top, name) for top, _directories, names in os.walk(path) for name in names][:_MOST_FILES]


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return path, 0, 0
    return path, status.st_mtime_ns, status.st_size
