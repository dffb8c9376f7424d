# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The queue directory: claims, releases, what a person or an old script finds there, and what they do to it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import threading
import time
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils._files import NewerFile
from ansible_collections.portbuild.cluster.plugins.module_utils._lock import Lock
from ansible_collections.portbuild.cluster.plugins.module_utils._names import BadName, Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _queue_files
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import (
    AllBusy,
    Candidate,
    JobBusy,
    Lease,
    NoMachine,
    NotWanted,
    QueueError,
    QueueLocked,
    StaleLease,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue_files import FileQueue
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._queue_yard import (
    ARCH,
    dead_owner,
    job,
    Yard,
)


@pytest.fixture(name="yard")
def fixture_yard(tmp_path: Path) -> Yard:
    """Two machines; the name of one begins with the other's."""
    return Yard(tmp_path / "queue", a1=2, a10=1)


# -- counters as the original would show them --------------------------------------------------------------------


def test_counter_files_are_the_original_ones(yard: Yard) -> None:
    assert yard.counters() == {"a1": "0\n", "a10": "0\n"}
    first = yard.claim("one")
    assert (first.machine, yard.counters()) == ("a1", {"a1": "1\n", "a10": "0\n"})
    second = yard.claim("two")
    assert (second.machine, yard.counters()) == ("a10", {"a1": "1\n"})
    third = yard.claim("three")
    assert (third.machine, yard.counters()) == ("a1", {})
    with pytest.raises(AllBusy):
        yard.claim("four")
    assert yard.queue.release(second)
    assert yard.counters() == {"a10": "0\n"}
    assert yard.queue.release(first)
    assert yard.queue.release(third)
    assert yard.counters() == {"a1": "0\n", "a10": "0\n"}
    assert yard.leases() == yard.held() == []
    assert [first.token, second.token, third.token] == sorted({first.token, second.token, third.token})


def test_machine_passed_over_is_used_if_no_other_has_room(yard: Yard) -> None:
    assert yard.claim("one", passed_over=["a1"]).machine == "a10"
    assert yard.claim("two", passed_over=["a1"]).machine == "a1"


def test_only_candidates_in_the_queue_are_chosen(yard: Yard) -> None:
    other = Candidate("zz", 9)
    assert yard.claim("one", candidates=[other, yard.candidates[1]]).machine == "a10"
    with pytest.raises(NoMachine, match="zz"):
        yard.claim("two", candidates=[other])
    with pytest.raises(NoMachine):
        yard.claim("two", candidates=[])
    assert yard.leases() == ["a10:bookworm:one"]


def test_no_queue_directory(tmp_path: Path) -> None:
    queue = FileQueue(str(tmp_path / "none"), arch=ARCH)
    with pytest.raises(NoMachine, match="setup"):
        queue.claim(job("one"), [Candidate("a1", 1)], Owner.of(os.getpid()), wait=0)
    assert queue.machines() == []
    assert not list(tmp_path.iterdir())


def test_names_are_checked_before_anything_is_written(yard: Yard) -> None:
    before = yard.snapshot()
    for bad in ("", "../x", "-rf", "a b", "a\n", "x" * 201, "ü"):
        with pytest.raises(BadName):
            yard.claim(bad)
    with pytest.raises(BadName, match="characters together"):
        yard.claim("x" * 200, candidates=[Candidate("m" * 200, 1)])
    with pytest.raises(BadName, match="arch"):
        yard.queue.claim(Job("i386", "bookworm", "one"), yard.candidates, yard.me)
    with pytest.raises(BadName):
        yard.queue.enter("../x", 1)
    with pytest.raises(QueueError, match="maxjobs"):
        yard.queue.enter("a1", -1)
    assert yard.snapshot() == before


# -- leases ------------------------------------------------------------------------------------------------------


def test_same_job_twice_names_the_owner(yard: Yard) -> None:
    lease = yard.claim("one")
    before = yard.counters()
    with pytest.raises(JobBusy, match=rf"on a1 already, by process {os.getpid()} on ") as caught:
        yard.claim("one", wait=None)
    assert caught.value.details["machine"] == "a1"
    assert Lease.from_dict(caught.value.details["lease"]).token == lease.token
    assert yard.counters() == before


def test_dead_owner_is_adopted_on_the_same_machine(yard: Yard) -> None:
    old = yard.queue.update(yard.claim("one", dead_owner()), build_token=7, chroot="/x")
    new = yard.claim("one", candidates=list(reversed(yard.candidates)), passed_over=["a1"])
    assert (new.machine, new.adopted, new.held, new.build_token, new.details) == ("a1", True, None, 7, {"chroot": "/x"})
    assert new.token > old.token
    assert yard.counters() == {"a1": "1\n", "a10": "0\n"}
    for refused in (yard.queue.verify, yard.queue.renew, yard.queue.release, yard.queue.update):
        with pytest.raises(StaleLease, match=f"process {os.getpid()}"):
            refused(old)
    yard.queue.verify(new)
    assert yard.queue.release(new)
    yard.check()


def test_released_lease_is_not_in_force(yard: Yard) -> None:
    lease = yard.claim("one")
    assert yard.queue.release(lease)
    assert not yard.queue.release(lease)
    for refused in (yard.queue.verify, yard.queue.renew, yard.queue.update):
        with pytest.raises(StaleLease, match="released"):
            refused(lease)


def test_job_of_a_dead_owner_on_a_machine_that_is_gone_goes_elsewhere(yard: Yard) -> None:
    old = yard.claim("one", dead_owner())
    new = yard.claim("one", candidates=yard.candidates[1:])
    assert (new.machine, new.adopted) == ("a10", False)
    assert [(lease.machine, lease.token, lease.state) for lease in new.left] == [("a1", old.token, "lost")]
    assert yard.counters() == {"a1": "0\n"}


def test_update_and_round_trip(yard: Yard) -> None:
    lease = yard.queue.update(yard.claim("one"), build_token=3, chroot="/somewhere")
    found = yard.queue.find(job("one"))
    assert found == lease
    assert Lease.from_dict(json.loads(json.dumps(lease.to_dict()))) == lease
    short = Lease.from_dict({**lease.job._asdict(), "machine": "a1", "queue": "x", "token": lease.token})
    yard.queue.verify(short)
    assert yard.queue.release(short)
    assert yard.queue.find(job("one")) is None


def test_renewal_takes_no_lock_and_no_space(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = yard.claim("one")
    yard.offset = 100
    with Lock(str(yard.directory / ".lock"), timeout=0):
        renewed = yard.queue.renew(lease)
    assert renewed.renewed > lease.renewed + 99
    assert yard.queue.leases()[0].renewed == pytest.approx(renewed.renewed)


# -- what is held ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["uncollected", "kept", "lost"])
def test_held_lease_holds_no_slot_and_is_adopted(yard: Yard, state: t.Any) -> None:
    old = yard.queue.update(yard.claim("one"), build_token=1)
    assert yard.queue.release(old, hold=state, reason="because")
    assert yard.counters() == {"a1": "0\n", "a10": "0\n"}
    assert [(lease.state, lease.reason, lease.token) for lease in yard.queue.held()] == [(state, "because", old.token)]
    assert not yard.queue.release(old)
    found = yard.queue.find(job("one"))
    assert found is not None and found.state == state
    new = yard.claim("one", candidates=yard.candidates[:1])
    assert (new.machine, new.adopted, new.held) == ("a1", True, state)
    assert new.build_token == (None if state == "kept" else 1)
    assert yard.held() == []
    assert yard.counters() == {"a1": "1\n", "a10": "0\n"}


def test_results_to_collect_are_worth_waiting_for(yard: Yard) -> None:
    yard.queue.release(yard.claim("one", passed_over=["a1"]), hold="uncollected")
    blocker = yard.claim("other", passed_over=["a1"])
    with pytest.raises(AllBusy):
        yard.claim("one")
    lost = yard.claim("one", passed_over=["a10"])
    assert (lost.machine, [left.state for left in lost.left]) == ("a1", ["uncollected"])
    yard.queue.release(lost)
    yard.queue.offline("a10", "gone", "test")
    elsewhere = yard.claim("one")
    assert (elsewhere.machine, elsewhere.adopted) == ("a1", False)
    yard.queue.release(elsewhere)
    yard.queue.undrain("a10")
    yard.queue.release(blocker)
    assert yard.claim("one").held == "uncollected"


def test_kept_chroot_is_left_in_peace_while_another_has_room(yard: Yard) -> None:
    old = yard.claim("one")
    yard.queue.release(old, hold="kept")
    new = yard.claim("one")
    assert (new.machine, new.adopted, [left.machine for left in new.left]) == ("a10", False, ["a1"])
    assert yard.held() == ["a1:bookworm:one"]
    assert not yard.queue.drop_held(old.job, old.token + 1)
    assert yard.queue.drop_held(old.job, old.token)
    assert yard.held() == []


def test_what_was_lost_is_looked_at_only_if_there_is_room(yard: Yard) -> None:
    yard.queue.release(yard.claim("one", passed_over=["a1"]), hold="lost")
    blocker = yard.claim("other", passed_over=["a1"])
    new = yard.claim("one")
    assert (new.machine, new.adopted) == ("a1", False)
    yard.queue.release(new)
    yard.queue.release(blocker)
    assert yard.claim("one").held == "lost"


# -- slots of dead owners ----------------------------------------------------------------------------------------


def test_slot_of_a_dead_owner_is_taken_over_when_all_are_full(yard: Yard) -> None:
    dead = dead_owner()
    victim = yard.queue.update(yard.claim("one", dead), build_token=1)
    yard.claim("two")
    assert yard.claim("three", dead).machine == "a1"
    new = yard.claim("four")
    assert new.machine == "a1" and not new.adopted
    assert [(lease.job, lease.token, lease.state) for lease in new.took_over] == [(victim.job, victim.token, "orphan")]
    assert yard.counters() == {} and len(yard.leases()) == 3
    # the victim's job comes back: its build may still run there, so it waits for that machine
    with pytest.raises(AllBusy):
        yard.queue.claim(job("one"), [*yard.candidates[1:], Candidate("a1", 1)], yard.me, wait=0)
    yard.queue.release(new)
    again = yard.claim("one")
    assert (again.machine, again.adopted, again.held, again.build_token) == ("a1", True, "orphan", 1)
    yard.check()


def test_slots_are_not_taken_over_while_one_is_free(yard: Yard) -> None:
    yard.claim("one", dead_owner())
    assert yard.claim("two").took_over == []
    assert yard.claim("three").took_over == []
    assert len(yard.leases()) == 3


def test_reinstated_when_the_client_says_that_it_still_runs(yard: Yard) -> None:
    dead = dead_owner()
    for package in ("one", "two", "three"):
        yard.claim(package, dead)
    new = yard.claim("four")
    victim = new.took_over[0].job
    # another process has only the lease as the steps hand it on
    short = Lease.from_dict({**new.job._asdict(), "machine": new.machine, "token": new.token})
    back = yard.queue.reinstate(short, [victim, job("unheard-of")])
    assert [lease.job for lease in back] == [victim]
    assert yard.held() == []
    assert yard.queue.release(new)
    assert yard.counters() == {} and len(yard.leases()) == 3
    second = yard.claim("five")
    assert second.took_over[0].job != victim, "it is spared for a while"
    yard.queue.reinstate(second)
    yard.queue.release(second)
    third = yard.claim("six")
    yard.queue.reinstate(third)
    yard.queue.release(third)
    with pytest.raises(AllBusy):
        yard.claim("seven")
    yard.offset = 2 * yard.queue.lease_ttl
    assert yard.claim("seven").took_over
    assert yard.claim("one").adopted, "the job itself may come back at any time"


def test_owner_that_only_seemed_dead_may_still_release(yard: Yard) -> None:
    leases = [yard.claim(name, replace(yard.me, pid_namespace="pid:[1]")) for name in ("one", "two", "three")]
    yard.offset = 10_000
    new = yard.claim("four")
    robbed = next(lease for lease in leases if lease.job == new.took_over[0].job)
    with pytest.raises(StaleLease):
        yard.queue.verify(robbed)
    assert yard.queue.release(robbed)
    assert yard.held() == []
    assert len(yard.leases()) == 3


def test_as_many_as_needed_are_taken_over_when_maxjobs_was_lowered(yard: Yard) -> None:
    dead = dead_owner()
    for package in ("one", "two", "three"):
        yard.claim(package, dead)
    new = yard.claim("four", candidates=[Candidate("a1", 1)])
    assert len(new.took_over) == 2
    assert [name for name in yard.leases() if name.startswith("a1:")] == ["a1:bookworm:four"]


# -- maxjobs, machines in and out --------------------------------------------------------------------------------


def test_maxjobs_raised_and_lowered_while_jobs_run(yard: Yard) -> None:
    raised, lowered = [Candidate("a1", 3)], [Candidate("a1", 1)]
    leases = [yard.claim(name, candidates=yard.candidates[:1]) for name in ("one", "two")]
    assert yard.counter("a1") is None
    leases.append(yard.claim("three", candidates=raised))
    assert yard.counter("a1") is None
    with pytest.raises(AllBusy):
        yard.claim("four", candidates=lowered)
    for left, shown in ((2, None), (1, None), (0, "0\n")):
        yard.queue.release(leases.pop())
        assert (len(leases), yard.counter("a1")) == (left, shown)
    leases = [yard.claim(name, candidates=raised) for name in ("one", "two")]
    assert yard.counter("a1") == "2\n"
    assert yard.queue.enter("a1", 2)
    assert yard.counter("a1") is None
    assert not yard.queue.enter("a1", 2)
    assert yard.queue.enter("a1", 3)
    assert yard.counter("a1") == "2\n"


def test_removed_by_hand_is_offline_until_undrain(yard: Yard) -> None:
    lease = yard.claim("one", candidates=yard.candidates[:1])
    (yard.directory / "a1").unlink()
    assert yard.claim("two").machine == "a10"
    with pytest.raises(AllBusy):
        yard.claim("three")
    state = yard.queue.machines()[0]
    assert (state.name, state.state, state.ours) == ("a1", "offline", 1) and "removed" in state.problems[0]
    assert yard.queue.release(lease)
    assert yard.counter("a1") is None, "a late release must not put it back"
    assert not yard.queue.enter("a1", 2)
    assert yard.counter("a1") is None, "neither does setup"
    assert yard.queue.undrain("a1", dry_run=True)
    assert yard.counter("a1") is None
    assert yard.queue.undrain("a1")
    assert yard.counter("a1") == "0\n"
    assert not yard.queue.undrain("a1")


def test_removed_by_hand_is_offline_until_it_is_back(yard: Yard) -> None:
    lease = yard.claim("one", candidates=yard.candidates[:1])
    (yard.directory / "a1").rename(yard.directory / ".saved")
    yard.queue.release(lease)
    assert yard.queue.choose(yard.candidates[:1]) is None
    (yard.directory / ".saved").rename(yard.directory / "a1")
    assert yard.claim("two").machine == "a1"
    assert yard.counter("a1") == "1\n", "it was released meanwhile"


def test_offline_is_a_state_of_its_own(yard: Yard) -> None:
    lease = yard.claim("one", candidates=yard.candidates[:1])
    assert yard.queue.offline("a1", "new disk", "me", dry_run=True)
    assert yard.queue.machines()[0].offline is None
    assert yard.queue.offline("a1", "new disk", "me")
    assert not yard.queue.offline("a1", "new disk", "me")
    assert yard.counter("a1") is None
    assert yard.queue.release(lease)
    (yard.directory / "a1").write_text("1\n")  # an old script's late release
    with pytest.raises(AllBusy):
        yard.claim("two", candidates=yard.candidates[:1])
    assert yard.counter("a1") is None, "it must not come back by that"
    state = yard.queue.machines()[0]
    assert state.state == "offline" and state.offline is not None
    assert (state.offline["reason"], state.offline["by"]) == ("new disk", "me")
    assert not yard.queue.enter("a1", 2)
    assert yard.queue.undrain("a1")
    assert yard.counter("a1") == "0\n"


def test_offline_file_made_by_hand(yard: Yard) -> None:
    (yard.directory / ".offline" / "a1").write_text("fan broken\n")
    assert yard.claim("one").machine == "a10"
    state = yard.queue.machines()[0]
    assert state.state == "offline" and state.offline is not None and state.offline["reason"] == "fan broken"
    assert yard.counter("a1") is None


def test_entering_with_a_count(yard: Yard) -> None:
    assert yard.queue.enter("b", 3, jobs=2)
    assert yard.counter("b") == "2\n"
    yard.claim("one", candidates=[Candidate("b", 3)])
    assert yard.counter("b") is None
    assert yard.queue.undrain("b", jobs=1), "only ours runs there"
    assert yard.counter("b") == "1\n"
    assert yard.queue.enter("c", 1, dry_run=True)
    assert yard.counter("c") is None
    with pytest.raises(NoMachine, match="setup"):
        yard.queue.undrain("c")


def test_queue_of_an_old_installation(tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    directory.mkdir()
    (directory / "a1").write_text("1\n")
    (directory / "a10").write_text("       0\n")
    queue = FileQueue(str(directory), arch=ARCH)
    candidates = [Candidate("a1", 2), Candidate("a10", 2)]
    me = Owner.of(os.getpid())
    assert queue.choose(candidates) == "a10"
    assert [queue.claim(job(name), candidates, me, wait=0).machine for name in ("one", "two", "three")] == [
        "a10",
        "a1",
        "a10",
    ]
    assert [(state.name, state.ours, state.foreign, state.state) for state in queue.machines()] == [
        ("a1", 1, 1, "full"),
        ("a10", 2, 0, "full"),
    ]


# -- waiting -----------------------------------------------------------------------------------------------------


def test_waiting_wakes_within_half_a_second_of_a_release(yard: Yard) -> None:
    leases = [yard.claim(name) for name in ("one", "two", "three")]
    waited: list[float] = []
    released: list[float] = []

    def release() -> None:
        time.sleep(1.0)
        yard.open().release(leases[1])
        released.append(time.monotonic())

    thread = threading.Thread(target=release)
    thread.start()
    lease = yard.claim("four", wait=None, on_wait=lambda seconds, _why: waited.append(seconds))
    took = time.monotonic()
    thread.join()
    assert lease.machine == "a10"
    assert took - released[0] < 0.5
    assert len(waited) == 1, "it does not try again and again meanwhile"


def test_waiting_wakes_for_an_old_script(yard: Yard) -> None:
    for name in ("one", "two", "three"):
        yard.claim(name)
    # A foreign job beside two of ours: a1 has three.
    threading.Timer(0.5, (yard.directory / "a1").write_text, args=("1\n",)).start()
    began = time.monotonic()
    with pytest.raises(AllBusy):
        yard.claim("four", wait=2)
    assert time.monotonic() - began >= 2
    assert yard.counter("a1") is None, "what it wrote cannot be: both jobs are ours"


def test_waiting_tries_at_the_latest_after_the_interval(yard: Yard) -> None:
    clock = [1000.0]
    glances: list[float] = []

    def sleep(seconds: float) -> None:
        glances.append(seconds)
        clock[0] += seconds

    queue = yard.open(monotonic=lambda: clock[0], sleep=sleep)
    for name in ("one", "two", "three"):
        yard.claim(name)
    waited: list[float] = []
    with pytest.raises(AllBusy, match="within 40 s"):
        queue.claim(
            job("four"), yard.candidates, yard.me, wait=40, on_wait=lambda seconds, _why: waited.append(seconds)
        )
    assert waited == [0, 15, 30]
    assert max(glances) == 0.25


def test_a_machine_that_rests_is_waited_for_while_no_other_has_room(yard: Yard) -> None:
    clock = [1000.0]
    glances: list[t.Callable[[], t.Any]] = []

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if glances and clock[0] > 1005:
            glances.pop()()

    queue = yard.open(monotonic=lambda: clock[0], sleep=sleep)
    other = yard.claim("one", candidates=yard.candidates[1:])  # a10 is full, a1 has room
    resting: dict[str, t.Any] = {"passed_over": ["a1"], "not_before": {"a1": 1020.0}}
    with pytest.raises(AllBusy):
        queue.claim(job("two"), yard.candidates, yard.me, wait=10, **resting)
    clock[0] = 1000.0
    lease = queue.claim(job("two"), yard.candidates, yard.me, **resting)
    assert (lease.machine, round(clock[0])) == ("a1", 1020)  # not only at the next poll, at 1030
    queue.release(lease)
    clock[0] = 1000.0
    glances.append(lambda: queue.release(other))
    lease = queue.claim(job("two"), yard.candidates, yard.me, **resting)
    assert (lease.machine, round(clock[0])) == ("a10", 1005)


def reason_of_waiting(yard: Yard, **options: t.Any) -> str:
    reasons: list[str] = []
    with pytest.raises(AllBusy):
        yard.claim("another", wait=0.1, poll=0.05, on_wait=lambda _seconds, why: reasons.append(why), **options)
    return reasons[-1]


def test_a_claim_says_which_machines_it_waits_for(yard: Yard) -> None:
    yard.claim("one", candidates=yard.candidates[1:])
    yard.queue.offline("a1", "disk\n\x1b[31m replaced. " + "x" * 200, "me")
    why = reason_of_waiting(yard)
    assert why.startswith("busy: a10; a1 is offline (disk [31m replaced. xxx")
    assert why.endswith("...)")
    assert len(why) < 200
    yard.queue.offline("a10", "", "me")
    assert reason_of_waiting(yard, candidates=yard.candidates[1:]) == "none is busy; a10 is offline"
    (yard.directory / "a10").write_text("many\n")
    yard.queue.undrain("a1")
    while yard.claim(f"job{len(yard.leases())}", candidates=yard.candidates[:1]) and yard.counter("a1") is not None:
        pass
    assert reason_of_waiting(yard, candidates=yard.candidates[:1]) == "all are busy"
    many = [Candidate(f"m{number}", 1) for number in range(20)]
    assert "and 12 more" in reason_of_waiting(yard, candidates=[*yard.candidates[:1], *many])


def test_a_claim_says_what_was_passed_over(yard: Yard) -> None:
    yard.claim("one", candidates=yard.candidates[1:])
    why = reason_of_waiting(yard, passed_over=["a1"], not_before={"a1": time.monotonic() + 60})
    assert why == "busy: a10; passed over after a failure there: a1"


def test_all_leases_are_seen_at_one_moment(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A held lease that is claimed between two looks must not be in neither: its chroot would be taken for nobody's."""
    yard.queue.release(yard.claim("one"), hold="uncollected")
    kept = yard.claim("two")
    assert [lease.job.package for lease in yard.queue.all_leases()] == ["one", "two"]
    looks: list[str] = []
    before = FileQueue._read_books

    def look(self: FileQueue) -> t.Any:
        looks.append("look")
        return before(self)

    monkeypatch.setattr(FileQueue, "_read_books", look)
    assert {lease.token for lease in yard.queue.all_leases()} >= {kept.token}
    assert looks == ["look"]


def test_what_a_dead_owner_left_on_a_machine_that_rests_is_adopted(yard: Yard) -> None:
    yard.claim("one", dead_owner())
    lease = yard.claim("one", passed_over=["a1"], not_before={"a1": time.monotonic() + 60})
    assert (lease.machine, lease.adopted) == ("a1", True)


def test_waiting_finds_an_owner_that_dies_meanwhile(yard: Yard) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        owner = Owner.of(process.pid)
        for name in ("one", "two", "three"):
            yard.claim(name, owner)
        threading.Timer(0.3, process.kill).start()
        assert yard.claim("four", wait=10, poll=0.5).took_over


def test_waiting_ends_when_nobody_wants_it(yard: Yard) -> None:
    for name in ("one", "two", "three"):
        yard.claim(name)
    answers = iter([True, True, False])
    with pytest.raises(NotWanted):
        yard.claim("four", wait=None, still_wanted=lambda: next(answers))


def test_shell_that_holds_the_lock_is_waited_for(yard: Yard) -> None:
    with Lock(str(yard.directory / ".lock"), timeout=0) as lock:
        began = time.monotonic()
        with pytest.raises(QueueLocked, match=r"\.lock"):
            yard.claim("one", wait=1)
        assert time.monotonic() - began < 5
        threading.Timer(0.5, lock.release).start()
        reasons: list[str] = []
        queue = yard.open(lock_timeout=0.2)
        lease = queue.claim(job("one"), yard.candidates, yard.me, on_wait=lambda _seconds, why: reasons.append(why))
        assert lease.machine == "a1"
        assert str(yard.directory / ".lock") in reasons[0]


# -- looking changes nothing -------------------------------------------------------------------------------------


def look(queue: FileQueue, candidates: list[Candidate]) -> None:
    queue.choose(candidates)
    queue.machines()
    queue.leases()
    queue.held()
    queue.find(job("one"))
    queue.enter("a1", 5, dry_run=True)
    queue.enter("new", 5, dry_run=True)
    queue.undrain("a1", dry_run=True)
    queue.offline("a1", "x", "y", dry_run=True)


def test_looking_changes_nothing(yard: Yard) -> None:
    yard.queue.release(yard.claim("two"), hold="kept")
    yard.claim("one")
    yard.queue.offline("a10", "x", "y")
    (yard.directory / "a1").unlink()
    before = yard.snapshot()
    look(yard.queue, yard.candidates)
    yard.queue.id()
    assert yard.snapshot() == before


def test_looking_at_an_old_installation_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "a1").write_text("1\n")
    look(FileQueue(str(tmp_path), arch=ARCH), [Candidate("a1", 2)])
    assert [path.name for path in tmp_path.iterdir()] == ["a1"]


@pytest.mark.root
def test_looking_works_for_those_who_may_not_write(yard: Yard) -> None:
    yard.claim("one")
    os.chmod(yard.directory, 0o755)
    for parent in yard.directory.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            os.chmod(parent, parent.stat().st_mode | 0o055)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            assert yard.open().choose(yard.candidates) == "a10"
            try:
                yard.open().claim(job("two"), yard.candidates, yard.me, wait=0)
            except QueueError as error:
                assert "cannot be used" in str(error)
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


# -- several users -----------------------------------------------------------------------------------------------


def test_files_grant_the_group_what_the_directory_does(tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    directory.mkdir()
    os.chmod(directory, 0o2775)
    before = os.umask(0o077)
    try:
        yard = Yard(directory, a1=2, a10=1)
        yard.queue.release(yard.claim("one"), hold="kept")
        yard.claim("two")
        yard.queue.offline("a10", "x", "y")
        yard.queue.id()
    finally:
        os.umask(before)
    for path in directory.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o2775 if path.is_dir() else 0o664), path


def test_files_grant_the_group_nothing_more(yard: Yard) -> None:
    os.chmod(yard.directory, 0o755)
    yard.claim("one")
    assert stat.S_IMODE((yard.directory / "a1").stat().st_mode) == 0o644


# -- tokens and identity -----------------------------------------------------------------------------------------


def test_looking_makes_no_identity(yard: Yard) -> None:
    assert yard.queue.id(make=False) == ""
    assert not list(yard.directory.rglob("id"))
    assert yard.queue.id() == yard.queue.id(make=False) != ""
    shutil.rmtree(yard.directory)
    with pytest.raises(NoMachine, match="does not exist"):
        yard.queue.id(make=False)


def test_tokens_rise_whatever_gets_lost(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = yard.directory / ".claims"
    identity = yard.queue.id()
    last = 0

    def next_token() -> int:
        lease = yard.claim("one")
        yard.queue.release(lease)
        return lease.token

    def lose(*names: str) -> None:
        for name in names:
            (claims / name).unlink()

    def garble(*names: str) -> None:
        for name in names:
            (claims / name).write_bytes(b"\xff\0{[\n")

    for harm in (
        lambda: None,
        lambda: lose("journal"),
        lambda: garble("journal"),
        lambda: lose("token"),
        lambda: garble("token"),
        lambda: lose("journal", "token"),
        lambda: garble("journal", "token"),
        lambda: garble("id"),
        lambda: lose("id"),
        lambda: monkeypatch.setattr(_queue_files, "_boot_id", lambda: "another boot"),
    ):
        yard.offset += 60
        harm()
        tokens = [next_token() for _dummy in range(3)]
        assert tokens == sorted(set(tokens)) and tokens[0] > last
        last = tokens[-1]
        assert yard.queue.id() == identity


def test_tokens_are_reserved_in_advance(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_queue_files, "TOKENS_AT_ONCE", 3)
    tokens = []
    for _dummy in range(8):
        lease = yard.claim("one")
        yard.queue.release(lease)
        tokens.append(lease.token)
        assert int((yard.directory / ".claims" / "token").read_text()) >= lease.token
    assert tokens == list(range(1, 9))


def test_journal_is_bounded(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_queue_files, "_JOURNAL_LIMIT", 2000)
    for _dummy in range(30):
        yard.queue.release(yard.claim("one"))
        assert (yard.directory / ".claims" / "journal").stat().st_size < 3000
    yard.check()
    assert len(list((yard.directory / ".claims").iterdir())) <= 6, "nothing piles up"


def test_journal_with_very_long_lines(tmp_path: Path) -> None:
    yard = Yard(tmp_path / "queue", **{f"machine{number}": 1 for number in range(120)})
    leases = [yard.claim(f"p{number}") for number in range(120)]
    assert yard.counters() == {}
    for lease in leases:
        yard.queue.release(lease)
    assert set(yard.counters().values()) == {"0\n"}


# -- a full disk -------------------------------------------------------------------------------------------------


class FullDisk:
    """Lets no file grow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def write(*_unused: t.Any, **_dummy: t.Any) -> t.NoReturn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(_queue_files, "write_atomic", write)
        monkeypatch.setattr(os, "write", write)


def test_full_disk_loses_nothing(yard: Yard) -> None:
    one, two = yard.claim("one"), yard.claim("two")
    with pytest.MonkeyPatch.context() as monkeypatch:
        FullDisk(monkeypatch)
        with pytest.raises(QueueError, match="No space left"):
            yard.claim("three")
        yard.queue.renew(one)
        assert yard.queue.release(one, hold="uncollected", reason="disk full")
        assert yard.queue.release(two)
    assert yard.leases() == []
    assert yard.held() == ["a1:bookworm:one"]
    assert [lease.state for lease in yard.queue.held()] == ["uncollected"]
    assert yard.claim("two").token > two.token
    assert yard.counters() == {"a1": "1\n", "a10": "0\n"}
    yard.check()


@pytest.mark.root
def test_really_full_disk(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=200", "tmpfs", str(tmp_path)], check=True)
    try:
        yard = Yard(tmp_path / "queue", a1=2, a10=1)
        one, two = yard.claim("one"), yard.claim("two")
        filler = tmp_path / "filler"
        with filler.open("wb", buffering=0) as stream, pytest.raises(OSError):
            while True:
                stream.write(b"x" * 4096)
        with pytest.raises(QueueError, match="No space left"):
            for number in range(100):  # until the journal needs another page
                yard.queue.release(yard.claim(f"p{number}"))
        yard.queue.release(one, hold="uncollected")
        yard.queue.release(two)
        filler.unlink()
        assert yard.held() == ["a1:bookworm:one"]
        assert yard.queue.find(job("two")) is None
        again = yard.claim("one")
        assert again.held == "uncollected"
        yard.queue.release(again)
        for lease in yard.queue.leases():
            yard.queue.release(lease)
        yard.claim("last")
        yard.check()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# -- malformed files ---------------------------------------------------------------------------------------------


def test_malformed_counter_takes_its_machine_out_and_nothing_else(yard: Yard) -> None:
    lease = yard.claim("one", candidates=yard.candidates[:1])
    (yard.directory / "a1").write_text("two\n")
    assert yard.claim("two").machine == "a10"
    with pytest.raises(AllBusy):
        yard.claim("three")
    state = yard.queue.machines()[0]
    assert state.state == "unusable" and "'two" in state.problems[0]
    assert yard.queue.release(lease)
    assert yard.counter("a1") == "two\n", "nobody but a person can say what it means"
    assert yard.queue.undrain("a1")
    assert yard.counter("a1") == "0\n"


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "dangling", "huge", "empty"])
def test_counter_that_is_no_file(yard: Yard, kind: str) -> None:
    path = yard.directory / "a1"
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind in ("link", "dangling"):
        path.symlink_to("a10" if kind == "link" else "nowhere")
    else:
        path.write_text("1" * 100_000 if kind == "huge" else "")
    assert yard.claim("one").machine == "a10"
    assert yard.queue.machines()[0].state == "unusable"


harmful = st.binary(max_size=80) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "boot_id",
                    "token",
                    "ceiling",
                    "serial",
                    "machines",
                    "pending",
                    "a1",
                    "a10",
                    "shown",
                    "foreign",
                    "maxjobs",
                    "owner",
                    "pid",
                    "details",
                    "state",
                    "build_token",
                    "claimed",
                    "renewed",
                    "spared_until",
                    "reason",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode() + b"\n")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    harm=st.dictionaries(
        st.sampled_from(
            [".claims/journal", ".claims/token", ".claims/id", ".offline/a10", "a1", "a10", "lease", "held"]
        ),
        harmful,
        min_size=1,
        max_size=3,
    ),
    append=st.booleans(),
)
def test_no_file_is_so_malformed_that_anything_is_lost(
    tmp_path_factory: pytest.TempPathFactory, harm: dict[str, bytes], append: bool
) -> None:
    yard = Yard(tmp_path_factory.mktemp("yard") / "queue", a1=2, a10=1, b=1)
    mine, kept = yard.claim("mine"), yard.claim("kept")
    yard.queue.release(kept, hold="uncollected")
    names = {"lease": f".claims/{mine.machine}:bookworm:mine", "held": f".claims/held/{kept.machine}:bookworm:kept"}
    for name, content in harm.items():
        path = yard.directory / names.get(name, name)
        path.write_bytes(path.read_bytes() + content if append and path.exists() else content)
    look(yard.queue, yard.candidates)
    assert {lease.job.package for lease in yard.queue.leases()} == {"mine"}
    assert {lease.job.package for lease in yard.queue.held()} == {"kept"}
    assert yard.claim("fresh", candidates=yard.candidates[2:]).machine == "b", (
        "a machine that has nothing to do with it"
    )
    found = yard.queue.find(job("mine"))
    if found is not None and found.token == mine.token and found.owner == mine.owner:
        yard.queue.verify(mine)
        with pytest.raises(JobBusy):
            yard.claim("mine")
        assert yard.queue.release(mine)
    else:  # nobody can prove that it is his; time frees it
        yard.offset = 2 * yard.queue.lease_ttl
        again = yard.claim("mine")
        assert again.adopted and again.machine == mine.machine
        assert yard.queue.release(again)
    if "a10" not in harm and ".offline/a10" not in harm:
        again = yard.claim("kept")
        assert again.adopted and again.machine == kept.machine
        assert yard.queue.release(again)
    for machine in ("a1", "a10"):
        yard.queue.undrain(machine, jobs=0)
    assert yard.counters() == {"a1": "0\n", "a10": "0\n"}
    yard.check()


# -- what a later version has written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["journal", "a1:bookworm:x", "held/a1:bookworm:y"])
def test_what_a_later_version_has_written_is_refused(tmp_path: Path, name: str) -> None:
    yard = Yard(tmp_path, a1=3)
    yard.claim("x", dead_owner())
    held = yard.claim("y", dead_owner())
    assert yard.queue.release(held, hold="uncollected", reason="an example")
    path = tmp_path / ".claims" / name
    *lines, last = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line}\n" for line in [*lines, json.dumps({**json.loads(last), "schema": 2})]))
    for package in ("x", "y"):
        if name == "journal" or name.endswith(package):
            with pytest.raises(NewerFile, match=r"later version of portbuild.cluster.*schema is 2") as error:
                yard.claim(package)
            assert str(path) in error.value.message
            assert "on every controller" in error.value.remedy
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["schema"] == 2  # left as it was
    assert yard.leases() == ["a1:bookworm:x"]
    assert yard.held() == ["a1:bookworm:y"]
