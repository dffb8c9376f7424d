# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tarballs before they are extracted, and trees that were."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import stat
import tarfile
import typing as t

import pytest
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils._bases import (
    all_trees,
    BadBase,
    find_tree,
    install_tree,
    remove_tree,
    TreeMissing,
)
from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.module_utils._files import sha256_file
from ansible_collections.portbuild.cluster.plugins.module_utils._tarballs import BadTarball, check_members

FILE, LINK, HARD, DIRECTORY = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


def member(name: str, kind: bytes = FILE, target: str = "", **more: t.Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o755 if kind == DIRECTORY else 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info


def pack(path: pathlib.Path, *members: tarfile.TarInfo, mode: t.Any = "w") -> pathlib.Path:
    """Make a tarball of these members; a file holds its own name."""
    with tarfile.open(path, mode) as tarball:
        for info in members:
            content = info.name.encode("utf-8", "surrogateescape") if info.type == FILE else b""
            info.size = len(content)
            tarball.addfile(info, io.BytesIO(content))
    return path


def shelf(scratch: pathlib.Path) -> pathlib.Path:
    (scratch / "trees").mkdir(parents=True)
    return scratch


class TestCheck:
    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    def test_what_is_in_it(self, tmp_path: pathlib.Path, mode: str) -> None:
        path = pack(tmp_path / "t", member("./a", DIRECTORY), member("a/Mk/x"), member("a/b", LINK, "../c"), mode=mode)
        seen = check_members(str(path), {"Mk/x", "Mk/y"})
        assert (seen.members, seen.bytes) == (3, 6)
        assert (set(seen.top), set(seen.found), set(seen.below)) == ({"a"}, set(), {"Mk/x"})

    @pytest.mark.parametrize(
        ("members", "complaint"),
        [
            ([member("/etc/passwd")], "leads out"),
            ([member("a/../../b")], "leads out"),
            ([member("..", DIRECTORY)], "leads out"),
            ([member("a", LINK, "/etc"), member("a/passwd")], "through the symbolic link 'a'"),
            ([member("a/b", LINK, ".."), member("a/b/c/d")], "through the symbolic link 'a/b'"),
            ([member("a", LINK, "/etc/passwd"), member("./a")], "through the symbolic link"),
            ([member("a", LINK, "/etc"), member("b", HARD, "a/passwd")], "through the symbolic link"),
            ([member("b", HARD, "../../etc/passwd")], "target '../../etc/passwd'"),
            ([member("b", HARD, "/etc/passwd")], "leads out"),
            ([member("null", tarfile.CHRTYPE)], "neither a directory"),
            ([member("fifo", tarfile.FIFOTYPE)], "neither a directory"),
            ([member(".", LINK, "/etc")], "its top"),
        ],
    )
    def test_what_is_refused(self, tmp_path: pathlib.Path, members: list[tarfile.TarInfo], complaint: str) -> None:
        with pytest.raises(BadTarball, match=complaint):
            check_members(str(pack(tmp_path / "t", *members)))

    @pytest.mark.parametrize(
        "content", [b"", b"x" * 2000, b"\x1f\x8b\x08garbage", b"\xfd7zXZ\x00garbage", b"BZh9garbage"]
    )
    def test_what_is_no_tarball(self, tmp_path: pathlib.Path, content: bytes) -> None:
        path = tmp_path / "t"
        path.write_bytes(content)
        with pytest.raises(BadTarball, match="cannot be read"):
            check_members(str(path))

    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(content=st.binary(max_size=3000), cut=st.integers(0, 10240), flip=st.integers(0, 10239))
    def test_any_bytes_give_contents_or_a_complaint(
        self, tmp_path: pathlib.Path, content: bytes, cut: int, flip: int
    ) -> None:
        good = bytearray(pack(tmp_path / "good", member("a", DIRECTORY), member("a/b")).read_bytes())
        good[flip] ^= 0xFF
        for data in (content, bytes(good[:cut]), bytes(good)):
            (tmp_path / "t").write_bytes(data)
            with contextlib.suppress(BadTarball):
                check_members(str(tmp_path / "t"))


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power fails here, and each sync takes as long as all other writers together."""
    monkeypatch.setattr(os, "sync", lambda: None)


names = st.lists(st.sampled_from(["a", "b", "c", ".", "..", "", "d e", "\udcff"]), min_size=1, max_size=4).map("/".join)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=st.lists(
        st.tuples(names, st.sampled_from([FILE, LINK, HARD, DIRECTORY, tarfile.FIFOTYPE]), names),
        min_size=1,
        max_size=6,
    )
)
def test_nothing_is_ever_written_outside(tmp_path_factory: t.Any, made: list[tuple[str, bytes, str]]) -> None:
    top = tmp_path_factory.mktemp("hostile")
    scratch = shelf(top / "scratch")
    path = pack(top / "t", *(member(*entry) for entry in made))
    digest = sha256_file(str(path))
    with contextlib.suppress(PortbuildError):  # refused, or tar's own complaint: only where it wrote counts here
        install_tree(str(scratch), str(path), digest)
    left = {str(entry.relative_to(top)).split("/", 3)[0] for entry in top.rglob("*")}
    assert left <= {"scratch", "t"}
    inside = {entry.name for entry in scratch.iterdir()} | {entry.name for entry in (scratch / "trees").iterdir()}
    assert inside <= {"trees", "trash", ".lock", digest, f"{digest}.json", f".{digest}.partial"}


class TestTree:
    def test_extracted_once_for_everybody(self, tmp_path: pathlib.Path) -> None:
        scratch = shelf(tmp_path / "scratch")
        path = pack(
            tmp_path / "t",
            member("cat", DIRECTORY, mode=0o700),
            member("cat/tool", mode=0o6700, uid=1234),
            member("cat/secret", mode=0o600),
            member("cat/link", LINK, "/etc/passwd"),
            member("Mk", DIRECTORY, mode=0o777),
            mode="w:gz",
        )
        digest = sha256_file(str(path))
        before = os.umask(0o077)
        try:
            assert install_tree(str(scratch), str(path), digest, now=lambda: 5.0)
        finally:
            os.umask(before)
        assert not install_tree(str(scratch), str(path), digest)
        tree = pathlib.Path(find_tree(str(scratch), digest))
        modes = {
            str(entry.relative_to(tree)): stat.S_IMODE(entry.lstat().st_mode)
            for entry in [tree, *tree.rglob("*")]
            if not entry.is_symlink()
        }
        assert modes == {".": 0o755, "cat": 0o755, "cat/tool": 0o755, "cat/secret": 0o644, "Mk": 0o755}
        assert (tree / "cat" / "tool").stat().st_uid == os.geteuid()
        assert os.readlink(tree / "cat" / "link") == "/etc/passwd"
        (described,) = all_trees(str(scratch))
        assert (described.sha256, described.path, described.installed) == (digest, str(tree), 5.0)
        remove_tree(str(scratch), digest)
        assert all_trees(str(scratch)) == []
        assert not (scratch / "trees" / f"{digest}.json").exists()

    def test_one_that_was_packed_with_its_directory(self, tmp_path: pathlib.Path) -> None:
        scratch = shelf(tmp_path / "scratch")
        path = pack(tmp_path / "t", member("ports", DIRECTORY), member("ports/Mk/bsd.port.mk"))
        digest = sha256_file(str(path))
        install_tree(str(scratch), str(path), digest)
        assert (scratch / "trees" / digest / "Mk" / "bsd.port.mk").is_file()
        assert sorted(os.listdir(scratch / "trees")) == [".lock", digest, f"{digest}.json"]

    def test_a_killed_attempt_is_done_over(self, tmp_path: pathlib.Path) -> None:
        scratch = shelf(tmp_path / "scratch")
        path = pack(tmp_path / "t", member("Mk", DIRECTORY), member("cat/port/Makefile"))
        digest = sha256_file(str(path))
        (scratch / "trees" / f".{digest}.partial" / "old").mkdir(parents=True)
        assert install_tree(str(scratch), str(path), digest)
        assert sorted(os.listdir(find_tree(str(scratch), digest))) == ["Mk", "cat"]

    def test_the_wrong_and_the_empty_are_refused(self, tmp_path: pathlib.Path) -> None:
        scratch = shelf(tmp_path / "scratch")
        path = pack(tmp_path / "t")
        with pytest.raises(BadBase, match="expected 0000"):
            install_tree(str(scratch), str(path), "0" * 64)
        with pytest.raises(PortbuildError, match=r"is empty|cannot be read"):  # an old tarfile says the second
            install_tree(str(scratch), str(path), sha256_file(str(path)))
        with pytest.raises(TreeMissing, match="setup playbook"):
            find_tree(str(scratch), "0" * 64)
