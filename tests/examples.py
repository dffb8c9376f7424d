# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All examples that users are shown: of plugins, roles and playbooks, and in the guides."""

from __future__ import annotations

import ast
import pathlib
import re
import shlex
import typing as t

import yaml

from .guides import Block, blocks, CHECKOUT, DOCS

PLUGINS = CHECKOUT / "plugins"
PLAYBOOKS = CHECKOUT / "playbooks"
#: What users read in Markdown.
PAGES = (CHECKOUT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(CHECKOUT.glob("roles/*/README.md")))


class Example(t.NamedTuple):
    """Something in YAML."""

    where: str
    value: t.Any


class Command(t.NamedTuple):
    """A line that a person types."""

    where: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        """What it calls."""
        return self.words[0]

    def options(self, *names: str) -> list[str]:
        """Return the values of an option."""
        words = self.words
        return [words[i + 1] for i, word in enumerate(words[:-1]) if word in names]

    def operands(self) -> list[str]:
        """Return what is neither an option nor the value of one."""
        found, skip = [], True  # the program
        for word in self.words:
            if not skip and not word.startswith("-"):
                found.append(word)
            skip = word in ("-e", "-m", "-a", "-i", "-t", "--forks")
        return found


def documented(path: pathlib.Path, name: str) -> str:
    """Return one of the texts C(DOCUMENTATION), C(EXAMPLES), C(RETURN) of a plugin or fragment, without importing it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == name for target in node.targets):
            return str(ast.literal_eval(node.value))
    return ""


def public_plugins() -> list[pathlib.Path]:
    """Return the files of all modules, lookups and inventory plugins; actions are documented by modules."""
    return sorted(
        path for kind in ("modules", "lookup", "inventory") for path in PLUGINS.joinpath(kind).glob("[!_]*.py")
    )


def plugin_examples() -> list[Example]:
    """Return the documents in the examples of plugins."""
    return [
        Example(f"{path.parent.name}/{path.name}", value)
        for path in public_plugins()
        for value in yaml.safe_load_all(documented(path, "EXAMPLES"))
        if value is not None
    ]


def page_examples() -> list[Example]:
    """Return what the pages show in YAML."""
    return [Example(block.where, value) for block in _blocks("yaml") for value in yaml.safe_load_all(block.text)]


def _blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def commands() -> list[Command]:
    """Return the lines of consoles, and those in the first comments of playbooks."""
    found = []
    for block in _blocks("console"):
        for line in re.sub(r"\\\n", " ", block.text).splitlines():
            if line.startswith("$ "):
                found.append(_command(block.where, line[2:]))
    for path in sorted(PLAYBOOKS.glob("*.yml")):
        found += [_command(f"playbooks/{path.name}", line) for line in playbook_lines(path)]
    return found


def playbook_lines(path: pathlib.Path) -> list[str]:
    """Return the examples in the comment at the top of a playbook."""
    return re.findall(r"^# {5}(ansible-playbook .*)$", path.read_text(encoding="utf-8"), re.MULTILINE)


def _command(where: str, line: str) -> Command:
    return Command(where, tuple(shlex.split(line, comments=True)))
