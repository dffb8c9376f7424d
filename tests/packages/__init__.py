# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real packages of the Debian archive, with what they need among themselves, for whatever builds in bulk.

They are in packages.yml, each behind those that it needs: every beginning of the list is complete. So a short run takes
the first few. C(make demo) takes the first DEMO.
"""

from __future__ import annotations

import pathlib
import typing as t

import yaml

LIST = pathlib.Path(__file__).with_name("packages.yml")
#: How many of the list the demonstration builds.
DEMO = 10


class BadList(Exception):
    """The list cannot be used; the message names the package."""


class Package(t.NamedTuple):
    """One source package."""

    name: str
    why: str
    #: The others of the list whose binary packages its build installs, be it for what the build itself asks for.
    needs: frozenset[str]
    #: Processor time of its build: see packages.yml.
    seconds: float


def load(path: pathlib.Path = LIST) -> list[Package]:
    """Return all packages, each behind those that it needs."""
    found: list[Package] = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["packages"]:
        package = Package(entry["name"], entry["why"], frozenset(entry["needs"]), float(entry["seconds"]))
        names = {other.name for other in found}
        if package.name in names:
            raise BadList(f"{package.name} is in {path} twice.")
        if package.needs - names:
            raise BadList(f"{package.name} needs {', '.join(sorted(package.needs - names))}, not before it in {path}.")
        found.append(package)
    return found


def first(number: int) -> list[Package]:
    """Return so many of them."""
    found = load()
    if not 0 < number <= len(found):
        raise BadList(f"There are {len(found)} packages in {LIST}, not {number}.")
    return found[:number]


def levels(packages: t.Iterable[Package]) -> dict[str, int]:
    """Return how many packages each has below it in one line, itself counted."""
    found: dict[str, int] = {}
    for package in packages:
        found[package.name] = 1 + max((found[name] for name in package.needs), default=0)
    return found


def longest(packages: t.Iterable[Package], seconds: t.Mapping[str, float]) -> float:
    """Return the seconds of the line that takes longest: no number of machines is faster."""
    found: dict[str, float] = {}
    for package in packages:
        found[package.name] = seconds[package.name] + max((found[name] for name in package.needs), default=0.0)
    return max(found.values(), default=0.0)
