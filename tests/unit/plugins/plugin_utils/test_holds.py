# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages on hold."""

from __future__ import annotations

import json
import pathlib
import threading

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._names import BadName
from ansible_collections.portbuild.cluster.plugins.plugin_utils._holds import BadHolds, Held, hold, read_holds, unhold
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    layout = Layout(str(tmp_path), "amd64", "14")
    pathlib.Path(layout.branch_directory).mkdir(parents=True)
    return layout


def test_a_package_is_held_and_released(layout: Layout) -> None:
    assert read_holds(layout) == {}
    assert hold(layout, "hello", "it deletes\nhome directories", "ada", now=100.0)
    assert read_holds(layout) == {"hello": Held("it deletes home directories", "ada", 100.0)}
    assert not hold(layout, "hello", "it deletes home directories", "bob", now=200.0)
    assert hold(layout, "hello", "it is too large", "bob", now=300.0)
    assert read_holds(layout) == {"hello": Held("it is too large", "bob", 100.0)}
    assert unhold(layout, "hello")
    assert not unhold(layout, "hello")
    assert read_holds(layout) == {}


def test_a_dry_run_writes_nothing(layout: Layout) -> None:
    assert hold(layout, "hello", "", "ada", now=1.0, dry_run=True)
    assert list(pathlib.Path(layout.branch_directory).iterdir()) == []
    hold(layout, "hello", "", "ada", now=1.0)
    assert unhold(layout, "hello", dry_run=True)
    assert "hello" in read_holds(layout)


def test_what_a_person_writes_holds(layout: Layout) -> None:
    pathlib.Path(layout.holds).write_text(
        '{"a": "broken", "b": null, "c": {"since": "x"}, "../d": {}}', encoding="utf-8"
    )
    problems: list[str] = []
    assert read_holds(layout, problems) == {
        "a": Held("broken", "", 0.0),
        "b": Held("", "", 0.0),
        "c": Held("", "", 0.0),
    }
    assert len(problems) == 1 and layout.holds in problems[0] and "../d" in problems[0]
    hold(layout, "e", "", "ada", now=1.0)
    assert "../d" in json.loads(pathlib.Path(layout.holds).read_text(encoding="utf-8"))


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"], ids=["empty", "torn", "a list", "rubbish"])
def test_a_bad_file_is_named_and_not_written_over(layout: Layout, content: str) -> None:
    path = pathlib.Path(layout.holds)
    path.write_text(content, encoding="utf-8")
    problems: list[str] = []
    assert read_holds(layout, problems) == {}
    assert layout.holds in problems[0]
    with pytest.raises(BadHolds, match="Correct or remove it"):
        hold(layout, "hello", "", "ada", now=1.0)
    assert path.read_text(encoding="utf-8") == content


def test_a_bad_name_is_refused(layout: Layout) -> None:
    with pytest.raises(BadName):
        hold(layout, "../x", "", "ada", now=1.0)


def test_nobody_loses_what_another_says_at_the_same_time(layout: Layout) -> None:
    names = [f"p{number}" for number in range(20)]
    threads = [threading.Thread(target=hold, args=(layout, name, "", "ada"), kwargs={"now": 1.0}) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_holds(layout)) == sorted(names)


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        (Held("", "", 0.0), "hello is held."),
        (Held("it is broken.", "ada", 86400.0), "hello is held by ada since 1970-01-02 00:00 UTC: it is broken."),
    ],
    ids=["nothing", "everything"],
)
def test_sentences(held: Held, sentence: str) -> None:
    assert held.sentence("hello") == sentence
