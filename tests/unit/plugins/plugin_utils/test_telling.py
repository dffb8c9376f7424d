# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is told what, by which way: people by mail, the administrator's programs and tasks by JSON."""

from __future__ import annotations

import email
import email.policy
import json
import os
import pathlib
import re
import time
import typing as t

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._bulk import PAUSES
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._events import EVENTS, facts_of
from ansible_collections.portbuild.cluster.plugins.plugin_utils._hook import BadHook
from ansible_collections.portbuild.cluster.plugins.plugin_utils._journal import Run
from ansible_collections.portbuild.cluster.plugins.plugin_utils._notify import BadMailConfig, MailConfig, Notifier
from ansible_collections.portbuild.cluster.plugins.plugin_utils._telling import (
    bulk_event,
    check_telling,
    machine_event,
    NOTHING,
    tell,
)
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._smtp import SmtpServer

FAILURE: dict[str, t.Any] = {
    "event": "failure",
    "arch": "amd64",
    "branch": "14",
    "package": "foo",
    "version": "1.0",
    "machine": "a1",
    "outcome": "failed",
    "reason": "failed",
    "failure_class": "linker",
    "line": "undefined reference to `main'",
    "line_number": 17,
    "seconds": 12.5,
    "queue": "q",
    "token": 7,
    "at": 1_700_000_000.0,
}


SUMMARY: dict[str, t.Any] = {
    **{part: [] for part in ("built", "stayed", "failed", "unfinished")},
    **{part: {} for part in ("skipped", "ignored", "given_up", "unknown")},
    "ok": False,
    "began": 1.0,
    "ended": 2.0,
    "seconds": 1.0,
}


def make_run(number: int, begun: float) -> Run:
    return Run(number, {}, None, begun, begun, None, "")


def make_context(root: pathlib.Path, **variables: t.Any) -> StepContext:
    where = {"root": str(root / "root"), "arch": "amd64", "branch": "14", **variables}
    return StepContext({f"portbuild_{name}": value for name, value in where.items()})


def make_hook(path: pathlib.Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


# -- the executable ----------------------------------------------------------------------------------------------------


def test_a_hook_gets_each_event_once_as_json(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/secret")
    script = f'cat >>{tmp_path}/events; echo "$# $1" >>{tmp_path}/arguments; env >{tmp_path}/environment; pwd'
    hook = make_hook(tmp_path / "hook", script)
    context = make_context(tmp_path, hook=hook, mail_password="secret", mail_username="me")
    for token in (7, 7, 8):
        told = tell(context, [{**FAILURE, "token": token, "password": "secret"}])
        assert (told.problems, told.events, told.untold) == ([], [], [])
    lines = (tmp_path / "events").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["token"] for line in lines] == [7, 8]
    event = json.loads(lines[0])
    assert event == json.loads(json.dumps(facts_of(FAILURE)))
    assert {name: event[name] for name in FAILURE if name != "queue"} == {
        name: value for name, value in FAILURE.items() if name != "queue"
    }
    assert "secret" not in lines[0]
    assert (tmp_path / "arguments").read_text(encoding="utf-8") == "1 failure\n" * 2
    assert "secret" not in (tmp_path / "environment").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("exit 0", ""),
        ("cat >/dev/null; echo fine", ""),
        ("echo oh; echo dear >&2; exit 3", "it ended with 3. It printed: oh dear"),
        ("kill -9 $$", "it ended with -9."),
        ("yes | head -c 3000000; exit 1", "it ended with 1. It printed: y y y"),
        ("sleep 60 & echo waiting; wait", "it did not end within 1 s and was killed. It printed: waiting"),
        ("sleep 60 & exit 0", ""),
        ("sleep 60 & exit 1", "it ended with 1."),
    ],
)
def test_a_hook_that_fails_is_a_warning(tmp_path: pathlib.Path, script: str, problem: str) -> None:
    context = make_context(tmp_path, hook=make_hook(tmp_path / "hook", script), hook_timeout="1s")
    began = time.monotonic()
    told = tell(context, [FAILURE])
    assert time.monotonic() - began < 3
    assert told.untold == []
    if problem:
        (said,) = told.problems
        assert said.startswith(f"The hook {tmp_path}/hook was told of failure: {problem}")
        assert len(said) < 2200
    else:
        assert told.problems == []
    assert tell(context, [FAILURE]).problems == []  # it has had its chance


def test_a_hook_that_went_away_is_a_warning_and_is_told_when_it_is_back(tmp_path: pathlib.Path) -> None:
    hook, tasks = tmp_path / "gone", tmp_path / "gone.yml"
    context = make_context(tmp_path, hook=str(hook), hook_tasks=str(tasks))
    told = tell(context, [FAILURE])
    assert (told.events, told.untold) == ([], ["failure", "failure"])
    assert told.problems == [
        f"The hook {hook} was not told of failure: It cannot be run: No such file or directory.",
        (
            f"The task file {tasks} was not told of failure: portbuild_hook_tasks is {tasks}, which is no file that can "
            "be read. It is a file of Ansible tasks on the controller."
        ),
    ]
    tasks.write_text("[]\n", encoding="utf-8")
    assert len(tell(context, [FAILURE]).events) == 1  # which waits for no executable
    make_hook(hook, f"cat >>{tmp_path}/events")
    for _time in range(2):
        assert tell(context, [FAILURE])[2:] == NOTHING._replace(tasks=str(tasks))[2:]
    assert len((tmp_path / "events").read_text(encoding="utf-8").splitlines()) == 1


def test_tasks_that_cannot_be_included_are_not(tmp_path: pathlib.Path) -> None:
    tasks = tmp_path / "tasks.yml"
    tasks.write_text("- nonsense: {\n", encoding="utf-8")
    context = make_context(tmp_path, hook_tasks=str(tasks), hook=make_hook(tmp_path / "hook", "exit 0"))

    def refuse(path: str) -> t.NoReturn:
        raise BadHook(f"{path} cannot be read.")

    told = tell(context, [FAILURE], check_tasks=refuse)
    assert (told.events, told.untold) == ([], ["failure"])
    assert told.problems == [f"The task file {tasks} was not told of failure: {tasks} cannot be read."]
    assert tell(context, [FAILURE]).events == [facts_of(FAILURE)]


def test_a_dispatch_that_dies_before_the_hook_has_ended_tells_it_again(tmp_path: pathlib.Path) -> None:
    hook = make_hook(tmp_path / "hook", f"cat >>{tmp_path}/events; [ -e {tmp_path}/go ] || kill -9 $PPID")
    context = make_context(tmp_path, hook=hook)
    child = os.fork()
    if child == 0:
        tell(context, [FAILURE])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    (tmp_path / "go").touch()
    tell(context, [FAILURE])
    tell(context, [FAILURE])
    events = [json.loads(line)["id"] for line in (tmp_path / "events").read_text(encoding="utf-8").splitlines()]
    assert len(events) == 2
    assert len(set(events)) == 1


# -- the task file -----------------------------------------------------------------------------------------------------


def test_the_tasks_get_each_event_once(tmp_path: pathlib.Path) -> None:
    tasks = tmp_path / "tasks.yml"
    tasks.write_text("[]\n", encoding="utf-8")
    context = make_context(tmp_path, hook_tasks=str(tasks))
    told = tell(context, [FAILURE])
    assert told.for_tasks() == {"tasks": str(tasks), "events": [facts_of(FAILURE)]}
    assert tell(context, [FAILURE]).for_tasks() == {"tasks": "", "events": []}


def test_without_hooks_and_mail_nothing_is_written(tmp_path: pathlib.Path) -> None:
    context = make_context(tmp_path)
    assert tell(context, [FAILURE]).for_tasks() == {"tasks": "", "events": []}
    assert tell(context, []).problems == []
    assert not (tmp_path / "root").exists()


# -- settings ----------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_said_before_anything_happens(tmp_path: pathlib.Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("", encoding="utf-8")
    check_telling(make_context(tmp_path, hook_tasks=str(plain), mail_templates=str(tmp_path)).settings)
    for settings_, error in (
        ({"hook": str(tmp_path / "gone")}, BadHook),
        ({"hook": str(tmp_path)}, BadHook),
        ({"hook": str(plain)}, BadHook),
        ({"hook_tasks": str(tmp_path / "gone")}, BadHook),
        ({"hook_tasks": str(tmp_path)}, BadHook),
        ({"mail_templates": str(plain)}, BadMailConfig),
    ):
        with pytest.raises(error, match=f"portbuild_{next(iter(settings_))} is /") as caught:
            check_telling(make_context(tmp_path, **settings_).settings)
        assert caught.value.details["reason"] in PAUSES  # it must not fail every package of a bulk build


def test_nothing_that_goes_wrong_ends_a_dispatch(tmp_path: pathlib.Path) -> None:
    context = make_context(
        tmp_path, mail_host="127.0.0.1", mail_to="a@b.c", hook=make_hook(tmp_path / "hook", "exit 0")
    )
    os.makedirs(os.path.dirname(context.layout.spool))
    pathlib.Path(context.layout.spool).write_text("no directory", encoding="utf-8")
    told = tell(context, [FAILURE])
    assert told.untold == ["failure", "failure"]
    assert len(told.problems) == 2
    (problem,) = tell(context, []).problems
    assert problem.startswith("No mail can be sent: ")


def test_whoever_cannot_be_told_is_named(tmp_path: pathlib.Path) -> None:
    with SmtpServer().running() as server:
        server.replies = {"RCPT TO:<gone@example.org>": "550 no such user"}
        mail = {"mail_host": "127.0.0.1", "mail_port": server.port, "mail_to": "a@example.org gone@example.org"}
        context = make_context(tmp_path, **mail, mail_maintainers=True)
        told = tell(context, [{**FAILURE, "maintainer": "nobody"}])
    assert told.sent == ["failure"]
    assert told.problems == [
        "nobody cannot be told of failure of foo: the maintainer has no mail address",
        "gone@example.org cannot be told of failure of foo: gone@example.org: 550 no such user",
    ]


def test_what_is_no_event_is_a_warning(tmp_path: pathlib.Path) -> None:
    hook = make_hook(tmp_path / "hook", f"touch {tmp_path}/ran")
    for event in ({**FAILURE, "event": "../explosion"}, {}):
        told = tell(make_context(tmp_path, hook=hook), [event])
        assert "is no event: it must be one of failure, " in told.problems[0]
    assert not (tmp_path / "ran").exists()


def test_who_hears_of_what_differs_by_branch_and_event(tmp_path: pathlib.Path) -> None:
    """The settings of each branch are what Ansible makes of the variables for it; see the cluster tests."""
    for branch, whom in (("14", "old@example.org"), ("15", "new@example.org")):
        events = {"failure": [whom], "plist": []}
        context = make_context(tmp_path, branch=branch, mail_host="127.0.0.1", mail_port=1, mail_events=events)
        told = tell(context, [{**FAILURE, "branch": branch}, {**FAILURE, "event": "plist", "branch": branch}])
        assert told.spooled == ["failure"]
        (message,) = pathlib.Path(context.layout.spool).glob("*.json")
        assert json.loads(message.read_text(encoding="utf-8"))["recipients"] == [whom]


def test_maintainers_hear_of_their_own_packages_alone(tmp_path: pathlib.Path) -> None:
    context = make_context(
        tmp_path, mail_host="127.0.0.1", mail_port=1, mail_to="ports@example.org", mail_maintainers=True
    )
    events = [
        *({**FAILURE, "event": event} for event in EVENTS[:5]),
        machine_event(context, "machine_lost", "a1", since=1.0),
        machine_event(context, "machine_back", "a1", since=1.0),
        bulk_event(context, make_run(1, 1.0), SUMMARY),
    ]
    tell(context, [{**event, "maintainer": "Jane <jane@example.net>"} for event in events])
    spool = [json.loads(path.read_text(encoding="utf-8")) for path in pathlib.Path(context.layout.spool).glob("*.json")]
    assert len(spool) == len(EVENTS)
    told = {message["event"] for message in spool if "jane@example.net" in message["recipients"]}
    assert told == {"failure", "plist", "broken_built", "builds_again"}


def test_each_message_that_waits_is_counted(tmp_path: pathlib.Path) -> None:
    """Outages of several machines are events without a package; what waits from before counts as well."""
    mail = {"mail_host": "127.0.0.1", "mail_port": 1, "mail_to": "ports@example.org"}
    context = make_context(tmp_path, **mail)
    tell(context, [FAILURE])
    lost = [machine_event(context, "machine_lost", machine, since=1.0) for machine in ("a1", "a2")]
    told = tell(context, lost)
    assert told.spooled.count("machine_lost") == 2
    assert told.problems == [f"The mail server took no message now; 3 wait in {context.layout.spool}."]


def test_a_bulk_build_of_a_new_database_is_another_one(tmp_path: pathlib.Path) -> None:
    """Also one that was taken up again is the same, though it says that it began later."""
    context = make_context(tmp_path, hook=make_hook(tmp_path / "hook", f"cat >>{tmp_path}/events"))
    for begun, began in ((100.0, 100.0), (100.0, 150.0), (200.0, 200.0)):
        tell(context, [bulk_event(context, make_run(1, begun), {**SUMMARY, "began": began})])
    events = [json.loads(line) for line in (tmp_path / "events").read_text(encoding="utf-8").splitlines()]
    assert [event["since"] for event in events] == [100.0, 200.0]
    assert len({event["id"] for event in events}) == 2


# -- hostile content ---------------------------------------------------------------------------------------------------

_NASTY = st.text(
    st.sampled_from("\r\n\0\x1b\x85\u2028\u2029\t :,;<>@\"'()[]{}%#=?é\ud800a") | st.characters(), max_size=60
) | st.sampled_from(
    [
        "x\r\nBcc: evil@example.org",
        "x\nBcc: evil@example.org\n\nbody",
        "=?utf-8?q?x=0D=0ABcc:_evil@example.org?=",
        "{{ 7 * 7 }}",
        "a@b.c, evil@example.org",
        "evil@example.org\0@b.c",
    ]
)
_FIELDS = ("package", "version", "machine", "reason", "detail", "phase", "line", "failure_class", "maintainer", "log")
_HEADERS = {
    *("From", "To", "Subject", "Date", "Auto-Submitted", "Message-ID", "X-Portbuild-Event"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
}


@example("failure", {"package": "=??Q?=0D0"}, [], False)
@example("failure", {"maintainer": "=?utf-8?Q?=0D=0ABcc:x?=@example.org"}, [], False)
@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(EVENTS),
    st.fixed_dictionaries({}, optional=dict.fromkeys(_FIELDS, _NASTY)),
    st.lists(_NASTY, max_size=3),
    st.booleans(),
)
def test_no_header_and_no_recipient_comes_from_a_build(
    tmp_path_factory: pytest.TempPathFactory, event: t.Any, said: dict[str, str], lines: list[str], own: bool
) -> None:
    directory = tmp_path_factory.mktemp("mail")
    if own:  # the subject of an administrator who does not expect the worst
        (directory / f"{event}.j2").write_text("Subject: {{ package }}{{ line }}\n\n{{ around }}", encoding="utf-8")
    config = MailConfig(
        host="127.0.0.1",
        port=1,
        to={"default": ("ports@example.org",)},
        maintainer=EVENTS,
        templates=str(directory) if own else "",
        repeat=60.0,
    )
    Notifier(config, str(directory / "spool"), budget=0).notify(
        event, {"arch": "amd64", "branch": "14", **said, "around": lines, "problems": lines, "log_lines": lines}
    )
    (path,) = (directory / "spool").glob("*.json")
    spooled = json.loads(path.read_text(encoding="utf-8"))
    head, _separator, _body = spooled["message"].partition("\r\n\r\n")
    for line in re.split("\r\n|\r|\n", head):
        assert line[:1] in (" ", "\t") or line.partition(":")[0] in _HEADERS
    message = email.message_from_string(spooled["message"], policy=email.policy.default)
    assert set(message.keys()) == _HEADERS
    assert len(message.keys()) == len(_HEADERS)
    assert message["Bcc"] is None and message["Cc"] is None
    addresses = [address.addr_spec for address in message["To"].addresses]
    assert addresses == spooled["recipients"]
    assert addresses[0] == "ports@example.org"
    for address in addresses[1:]:  # one at most, and a plain one that stands in what the source calls its maintainer
        assert re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+", address)
        assert address in said["maintainer"]
    assert len(addresses) <= 2


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            (*_FIELDS, "around", "problems", "leftovers", "jobs", "blocks", "blocked", "counts", "failed", "at")
        ),
        _NASTY | st.floats() | st.integers() | st.none() | st.lists(_NASTY) | st.dictionaries(st.text(), st.integers()),
    )
)
def test_what_hooks_get_has_always_the_same_keys(event: dict[str, t.Any]) -> None:
    facts = facts_of({"event": "failure", **event})
    assert facts.keys() == facts_of(FAILURE).keys()
    line = json.dumps(facts)
    assert "\n" not in line
    assert json.loads(line) == facts
    for value in facts.values():
        assert not isinstance(value, str) or value.splitlines() in ([], [value])
