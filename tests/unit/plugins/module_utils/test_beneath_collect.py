# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reaching into hostile trees, and bringing results out of them."""

from __future__ import annotations

import hashlib
import os
import pathlib
import resource
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import _beneath
from ansible_collections.portbuild.cluster.plugins.module_utils._beneath import UnsafeFile
from ansible_collections.portbuild.cluster.plugins.module_utils._collect import (
    BadResults,
    Budget,
    collect,
    Collected,
    keep_archive,
    matching,
    parse_checksums,
)
from ansible_collections.portbuild.cluster.plugins.module_utils._names import BadName


@pytest.fixture(name="tree")
def _tree(tmp_path: pathlib.Path) -> pathlib.Path:
    tree = tmp_path / "tree"
    (tree / "build" / "results").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    return tree


@pytest.fixture(name="top")
def _top(tree: pathlib.Path) -> t.Iterator[int]:
    with _beneath.opened(_beneath.open_top(str(tree))) as top:
        yield top


def test_a_path_is_walked_without_links(tree: pathlib.Path, top: int) -> None:
    os.symlink("../outside", tree / "link")
    os.symlink("/", tree / "build" / "root")
    for path in ("link", "link/secret", "build/root/etc", "/link"):
        with pytest.raises(UnsafeFile):
            _beneath.open_directory(top, path)
        with pytest.raises(UnsafeFile):
            _beneath.open_directory(top, path + "/new", create=True)
    for path in ("..", "build/../..", "build/../link", "a\0b"):
        with pytest.raises(UnsafeFile):
            _beneath.open_directory(top, path)
    with pytest.raises(FileNotFoundError):
        _beneath.open_directory(top, "nowhere")


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "directory", "socket"])
def test_only_plain_files_are_opened(tree: pathlib.Path, top: int, kind: str) -> None:
    path = tree / "file"
    if kind == "link":
        path.symlink_to("../outside/secret")
    elif kind == "hard link":
        os.link(tree.parent / "outside" / "secret", path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        os.mknod(path, 0o140600)
    with pytest.raises(UnsafeFile):
        _beneath.read_text(top, "file")
    with pytest.raises(UnsafeFile):
        _beneath.open_file(top, "file")


def test_small_files(tree: pathlib.Path, top: int) -> None:
    assert _beneath.read_text(top, "etc/hosts") is None
    (tree / "etc").mkdir()
    (tree / "etc" / "hosts").symlink_to("../../outside/secret")
    _beneath.replace_text(top, "etc/hosts", "ours")
    assert _beneath.read_text(top, "etc/hosts") == "ours"
    assert (tree.parent / "outside" / "secret").read_text() == "secret"
    with pytest.raises(UnsafeFile):
        _beneath.read_text(top, "etc/hosts", limit=3)
    _beneath.remove(top, "etc/hosts")
    _beneath.remove(top, "etc/hosts")
    assert not (tree / "etc" / "hosts").exists()
    with pytest.raises(UnsafeFile, match="directory"):
        _beneath.remove(top, "etc")


def collected(top: int, tmp_path: pathlib.Path, limit: int = 0) -> list[Collected]:
    def destination(kind: str) -> str:
        (tmp_path / kind).mkdir(exist_ok=True)
        return str(tmp_path / kind)

    return collect(top, "/build/results", destination, "package", Budget(limit), kinds={".changes": "changes"})


def test_collecting(tree: pathlib.Path, top: int, tmp_path: pathlib.Path) -> None:
    (tree / "build/results/a.deb").write_bytes(b"a" * 3000000)
    (tree / "build/results/a.changes").write_bytes(b"c")
    os.chmod(tree / "build/results/a.deb", 0o6777)
    found = collected(top, tmp_path)
    assert [(file.name, file.kind, file.size) for file in found] == [
        ("a.changes", "changes", 1),
        ("a.deb", "package", 3000000),
    ]
    assert found[1].sha256 == hashlib.sha256(b"a" * 3000000).hexdigest()
    assert (tmp_path / "package/a.deb").stat().st_mode & 0o7777 == 0o644
    assert matching(found, "*.deb") == ["a.deb"]


def test_nothing_is_left_of_what_is_too_large(tree: pathlib.Path, top: int, tmp_path: pathlib.Path) -> None:
    (tree / "build/results/a.deb").write_bytes(b"a" * 3000000)
    with pytest.raises(BadResults, match="larger than 1000000"):
        collected(top, tmp_path, 1000000)
    assert not list((tmp_path / "package").iterdir())


def test_a_missing_directory_has_no_results(tree: pathlib.Path, top: int, tmp_path: pathlib.Path) -> None:
    (tree / "build/results").rmdir()
    assert collected(top, tmp_path) == []


def test_memory_stays_flat(tree: pathlib.Path, top: int, tmp_path: pathlib.Path) -> None:
    with open(tree / "build/results/a.deb", "wb") as stream:
        stream.truncate(300 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert collected(top, tmp_path)[0].size == 300 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 << 10


def test_lists_of_checksums() -> None:
    assert parse_checksums(f"a.deb {'0' * 64}\n\n b c {'1' * 64}\n") == [("a.deb", "0" * 64), ("b c", "1" * 64)]
    for text in ("a.deb", "a.deb xyz", "a.deb " + "0" * 63):
        with pytest.raises(BadName):
            parse_checksums(text)
    with pytest.raises(BadResults):
        parse_checksums(f"a {'0' * 64}\n" * 11, limit=10)


def test_archives_enter_the_cache_only_verified(tree: pathlib.Path, top: int, tmp_path: pathlib.Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (tree / "a.deb").write_bytes(b"a")
    right, wrong = hashlib.sha256(b"a").hexdigest(), hashlib.sha256(b"b").hexdigest()
    assert not keep_archive(top, "a.deb", wrong, str(cache))
    assert keep_archive(top, "a.deb", right, str(cache))
    assert keep_archive(top, "gone.deb", right, str(cache))
    assert [path.name for path in cache.iterdir()] == [right]
    assert (cache / right).stat().st_mode & 0o777 == 0o444
