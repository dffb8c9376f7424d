# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller makes of the answers of build machines. The machine is a double that says what it is told to."""

from __future__ import annotations

import os
import pathlib
import time
import types
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _client_steps, _step, _verdict
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_facts, StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Candidate, Lease
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue_files import FileQueue
from ansible_collections.portbuild.cluster.plugins.plugin_utils._replies import BadReply
from ansible_collections.portbuild.cluster.plugins.plugin_utils._results import Spoiled
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import SqliteStore
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import build, JOB, make_layout
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._queue_yard import dead_owner


class Machine:
    """A step, of which only the machine's answer matters."""

    def __init__(self, seconds: float = 0.0, **reply: t.Any) -> None:
        self.seconds = seconds
        self.reply = {"backend": "directory", "base": "0" * 64, **reply}
        self.limits: list[float] = []

    def remote(self, _module: str, _arguments: t.Any, _task_vars: t.Any, **options: t.Any) -> dict[str, t.Any]:
        self.limits.append(options.get("limit", 0.0))
        time.sleep(self.seconds)
        return dict(self.reply)


class Place:
    """A controller with a queue of two machines and an empty store."""

    def __init__(self, root: pathlib.Path) -> None:
        self.layout = make_layout(root)
        self.queue = FileQueue(self.layout.queue, arch=JOB.arch)
        self.store = SqliteStore(self.layout.database)
        self.settings = types.SimpleNamespace(
            scratchdir="/s", maxjobs=2, chroot_backend="auto", client_user="root", machine_min_free=0,
            compress_logs=False, noclean=False, keep_max=5,
        )  # fmt: skip
        self.system = types.SimpleNamespace(needs_tree=False)
        self.candidates = [Candidate("a1", 2), Candidate("a2", 2)]
        for candidate in self.candidates:
            self.queue.enter(*candidate)

    def claim(self, package: str, machine: str, owner: Owner | None = None) -> Lease:
        job = Job(JOB.arch, JOB.branch, package)
        return self.queue.claim(
            job, [one for one in self.candidates if one.name == machine], owner or Owner.of(os.getpid())
        )

    def lease(self, facts: dict[str, t.Any]) -> Lease:
        context: t.Any = self
        return StepContext.lease(context, facts)

    def claim_chroot(self, lease: Lease, build_token: int | None) -> int | None:
        """Claim the chroot of the lease on a machine that says that this build is in it; return what is remembered."""
        machine: t.Any = Machine(build_token=build_token)
        context: t.Any = self
        _client_steps.claim_chroot(machine, context, lease_facts(lease, self.queue.id()), {}, lease)
        found = self.queue.find(lease.job)
        return None if found is None else found.build_token


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(_client_steps, "read_bindist", lambda _layout: types.SimpleNamespace(sha256="0" * 64))
    return Place(tmp_path)


def test_the_build_of_another_lease_is_refused(place: Place) -> None:
    victim = place.claim("victim", "a2")
    lease = place.claim("mine", "a1")
    with pytest.raises(BadReply, match="is not one of amd64/bookworm/mine") as caught:
        place.claim_chroot(lease, victim.token)
    assert caught.value.details["spoiled"]  # else it would be waited for, for ever
    place.queue.verify(lease)


def test_the_build_of_a_lease_that_was_adopted_or_is_held_is_refused(place: Place) -> None:
    first = place.claim("victim", "a2", dead_owner())
    place.queue.update(first, build_token=first.token)
    adopted = place.claim("victim", "a2")
    assert (adopted.build_token, adopted.token) == (first.token, first.token + 1)
    lease = place.claim("mine", "a1")
    with pytest.raises(BadReply):
        place.claim_chroot(lease, first.token)
    place.queue.release(adopted, hold="uncollected")
    with pytest.raises(BadReply):
        place.claim_chroot(lease, first.token)


@pytest.mark.parametrize("package", ["mine", "other"])
def test_what_has_been_recorded_is_no_answer_once_more(place: Place, package: str) -> None:
    old = place.claim(package, "a1")
    place.store.record(build(old.token, queue=place.queue.id(), package=package))
    place.queue.release(old)
    with pytest.raises(BadReply):
        place.claim_chroot(place.claim("mine", "a1"), old.token)


def test_the_build_of_a_lost_lease_is_taken_up(place: Place) -> None:
    lost = place.claim("mine", "a1")
    place.queue.release(lost)
    lease = place.claim("mine", "a1")
    assert place.claim_chroot(lease, lost.token) == lost.token
    assert place.claim_chroot(place.queue.find(lease.job) or lease, None) is None


def test_another_package_with_the_same_identity_is_not_this_one(place: Place) -> None:
    """However that came about: nobody is told that a package was built because another was."""
    lease = place.claim("mine", "a1")
    place.store.record(build(lease.token, queue=place.queue.id(), package="other"))
    context: t.Any = place
    with pytest.raises(Spoiled, match="is recorded as one of other, on client1") as caught:
        _verdict.record_build(context, lease, {"reason": "success"}, [], [])
    assert caught.value.details["infrastructure"]


def test_a_slow_disk_is_no_unreachable_machine(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a chroot copies gigabytes, and the lease must not be taken for a dead owner's meanwhile."""
    monkeypatch.setattr(_step, "RENEW_INTERVAL", 0.05)
    lease = place.claim("mine", "a1")
    renewed = lease.renewed
    machine: t.Any = Machine(seconds=0.5)
    context: t.Any = place
    facts = lease_facts(lease, place.queue.id())
    _client_steps.claim_chroot(machine, context, facts, {}, lease)
    found = place.queue.find(lease.job)
    assert found is not None
    assert found.renewed > renewed
    _client_steps.clean_chroot(machine, context, facts, {}, recorded=False)
    found = place.queue.find(lease.job)
    assert found is not None
    assert found.renewed > renewed + 0.5
    assert all(limit >= 1800 for limit in machine.limits)
    place.queue.release(lease)
    _client_steps.clean_chroot(machine, context, facts, {}, recorded=False)
