# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The virtual environments in .venv: made once, made anew when what they are made of changes."""

from __future__ import annotations

import fcntl
import hashlib
import pathlib
import shutil
import subprocess

from .project import CHECKOUT, say, ToolError, VENVS
from .pythons import Python

STAMP = "portbuild-made-of"


def requirement_texts(path: pathlib.Path) -> list[str]:
    """Return the requirements file and those that it names."""
    text = path.read_text(encoding="utf-8")
    texts = [text]
    for line in text.splitlines():
        if line.startswith("-r "):
            texts += requirement_texts(path.parent / line[3:].strip())
    return texts


def ensure(python: Python, purpose: str = "") -> pathlib.Path:
    """Return the Python of the environment for tests on this Python, or for a purpose: C(lint), C(docs).

    An environment without its stamp was interrupted while it was made; it is thrown away, as is one made of
    something else.
    """
    if purpose:
        name, requirements = purpose, CHECKOUT / "tests" / f"requirements-{purpose}.txt"
    elif python.core:
        name, requirements = f"{python.name}-core{python.core}", CHECKOUT / "tests" / "requirements.txt"
    else:
        name, requirements = f"{python.name}-client", CHECKOUT / "tests" / "requirements-client.txt"
    pins = [f"ansible-core=={python.core}.*"] if python.core else []
    made_of = [str(python.executable), str(python.version), *pins, *requirement_texts(requirements)]
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()

    VENVS.mkdir(exist_ok=True)
    directory = VENVS / name
    inside = directory / "bin" / "python"
    with open(VENVS / f".{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = directory / STAMP
        if stamp.exists() and stamp.read_text(encoding="ascii") == key and inside.exists():
            return inside
        say(f"Making .venv/{name} with {python.executable} ...")
        if directory.exists():
            shutil.rmtree(directory)
        make([str(python.executable), "-m", "venv", str(directory)], directory)
        pip = [str(inside), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
        make([*pip, "--requirement", str(requirements), *pins], directory)
        stamp.write_text(key, encoding="ascii")
    return inside


def make(argv: list[str], directory: pathlib.Path) -> None:
    """Run one step of making an environment."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    if done.returncode != 0:
        raise ToolError(f"{directory} cannot be made: {' '.join(argv)} says:\n{done.stdout}{done.stderr}".rstrip())
