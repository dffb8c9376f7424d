# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits: when the disk is scanned, and control groups of either version in a tree that looks like theirs."""

from __future__ import annotations

import os
import pathlib
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import _cgroups, _limits
from ansible_collections.portbuild.cluster.plugins.module_utils._cgroups import memory_control, remove_groups
from ansible_collections.portbuild.cluster.plugins.module_utils._limits import DiskWatch, MemoryWatch

MB = 1 << 20


class FakeDisk:
    """A file system of 1 GB, and a job on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, scans: pathlib.Path) -> None:
        self.used = 100 * MB
        self.job = 0
        self.now = 1000.0
        self.inodes = 100_000
        self._scans = scans
        monkeypatch.setattr(_limits.os, "statvfs", self.statvfs)

    def statvfs(self, _path: str) -> t.Any:
        free = 1000 - self.used // MB
        return os.statvfs_result((MB, MB, 1000, free, free, 100_000, self.inodes, self.inodes, 0, 255))

    def usage(self) -> int:
        with open(self._scans, "a", encoding="ascii") as stream:  # in another process
            stream.write("x")
        return self.job

    @property
    def scans(self) -> int:
        return self._scans.stat().st_size if self._scans.exists() else 0

    def watch(self, **options: t.Any) -> DiskWatch:
        return DiskWatch("/", self.usage, monotonic=lambda: self.now, **options)

    def check(self, watch: DiskWatch) -> t.Any:
        """Check until a scan that was begun is done."""
        self.now += 2
        found = watch.check()
        for _attempt in range(200):
            if found or watch._scan is None:
                break
            time.sleep(0.01)
            found = watch.check()
        return found


@pytest.fixture(name="disk")
def _disk(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> FakeDisk:
    return FakeDisk(monkeypatch, tmp_path / "scans")


def test_nothing_is_scanned_while_the_job_cannot_have_reached_its_limit(disk: FakeDisk) -> None:
    watch = disk.watch(limit=200 * MB)
    for _step in range(19):
        disk.used += 10 * MB
        assert disk.check(watch) is None
    assert disk.scans == 0


def test_the_job_is_told_from_its_neighbours(disk: FakeDisk) -> None:
    watch = disk.watch(limit=200 * MB)
    disk.used += 300 * MB
    disk.job = 10 * MB
    assert disk.check(watch) is None
    assert disk.scans == 1
    disk.used += 180 * MB
    assert disk.check(watch) is None
    assert disk.scans == 1
    disk.used += 20 * MB
    disk.job = 201 * MB
    found = disk.check(watch)
    assert (found.reason, found.infrastructure, disk.scans) == ("disk_full", False, 2)


def test_a_neighbours_cleaning_does_not_hide_the_jobs_writing(disk: FakeDisk) -> None:
    watch = disk.watch(limit=200 * MB)
    for _step in range(30):
        disk.used += 10 * MB
        disk.job += 10 * MB
        assert watch.check() is None or disk.job > 200 * MB
        disk.used -= 10 * MB
        disk.now += 1
        found = disk.check(watch)
        if found:
            break
    assert found.reason == "disk_full"


def test_a_full_machine(disk: FakeDisk) -> None:
    watch = disk.watch(min_free=50 * MB)
    assert disk.check(watch) is None
    disk.used = 960 * MB
    assert disk.check(watch).infrastructure
    disk.used, disk.inodes = 100 * MB, 10
    found = disk.check(watch)
    assert (found.reason, found.infrastructure) == ("machine_disk_full", True)


def test_a_file_system_of_its_own_is_full_when_it_is_full(disk: FakeDisk) -> None:
    watch = disk.watch(own="/mnt", limit=1)
    disk.used = 990 * MB
    assert disk.check(watch) is None
    disk.used = 1000 * MB
    assert disk.check(watch).reason == "disk_full"


def make(directory: pathlib.Path, **files: str) -> pathlib.Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(content)
    return directory


def test_version_2(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        # Writing to control files never creates them, so they must be there as the kernel makes them.
        real(path, mode)
        names = ("cgroup.procs", "cgroup.subtree_control", "memory.max", "memory.swap.max", "pids.max")
        for name in names:
            (pathlib.Path(path) / name).write_text("")

    make(tmp_path, cgroup__controllers="cpu memory pids\n", cgroup__subtree_control="memory\n")
    monkeypatch.setattr(_cgroups.os, "mkdir", mkdir)
    control = memory_control("job-1", memory=5 * MB, processes=7, root=str(tmp_path))
    group = tmp_path / "portbuild" / "job-1"
    assert (control.kind, control.limits_processes()) == ("cgroup2", True)
    assert (group / "memory.max").read_text() == str(5 * MB)
    assert (group / "pids.max").read_text() == "7"
    assert (tmp_path / "portbuild" / "cgroup.subtree_control").read_text() == "+memory +pids"
    watch = MemoryWatch(control, 5 * MB, lambda _namespace: 0)
    make(group, memory__stat="anon 100\nfile 999\nshmem 11\n", memory__events="oom 0\noom_kill 0\n")
    assert watch.check("") is None and watch.peak == 111
    make(group, memory__events="oom 1\noom_kill 1\n")
    found = watch.check("")
    assert found is not None and (found.reason, found.infrastructure) == ("out_of_memory", False)
    make(group, memory__events="oom 0\noom_kill 1\n")
    found = watch.check("")
    assert found is not None and found.infrastructure
    make(group, pids__events="max 1\n")
    assert control.refused_processes()


def test_without_groups_nothing_is_limited(tmp_path: pathlib.Path) -> None:
    control = memory_control("job-1", memory=MB, root=str(tmp_path))
    assert (control.kind, control.limits_processes(), control.killed()) == ("none", False, "")
    control.enter()
    control.remove()
    assert memory_control("job-1", memory=MB, wanted="off").kind == "none"


def test_only_groups_of_ours_are_removed(tmp_path: pathlib.Path) -> None:
    foreign, ours = tmp_path / "system" / "job-1", tmp_path / "portbuild" / "job-1"
    foreign.mkdir(parents=True)
    ours.mkdir(parents=True)
    remove_groups([str(foreign), str(ours)])
    assert foreign.exists() and not ours.parent.exists()


@pytest.mark.root
def test_the_kernels_own_groups() -> None:
    control: t.Any = memory_control(f"test-{os.getpid()}", memory=100 * MB, processes=10)
    if control.kind == "none":
        pytest.skip("no control groups here")
    assert isinstance(control, _cgroups._Groups)
    assert all(os.path.isdir(directory) for directory in control.directories)
    child = os.fork()
    if child == 0:
        control.enter()
        time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    control.remove()  # what is in them is killed
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert not any(os.path.isdir(directory) for directory in control.directories)
