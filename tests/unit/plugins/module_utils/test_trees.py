# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing and measuring trees that hostile code has written."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import _linux, _trees
from ansible_collections.portbuild.cluster.plugins.module_utils._beneath import UnsafeFile
from ansible_collections.portbuild.cluster.plugins.module_utils._process import in_child

DEEPER_THAN_ANY_PATH = 3000


@pytest.fixture
def scratch(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "trash").mkdir()
    (tmp_path / "chroots").mkdir()
    return tmp_path


def remove(path: pathlib.Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        _trees.remove_entry(directory, path.name)
    finally:
        os.close(directory)


def make_deep(path: pathlib.Path, depth: int = DEEPER_THAN_ANY_PATH) -> None:
    """Make a chain of directories with a file in each."""
    before = os.open(".", os.O_RDONLY)
    try:
        path.mkdir()
        os.chdir(path)
        for number in range(depth):
            os.mkdir("deeper")
            with open(f"file{number}", "wb"):
                pass
            os.chdir("deeper")
    finally:
        os.fchdir(before)
        os.close(before)


def in_namespace(function: t.Callable[[], t.Any]) -> str:
    """Do something with mounts that nobody else sees."""

    def separated() -> str:
        _linux.unshare(_linux.CLONE_NEWNS)
        _linux.make_private()
        return str(function())

    return in_child(separated)


def test_everything_in_a_tree_goes_and_nothing_else(scratch: pathlib.Path):
    outside = scratch / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    tree = scratch / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_bytes(b"1")
    (tree / "a" / "link").symlink_to(outside)
    (tree / "loop").symlink_to(".")
    os.mkfifo(tree / "fifo")
    os.link(outside / "precious", tree / "hard")
    for number in range(500):
        (tree / "a" / f"many{number}").mkdir()
        (tree / f"many{number}").write_bytes(b"")
    remove(tree)
    assert not tree.exists()
    assert (outside / "precious").read_bytes() == b"1"


def test_a_link_is_removed_not_followed(scratch: pathlib.Path):
    (scratch / "link").symlink_to(scratch / "trash")
    remove(scratch / "link")
    assert (scratch / "trash").is_dir()
    assert not (scratch / "link").is_symlink()


def test_depth_is_no_obstacle(scratch: pathlib.Path):
    make_deep(scratch / "deep")
    size = _trees.usage(str(scratch / "deep"))
    assert size >= DEEPER_THAN_ANY_PATH * 4096 or size >= DEEPER_THAN_ANY_PATH * 512
    before = len(os.listdir("/proc/self/fd"))
    remove(scratch / "deep")
    assert not (scratch / "deep").exists()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="chattr")
def test_immutable_files_are_no_obstacle(scratch: pathlib.Path):
    tree = scratch / "tree"
    (tree / "closed").mkdir(parents=True)
    (tree / "closed" / "inside").write_bytes(b"")
    (tree / "file").write_bytes(b"")
    (tree / "append").write_bytes(b"")
    marked = [["+i", "file"], ["+a", "append"], ["+i", "closed"], ["+i", "."]]
    done = [
        subprocess.run(["chattr", flag, str(tree / name)], capture_output=True, check=False) for flag, name in marked
    ]
    if any(result.returncode for result in done):
        pytest.skip("the file system has no such flags")
    remove(tree)
    assert not tree.exists()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_what_is_mounted_is_not_touched(scratch: pathlib.Path, kind: str):
    """Not even when the look at the mount table is skipped: the table is a courtesy, this is the guard."""
    precious = scratch / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"1")
    point = scratch / "tree" / "below" / "point"
    point.mkdir(parents=True)

    def attempt() -> str:
        if kind == "bind":
            _linux.mount(str(precious), str(point), None, _linux.MS_BIND)
        else:
            _linux.mount("tmpfs", str(point), "tmpfs")
            (point / "file").write_bytes(b"1")
        with pytest.raises(_trees.UnsafePath):
            remove(scratch / "tree")
        mounted = _trees.mounts_below(str(scratch))[0]
        return f"{os.path.exists(mounted + '/file')}"

    assert in_namespace(attempt) == "True"
    assert (precious / "file").exists()


@pytest.mark.root
def test_a_tree_with_a_mount_is_not_even_moved(scratch: pathlib.Path):
    tree = scratch / "chroots" / "job"
    (tree / "point with space").mkdir(parents=True)

    def attempt() -> str:
        _linux.mount("tmpfs", str(tree / "point with space"), "tmpfs")
        with pytest.raises(_trees.UnsafePath, match="point with space"):
            _trees.move_out(str(scratch), "chroots/job", "trash")
        return str(tree.exists())

    assert in_namespace(attempt) == "True"
    assert os.listdir(scratch / "trash") == []


@pytest.mark.parametrize("relative", ["", ".", "..", "../x", "chroots/..", "chroots/../..", "/"])
def test_nothing_outside_can_be_named(scratch: pathlib.Path, relative: str):
    with pytest.raises((_trees.UnsafePath, UnsafeFile)):
        _trees.move_out(str(scratch), relative, "trash")
    assert (scratch / "chroots").is_dir()


def test_the_root_directory_is_no_scratch_directory():
    with pytest.raises(_trees.UnsafePath):
        _trees.move_out("/", "tmp", "var")


def test_a_link_on_the_way_is_refused(scratch: pathlib.Path):
    outside = scratch / "outside"
    (outside / "job").mkdir(parents=True)
    (scratch / "chroots" / "amd64").symlink_to(outside)
    with pytest.raises(UnsafeFile):
        _trees.move_out(str(scratch), "chroots/amd64/job", "trash")
    assert (outside / "job").is_dir()


def test_a_removal_that_was_killed_is_finished_by_the_next(scratch: pathlib.Path):
    """Kill it at many moments; whatever is left is within the entry, and goes with it."""
    for attempt in range(12):
        tree = scratch / "trash" / "job"
        for number in range(300):
            (tree / f"a{number}" / "b" / "c").mkdir(parents=True, exist_ok=True)
            (tree / f"a{number}" / "b" / "file").write_bytes(b"")
        pid = os.fork()
        if pid == 0:
            remove(tree)
            os._exit(0)
        time.sleep(0.002 * attempt)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert os.listdir(scratch / "trash") in ([], ["job"])
        if tree.exists():
            remove(tree)
        assert os.listdir(scratch / "trash") == []


def test_a_tree_that_grows_while_it_is_removed_goes_or_says_so(scratch: pathlib.Path):
    tree = scratch / "tree"
    tree.mkdir()
    pid = os.fork()
    if pid == 0:
        number = 0
        try:
            while True:
                os.makedirs(tree / f"new{number % 7}" / "x", exist_ok=True)
                number += 1
        finally:
            os._exit(0)
    try:
        for _attempt in range(20):
            try:
                remove(tree)
            except OSError:
                continue
            break
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if tree.exists():
        remove(tree)
    assert not tree.exists()


def test_usage_counts_like_du_and_skips_what_it_is_told(scratch: pathlib.Path):
    tree = scratch / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "big").write_bytes(os.urandom(3_000_000))
    os.link(tree / "a" / "big", tree / "a" / "again")
    (tree / "skipped").mkdir()
    (tree / "skipped" / "big").write_bytes(os.urandom(2_000_000))
    with open(tree / "sparse", "wb") as stream:
        stream.truncate(1 << 30)
    os.sync()
    found = _trees.usage(str(tree), skip=("skipped",))
    assert 3_000_000 <= found < 3_200_000
    assert _trees.usage(str(tree)) > found + 1_900_000
    assert _trees.usage(str(tree / "nothing")) == 0


def test_mount_points_with_odd_names_are_read_right():
    assert _trees._unescape(r"/a\040b\011c\134d") == "/a b\tc\\d"
    assert "/" in _trees.mount_points()
    assert "/proc" in _trees.mounts_below("/")
    assert not [point for point in _trees.mounts_below("/pro") if point == "/proc"]
