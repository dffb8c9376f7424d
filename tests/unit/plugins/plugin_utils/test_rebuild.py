# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules for building anew: each by example, and that they agree with one another whatever is there."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._rebuild import (
    cascades,
    DEPENDENCY,
    depends_on_others,
    describe,
    Ingredients,
    MEANINGS,
    Present,
    reasons,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import Identity

WANTED = Ingredients(version="1.0", recipe="r", options="o", bindist="b", needs={"lib": "l"})


def present(made_of: Ingredients | None = WANTED, **more: t.Any) -> Present:
    fields = {"identity": Identity("q", 1), "version": "1.0", "succeeded": 100.0, "files": "there", "content": "c"}
    return Present(**{**fields, **more}, made_of=made_of)


LIB = present(None, succeeded=50.0, content="l")


def test_nothing_has_changed() -> None:
    assert reasons(WANTED, present(), {"lib": LIB}) == ()
    assert reasons(WANTED, present(), {"lib": LIB}, forced=True) == ("forced",)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": "2.0", "recipe": "s"}, "version"),
        ({"recipe": "s"}, "recipe"),
        ({"options": "p"}, "options"),
        ({"bindist": "x"}, "bindist"),
        ({"needs": {}}, "needs"),
        ({"needs": {"lib": "l", "more": "m"}}, "needs"),
        ({"needs": {"lib": "another"}}, "dependency"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_change_has_its_code(change: dict[str, t.Any], code: str) -> None:
    assert reasons(dataclasses.replace(WANTED, **change), present(), {"lib": LIB}) == (code,)
    assert reasons(dataclasses.replace(WANTED, **change), present(), {"lib": LIB}, mode="missing") == ()


def test_what_is_not_known_is_no_change() -> None:
    assert reasons(Ingredients(needs=WANTED.needs), present(), {"lib": LIB}) == ()


def test_files_that_are_gone_or_damaged() -> None:
    assert reasons(WANTED, None, {}) == ("missing",)
    assert reasons(WANTED, present(files="missing"), {}) == ("missing",)
    assert reasons(WANTED, present(files="damaged"), {}) == ("damaged",)
    assert reasons(WANTED, present(files="damaged"), {}, mode="missing", forced=True) == ("forced", "damaged")


def test_what_a_single_dispatch_has_built_is_judged_by_version_and_time() -> None:
    assert reasons(WANTED, present(None), {"lib": LIB}) == ()
    assert reasons(WANTED, present(None, version="1.0+b1"), {}) == ()
    assert reasons(WANTED, present(None, version="0.9"), {}) == ("version",)
    assert reasons(WANTED, present(None, version="1.01"), {}) == ("version",)
    assert reasons(WANTED, present(None), {"lib": LIB._replace(succeeded=200.0)}) == ("dependency",)


def test_a_dependency_built_anew_to_the_same_content() -> None:
    newer = {"lib": LIB._replace(succeeded=200.0)}
    assert reasons(WANTED, present(), newer) == ()
    assert reasons(WANTED, present(), newer, cascade="always") == ("dependency",)


def test_ingredients_survive_json_and_bad_ones_are_not_known() -> None:
    assert Ingredients.from_dict(WANTED.to_dict()) == WANTED
    assert Ingredients.from_dict({"version": 3, "needs": "x"}) == Ingredients()


def test_every_code_has_a_meaning() -> None:
    assert describe(["missing", "bindist"]) == "there is none, the bindist has changed"
    assert all(describe([code]) != code for code in MEANINGS)


names = st.sampled_from("abcdef")


@given(
    st.dictionaries(names, st.sets(names)), st.dictionaries(names, st.sampled_from([("missing",), ("version",), ()]))
)
def test_a_cascade_reaches_all_dependents_and_no_one_else(
    tree: dict[str, set[str]], own: dict[str, tuple[str, ...]]
) -> None:
    needs = {name: sorted(needed for needed in tree.get(name, ()) if needed < name) for name in "abcdef"}
    codes = {name: own.get(name, ()) for name in "abcdef"}
    found = cascades(codes, needs, "changed")

    def reached(name: str) -> bool:
        return bool(codes[name]) or any(reached(needed) for needed in needs[name])

    assert found.keys() == {name for name in needs if reached(name)}
    for name, because in found.items():
        assert because == (codes[name] or (DEPENDENCY,))
        assert depends_on_others(because) == (not codes[name])
    assert cascades(codes, needs, "missing") == {name: because for name, because in codes.items() if because}
