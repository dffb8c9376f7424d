# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What make check-freebsd does without a host: its lines and total, the little tree, and what it reads of commands."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

pytest.importorskip("ansible.plugins.action")

from ansible_collections.portbuild.cluster.tests.freebsd import __main__ as command
from ansible_collections.portbuild.cluster.tests.freebsd._acceptance import Acceptance, changes, last_lines, said, Site
from ansible_collections.portbuild.cluster.tests.freebsd._report import Failed, Report
from ansible_collections.portbuild.cluster.tests.freebsd._tree import (
    BadTree,
    make_little,
    only_categories,
    take_parts,
    Version,
    with_version,
)


class TestReport:
    def make(self) -> tuple[Report, list[str]]:
        lines: list[str] = []
        ticks = iter(range(1000))
        return Report(say=lines.append, clock=lambda: float(next(ticks))), lines

    def test_a_line_each_and_a_total(self) -> None:
        report, lines = self.make()

        def fail() -> str:
            raise Failed("it was\nnot")

        assert report.check("one", lambda: "more")
        assert not report.check("two", fail)
        assert not report.check("three", lambda: "", needs=["one", "two"])
        assert report.check("four", lambda: None, needs=["one"])
        assert report.total() == 1
        assert [line.split() for line in lines] == [
            ["ok", "one", "1.0", "s", "more"],
            ["FAILED", "two", "1.0", "s", "it", "was", "not"],
            ["skipped", "three", "needs:", "two"],
            ["ok", "four", "1.0", "s"],
            ["4", "checks:", "2", "ok,", "1", "failed,", "1", "skipped;", "3", "s"],
        ]

    def test_what_went_well_ends_with_0_and_nothing_does_not(self) -> None:
        report, _lines = self.make()
        assert report.total() == 1
        report.check("one", lambda: None)
        assert report.total() == 0


class TestTree:
    @pytest.fixture
    def real(self, tmp_path: pathlib.Path) -> pathlib.Path:
        """The shape of a real tree."""
        tree = tmp_path / "ports"
        for name in ("Mk/bsd.port.mk", "Mk/Uses/x.mk", "ports-mgmt/pkg/Makefile", "ports-mgmt/other/Makefile", "UIDs"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text("PORTNAME=\tpkg\nDISTVERSION=\t2.9.0\nPORTREVISION?=\t1\n", encoding="utf-8")
        (tree / "Makefile").write_text(
            "SUBDIR += accessibility\nSUBDIR += devel\nSUBDIR += ports-mgmt\n.include <x>\n", encoding="utf-8"
        )
        return tree

    def test_the_little_tree(self, real: pathlib.Path, tmp_path: pathlib.Path) -> None:
        tree = tmp_path / "tree"
        tree.mkdir()
        take_parts(real, tree)
        make_little(tree, Version.parse("2.8.4_1,1"))
        assert sorted(path.name for path in tree.iterdir()) == ["Makefile", "Mk", "UIDs", "devel", "ports-mgmt"]
        assert sorted(path.name for path in (tree / "ports-mgmt").iterdir()) == ["Makefile", "pkg"]
        assert (tree / "Makefile").read_text() == "SUBDIR += devel\nSUBDIR += ports-mgmt\n.include <x>\n"
        assert (tree / "ports-mgmt" / "pkg" / "Makefile").read_text() == (
            "PORTNAME=\tpkg\nPORTVERSION=\t2.8.4\nPORTREVISION=\t1\nPORTEPOCH=\t1\n"
        )

    def test_each_port_of_ours_is_in_its_category(self, real: pathlib.Path) -> None:
        make_little(real)
        listed = [
            line.split()[-1] for line in (real / "devel" / "Makefile").read_text().splitlines() if "SUBDIR +=" in line
        ]
        assert listed == sorted(path.parent.name for path in (real / "devel").glob("*/Makefile"))
        for name in listed:
            text = (real / "devel" / name / "Makefile").read_text(encoding="utf-8")
            assert f"PORTNAME=\t{name}\n" in text
            assert text.endswith(".include <bsd.port.mk>\n")
            assert (real / "devel" / name / "pkg-descr").is_file()

    def test_what_is_no_tree(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(BadTree, match="lacks Mk/bsd"):
            make_little(tmp_path)

    @pytest.mark.parametrize(
        ("text", "parts"), [("2.8.4", ("2.8.4", "", "")), ("1.2_3\n", ("1.2", "3", "")), ("1.2,1", ("1.2", "", "1"))]
    )
    def test_versions(self, text: str, parts: tuple[str, str, str]) -> None:
        assert Version.parse(text) == parts

    def test_what_is_no_version(self) -> None:
        with pytest.raises(BadTree):
            Version.parse("pkg: no packages")

    def test_the_rest_of_a_makefile_stays(self) -> None:
        assert only_categories("SUBDIR += x11\nINDEXFILE?=INDEX\n") == "INDEXFILE?=INDEX\n"
        text = "# x\nPORTNAME=\tpkg\nDISTVERSION=1\nUSES=\tcpe\n"
        assert with_version(text, Version("2")) == "# x\nPORTNAME=\tpkg\nPORTVERSION=\t2\nUSES=\tcpe\n"


class TestReading:
    def test_the_recap(self) -> None:
        assert changes("a1 : ok=9 changed=0 failed=0\na2 : ok=9  changed=3 failed=0\n") == 3

    def test_how_a_build_ended(self) -> None:
        assert said({}) == "nothing was recorded"
        row = {"outcome": "failed", "reason": "timeout", "phase": "build", "detail": "too\nlong"}
        assert said(row) == "failed, timeout in build: too long"

    def test_the_end_of_what_a_command_said(self) -> None:
        assert last_lines("a\n\n b \nPLAY RECAP ***\nc\n", 2) == "b / c"


class TestCommand:
    def test_a_host_is_needed(self) -> None:
        with pytest.raises(Failed, match="HOST is missing"):
            command.wanted({})

    @pytest.mark.parametrize("more", [{"CHECK_PKG": "x"}, {"CHECK_TREE": "/nonexistent"}])
    def test_what_is_asked_wrongly(self, more: dict[str, str]) -> None:
        with pytest.raises(Failed):
            command.wanted({"CHECK_HOST": "f1", **more})

    def test_the_inventory_has_the_host_as_a_build_machine(self, tmp_path: pathlib.Path) -> None:
        options = command.inventory("f1", "hosts.yml", tmp_path)
        assert options == ("-i", str(pathlib.Path("hosts.yml").resolve()), "-i", str(tmp_path / "check.yml"))
        assert "f1:" in (tmp_path / "check.yml").read_text(encoding="utf-8")


class Scripted(Acceptance):
    """A test double of an acceptance whose host answers from a script."""

    def __init__(self, site: Site, answers: dict[str, t.Any]) -> None:
        self.lines: list[str] = []
        super().__init__(site, Report(say=self.lines.append), make_tree=lambda _acceptance: "/tree")
        self.answers = answers

    def shell(self, command: str) -> str:
        for start, answer in self.answers.items():
            if command.startswith(start):
                return str(answer)
        return ""


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Site:
    return Site(host="f1", root=tmp_path, ansible=pathlib.Path("/nonexistent"), environment={})


class TestChecks:
    def test_a_host_that_cannot_be_reached_skips_the_rest_but_the_cleaning(self, site: Site) -> None:
        acceptance = Scripted(site, {"uname": Failed("unreachable")})
        assert acceptance.run() == 1
        assert acceptance.report.failed == ["the host can be reached, as root, with Python"]
        assert acceptance.report.passed == ["nothing is left on the host"]
        assert acceptance.lines[-1].startswith("16 checks: 1 ok, 1 failed, 14 skipped")

    def test_root_is_needed(self, site: Site) -> None:
        acceptance = Scripted(site, {"uname": "FreeBSD 15.1-RELEASE\n1001\n/tmp/portbuild-check.x"})
        with pytest.raises(Failed, match="ansible_become"):
            acceptance.host()
        acceptance.answers = {"uname": "FreeBSD 15.1-RELEASE\n0\n/tmp/portbuild-check.x"}
        assert acceptance.host() == "FreeBSD 15.1-RELEASE"
        assert acceptance.temporary == "/tmp/portbuild-check.x"

    def test_what_is_left_is_told(self, site: Site) -> None:
        acceptance = Scripted(site, {"find": "/var/portbuild-check/chroots/check/acceptance/pb-slow"})
        queue = pathlib.Path(acceptance.layout.queue)
        queue.mkdir(parents=True)
        (queue / "f1").write_text("0\n", encoding="ascii")
        with pytest.raises(Failed, match="pb-slow"):
            acceptance.clean()
        acceptance.answers = {}
        acceptance.clean()
        (queue / "f1").write_text("1\n", encoding="ascii")
        with pytest.raises(Failed, match="counter 1"):
            acceptance.clean()

    def test_a_process_that_lives_on_is_told(self, site: Site) -> None:
        acceptance = Scripted(site, {"ps": "sleep 7531"})
        with pytest.raises(Failed, match="still there"):
            acceptance.expect_nobody("sleep 7531")

    def test_a_package_that_is_given_is_one_of_ours(self, site: Site) -> None:
        (site.root / "pkg-2.8.4.pkg").write_bytes(b"package")
        acceptance = Scripted(site, {})
        pathlib.Path(acceptance.layout.branch_directory).mkdir(parents=True)
        assert acceptance.first_package() == "pkg-2.8.4.pkg"
        assert [row["outcome"] for row in acceptance.builds("pkg")] == ["success"]

    def test_leftovers_are_read_from_the_log(self, site: Site) -> None:
        acceptance = Scripted(site, {})
        log = pathlib.Path(acceptance.layout.log("pb-plist"))
        log.parent.mkdir(parents=True)
        log.write_text("x\nextra\t/usr/local/share/pb-plist\nextra\t/usr/local/share/pb-plist/left\n", encoding="utf-8")
        assert acceptance.leftovers() == "left: /usr/local/share/pb-plist, /usr/local/share/pb-plist/left"
        log.write_text("nothing\n", encoding="utf-8")
        with pytest.raises(Failed, match="names nothing"):
            acceptance.leftovers()
