# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _notify
from ansible_collections.portbuild.cluster.plugins.plugin_utils._events import context_of, EVENTS, events_of
from ansible_collections.portbuild.cluster.plugins.plugin_utils._notify import (
    BadMailConfig,
    compose,
    Delivery,
    MailConfig,
    Notifier,
    render,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import Recorded
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import build, lost
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._smtp import SmtpServer

NOT_OF_BUILDS = ("machine_lost", "machine_back", "bulk_ended")
RECORDED = Recorded(True, None, False, False, 0)


@pytest.fixture
def server() -> t.Iterator[SmtpServer]:
    with SmtpServer().running() as running:
        yield running


def context(token: int = 1, **more: t.Any) -> dict[str, t.Any]:
    fields = {"arch": "amd64", "branch": "bookworm", "log_lines": ["first", "last"], **more}
    return context_of(build(token, "failed", version="2.10-3", phase="build"), RECORDED, **fields)


class Post:
    """A notifier whose clock stands still."""

    def __init__(self, root: pathlib.Path, port: int, budget: float = 5.0, **more: t.Any) -> None:
        self.clock = 1_700_000_000.0
        self.spool = root / "spool"
        setting = {"host": "127.0.0.1", "port": port, "sender": "build@example.org", **more}
        self.config = MailConfig(**{"to": {"default": ("ports@example.org",)}, **setting})
        self.notifier = Notifier(self.config, str(self.spool), budget=budget, now=lambda: self.clock)

    def notify(self, event: t.Any = "failure", **more: t.Any) -> list[Delivery]:
        return self.notifier.notify(event, context(**more))

    def spooled(self) -> list[str]:
        return sorted(path.name for path in self.spool.glob("*.json"))


@pytest.fixture
def post(tmp_path: pathlib.Path, server: SmtpServer) -> Post:
    return Post(tmp_path, server.port)


def states(deliveries: list[Delivery]) -> list[str]:
    return [delivery.state for delivery in deliveries]


# -- configuration ----------------------------------------------------------------------------------------------------


def test_without_a_setting_nothing_is_mailed(tmp_path: pathlib.Path) -> None:
    assert Notifier(None, str(tmp_path / "spool")).notify("failure", context()) == []
    assert not (tmp_path / "spool").exists()


def test_recipients_by_event() -> None:
    config = MailConfig(host="mail", to={"failure": ("a@b.c", "d@e.f"), "default": ("root",), "plist": ()})
    assert config.recipients("failure") == ("a@b.c", "d@e.f")
    assert config.recipients("plist") == ()
    assert config.recipients("builds_again") == ("root",)
    assert config.sender.startswith("portbuild@")


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"sender": "a@b.c\nBcc: x@y.z"}, "mail address"),
        ({"sender": "A <a@b.c>"}, "mail address"),
        ({"to": {"default": ("a@b.c\r\nBcc: x",)}}, "mail address"),
        ({"to": {"default": ("grün@b.c",)}}, "mail address"),
        ({"to": {"default": ("-oQ/tmp@",)}}, "mail address"),
        ({"to": {"default": (None,)}}, "mail address"),
        ({"to": {"failed": ("a@b.c",)}}, "one of failure"),
        ({"maintainer": ("everything",)}, "one of failure"),
    ],
)
def test_a_setting_that_is_wrong(setting: dict[str, t.Any], why: str) -> None:
    with pytest.raises(BadMailConfig, match=why):
        MailConfig(host="mail", **setting)


def test_the_password_is_never_shown() -> None:
    assert "secret" not in repr(MailConfig(host="mail", username="u", password="secret"))


# -- what happened ----------------------------------------------------------------------------------------------------


def test_events() -> None:
    again = RECORDED._replace(builds_again=True)
    leftovers = [{"kind": "extra", "path": "/x"}]
    assert events_of(build(1), RECORDED) == []
    assert events_of(build(1, "failed"), RECORDED) == ["failure"]
    assert events_of(build(1, "failed", broken=True), RECORDED) == []  # that was expected
    assert events_of(build(1), RECORDED, leftovers=[{"kind": "setuid", "path": "/bin/su"}]) == []
    assert events_of(lost(1), RECORDED, leftovers=leftovers) == []
    assert events_of(build(1), again, leftovers=leftovers) == ["plist", "builds_again"]
    assert events_of(build(1, broken=True), again._replace(broken_built=True)) == ["broken_built"]


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [event for event in EVENTS if event not in NOT_OF_BUILDS])
def test_every_event_of_a_build_has_a_message(post: Post, server: SmtpServer, event: t.Any) -> None:
    more = {
        "problems": ["a.deb is not what was announced"],
        "leftovers": [{"kind": "extra", "path": "/etc/x", "item": "hello.deb"}],
        "log": "/logs/hello.log",
    }
    assert states(post.notify(event, **more)) == ["delivered"]
    message = server.mails[0].message
    assert "hello" in message["Subject"] and "amd64/bookworm" in message["Subject"]
    text = message.get_content()
    for part in ("hello 2.10-3", "client1", "failed", "10.0 s", "/logs/hello.log"):
        assert part in text
    assert ("last" in text.splitlines()) == (event == "failure")
    assert ("extra  /etc/x  (hello.deb)" in text) == (event == "plist")
    assert ("- a.deb is not" in text) == (event == "fetch_problem")


OF_OTHERS = [
    (
        {"event": "machine_lost", "machine": "a1", "reason": "no route", "since": 5.0, "jobs": ["amd64/bookworm/foo"]},
        "a1 is offline on amd64: no route",
        ["amd64/bookworm/foo", "Reason:   no route"],
    ),
    (
        {"event": "machine_back", "machine": "a1", "since": 5.0, "seconds": 60},
        "a1 is back on amd64 after 1 min 0 s",
        [],
    ),
    (
        {
            "event": "bulk_ended",
            "run": 3,
            "outcome": "failed",
            "counts": {"built": 7, "failed": 1, "skipped": 2},
            "failed": [{"package": "foo", "reason": "It\nfailed.", "blocks": 2}],
            "summary": "/x/summary.json",
        },
        "Bulk build of amd64/bookworm has ended: 7 built, 1 failed, 2 skipped",
        ["failed: foo (blocks 2): It failed.", "Summary:   /x/summary.json"],
    ),
]


@pytest.mark.parametrize(("event", "subject", "lines"), OF_OTHERS, ids=NOT_OF_BUILDS)
def test_every_other_event_has_a_message(
    post: Post, server: SmtpServer, event: dict[str, t.Any], subject: str, lines: list[str]
) -> None:
    event = {"arch": "amd64", "branch": "bookworm", **event}
    assert states(post.notifier.notify(event["event"], event)) == ["delivered"]
    message = server.mails[0].message
    assert message["Subject"] == subject
    for line in lines:
        assert line in message.get_content().splitlines()
    assert states(post.notifier.notify(event["event"], event)) == ["duplicate"]
    if "machine" in event:  # one machine, one outage, whichever branch looks after it
        assert states(post.notifier.notify(event["event"], {**event, "branch": "trixie"})) == ["duplicate"]
        event["since"] = 6.0
        assert states(post.notifier.notify(event["event"], event)) == ["delivered"]


def test_a_failure_brings_the_last_lines_of_the_log(tmp_path: pathlib.Path, post: Post, server: SmtpServer) -> None:
    log = tmp_path / "log"
    wide = b"x" * 5000
    lines = [b"line %d" % number for number in range(2000)] + [
        b"\x1b[31mred\x1b[0m \xff\x00\x08",
        wide,
        b".",
        b"From me",
    ]
    log.write_bytes(b"\n".join(lines) + b"\n")
    post.notify(log=str(log), log_lines=[])
    mail = server.mails[0]
    assert mail.data.isascii()
    assert max(map(len, mail.data.split(b"\r\n"))) <= 998
    text = mail.message.get_content().splitlines()
    assert text[-4:] == ["red \ufffd\ufffd\ufffd", wide.decode(), ".", "From me"]
    begin = text.index("The last 1000 lines of the log:")
    assert text[begin + 2] == "line 1004"
    assert len(text) - begin - 2 == 1000


def test_a_log_that_cannot_be_read(tmp_path: pathlib.Path, post: Post, server: SmtpServer) -> None:
    post.notify(log=str(tmp_path / "absent"), log_lines=[])
    assert "(the log cannot be read: No such file or directory)" in server.mails[0].message.get_content()


def test_values_are_no_templates_and_no_headers(post: Post, server: SmtpServer) -> None:
    post.notify(
        detail="{{ 7 * 7 }}\r\nBcc: evil@example.org",
        reason="x\nBcc: evil@example.org",
        machine="m\n\nBcc: evil@example.org",
        maintainer="Evil <a@b.c>\nBcc: evil@example.org",
    )
    message = server.mails[0].message
    assert message["Bcc"] is None
    assert server.mails[0].recipients == ["ports@example.org"]
    assert "{{ 7 * 7 }} Bcc: evil@example.org" in message.get_content()


_WILD = st.text(max_size=300) | st.integers() | st.none() | st.lists(st.text(max_size=20), max_size=3)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(EVENTS),
    st.fixed_dictionaries(
        {"package": st.text(max_size=50), "reason": _WILD, "version": _WILD, "detail": _WILD, "phase": _WILD},
        optional={
            "seconds": st.floats() | _WILD,
            "failures": st.floats() | _WILD,
            "log_lines": st.lists(st.text(max_size=2000), max_size=4) | _WILD,
            "problems": _WILD,
            "leftovers": st.lists(st.dictionaries(st.sampled_from(["kind", "path"]), _WILD), max_size=2) | _WILD,
            "machine": _WILD,
        },
    ),
)
def test_anything_makes_a_message(event: t.Any, wild: dict[str, t.Any]) -> None:
    config = MailConfig(host="mail")
    subject, body = render(config, event, wild)
    text = compose("a@b.c", ["d@e.f"], subject, body, headers={"X-Portbuild-Event": event}, date=0.0)
    assert text.isascii()
    assert max(map(len, text.split("\r\n"))) <= 998
    head = text.split("\r\n\r\n")[0]
    fields = [line.split(":")[0] for line in head.split("\r\n") if line[:1] not in (" ", "\t")]
    known = {"From", "To", "Subject", "Date", "Auto-Submitted", "X-Portbuild-Event"}
    assert set(fields) <= known | {"MIME-Version", "Content-Type", "Content-Transfer-Encoding"}
    assert len(set(fields)) == len(fields)


def test_own_templates(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    (tmp_path / "failure.j2").write_text('Subject: oh no, {{ package }}\n\n{% include "_facts.j2" %}', "utf-8")
    post = Post(tmp_path, server.port, templates=str(tmp_path))
    post.notify()
    post.notify("plist")
    assert server.mails[0].message["Subject"] == "oh no, hello"
    assert "packing-list" in server.mails[1].message["Subject"]


@pytest.mark.parametrize(
    "text",
    ["{{ nonsense }}", "{% if %}", "{{ package.__class__.__mro__ }}", "{{ 1 // 0 }}", "\xff", "{{ '\\ud800' }}"],
)
def test_a_template_that_is_wrong_loses_no_message(tmp_path: pathlib.Path, server: SmtpServer, text: str) -> None:
    (tmp_path / "failure.j2").write_bytes(text.encode("latin-1"))
    post = Post(tmp_path, server.port, templates=str(tmp_path))
    assert states(post.notify()) == ["delivered"]
    message = server.mails[0].message
    assert message["Subject"].startswith("hello 2.10-3 failed on amd64/bookworm")
    assert f"The template failure.j2 in {tmp_path} cannot be used: " in message.get_content()


@pytest.mark.parametrize("body", ["", "x"], ids=["silent", "talking"])
def test_a_template_without_an_end_loses_no_message(
    tmp_path: pathlib.Path, server: SmtpServer, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(_notify, "RENDERING", 0.3)
    loop = "{% for one in range(300) %}"
    text = f"{loop * 3}{body}{'{% endfor %}' * 3}"  # some seconds of it: a thread cannot be ended
    (tmp_path / "failure.j2").write_text(f"Subject: x\n{text}", encoding="utf-8")
    began = time.monotonic()
    assert states(Post(tmp_path, server.port, templates=str(tmp_path), repeat=60.0).notify()) == ["delivered"]
    assert time.monotonic() - began < 3
    assert f"failure.j2 in {tmp_path} cannot be used: TimeoutError" in (server.mails[0].message.get_content())


def test_without_jinja2(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_notify, "HAS_JINJA2", False)
    with pytest.raises(PortbuildError, match="Jinja2"):
        post.notify()


# -- recipients -------------------------------------------------------------------------------------------------------


def test_the_maintainer(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    post = Post(tmp_path, server.port, maintainer=("failure",))
    assert states(post.notify(maintainer="Jane Doe <jane@example.net>")) == ["delivered"]
    assert server.mails[0].recipients == ["ports@example.org", "jane@example.net"]
    post.notify("builds_again", maintainer="jane@example.net")
    assert server.mails[1].recipients == ["ports@example.org"]
    deliveries = post.notify(token=2, maintainer="nobody at all")
    assert states(deliveries) == ["rejected", "delivered"]
    assert deliveries[0].detail == "the maintainer has no mail address"


def test_nobody_wants_to_know(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    post = Post(tmp_path, server.port, to={"plist": ("a@b.c",)})
    assert post.notify() == []
    assert not post.spool.exists()
    assert server.lines == []


def test_an_event_that_does_not_exist(post: Post) -> None:
    with pytest.raises(BadMailConfig):
        post.notify("success")


# -- sending ----------------------------------------------------------------------------------------------------------


def test_a_repeated_step_sends_nothing_twice(post: Post, server: SmtpServer) -> None:
    assert states(post.notify()) == ["delivered"]
    assert states(post.notify()) == ["duplicate"]
    assert states(post.notify(token=2)) == ["delivered"]
    assert states(post.notify("plist")) == ["delivered"]
    assert len(server.mails) == 3
    identities = {mail.message["Message-ID"] for mail in server.mails}
    assert len(identities) == 3
    sizes = [path.stat().st_size for path in (post.spool / "sent").iterdir()]
    assert sizes == [0, 0, 0]


def test_a_server_that_is_down_and_comes_back(tmp_path: pathlib.Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    post = Post(tmp_path, port)
    began = time.monotonic()
    (delivery,) = post.notify()
    assert delivery.state == "spooled"
    assert f"mail server 127.0.0.1:{port}: [Errno 111]" in delivery.detail
    assert states(post.notify()) == ["duplicate", "spooled"]
    post.notify(token=2)
    assert time.monotonic() - began < 1.0
    assert len(post.spooled()) == 2
    with SmtpServer(port).running() as server:
        assert states(post.notify(token=3)) == ["delivered"] * 3
        assert len(server.mails) == 3
        assert server.lines.count("QUIT") == 1  # one connection for all
    assert post.spooled() == []


@pytest.mark.parametrize("where", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END"])
def test_a_server_that_hangs(tmp_path: pathlib.Path, server: SmtpServer, where: str) -> None:
    server.hang = where
    post = Post(tmp_path, server.port, budget=0.4)
    (delivery,) = post.notify()
    assert delivery.state == "spooled"
    assert "did not answer in time" in delivery.detail
    # One dispatch waits for it, not each of the many that fail in the next minute.
    assert states(post.notify(token=2)) == ["spooled"]
    assert server.connections == 1
    server.hang = ""
    post.clock += 61
    assert states(post.notify(token=3)) == ["delivered"] * 3
    # A server that took the message and did not say so gets it again; readers know it by its Message-ID.
    assert len({mail.message["Message-ID"] for mail in server.mails}) == 3
    assert len(server.mails) == 3 + (where == "END")


def test_a_server_that_drips(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    """Each byte comes in time; only an end for the whole helps."""
    server.drip = 0.05
    post = Post(tmp_path, server.port, budget=0.5)
    began = time.monotonic()
    assert states(post.notify()) == ["spooled"]
    assert time.monotonic() - began < 2.0


def test_a_name_server_that_hangs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    woken = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: woken.wait(20) and [])
    post = Post(tmp_path, 25, budget=0.3, host="mail.example.org")
    began = time.monotonic()
    (delivery,) = post.notify()
    woken.set()
    assert time.monotonic() - began < 2.0
    assert (delivery.state, "in time" in delivery.detail) == ("spooled", True)


def test_a_name_that_does_not_exist(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object, **_more: object) -> t.NoReturn:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    (delivery,) = Post(tmp_path, 25, host="mail.example.org").notify()
    assert (delivery.state, "not known" in delivery.detail) == ("spooled", True)


def test_one_recipient_is_refused(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    post = Post(tmp_path, server.port, to={"failure": ("good@x.y", "never@x.y", "later@x.y")})
    server.replies = {"RCPT TO:<never@x.y>": "550 no such user", "RCPT TO:<later@x.y>": "450 mailbox busy"}
    deliveries = post.notify()
    assert [(delivery.state, delivery.recipients) for delivery in deliveries] == [
        ("delivered", ("good@x.y",)),
        ("spooled", ("later@x.y",)),
        ("rejected", ("never@x.y",)),
    ]
    assert "550 no such user" in deliveries[2].detail
    server.replies = {}
    deliveries = post.notifier.flush()
    assert [(delivery.state, delivery.recipients) for delivery in deliveries] == [("delivered", ("later@x.y",))]
    assert [mail.recipients for mail in server.mails] == [["good@x.y"], ["later@x.y"]]
    assert post.notifier.flush() == []


def test_all_recipients_are_refused(post: Post, server: SmtpServer) -> None:
    server.replies = {"RCPT TO:<ports@example.org>": "550 no such user"}
    assert states(post.notify()) == ["rejected"]
    assert post.spooled() == []
    assert states(post.notify()) == ["duplicate"]


@pytest.mark.parametrize(
    ("line", "reply", "state"),
    [
        ("END", "554 looks like spam", "rejected"),
        ("END", "451 try later", "spooled"),
        ("DATA", "421 going down", "spooled"),
        ("MAIL FROM:<build@example.org>", "550 who are you", "spooled"),  # a matter of the setting
        ("CONNECT", "554 no service", "spooled"),
        ("CONNECT", "??? nonsense", "spooled"),
    ],
)
def test_answers_of_servers(post: Post, server: SmtpServer, line: str, reply: str, state: str) -> None:
    server.replies = {line: reply}
    (delivery,) = [found for found in post.notify() if not found.detail.startswith("it waits")]
    assert delivery.state == state
    assert reply.split(" ", 1)[-1] in delivery.detail
    assert len(post.spooled()) == (state == "spooled")
    server.replies = {}
    assert states(post.notifier.flush()) == (["delivered"] if state == "spooled" else [])


def test_a_message_that_is_refused_for_its_sender_holds_up_no_other(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    server.replies = {"MAIL FROM:<wrong@example.org>": "553 who are you"}
    wrong = Post(tmp_path, server.port, sender="wrong@example.org")
    assert states(wrong.notify()) == ["spooled"]
    mended = Post(tmp_path, server.port)
    assert sorted(states(mended.notify(token=2))) == ["delivered", "spooled"]
    assert [mail.sender for mail in server.mails] == ["build@example.org"]
    assert len(mended.spooled()) == 1
    server.replies = {}
    assert states(mended.notifier.flush()) == ["delivered"]


def test_given_up_after_a_week(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    post = Post(tmp_path, server.port)
    server.replies = {"RCPT TO:<ports@example.org>": "450 busy"}
    assert states(post.notify()) == ["spooled"]
    post.clock += 8 * 86400
    assert states(post.notifier.flush()) == ["rejected"]
    assert post.spooled() == []
    post.clock += 91 * 86400
    server.replies = {}
    post.notify(token=2)
    assert len(list((post.spool / "sent").iterdir())) == 1  # what is long past is forgotten


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"recipients": ["a\\nb"]}', "x" * 100])
def test_a_spool_with_rubbish_in_it(post: Post, server: SmtpServer, content: str) -> None:
    post.spool.mkdir()
    (post.spool / "rubbish.json").write_text(content, "utf-8")
    (post.spool / "directory.json").mkdir()
    assert states(post.notify()) == ["delivered"]
    assert len(server.mails) == 1


def test_what_a_later_version_has_spooled_waits_for_that(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    Post(tmp_path, 1).notify()
    post = Post(tmp_path, server.port)
    (path,) = post.spool.glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "schema": 2}), encoding="utf-8")
    assert post.notifier.flush() == []
    assert (server.mails, path.exists()) == ([], True)


def test_a_spool_whose_markers_were_cleared_away_sends_nothing_twice(
    tmp_path: pathlib.Path, server: SmtpServer
) -> None:
    Post(tmp_path, 1).notify()
    (tmp_path / "spool" / "sent").rmdir()
    post = Post(tmp_path, server.port)
    assert states(post.notifier.flush()) == ["delivered"]
    assert post.notifier.flush() == []
    assert len(server.mails) == 1


def test_two_senders_at_once(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    idle = Post(tmp_path, 1)
    for token in range(1, 9):
        idle.notify(token=token)
    assert len(idle.spooled()) == 8
    senders = [Post(tmp_path, server.port) for _number in range(4)]
    threads = [threading.Thread(target=sender.notifier.flush) for sender in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({mail.message["Message-ID"] for mail in server.mails}) == len(server.mails) == 8


def test_the_spool_is_not_for_everybody(tmp_path: pathlib.Path) -> None:
    post = Post(tmp_path, 1)
    post.notify()
    (name,) = post.spooled()
    assert (post.spool / name).stat().st_mode & 0o7777 == 0o640


def test_login(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    post = Post(tmp_path, server.port, username="me", password="secret")
    assert states(post.notify()) == ["delivered"]
    assert any(line.startswith("AUTH PLAIN ") for line in server.lines)
    server.replies = {line: "535 wrong" for line in server.lines if line.startswith("AUTH")}
    (delivery,) = post.notify(token=2)
    assert delivery.state == "spooled" and "535" in delivery.detail and "secret" not in delivery.detail


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes its certificate with openssl")
def test_starttls(tmp_path: pathlib.Path, server: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        *subject,
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(certificate, key)
    post = Post(tmp_path, server.port, starttls=True)
    (delivery,) = post.notify()
    assert delivery.state == "spooled" and "CERTIFICATE_VERIFY_FAILED" in delivery.detail
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert states(post.notify(token=2)) == ["delivered", "delivered"]
    server.drip = 0.05
    slow = Post(tmp_path, server.port, budget=0.5, starttls=True)
    began = time.monotonic()
    assert states(slow.notify(token=3)) == ["spooled"]
    assert time.monotonic() - began < 2.0


def test_nothing_is_sent_in_the_clear_where_tls_is_wanted(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    post = Post(tmp_path, server.port, starttls=True)
    (delivery,) = post.notify()
    assert delivery.state == "spooled" and "STARTTLS" in delivery.detail
    assert server.mails == []


def test_killed_before_it_is_sent(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    """The message waits in the spool, and the repeated step sends it."""
    post = Post(tmp_path, server.port)
    child = os.fork()
    if child == 0:
        post.notifier.flush = lambda: os._exit(7)  # type: ignore[method-assign]
        post.notify()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert states(post.notify()) == ["duplicate", "delivered"]
    assert len(server.mails) == 1
