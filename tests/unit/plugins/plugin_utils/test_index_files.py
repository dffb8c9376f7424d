# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._index_files import (
    BadIndex,
    is_current,
    oddities,
    publish_given,
    publish_made,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import make_layout, put, put_log

LINE = "foo-1.0|/usr/ports/devel/foo|/usr/local|Foo|/d|ports@FreeBSD.org|devel|||https://x|||\n"
ORIGIN = "a" * 64


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    return make_layout(tmp_path / "root")


def test_a_given_index_is_put_in_place_once(layout: Layout, tmp_path: pathlib.Path) -> None:
    given = tmp_path / "INDEX-15"
    given.write_text(LINE + "nonsense\n", encoding="utf-8")
    assert publish_given(layout, str(given), check_mode=True)[0] is True
    assert not os.path.exists(layout.index)
    changed, index = publish_given(layout, str(given), check_mode=False)
    assert (changed, len(index.entries)) == (True, 1)
    assert oddities(index) == ["INDEX, line 2: It has 1 fields instead of 13. It is left out."]
    assert pathlib.Path(layout.index).read_bytes() == given.read_bytes()
    assert publish_given(layout, str(given), check_mode=False)[0] is False
    assert not is_current(layout, ORIGIN)
    assert sorted(os.listdir(layout.branch_directory)).count("INDEX") == 1
    assert not [
        name
        for name in os.listdir(layout.branch_directory)
        if name.startswith(("INDEX.", ".INDEX")) and "json" not in name
    ]


def test_what_is_no_index_is_refused(layout: Layout, tmp_path: pathlib.Path) -> None:
    given = tmp_path / "INDEX-15"
    for text in ("", "<html>\n404\n"):
        given.write_text(text, encoding="utf-8")
        with pytest.raises(BadIndex, match="describes no package") as caught:
            publish_given(layout, str(given), check_mode=False)
        assert caught.value.details["spoiled"] is False
    assert not os.path.exists(layout.index)


def test_what_was_made_is_put_in_place_with_its_duds(layout: Layout) -> None:
    arrivals = layout.for_index()
    assert arrivals.packages != layout.packages
    assert arrivals.index == layout.index
    files = [
        put(arrivals, "INDEX", LINE.encode()),
        put(arrivals, "duds", b"foo|is marked as broken: x\n"),
        put(arrivals, "made-from", ORIGIN.encode() + b"\n"),
        put_log(layout, 3, package="INDEX"),
    ]
    rest, odd = publish_made(arrivals, files)
    assert ([file.kind for file in rest], odd) == (["log"], [])
    assert pathlib.Path(layout.index).read_text(encoding="utf-8") == LINE
    assert pathlib.Path(layout.duds).read_text(encoding="utf-8") == "foo|is marked as broken: x\n"
    facts = json.loads(pathlib.Path(layout.index_facts).read_text(encoding="utf-8"))
    assert (facts["made_from"], facts["packages"], facts["problems"]) == (ORIGIN, 1, 0)
    assert is_current(layout, ORIGIN)
    assert not is_current(layout, "b" * 64)
    with open(layout.index, "a", encoding="utf-8") as stream:
        stream.write("by hand\n")
    assert not is_current(layout, ORIGIN)


def test_a_build_that_failed_brings_no_index(layout: Layout) -> None:
    rest, odd = publish_made(layout.for_index(), [put_log(layout, 3, package="INDEX")])
    assert (len(rest), odd) == (1, [])
    assert not os.path.exists(layout.index)


def test_a_machine_may_say_anything(layout: Layout) -> None:
    arrivals = layout.for_index()
    pathlib.Path(layout.index).write_text(LINE, encoding="utf-8")
    with pytest.raises(BadIndex) as caught:
        publish_made(arrivals, [put(arrivals, "INDEX", b"\0" * 100), put(arrivals, "duds", b"everything\n")])
    assert caught.value.details["spoiled"] is True
    assert pathlib.Path(layout.index).read_text(encoding="utf-8") == LINE
    assert not os.path.exists(layout.duds)
    publish_made(arrivals, [put(arrivals, "INDEX", LINE.encode()), put(arrivals, "made-from", b"../../x" * 1000)])
    assert json.loads(pathlib.Path(layout.index_facts).read_text(encoding="utf-8"))["made_from"] == ""
