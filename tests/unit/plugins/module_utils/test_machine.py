# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bases, preparing a machine, telling about it, and cleaning it up."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import _machine, _node, _prepare
from ansible_collections.portbuild.cluster.plugins.module_utils._bases import (
    all_bases,
    all_trees,
    BadBase,
    has_base,
    install_base,
)
from ansible_collections.portbuild.cluster.plugins.module_utils._chroots import KEPT, UNCOLLECTED
from ansible_collections.portbuild.cluster.plugins.module_utils._cleanup import (
    Bounds,
    carry_out,
    DAY,
    Owned,
    plan,
    uncollected,
)
from ansible_collections.portbuild.cluster.plugins.module_utils._files import sha256_file
from ansible_collections.portbuild.cluster.plugins.module_utils._machine import Wishes
from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.module_utils._prepare import NoAccount, Plan, prepare
from ansible_collections.portbuild.cluster.plugins.module_utils._trash import empty_trash, trash
from ansible_collections.portbuild.cluster.plugins.module_utils._trees import UnsafePath
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._shed import BASE, DASH, HELLO, Shed


@pytest.fixture
def shed(tmp_path: pathlib.Path) -> t.Iterator[Shed]:
    shed = Shed(tmp_path)
    yield shed
    shed.close()


@pytest.fixture
def tarball(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    top: pathlib.Path = tmp_path_factory.mktemp("tarball")
    (top / "tree" / "bin").mkdir(parents=True)
    (top / "tree" / "bin" / "sh").touch(mode=0o755)
    subprocess.run(["tar", "-C", str(top / "tree"), "-cf", str(top / "base.tar"), "."], check=True)
    return top / "base.tar"


class TestBases:
    def test_a_base_is_extracted_once(self, tmp_path: pathlib.Path, tarball: pathlib.Path):
        (tmp_path / "bases").mkdir()
        digest = sha256_file(str(tarball))
        assert not has_base(str(tmp_path), digest)
        assert install_base(str(tmp_path), str(tarball), digest, now=lambda: 5.0)
        assert not install_base(str(tmp_path), str(tarball), digest)
        (base,) = all_bases(str(tmp_path))
        assert (base.sha256, base.installed) == (digest, 5.0)
        assert base.bytes > 0
        assert os.path.exists(os.path.join(base.path, "bin", "sh"))

    def test_a_wrong_or_broken_tarball_leaves_nothing(self, tmp_path: pathlib.Path, tarball: pathlib.Path):
        (tmp_path / "bases").mkdir()
        with pytest.raises(BadBase, match="expected 0000"):
            install_base(str(tmp_path), str(tarball), "0" * 64)
        empty = tarball.parent / "empty.tar"
        subprocess.run(["tar", "-cf", str(empty), "-T", "/dev/null"], check=True)
        with pytest.raises(BadBase, match="no bin/sh"):
            install_base(str(tmp_path), str(empty), sha256_file(str(empty)))
        assert all_bases(str(tmp_path)) == []

    def test_a_killed_extraction_is_done_over(self, tmp_path: pathlib.Path, tarball: pathlib.Path):
        digest = sha256_file(str(tarball))
        half = tmp_path / "bases" / f".{digest}.partial"
        half.mkdir(parents=True)
        (half / "half").touch()
        assert install_base(str(tmp_path), str(tarball), digest)
        assert os.listdir(tmp_path / "bases" / digest) == ["bin"]
        assert all_bases(str(tmp_path))[0].sha256 == digest


@pytest.mark.root
class TestPrepare:
    def test_everything_once(self, tmp_path: pathlib.Path, tarball: pathlib.Path):
        scratch, digest = tmp_path / "scratch", sha256_file(str(tarball))
        wanted = Plan(str(scratch), "nobody", maxjobs=3, backend="directory", base=digest)
        told = prepare(wanted, really=False)
        assert (told["changed"], told["needs_base"], scratch.exists()) == (True, True, False)
        first = prepare(wanted, really=True)
        assert (first["changed"], first["needs_base"], first["backend"]) == (True, True, "directory")
        os.rename(tarball, scratch / "incoming" / f"{digest}.part")
        second = prepare(wanted, really=True)
        assert (second["changed"], second["needs_base"], second["base_installed"]) == (True, False, True)
        for really in (True, False):
            third = prepare(wanted, really=really)
            assert (third["changed"], third["needs_base"]) == (False, False)
            assert third["diff"]["before"] == third["diff"]["after"]
        assert os.listdir(scratch / "incoming") == []
        assert stat.S_IMODE((scratch / "bases").stat().st_mode) == 0o700
        assert stat.S_IMODE((scratch / "incoming").stat().st_mode) == 0o700
        assert (scratch / "incoming").stat().st_uid != 0
        assert _node.read_conf(str(scratch)) == {
            "client_user": "nobody",
            "maxjobs": "3",
            "chroot_backend": "directory",
        }

    def test_a_tree_arrives_as_the_base_does(self, tmp_path: pathlib.Path, tarball: pathlib.Path):
        scratch, digest = tmp_path / "scratch", sha256_file(str(tarball))
        wanted = Plan(str(scratch), "nobody", backend="directory", tree=digest)
        first = prepare(wanted, really=True)
        assert (first["needs_tree"], first["needs_base"], first["tree_installed"]) == (True, False, False)
        os.rename(tarball, scratch / "incoming" / f"{digest}.part")
        told = prepare(wanted, really=False)
        assert (told["changed"], told["needs_tree"], all_trees(str(scratch))) == (True, False, [])
        second = prepare(wanted, really=True)
        assert (second["changed"], second["needs_tree"], second["tree_installed"]) == (True, False, True)
        assert f"{scratch}/trees/{digest}: extracted" in second["diff"]["after"]
        third = prepare(wanted, really=True)
        assert (third["changed"], third["needs_tree"], os.listdir(scratch / "incoming")) == (False, False, [])
        assert stat.S_IMODE((scratch / "trees").stat().st_mode) == 0o755

    def test_check_mode_and_diff_tell_what_changes(self, tmp_path: pathlib.Path):
        scratch = str(tmp_path / "scratch")
        prepare(Plan(scratch, "root"), really=True)
        os.chmod(f"{scratch}/bases", 0o755)
        told = prepare(Plan(scratch, "root", maxjobs=2), really=False)
        assert told["changed"]
        assert "maxjobs=2" in told["diff"]["after"] and "maxjobs=2" not in told["diff"]["before"]
        assert stat.S_IMODE(os.stat(f"{scratch}/bases").st_mode) == 0o755
        prepare(Plan(scratch, "root", maxjobs=2), really=True)
        assert stat.S_IMODE(os.stat(f"{scratch}/bases").st_mode) == 0o700

    def test_a_link_planted_as_a_directory_is_not_followed(self, tmp_path: pathlib.Path):
        scratch, outside = tmp_path / "scratch", tmp_path / "outside"
        scratch.mkdir()
        outside.mkdir(mode=0o755)
        (scratch / "incoming").symlink_to(outside)
        with pytest.raises(OSError):
            prepare(Plan(str(scratch), "nobody"), really=True)
        assert outside.stat().st_uid == 0

    def test_an_account_that_is_not_there_is_an_error(self, tmp_path: pathlib.Path):
        with pytest.raises(NoAccount, match="no-such-account"):
            prepare(Plan(str(tmp_path / "scratch"), "no-such-account"), really=True)
        assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("path", ["/", "/usr", "", "relative/../..", "/var/with,comma", "/var/with:colon", "/var/a b"])
def test_what_cannot_be_a_scratch_directory(path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/usr")
    with pytest.raises(UnsafePath):
        _prepare.check_scratch(path)


class TestMachine:
    def test_it_tells_everything_of_an_empty_machine(self, tmp_path: pathlib.Path):
        facts = _machine.survey(Wishes(str(tmp_path / "missing")), now=lambda: 1.5)
        assert not facts["fit"]
        assert any("does not exist" in reason for reason in facts["unfit"])
        assert any("No bindist" in reason for reason in facts["unfit"])
        assert facts["clock"] == {"seconds": 1.5, "utc": "1970-01-01 00:00:01"}

    @pytest.mark.root
    def test_jobs_and_chroots_and_how_to_enter_a_kept_one(self, shed: Shed):
        shed.claim(HELLO)
        shed.ended(HELLO)
        shed.store.hold(HELLO, queue="q", token=1, state=KEPT, reason="wanted")
        shed.claim(DASH, token=2)
        facts = _machine.survey(Wishes(str(shed.scratch), maxjobs=4), now=lambda: shed.time + 7500)
        assert facts["fit"], facts["unfit"]
        assert [(job["package"], job["token"], job["age"]) for job in facts["jobs"]] == [("dash", 2, 7500)]
        (kept,) = facts["chroots"]
        assert "unshare --mount" in kept["enter"]
        summary = "\n".join(facts["summary"])
        assert "1 of 4 jobs, 1 other chroots." in summary
        assert "amd64/12/dash: claimed for 2 h 5 min, token 2 of queue q." in summary
        assert kept["enter"] in summary

    @pytest.mark.root
    def test_every_reason_is_a_sentence(self, shed: Shed):
        wishes = Wishes(
            str(shed.scratch),
            client_user="no-such-account",
            backend="zfs",
            bases=("0" * 64,),
            trees=("1" * 64,),
            min_free=1 << 60,
        )
        unfit = _machine.survey(wishes)["unfit"]
        assert len(unfit) == 5
        for reason in unfit:
            assert reason[0].isupper() and reason.endswith((".", "setup.")), reason

    def test_the_conf_is_read_not_executed(self, tmp_path: pathlib.Path):
        (tmp_path / "portbuild.conf").write_text(
            "# comment\nmaxjobs=3\nclient_user='a b'\nx=$(touch /tmp/never)\n bad line\n=\n", encoding="utf-8"
        )
        conf = _node.read_conf(str(tmp_path))
        assert (conf["maxjobs"], conf["client_user"]) == ("3", "a b")
        (tmp_path / "portbuild.conf").write_bytes(b"a='unterminated\n\xff\x00")
        assert _node.read_conf(str(tmp_path)) == {}
        values = {"a": 'it\'s "quoted" $x', "b": 1}
        (tmp_path / "portbuild.conf").write_text(_node.render_conf(values), encoding="utf-8")
        assert _node.read_conf(str(tmp_path)) == {"a": 'it\'s "quoted" $x', "b": "1"}

    def test_sizes_and_ages_for_people(self):
        assert [_machine.size_text(number) for number in (0, 1023, 1536, 5 << 30)] == [
            "0 B",
            "1023 B",
            "1.5 KiB",
            "5.0 GiB",
        ]
        assert [_machine.age_text(number) for number in (5, 90, 3700, 200000)] == [
            "5 s",
            "1 min",
            "1 h 1 min",
            "2 d 7 h",
        ]


class TestCleanup:
    def owned(self, *jobs: Job, token: int = 100) -> Owned:
        return Owned("q", token, frozenset(jobs))

    def goers(self, shed: Shed, owned: Owned | None, **bounds: t.Any) -> list[str]:
        found = plan(shed.store, owned, Bounds(**bounds), shed.time)
        return sorted(goer.relative for goer in found if not goer.relative.startswith("trash/"))

    def test_what_has_a_lease_stays(self, shed: Shed):
        shed.claim(HELLO)
        shed.claim(DASH, token=2)
        assert self.goers(shed, self.owned(HELLO)) == ["chroots/amd64/12/dash"]
        assert self.goers(shed, None) == []

    def test_what_was_claimed_since_stays(self, shed: Shed):
        shed.claim(HELLO, token=101)
        assert self.goers(shed, self.owned()) == []

    def test_what_is_anothers_stays(self, shed: Shed):
        shed.claim(HELLO, queue="other")
        assert self.goers(shed, self.owned()) == []

    def test_a_build_without_a_lease_is_left_to_the_next_dispatch_for_a_while(self, shed: Shed):
        shed.claim()
        pid = shed.start()
        assert self.goers(shed, self.owned()) == []
        shed.time += 8 * DAY
        found = plan(shed.store, self.owned(), Bounds(), shed.time)
        assert [goer.why for goer in found] == ["No lease owns it: its build runs."]
        assert carry_out(shed.store, found) == []
        assert os.waitpid(pid, 0)[1] == 9
        assert shed.store.all() == []

    @pytest.mark.parametrize("held", [False, True])
    def test_results_stay_for_a_while(self, shed: Shed, held: bool):
        shed.claim()
        shed.ended()
        if held:
            shed.store.hold(HELLO, queue="q", token=1, state=UNCOLLECTED)
        assert self.goers(shed, self.owned()) == []
        assert [chroot.job for chroot in uncollected(shed.store.all(), self.owned(), oldest=0)] == [HELLO]
        shed.time += 8 * DAY
        assert self.goers(shed, self.owned()) == ["chroots/amd64/12/hello"]

    def test_kept_ones_are_bounded_by_number_and_age(self, shed: Shed):
        for number in range(4):
            shed.time += DAY
            shed.claim(token=number)
            shed.ended(token=number)
            shed.store.hold(HELLO, queue="q", token=number, state=KEPT)
        assert len(self.goers(shed, None, keep_max=3)) == 1
        assert len(self.goers(shed, None, keep_days=1.5)) == 2
        found = plan(shed.store, None, Bounds(keep_max=1), shed.time)
        assert carry_out(shed.store, found) == []
        (left,) = shed.store.all()
        assert left.marker.token == 3
        assert os.listdir(shed.scratch / "kept" / "amd64" / "12" / "hello") == [os.path.basename(left.path)]

    def test_strays_go_unless_something_runs_in_them(self, shed: Shed):
        os.makedirs(shed.scratch / "chroots" / "amd64" / "12" / "stray")
        shed.claim()
        shed.start()
        os.unlink(os.path.join(shed.store.path(HELLO), "job.json"))
        assert self.goers(shed, None) == ["chroots/amd64/12/stray"]
        assert carry_out(shed.store, plan(shed.store, None, Bounds(), shed.time)) == []
        assert os.listdir(shed.scratch / "chroots" / "amd64" / "12") == ["hello"]

    def test_unused_files_and_bases_go(self, shed: Shed):
        for directory in ("cache/inputs", "cache/archives", "incoming"):
            (shed.scratch / directory).mkdir(parents=True)
            for name, days in (("old", 40), ("new", 0.5)):
                path = shed.scratch / directory / name
                path.touch()
                os.utime(path, (shed.time - days * DAY,) * 2)
        os.link(shed.scratch / "cache" / "inputs" / "old", shed.scratch / "in use")
        assert self.goers(shed, None) == ["cache/archives/old", "incoming/old"]
        (shed.scratch / "bases" / f"{BASE}.json").write_text('{"installed": 0}', encoding="utf-8")
        os.utime(shed.scratch / "bases" / f"{BASE}.json", (0, 0))
        assert f"bases/{BASE}" in self.goers(shed, None)
        assert f"bases/{BASE}" not in self.goers(shed, None, bases=frozenset({BASE}))
        shed.claim()
        assert f"bases/{BASE}" not in self.goers(shed, None)

    def test_unused_trees_go(self, shed: Shed):
        tree = "1" * 64
        (shed.scratch / "trees" / tree / "Mk").mkdir(parents=True)
        (shed.scratch / "trees" / f"{tree}.json").write_text('{"installed": 0}', encoding="utf-8")
        os.utime(shed.scratch / "trees" / f"{tree}.json", (0, 0))
        assert f"trees/{tree}" in self.goers(shed, None)
        assert f"trees/{tree}" not in self.goers(shed, None, trees=frozenset({tree}))
        shed.claim(tree=tree)
        assert f"trees/{tree}" not in self.goers(shed, None)
        shed.store.discard(shed.store.all()[0])
        assert carry_out(shed.store, plan(shed.store, None, Bounds(), shed.time)) == []
        assert os.listdir(shed.scratch / "trees") == []

    def test_a_problem_with_one_does_not_keep_the_others(self, shed: Shed, monkeypatch: pytest.MonkeyPatch):
        shed.claim(HELLO)
        shed.claim(DASH)
        discard = type(shed.store).discard

        def fail(self: t.Any, chroot: t.Any) -> bool:
            if chroot.job == DASH:
                raise OSError("stuck")
            return discard(self, chroot)

        monkeypatch.setattr(type(shed.store), "discard", fail)
        problems = carry_out(shed.store, plan(shed.store, self.owned(), Bounds(), shed.time))
        assert [(goer.relative, why) for goer, why in problems] == [("chroots/amd64/12/dash", "stuck")]
        assert [chroot.job for chroot in shed.store.all()] == [DASH]


class TestTrash:
    def test_it_is_emptied_in_the_background_or_at_once(self, shed: Shed):
        shed.claim()
        shed.store.clean(HELLO, queue="q", token=1)
        empty_trash(str(shed.scratch), background=False)
        assert trash(str(shed.scratch)) == []

    def test_however_much_it_is_a_step_does_not_wait_for_it(self, shed: Shed, monkeypatch: pytest.MonkeyPatch):
        from ansible_collections.portbuild.cluster.plugins.module_utils import _trash

        for number in range(30):
            (shed.scratch / "trash" / str(number)).mkdir(parents=True)
        detached: list[t.Callable[[], None]] = []
        monkeypatch.setattr(_trash, "detach", detached.append)
        empty_trash(str(shed.scratch))
        assert len(trash(str(shed.scratch))) == 30
        detached[0]()
        assert trash(str(shed.scratch)) == []

    def test_what_cannot_be_removed_does_not_keep_the_rest(self, shed: Shed, monkeypatch: pytest.MonkeyPatch):
        from ansible_collections.portbuild.cluster.plugins.module_utils import _trash, _trees

        (shed.scratch / "trash").mkdir()
        for name in ("a", "b", "c"):
            (shed.scratch / "trash" / name).mkdir()
        remove = _trees.remove_entry

        def fail(directory: int, name: str) -> None:
            if name == "b":
                raise OSError("stuck")
            remove(directory, name)

        monkeypatch.setattr(_trash, "remove_entry", fail)
        empty_trash(str(shed.scratch), background=False)
        assert trash(str(shed.scratch)) == ["b"]
