# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Pythons of this machine: which there are, which work, and which ansible-core each gets."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess

#: The oldest Python of a supported client, of a supported controller, and the newest that ansible-core supports.
OLDEST_CLIENT = (3, 9)
OLDEST_CONTROLLER = (3, 11)
NEWEST = (3, 14)

ASK = """
import importlib.util, json, sys
print(json.dumps([
    list(sys.version_info[:3]), sys.executable,
    all(importlib.util.find_spec(name) for name in ("venv", "ensurepip", "ctypes", "sqlite3", "ssl")),
]))
"""


@dataclasses.dataclass(frozen=True)
class Python:
    """A Python that runs."""

    version: tuple[int, int, int]
    executable: pathlib.Path
    complete: bool

    @property
    def name(self) -> str:
        """Return its version as people say it."""
        return ".".join(str(number) for number in self.version[:2])

    @property
    def core(self) -> str:
        """Return the ansible-core that it is tested with, so that each is; empty if it is for clients only."""
        if self.version[:2] < OLDEST_CONTROLLER:
            return ""
        return {(3, 11): "2.19", (3, 12): "2.20"}.get(self.version[:2], "2.21")


def candidates() -> list[str]:
    """Return where Pythons may be."""
    names = [f"python3.{minor}" for minor in range(OLDEST_CLIENT[1], NEWEST[1] + 1)]
    places = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    found = [os.path.join(place, name) for name in [*names, "python3"] for place in places]
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv", "versions")
    found += [str(path) for path in sorted(pyenv.glob("3.*/bin/python3"))]
    return list(dict.fromkeys(path for path in found if os.access(path, os.X_OK)))


def examine(path: str) -> Python | None:
    """Run the Python; return None if it does not run, as pyenv's shims for versions that are not chosen."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", ASK], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=True
        )
        version, executable, complete = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Python((version[0], version[1], version[2]), pathlib.Path(executable), complete)


def discover() -> list[Python]:
    """Return one Python of each supported version, oldest first: the first found that is complete."""
    best: dict[tuple[int, int], Python] = {}
    for path in candidates():
        python = examine(path)
        if python is None or not OLDEST_CLIENT <= python.version[:2] <= NEWEST:
            continue
        known = best.get(python.version[:2])
        if known is None or (python.complete and not known.complete):
            best[python.version[:2]] = python
    return [best[version] for version in sorted(best)]
