# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guides as tests read them: their blocks of code, and the files that some of these are."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import typing as t

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
DOCS = CHECKOUT / "docs"
#: What of a collection is needed to use it.
PARTS = ("meta", "plugins", "roles", "playbooks")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"(?:#|//) (?P<path>[\w./-]+/[\w.-]+)\n")


class Block(t.NamedTuple):
    """A block of code."""

    path: pathlib.Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """Where it stands, for people."""
        return f"{self.path.relative_to(CHECKOUT)}:{self.line}"


def blocks(path: pathlib.Path) -> list[Block]:
    """Return the fenced blocks of a Markdown file."""
    whole = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(whole):
        lines = match["text"].splitlines(keepends=True)
        text = "".join(line.removeprefix(match["indent"]) for line in lines)
        found.append(Block(path, whole.count("\n", 0, match.start()) + 1, match["language"], text))
    return found


def files(path: pathlib.Path) -> dict[str, str]:
    """Return the files that a guide shows: blocks whose first line is a comment with a path."""
    named = ((_NAMED.match(block.text), block.text) for block in blocks(path))
    return {match["path"]: text[match.end() :] for match, text in named if match}


def copy_collection(collections: pathlib.Path, guide: pathlib.Path | None = None) -> pathlib.Path:
    """Install what a user has of this collection below the directory, with the guide's plugins put in; return its path."""
    target = collections / "ansible_collections" / "portbuild" / "cluster"
    for part in PARTS:
        shutil.copytree(CHECKOUT / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "galaxy.yml", target)
    if guide:
        add_plugins(target, guide)
    return target


def add_plugins(collection: pathlib.Path, guide: pathlib.Path) -> None:
    """Put the guide's plugins into the collection; none of them may replace a file."""
    for name, text in files(guide).items():
        if name.startswith("plugins/"):
            with (collection / name).open("x", encoding="utf-8") as stream:
                stream.write(text)


def add_backend(collection: pathlib.Path, guide: pathlib.Path, name: str) -> None:
    """Do with the collection all that the guide to chroot backends says, but for the documentation of modules."""
    add_plugins(collection, guide)
    utils = collection / "plugins" / "module_utils"
    _put_after(utils / "_names.py", 'BACKENDS = ("overlay", ', f'"{name}", ')
    registration = next(block.text for block in blocks(guide) if "DRIVERS = (*DRIVERS" in block.text)
    _put_after(utils / "_backends.py", "from ._backends_linux import DRIVERS, PREFERENCE\n", registration)
    tests = collection / "tests"
    tests.mkdir(exist_ok=True)
    shutil.copy(CHECKOUT / "tests" / "argument_specs.py", tests)
    python = {**os.environ, "PYTHONPATH": str(collection.parents[2])}
    subprocess.run([sys.executable, str(tests / "argument_specs.py")], env=python, check=True)


def _put_after(path: pathlib.Path, place: str, text: str) -> None:
    before = path.read_text(encoding="utf-8")
    if before.count(place) != 1:
        raise ValueError(f"{place!r} is not in {path} once")
    path.write_text(before.replace(place, place + text), encoding="utf-8")
