# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is recorded and told of a build that failed: the class of the failure, and the line that tells it."""

from __future__ import annotations

import os
import pathlib
import types
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils import _verdict
from ansible_collections.portbuild.cluster.plugins.plugin_utils._attempts import describe
from ansible_collections.portbuild.cluster.plugins.plugin_utils._notify import MailConfig, render
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Candidate, Lease
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue_files import FileQueue
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import SqliteStore
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import JOB, make_layout, put_log

LINE = "main.c:1:10: fatal error: nowhere.h: No such file or directory"
LOG = f"cc -c main.c\n{LINE}\nmake: *** [Makefile:2: all] Error 1\n"
FAILED: dict[str, t.Any] = {
    "reason": "failed",
    "phase": "build",
    "detail": "The step build failed with exit status 2.",
    "seconds": 3.0,
}


class Place:
    """A controller with a queue of one machine and an empty store."""

    def __init__(self, root: pathlib.Path) -> None:
        self.layout = make_layout(root)
        self.queue = FileQueue(self.layout.queue, arch=JOB.arch)
        self.store = SqliteStore(self.layout.database)
        self.settings = types.SimpleNamespace(compress_logs=True, system="debian", arch=JOB.arch, branch=JOB.branch)
        self.system = types.SimpleNamespace(version_of=lambda _files: "2.10-3")
        self.queue.enter("a1", 2)

    def claim(self) -> Lease:
        return self.queue.claim(JOB, [Candidate("a1", 2)], Owner.of(os.getpid()))

    def record(self, lease: Lease, attempts: t.Sequence[t.Any] = (), **status: t.Any) -> dict[str, t.Any]:
        context: t.Any = self
        return _verdict.record_build(context, lease, status, [], attempts)


@pytest.fixture(name="place")
def fixture_place(tmp_path: pathlib.Path) -> Place:
    return Place(tmp_path)


def test_class_and_line_are_recorded_returned_and_told(place: Place) -> None:
    lease = place.claim()
    put_log(place.layout, lease.token, LOG)
    facts = place.record(lease, **FAILED)
    told = {"failure_class": "missing_header", "further": [], "line_number": 2, "line": LINE}
    assert {name: facts[name] for name in told} == told
    built = place.store.last(JOB.package)
    assert built is not None
    assert (built.build.failure_class, built.build.line_number, built.build.line) == ("missing_header", 2, LINE)
    assert built.build.around == tuple(LOG.splitlines())
    (failure,) = place.store.failures()
    assert (failure.failure_class, failure.line_number, failure.line) == ("missing_header", 2, LINE)
    (event,) = facts["events"]
    subject, body = render(MailConfig(host="localhost", sender="a@example.org"), event["event"], event)
    assert subject.endswith("failed on amd64/bookworm: missing_header in phase build")
    assert "\nClass:    missing_header\nLine:     2\n" in body
    assert f"What tells it, line 2:\n\ncc -c main.c\n{LINE}\n" in body
    attempt = {**event, "outcome": "failed", **facts}
    said = describe({"package": "hello", "machine": "a1"}, attempt, {}, {"cleaned": True})["msg"]
    assert f"failed in build (The step build failed with exit status 2.), missing_header, line 2: {LINE}. Log: " in said
    # Once more, when the log is no longer where it waited.
    again = place.record(lease, **FAILED)
    assert {name: again[name] for name in told} == told
    assert again["events"] == facts["events"]


def test_a_success_and_the_infrastructure_have_no_class(place: Place) -> None:
    lease = place.claim()
    put_log(place.layout, lease.token, LOG)
    assert place.record(lease, reason="lost", infrastructure=True)["failure_class"] == ""
    place.queue.release(lease)
    lease = place.claim()
    put_log(place.layout, lease.token, LOG)
    facts = place.record(lease, reason="success")
    assert (facts["failure_class"], facts["line"]) == ("", "")


def test_the_second_machine_that_gives_up(place: Place) -> None:
    lease = place.claim()
    put_log(place.layout, lease.token, LOG)
    before = {"machine": "a2", "reason": "machine_disk_full", "recorded": True, "infrastructure": True}
    facts = place.record(lease, [before], reason="machine_disk_full", infrastructure=True)
    assert (facts["outcome"], facts["failure_class"], facts["line_number"]) == ("failed", "resources", 3)


def test_dependencies_that_cannot_be_installed(place: Place) -> None:
    facts = place.record(place.claim(), reason="failed", phase="depends")
    assert (facts["failure_class"], facts["line_number"]) == ("depends", 0)
    said = describe({"package": "hello", "machine": "a1"}, facts, {}, {"cleaned": True})["msg"]
    assert "failed in depends, depends. Log:" in said


def test_a_line_of_a_log_does_not_break_a_message(place: Place) -> None:
    lease = place.claim()
    hostile = "x.c:1:1: error: {{ 7 * 7 }}\u2028Subject: x\x1b]0;title\x07"
    put_log(place.layout, lease.token, hostile + "\n")
    (event,) = place.record(lease, **FAILED)["events"]
    subject, body = render(MailConfig(host="localhost", sender="a@example.org"), event["event"], event)
    assert "\n" not in subject
    assert "{{ 7 * 7 }}" in body
    assert "\x1b" not in body and "\u2028" not in body
