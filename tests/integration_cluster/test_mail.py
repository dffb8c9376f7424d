# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mail through a real server that refuses, hangs, dies and comes back; and the hooks of an administrator."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._notify import BUDGET
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    make_source,
    open_gates,
    wait_for_gates,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._tree import bulk, make_tree
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._smtp_process import SmtpProcess

TASKS = """\
- name: Take a note
  ansible.builtin.lineinfile:
    path: NOTES
    line: "{{ portbuild_event.id }} {{ portbuild_event.line }}"
    create: true
    mode: "0644"

- name: Fail, which is nobody's trouble
  ansible.builtin.fail:
    msg: The tracker does not answer.
"""


class Desk:
    """A mail server, and an administrator who keeps what the hooks are told."""

    def __init__(self, directory: pathlib.Path) -> None:
        directory.mkdir()
        self.server = SmtpProcess(directory / "server")
        self._events = directory / "events"
        self._notes = directory / "notes"
        hook, tasks = directory / "hook", directory / "tasks.yml"
        hook.write_text(f'#!/bin/sh\ncat >>{self._events}; echo "no tracker for $1"; exit 1\n', encoding="utf-8")
        hook.chmod(0o755)
        tasks.write_text(TASKS.replace("NOTES", str(self._notes)), encoding="utf-8")
        self.hooks: dict[str, t.Any] = {"hook": str(hook), "hook_tasks": str(tasks)}

    @property
    def mail(self) -> dict[str, t.Any]:
        """The settings, but for those of the hooks."""
        return {**self.server.settings, "mail_to": ["ports@example.org"]}

    @property
    def events(self) -> list[dict[str, t.Any]]:
        text = self._events.read_text(encoding="utf-8") if self._events.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    @property
    def notes(self) -> list[str]:
        return self._notes.read_text(encoding="utf-8").splitlines() if self._notes.exists() else []


@pytest.fixture
def desk(tmp_path: pathlib.Path) -> t.Iterator[Desk]:
    desk = Desk(tmp_path / "desk")
    yield desk
    desk.server.stop()


def fail(farm: Farm, sources: pathlib.Path, package: str, **variables: t.Any) -> Ended:
    """Dispatch a package that fails."""
    if not sources.joinpath(package).exists():
        make_source(sources, package, template="pb-fails")
    return farm.dispatch(package, sourcedir=str(sources), check="off", **variables).fails(f"{package} 1.0 failed on")


def spool(farm: Farm, package: str) -> list[str]:
    return [path.name for path in (farm.branch_directory / ".spool").glob("*.json") if f".{package}." in path.name]


def notify_seconds(ended: Ended) -> float:
    """Return how long the dispatch was at telling people."""
    return sum(step["seconds"] for step in ended.steps if step["step"] == "Notify")


def test_a_failure_is_told_once_a_day_and_hooks_hear_of_each(idle: Farm, desk: Desk, tmp_path: pathlib.Path) -> None:
    """Recipients by arch and branch are what any variable is: an expression."""
    farm, sources, package = idle, tmp_path / "sources", "pb-told"
    people = {
        f"{farm.arch}/{farm.branch}": {"failure": ["mine@example.org"]},
        "amd64/14": {"failure": ["a@example.org"]},
    }
    chosen = {
        **desk.server.settings,
        "mail_events": "{{ people[portbuild_arch ~ '/' ~ portbuild_branch] }}",
        "mail_maintainers": True,
        **desk.hooks,
    }
    sources.mkdir()
    make_source(sources, package, template="pb-fails")

    def dispatch(**more: t.Any) -> Ended:
        variables = {"package": package, "sourcedir": str(sources), "check": "off", **chosen, **more}
        return farm.start("dispatch", "-e", json.dumps({"people": people}), **variables).end()

    first = dispatch().fails(f"{package} 1.0 failed on", "ended with 1. It printed: no tracker for failure")
    assert "failed when it was told of failure: The tracker does not answer." in first.output
    dispatch().fails(f"{package} 1.0 failed on")
    ((recipients, message),) = desk.server.taken
    assert recipients == ["mine@example.org", "portbuild@localhost"]
    assert message["Subject"].startswith(f"{package} 1.0 failed on {farm.arch}/{farm.branch}")
    assert "this package fails on purpose" in message.get_content()
    assert "blocks" not in message["Subject"]
    assert [(event["event"], event["package"], event["failures"]) for event in desk.events] == [
        ("failure", package, 1),
        ("failure", package, 2),
    ]
    assert desk.events[0]["log"] == str(farm.branch_directory / "logs" / f"{package}.log")
    assert desk.events[0]["blocks"] is None
    assert [note.partition(" ")[0] for note in desk.notes] == [event["id"] for event in desk.events]

    dispatch(mail_repeat="0s").fails(f"{package} 1.0 failed on")
    assert "It has failed 1 more time in the same way" not in desk.server.taken[-1][1].get_content()
    assert len(desk.server.taken) == 2
    rules = sources / package / "debian" / "rules"
    rules.write_text(rules.read_text(encoding="utf-8").replace("\tfalse\n", ""), encoding="utf-8")
    dispatch(mail_events={"builds_again": ["mine@example.org"]}).ok()
    assert desk.server.taken[-1][1]["Subject"].startswith(f"{package} 1.0 builds again")
    assert desk.events[-1]["event"] == "builds_again"


def test_a_server_that_hangs_delays_nobody_for_long_and_loses_nothing(
    idle: Farm, desk: Desk, tmp_path: pathlib.Path
) -> None:
    farm, package = idle, "pb-hung"
    desk.server.mode("stall")
    first = fail(farm, tmp_path, package, mail_repeat="0s", **desk.mail)
    assert BUDGET - 1 < notify_seconds(first) < BUDGET + 3
    second = fail(farm, tmp_path, package, mail_repeat="0s", **desk.mail)
    assert notify_seconds(second) < 3  # it was tried within the last minute
    assert len(spool(farm, package)) == 2
    desk.server.stop()
    (farm.branch_directory / ".spool" / ".hung").unlink()
    third = fail(farm, tmp_path, package, mail_repeat="0s", **desk.mail)  # nobody is there at all
    assert notify_seconds(third) < 3
    assert (len(spool(farm, package)), desk.server.taken) == (3, [])
    desk.server.start()
    desk.server.mode("die")
    farm.play("cleanup", "--check", **desk.mail).ok()
    assert len(spool(farm, package)) == 3
    farm.play("cleanup", **desk.mail).ok()
    desk.server.wait()
    desk.server.mode("accept")
    desk.server.start()
    farm.play("checkmachines", **desk.mail).ok()  # without a new event
    assert spool(farm, package) == []
    identities = [message["Message-ID"] for message in desk.server.about("failure") if package in message["Subject"]]
    assert len(identities) == len(set(identities)) == 3


def test_a_bulk_build_tells_of_the_culprit_and_of_its_end(idle: Farm, desk: Desk, tmp_path: pathlib.Path) -> None:
    needs = {"pbm-bad": "", "pbm-one": "pbm-bad", "pbm-two": "pbm-one", "pbm-good": ""}
    tree = make_tree(tmp_path / "tree", needs, {"pbm-bad": ["echo 'this is why' >&2; exit 1"]})
    ended = bulk(idle, tree, **desk.mail, **desk.hooks).fails("failed: pbm-bad (blocks 2)")
    (failure,) = desk.server.about("failure")
    assert failure["Subject"].endswith("(blocks 2)")
    assert "2 packages that need it cannot be built: pbm-one, pbm-two." in failure.get_content()
    (end,) = desk.server.about("bulk_ended")
    assert "has ended: 1 built, 1 failed, 2 skipped" in end["Subject"]
    assert "failed: pbm-bad (blocks 2)" in end.get_content()
    assert len(desk.server.taken) == 2
    failed, last = desk.events
    assert (failed["event"], failed["blocks"], failed["blocked"]) == ("failure", 2, ["pbm-one", "pbm-two"])
    assert (last["event"], last["counts"]["skipped"], last["outcome"]) == ("bulk_ended", 2, "failed")
    assert "failed when it was told of bulk_ended: The tracker does not answer." in ended.output
    assert [note.partition(" ")[0] for note in desk.notes] == [failed["id"], last["id"]]


def test_a_machine_that_is_lost_is_one_message(idle: Farm, desk: Desk) -> None:
    farm, client = idle, idle.cluster["client1"]
    history = farm.root / farm.arch / "loads" / ".checks" / "client1.json"
    history.unlink(missing_ok=True)
    client.kill()
    try:
        for _round in range(2):
            ended = farm.play("checkmachines", **desk.mail, **desk.hooks).ok()
        assert "client1 is still offline" in ended.output
    finally:
        client.boot()
        for _round in range(2):
            ended = farm.play("checkmachines", **desk.mail, **desk.hooks).ok()
        history.unlink(missing_ok=True)
    assert [message["X-Portbuild-Event"] for _recipients, message in desk.server.taken] == [
        "machine_lost",
        "machine_back",
    ]
    lost, back = (message for _recipients, message in desk.server.taken)
    assert lost["Subject"].startswith(f"client1 is offline on {farm.arch}: Machine client1 cannot be reached")
    assert back["Subject"].startswith(f"client1 is back on {farm.arch} after ")
    assert [event["event"] for event in desk.events] == ["machine_lost", "machine_back"]
    assert len(desk.notes) == 2  # by tasks on the controller


def test_the_tasks_hear_of_a_build_that_cleanup_brings_home(idle: Farm, desk: Desk, tmp_path: pathlib.Path) -> None:
    farm, package = idle, "pb-left"
    make_source(tmp_path, package, template="pb-fails", gate=True)
    running = farm.start("dispatch", package=package, sourcedir=str(tmp_path), check="off", **desk.hooks)
    wait_for_gates(farm.cluster, 1, [running])
    running.kill()
    open_gates(farm.cluster, [package])
    wait_for(lambda: not any(farm.supervisors(client) for client in farm.cluster.clients), "the end of the build")
    for _time in range(2):
        farm.play("cleanup", **desk.hooks).ok()
    assert [(event["event"], event["package"]) for event in desk.events] == [("failure", package)]
    assert [note.partition(" ")[0] for note in desk.notes] == [desk.events[0]["id"]]


def test_hooks_that_are_not_there_are_said_before_anything_is_claimed(idle: Farm, tmp_path: pathlib.Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text("- nonsense: {\n", encoding="utf-8")
    before = len(idle.builds("pb-null"))
    idle.dispatch("pb-null", hook="/nonexistent/hook").fails("portbuild_hook is /nonexistent/hook, which is no")
    idle.dispatch("pb-null", hook_tasks=str(broken)).fails("portbuild_hook_tasks", "cannot be read")
    assert len(idle.builds("pb-null")) == before
