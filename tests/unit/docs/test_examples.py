# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever users are shown can be used: plays pass ansible-playbook's syntax check, settings, playbooks, files exist."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import typing as t

import pytest
import yaml

from ansible_collections.portbuild.cluster.plugins.module_utils._machine import summary
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import PREFIX, resolve, SETTINGS
from ansible_collections.portbuild.cluster.tests import examples
from ansible_collections.portbuild.cluster.tests.examples import Command, Example
from ansible_collections.portbuild.cluster.tests.guides import blocks, CHECKOUT, DOCS

MODULES = {path.stem: path for path in (CHECKOUT / "plugins" / "modules").glob("*.py")}
NAMES = {path.stem for path in examples.PLAYBOOKS.glob("*.yml")}
ROLES = {path.name for path in (CHECKOUT / "roles").iterdir()}
COMMANDS = examples.commands()
SHOWN = [*examples.plugin_examples(), *examples.page_examples()]
#: Words that begin with portbuild_ and are no settings, and why not.
OTHER_WORDS = {
    "portbuild_client": "the account of the test bed",
    "portbuild_event": "what the tasks of portbuild_hook_tasks are told",
}
#: What the guides add to the collection.
ADDED = {"portbuild_system": "plain", "portbuild_chroot_backend": "copy"}


def is_inventory(value: t.Any) -> bool:
    return isinstance(value, dict) and "all" in value


def where(example: Example | Command | pathlib.Path) -> str:
    return str(example.relative_to(CHECKOUT)) if isinstance(example, pathlib.Path) else example.where


def of_type(kind: t.Callable[[t.Any], bool]) -> list[Example]:
    return [example for example in SHOWN if kind(example.value)]


PLAYS = of_type(lambda value: isinstance(value, list) and "hosts" in value[0])
TASKS = of_type(lambda value: isinstance(value, list) and "hosts" not in value[0])
INVENTORIES = of_type(is_inventory)
VARIABLES = of_type(lambda value: isinstance(value, dict) and all(str(name).startswith(PREFIX) for name in value))


def check_settings(values: t.Mapping[str, t.Any], place: str) -> None:
    """Fail unless these are settings that have such values."""
    ours = {name: value for name, value in values.items() if name.startswith(PREFIX)}
    assert set(ours) <= set(SETTINGS), place
    plain = {
        name: value.replace("$HOME", "/home/me") if isinstance(value, str) else value
        for name, value in ours.items()
        if "{{" not in str(value) and ADDED.get(name) != value
    }
    resolve({"portbuild_root": "/srv/portbuild", "portbuild_arch": "amd64", "portbuild_branch": "15", **plain}, None)


# -- plays -------------------------------------------------------------------------------------------------------------


def test_ansible_playbook_understands_all_plays_and_inventories(tmp_path: pathlib.Path) -> None:
    """All in one process: starting it costs more than all that it reads."""
    plays = [play for example in PLAYS for play in example.value]
    plays += [{"name": example.where, "hosts": "all", "tasks": example.value} for example in TASKS]
    path = tmp_path / "examples.yml"
    path.write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
    argv = ["ansible-playbook", "--syntax-check", str(path), *(f"portbuild.cluster.{name}" for name in sorted(NAMES))]
    for number, example in enumerate(INVENTORIES):
        inventory = tmp_path / f"inventory{number}.yml"
        inventory.write_text(yaml.safe_dump(example.value, sort_keys=False), encoding="utf-8")
        argv += ["-i", str(inventory)]
    done = subprocess.run(
        [str(pathlib.Path(sys.executable).parent / argv[0]), *argv[1:]],
        env={**os.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "ANSIBLE_NOCOLOR": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    assert done.stdout.count("playbook:") == 1 + len(NAMES)


def test_there_are_examples_of_each_kind() -> None:
    assert len(PLAYS) >= len(ROLES)
    assert len(TASKS) >= len(MODULES) - 1
    assert len(INVENTORIES) >= 3
    assert VARIABLES
    assert len(COMMANDS) >= 50


@pytest.mark.parametrize("path", examples.public_plugins(), ids=where)
def test_each_plugin_has_examples(path: pathlib.Path) -> None:
    assert [example for example in SHOWN if example.where == f"{path.parent.name}/{path.name}"]


@pytest.mark.parametrize("role", sorted(ROLES))
def test_each_role_has_an_example(role: str) -> None:
    (play,) = [example.value[0] for example in PLAYS if example.where.startswith(f"roles/{role}/")]
    entries = play.get("roles") or [{"role": task["ansible.builtin.import_role"]["name"]} for task in play["tasks"]]
    assert entries[0]["role"] == f"portbuild.cluster.{role}"
    check_settings(entries[0], role)


@pytest.mark.parametrize("example", TASKS, ids=where)
def test_tasks_use_options_that_exist(example: Example) -> None:
    for task in example.value:
        for name, arguments in task.items():
            module = str(name).removeprefix("portbuild.cluster.")
            if module != name:
                documentation = yaml.safe_load(examples.documented(MODULES[module], "DOCUMENTATION"))
                known = {*documentation.get("options", {}), *_of_fragments(documentation)}
                assert set(arguments or {}) <= known, f"{example.where}: {task['name']}"
        check_settings(task.get("vars") or {}, example.where)


def _of_fragments(documentation: t.Mapping[str, t.Any]) -> set[str]:
    found: set[str] = set()
    for fragment in documentation.get("extends_documentation_fragment", []):
        name, _dot, part = str(fragment).removeprefix("portbuild.cluster.").partition(".")
        path = CHECKOUT / "plugins" / "doc_fragments" / f"{name}.py"
        text = examples.documented(path, part.upper() or "DOCUMENTATION")
        found |= set(yaml.safe_load(text).get("options", {}))
    return found


def test_tasks_are_for_modules_that_exist() -> None:
    used = {str(name) for example in TASKS for task in example.value for name in task}
    ours = {name.removeprefix("portbuild.cluster.") for name in used if name.startswith("portbuild.cluster.")}
    assert ours == set(MODULES)


@pytest.mark.parametrize("example", INVENTORIES, ids=where)
def test_inventories_have_settings_that_exist(example: Example) -> None:
    def look(value: t.Any) -> None:
        if isinstance(value, dict):
            check_settings(value, example.where)
            for part in value.values():
                look(part)

    look(example.value)


@pytest.mark.parametrize("example", VARIABLES, ids=where)
def test_variables_are_settings(example: Example) -> None:
    check_settings(example.value, example.where)


@pytest.mark.parametrize("example", of_type(lambda value: isinstance(value, dict) and "plugin" in value), ids=where)
def test_inventory_files_have_options_of_the_plugin(example: Example) -> None:
    path = CHECKOUT / "plugins" / "inventory" / "portbuild.py"
    options = yaml.safe_load(examples.documented(path, "DOCUMENTATION"))["options"]
    assert set(example.value) <= {*options, "compose", "groups", "keyed_groups", "strict"}
    assert {name for name, option in options.items() if option.get("required")} <= set(example.value)


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_playbook_says_how_it_is_started(name: str) -> None:
    lines = examples.playbook_lines(examples.PLAYBOOKS / f"{name}.yml")
    assert lines
    assert all(line.split()[1] == f"portbuild.cluster.{name}" for line in lines)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.program == "ansible-playbook"], ids=where)
def test_ansible_playbook_is_given_playbooks_and_settings_that_exist(command: Command) -> None:
    for playbook in command.operands():
        ours = playbook.removeprefix("portbuild.cluster.")
        assert ours in NAMES if ours != playbook else playbook.endswith(".yml"), command
    check_settings(extra_variables(command), command.where)


def extra_variables(command: Command) -> dict[str, t.Any]:
    found: dict[str, t.Any] = {}
    for text in command.options("-e", "--extra-vars"):
        if text.startswith("{"):
            found.update(json.loads(text))
        elif not text.startswith("@"):
            found.update(word.split("=", 1) for word in re.findall(r"\w+=.*", text))
    return found


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.program == "ansible"], ids=where)
def test_ansible_is_given_modules_that_exist(command: Command) -> None:
    for module in command.options("-m"):
        assert module.removeprefix("portbuild.cluster.") in MODULES or module.startswith("ansible.builtin."), command
    check_settings(extra_variables(command), command.where)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.program == "make"], ids=where)
def test_make_is_given_targets_that_exist(command: Command) -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    for target in command.operands():
        assert "=" in target or f"'make {target} " in makefile, command


def test_the_readme_shows_what_machine_info_says() -> None:
    (shown,) = [
        json.loads(f"{{{block.text}}}") for block in blocks(CHECKOUT / "README.md") if '"summary"' in block.text
    ]
    others = {
        "directory": "usable, but overlay is preferred",
        "tmpfs": "usable, but takes memory: only when asked for",
    }
    facts = {
        "hostname": "client1",
        "fit": True,
        "unfit": [],
        "load": [0.42, 0.61, 0.57],
        "cores": 2,
        "memory": {"available": 22.1 * 2**30, "total": 23.5 * 2**30},
        "scratch": {"free": 64.2 * 2**30, "total": 252 * 2**30, "path": "/srv/portbuild"},
        "backend": {"chosen": "overlay", "others": others},
        "memory_control": "cgroup1",
        "maxjobs": 1,
        "bases": [{"sha256": "5b1bfb42823ce751b849801bdfeb91127edd3b6514063203f76b29f2bb9700c2", "bytes": 578895872}],
        **{name: [] for name in ("jobs", "chroots", "strays", "trees")},
    }
    assert shown == {"fit": True, "summary": summary(facts)}


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", examples.PAGES, ids=where)
def test_pages_name_settings_playbooks_and_plugins_that_exist(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    words = set(re.findall(r"\bportbuild_\w*[a-z0-9]\b(?![*…])", text))
    assert words <= set(SETTINGS) | set(OTHER_WORDS)
    plugins = {path.stem for path in (CHECKOUT / "plugins").glob("[ail]*/*.py")}
    public = {f"portbuild.cluster.{name}" for name in {*NAMES, *ROLES, *MODULES, *plugins}}
    assert set(re.findall(r"\bportbuild\.cluster\.[a-z]\w*", text)) <= public


@pytest.mark.parametrize("page", examples.PAGES, ids=where)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            path, _hash, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def anchors(page: pathlib.Path) -> set[str]:
    """Return the anchors of the headings, as GitHub and Sphinx make them."""
    titles = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_index_names_each_guide() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    guides = {path.name for path in DOCS.glob("*.md")} - {"index.md"}
    assert guides == set(re.findall(r"\]\(([\w-]+\.md)\)", index))
