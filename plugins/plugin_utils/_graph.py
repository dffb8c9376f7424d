# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Packages and what they need to be built: order, cycles, what is missing, and how long it takes at least.

Nothing here recurses, and each walk is linear in packages and edges: a whole tree has tens of thousands of packages
and hundreds of thousands of edges.
"""

from __future__ import annotations

import collections.abc as c
import difflib
import heapq
import math

from ..module_utils._errors import PortbuildError
from ._index import some

_UNKNOWN = 1.0  # second; what a package counts when no package has a history: then the longest chain counts


class NamedTwice(PortbuildError):
    """Two packages have one name."""


class UnknownPackage(PortbuildError):
    """A package that is not in the graph."""


class Graph:
    """Packages by number, in the order of their names, so that a tie between numbers is a tie by name.

    C(needs[n]) are the packages that package I(n) needs, C(needed_by[n]) those that need it. C(missing) has for each
    package what it needs and nobody has; C(cycles) the sets of packages that need each other. C(reasons) says why a
    package cannot be built for one of these two; what needs such a package cannot be built either, and is not in it.
    """

    def __init__(self, packages: c.Iterable[tuple[str, c.Iterable[str]]]) -> None:
        wanted: dict[str, c.Iterable[str]] = {}
        for name, dependencies in packages:
            if name in wanted:
                raise NamedTwice(
                    f"The package {name!r:.200} is there twice.", remedy="Give each package once, with all it needs."
                )
            wanted[name] = dependencies
        self.names: list[str] = sorted(wanted)
        self.number: dict[str, int] = {name: number for number, name in enumerate(self.names)}
        self.missing: dict[str, tuple[str, ...]] = {}
        self.needs: list[tuple[int, ...]] = [self._numbers(name, wanted[name]) for name in self.names]
        self.needed_by: list[tuple[int, ...]] = _turned(self.needs)
        self.order: list[int] = _in_order(self.needs, self.needed_by)
        self.cycles: list[tuple[str, ...]] = self._find_cycles()
        self.reasons: dict[str, str] = self._find_reasons()

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.number

    @property
    def edges(self) -> int:
        """How many dependencies there are."""
        return sum(map(len, self.needs))

    def _numbers(self, name: str, dependencies: c.Iterable[str]) -> tuple[int, ...]:
        once = set(dependencies)
        known = once & self.number.keys()
        if len(known) < len(once):
            self.missing[name] = tuple(sorted(once - known))
        return tuple(sorted(map(self.number.__getitem__, known)))

    # -- what cannot be built ------------------------------------------------------------------------------------------

    def _find_cycles(self) -> list[tuple[str, ...]]:
        if len(self.order) == len(self):
            return []
        ordered = set(self.order)
        rest = [number for number in range(len(self)) if number not in ordered]
        found = [part for part in components(self.needs, rest) if len(part) > 1 or part[0] in self.needs[part[0]]]
        return sorted(tuple(self.names[number] for number in sorted(part)) for part in found)

    def _find_reasons(self) -> dict[str, str]:
        reasons = {}
        for cycle in self.cycles:
            text = f"It is in a cycle of {len(cycle)}: {' needs '.join(self.round_trip(cycle))}."
            reasons.update(dict.fromkeys(cycle, text))
        for name, dependencies in self.missing.items():
            reasons.setdefault(name, f"It needs {some(dependencies)}, which is not there.")
        return reasons

    def round_trip(self, cycle: c.Sequence[str]) -> list[str]:
        """Return a shortest way round within the cycle, from its first name back to it."""
        start = self.number[cycle[0]]
        inside = {self.number[name] for name in cycle}
        came_from: dict[int, int] = {}
        layer = [start]
        while start not in came_from:
            following = []
            for number in layer:
                for needed in self.needs[number]:
                    if needed in inside and needed not in came_from:
                        came_from[needed] = number
                        following.append(needed)
            layer = following
        way = [start]
        while len(way) == 1 or way[-1] != start:
            way.append(came_from[way[-1]])
        return [self.names[number] for number in reversed(way)]

    def edges_in_cycles(self) -> list[tuple[str, str]]:
        """Return who needs whom within the cycles: without these edges there are none."""
        found = []
        for cycle in self.cycles:
            inside = {self.number[name] for name in cycle}
            found += [
                (name, self.names[needed])
                for name in cycle
                for needed in self.needs[self.number[name]]
                if needed in inside
            ]
        return found

    def buildable(self) -> list[int]:
        """Return all that need nothing that cannot be built, each after what it needs."""
        bad = bytearray(len(self))
        for name in self.reasons:
            bad[self.number[name]] = 1
        found = []
        for number in self.order:
            if bad[number] or any(map(bad.__getitem__, self.needs[number])):
                bad[number] = 1
            else:
                found.append(number)
        return found

    # -- parts ---------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> int:
        """Return the number of the package, or raise UnknownPackage with the nearest name."""
        found = self.number.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self.names, 1)
            raise UnknownPackage(
                f"There is no package {name!r:.200} among the {len(self)}.",
                remedy=f"Is {near[0]} meant?" if near else "Look up its name in the tree.",
            )
        return found

    def closure(self, targets: c.Iterable[str]) -> list[str]:
        """Return the targets and all that they need, by name."""
        return self._reached(map(self.find, targets), self.needs)

    def dependents(self, name: str) -> list[str]:
        """Return all that need the package, directly or not, by name."""
        found = self._reached([self.find(name)], self.needed_by)
        return [other for other in found if other != name]

    def _reached(self, starts: c.Iterable[int], ways: c.Sequence[c.Sequence[int]]) -> list[str]:
        seen = set(starts)
        left = list(seen)
        while left:
            for number in ways[left.pop()]:
                if number not in seen:
                    seen.add(number)
                    left.append(number)
        return [self.names[number] for number in sorted(seen)]

    def part(self, names: c.Iterable[str], *, without: c.Collection[tuple[str, str]] = ()) -> Graph:
        """Return the graph of these packages only, and without these edges.

        What is left out on purpose is not missing: whoever leaves it out has it from elsewhere.
        """
        kept = {self.find(name) for name in names}
        dropped = {(self.number[name], self.number[needed]) for name, needed in without}
        return Graph(
            (
                self.names[number],
                [
                    *(self.names[n] for n in self.needs[number] if n in kept and (number, n) not in dropped),
                    *self.missing.get(self.names[number], ()),
                ],
            )
            for number in kept
        )

    # -- time ----------------------------------------------------------------------------------------------------------

    def remaining(self, seconds: c.Sequence[float], among: c.Sequence[int] | None = None) -> list[float]:
        """Return for each package how long the longest chain is that begins with it: itself and all that wait for it.

        Only what is C(among) them counts, each after what it needs; by default all that can be built.
        """
        result = [0.0] * len(self)
        for number in reversed(self.buildable() if among is None else among):
            longest = max(map(result.__getitem__, self.needed_by[number]), default=0.0)
            result[number] = seconds[number] + longest
        return result

    def critical_path(self, seconds: c.Sequence[float]) -> tuple[float, list[str]]:
        """Return the longest chain of all: how long it takes, and its packages, first to last."""
        remaining = self.remaining(seconds)
        able = set(self.buildable())
        if not able:
            return 0.0, []
        first = number = min(able, key=lambda n: (-remaining[n], n))
        path = [self.names[number]]
        while following := [n for n in self.needed_by[number] if n in able]:
            number = min(following, key=lambda n: (-remaining[n], n))
            path.append(self.names[number])
        return remaining[first], path

    def lower_bound(self, seconds: c.Sequence[float], slots: int) -> float:
        """Return the time below which nobody can build all that can be built on so many slots."""
        work = math.fsum(seconds[number] for number in self.buildable())
        longest = max(self.remaining(seconds), default=0.0)
        return max(work / slots if slots > 1 else work, longest)

    def seconds(self, history: c.Mapping[str, float]) -> list[float]:
        """Return how long each package takes; one without history counts as the 95th percentile of those with.

        So what is new begins early: to be late with something long costs more than to be early with something short.
        """
        usual = percentile([history[name] for name in self.names if name in history], 0.95)
        return [history.get(name, usual) for name in self.names]


def percentile(values: c.Sequence[float], share: float) -> float:
    """Return the smallest of the values that at least this share of them does not exceed; a second if there are none."""
    if not values:
        return _UNKNOWN
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def components(needs: c.Sequence[c.Sequence[int]], among: c.Iterable[int]) -> c.Iterator[list[int]]:
    """Yield the strongly connected components of a part of a graph (Tarjan's algorithm, without recursion)."""
    inside = set(among)
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in sorted(inside):
        if root in index:
            continue
        walk = [(root, iter(needs[root]))]
        while walk:
            number, rest = walk[-1]
            if number not in index:
                index[number] = low[number] = len(index)
                stack.append(number)
                on_stack.add(number)
            for needed in rest:
                if needed not in inside:
                    continue
                if needed not in index:
                    walk.append((needed, iter(needs[needed])))
                    break
                if needed in on_stack:
                    low[number] = min(low[number], index[needed])
            else:
                walk.pop()
                if walk:
                    parent = walk[-1][0]
                    low[parent] = min(low[parent], low[number])
                if low[number] == index[number]:
                    yield _cut(stack, on_stack, number)


def _cut(stack: list[int], on_stack: set[int], number: int) -> list[int]:
    part = [stack.pop()]
    while part[-1] != number:
        part.append(stack.pop())
    on_stack.difference_update(part)
    return part


def _turned(ways: c.Sequence[c.Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the edges the other way round."""
    found: list[list[int]] = [[] for _unused in ways]
    for number, ends in enumerate(ways):
        for end in ends:
            found[end].append(number)
    return [tuple(starts) for starts in found]


def _in_order(needs: c.Sequence[c.Sequence[int]], needed_by: c.Sequence[c.Sequence[int]]) -> list[int]:
    """Return each package after all that it needs, else by name; what is in a cycle or needs one is not in it."""
    waiting = [len(needed) for needed in needs]
    ready = [number for number, count in enumerate(waiting) if not count]
    order = []
    while ready:
        number = heapq.heappop(ready)
        order.append(number)
        for dependent in needed_by[number]:
            waiting[dependent] -= 1
            if not waiting[dependent]:
                heapq.heappush(ready, dependent)
    return order
