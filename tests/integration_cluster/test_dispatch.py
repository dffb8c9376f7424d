# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job: one package, end to end."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm


@pytest.mark.core_matrix
def test_a_local_source_is_built_and_comes_home(idle: Farm) -> None:
    ended = idle.dispatch("pb-hello").ok()
    assert "pb-hello 1.0 was built on client1" in ended.output
    assert sorted(path.name for path in idle.packages.glob("pb-hello*")) == [
        "pb-hello_1.0_amd64.buildinfo",
        "pb-hello_1.0_amd64.changes",
        "pb-hello_1.0_amd64.deb",
    ]
    assert "=== ended: success" in idle.log("pb-hello")
    assert not idle.failed("pb-hello")


@pytest.mark.core_matrix
def test_a_failure_is_recorded_with_its_log(idle: Farm) -> None:
    line = "make: *** [debian/rules:9: build] Error 1"
    ended = idle.dispatch("pb-fails")
    ended.fails("pb-fails 1.0 failed on client1", "failed in build", "other, line ", line)
    assert idle.failed("pb-fails")
    build = idle.builds("pb-fails")[-1]
    assert (build["failure_class"], build["line"]) == ("other", line)
    assert idle.log("pb-fails").splitlines()[build["line_number"] - 1] == line
    assert build["reason"] == "failed"


def test_nothing_is_claimed_without_a_bindist(idle: Farm, controller_root: pathlib.Path) -> None:
    bare = Farm(idle.cluster, controller_root / "bare" / "root")
    counter = bare.queue / "client1"
    counter.parent.mkdir(parents=True)
    counter.write_text("0\n", encoding="ascii")
    bare.dispatch("pb-null").fails("Branch bookworm of debian-amd64 has no bindist", "portbuild.cluster.bindist")
    assert list(bare.queue.iterdir()) == [counter]
    assert counter.read_text(encoding="ascii") == "0\n"


def test_a_directory_that_is_none_is_named(idle: Farm) -> None:
    away = idle.packages.with_name("away")
    idle.packages.rename(away)
    try:
        idle.packages.write_text("somebody's mistake", encoding="ascii")
        idle.dispatch("pb-null", check="off").fails("The controller failed: ", "Not a directory", str(idle.packages))
    finally:
        idle.packages.unlink()
        away.rename(idle.packages)
    idle.dispatch("pb-null", check="off").ok()  # collects what had come that far
