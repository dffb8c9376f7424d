# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._targets import NoTargets, read_targets


def test_words_and_files_each_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "wanted"
    path.write_text("# what we ship\nfoo\n\n  bar=1.0  # pinned\ndevel/gmake@py311\n-rf\nfoo bar\n", encoding="utf-8")
    found = read_targets(["all", "foo", f"@{path}", "all", "x;y"])
    assert found.words == ("all", "foo", "bar=1.0", "devel/gmake@py311")
    assert list(found.problems.values()) == [
        f"{path}, line 6: '-rf' is no target: expected is the name of a package.",
        f"{path}, line 7: 'foo bar' is no target: expected is the name of a package.",
        "'x;y' is no target: expected is the name of a package.",
    ]


@pytest.mark.parametrize("given_words", [[], ["; rm"]], ids=["nothing", "nonsense"])
def test_nothing_to_build(given_words: list[str]) -> None:
    with pytest.raises(NoTargets, match="There is nothing to build"):
        read_targets(given_words)


def test_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NoTargets, match="cannot be read: No such file"):
        read_targets([f"@{tmp_path / 'absent'}"])


@given(st.lists(st.text(max_size=400)))
def test_whatever_is_given_is_a_target_or_a_problem(words: list[str]) -> None:
    words = [word for word in words if not word.startswith("@")]
    try:
        found = read_targets(["all", *words])
    except NoTargets:  # pragma: no cover
        raise AssertionError from None
    assert {"all", *words} == {
        *found.words,
        *(word for word in words if word not in found.words and word != "all"),
        "all",
    }
    assert all(" " not in word and not word.startswith("-") for word in found.words)
