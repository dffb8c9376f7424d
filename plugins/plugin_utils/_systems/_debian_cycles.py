# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Cycles among packages, and how to get out of them where something else would do for one of the dependencies."""

from __future__ import annotations

import collections.abc as c
import heapq

from .._graph import components

Edges = c.Sequence[c.Sequence[int]]  # for each package, by number, those that it needs, sorted
Firm = c.Sequence[c.Container[int]]
_AT_ONCE, _NEVER = -1 << 40, 1 << 40
_PATIENCE = 5_000_000  # steps that are spent on taking back what need not have been dropped


def break_cycles(needs: Edges, firm: Firm) -> list[tuple[int, int]]:
    """Return the edges, sorted, without which there are no cycles but such as consist of firm edges.

    C(firm[n]) are those of C(needs[n]) that must stay. How to drop as few as possible nobody knows in reasonable time;
    here they are brought into an order that few edges lead back in, and then what was dropped for nothing is taken back.
    """
    dropped: list[tuple[int, int]] = []
    for part in components(needs, set().union(*needs)):  # what nobody needs is in no cycle
        if len(part) > 1 or part[0] in needs[part[0]]:
            dropped += _break(part, needs, firm)
    return sorted(_taken_back(dropped, needs))


def _break(part: list[int], needs: Edges, firm: Firm) -> list[tuple[int, int]]:
    """Return the soft edges that lead back in an order of these packages in which no firm edge does."""
    knot = _Knot(part, needs, firm)
    position = {number: place for place, number in enumerate(knot.order())}
    return [
        (number, needed)
        for number in part
        for needed in needs[number]
        if needed in position
        and position[needed] >= position[number]
        and needed not in firm[number]
        and (knot.head[needed] != knot.head[number] or len(knot.members[knot.head[number]]) == 1)
    ]


class _Knot:
    """Packages all of which need each other. Nothing gets those out of it that are in a firm cycle: these are as one.

    Next in the order comes what lacks nothing, else what lacks little of which much needs it (the heuristic of Eades,
    Lin and Smyth), but nothing before what it firmly needs.
    """

    def __init__(self, part: list[int], needs: Edges, firm: Firm) -> None:
        self._needs = needs
        self._firm = firm
        place = {number: index for index, number in enumerate(part)}
        firmly = [[place[n] for n in needs[number] if n in place and n in firm[number]] for number in part]
        self.members: dict[int, list[int]] = {}
        for group in components(firmly, range(len(part))):
            numbers = sorted(part[index] for index in group)
            self.members[numbers[0]] = numbers
        self.head = {number: head for head, numbers in self.members.items() for number in numbers}
        self._wanted_by: dict[int, list[int]] = {number: [] for number in part}
        self._lacks = dict.fromkeys(self.members, 0)
        self._held = dict.fromkeys(self.members, 0)  # by how many that it firmly needs
        self._useful = dict.fromkeys(self.members, 0)
        for number in part:
            for needed in self._others(number):
                self._wanted_by[needed].append(number)
                self._lacks[self.head[number]] += 1
                self._held[self.head[number]] += needed in firm[number]
                self._useful[self.head[needed]] += 1

    def _others(self, number: int) -> list[int]:
        """Return what a package needs of the knot, but for what it is as one with."""
        head = self.head
        return [needed for needed in self._needs[number] if needed in head and head[needed] != head[number]]

    def order(self) -> list[int]:
        """Return the packages in their order."""
        ready = [(self._score(head), head) for head, held in self._held.items() if not held]
        heap = sorted(ready)
        queued = {head: score for score, head in ready}  # the best that stands in the heap of each
        found: list[int] = []
        placed: set[int] = set()
        while heap:
            score, head = heapq.heappop(heap)
            if head in placed or score != queued[head]:
                continue  # it stood there with a better one too
            actual = self._score(head)
            if score != actual:  # what needed it has been placed since
                queued[head] = actual
                heapq.heappush(heap, (actual, head))
                continue
            placed.add(head)
            found += self.members[head]
            for other in self._place(head, placed):
                score = self._score(other)
                if score < queued.get(other, _NEVER):
                    queued[other] = score
                    heapq.heappush(heap, (score, other))
        return found

    def _score(self, head: int) -> int:
        """Return how late it is to come, by what it lacks and what needs it."""
        lacks = self._lacks[head]
        return lacks - self._useful[head] if lacks else _AT_ONCE

    def _place(self, head: int, placed: c.Container[int]) -> set[int]:
        """Take note that these come next; return those that are nearer to it now and that nothing holds."""
        nearer = set()
        useful, lacks, heads = self._useful, self._lacks, self.head
        for number in self.members[head]:
            for needed in self._others(number):
                useful[heads[needed]] -= 1
            for other in self._wanted_by[number]:
                above = heads[other]
                lacks[above] -= 1
                if number in self._firm[other]:
                    self._held[above] -= 1
                if above not in placed and not self._held[above]:
                    nearer.add(above)
        return nearer


def _taken_back(dropped: list[tuple[int, int]], needs: Edges) -> set[tuple[int, int]]:
    """Return what of it must really be dropped: what lies on a cycle of edges that are kept."""
    gone = set(dropped)
    steps = 0
    for edge in sorted(dropped):
        start, end = edge
        seen = {end}
        left = [end]
        while left and start not in seen and steps < _PATIENCE:
            number = left.pop()
            for needed in needs[number]:
                steps += 1
                if needed not in seen and (number, needed) not in gone:
                    seen.add(needed)
                    left.append(needed)
        if steps < _PATIENCE and start not in seen:
            gone.discard(edge)
    return gone
