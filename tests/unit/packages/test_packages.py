# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of real packages is what those who build it in bulk count on; what cannot be installed together is parted."""

from __future__ import annotations

import pathlib

import pytest

pytest.importorskip("yaml")
pytest.importorskip("debian.deb822")

from ansible_collections.portbuild.cluster.tests.packages import BadList, DEMO, first, levels, load, longest, Package
from ansible_collections.portbuild.cluster.tests.packages.install import Binary, is_against, Name, relations, rounds


class TestList:
    def test_is_large_and_deep_enough(self) -> None:
        packages = load()
        assert len(packages) == 30
        assert sum(len(package.needs) for package in packages) >= 15
        assert max(levels(packages).values()) >= 4
        assert all(0 < package.seconds < 20 for package in packages)

    def test_the_demonstration_is_small_and_deep_enough(self) -> None:
        assert max(levels(first(DEMO)).values()) >= 4

    def test_each_beginning_is_complete(self) -> None:
        for number in range(1, len(load()) + 1):
            names = {package.name for package in first(number)}
            assert all(package.needs <= names for package in first(number))

    @pytest.mark.parametrize("number", [0, -1, 31])
    def test_there_are_not_as_many(self, number: int) -> None:
        with pytest.raises(BadList, match="30 packages"):
            first(number)

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            ("{name: a, why: x, needs: [], seconds: 1}", "a is in .* twice"),
            ("{name: b, why: x, needs: [c], seconds: 1}", "b needs c"),
            ("{name: b, why: x, needs: [b], seconds: 1}", "b needs b"),
        ],
        ids=["twice", "missing", "itself"],
    )
    def test_a_bad_list_is_refused(self, tmp_path: pathlib.Path, second: str, message: str) -> None:
        path = tmp_path / "packages.yml"
        path.write_text(f"packages:\n  - {{name: a, why: x, needs: [], seconds: 1}}\n  - {second}\n", encoding="utf-8")
        with pytest.raises(BadList, match=message):
            load(path)

    def test_longest_line(self) -> None:
        packages = [
            Package("a", "", frozenset(), 1),
            Package("b", "", frozenset({"a"}), 1),
            Package("c", "", frozenset(), 1),
        ]
        assert longest(packages, {"a": 2.0, "b": 3.0, "c": 4.0}) == 5.0
        assert longest([], {}) == 0.0


def binary(name: str, version: str = "1", against: str = "", provides: str = "") -> Binary:
    names = tuple(Name(found, number) for found, _operator, number in relations(provides))
    return Binary(f"{name}.deb", name, version, "all", names, tuple(relations(against)))


class TestRounds:
    @pytest.mark.parametrize(
        ("against", "other", "expected"),
        [
            ("b", binary("b"), True),
            ("c", binary("b"), False),
            ("b (<< 2)", binary("b", "1"), True),
            ("b (<< 2)", binary("b", "2"), False),
            ("b (>> 2~rc1)", binary("b", "2"), True),
            ("b (= 1:1)", binary("b", "1"), False),
            ("mta", binary("b", provides="mta"), True),
            ("mta (>= 2)", binary("b", provides="mta"), False),
            ("mta (>= 2)", binary("b", provides="mta (= 3)"), True),
            ("x, b", binary("b"), True),
        ],
    )
    def test_who_refuses_whom(self, against: str, other: Binary, expected: bool) -> None:
        assert is_against(binary("a", against=against), other) is expected

    def test_all_together_where_nobody_minds(self) -> None:
        packages = [binary("a"), binary("b"), binary("c")]
        assert rounds(packages) == [packages]

    def test_refusal_works_both_ways(self) -> None:
        first, second, third = binary("a", against="b"), binary("b"), binary("c", against="a")
        assert rounds([first, second, third]) == [[first], [second, third]]
        assert rounds([second, first, third]) == [[second, third], [first]]

    def test_two_versions_of_one_package(self) -> None:
        older, newer = binary("a", "1"), binary("a", "2")
        assert rounds([older, newer]) == [[older], [newer]]

    def test_a_package_may_refuse_what_it_provides(self) -> None:
        package = binary("a", against="mta", provides="mta")
        assert rounds([package, binary("b")]) == [[package, binary("b")]]

    def test_nothing_needs_no_round(self) -> None:
        assert rounds([]) == []
