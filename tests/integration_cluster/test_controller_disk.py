# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A controller whose disk fills up: nothing is lost, and nothing is built twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import sqlite3
import subprocess
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster._cluster import as_root
from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import copy_source
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, Running, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    let_all_end,
    make_source,
    open_gates,
    wait_for_gates,
)

MEBI = 1 << 20
DISK = 96 * MEBI
PACKAGE = 48 * MEBI  # large enough for its transfer to be caught at it

# Unmounts when its standard input is closed, so that a killed test run leaves no mount behind.
_SMALL_DISK = r"""
mount -t tmpfs -o "size=$2,mode=755,uid=$3" portbuild-test "$1" || exit 1
echo mounted
read -r _end
umount "$1" || umount -l "$1"
"""


@contextlib.contextmanager
def small_disk(path: pathlib.Path, size: int) -> t.Iterator[None]:
    """Mount a file system of this size on the directory."""
    path.mkdir(parents=True)
    with subprocess.Popen(
        as_root(["sh", "-c", _SMALL_DISK, "sh", str(path), str(size), str(os.getuid())]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mounted\n"
        yield
        holder.communicate(b"end\n", timeout=60)
    path.rmdir()


class Ballast:
    """A file that takes all the room there is."""

    def __init__(self, disk: pathlib.Path) -> None:
        self._path = disk / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Take all the room but C(leave) bytes."""
        with self._path.open("wb", buffering=0) as stream:
            with contextlib.suppress(OSError):  # full
                while True:
                    stream.write(bytes(MEBI))
            with contextlib.suppress(OSError):
                while True:
                    stream.write(bytes(4096))
            stream.truncate(max(0, stream.tell() - leave))

    def drop(self) -> None:
        """Make room."""
        self._path.unlink()


@pytest.fixture
def cramped(idle: Farm) -> t.Iterator[Farm]:
    """A controller on a small disk, on which one machine was entered by hand; all is idle again afterwards."""
    disk = idle.root.parent.parent / "small"
    with small_disk(disk, DISK):
        farm = Farm(idle.cluster, disk, variables={"portbuild_min_free": "1M", "portbuild_check": "off"})
        farm.branch_directory.mkdir(parents=True)
        farm.branch_directory.joinpath("tarballs").symlink_to(idle.branch_directory / "tarballs")
        farm.queue.mkdir()
        for client in farm.cluster.clients:
            farm.queue.joinpath(client.name).write_text("0\n", encoding="ascii")
        yield farm
        farm.assert_idle()


def dispatch_at_the_gate(farm: Farm, package: str, sources: pathlib.Path, size: int = PACKAGE) -> Running:
    """Start to build a package as large as that, and return when it waits at its gate."""
    make_source(sources, package, template="pb-big", gate=True, size=f"{size // MEBI}\n")
    running = farm.start("dispatch", package=package, sourcedir=str(sources))
    try:
        wait_for_gates(farm.cluster, 1, [running])
    except BaseException:
        let_all_end(farm.cluster, [running])
        raise
    return running


def assert_nothing_is_lost(farm: Farm, package: str, size: int = PACKAGE) -> None:
    """Fail unless the results wait on the machine, in no slot of it, and nothing half has come home."""
    client = farm.cluster["client1"]
    assert farm.chroots(client) == [f"{farm.arch}/{farm.branch}/{package}"]
    assert farm.supervisors(client) == []
    marker = client.run(["cat", f"{client.scratch}/chroots/{farm.arch}/{farm.branch}/{package}/job.json"]).stdout
    assert '"state": "uncollected"' in marker
    assert farm.leases() == [f"held/client1:{farm.branch}:{package}"]
    for path in farm.packages.rglob("*") if farm.packages.exists() else ():
        assert path.is_dir() or path.suffix != ".deb" or path.stat().st_size > size, f"{path} is not whole"
    left = list(farm.branch_directory.rglob(".incoming/*/*"))
    assert left == [], "what came half way is in the way"


def assert_collected(farm: Farm, package: str, token: int, size: int = PACKAGE) -> None:
    """Fail unless the build of this token came home whole, and is the only one."""
    assert [(build["outcome"], build["token"]) for build in farm.builds(package)] == [("success", token)]
    debs = list(farm.packages.glob(f"{package}*.deb"))
    assert [path.stat().st_size > size for path in debs] == [True]
    subprocess.run(["dpkg-deb", "--fsys-tarfile", str(debs[0])], check=True, stdout=subprocess.DEVNULL)
    changes = farm.packages.joinpath(f"{package}_1.0_amd64.changes").read_text(encoding="utf-8")
    assert hashlib.sha256(debs[0].read_bytes()).hexdigest() in changes
    log = farm.log(package)
    assert f"token: {token}" in log.splitlines()
    assert log.count("build started at ") == log.count("=== ended: success") == 1


def held_token(farm: Farm) -> int:
    """Return the token under which the build on the first machine was started."""
    client = farm.cluster["client1"]
    found = client.run(["sh", "-c", f"grep -h '\"build_token\"' {client.scratch}/chroots/*/*/*/job.json"]).stdout
    return int("".join(filter(str.isdigit, found)))


def test_disk_that_is_full_when_a_build_ends(cramped: Farm, tmp_path: pathlib.Path) -> None:
    running = dispatch_at_the_gate(cramped, "toolate", tmp_path, 16 * MEBI)
    token = held_token(cramped)
    ballast = Ballast(cramped.root)
    ballast.fill(leave=8 * MEBI)
    open_gates(cramped.cluster)
    running.end().fails(
        "The build of toolate on client1 ended, but its results are not at home: The controller's disk is full:",
        "(portbuild_min_free)",
        "Make room there; the results stay on the build machine and are collected by the next dispatch of the package",
        "Its chroot on client1 is left as uncollected",
    )
    assert_nothing_is_lost(cramped, "toolate", 16 * MEBI)
    assert cramped.counters()["client1"] == 0

    # Still no room: nothing changes.
    cramped.dispatch("toolate", sourcedir=str(tmp_path)).fails("The controller's disk is full")
    assert_nothing_is_lost(cramped, "toolate", 16 * MEBI)

    ballast.drop()
    cramped.dispatch("toolate", sourcedir=str(tmp_path)).ok()
    assert_collected(cramped, "toolate", token, 16 * MEBI)


def test_disk_that_fills_while_results_come_home(cramped: Farm, tmp_path: pathlib.Path) -> None:
    """To the last byte: neither a result nor a counter nor a record can be written."""
    running = dispatch_at_the_gate(cramped, "midway", tmp_path)
    token = held_token(cramped)
    ballast = Ballast(cramped.root)
    open_gates(cramped.cluster)
    wait_for(lambda: any(cramped.packages.rglob(".incoming/*/*.deb")), "the package to begin to come", 120, 0.001)
    ballast.fill()
    running.end().fails(
        "The build of midway on client1 ended, but its results are not at home: The controller's disk is full:",
        "Its chroot on client1 is left as uncollected",
    )
    assert_nothing_is_lost(cramped, "midway")

    ballast.drop()
    cramped.dispatch("midway", sourcedir=str(tmp_path)).ok()
    assert_collected(cramped, "midway", token)


def test_disk_that_is_full_when_the_build_is_recorded(cramped: Farm, tmp_path: pathlib.Path) -> None:
    """The files have come home by then; without a record they do not count."""
    running = dispatch_at_the_gate(cramped, "unrecorded", tmp_path, MEBI)
    token = held_token(cramped)
    with contextlib.closing(sqlite3.connect(cramped.branch_directory / "portbuild.sqlite")) as database:
        database.execute("begin immediate")  # whoever records has to wait
        open_gates(cramped.cluster)
        wait_for(lambda: any(cramped.packages.glob("unrecorded*.deb")), "the package to come home", 120)
        ballast = Ballast(cramped.root)
        ballast.fill()
    running.end().fails(
        "The build of unrecorded on client1 ended, but its results are not at home: The controller's disk is full:",
        "Its chroot on client1 is left as uncollected",
    )
    assert_nothing_is_lost(cramped, "unrecorded", MEBI)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):  # nothing was ever recorded here
        cramped.builds("unrecorded")

    ballast.drop()
    cramped.dispatch("unrecorded", sourcedir=str(tmp_path)).ok()
    assert_collected(cramped, "unrecorded", token, MEBI)


def test_nothing_is_claimed_below_min_free(idle: Farm, tmp_path: pathlib.Path) -> None:
    """The issue with a full disk is that it is seen too late: with less than portbuild_min_free nothing begins."""
    before = queue_files(idle)
    package = copy_source("pb-null", tmp_path, "pb-min-free")
    idle.dispatch(package, sourcedir=str(tmp_path), min_free="900T").fails(
        "The controller's disk is full:",
        "900.0 TiB must stay free (portbuild_min_free). Make room there, or lower portbuild_min_free: until then nothing is claimed.",
    )
    assert queue_files(idle) == before
    assert list(idle.packages.glob(f"{package}_*")) == []


def queue_files(farm: Farm) -> dict[str, tuple[bytes, int]]:
    """Return the content and the time of every file of the queue."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in farm.queue.rglob("*") if path.is_file()}
