# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write roles/*/meta/argument_specs.yml from the table of settings.

Run it after a change of plugins/plugin_utils/_settings.py, with the collection importable; a unit test compares the two.
"""

from __future__ import annotations

import pathlib
import typing as t

import yaml

from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import ROLES, Setting, SETTINGS

# The licence of this file is that of what it writes.
LICENCE = "\n".join(pathlib.Path(__file__).read_text(encoding="utf-8").splitlines()[:3])
HEADER = f"""\
---
{LICENCE}

# Made by tests/argument_specs.py from plugins/plugin_utils/_settings.py.
# Defaults are documentation: a variable that is not set falls back to portbuild.conf first.

"""

# No "attributes": ansible-core 2.19 deprecated them in argument specs. What they would say stands in the descriptions.


def _about(short: str, *description: str) -> dict[str, t.Any]:
    return {
        "short_description": short,
        "description": list(description),
        "author": ["The portbuild.cluster authors (@portbuild)"],
        "version_added": "1.0.0",
    }


ABOUT: dict[str, dict[str, t.Any]] = {
    "dispatch": _about(
        "Build one package on the best machine that is free",
        "Claims a machine and a chroot on it, builds the package there, brings the results home, records them, cleans, "
        "and releases the machine, whatever happens.",
        "The host that it is applied to is the controller, usually C(localhost); the machines are chosen among the group "
        "C(build_machines).",
        "In check mode it says on which machine the package would be built, and changes nothing. "
        "Each run outside check mode builds the package anew.",
    ),
    "bulk": _about(
        "Build many packages in the best order",
        "Builds the targets and all that they need, each on a machine by P(portbuild.cluster.dispatch#role), as many at once as "
        "the machines take, in the order in which the whole ends soonest.",
        "It builds only what must be built. Interrupted, it goes on where it was when it is started again.",
        "In check mode it prints the plan and builds nothing. It fails unless all was built.",
    ),
    "setup": _about(
        "Prepare build machines",
        "Leaves each machine ready to build: account and sudo rule where asked for, directories, configuration, base and tree.",
        "In check mode it says what would be changed, and changes nothing. A second run in a row changes nothing.",
    ),
    "bindist": _about(
        "Make the base of a branch",
        "Makes the tarball of a clean base system on a build machine and brings it to the controller.",
        "A base that exists is left alone, unless O(portbuild_bindist_rebuild=true). "
        "In check mode it says what would be made, and changes nothing.",
    ),
    "index": _about(
        "Make the INDEX of a branch",
        "Makes the INDEX of a ports tree, and the list of duds, in a chroot on a build machine, or accepts one that is given.",
        "An INDEX that was made from the same tree, base and settings is left alone, unless O(portbuild_index_rebuild=true). "
        "In check mode it says what would be made, and changes nothing.",
        "It is made by P(portbuild.cluster.dispatch#role) as the package V(INDEX), whose settings hold for it too.",
    ),
    "control": _about(
        "Take a machine or a package out of service, or bring it back",
        "Says of a build machine that it gets no more jobs, or of a package that it is not tried, with a reason and who said so; "
        "or takes that back.",
        "The host that it is applied to is the controller, usually C(localhost).",
        "In check mode it says what would change, and changes nothing. A second run in a row changes nothing.",
    ),
    "checkmachines": _about(
        "Look after the build machines",
        "Asks each machine how it is, notes its load, takes one that cannot be reached or is unfit out of the queue, and "
        "brings one that it took out back: cleaned, checked, and, if O(portbuild_canary) is set, tried.",
        "What an administrator took out of the queue stays there.",
        "In check mode it says what would be done, and changes nothing.",
    ),
    "doctor": _about(
        "Say what is wrong with an installation, and what to do about it",
        "Looks at versions, settings, directories and the queue on the controller, and on each machine at connection, privilege, "
        "clock, disk, memory, chroot backend, bindist and tree. Each finding is a line, with the remedy beside each problem.",
        "Changes nothing. A machine that cannot be reached is a line like any other.",
    ),
    "status": _about(
        "Tell how the cluster stands",
        "Machines with jobs, load, state and reason; what runs where, in which phase, for how long and how long it usually takes, "
        "with the last line of its log; what is left on machines, and which packages are on hold.",
        "Changes nothing. A machine that does not answer within 10 seconds is told from what the controller knows.",
    ),
    "cleanup": _about(
        "Remove leases and chroots that nobody owns",
        "Collects what was left uncollected, and removes what crashes left on the controller and on the machines, and "
        "chroots kept for debugging that are too many or too old.",
        "In check mode it says what would be removed, and changes nothing. A second run in a row changes nothing.",
    ),
}


_AFTER = "For the controller, usually C(localhost), after the play on the machines. The settings are those of V(main)."

#: What a role can do besides: by role, the files of tasks that a play may ask for. V(main) has checked the settings.
FURTHER: dict[str, dict[str, dict[str, t.Any]]] = {
    "checkmachines": {
        "repeat": _about(
            "Check the machines again and again",
            "Runs the playbook in rounds, one each O(portbuild_interval), until it is ended. Does nothing if that is not set.",
            "For the controller, usually C(localhost), before the play on the machines.",
        ),
        "prove": _about(
            "Let machines that return prove themselves",
            "Builds O(portbuild_canary) on each machine that is to come back, and brings it back if it could.",
            "Sends the mail that waits, and tells hooks of machines that went or came.",
            _AFTER,
        ),
    },
    "cleanup": {
        "controller": _about(
            "Clean up on the controller",
            "Removes logs and work directories beyond their age, and sends the mail that waits.",
            _AFTER,
        ),
    },
    "doctor": {
        "report": _about(
            "Tell what is wrong with the installation",
            "Puts together what was found on the controller and on the machines, and fails if there is a problem.",
            _AFTER,
        ),
    },
    "status": {
        "report": _about(
            "Tell how the cluster stands",
            "Puts together what the controller knows and what the machines said.",
            _AFTER,
        ),
    },
}


def option(setting: Setting, role: str) -> dict[str, t.Any]:
    """Return what an argument spec says of the setting."""
    spec: dict[str, t.Any] = {"description": list(setting.description), "type": setting.kind.ansible}
    if setting.kind.elements:
        spec["elements"] = setting.kind.elements
    if setting.kind.choices:
        spec["choices"] = list(setting.kind.choices)
    if role in setting.required:
        spec["required"] = True
    elif setting.written is not None:
        spec["default"] = setting.written
    if setting.secret:
        spec["no_log"] = True
    return spec


def argument_specs(role: str) -> dict[str, t.Any]:
    """Return the argument specs of the role."""
    options = {name: option(setting, role) for name, setting in SETTINGS.items() if role in setting.roles}
    specs = {"main": {**ABOUT[role], "options": options}}
    for name, about in FURTHER.get(role, {}).items():
        # Nothing is required here: a play on the machines may know what the one on the controller does not.
        named = {"portbuild_machines", *(setting for setting in options if f"O({setting})" in str(about))}
        specs[name] = {**about, "options": {word: spec for word, spec in options.items() if word in named}}
    return {"argument_specs": specs}


class _Dumper(yaml.SafeDumper):
    """Sequences stand indented below their key, as yamllint and people like it."""

    def ignore_aliases(self, data: t.Any) -> bool:  # noqa: ARG002
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def render(role: str) -> str:
    """Return the text of the role's meta/argument_specs.yml."""
    text: str = yaml.dump(argument_specs(role), Dumper=_Dumper, sort_keys=False, width=118)
    return HEADER + text


def main() -> None:
    """Write the files of all roles."""
    roles = pathlib.Path(__file__).resolve().parents[1] / "roles"
    for role in ROLES:
        path = roles / role / "meta" / "argument_specs.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(role), encoding="utf-8")


if __name__ == "__main__":
    main()
