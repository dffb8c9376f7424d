# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A package of two gigabytes comes home whole, and nobody holds it in memory."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import shutil
import sqlite3
import time

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import aimed_at, copy_source, start
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm

#: What any single process may have had in memory at most.
FLAT = 160 << 20
#: How often a file is on the disk: in the tree, as a package, among the results, on its way home.
COPIES = 4


class Memory:
    """Looks at the processes below some others, again and again, for the most that each has had in memory."""

    def __init__(self, **tops: int) -> None:
        self._tops = tops
        #: By which of the tops, and name: bytes.
        self.peaks: dict[str, dict[str, int]] = {name: {} for name in tops}

    def look(self) -> None:
        """Look once."""
        statuses: dict[int, dict[str, str]] = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                statuses[int(path.parent.name)] = dict(line.split(":\t", 1) for line in lines)
        parents = {pid: int(status["PPid"]) for pid, status in statuses.items()}
        for pid, status in statuses.items():
            top = self._top(pid, parents)
            if top and "VmHWM" in status:  # kernel threads and zombies have none
                peaks, name = self.peaks[top], status["Name"]
                peaks[name] = max(peaks.get(name, 0), int(status["VmHWM"].removesuffix(" kB")) << 10)

    def _top(self, pid: int, parents: dict[int, int]) -> str:
        while pid > 1:
            for name, top in self._tops.items():
                if pid == top:
                    return name
            pid = parents.get(pid, 0)
        return ""


@pytest.mark.parametrize("megabytes", [512, pytest.param(2048, marks=pytest.mark.slow)])
def test_a_large_package_comes_home_with_flat_memory(idle: Farm, tmp_path: pathlib.Path, megabytes: int) -> None:
    if shutil.disk_usage(idle.root).free < COPIES * (megabytes << 20) + (4 << 30):
        pytest.skip("there is too little room on this disk")
    package = copy_source("pb-big", tmp_path, f"pb-big-{megabytes}", size=f"{megabytes}\n")
    client = idle.cluster["client1"]
    running = start(idle, *aimed_at(idle, client), package=package, sourcedir=str(tmp_path), check="off")
    memory = Memory(controller=running.pid, client=client.pid())
    while running.process.poll() is None:
        memory.look()
        time.sleep(0.2)
    running.end().ok()
    path = idle.packages / f"{package}_1.0_all.deb"
    try:
        check_file(idle, path, at_least=megabytes << 20)
    finally:
        path.unlink()
    # The measurement saw who handles the file, on both sides (the kernel cuts names).
    assert {"ansible-playboo", "sftp"} <= set(memory.peaks["controller"])
    assert {"python3", "sshd", "dpkg-deb"} <= set(memory.peaks["client"])
    fat = [(place, *peak) for place, peaks in memory.peaks.items() for peak in peaks.items() if peak[1] > FLAT]
    assert fat == []


def check_file(farm: Farm, path: pathlib.Path, *, at_least: int) -> None:
    """Compare the file with what is recorded, and with what dpkg-buildpackage itself said of it."""
    size = path.stat().st_size
    assert size > at_least
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    with sqlite3.connect(farm.branch_directory / "portbuild.sqlite") as database:
        recorded = database.execute("select size, sha256 from files where name = ?", (path.name,)).fetchall()
    assert recorded == [(size, sha256)]
    changes = path.with_name(path.name.replace("_all.deb", "_amd64.changes")).read_text(encoding="utf-8")
    assert f"{sha256} {size} {path.name}" in changes
