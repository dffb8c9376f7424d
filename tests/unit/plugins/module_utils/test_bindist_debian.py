# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tarfile
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import _bindist_debian as bindist
from ansible_collections.portbuild.cluster.plugins.module_utils._bindist import BindistError, find_bindist
from ansible_collections.portbuild.cluster.plugins.module_utils._bindist_debian import Entry, Wish

DEB822 = """\
# a mirror
Types: deb deb-src
URIs: http://mirror.example/debian http://other.example/debian/
# a comment inside
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""


def entry(**more: t.Any) -> Entry:
    fields: dict[str, t.Any] = {
        "uri": "http://mirror.example/debian",
        "suite": "bookworm",
        "components": ("main",),
        "signed_by": "",
        "trusted": False,
        "where": "here",
    }
    return Entry(**{**fields, **more})


def test_both_formats_are_read() -> None:
    found = bindist.parse_deb822(DEB822, "x.sources")
    assert [(item.uri, item.suite) for item in found] == [
        ("http://mirror.example/debian", "bookworm"),
        ("http://mirror.example/debian", "bookworm-updates"),
        ("http://other.example/debian/", "bookworm"),
        ("http://other.example/debian/", "bookworm-updates"),
    ]
    assert found[0].components == ("main", "contrib")
    line = "deb [arch=amd64 signed-by=/k.gpg trusted=yes] http://mirror.example/debian sid main # why\n"
    assert bindist.parse_one_line("# deb x y z\ndeb-src a b c\nnonsense\ndeb\n" + line, "l") == [
        entry(suite="sid", signed_by="/k.gpg", trusted=True, where="l:5")
    ]


@pytest.mark.parametrize(
    ("changes", "release", "word"),
    [
        ({}, {"origin": "Debian"}, ""),
        ({}, {"origin": "Vendor"}, "Vendor"),
        ({"signed_by": "/usr/share/keyrings/vendor.gpg"}, {}, "keyring"),
        ({"signed_by": "/usr/share/keyrings/debian-archive-keyring.gpg"}, {}, ""),
        ({}, {}, ""),
        ({"uri": "http://mirror.example/debian-security"}, {}, ""),
        ({"uri": "http://mirror.example/node"}, {}, "nothing"),
        ({"uri": "http://user:secret@mirror.example/debian"}, {"origin": "Debian"}, "credentials"),
        ({"uri": "file:/srv/debian"}, {"origin": "Debian"}, "reach"),
        ({"trusted": True}, {"origin": "Debian"}, "signature"),
        ({"components": ("partner",)}, {"origin": "Debian"}, "components"),
        ({"suite": "./", "components": ()}, {}, "flat"),
    ],
)
def test_only_debians_own_archive_is_taken(changes: dict[str, t.Any], release: dict[str, str], word: str) -> None:
    reason = bindist.refusal(entry(**changes), release)
    assert bool(reason) == bool(word)
    assert word in reason


def test_suites() -> None:
    entries = [
        entry(),
        entry(suite="bookworm-updates"),
        entry(suite="bookworm-backports"),
        entry(suite="bookworm-security", uri="http://mirror.example/debian-security"),
        entry(uri="http://vendor.example/debian", signed_by="/vendor.gpg"),
    ]
    own = bindist.choose_archive(entries, lambda item: {}, default_suite="bookworm")
    assert [item.suite for item in own.entries] == ["bookworm", "bookworm-updates", "bookworm-security"]
    assert [item.entry.signed_by for item in own.skipped] == ["/vendor.gpg"]
    other = bindist.choose_archive(entries, lambda item: {}, suite="trixie", default_suite="bookworm")
    assert [(item.suite, item.uri.rpartition("/")[2]) for item in other.entries] == [
        ("trixie", "debian"),
        ("trixie-updates", "debian"),
        ("trixie-security", "debian-security"),
    ]
    assert [item.suite for item in bindist.choose_archive(entries, lambda item: {}, suite="sid").entries] == ["sid"]
    stable = [entry(suite="stable")]
    named = bindist.choose_archive(stable, lambda item: {"origin": "Debian", "codename": "bookworm"}, suite="bookworm")
    assert named.entries == (stable[0],)
    mirror = bindist.choose_archive(entries, lambda item: {}, suite="trixie", mirror="http://third.example/debian")
    assert [item.uri for item in mirror.entries] == [
        "http://third.example/debian",
        "http://third.example/debian",
        "http://mirror.example/debian-security",
    ]


@pytest.mark.parametrize("suite", ["-x", "book worm", "a/../b", "x\ny"])
def test_malformed_suites_are_refused(suite: str) -> None:
    with pytest.raises(BindistError):
        bindist.choose_archive([entry()], lambda item: {}, suite=suite)


def test_nothing_of_debian() -> None:
    with pytest.raises(BindistError, match="no entry of Debian's own archive"):
        bindist.choose_archive([entry(trusted=True)], lambda item: {}, default_suite="bookworm")


def test_sources_list_trusts_debians_keyring_alone() -> None:
    text = bindist.sources_list([entry(components=("main", "partner")), entry(components=("main",))], "/k.gpg")
    assert text.splitlines() == [
        "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main",
        "deb-src [signed-by=/k.gpg] http://mirror.example/debian bookworm main",
    ]


def test_release_fields(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mirror.example:8080_deb%5fian_dists_bookworm_updates_InRelease").write_text(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nOrigin: Debian\nCodename: bookworm\nOrigin: Other\n"
    )
    found = bindist.release_fields(
        entry(uri="http://mirror.example:8080/deb_ian/", suite="bookworm/updates"), str(tmp_path)
    )
    assert found == {"origin": "Debian", "codename": "bookworm"}
    assert bindist.release_fields(entry(), str(tmp_path)) == {}


def runner(log: list[list[str]], *, fail: str = "") -> t.Any:
    def run(args: list[str], *, data: str | None = None, environ_update: dict[str, str] | None = None) -> t.Any:
        log.append(args)
        if args[0] == fail:
            return 1, "", "I: starting\nE: it broke\nI: removing\n"
        if args[0] == "mmdebstrap":
            pathlib.Path(args[-2]).write_text(str(data))
        if args[0] == "gzip":
            os.rename(args[-1], args[-1] + ".gz")
        return 0, "amd64\n", ""

    return run


def make_etc(tmp_path: pathlib.Path) -> str:
    etc = tmp_path / "etc"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list.d" / "debian.sources").write_text(DEB822)
    (etc / "sources.list.d" / "README").write_text("deb http://no.example/debian bookworm main\n")
    return str(etc)


def test_make_find_and_make_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindist, "KEYRINGS", ("/dev/null",))
    monkeypatch.setattr(bindist.shutil, "which", lambda name: f"/usr/bin/{name}")
    etc, path = make_etc(tmp_path), str(tmp_path / "out" / "base.tar.gz")
    log: list[list[str]] = []
    wish = Wish(path, suite="bookworm", include=("ccache",))
    recipe = bindist.plan_bindist(wish, runner(log), etc_apt=etc, lists=str(tmp_path))
    assert recipe.include == ("ccache", "dpkg-dev", "fakeroot")
    assert find_bindist(path, recipe) is None
    made = bindist.make_bindist(wish, recipe, runner(log), now=lambda: 1e9)
    assert find_bindist(path, recipe) == made
    assert os.listdir(tmp_path / "out") in (["base.tar.gz", "base.tar.gz.json"], ["base.tar.gz.json", "base.tar.gz"])
    more = bindist.plan_bindist(wish._replace(build_uid=1600), runner(log), etc_apt=etc, lists=str(tmp_path))
    assert find_bindist(path, more) is None, "other parameters make another base"
    pathlib.Path(path).write_text("damaged")
    assert find_bindist(path, recipe) is None


@pytest.mark.root
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap")
def test_a_real_base(tmp_path: pathlib.Path) -> None:
    def run(args: list[str], *, data: str | None = None, environ_update: dict[str, str] | None = None) -> t.Any:
        environment = {**os.environ, **(environ_update or {})}
        done = subprocess.run(
            args, input=data, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        return done.returncode, done.stdout, done.stderr

    wish = Wish(str(tmp_path / "base.tar"), build_uid=1600)
    recipe = bindist.plan_bindist(wish, run)
    made = bindist.make_bindist(wish, recipe, run)
    with tarfile.open(made.path) as archive:
        entries = {entry.name: entry for entry in archive}
        text = {
            name: t.cast("t.IO[bytes]", archive.extractfile(f"./{name}")).read().decode()
            for name in (
                "usr/sbin/policy-rc.d",
                "etc/passwd",
                "etc/apt/sources.list",
                "etc/resolv.conf",
                "etc/machine-id",
            )
        }
    assert entries["./usr/sbin/policy-rc.d"].mode & 0o111
    assert "exit 101" in text["usr/sbin/policy-rc.d"]
    assert "builder:x:1600:1600:" in text["etc/passwd"]
    assert text["etc/apt/sources.list"] == recipe.sources
    assert text["etc/resolv.conf"] == text["etc/machine-id"] == ""
    assert entries["./build"].uid == entries["./build"].gid == 1600
    assert entries["./usr/bin/fakeroot"]
    assert any(name.startswith("./var/lib/apt/lists/") and name.endswith("_Sources") for name in entries)
    assert not [name for name in entries if name.startswith("./var/cache/apt/archives/") and name.endswith(".deb")]


def test_a_failure_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindist, "KEYRINGS", ("/dev/null",))
    monkeypatch.setattr(bindist.shutil, "which", lambda name: f"/usr/bin/{name}")
    out = tmp_path / "out"
    wish = Wish(str(out / "base.tar.gz"), suite="bookworm")
    recipe = bindist.plan_bindist(wish, runner([]), etc_apt=make_etc(tmp_path), lists=str(tmp_path))
    with pytest.raises(BindistError, match="E: it broke"):
        bindist.make_bindist(wish, recipe, runner([], fail="mmdebstrap"))
    assert os.listdir(out) == []


@pytest.mark.parametrize("name", ["", "-x", "a,b", "a b", "a;b"])
def test_names_that_could_be_options_are_refused(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(BindistError):
        bindist.plan_bindist(Wish("/x", include=(name,)), runner([]), etc_apt=make_etc(tmp_path), lists=str(tmp_path))
