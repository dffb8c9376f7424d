# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import pathlib
import re
import tarfile
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("debian")

from debian.deb822 import Packages

from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import _debian_repo as repo
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import PackageFile

CONTROL = """\
Package: demo
Version: 1.0
Architecture: all
Depends: a,
 b (>= 2)
Filename: /etc/passwd
SHA256: 0000
Description: a demo
 Long.
"""


def control_tar(control: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in (("./postinst", b"#!/bin/sh\n"), ("./control", control.encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def ar(members: dict[str, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, data in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        parts.append(data + b"\n" * (len(data) % 2))
    return b"".join(parts)


def deb(control: str = CONTROL, compress: t.Callable[[bytes], bytes] = lzma.compress, suffix: str = ".xz") -> bytes:
    members = {"debian-binary": b"2.0\n", f"control.tar{suffix}": compress(control_tar(control)), "data.tar.xz": b"x"}
    return ar(members)


def stored(path: pathlib.Path, data: bytes) -> PackageFile:
    path.write_bytes(data)
    return PackageFile(path.name, str(path), len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("compress", "suffix"), [(lzma.compress, ".xz"), (gzip.compress, ".gz"), (lambda data: data, "")]
)
def test_control_of_a_package(tmp_path: pathlib.Path, compress: t.Callable[[bytes], bytes], suffix: str) -> None:
    file = stored(tmp_path / "demo_1.0_all.deb", deb(CONTROL, compress, suffix))
    assert repo.read_control(file.path) == CONTROL


def test_index(tmp_path: pathlib.Path) -> None:
    file = stored(tmp_path / "demo_1.0_all.deb", deb())
    other = stored(tmp_path / "demo_1.0_amd64.changes", b"x")
    udeb = stored(tmp_path / "demo-udeb_1.0_all.udeb", deb())
    index = repo.RepositoryIndex(str(tmp_path / "cache" / "control.sqlite"))
    text, problems = index.packages([other, udeb, file])
    assert problems == []
    (paragraph,) = Packages.iter_paragraphs(text, use_apt_pkg=False)
    assert paragraph["Filename"] == "./demo_1.0_all.deb", "what the package says of it does not count"
    assert paragraph["SHA256"] == file.sha256
    assert text.count("SHA256") == 1
    pathlib.Path(file.path).unlink()
    assert index.packages([file]) == (text, []), "it is remembered"
    assert repo.RepositoryIndex().packages([file])[1], "without a cache it is not"
    release = repo.release(text, "portbuild")
    assert f" {hashlib.sha256(text.encode()).hexdigest()} {len(text.encode())} Packages" in release


def test_a_cache_that_is_none(tmp_path: pathlib.Path) -> None:
    file = stored(tmp_path / "demo_1.0_all.deb", deb())
    (tmp_path / "control.sqlite").write_text("this is no database, " * 50)
    text, problems = repo.RepositoryIndex(str(tmp_path / "control.sqlite")).packages([file])
    assert text
    assert not problems


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "does not begin"),
        (b"PK\x03\x04", "does not begin"),
        (b"!<arch>\nshort", "bad ar header"),
        (ar({"debian-binary": b"2.0\n"}), "has no control.tar"),
        (ar({"control.tar.zst": b"x"}), "only gzip and xz"),
        (ar({"control.tar.xz": b"no xz"}), "damaged"),
        (ar({"control.tar.gz": gzip.compress(b"no tar", mtime=0)}), ""),
        (ar({"control.tar.xz": lzma.compress(b"\0" * (40 << 20))}), "more than"),
        (ar({"control.tar.gz": gzip.compress(b"\0" * (40 << 20), mtime=0)}), "more than"),
        (deb("Package: demo\n"), "malformed control"),
        (deb("Package: ../x\nVersion: 1\nArchitecture: all\n"), "malformed control"),
        (deb("Package: demo\nVersion: 1\n 2\nArchitecture: all\n"), "malformed control"),
    ],
)
def test_damaged_packages_are_left_out(tmp_path: pathlib.Path, data: bytes, word: str) -> None:
    good = stored(tmp_path / "good_1.0_all.deb", deb())
    text, problems = repo.RepositoryIndex().packages([stored(tmp_path / "bad_1_all.deb", data), good])
    assert len(problems) == 1
    assert word in problems[0]
    assert text.count("Package:") == 1


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_files_of_any_kind(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.deb"
    for content in (data, b"!<arch>\n" + data, ar({"control.tar": data}), ar({"control.tar.gz": gzip.compress(data)})):
        path.write_bytes(content)
        with contextlib.suppress(repo.BadPackage):
            repo.read_control(str(path))


@settings(deadline=None)
@given(st.text(max_size=200))
def test_control_files_of_any_kind(text: str) -> None:
    with contextlib.suppress(repo.BadPackage):
        found = repo.description(f"Package: x1\nVersion: 1\nArchitecture: all\nDescription: {text}", "/x")
        assert "\n\n" not in found, "a package must not add another to the index"
        assert not re.search(r"^(Filename|SHA256):", found, re.MULTILINE | re.IGNORECASE)
