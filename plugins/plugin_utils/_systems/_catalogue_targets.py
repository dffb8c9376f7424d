# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What targets stand for, whatever the package system; and what is told to people of a catalogue."""

from __future__ import annotations

import difflib
import typing as t

from ...module_utils._errors import PortbuildError

EVERYTHING = "all"
_CATEGORY = "-all"
_SHOWN = 100  # problems; the rest is counted
_NEAREST = 10  # targets whose nearest names are looked for: among tens of thousands that takes a while
_LENGTH = 300  # characters of a problem


class Complaints:
    """What is odd, as many lines of it as a person reads."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more = 0

    def add(self, line: str) -> None:
        """Note something."""
        if len(self._lines) < _SHOWN:
            line = " ".join(line.split())
            self._lines.append(line if len(line) <= _LENGTH else f"{line[:_LENGTH]}...")
        else:
            self._more += 1

    def count(self, more: int) -> None:
        """Note that there is more of which nobody is told what."""
        self._more += more

    def lines(self) -> tuple[str, ...]:
        """Return the lines."""
        return (*self._lines, f"{self._more} more such lines.") if self._more else tuple(self._lines)


class Shelf(t.Protocol):
    """What targets are looked up in."""

    def everything(self) -> t.Iterable[str]:
        """Return the names of all packages that C(all) stands for."""

    def find(self, target: str) -> str:
        """Return the name of the package that is meant, empty for none; raise PortbuildError where it cannot be had."""

    def category(self, name: str) -> t.Iterable[str]:
        """Return the names of the packages of a category."""

    def names(self, target: str) -> t.Iterable[str]:
        """Return the names that the target may be a misspelling of."""


def look_up(targets: t.Iterable[str], shelf: Shelf) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the names that the targets stand for, sorted; and the targets that are nothing, with a message each."""
    chosen: set[str] = set()
    unknown: dict[str, str] = {}
    for target in dict.fromkeys(targets):
        try:
            found = _found(target, shelf)
        except PortbuildError as error:
            unknown[target] = f"{error.message} {error.remedy}".rstrip()
            continue
        if found:
            chosen.update(found)
        else:
            unknown[target] = _nothing(target, shelf, hint=len(unknown) < _NEAREST)
    return tuple(sorted(chosen)), unknown


def _found(target: str, shelf: Shelf) -> t.Collection[str]:
    if target == EVERYTHING:
        return list(shelf.everything())
    name = shelf.find(target)
    if name:
        return [name]
    return list(shelf.category(target.removesuffix(_CATEGORY))) if target.endswith(_CATEGORY) else []


def _nothing(target: str, shelf: Shelf, *, hint: bool) -> str:
    if target == EVERYTHING:
        return "There is no package at all."
    what = "category" if target.endswith(_CATEGORY) else "package"
    near = difflib.get_close_matches(target, sorted(shelf.names(target)), 3) if hint else []
    return f"There is no {what} {target!r:.200}." + (f" Did you mean {' or '.join(near)}?" if near else "")


def closure(start: t.Iterable[str], needs: t.Callable[[str], t.Iterable[str]]) -> list[str]:
    """Return these and all that they need, sorted."""
    seen = set(start)
    left = list(seen)
    while left:
        for name in needs(left.pop()):
            if name not in seen:
                seen.add(name)
                left.append(name)
    return sorted(seen)
