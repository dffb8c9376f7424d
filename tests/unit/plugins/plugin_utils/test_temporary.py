# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories for files on their way."""

from __future__ import annotations

import os
import pathlib

from ansible_collections.portbuild.cluster.plugins.plugin_utils._temporary import (
    make_directory,
    own_directory,
    remove_dead,
)


def test_what_a_dead_process_left_is_removed_and_nothing_else(tmp_path: pathlib.Path) -> None:
    base = tmp_path / "made" / "on demand"
    own, lock = make_directory(str(base), "own.")
    dead, dead_lock = make_directory(str(base), "dead.")
    pathlib.Path(dead, "file").touch()
    os.close(dead_lock)  # as the kernel does
    (base / "a file").touch()
    (base / "a link").symlink_to(tmp_path)
    remove_dead(str(base))
    assert sorted(os.listdir(base)) == ["a file", "a link", os.path.basename(own)]
    os.close(lock)
    remove_dead(str(base))
    assert sorted(os.listdir(base)) == ["a file", "a link"]
    assert tmp_path.is_dir()


def test_there_need_be_nothing(tmp_path: pathlib.Path) -> None:
    remove_dead(str(tmp_path / "missing"))


def test_a_directory_goes_with_its_block_or_with_the_next_one(tmp_path: pathlib.Path) -> None:
    child = os.fork()
    if child == 0:
        with own_directory(str(tmp_path), "one."):
            os._exit(0)  # as good as a kill
    os.waitpid(child, 0)
    (left,) = os.listdir(tmp_path)
    with own_directory(str(tmp_path), "two.") as path:
        assert os.listdir(tmp_path) == [os.path.basename(path)] != [left]
    assert os.listdir(tmp_path) == []
