# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""FreeBSD's base.txz and tarballs that are given. What runs only on FreeBSD is told to a test double that writes it down."""

from __future__ import annotations

import os
import pathlib
import tarfile
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils import _bindist_freebsd as freebsd
from ansible_collections.portbuild.cluster.plugins.module_utils._bindist import BindistError, find_bindist
from ansible_collections.portbuild.cluster.plugins.module_utils._bindist_freebsd import Recipe, Wish
from ansible_collections.portbuild.cluster.plugins.module_utils._files import sha256_file
from ansible_collections.portbuild.cluster.plugins.module_utils._process import check_run, CommandError, Completed

SITE = "https://download.freebsd.org/releases/amd64/amd64/15.1-RELEASE"
#: As it stands on the site, with a sum of our own.
MANIFEST = (
    f'base-dbg.txz\t{"1" * 64}\t1500\tbase_dbg\t"Base system (Debugging)"\toff\n'
    f'base.txz\t{{}}\t29100\tbase\t"Base system (MANDATORY)"\ton\n'
    f'kernel.txz\t{"2" * 64}\t900\tkernel\t"Kernel (MANDATORY)"\ton\n'
)
VERSION = '#!/bin/sh\nUSERLAND_VERSION="15.1-RELEASE-p2"\n'
PARAM_H = "/* x */\n#undef __FreeBSD_version\n#define __FreeBSD_version 1501000\t/* Master */\n"


class Double:
    """A test double of check_run: knows a FreeBSD machine's answers, writes down the rest, runs tar and gzip."""

    def __init__(self, served: dict[str, pathlib.Path | str] | None = None) -> None:
        self.asked: list[list[str]] = []
        self.environments: list[t.Mapping[str, str]] = []
        self._served = served or {}

    def __call__(self, argv: list[str], what: str, **options: t.Any) -> Completed:
        self.asked.append(argv)
        if argv[0] in ("tar", "gzip"):
            return check_run(argv, what, **options)
        answers = {"uname -m": "amd64", "uname -p": "amd64", "freebsd-version -u": "15.1-RELEASE-p2"}
        output = answers.get(" ".join(argv), "")
        if argv[0] == "fetch":
            self.environments.append(options["env"])
            served = self._served.get(argv[-1])
            if served is None:
                raise CommandError(f"{what} failed: 'fetch' ended with status 1: Not Found", details={"rc": 1})
            target = argv[argv.index("-o") + 1]
            if target == "-":
                output = str(served)
            else:
                pathlib.Path(target).write_bytes(pathlib.Path(served).read_bytes())
        if argv[0] == "pw":
            passwd = pathlib.Path(argv[2], "etc", "passwd")
            passwd.write_text(passwd.read_text(encoding="utf-8") + "\nbuilder:*:1500:1500::/home/builder:/bin/sh\n")
        return Completed(0, output + "\n", "")


def base(path: pathlib.Path, *, is_freebsd: bool = True) -> pathlib.Path:
    """Make a tarball of a tiny base."""
    root = path.parent / "made"
    for name in ("bin", "etc", "usr/include/sys"):
        (root / name).mkdir(parents=True)
    (root / "bin" / "sh").write_text("", encoding="utf-8")
    (root / "etc" / "passwd").write_text("root:*:0:0::/root:/bin/sh", encoding="utf-8")
    if is_freebsd:
        (root / "bin" / "freebsd-version").write_text(VERSION, encoding="utf-8")
        (root / "usr" / "include" / "sys" / "param.h").write_text(PARAM_H, encoding="utf-8")
    with tarfile.open(path, "w:xz") as tarball:
        tarball.add(root, ".")
    return path


@pytest.fixture
def on_freebsd(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Have the code take this for FreeBSD; what it runs at the end goes to the list."""
    ran: list[list[str]] = []

    def run(argv: list[str], **_options: t.Any) -> Completed:
        ran.append(argv)
        return Completed(0, "", "")

    monkeypatch.setattr(freebsd, "LINUX", False)
    monkeypatch.setattr(freebsd, "run", run)
    return ran


class TestPure:
    @pytest.mark.parametrize(
        ("text", "name"),
        [("14.3-RELEASE-p2\n", "14.3-RELEASE"), ("14.3", "14.3-RELEASE"), ("15.0-CURRENT", "15.0-CURRENT")],
    )
    def test_the_name_of_a_release(self, text: str, name: str) -> None:
        assert freebsd.release_name(text) == name

    @pytest.mark.parametrize("text", ["", "14", "../14.3-RELEASE", "14.3-RELEASE/x", "14.3-release", "HEAD"])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(BindistError, match="portbuild_bindist_release"):
            freebsd.release_name(text)

    def test_where_a_release_is(self) -> None:
        assert freebsd.site("", "amd64", "amd64", "15.1-RELEASE") == SITE
        assert (
            freebsd.site("http://mirror.example/pub/", "arm64", "aarch64", "16.0-CURRENT")
            == "http://mirror.example/pub/snapshots/arm64/aarch64/16.0-CURRENT"
        )
        with pytest.raises(BindistError, match="architecture"):
            freebsd.site("", "amd64/..", "amd64", "15.1-RELEASE")

    def test_the_manifest(self) -> None:
        assert freebsd.parse_manifest(MANIFEST.format("a" * 64)) == "a" * 64

    @pytest.mark.parametrize("text", ["", "<html>", "base.txz", f"base.txz\t{'a' * 63}", f"my-base.txz\t{'a' * 64}"])
    def test_no_manifest(self, text: str) -> None:
        with pytest.raises(BindistError, match="no SHA-256"):
            freebsd.parse_manifest(text)

    @given(st.text())
    def test_any_text_is_survived(self, text: str) -> None:
        try:
            assert len(freebsd.parse_manifest(text)) == 64
        except BindistError as error:
            assert error.remedy

    def test_the_commands(self) -> None:
        assert freebsd.fetch_argv("https://x/base.txz", "/t") == [
            *("fetch", "-q", "-T", "60", "-o", "/t", "--", "https://x/base.txz"),
        ]
        assert freebsd.account_argv("/w/root", "builder", 1500) == [
            *("pw", "-R", "/w/root", "useradd", "-n", "builder", "-m", "-u", "1500", "-s", "/bin/sh"),
        ]
        assert freebsd.pack_argv("/w/root", "/w/base.tar", gnu=False) == [
            *("tar", "-C", "/w/root", "--numeric-owner", "-cf", "/w/base.tar", "."),
        ]


class TestPlan:
    def test_the_machines_own_release(self, tmp_path: pathlib.Path) -> None:
        double = Double({f"{SITE}/MANIFEST": MANIFEST.format("a" * 64)})
        wish = Wish("/x", proxy="http://proxy.example:3128")
        recipe = freebsd.plan_bindist(wish, check=double, manifests=str(tmp_path))
        assert recipe == Recipe(f"{SITE}/base.txz", "a" * 64, "15.1-RELEASE", "builder", 1500)
        assert double.environments[0]["HTTP_PROXY"] == "http://proxy.example:3128"
        elsewhere = recipe._replace(origin="http://mirror.example/base.txz")
        assert recipe.digest() == elsewhere.digest() != recipe._replace(sha256="b" * 64).digest()

    def test_a_manifest_on_the_machine_is_trusted_more(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "amd64-amd64-14.3-RELEASE").write_text(MANIFEST.format("c" * 64), encoding="utf-8")
        double = Double()
        recipe = freebsd.plan_bindist(Wish("/x", release="14.3"), check=double, manifests=str(tmp_path))
        assert (recipe.sha256, recipe.release) == ("c" * 64, "14.3-RELEASE")
        assert not any(argv[0] == "fetch" for argv in double.asked)

    def test_a_release_that_is_not_there(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(BindistError, match=r"Is there a release 15\.2-RELEASE for amd64/amd64"):
            freebsd.plan_bindist(Wish("/x", release="15.2"), check=Double(), manifests=str(tmp_path))

    def test_a_tarball_that_is_not_there(self) -> None:
        with pytest.raises(BindistError, match="neither on the controller nor on this machine"):
            freebsd.plan_bindist(Wish("/x", tarball="/nonexistent"), check=Double())

    def test_an_account_that_cannot_be(self) -> None:
        with pytest.raises(BindistError, match="account"):
            freebsd.plan_bindist(Wish("/x", build_user="-R/"), check=Double())


@pytest.mark.root
class TestMake:
    def test_of_a_release(self, tmp_path: pathlib.Path, on_freebsd: list[list[str]]) -> None:
        served = base(tmp_path / "base.txz")
        digest = sha256_file(str(served))
        double = Double({f"{SITE}/MANIFEST": MANIFEST.format(digest), f"{SITE}/base.txz": served})
        wish = Wish(str(tmp_path / "out" / "bindist.tar"))
        recipe = freebsd.plan_bindist(wish, check=double, manifests=str(tmp_path))
        made, release = freebsd.make_bindist(wish, recipe, check=double, now=lambda: 5.0)
        assert release == ("15.1-RELEASE-p2", 1501000)
        assert (made.sha256, made.size, made.made) == (sha256_file(wish.path), os.path.getsize(wish.path), 5.0)
        assert find_bindist(wish.path, recipe) == made
        root = next(argv for argv in double.asked if argv[0] == "pw")[2]
        commands = [argv[0] for argv in double.asked if argv[0] != "uname"]
        assert commands == ["freebsd-version", "fetch", "fetch", "chflags", "pw", "tar", "gzip"]
        assert ["chflags", "-R", "0", root] in double.asked
        assert on_freebsd == [["chflags", "-R", "0", root]]
        assert sorted(os.listdir(tmp_path / "out")) == ["bindist.tar", "bindist.tar.json"]
        with tarfile.open(wish.path, "r:gz") as tarball:
            members = {member.name: member for member in tarball}
        assert members["./build"].uid == 1500
        assert {"./usr/ports", "./portbuild", "./bin/freebsd-version"} <= set(members)

    def test_what_is_not_as_announced_leaves_nothing(self, tmp_path: pathlib.Path, on_freebsd: t.Any) -> None:
        served = base(tmp_path / "base.txz")
        double = Double({f"{SITE}/MANIFEST": MANIFEST.format("a" * 64), f"{SITE}/base.txz": served})
        wish = Wish(str(tmp_path / "out" / "bindist.tar"))
        recipe = freebsd.plan_bindist(wish, check=double, manifests=str(tmp_path))
        with pytest.raises(BindistError, match="damaged"):
            freebsd.make_bindist(wish, recipe, check=double)
        assert os.listdir(tmp_path / "out") == []

    def test_what_is_not_freebsds(self, tmp_path: pathlib.Path, on_freebsd: t.Any) -> None:
        wish = Wish(str(tmp_path / "out" / "bindist.tar"), tarball=str(base(tmp_path / "x.txz", is_freebsd=False)))
        double = Double()
        with pytest.raises(BindistError, match="no FreeBSD base"):
            freebsd.make_bindist(wish, freebsd.plan_bindist(wish, check=double), check=double)
        assert os.listdir(tmp_path / "out") == []

    def test_of_a_tarball_on_linux(self, tmp_path: pathlib.Path) -> None:
        wish = Wish(str(tmp_path / "out" / "bindist.tar"), tarball=str(base(tmp_path / "x.txz", is_freebsd=False)))
        recipe = freebsd.plan_bindist(wish)
        made, release = freebsd.make_bindist(wish, recipe)
        assert release is None
        assert find_bindist(wish.path, recipe) == made
        with tarfile.open(wish.path, "r:gz") as tarball:
            passwd = tarball.extractfile("./etc/passwd")
            assert passwd is not None
            text = passwd.read().decode("utf-8")
            assert tarball.getmember("./home/builder").uid == 1500
        assert text == "root:*:0:0::/root:/bin/sh\nbuilder:x:1500:1500::/home/builder:/bin/sh\n"

    def test_an_account_that_is_there_is_left_alone(self, tmp_path: pathlib.Path) -> None:
        root = tmp_path / "root"
        (root / "etc").mkdir(parents=True)
        (root / "etc" / "passwd").write_text("builder:x:7:7::/:/bin/sh\n", encoding="utf-8")
        freebsd.customize(str(root), Recipe("/x", "a" * 64, "", "builder", 1500))
        assert (root / "etc" / "passwd").read_text(encoding="utf-8") == "builder:x:7:7::/:/bin/sh\n"
        assert (root / "build").stat().st_uid == 7

    def test_a_base_does_not_reach_out_of_itself(self, tmp_path: pathlib.Path) -> None:
        root, outside = tmp_path / "root", tmp_path / "outside"
        outside.mkdir()
        root.mkdir()
        (root / "etc").symlink_to(outside)
        (root / "usr").symlink_to(outside)
        with pytest.raises(Exception, match="symbolic link"):
            freebsd.customize(str(root), Recipe("/x", "a" * 64, "", "builder", 1500))
        assert os.listdir(outside) == []
