# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The graph, by example and against walks that are too slow for a tree but plain to see."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._graph import (
    Graph,
    NamedTwice,
    percentile,
    UnknownPackage,
)

NAMES = "abcdefgh"
DIAMOND = [("d", ["b", "c"]), ("c", ["a"]), ("b", ["a", "a"]), ("a", [])]

trees = st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES + "x"), max_size=4), max_size=len(NAMES))


def names(graph: Graph, numbers: list[int]) -> list[str]:
    return [graph.names[number] for number in numbers]


def reaches(tree: dict[str, list[str]], start: str) -> set[str]:
    """Return all that can be got to from there in one step or more."""
    found: set[str] = set()
    grown = {needed for needed in tree[start] if needed in tree}
    while not grown <= found:
        found |= grown
        grown = {needed for name in found for needed in tree[name] if needed in tree}
    return found


def test_diamond() -> None:
    graph = Graph(DIAMOND)
    assert (len(graph), graph.edges, "a" in graph, "e" in graph) == (4, 4, True, False)
    assert names(graph, graph.order) == ["a", "b", "c", "d"]
    assert graph.closure(["b"]) == ["a", "b"]
    assert graph.dependents("a") == ["b", "c", "d"]
    assert (graph.cycles, graph.missing, graph.reasons) == ([], {}, {})
    seconds = [1.0, 5.0, 7.0, 2.0]
    assert graph.remaining(seconds) == [10.0, 7.0, 9.0, 2.0]
    assert graph.critical_path(seconds) == (10.0, ["a", "c", "d"])
    assert graph.lower_bound(seconds, 1) == 15.0
    assert graph.lower_bound(seconds, 8) == 10.0


def test_cycles_and_missing_are_named_and_the_rest_is_built() -> None:
    graph = Graph(
        [
            ("a", ["c"]),
            ("b", ["a"]),
            ("c", ["b", "good"]),
            ("behind", ["b"]),
            ("self", ["self"]),
            ("lacks", ["nowhere", "neither", "good"]),
            ("lacks-too", ["lacks"]),
            ("good", []),
            ("better", ["good"]),
        ]
    )
    assert graph.cycles == [("a", "b", "c"), ("self",)]
    assert graph.missing == {"lacks": ("neither", "nowhere")}
    assert graph.reasons == {
        **dict.fromkeys("abc", "It is in a cycle of 3: a needs c needs b needs a."),
        "self": "It is in a cycle of 1: self needs self.",
        "lacks": "It needs neither, nowhere, which is not there.",
    }
    assert names(graph, graph.buildable()) == ["good", "better"]
    assert graph.edges_in_cycles() == [("a", "c"), ("b", "a"), ("c", "b"), ("self", "self")]
    assert graph.critical_path([1.0] * 9) == (2.0, ["good", "better"])


def test_broken_cycles_are_none() -> None:
    graph = Graph([("a", ["b"]), ("b", ["a", "nowhere"]), ("c", ["b"])])
    part = graph.part(["a", "b"], without=[("a", "b")])
    assert (part.names, part.cycles, part.missing) == (["a", "b"], [], {"b": ("nowhere",)})
    assert names(part, part.order) == ["a", "b"]


def test_nonsense() -> None:
    with pytest.raises(NamedTwice, match="'a' is there twice"):
        Graph([("a", []), ("a", [])])
    with pytest.raises(UnknownPackage, match=r"'perl6' among the 2\. Is perl5 meant"):
        Graph([("perl5", []), ("zsh", [])]).closure(["perl6"])
    empty = Graph([])
    assert (len(empty), empty.critical_path([]), empty.lower_bound([], 4)) == (0, (0.0, []), 0.0)


def test_what_has_no_history_counts_as_long() -> None:
    graph = Graph([(f"p{number:03}", []) for number in range(101)])
    history = {f"p{number:03}": float(number) for number in range(1, 101)}
    assert graph.seconds(history)[0] == 95.0
    assert graph.seconds({}) == [1.0] * 101


@pytest.mark.parametrize(
    ("values", "found"), [([], 1.0), ([3.0], 3.0), ([1.0, 2.0], 2.0), ([float(n) for n in range(1, 21)], 19.0)]
)
def test_percentile(values: list[float], found: float) -> None:
    assert percentile(values, 0.95) == found


def test_a_deep_tree_needs_no_recursion() -> None:
    size = 20_000
    graph = Graph((f"{number:05}", [f"{number - 1:05}"] if number else []) for number in range(size))
    assert graph.critical_path([1.0] * size)[0] == size
    ring = Graph((f"{number:05}", [f"{(number - 1) % size:05}"]) for number in range(size))
    assert [len(cycle) for cycle in ring.cycles] == [size]


@settings(max_examples=300, deadline=None)
@given(trees)
def test_against_plain_walks(tree: dict[str, list[str]]) -> None:
    graph = Graph(tree.items())
    far = {name: reaches(tree, name) for name in tree}
    looping = {name for name in tree if name in far[name]}
    assert {name for cycle in graph.cycles for name in cycle} == looping
    assert all(
        set(cycle) == {name for name in looping if cycle[0] in far[name] and name in far[cycle[0]]}
        for cycle in graph.cycles
    )
    lacking = {name: tuple(sorted(set(tree[name]) - tree.keys())) for name in tree}
    assert graph.missing == {name: lacks for name, lacks in lacking.items() if lacks}
    bad = looping | graph.missing.keys()
    able = names(graph, graph.buildable())
    assert set(able) == {name for name in tree if not ({name} | far[name]) & bad}
    assert all(able.index(needed) < able.index(name) for name in able for needed in tree[name])
    for name in tree:
        assert graph.closure([name]) == sorted({name} | far[name])
        assert graph.dependents(name) == sorted(other for other in tree if name in far[other] and other != name)


@settings(max_examples=200, deadline=None)
@given(trees, st.lists(st.integers(0, 9), min_size=len(NAMES), max_size=len(NAMES)))
def test_critical_path_against_all_paths(tree: dict[str, list[str]], times: list[int]) -> None:
    graph = Graph(tree.items())
    seconds = [float(times[NAMES.index(name)]) for name in graph.names]
    able = set(names(graph, graph.buildable()))

    def longest(name: str) -> float:
        return seconds[graph.number[name]] + max((longest(needed) for needed in tree[name]), default=0.0)

    found, path = graph.critical_path(seconds)
    assert found == max(map(longest, able), default=0.0)
    assert found == sum(seconds[graph.number[name]] for name in path)
    assert all(needed in tree[name] for needed, name in zip(path, path[1:]))


def test_order_of_input_does_not_matter() -> None:
    assert Graph(DIAMOND).order == Graph(reversed(DIAMOND)).order
