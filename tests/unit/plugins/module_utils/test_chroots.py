# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Claiming, holding and cleaning chroots, whatever died before."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import stat
import time
import typing as t

import pytest
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils import _backends, _chroots
from ansible_collections.portbuild.cluster.plugins.module_utils._bases import BaseMissing
from ansible_collections.portbuild.cluster.plugins.module_utils._beneath import UnsafeFile
from ansible_collections.portbuild.cluster.plugins.module_utils._chroots import (
    BadMarker,
    Chroot,
    chroot_path,
    ChrootBusy,
    ChrootMissing,
    ForeignChroot,
    KEPT,
    MachineFull,
    Marker,
    StaleToken,
    STARTED,
    UNCOLLECTED,
)
from ansible_collections.portbuild.cluster.plugins.module_utils._files import BadFile, NewerFile
from ansible_collections.portbuild.cluster.plugins.module_utils._names import BadName, Job
from ansible_collections.portbuild.cluster.plugins.module_utils._process import process_start_time
from ansible_collections.portbuild.cluster.plugins.module_utils._trees import UnsafePath
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._shed import BASE, DASH, HELLO, Shed


@pytest.fixture
def shed(tmp_path: pathlib.Path) -> t.Iterator[Shed]:
    shed = Shed(tmp_path)
    yield shed
    shed.close()


def text(chroot: Chroot) -> str:
    return (pathlib.Path(chroot.path) / "fs" / "root" / "file").read_text(encoding="utf-8")


def dirty(chroot: Chroot) -> None:
    (pathlib.Path(chroot.path) / "fs" / "root" / "file").write_text("dirty", encoding="utf-8")


class TestClaim:
    def test_a_new_chroot_is_marked_populated_and_readable_by_all(self, shed: Shed):
        os.umask(before := os.umask(0o077))
        os.umask(0o077)
        try:
            chroot = shed.claim(token=7)
        finally:
            os.umask(before)
        assert chroot.path == chroot_path(str(shed.scratch), HELLO)
        assert (chroot.marker.token, chroot.marker.queue, chroot.marker.state) == (7, "q", "claimed")
        assert (chroot.running, chroot.status, chroot.marker.build_token) == (False, {}, None)
        assert text(chroot) == "clean"
        path = pathlib.Path(chroot.path)
        for directory in (path, *list(path.parents)[:3]):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o755
        assert stat.S_IMODE((path / "job.json").stat().st_mode) == 0o644
        assert stat.S_IMODE((path / "fs").stat().st_mode) == 0o700

    def test_the_same_again_is_the_same_chroot(self, shed: Shed):
        dirty(shed.claim())
        assert text(shed.claim()) == "dirty"
        assert shed.claim(token=5).marker.token == 5

    def test_an_older_token_is_stale_and_another_queue_foreign(self, shed: Shed):
        shed.claim(token=5)
        with pytest.raises(StaleToken, match="token 5, this is 4"):
            shed.claim(token=4)
        with pytest.raises(ForeignChroot, match="queue q, not to other"):
            shed.claim(token=9, queue="other")

    def test_without_the_base_nothing_is_made(self, shed: Shed):
        with pytest.raises(BaseMissing, match="setup"):
            shed.claim(base="0" * 64)
        assert not (shed.scratch / "chroots").exists()

    @pytest.mark.parametrize("package", ["", "../x", "-rf", "a b", "x\n", "x" * 300, "ä", "."])
    def test_nonsense_is_refused(self, shed: Shed, package: str):
        with pytest.raises(BadName):
            shed.claim(Job("amd64", "12", package))
        assert not (shed.scratch / "chroots" / "amd64").exists()

    def test_a_running_build_is_attached_to(self, shed: Shed):
        shed.claim()
        shed.start()
        chroot = shed.claim(token=2, maxjobs=1, base=BASE)
        assert chroot.running
        assert (chroot.marker.token, chroot.marker.build_token, chroot.marker.state) == (2, 1, STARTED)

    def test_results_that_nobody_collected_are_kept(self, shed: Shed):
        shed.claim()
        shed.ended()
        chroot = shed.claim(token=2)
        assert chroot.ended
        assert chroot.marker.build_token == 1
        shed.boot = "another boot"
        assert shed.claim(token=3).ended

    def test_results_that_are_recorded_are_thrown_away(self, shed: Shed):
        dirty(shed.claim())
        shed.ended()
        assert shed.claim(token=2, recorded=0).ended
        chroot = shed.claim(token=3, recorded=1)
        assert (chroot.marker.state, chroot.marker.build_token, text(chroot)) == ("claimed", None, "clean")
        assert shed.claim(token=4, recorded=3).path == chroot.path  # nothing was built in it

    def test_a_running_build_that_is_superseded_is_ended(self, shed: Shed):
        dirty(shed.claim())
        supervisor = shed.start()
        chroot = shed.claim(token=3, recorded=2)
        assert os.waitpid(supervisor, 0)[1] == signal.SIGKILL
        assert (chroot.running, chroot.marker.build_token, text(chroot)) == (False, None, "clean")

    def test_a_build_whose_supervisor_died_is_started_over(self, shed: Shed):
        dirty(shed.claim())
        shed.kill(shed.start())
        chroot = shed.claim(token=2)
        assert (chroot.marker.state, chroot.marker.build_token, text(chroot)) == ("claimed", None, "clean")
        assert len(shed.trash()) == 1

    def test_what_is_from_before_a_reboot_is_started_over(self, shed: Shed):
        dirty(shed.claim())
        shed.boot = "another boot"
        assert text(shed.claim(token=2)) == "clean"

    @pytest.mark.root
    def test_another_backend_or_base_is_another_chroot(self, shed: Shed):
        dirty(shed.claim())
        assert shed.claim(token=2, backend="overlay").marker.backend == "overlay"
        assert text(shed.claim(token=3)) == "clean"

    def test_links_in_the_way_are_refused(self, shed: Shed, tmp_path_factory: pytest.TempPathFactory):
        outside = tmp_path_factory.mktemp("outside")
        (shed.scratch / "chroots" / "amd64" / "12").mkdir(parents=True)
        os.symlink(outside, shed.scratch / "chroots" / "amd64" / "12" / "hello")
        shed.claim(DASH)
        chroot = shed.claim()  # a link is no chroot: it is replaced, what it leads to is not touched
        assert not os.path.islink(chroot.path)
        assert outside.is_dir()


class TestRoom:
    def test_chroots_of_all_arches_and_queues_count(self, shed: Shed):
        shed.claim(HELLO, queue="a")
        shed.claim(Job("i386", "13", "dash"), queue="b")
        with pytest.raises(MachineFull, match="2 jobs, at most 2") as caught:
            shed.claim(Job("arm64", "12", "x"), maxjobs=2)
        assert [job["package"] for job in caught.value.details["jobs"]] == ["hello", "dash"]
        shed.claim(Job("arm64", "12", "x"), maxjobs=3)

    def test_what_holds_no_slot_does_not_count(self, shed: Shed):
        for number, state in ((1, UNCOLLECTED), (2, KEPT)):
            job = Job("amd64", "12", state)
            shed.claim(job, token=number)
            shed.ended(job, token=number)
            shed.store.hold(job, queue="q", token=number, state=state)
        shed.claim(DASH, token=3)
        shed.ended(DASH, token=3)
        shed.claim(maxjobs=1, token=4)

    def test_of_an_orphan_only_what_runs_counts(self, shed: Shed):
        shed.claim(DASH)
        with pytest.raises(MachineFull):
            shed.claim(maxjobs=1, token=2, orphans=[])
        shed.claim(maxjobs=1, token=2, orphans=[DASH])
        shed.start(DASH)
        with pytest.raises(MachineFull, match=r"dash \(running\)"):
            shed.claim(Job("amd64", "12", "x"), maxjobs=1, token=3, orphans=[DASH, HELLO])

    def test_without_knowledge_of_orphans_a_chroot_counts_while_it_is_young(self, shed: Shed):
        shed.claim(DASH)
        with pytest.raises(MachineFull):
            shed.claim(maxjobs=1, token=2)
        shed.time += 120
        shed.claim(maxjobs=1, token=2)

    def test_another_queue_keeps_its_slot_however_old(self, shed: Shed):
        shed.claim(DASH, queue="other")
        shed.time += 1e6
        with pytest.raises(MachineFull):
            shed.claim(maxjobs=1, orphans=[DASH])

    def test_a_running_supervisor_counts_even_when_the_marker_is_gone(self, shed: Shed):
        shed.claim(DASH)
        shed.start(DASH)
        os.unlink(os.path.join(shed.store.path(DASH), "job.json"))
        with pytest.raises(MachineFull, match="without markers"):
            shed.claim(maxjobs=1)

    def test_never_above_maxjobs_when_many_claim_at_once(self, shed: Shed):
        children = []
        for number in range(12):
            pid = os.fork()
            if pid == 0:
                try:
                    shed.claim(Job("amd64", "12", f"p{number}"), token=number, queue=f"q{number}", maxjobs=3)
                except MachineFull:
                    os._exit(1)
                except BaseException:
                    os._exit(2)
                os._exit(0)
            children.append(pid)
        codes = [os.WEXITSTATUS(os.waitpid(pid, 0)[1]) for pid in children]
        assert sorted(codes) == [0] * 3 + [1] * 9
        assert len(shed.store.all()) == 3


class TestDeaths:
    def test_a_directory_without_a_marker_is_taken_over(self, shed: Shed):
        os.makedirs(shed.store.path(HELLO))
        assert text(shed.claim()) == "clean"

    def test_an_empty_marker_too(self, shed: Shed):
        os.makedirs(shed.store.path(HELLO))
        (pathlib.Path(shed.store.path(HELLO)) / "job.json").touch()
        assert text(shed.claim()) == "clean"

    def test_but_not_when_something_was_built_in_it(self, shed: Shed):
        shed.claim()
        shed.ended()
        (pathlib.Path(shed.store.path(HELLO)) / "job.json").write_text("{", encoding="utf-8")
        with pytest.raises(BadMarker, match="does not hold JSON"):
            shed.claim(token=2)
        with pytest.raises(BadMarker):
            shed.store.clean(HELLO, queue="q", token=2)

    def test_kill_anywhere_in_a_claim_then_claim_again(self, shed: Shed, monkeypatch: pytest.MonkeyPatch):
        """A real kill -9 at many moments of a claim with a slow copy."""
        copy = _backends.copy_tree

        def slow(source: str, target: str) -> None:
            os.makedirs(os.path.join(os.path.dirname(target), ".root.half", "x"), exist_ok=True)
            time.sleep(0.01)
            copy(source, target)

        monkeypatch.setattr(_backends, "copy_tree", slow)
        for attempt in range(25):
            job = Job("amd64", "12", f"p{attempt}")
            pid = os.fork()
            if pid == 0:
                shed.claim(job)
                os._exit(0)
            time.sleep(0.001 * attempt)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            chroot = shed.claim(job, token=2)
            assert text(chroot) == "clean"
            left = sorted(os.listdir(os.path.join(chroot.path, "fs")))
            assert [name for name in left if not name.startswith(".stamps.")][:2] == ["base", "root"]
        assert not [name for name in os.listdir(shed.scratch / "chroots") if name.startswith(".new")]

    def test_kill_anywhere_in_cleaning_then_clean_again(self, shed: Shed):
        for attempt in range(25):
            chroot = shed.claim(token=attempt)
            for number in range(50):
                os.makedirs(os.path.join(chroot.path, "fs", "root", f"d{number}", "x"))
            pid = os.fork()
            if pid == 0:
                shed.store.clean(HELLO, queue="q", token=attempt)
                os._exit(0)
            time.sleep(0.0005 * attempt)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            shed.store.clean(HELLO, queue="q", token=attempt)
            assert shed.store.find(HELLO) is None
            assert shed.store.survey() == ([], [])


class TestClean:
    def test_cleaning_frees_the_path_and_twice_is_once(self, shed: Shed):
        shed.claim()
        assert shed.store.clean(HELLO, queue="q", token=1)
        assert not shed.store.clean(HELLO, queue="q", token=1)
        assert os.listdir(shed.scratch / "chroots") == [".lock"]
        assert len(shed.trash()) == 1

    def test_a_stale_owner_and_a_foreign_queue_clean_nothing(self, shed: Shed):
        shed.claim(token=5)
        pid = shed.start(token=5)
        with pytest.raises(StaleToken):
            shed.store.clean(HELLO, queue="q", token=4)
        with pytest.raises(ForeignChroot):
            shed.store.clean(HELLO, queue="other", token=6)
        with pytest.raises(StaleToken):
            shed.store.hold(HELLO, queue="q", token=4, state=KEPT)
        assert process_start_time(pid) is not None
        assert shed.store.get(HELLO, queue="q", token=5).running

    def test_what_runs_is_ended_first(self, shed: Shed):
        shed.claim()
        pid = shed.start()
        assert shed.store.clean(HELLO, queue="q", token=1)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL

    def test_a_pid_that_is_another_process_is_left_alone(self, shed: Shed, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(_chroots, "_KILL_TIMEOUT", 0.3)
        shed.claim()
        holder = shed.start()
        shed.write_status(HELLO, state="running", pid=os.getpid(), pid_start="12345")
        with pytest.raises(ChrootBusy, match="fuser"):
            shed.store.clean(HELLO, queue="q", token=1)
        assert process_start_time(holder) is not None
        assert shed.store.find(HELLO) is not None

    def test_a_pid_from_before_a_reboot_is_left_alone(self, shed: Shed, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(_chroots, "_KILL_TIMEOUT", 0.3)
        shed.claim()
        pid = shed.start()
        shed.boot = "another boot"
        with pytest.raises(ChrootBusy):
            shed.store.clean(HELLO, queue="q", token=1)
        assert process_start_time(pid) is not None

    @pytest.mark.parametrize(
        "values", [{}, {"pid": "x"}, {"pid": -1}, {"pid": 1}, {"pid": 0}, {"pid": 10**30}, {"pid": True}]
    )
    def test_no_nonsense_in_the_status_kills_anything(self, shed: Shed, monkeypatch: pytest.MonkeyPatch, values: dict):
        monkeypatch.setattr(_chroots, "_KILL_TIMEOUT", 0.1)
        killed: list[int] = []
        monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
        shed.claim()
        holder = shed.start()
        shed.write_status(HELLO, state="running", pid_start="None", **values)
        with pytest.raises(ChrootBusy):
            shed.store.clean(HELLO, queue="q", token=1)
        monkeypatch.undo()
        assert killed == []
        shed.kill(holder)

    def test_a_chroot_that_died_before_it_was_marked_is_cleaned(self, shed: Shed):
        os.makedirs(shed.store.path(HELLO))
        assert shed.store.clean(HELLO, queue="q", token=1)

    def test_a_link_instead_of_a_directory_on_the_way_is_refused(
        self, shed: Shed, tmp_path_factory: pytest.TempPathFactory
    ):
        chroot = shed.claim()
        outside = tmp_path_factory.mktemp("outside") / "12"
        os.rename(os.path.dirname(chroot.path), outside)
        os.symlink(outside, os.path.dirname(chroot.path))
        with pytest.raises((UnsafeFile, UnsafePath)):
            shed.store.clean(HELLO, queue="q", token=1)
        assert (outside / "hello" / "job.json").exists()


class TestHold:
    def test_uncollected_stays_in_its_place_and_is_collected_by_the_next(self, shed: Shed):
        shed.claim()
        shed.ended()
        held = shed.store.hold(HELLO, queue="q", token=1, state=UNCOLLECTED, reason="The disk is full.")
        assert (held.marker.state, held.holds_slot, held.marker.reason) == (UNCOLLECTED, False, "The disk is full.")
        again = shed.claim(token=2)
        assert (again.ended, again.marker.state, again.marker.build_token, again.marker.reason) == (
            True,
            STARTED,
            1,
            "",
        )

    def test_kept_moves_out_of_the_way_and_is_never_used_again(self, shed: Shed):
        dirty(shed.claim())
        pid = shed.start()
        kept = shed.store.hold(HELLO, queue="q", token=1, state=KEPT)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        assert text(kept) == "dirty"
        assert kept.path.startswith(f"{shed.scratch}/kept/amd64/12/hello/1-")
        assert text(shed.claim(token=2)) == "clean"
        assert [chroot.marker.state for chroot in shed.store.all()] == ["claimed", KEPT]
        found = shed.store.kept(HELLO, queue="q", token=1)
        assert found is not None and found.path == kept.path

    def test_there_is_nothing_to_hold(self, shed: Shed):
        with pytest.raises(ChrootMissing):
            shed.store.hold(HELLO, queue="q", token=1, state=KEPT)

    def test_only_what_was_seen_is_discarded(self, shed: Shed):
        seen = shed.claim()
        shed.claim(token=2)
        assert not shed.store.discard(seen)
        again = shed.store.find(HELLO)
        assert again is not None
        pid = shed.start(token=2)
        found = shed.store.find(HELLO)
        assert found is not None and shed.store.discard(found)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        assert not shed.store.discard(found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = list(Marker("q", HELLO, 1, "claimed", "overlay", BASE, "u", 1.0, "b").to_dict())


def in_range(marker: Marker) -> bool:
    return 0 <= marker.token < 1 << 62 and 0 <= marker.created < 1 << 62 and Job.checked(*marker.job) == marker.job


class TestHostileMarkers:
    def test_what_is_written_is_what_is_read(self):
        marker = Marker("q", HELLO, 3, "started", "tmpfs", BASE, "u", 12.5, "boot", build_token=2, reason="why")
        assert Marker.from_dict(json.loads(json.dumps(marker.to_dict())), "here") == marker

    @given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), JSON, max_size=6), st.booleans())
    @settings(max_examples=300, deadline=None)
    def test_any_object_is_a_marker_or_refused(self, values: dict[str, t.Any], complete: bool):
        good = Marker("q", HELLO, 1, "claimed", "overlay", BASE, "u", 1.0, "b").to_dict() if complete else {}
        try:
            marker = Marker.from_dict({**good, **values}, "here")
        except (BadMarker, NewerFile) as error:
            assert str(error).startswith("here")
        else:
            assert in_range(marker)

    @given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_content_of_the_files_is_survived(self, shed: Shed, content: bytes):
        path = pathlib.Path(shed.store.path(HELLO))
        path.mkdir(parents=True, exist_ok=True)
        (path / "job.json").write_bytes(content)
        chroots, strays = shed.store.survey()
        assert (len(chroots), len(strays)) == (0, 1)
        good = Marker("q", HELLO, 1, "started", "directory", BASE, "u", 1.0, "b")
        (path / "job.json").write_text(json.dumps(good.to_dict()), encoding="utf-8")
        (path / "status.json").write_bytes(content)
        (found,) = shed.store.all()
        json.dumps(found.describe(2.0))
        assert not found.running

    @pytest.mark.parametrize(
        "content", ["[" * 100_000, '{"schema": ' + "9" * 5000 + "}", "NaN", '{"created": 1e999}', "\udcff"]
    )
    def test_known_tricks(self, shed: Shed, content: str):
        path = pathlib.Path(shed.store.path(HELLO))
        path.mkdir(parents=True)
        (path / "job.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises((BadMarker, BadFile)):
            shed.store.find(HELLO)

    def test_what_stands_where_chroots_should_be_is_told(self, shed: Shed):
        top = shed.scratch / "chroots" / "amd64" / "12"
        top.mkdir(parents=True)
        (top / "file").touch()
        (top / "-rf").mkdir()
        (top / "link").symlink_to("/etc")
        (shed.scratch / "chroots" / "linked").symlink_to("/")
        chroots, strays = shed.store.survey()
        assert chroots == []
        assert sorted(os.path.basename(stray.path) for stray in strays) == ["-rf", "file", "link"]
