# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How cycles are broken, against what is plain to see in small graphs."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._graph import Graph
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems._debian_cycles import (
    break_cycles,
)

Edges = list[set[int]]

SIZE = 7
GRAPHS = st.lists(st.sets(st.integers(0, SIZE - 1), max_size=4), min_size=SIZE, max_size=SIZE)


def dropped(needs: Edges, firm: Edges) -> list[tuple[int, int]]:
    return break_cycles([tuple(sorted(needed)) for needed in needs], firm)


def cycles(needs: Edges) -> list[tuple[str, ...]]:
    return Graph((str(number), map(str, needed)) for number, needed in enumerate(needs)).cycles


def without(needs: Edges, edges: list[tuple[int, int]]) -> Edges:
    return [{needed for needed in needs[number] if (number, needed) not in edges} for number in range(len(needs))]


@given(GRAPHS, GRAPHS)
@settings(max_examples=500)
def test_only_firm_cycles_are_left_and_nothing_is_dropped_for_nothing(needs: Edges, other: Edges) -> None:
    firm = [needed & more for needed, more in zip(needs, other, strict=True)]
    edges = dropped(needs, firm)
    assert edges == sorted(set(edges)) == dropped(needs, firm)
    assert all(needed in needs[number] and needed not in firm[number] for number, needed in edges)
    assert cycles(without(needs, edges)) == cycles(firm)
    for edge in edges:
        again = [other for other in edges if other != edge]
        assert cycles(without(needs, again)) != cycles(firm)


@pytest.mark.parametrize(
    ("needs", "firm", "edges"),
    [
        ([], [], []),
        ([{1}, set()], [set(), set()], []),
        ([{0}], [set()], [(0, 0)]),
        ([{0}], [{0}], []),
        ([{1}, {0}], [set(), set()], [(0, 1)]),
        ([{1}, {0}], [{1}, set()], [(1, 0)]),
        ([{1}, {0}], [{1}, {0}], []),
        # A ring of three with one edge that can go.
        ([{1}, {2}, {0}], [{1}, set(), {0}], [(1, 2)]),
        # One that five need, and that needs one of them: one edge is enough.
        ([{3}, {0}, {0}, {0}, {0}, {0}], [set()] * 6, [(0, 3)]),
        # What needs a firm cycle is not spared it, what is needed by one can be.
        ([{1, 2}, {0}, {1}], [{1}, {0}, set()], [(0, 2)]),
    ],
)
def test_the_fewest_edges(needs: Edges, firm: Edges, edges: list[tuple[int, int]]) -> None:
    assert dropped(needs, firm) == edges


def test_a_large_knot() -> None:
    chance = random.Random(4)
    size, planted = 3000, 300  # edges, without which there would be no cycle
    needs = [{int(number * chance.random()) for _unused in range(20)} - {number} for number in range(size)]
    for _unused in range(planted):
        number = chance.randrange(size // 2)
        needs[number].add(chance.randrange(number + 1, size))
    began = time.process_time()
    edges = dropped(needs, [set()] * size)
    assert time.process_time() - began < 20
    assert cycles(needs) != [] == cycles(without(needs, edges))
    assert len(edges) < sum(map(len, needs)) / 20
