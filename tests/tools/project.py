# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where things are in the checkout, and how the tools speak and fail."""

from __future__ import annotations

import os
import pathlib
import sys

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache"
COLLECTIONS = CACHE / "collections"
CLUSTER = CACHE / "cluster"
VENVS = CHECKOUT / ".venv"


class ToolError(Exception):
    """A target cannot be carried out; the message says what is missing."""


def say(text: str) -> None:
    """Tell the person what goes on, in order with what the commands print."""
    print(text, flush=True)
    sys.stderr.flush()


def link_collection() -> None:
    """Make the checkout importable as ansible_collections.portbuild.cluster."""
    namespace = COLLECTIONS / "ansible_collections" / "portbuild"
    namespace.mkdir(parents=True, exist_ok=True)
    link = namespace / "cluster"
    target = os.path.relpath(CHECKOUT, namespace)
    if not link.is_symlink() or os.readlink(link) != target:
        temporary = namespace / f".cluster.{os.getpid()}"
        temporary.symlink_to(target)
        temporary.replace(link)


def environment(python: pathlib.Path | None = None) -> dict[str, str]:
    """Return the environment for commands: nothing of Ansible's from outside, no files beside the sources."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTEST_"))}
    for name in ("PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "PYENV_VERSION"):
        clean.pop(name, None)
    clean.update(
        PYTHONPATH=os.pathsep.join((str(COLLECTIONS), str(CHECKOUT / "tests"))),
        PYTHONDONTWRITEBYTECODE="1",
        ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
        ANSIBLE_HOME=str(CACHE / "ansible"),
        HYPOTHESIS_STORAGE_DIRECTORY=str(CACHE / "hypothesis"),
        LC_ALL="C.UTF-8",
    )
    if "PYTEST_ADDOPTS" in os.environ:  # how a person says which tests to run
        clean["PYTEST_ADDOPTS"] = os.environ["PYTEST_ADDOPTS"]
    if python:
        clean["PATH"] = os.pathsep.join((str(python.parent), clean.get("PATH", os.defpath)))
        clean["VIRTUAL_ENV"] = str(python.parent.parent)
    return clean
