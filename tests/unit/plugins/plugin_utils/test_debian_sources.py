# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("debian")

from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import _debian_sources as sources
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import BadSource

CHANGELOG = "demo ({version}) unstable; urgency=low\n\n  * x\n\n -- x <x@y>  Mon, 01 Jan 2024 00:00:00 +0000\n"


def make_tree(directory: pathlib.Path, version: str = "1.0", name: str = "demo") -> pathlib.Path:
    tree = directory / name
    (tree / "debian").mkdir(parents=True)
    (tree / "debian" / "changelog").write_text(CHANGELOG.format(version=version))
    (tree / "debian" / "control").write_text("Source: demo\nMaintainer: x <x@y>\n\nPackage: demo\nArchitecture: all\n")
    (tree / "debian" / "rules").write_text("#!/bin/sh\n")
    (tree / "debian" / "rules").chmod(0o755)
    return tree


def make_dsc(directory: pathlib.Path, version: str = "1.0", *, signed: bool = False, **files: str) -> pathlib.Path:
    files = files or {f"demo_{version}.tar.xz": "content"}
    lines = []
    for name, content in files.items():
        (directory / name).write_text(content)
        lines.append(f" {hashlib.sha256(content.encode()).hexdigest()} {len(content)} {name}\n")
    text = f"Format: 3.0 (native)\nSource: demo\nVersion: {version}\nChecksums-Sha256:\n{''.join(lines)}"
    if signed:
        text = (
            f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}\n"
            "-----BEGIN PGP SIGNATURE-----\n\nSource: evil\n-----END PGP SIGNATURE-----\n"
        )
    dsc = directory / f"demo_{version}.dsc"
    dsc.write_text(text)
    return dsc


def test_the_newest_version_is_found(tmp_path: pathlib.Path) -> None:
    assert sources.find_source(str(tmp_path), "demo") is None
    for version in ("1.9", "1.10", "1.10~rc1"):
        make_dsc(tmp_path, version)
    found = sources.find_source(str(tmp_path), "demo")
    assert found is not None
    assert (found.kind, found.version) == ("dsc", "1.10")
    make_tree(tmp_path, "1.10")
    found = sources.find_source(str(tmp_path), "demo")
    assert found is not None
    assert found.kind == "tree"
    exact = sources.find_source(str(tmp_path), "demo", "1.9")
    assert exact is not None
    assert exact.version == "1.9"
    assert sources.find_source(str(tmp_path), "demo", "2.0") is None
    assert sources.find_source(str(tmp_path), "dem") is None


def test_no_directory() -> None:
    with pytest.raises(BadSource, match="cannot be read"):
        sources.find_source("/nonexistent/x", "demo")


@pytest.mark.parametrize("signed", [False, True])
def test_files_of_a_dsc(tmp_path: pathlib.Path, signed: bool) -> None:
    dsc = make_dsc(tmp_path, signed=signed)
    found = sources.dsc_files(str(dsc))
    assert [file.name for file in found] == ["demo_1.0.dsc", "demo_1.0.tar.xz"]
    assert found[0].sha256 == hashlib.sha256(dsc.read_bytes()).hexdigest()
    assert sources.read_dsc_head(str(dsc), "demo").version == "1.0"


def test_damaged_files_of_a_dsc(tmp_path: pathlib.Path) -> None:
    dsc = make_dsc(tmp_path)
    tarball = tmp_path / "demo_1.0.tar.xz"
    tarball.write_text("CONTENT")
    with pytest.raises(BadSource, match=r"has the SHA-256"):
        sources.dsc_files(str(dsc))
    tarball.write_text("longer content")
    with pytest.raises(BadSource, match="14 bytes"):
        sources.dsc_files(str(dsc))
    tarball.unlink()
    with pytest.raises(BadSource, match=r"demo_1\.0\.tar\.xz, which cannot be read"):
        sources.dsc_files(str(dsc))
    tarball.symlink_to("/etc/passwd")
    with pytest.raises(BadSource, match="not a regular file"):
        sources.dsc_files(str(dsc))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", ".hidden", "-rf", "a b", "x\u00e9"])
def test_names_in_a_dsc_that_lead_elsewhere(tmp_path: pathlib.Path, name: str) -> None:
    dsc = tmp_path / "demo_1.0.dsc"
    dsc.write_text(f"Source: demo\nVersion: 1.0\nChecksums-Sha256:\n {'0' * 64} 1 {name}\n")
    with pytest.raises(BadSource, match="malformed checksum line"):
        sources.dsc_files(str(dsc))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "is for the source package ''"),
        ("Source: other\nVersion: 1\n", "other"),
        ("Source: demo\n", "version ''"),
        ("Source: demo\nVersion: 1;rm -rf /\n", "malformed version"),
        ("Source: demo\nVersion: 1.0\n", "lists no files"),
    ],
)
def test_malformed_dscs(tmp_path: pathlib.Path, text: str, word: str) -> None:
    dsc = tmp_path / "demo_1.0.dsc"
    dsc.write_text(text)
    with pytest.raises(BadSource, match=word):
        sources.read_dsc_head(str(dsc), "demo")
        sources.dsc_files(str(dsc))


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_a_dsc_that_is_no_file(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "demo_1.0.dsc"
    {"link": lambda: path.symlink_to("/etc/passwd"), "fifo": lambda: os.mkfifo(path), "directory": path.mkdir}[kind]()
    with pytest.raises(BadSource):
        sources.find_source(str(tmp_path), "demo")


@settings(deadline=None)
@given(st.text(max_size=300))
def test_control_files_of_any_kind(text: str) -> None:
    with contextlib.suppress(BadSource):
        fields = sources.parse_control(text, "x")
        assert all(name == name.lower() for name in fields)


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("Source: -\n\tdemo.()+~1#;urgency=low"), max_size=200))
def test_changelogs_of_any_kind(text: str) -> None:
    with contextlib.suppress(BadSource):
        name, version = sources.parse_changelog_head(text, "x")
        assert sources.NAME.fullmatch(name)
        assert version
        assert not set(version) & set(" \t\n()")


def test_a_tree_of_another_name(tmp_path: pathlib.Path) -> None:
    make_tree(tmp_path, name="other")
    with pytest.raises(BadSource, match="'other' is expected"):
        sources.find_source(str(tmp_path), "other")


@pytest.mark.parametrize("version", ["1 0", "1.0) x (2", "$(id)", "a", "1" * 300])
def test_malformed_versions_in_a_changelog(tmp_path: pathlib.Path, version: str) -> None:
    make_tree(tmp_path, version)
    with pytest.raises(BadSource):
        sources.find_source(str(tmp_path), "demo")


def packed(tree: pathlib.Path, where: pathlib.Path) -> tuple[str, dict[str, tarfile.TarInfo]]:
    source = sources.find_source(str(tree.parent), "demo")
    assert source is not None
    where.mkdir(exist_ok=True)
    file = sources.pack_tree(source, str(where))
    assert file.size == os.path.getsize(file.path)
    with tarfile.open(file.path) as archive:
        return file.sha256, {entry.name: entry for entry in archive}


def test_a_tree_is_packed_the_same_each_time(tmp_path: pathlib.Path) -> None:
    tree = make_tree(tmp_path, "2:1.0")
    (tree / ".git").mkdir()
    (tree / ".git" / "config").write_text("secret")
    (tree / "link").symlink_to("/etc/passwd")
    first, entries = packed(tree, tmp_path / "a")
    (tree / ".git" / "config").write_text("changed")
    second, _entries = packed(tree, tmp_path / "b")
    assert first == second
    assert not [name for name in entries if ".git" in name]
    assert entries["./link"].linkname == "/etc/passwd", "a link goes as a link"
    assert entries["./debian/rules"].mode == 0o755
    assert {entry.uid for entry in entries.values()} == {0}
    assert os.listdir(tmp_path / "a") == ["demo_2%3a1.0.tar"]


def test_a_tree_with_something_strange(tmp_path: pathlib.Path) -> None:
    tree = make_tree(tmp_path)
    os.mkfifo(tree / "fifo")
    with pytest.raises(BadSource, match="neither a file"):
        packed(tree, tmp_path / "a")
