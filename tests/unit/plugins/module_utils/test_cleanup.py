# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a build machine gets rid of by age and size."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._chroots import ChrootStore
from ansible_collections.portbuild.cluster.plugins.module_utils._cleanup import (
    Bounds,
    carry_out,
    DAY,
    Goer,
    Owned,
    plan,
)
from ansible_collections.portbuild.cluster.plugins.module_utils._files import NewerFile
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._shed import HELLO, Shed

NOW = 1_800_000_000.0
BOUNDS = Bounds(cache_days=30, cache_max=3 << 20, base_days=30)


def make(scratch: pathlib.Path, relative: str, days: float, size: int = 0) -> str:
    path = scratch / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(size)
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return relative


def goers(scratch: pathlib.Path, bounds: Bounds = BOUNDS) -> list[Goer]:
    return [
        goer
        for goer in plan(ChrootStore(str(scratch)), None, bounds, NOW)
        if goer.relative.startswith(("cache", "incoming", "lib"))
    ]


def test_caches_are_bounded_by_age_and_size(tmp_path: pathlib.Path) -> None:
    aged = make(tmp_path, "cache/inputs/old", 31)
    largest = make(tmp_path, "cache/archives/longest-unused", 20, 2 << 20)
    make(tmp_path, "cache/inputs/used", 1, 2 << 20)
    make(tmp_path, "cache/archives/new", 0, 1 << 20)
    busy = make(tmp_path, "cache/inputs/busy", 29, 8 << 20)
    os.link(tmp_path / busy, tmp_path / "a-job-uses-it")
    assert [goer.relative for goer in goers(tmp_path)] == [aged, largest]
    assert "5 MiB, 3 MiB are allowed" in goers(tmp_path)[1].why
    assert [goer.relative for goer in goers(tmp_path, BOUNDS._replace(cache_max=0))] == [aged]
    assert carry_out(ChrootStore(str(tmp_path)), goers(tmp_path)) == []
    assert goers(tmp_path) == []


def test_programs_that_nobody_starts_go(tmp_path: pathlib.Path) -> None:
    for name, installed, read in (("old", 50, 40), ("used", 60, 1), ("newest", 35, 35)):
        make(tmp_path, f"lib/{name}/start.py", read)
        os.utime(tmp_path / "lib" / name, (NOW - installed * DAY, NOW - installed * DAY))
    (tmp_path / "lib" / ".lock").touch()
    assert [goer.relative for goer in goers(tmp_path)] == ["lib/old"]
    assert carry_out(ChrootStore(str(tmp_path)), goers(tmp_path)) == []
    assert sorted(os.listdir(tmp_path / "lib")) == [".lock", "newest", "used"]


def test_transfers_that_died_go(tmp_path: pathlib.Path) -> None:
    dead = make(tmp_path, "incoming/dead.part", 1.5)
    make(tmp_path, "incoming/live.part", 0.5)
    assert [goer.relative for goer in goers(tmp_path)] == [dead]


def test_what_a_later_version_has_left_is_refused_and_stays(tmp_path: pathlib.Path) -> None:
    shed = Shed(tmp_path)
    shed.claim()
    shed.ended()
    chroot = shed.store.path(HELLO)
    marker = pathlib.Path(chroot, "job.json")
    marker.write_text(json.dumps({**json.loads(marker.read_text(encoding="utf-8")), "schema": 2}), encoding="utf-8")
    before = marker.read_bytes()
    with pytest.raises(NewerFile, match=rf"{marker} was written by a later version"):
        shed.claim(token=9)
    with pytest.raises(NewerFile):
        shed.store.clean(HELLO, queue="q", token=9)
    chroots, strays = shed.store.survey()
    assert (chroots, [(stray.path, stray.newer) for stray in strays]) == ([], [(chroot, True)])
    owned = Owned("q", 99, frozenset())
    assert plan(shed.store, owned, BOUNDS, shed.time + 3650 * DAY) == []
    with pytest.raises(NewerFile):
        shed.store.discard(strays[0])
    assert marker.read_bytes() == before
