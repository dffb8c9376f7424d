# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A problem that comes again and again for one cause is told once in a while, and none is forgotten."""

from __future__ import annotations

import os
import pathlib
import threading
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._lock import Lock
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _repeats
from ansible_collections.portbuild.cluster.plugins.plugin_utils._notify import Delivery, MailConfig, Notifier
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._smtp import SmtpServer

DAY = 86400.0


class Post:
    """A notifier whose clock stands still."""

    def __init__(self, root: pathlib.Path, port: int, repeat: float = DAY) -> None:
        self.clock = 1_700_000_000.0
        self.spool = root / "spool"
        config = MailConfig(
            host="127.0.0.1", port=port, sender="a@example.org", to={"default": ("b@x.y",)}, repeat=repeat
        )
        self.notifier = Notifier(config, str(self.spool), budget=5.0, now=lambda: self.clock)

    def tell(self, token: int, event: t.Any = "failure", **more: t.Any) -> list[Delivery]:
        known = {"arch": "amd64", "branch": "14", "package": "foo", "queue": "q", "token": token, "reason": "failed"}
        return self.notifier.notify(event, {**known, "failure_class": "linker", **more})

    def state(self, *arguments: t.Any, **more: t.Any) -> str:
        (delivery,) = self.tell(*arguments, **more)
        return delivery.state


@pytest.fixture(name="server")
def fixture_server() -> t.Iterator[SmtpServer]:
    with SmtpServer().running() as running:
        yield running


@pytest.fixture(name="post")
def fixture_post(tmp_path: pathlib.Path, server: SmtpServer) -> Post:
    return Post(tmp_path, server.port)


def last(server: SmtpServer) -> str:
    return str(server.mails[-1].message.get_content())


def test_once_a_day_for_one_cause(post: Post, server: SmtpServer) -> None:
    assert post.state(1) == "delivered"
    for token in range(2, 5):
        post.clock += 3600
        assert post.state(token) == "repeated"
        assert post.state(token) == "repeated"  # the step is repeated: it counts once
    assert post.state(5, package="bar") == "delivered"
    assert post.state(6, branch="15") == "delivered"
    assert "more times" not in last(server)
    post.clock += DAY
    assert post.state(7) == "delivered"
    assert "It has failed 3 more times in the same way since the last message about it." in last(server)
    assert post.state(8) == "repeated"
    post.clock += DAY
    assert post.state(9) == "delivered"
    assert "It has failed 1 more time in the same way" in last(server)


def test_another_cause_is_told_at_once(post: Post, server: SmtpServer) -> None:
    assert post.state(1) == "delivered"
    assert post.state(2, failure_class="checksum") == "delivered"
    assert post.state(3, reason="timeout") == "delivered"
    assert post.state(4) == post.state(5, failure_class="checksum") == "repeated"
    assert len(server.mails) == 3


def test_what_was_mended_is_a_new_problem(post: Post) -> None:
    assert [post.state(1), post.state(2)] == ["delivered", "repeated"]
    assert post.state(3, event="builds_again") == "delivered"
    assert [post.state(4), post.state(5)] == ["delivered", "repeated"]
    assert post.state(6, event="builds_again") == "delivered"  # never kept back, however soon it follows


def test_what_was_mended_counts_though_nobody_hears_of_it(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    post = Post(tmp_path, server.port)
    config = MailConfig(host="127.0.0.1", port=server.port, to={"failure": ("b@x.y",)}, repeat=DAY)
    post.notifier = Notifier(config, str(post.spool), now=lambda: post.clock)
    assert post.state(1) == "delivered"
    assert post.tell(2, event="builds_again") == []
    assert post.state(3) == "delivered"


def test_other_leftovers_are_another_cause(post: Post) -> None:
    one = [{"kind": "extra", "path": "/etc/a", "item": "7"}, {"kind": "missing", "path": "/etc/b", "item": "7"}]
    other = [{**one[0], "path": "/etc/c"}, one[1]]
    setuid = {"kind": "setuid", "path": "/bin/x", "item": "9"}
    told = [one, one[::-1], [{**row, "item": "8"} for row in one], [*one, setuid], other, one[:1], [], "rubbish"]
    states = [post.state(token, event="plist", leftovers=left) for token, left in enumerate(told, 1)]
    again = "repeated"
    assert states == ["delivered", again, again, again, "delivered", "delivered", "delivered", again]


def test_strange_results(post: Post) -> None:
    detail = f"foo.deb has {'a1' * 32} instead of {'b2' * 32}, of 1234 bytes"
    assert post.state(1, event="fetch_problem", machine="a1", detail=detail) == "delivered"
    other = detail.replace("a1", "c3").replace("1234", "77")
    assert post.state(2, event="fetch_problem", machine="a1", detail=other) == "repeated"
    assert post.state(3, event="fetch_problem", machine="a2", detail=detail) == "delivered"
    assert post.state(4, event="fetch_problem", machine="a1", detail="foo.deb is missing") == "delivered"


def test_without_a_time_all_are_told(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    post = Post(tmp_path, server.port, repeat=0.0)
    assert [post.state(token) for token in range(1, 4)] == ["delivered"] * 3
    assert not (post.spool / "causes").exists()


def test_a_clock_that_was_wrong_keeps_nothing_back(post: Post) -> None:
    assert post.state(1) == "delivered"
    post.clock -= 10 * DAY
    assert post.state(2) == "delivered"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"linker/failed": 1}', '{"linker/failed": {"told": "now"}}'])
def test_rubbish_keeps_nothing_back(post: Post, content: str) -> None:
    assert post.state(1) == "delivered"
    (path,) = post.spool.glob("causes/*.json")
    path.write_text(content, "utf-8")
    assert post.state(2) == "delivered"
    assert post.state(3) == "repeated"


def test_a_lock_that_somebody_holds_keeps_nothing_back(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    assert post.state(1) == "delivered"
    monkeypatch.setattr(_repeats, "_LOCK_TIMEOUT", 0.05)
    with Lock(str(post.spool / "causes" / ".lock"), timeout=1):
        assert post.state(2, failure_class="other") == "delivered"


def test_killed_between_the_message_and_the_note(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    """The message is in the spool: it is sent; the next failure may be told too, but nothing is lost."""
    post = Post(tmp_path, server.port)
    child = os.fork()
    if child == 0:
        _repeats.Cause.told = lambda *_unused: os._exit(7)  # type: ignore[method-assign]
        post.tell(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert [delivery.state for delivery in post.tell(1)] == ["duplicate", "delivered"]
    assert [post.state(2), post.state(3)] == ["delivered", "repeated"]


def test_many_at_once_tell_once(tmp_path: pathlib.Path, server: SmtpServer) -> None:
    posts = [Post(tmp_path, server.port) for _number in range(8)]
    threads = [threading.Thread(target=post.tell, args=(number,)) for number, post in enumerate(posts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(server.mails) == 1
    posts[0].clock += DAY
    posts[0].tell(99)
    assert "It has failed 7 more times" in last(server)


def test_what_is_long_past_is_forgotten(post: Post) -> None:
    post.state(1)
    (path,) = post.spool.glob("causes/*.json")
    os.utime(path, (post.clock, post.clock))
    post.clock += 91 * DAY
    post.state(2, package="bar")
    assert not path.exists()
