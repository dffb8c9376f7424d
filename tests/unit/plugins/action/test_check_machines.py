# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A check of one machine: what the action does about what the machine says."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.action import check_machines
from ansible_collections.portbuild.cluster.plugins.action.check_machines import _Check
from ansible_collections.portbuild.cluster.plugins.module_utils._files import BadFile, NewerFile
from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import Candidate
from ansible_collections.portbuild.cluster.plugins.plugin_utils._checks import History, read_history, write_history
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._hook import BadHook
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import MachineUnreachable, StepFailed
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import BuildRecord
from ansible_collections.portbuild.cluster.plugins.plugin_utils._telling import NOTHING, Told
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._queue_yard import dead_owner

FACTS = {"clock": {}, "unfit": [], "jobs": [], "chroots": [], "load": [0.5, 1.0, 2.25], "boot_id": "boot-1"}


CLEANED = {"changed": False, "leases": [], "removed": [], "told": {"tasks": "", "events": []}}


class Step:
    """Stands for the action: a machine that answers with these facts, or fails."""

    check_mode = False

    def __init__(self) -> None:
        self.answers: list[t.Any] = []
        self.asked = 0

    def drop_connection(self) -> None:
        pass

    def check_tasks(self, path: str) -> None:
        if "nonsense" in pathlib.Path(path).read_text(encoding="utf-8"):
            raise BadHook(f"{path} cannot be read.")


def facts_or_error(answer: t.Any) -> dict[str, t.Any]:
    if isinstance(answer, Exception):
        raise answer
    return {**FACTS, **answer}


@pytest.fixture
def step(monkeypatch) -> Step:
    step = Step()

    def look(*_unused: t.Any, **_named: t.Any) -> t.Any:
        step.asked += 1
        return facts_or_error(step.answers.pop(0) if step.answers else FACTS)

    monkeypatch.setattr(check_machines, "look", look)
    monkeypatch.setattr(check_machines, "clean_machine", lambda *_x, **_y: dict(CLEANED))
    return step


@pytest.fixture
def context(tmp_path: pathlib.Path) -> StepContext:
    return make_context(tmp_path)


def make_context(root: pathlib.Path, **more: t.Any) -> StepContext:
    where = {
        "portbuild_root": str(root),
        "portbuild_arch": "amd64",
        "portbuild_branch": "14",
        "portbuild_system": "debian",
    }
    context = StepContext({**where, **more})
    for directory in (*context.layout.directories, context.layout.checks):
        os.makedirs(directory, exist_ok=True)
    context.queue.enter("a1", 2)
    return context


def check(step: Step, context: StepContext) -> _Check:
    return _Check(t.cast(t.Any, step), context, "a1", {})


def offline(context: StepContext) -> dict[str, t.Any]:
    (state,) = context.queue.machines()
    return state.offline or {}


def job(package: str) -> Job:
    return Job("amd64", "14", package)


def gone() -> MachineUnreachable:
    return MachineUnreachable("a1", "no route")


def test_a_connection_that_was_kept_open_over_a_reboot_is_tried_again(step: Step, context: StepContext) -> None:
    step.answers = [gone()]
    assert check(step, context).run()["state"] == "free"
    assert step.asked == 2
    step.answers = [gone(), gone()]
    assert check(step, context).run()["state"] == "offline"
    assert "no route" in offline(context)["reason"]


def test_what_the_controller_cannot_read_is_no_fault_of_the_machine(step: Step, context: StepContext) -> None:
    path = pathlib.Path(context.layout.bindist_facts)
    for text, error in (('{"schema": 2}', NewerFile), ("rubbish", BadFile)):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(error, match=r"bindist\.json"):
            check(step, context).run()
    assert (step.asked, offline(context)) == (0, {})


def test_the_load_is_noted_as_uptime_prints_it(step: Step, context: StepContext) -> None:
    check(step, context).run()
    path = pathlib.Path(context.layout.load("a1"))
    assert path.read_text(encoding="utf-8") == "0.50, 1.00, 2.25\n"
    step.answers = [{"load": "rubbish"}]
    assert check(step, context).run()["load"] == []
    assert path.read_text(encoding="utf-8") == "0.50, 1.00, 2.25\n"


def test_jobs_of_the_living_are_not_given_up(step: Step, context: StepContext) -> None:
    queue, machines = context.queue, [Candidate("a1", 2)]
    queue.claim(job("dead"), machines, dead_owner(), wait=0)
    queue.claim(job("living"), machines, Owner.of(os.getpid()), wait=0)
    step.answers = [gone(), gone()]
    assert check(step, context).run()["given_up"] == []
    late = check(step, context)
    late.began += 601
    step.answers = [gone(), gone()]
    assert late.run()["given_up"] == ["amd64/14/dead"]
    assert [lease.job.package for lease in queue.leases()] == ["living"]
    assert [(lease.job.package, lease.state) for lease in queue.held()] == [("dead", "lost")]


def test_a_build_that_survived_has_its_slot_again(step: Step, context: StepContext) -> None:
    queue = context.queue
    lease = queue.claim(job("foo"), [Candidate("a1", 2)], dead_owner(), wait=0)
    step.answers = [gone(), gone()]
    check(step, context).run()
    queue.release(lease, hold="lost")
    alive = {**lease.job._asdict(), "running": True, "queue": queue.id()}
    strange = {"arch": "../x", "branch": 1, "package": None, "running": True, "queue": queue.id()}
    step.answers = [{}, {"chroots": [strange, alive]}]
    ended = check(step, context).run()
    assert (ended["state"], ended["msg"]) == ("returned", "a1 is back, with 1 job.")
    assert [held.job.package for held in queue.leases()] == ["foo"]


def test_what_strangers_ran_does_not_survive_a_reboot(step: Step, context: StepContext) -> None:
    check(step, context).run()
    pathlib.Path(context.layout.queue, "a1").write_text("1\n", encoding="utf-8")  # an old script
    for boot_id, jobs in (("boot-1", 1), ("boot-2", 0)):
        step.answers = [gone(), gone()]
        check(step, context).run()
        write_history(context.layout.check("a1"), History(boot_id="boot-1"))
        step.answers = [{"boot_id": boot_id}, {"boot_id": boot_id}]
        assert check(step, context).run()["msg"].startswith(f"a1 is back, with {jobs} job")


def test_who_cannot_be_cleaned_stays_away(step: Step, context: StepContext, monkeypatch) -> None:
    step.answers = [gone(), gone()]
    check(step, context).run()

    def fail(*_unused: t.Any, **_named: t.Any) -> t.NoReturn:
        raise StepFailed("cleanup on a1: busy", reason="client", infrastructure=True)

    monkeypatch.setattr(check_machines, "clean_machine", fail)
    assert "could not be cleaned" in check(step, context).run()["msg"]
    assert "could not be cleaned" in offline(context)["reason"]
    assert read_history(context.layout.check("a1")).outages == 2
    assert check(step, context).run()["state"] == "waiting"


def test_who_is_drained_meanwhile_is_not_let_in(step: Step, context: StepContext, monkeypatch) -> None:
    step.answers = [gone(), gone()]
    check(step, context).run()

    def clean(*_unused: t.Any, **_named: t.Any) -> dict[str, t.Any]:
        context.queue.offline("a1", "new disks", "ada")
        return dict(CLEANED)

    monkeypatch.setattr(check_machines, "clean_machine", clean)
    assert "by somebody else meanwhile" in check(step, context).run()["msg"]
    assert offline(context)["by"] == "ada"


@pytest.mark.parametrize(
    ("machine", "outcome", "age", "state"),
    [
        ("a1", "success", 0, "returned"),
        ("a1", "failed", 0, "offline"),
        ("a2", "success", 0, "offline"),
        ("a1", "success", 3600, "offline"),
        ("", "", 0, "offline"),
    ],
    ids=["built", "failed", "built elsewhere", "built long ago", "never built"],
)
def test_the_canary(step: Step, tmp_path: pathlib.Path, machine: str, outcome: t.Any, age: float, state: str) -> None:
    context = make_context(tmp_path, portbuild_canary="hello")
    step.answers = [gone(), gone()]
    check(step, context).run()
    waiting = check(step, context).run()
    assert (waiting["state"], waiting["canary"]) == ("proving", "hello")
    if machine:
        build = BuildRecord(queue="q", token=1, package="hello", machine=machine, outcome=outcome, reason=outcome)
        context.store.record(build)
    assert check(step, context).run_canary(waiting["checked"] + age)["state"] == state
    assert bool(offline(context)) == (state == "offline")


def test_check_mode_only_looks(step: Step, context: StepContext) -> None:
    step.check_mode = True
    step.answers = [gone(), gone()]
    before = sorted(str(path) for path in pathlib.Path(context.layout.root).rglob("*"))
    assert "a1 would go offline" in check(step, context).run()["msg"]
    assert sorted(str(path) for path in pathlib.Path(context.layout.root).rglob("*")) == before


# -- people ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(context: StepContext, monkeypatch) -> list[dict[str, t.Any]]:
    """The events that people and hooks are told of."""
    found: list[dict[str, t.Any]] = []

    def tell(_context: StepContext, events: list[dict[str, t.Any]], **_named: t.Any) -> Told:
        found.extend(events)
        return NOTHING

    monkeypatch.setattr(check_machines, "tell", tell)
    return found


def test_an_outage_is_told_once_with_all_its_jobs(step: Step, context: StepContext, told: list) -> None:
    for package in ("foo", "bar"):
        context.queue.claim(job(package), [Candidate("a1", 2)], Owner.of(os.getpid()), wait=0)
    for why in ("no route", "no route", "timeout"):
        step.answers = [MachineUnreachable("a1", why), MachineUnreachable("a1", why)]
        check(step, context).run()
    assert [(event["event"], event["machine"]) for event in told] == [("machine_lost", "a1")]
    assert "no route" in told[0]["reason"]
    assert sorted(told[0]["jobs"]) == ["amd64/14/bar", "amd64/14/foo"]
    assert told[0]["since"] == offline(context)["since"]
    check(step, context).run()
    check(step, context).run()
    assert [event["event"] for event in told] == ["machine_lost", "machine_back"]
    assert told[1]["since"] == told[0]["since"]
    step.answers = [gone(), gone()]
    check(step, context).run()
    assert [event["event"] for event in told] == ["machine_lost", "machine_back", "machine_lost"]
    assert told[2]["since"] > told[0]["since"]


def test_who_dies_before_he_could_tell_is_made_up_for(step: Step, context: StepContext, told: list) -> None:
    context.queue.take_out("a1", "no route")  # and died
    step.answers = [gone(), gone()]
    check(step, context).run()
    assert [event["event"] for event in told] == ["machine_lost"]
    write_history(context.layout.check("a1"), History(outages=1, lost=5.0, told=offline(context)["since"]))
    context.queue.bring_back("a1")  # and died
    check(step, context).run()
    check(step, context).run()
    assert [event["event"] for event in told] == ["machine_lost", "machine_back"]


def test_an_outage_that_nobody_told_of_is_told_when_it_is_over(step: Step, context: StepContext, told: list) -> None:
    context.queue.take_out("a1", "no route")  # and died
    since = offline(context)["since"]
    assert check(step, context).run()["state"] == "returned"
    assert [(event["event"], event["since"]) for event in told] == [("machine_lost", since), ("machine_back", since)]
    assert told[1]["seconds"] < 3600


def test_what_could_not_be_told_is_told_in_the_next_round(
    step: Step, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def tell(_context: StepContext, events: list[dict[str, t.Any]], **_named: t.Any) -> Told:
        told.extend(events)
        return NOTHING._replace(problems=["No space left."], untold=["machine_lost"] if len(told) < 2 else [])

    monkeypatch.setattr(check_machines, "tell", tell)
    for _round in range(4):
        step.answers = [gone(), gone()]
        check(step, context).run()
    assert [event["event"] for event in told] == ["machine_lost"] * 2


def test_a_return_that_could_not_be_told_is_told_in_the_next_round(
    step: Step, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, full = [], [True, True, False]

    def tell(_context: StepContext, events: list[dict[str, t.Any]], **_named: t.Any) -> Told:
        told.extend(events)
        back = events[0]["event"] == "machine_back"
        return NOTHING._replace(untold=["machine_back"] if back and full.pop(0) else [])

    step.answers = [gone(), gone()]
    monkeypatch.setattr(check_machines, "tell", tell)
    states = [check(step, context).run()["state"] for _round in range(6)]
    assert states == ["offline", "returned", *["free"] * 4]
    assert [event["event"] for event in told] == ["machine_lost", *["machine_back"] * 3]
    assert len({event["since"] for event in told}) == 1
    history = read_history(context.layout.check("a1"))
    assert (history.away, history.boot_id) == (False, "boot-1")


def test_of_a_machine_that_a_person_has_taken_out_nothing_is_told(step: Step, context: StepContext, told: list) -> None:
    context.queue.offline("a1", "new disks", "ada")
    step.answers = [gone(), gone()]
    check(step, context).run()
    check(step, context).run()
    assert told == []


def test_in_check_mode_nothing_is_told(step: Step, context: StepContext, told: list) -> None:
    step.check_mode = True
    step.answers = [gone(), gone()]
    check(step, context).run()
    assert told == []


def test_the_tasks_of_the_administrator_hear_of_it(step: Step, tmp_path: pathlib.Path) -> None:
    tasks = tmp_path / "tasks.yml"
    tasks.write_text("[]\n", encoding="utf-8")
    context = make_context(tmp_path / "root", portbuild_hook_tasks=str(tasks))
    step.answers = [gone(), gone()]
    told = check(step, context).run()["told"]
    assert told["tasks"] == str(tasks)
    assert [event["event"] for event in told["events"]] == ["machine_lost"]
    step.answers = [gone(), gone()]
    assert check(step, context).run()["told"] == {"tasks": "", "events": []}
    assert [event["event"] for event in check(step, context).run()["told"]["events"]] == ["machine_back"]


def test_tasks_that_cannot_be_included_end_no_round(step: Step, tmp_path: pathlib.Path) -> None:
    tasks = tmp_path / "tasks.yml"
    tasks.write_text("- nonsense: {\n", encoding="utf-8")
    context = make_context(tmp_path / "root", portbuild_hook_tasks=str(tasks))
    step.answers = [gone(), gone()]
    ended = check(step, context).run()
    assert (ended["state"], ended["told"]) == ("offline", {"tasks": "", "events": []})
    tasks.write_text("[]\n", encoding="utf-8")  # mended, and told in the next round
    step.answers = [gone(), gone()]
    assert [event["event"] for event in check(step, context).run()["told"]["events"]] == ["machine_lost"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_tasks_of_the_administrator_hear_of_builds_that_came_home(
    step: Step, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    tasks = tmp_path / "tasks.yml"
    tasks.write_text("[]\n", encoding="utf-8")
    context = make_context(tmp_path / "root", portbuild_hook_tasks=str(tasks))
    step.answers = [gone(), gone()]
    check(step, context).run()

    def clean(*_unused: t.Any, **_named: t.Any) -> dict[str, t.Any]:
        told = {"tasks": str(tasks), "events": [{"event": "failure"}]}
        if fails:
            raise StepFailed("cleanup on a1: busy", reason="client", infrastructure=True, told=told)
        return {**CLEANED, "told": told}

    monkeypatch.setattr(check_machines, "clean_machine", clean)
    told = check(step, context).run()["told"]
    assert told["tasks"] == str(tasks)
    assert [event["event"] for event in told["events"]] == ["failure", *([] if fails else ["machine_back"])]
