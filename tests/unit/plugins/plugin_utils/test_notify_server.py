# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mail through a server in a process of its own, which refuses, hangs, dies, and comes back."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._notify import Delivery, MailConfig, Notifier
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._smtp_process import SmtpProcess

BUDGET = 1.0


@pytest.fixture
def server(tmp_path: pathlib.Path) -> t.Iterator[SmtpProcess]:
    with SmtpProcess(tmp_path / "server") as running:
        yield running


class Post:
    """A notifier with two recipients, whose clock can be moved."""

    def __init__(self, spool: pathlib.Path, port: int) -> None:
        self.spool = spool
        self.ahead = 0.0
        config = MailConfig(host="127.0.0.1", port=port, sender="a@example.org", to={"default": ("b@x.y", "c@x.y")})
        self.notifier = Notifier(config, str(spool), budget=BUDGET, now=lambda: time.time() + self.ahead)
        self.longest = 0.0

    def fail(self, token: int) -> list[Delivery]:
        began = time.monotonic()
        event = {"arch": "amd64", "branch": "14", "package": "foo", "queue": "q", "token": token, "log_lines": ["why"]}
        deliveries = self.notifier.notify("failure", {**event, "detail": "x" * 2000})
        self.longest = max(self.longest, time.monotonic() - began)
        return deliveries

    @property
    def waiting(self) -> list[str]:
        return sorted(path.name for path in self.spool.glob("*.json"))


@pytest.fixture
def post(tmp_path: pathlib.Path, server: SmtpProcess) -> Post:
    return Post(tmp_path / "spool", server.port)


def identities(server: SmtpProcess) -> list[str]:
    return [str(message["Message-ID"]) for _recipients, message in server.taken]


@pytest.mark.parametrize("mode", ["later", "silent", "stall", "die"])
def test_nothing_is_lost_and_nothing_comes_twice(post: Post, server: SmtpProcess, mode: str) -> None:
    server.mode(mode)
    assert "delivered" not in [delivery.state for delivery in post.fail(1)]
    assert post.longest < BUDGET + 0.5
    assert (server.taken, len(post.waiting)) == ([], 1)
    if mode == "die":
        server.wait()
        post.fail(2)  # while nobody is there
        assert post.longest < BUDGET + 0.5
        server.mode("accept")
        server.start()
    server.mode("accept")
    post.ahead = 61  # no attempt is made for a minute after a server that let us wait
    post.fail(3)
    assert post.waiting == []
    assert len(identities(server)) == len(set(identities(server))) == (3 if mode == "die" else 2)
    assert all(recipients == ["b@x.y", "c@x.y"] for recipients, _message in server.taken)
    assert post.notifier.flush() == []


def test_a_server_that_does_not_say_what_it_has_taken_gets_the_same_message_again(
    post: Post, server: SmtpProcess
) -> None:
    """It cannot be known whether it has it: a reader's program knows it by its Message-ID."""
    server.mode("mute")
    post.fail(1)
    assert post.longest < BUDGET + 0.5
    server.mode("accept")
    post.ahead = 61
    post.notifier.flush()
    first, second = identities(server)
    assert first == second
    assert post.waiting == []


def test_one_recipient_is_refused_for_good_and_one_for_now(post: Post, server: SmtpProcess) -> None:
    server.mode("never:b@x.y")
    assert [(found.state, found.recipients) for found in post.fail(1)] == [
        ("delivered", ("c@x.y",)),
        ("rejected", ("b@x.y",)),
    ]
    server.mode("later:c@x.y")
    assert [(found.state, found.recipients) for found in post.fail(2)] == [
        ("delivered", ("b@x.y",)),
        ("spooled", ("c@x.y",)),
    ]
    server.mode("accept")
    post.notifier.flush()
    assert [recipients for recipients, _message in server.taken] == [["c@x.y"], ["b@x.y"], ["c@x.y"]]
    assert identities(server)[1] == identities(server)[2]
    assert post.waiting == []


def test_one_dispatch_waits_for_a_server_that_hangs_and_not_each(post: Post, server: SmtpProcess) -> None:
    server.mode("silent")
    post.fail(1)
    post.longest = 0.0
    for token in range(2, 8):
        post.fail(token)
    assert post.longest < 0.5
    assert server.callers == 1
    server.mode("accept")
    post.ahead = 61
    post.notifier.flush()
    assert len(set(identities(server))) == len(identities(server)) == 7
