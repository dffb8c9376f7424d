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
_PATIENCE = 5_000_000  # steps that are spent on taking back what need not have been dropped


def break_cycles(needs: Edges, firm: Firm) -> list[tuple[int, int]]:
    """Return the edges, sorted, without which there are no cycles but such as consist of firm edges.

    C(firm[n]) are those of C(needs[n]) that must stay. How to drop as few as possible nobody knows in reasonable time;
    here each package comes as early as it lacks the least, and then what was dropped for nothing is taken back.
    """
    dropped: list[tuple[int, int]] = []
    for part in components(needs, range(len(needs))):
        if len(part) > 1 or part[0] in needs[part[0]]:
            dropped += _break(part, needs, firm)
    return sorted(_taken_back(dropped, needs))


def _break(part: list[int], needs: Edges, firm: Firm) -> list[tuple[int, int]]:
    """Return the soft edges that lead back in an order of these packages in which no firm edge does."""
    inside = set(part)
    hopeless = _groups(part, inside, needs, firm)
    order = _order(part, inside, needs, firm, hopeless)
    position = {number: place for place, number in enumerate(order)}
    return [
        (number, needed)
        for number in part
        for needed in needs[number]
        if needed in inside
        and position[needed] >= position[number]
        and needed not in firm[number]
        and (number == needed or hopeless[number] != hopeless[needed])
    ]


def _groups(part: list[int], inside: set[int], needs: Edges, firm: Firm) -> dict[int, int]:
    """Return for each package the first of those that it is in a firm cycle with: nothing gets them out of it."""
    place = {number: index for index, number in enumerate(part)}
    edges = [[place[n] for n in needs[number] if n in inside and n in firm[number]] for number in part]
    return {part[index]: part[min(group)] for group in components(edges, range(len(part))) for index in group}


def _order(
    part: list[int],
    inside: set[int],
    needs: Edges,
    firm: Firm,
    group: dict[int, int],
) -> list[int]:
    """Return the packages, each after those that it firmly needs, and else the one next that lacks the fewest."""
    held = dict.fromkeys(part, 0)  # by how many that it firmly needs
    lacks = dict.fromkeys(part, 0)
    wanted_by: dict[int, list[int]] = {number: [] for number in part}
    for number in part:
        for needed in needs[number]:
            if needed in inside and group[needed] != group[number]:
                wanted_by[needed].append(number)
                lacks[number] += 1
                held[number] += needed in firm[number]
    members: dict[int, list[int]] = {}
    for number in sorted(part):
        members.setdefault(group[number], []).append(number)
    blocked = {head: sum(held[number] for number in numbers) for head, numbers in members.items()}
    short = {head: sum(lacks[number] for number in numbers) for head, numbers in members.items()}
    useful = {head: sum(len(wanted_by[number]) for number in numbers) for head, numbers in members.items()}
    heap = [(short[head], -useful[head], head) for head in members if not blocked[head]]
    heapq.heapify(heap)
    order: list[int] = []
    placed: set[int] = set()
    while heap:
        count, _useful, head = heapq.heappop(heap)
        if head in placed or count != short[head]:
            continue
        placed.add(head)
        for number in members[head]:
            order.append(number)
            for other in wanted_by[number]:
                above = group[other]
                short[above] -= 1
                blocked[above] -= number in firm[other]
                if above not in placed and not blocked[above]:
                    heapq.heappush(heap, (short[above], -useful[above], above))
    return order


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
