# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The archive's lists in a bindist."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("debian")

from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import _debian_archive
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems._catalogue_targets import Complaints
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems._debian_archive import (
    Archive,
    open_archive,
    UnreadableBindist,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems._debian_paragraphs import (
    cleaned,
    fields,
    paragraphs,
)
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._debian_lists import binary, bindist, source

SHA256 = "a" * 64


def opened(tmp_path: pathlib.Path, complaints: Complaints | None = None, **lists: t.Any) -> Archive:
    return open_archive(bindist(tmp_path, **lists), SHA256, "", complaints or Complaints())


def test_of_several_versions_the_highest_counts(tmp_path: pathlib.Path) -> None:
    archive = opened(
        tmp_path,
        main_Sources=[source("foo", "1.0-1"), source("foo", "1.10-1", Section="contrib/admin"), source("kept", "9")],
        updates_Sources=[source("foo", "1.9-1"), source("kept", "10", Extra_Source_Only="yes")],
        main_binary_amd64_Packages=[binary("foo", "1.0-1"), binary("gone", Provides="x")],
        security_binary_amd64_Packages=[binary("foo", "1.10-1", Depends="libc6", Pre_Depends="dpkg")],
        main_binary_i386_Packages=[binary("foo", "99")],
    )
    assert archive.architecture == "amd64"
    found = archive.source("foo")
    assert found is not None and (found.version, len(found.dsc)) == ("1.10-1", 64)
    older = archive.source("foo", "1.9-1")
    assert older is not None and older.version == "1.9-1"
    assert (archive.source("foo", "2"), archive.source("bar")) == (None, None)
    assert [(one.name, one.version) for one in archive.current()] == [("foo", "1.10-1"), ("kept", "9")]
    package = archive.binary("foo")
    assert package is not None
    assert package[:4] == ("foo", "1.10-1", "foo", "dpkg, libc6")
    assert (archive.section("admin"), archive.section("contrib/admin"), archive.section("contrib")) == (
        *(["foo"], ["foo"], []),
    )
    assert archive.names() == ["foo", "kept"]
    assert sorted(archive.sections()) == ["contrib/admin", "misc"]


def test_the_base_says_which_architecture_is_its_own(tmp_path: pathlib.Path) -> None:
    lists: dict[str, t.Any] = {
        "main_binary_i386_Packages": binary("foo", "1"),
        "main_binary_amd64_Packages": binary("foo", "2"),
    }
    assert opened(tmp_path, **lists).architecture == "amd64"
    lists["./var/lib/dpkg/arch"] = "i386\namd64\n"
    archive = opened(tmp_path, **lists)
    assert archive.architecture == "i386"
    package = archive.binary("foo")
    assert package is not None and package.version == "1"


def test_providers(tmp_path: pathlib.Path) -> None:
    packages = [
        binary("gawk", Provides="awk"),
        binary("mawk", Provides="awk, posix-awk (= 5), odd (>= 1), ???", Priority="required"),
        binary("bin", Source="other (2.0)"),
    ]
    archive = opened(tmp_path, main_binary_amd64_Packages=packages)
    assert [(version, package.name) for version, package in archive.providers("awk")] == [("", "mawk"), ("", "gawk")]
    assert [(version, package.name) for version, package in archive.providers("posix-awk")] == [("5", "mawk")]
    assert [version for version, _package in archive.providers("odd")] == [""]
    assert archive.providers("nothing") == []
    package = archive.binary("bin")
    assert package is not None and package.source == "other"


def test_what_describes_no_package_is_counted(tmp_path: pathlib.Path) -> None:
    complaints = Complaints()
    archive = opened(
        tmp_path,
        complaints,
        main_Sources=[source("ok"), source("BAD"), source("x" * 300), source("novers", ""), "rubbish\n", "\0\n"],
        main_binary_amd64_Packages=[binary("ok"), binary("-rf"), binary("evil", "1 2"), binary("s", Source="../x")],
        more_Packages_xz="x",
        **{
            "./var/lib/apt/lists/x_dists_y_binary-amd64_Packages.lz4": "x",
            "./var/lib/apt/lists/partial/z_Sources": "x",
        },
    )
    assert archive.names() == ["ok"]
    assert archive.binary("ok") is not None
    assert [line.rpartition("_")[2] for line in complaints.lines()] == [
        "Sources of the bindist: 5 paragraphs do not describe a package.",
        "Packages of the bindist: 3 paragraphs do not describe a package.",
        "Packages.lz4 of the bindist is compressed and is not read.",
    ]


def test_lists_are_read_once_and_only_the_present_ones_stay(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "ca#he?"
    path = bindist(tmp_path, main_Sources=source("foo"))
    open_archive(path, SHA256, str(cache), Complaints()).close()
    monkeypatch.setattr(_debian_archive, "_fill", None)
    assert open_archive(path, SHA256, str(cache), Complaints()).names() == ["foo"]
    monkeypatch.undo()
    path = bindist(tmp_path, main_Sources=source("bar"))
    assert open_archive(path, SHA256, str(cache), Complaints()).names() == ["foo"]
    assert open_archive(path, "b" * 64, str(cache), Complaints()).names() == ["bar"]
    assert [entry.name for entry in (cache / "archive").iterdir()] == ["archive.sqlite"]
    for damaged in (b"", b"rubbish" * 1000):
        (cache / "archive" / "archive.sqlite").write_bytes(damaged)
        assert open_archive(path, "b" * 64, str(cache), Complaints()).names() == ["bar"]
    # What a process left that was killed.
    (cache / "archive" / ".new-abc").mkdir()
    assert open_archive(path, SHA256, str(cache), Complaints()).names() == ["bar"]
    assert [entry.name for entry in (cache / "archive").iterdir()] == ["archive.sqlite"]


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: pathlib.Path) -> None:
    complaints = Complaints()
    path = bindist(tmp_path, main_Sources=source("foo"))
    (tmp_path / "file").write_text("")
    assert open_archive(path, SHA256, str(tmp_path / "file"), complaints).names() == ["foo"]
    assert "cannot be remembered" in complaints.lines()[0]


@pytest.mark.parametrize("content", [None, b"", b"no tarball" * 2000])
def test_a_bindist_that_cannot_be_read(content: bytes | None, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bindist.tar"
    if content is not None:
        path.write_bytes(content)
    for cache in ("", str(tmp_path / "cache")):
        with pytest.raises(UnreadableBindist, match=r"bindist\.tar cannot be read: .*Make the bindist anew"):
            open_archive(str(path), SHA256, cache, Complaints())


# -- paragraphs --------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.integers(1, 50))
def test_pieces_make_no_difference(data: bytes, size: int) -> None:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert list(paragraphs(pieces)) == list(paragraphs([data]))
    for paragraph in paragraphs(pieces):
        fields(paragraph, ("A", "B-C"))


def test_a_paragraph_without_an_end_is_left_out() -> None:
    large = [b"Package: a\n\nPackage: b\n", *[b"x" * (1 << 20)] * 20, b"\n", b"\nPackage: c\n"]
    assert list(paragraphs(large)) == [b"Package: a", b"Package: c\n"]


def test_fields() -> None:
    text = b"Package: a\nDEPENDS: b,\n c |\n\td\nX-Depends: no\nDescription: x\n Depends: no\nVersion:1\nDepends-X: no"
    assert fields(text, ("Package", "Version", "Depends")) == {
        "package": "a",
        "version": "1",
        "depends": "b,\n c |\n\td",
    }
    control = "# comment\r\nSource: a\r\nBuild-Depends: b,\r\n# why\r\n c\r\n  \t\r\nPackage: p\r\n"
    first, second = paragraphs([cleaned(control)])
    assert fields(first, ("Source", "Build-Depends")) == {"source": "a", "build-depends": "b,\n c"}
    assert fields(second, ("Package",)) == {"package": "p"}
