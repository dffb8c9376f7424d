# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller gets rid of."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._pruning import DAY, find_old, remove_old
from ansible_collections.portbuild.cluster.plugins.plugin_utils._temporary import make_directory

NOW = 1_800_000_000.0


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    layout = Layout(str(tmp_path), "amd64", "14")
    for directory in layout.directories:
        os.makedirs(directory, exist_ok=True)
    return layout


def make(directory: str, name: str, days: float) -> str:
    path = pathlib.Path(directory, name)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.touch()
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return str(path)


def test_what_is_beyond_its_age_goes(layout: Layout) -> None:
    going = [
        make(layout.logs + "/old", "hello.1.log.gz", 91),
        make(layout.logs + "/.incoming", "hello.2.log", 31),
        make(layout.workdirs, "hello.tar.xz", 31),
    ]
    staying = [
        make(layout.logs, "hello.log", 1000),
        make(layout.errors, "hello.log", 1000),
        make(layout.logs + "/old", "hello.3.log.gz", 89),
        make(layout.logs + "/old", ".hello.4.log.gz.new", 1000),
        make(layout.logs + "/old", "notes", 1000),
        make(layout.packages, "hello.deb", 1000),
        make(layout.workdirs, "dash.tar.xz", 29),
    ]
    old = find_old(layout, log_days=90, workdir_days=30, now=NOW)
    assert [entry.path for entry in old] == going
    assert all("days old" in entry.why for entry in old)
    assert remove_old(old) == []
    assert not any(os.path.exists(path) for path in going)
    assert all(os.path.exists(path) for path in staying)
    assert remove_old(old) == []
    assert find_old(layout, log_days=90, workdir_days=30, now=NOW) == []


def test_no_days_keep_for_ever(layout: Layout) -> None:
    make(layout.logs + "/old", "hello.1.log.gz", 3000)
    make(layout.workdirs, "hello.tar.xz", 3000)
    assert find_old(layout, log_days=0, workdir_days=0, now=NOW) == []


def test_what_cannot_be_removed_is_named(layout: Layout) -> None:
    path = make(layout.logs + "/old", "hello.1.log.gz", 91)
    old = find_old(layout, log_days=90, workdir_days=30, now=NOW)
    os.unlink(path)
    os.mkdir(path)
    assert path in remove_old(old)[0]


def test_what_a_bulk_build_left_that_was_killed_goes(layout: Layout) -> None:
    runs = pathlib.Path(layout.bulk, "runs.1000")
    runs.mkdir(parents=True)
    living, lock = make_directory(str(runs), "")
    dead = runs / "dead"
    (dead / "hello").mkdir(parents=True)
    (dead / "hello" / "variables.json").write_text("{}", encoding="utf-8")
    old = find_old(layout, log_days=0, workdir_days=0, now=NOW)
    assert [entry.path for entry in old] == [str(dead)]
    assert remove_old(old) == []
    assert list(runs.iterdir()) == [pathlib.Path(living)]
    os.close(lock)
