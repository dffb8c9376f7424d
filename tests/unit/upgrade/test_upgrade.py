# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Today's readers on the files that each released version has written in a real run, and that work goes on with them.

What is in the files is told by tests/upgrade/__main__.py, which takes them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sqlite3
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._attach import read_status
from ansible_collections.portbuild.cluster.plugins.module_utils._chroots import ChrootStore
from ansible_collections.portbuild.cluster.plugins.module_utils._files import read_json, sha256_file
from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.module_utils._request import Request
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import read_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bulk_commands import going, why
from ansible_collections.portbuild.cluster.plugins.plugin_utils._checks import read_history
from ansible_collections.portbuild.cluster.plugins.plugin_utils._conf import load_directory
from ansible_collections.portbuild.cluster.plugins.plugin_utils._database import SCHEMA_VERSION
from ansible_collections.portbuild.cluster.plugins.plugin_utils._holds import hold, read_holds
from ansible_collections.portbuild.cluster.plugins.plugin_utils._journal import SqliteJournal
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._notify import MailConfig, Notifier
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Candidate
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue_files import FileQueue
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import SqliteStore
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._smtp import SmtpServer

SAMPLES = pathlib.Path(__file__).resolve().parents[2] / "upgrade"
VERSIONS = sorted(path.stem for path in SAMPLES.glob("*.txt"))


class Sample(t.NamedTuple):
    """The files of a version, as they are found when that was updated."""

    layout: Layout
    machines: pathlib.Path  # each with its scratch directory

    def job(self, package: str) -> Job:
        return Job(self.layout.arch, self.layout.branch, package)

    def queue(self) -> FileQueue:
        return FileQueue(self.layout.queue, arch=self.layout.arch)

    def chroots(self, machine: str) -> ChrootStore:
        return ChrootStore(str(self.machines / machine))


@pytest.fixture(params=VERSIONS)
def sample(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Sample:
    """A copy, old enough for its owners to be dead, with the database and the tarball that it speaks of."""
    found = tmp_path / "sample"
    lines = (SAMPLES / f"{request.param}.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    about = json.loads("".join(line for line in lines if not line.startswith("#")))
    for name, text in about["files"].items():
        path = found / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    layout = Layout(str(found / "root"), about["arch"], about["branch"])
    script = pathlib.Path(layout.database).with_suffix(".sql")
    with contextlib.closing(sqlite3.connect(layout.database)) as database:
        database.executescript(script.read_text(encoding="utf-8"))
    with open(layout.bindist, "wb") as tarball:
        tarball.truncate(read_json(layout.bindist_facts)["size"])
    for path in found.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return Sample(layout, found)


def test_there_is_a_sample() -> None:
    assert VERSIONS


# -- the controller ----------------------------------------------------------------------------------------------------


def test_the_record_of_builds(sample: Sample) -> None:
    store = SqliteStore(sample.layout.database)
    last = store.last("up-built")
    assert last is not None and (last.build.outcome, last.build.machine) == ("success", "alpha")
    assert {file.kind for file in store.package_files("up-built")} >= {"package", "buildinfo"}
    assert "up-failed" in {failure.package for failure in store.failures()}
    assert "up-built" in store.durations()
    store.record(dataclasses.replace(last.build, token=last.build.token + 1000), [])
    assert [built.build.outcome for built in store.history("up-built")] == ["success", "success"]
    with contextlib.closing(sqlite3.connect(sample.layout.database)) as database:
        assert database.execute("pragma user_version").fetchone()[0] == SCHEMA_VERSION


def test_the_journal_of_bulk_builds(sample: Sample) -> None:
    journal = SqliteJournal(sample.layout.database)
    run = journal.last()
    assert run is not None and run.ended is None
    assert not run.lives(time.time())
    states = {name: row.state for name, row in journal.rows(run).items()}
    assert states == {"up-a": "built", "up-b": "running", "up-c": "queued"}
    assert "up-a" in journal.made_of()
    assert "up-c was queued" in why(journal, "up-c", "somebody")
    again = journal.begin(run.wish, Owner.of(os.getpid()))
    assert (again.number, again.resumed) == (run.number, True)
    assert {name: row.state for name, row in journal.rows(again).items()} == states
    assert going(journal, sample.layout) is not None


def test_the_queue(sample: Sample) -> None:
    queue = sample.queue()
    states = {state.name: state for state in queue.machines()}
    assert {name: state.problems for name, state in states.items()} == {"alpha": [], "beta": []}
    assert states["beta"].offline is not None and states["beta"].offline["reason"] == "an example"
    assert states["alpha"].offline is None
    assert "up-uncollected" in {lease.job.package for lease in queue.held()}
    running = queue.find(sample.job("up-running"))
    assert running is not None and running.build_token is not None
    candidates = [Candidate("alpha", 2), Candidate("beta", 2)]
    mine = queue.claim(sample.job("up-b"), candidates, Owner.of(os.getpid()), wait=0)
    assert mine.adopted and mine.machine == "alpha"
    assert mine.token > running.token
    assert queue.release(mine)
    identity = pathlib.Path(sample.layout.queue, ".claims", "id").read_text(encoding="ascii").strip()
    assert queue.id() == identity


def test_what_else_stands_on_the_controller(sample: Sample) -> None:
    layout = sample.layout
    assert read_bindist(layout).facts["sha256"] == read_json(layout.bindist_facts)["sha256"]
    assert read_holds(layout)["up-held"].reason == "an example"
    assert hold(layout, "up-other", "another", "somebody", now=time.time())
    assert set(read_holds(layout)) == {"up-held", "up-other"}
    assert read_history(layout.check("alpha")).boot_id
    config = load_directory(layout.root, layout.arch)
    assert config.conf.values["system"].text == "debian"
    assert not config.problems


def test_mail_that_waits_is_sent(sample: Sample) -> None:
    pathlib.Path(sample.layout.spool, "sent").mkdir()  # it was empty, and so is not in the sample
    with SmtpServer().running() as server:
        config = MailConfig(host="127.0.0.1", port=server.port, sender="portbuild@example.org")
        (path,) = pathlib.Path(sample.layout.spool).glob("*.json")
        since = read_json(str(path))["since"]
        deliveries = Notifier(config, sample.layout.spool, now=lambda: since + 3600).flush()
        assert [delivery.state for delivery in deliveries] == ["delivered"]
        assert len(server.mails) == 1


# -- the machines ------------------------------------------------------------------------------------------------------


def test_the_chroots(sample: Sample) -> None:
    chroots, strays = sample.chroots("beta").survey()
    assert strays == []
    found = {chroot.job.package: chroot for chroot in chroots}
    assert {name: chroot.marker.state for name, chroot in found.items()} == {
        "up-kept": "kept",
        "up-running": "started",
        "up-uncollected": "uncollected",
    }
    assert found["up-uncollected"].ended
    for chroot in chroots:
        status = read_status(chroot.path)
        assert status is not None and status["token"] == chroot.marker.build_token
        assert Request.from_dict(read_json(os.path.join(chroot.path, "build.json"))).job == chroot.job
    status = read_status(found["up-uncollected"].path)
    assert status is not None and (status["state"], status["reason"]) == ("ended", "success")


def test_a_chroot_is_taken_over(sample: Sample) -> None:
    store = sample.chroots("beta")
    chroot = store.find(sample.job("up-uncollected"))
    assert chroot is not None
    marker = chroot.marker
    made_of: dict[str, t.Any] = {"backend": marker.backend, "base": marker.base, "client_user": marker.client_user}
    pathlib.Path(store.scratch, "bases", marker.base).mkdir()
    taken = store.claim(chroot.job, queue=marker.queue, token=marker.token + 1000, maxjobs=99, **made_of)
    assert (taken.path, taken.marker.build_token) == (chroot.path, marker.build_token)
    assert taken.marker.token == marker.token + 1000
    assert sha256_file(os.path.join(taken.path, "job.json"))
