# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils import _record
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._record import path_of, Recorder, ResultsMissing
from ansible_collections.portbuild.cluster.plugins.plugin_utils._space import ControllerDiskFull
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import (
    BuildRecord,
    Recorded,
    SqliteStore,
    StaleBuild,
    StoredFile,
)
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import (
    build,
    lost,
    make_layout,
    names,
    put,
    put_log,
)


class Branch:
    """A branch and its recorder."""

    def __init__(self, root: pathlib.Path, **more: t.Any) -> None:
        self.layout: Layout = make_layout(root)
        self.store = SqliteStore(self.layout.database)
        self.recorder = Recorder(self.store, self.layout, **more)

    def record(self, record: BuildRecord, *files: StoredFile, log: bool = True) -> Recorded:
        if log:
            put_log(self.layout, record.token, package=record.package)
        return self.recorder.record(record, files)

    def log(self) -> str:
        return pathlib.Path(self.layout.log("hello")).read_text("utf-8")

    def error(self) -> str | None:
        path = pathlib.Path(self.layout.error("hello"))
        return path.read_text("utf-8") if path.exists() else None

    def incoming(self) -> set[str]:
        return set(os.listdir(os.path.join(self.layout.logs, ".incoming")))


@pytest.fixture
def branch(tmp_path: pathlib.Path) -> Branch:
    return Branch(tmp_path)


def test_logs_and_errors(branch: Branch) -> None:
    branch.record(build(1))
    assert (branch.log(), branch.error()) == ("log of build 1\n", None)
    branch.record(build(2, "failed"))
    assert (branch.log(), branch.error()) == ("log of build 2\n",) * 2
    branch.record(build(3, "failed"))  # one link of a file renamed onto another would do nothing
    assert (branch.log(), branch.error()) == ("log of build 3\n",) * 2
    branch.record(lost(4))
    assert (branch.log(), branch.error()) == ("log of build 4\n", "log of build 3\n")
    branch.record(build(5))
    assert (branch.log(), branch.error()) == ("log of build 5\n", None)
    assert branch.incoming() == set()
    assert names(branch.layout.logs) == {"hello.log"}
    last = branch.store.last("hello")
    assert last is not None and last.build.log == "logs/hello.log"


def test_a_repeated_record_changes_nothing(branch: Branch) -> None:
    branch.record(build(1, "failed"))
    first = branch.record(build(2), put(branch.layout, "hello_2.deb"))
    inode = os.stat(branch.layout.log("hello")).st_ino
    put_log(branch.layout, 2, "fetched once more\n")
    again = branch.recorder.record(build(2), [put(branch.layout, "hello_2.deb")])
    assert again == first._replace(first_time=False)
    assert os.stat(branch.layout.log("hello")).st_ino == inode
    assert branch.incoming() == set()


def test_a_late_repetition_leaves_the_later_logs(branch: Branch) -> None:
    branch.record(build(1, "failed"))
    branch.record(build(2))
    put_log(branch.layout, 3)  # of a build that has been fetched, but not recorded
    branch.record(build(1, "failed"))
    assert (branch.log(), branch.error()) == ("log of build 2\n", None)
    assert branch.incoming() == {"hello.3.log"}


def test_a_stale_build_changes_nothing(branch: Branch) -> None:
    branch.record(build(5))
    with pytest.raises(StaleBuild):
        branch.record(build(4, "failed"))
    assert (branch.log(), branch.error()) == ("log of build 5\n", None)
    branch.record(build(6))
    assert branch.incoming() == set()  # what the stale one left is removed with the next


def test_a_build_without_a_log_gets_one_that_says_so(branch: Branch) -> None:
    branch.record(build(1))
    branch.record(build(2, "failed", reason="log_size", detail="no room"), log=False)
    assert branch.log() == branch.error()
    assert "No log of this build came back" in branch.log()
    assert "detail: no room" in branch.log()


def test_nothing_came_back_from_a_lost_machine(branch: Branch) -> None:
    branch.record(build(1, "failed"))
    branch.record(lost(2), log=False)
    assert (branch.log(), branch.error()) == ("log of build 1\n",) * 2
    last = branch.store.last("hello")
    assert last is not None and last.build.log == ""


def test_superseded_files_go(branch: Branch) -> None:
    put(branch.layout, "foreign.deb")
    branch.record(build(1), put(branch.layout, "a_1.deb"), put(branch.layout, "same.deb"))
    branch.record(build(2, package="other"), put(branch.layout, "o_1.deb"))
    branch.record(build(3, "failed"))
    assert names(branch.layout.packages) == {"foreign.deb", "a_1.deb", "same.deb", "o_1.deb"}
    branch.record(build(4), put(branch.layout, "a_2.deb"), put(branch.layout, "same.deb", b"new"))
    assert names(branch.layout.packages) == {"foreign.deb", "a_2.deb", "same.deb", "o_1.deb"}


def test_superseded_files_that_are_gone_already(branch: Branch) -> None:
    old = put(branch.layout, "a_1.deb")
    branch.record(build(1), old)
    os.unlink(path_of(branch.layout, old))
    branch.record(build(2), put(branch.layout, "a_2.deb"))
    assert branch.store.drop_superseded("hello", lambda file: pytest.fail(file.name)) == []


@pytest.mark.parametrize("content", [None, b"short"])
def test_files_that_are_not_there(branch: Branch, content: bytes | None) -> None:
    branch.record(build(1, "failed"))
    file = put(branch.layout, "a.deb")
    if content is None:
        os.unlink(path_of(branch.layout, file))
    else:
        pathlib.Path(path_of(branch.layout, file)).write_bytes(content)
    with pytest.raises(ResultsMissing, match=r"a\.deb of hello is not there"):
        branch.record(build(2), file)
    assert branch.error() == branch.log() == "log of build 1\n"
    put(branch.layout, "a.deb")
    assert branch.record(build(2), file).builds_again


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_links_are_impossible(branch: Branch, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_arguments: object, **_keywords: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    for token in (1, 2):
        branch.record(build(token, "failed"))
        assert (branch.log(), branch.error()) == (f"log of build {token}\n",) * 2
    branch.record(build(3))
    assert names(branch.layout.logs) == {"hello.log"}
    assert names(branch.layout.errors) == set()


def test_a_full_disk_is_named(branch: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_keywords: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    branch.record(build(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        with pytest.raises(ControllerDiskFull, match="The controller's disk is full"):
            branch.record(build(2, "failed"))
    assert branch.incoming() == {"hello.2.log"}
    assert branch.store.failures() == []
    assert branch.record(build(2, "failed")).first_time
    assert branch.error() == "log of build 2\n"


def test_compressed_logs(tmp_path: pathlib.Path) -> None:
    branch = Branch(tmp_path, compress_logs=True, keep_logs=3)
    for token in (1, 2, 9, 10, 11):
        branch.record(build(token))
    branch.record(lost(12), log=False)
    old = os.path.join(branch.layout.logs, "old")
    assert set(os.listdir(old)) == {f"hello.{token}.log.gz" for token in (9, 10, 11)}
    with gzip.open(os.path.join(old, "hello.10.log.gz"), "rt") as stream:
        assert stream.read() == "log of build 10\n"
    assert branch.log() == "log of build 11\n"
    assert [built.build.log for built in branch.store.history(limit=2)] == ["", "logs/old/hello.11.log.gz"]


def test_names_that_begin_alike(branch: Branch) -> None:
    """The incoming logs of a package are its own."""
    for package in ("hello.1", "hello", "hello.1.2"):
        put_log(branch.layout, 3, package=package)
    branch.record(build(5))
    assert branch.incoming() == {"hello.1.3.log", "hello.1.2.3.log"}


def test_recording_is_quick(branch: Branch) -> None:
    """The budget is 50 ms, on a busy machine with a slow disk: this only finds what is much worse."""
    taken = []
    for token in range(1, 30):
        put_log(branch.layout, token)
        files = [put(branch.layout, f"hello_{token}.deb")]
        began = time.perf_counter()
        branch.recorder.record(build(token), files)
        taken.append(time.perf_counter() - began)
    assert sorted(taken)[len(taken) // 2] < 0.2


# -- killed at every point --------------------------------------------------------------------------------------------


def in_child(action: t.Callable[[], object], *, kill_at: int | None = None) -> bool:
    """Run the action in a process that is killed at its n-th look at the outside world; whether it was."""
    child = os.fork()
    if child == 0:
        try:
            if kill_at is not None:
                count = 0

                def hook(event: str, _arguments: object) -> None:
                    nonlocal count
                    if event.startswith(("os.", "open", "shutil.", "sqlite3.", "fcntl.")):
                        count += 1
                        if count == kill_at:
                            os.kill(os.getpid(), signal.SIGKILL)

                sys.addaudithook(hook)
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


STORY: list[tuple[t.Callable[[], BuildRecord], set[str]]] = [
    (lambda: build(1), {"a_1.deb", "same.deb"}),
    (lambda: build(2, "failed"), set()),
    (lambda: build(3, "failed"), set()),
    (lambda: lost(4), set()),
    (lambda: build(5), {"a_5.deb", "same.deb"}),
]


def tell(branch: Branch, steps: int) -> None:
    for make, files in STORY[:steps]:
        record = make()
        branch.record(record, *(put(branch.layout, name, b"%d" % record.token) for name in sorted(files)))


def check_after(branch: Branch, step: int) -> None:
    """The state after a step of the story, worked out from the story alone."""
    told = [(make(), files) for make, files in STORY[: step + 1]]
    counted = [record for record, _files in told if not record.infrastructure]
    current = next(files for record, files in reversed(told) if record.outcome == "success")
    assert [built.build.token for built in reversed(branch.store.history())] == [
        record.token for record, _result in told
    ]
    assert branch.log() == f"log of build {told[-1][0].token}\n"
    assert branch.error() == (f"log of build {counted[-1].token}\n" if counted[-1].outcome == "failed" else None)
    assert names(branch.layout.packages) == current
    assert {file.name for file in branch.store.package_files("hello")} == current
    assert branch.incoming() == set()
    assert names(branch.layout.logs) == {"hello.log"}
    assert names(branch.layout.errors) <= {"hello.log"}


def check_any_time(branch: Branch) -> None:
    """What holds whatever was killed: no file that is recorded is missing, unless a fetch has replaced it."""
    for file in branch.store.package_files("hello"):
        assert os.path.exists(path_of(branch.layout, file))


@pytest.mark.parametrize("step", range(len(STORY)))
def test_killed_at_every_call(tmp_path: pathlib.Path, step: int) -> None:
    template = Branch(tmp_path / "template")
    tell(template, step)
    make, wanted = STORY[step]
    kill_at = 0
    killed = True
    while killed:
        kill_at += 1
        assert kill_at < 500
        root = tmp_path / "copy"
        shutil.copytree(tmp_path / "template", root)
        branch = Branch(root)
        record = make()
        put_log(branch.layout, record.token)
        files = [put(branch.layout, name, b"%d" % record.token) for name in sorted(wanted)]
        killed = in_child(functools.partial(branch.recorder.record, record, files), kill_at=kill_at)
        check_any_time(branch)
        branch.recorder.record(record, files)
        check_after(branch, step)
        shutil.rmtree(root)
    assert kill_at > 10  # else the hook saw nothing


def test_killed_at_random(tmp_path: pathlib.Path) -> None:
    """Also inside of SQLite, where the hook does not look."""
    chance = random.Random(2)
    branch = Branch(tmp_path)
    killed = 0
    for token in range(1, 80):
        good = chance.random() < 0.6
        record = build(token, "success" if good else "failed")
        put_log(branch.layout, token)
        files = [put(branch.layout, f"a_{token}.deb")] if good else []
        child = os.fork()
        if child == 0:
            branch.recorder.record(record, files)
            os._exit(0)
        time.sleep(chance.random() * 0.008)
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        check_any_time(branch)
        branch.recorder.record(record, files)
        assert branch.log() == f"log of build {token}\n"
        assert branch.error() == (None if good else f"log of build {token}\n")
        assert branch.incoming() == set()
        assert names(branch.layout.packages) == {file.name for file in branch.store.package_files("hello")}
    assert len(branch.store.history(limit=1000)) == 79
    assert killed > 5


def test_killed_and_never_repeated(tmp_path: pathlib.Path) -> None:
    """The next build sets everything right."""
    branch = Branch(tmp_path)
    branch.record(build(1), put(branch.layout, "a_1.deb"))
    kill_at = 0
    killed = True
    while killed:
        kill_at += 1
        token = 2 * kill_at
        put_log(branch.layout, token)
        record = build(token, "failed")
        killed = in_child(functools.partial(branch.recorder.record, record), kill_at=kill_at)
        branch.record(build(token + 1), put(branch.layout, f"a_{token}.deb"))
        assert branch.log() == f"log of build {token + 1}\n"
        assert branch.error() is None
        assert branch.incoming() == set()
        assert names(branch.layout.packages) == {f"a_{token}.deb"}
        assert names(branch.layout.errors) == set()


def test_the_place_of_every_kind(tmp_path: pathlib.Path) -> None:
    layout = make_layout(tmp_path)
    assert {kind: _record.directory_of(layout, kind) for kind in ("package", "changes", "buildinfo")} == dict.fromkeys(
        ("package", "changes", "buildinfo"), layout.packages
    )
    assert _record.directory_of(layout, "distfile") == layout.distfiles
    assert _record.directory_of(layout, "workdir") == layout.workdirs
    assert _record.directory_of(layout, "log") == os.path.join(layout.logs, ".incoming")


def test_a_file_that_another_package_replaced_is_not_recorded(branch: Branch) -> None:
    """Two packages make one new file: whose was replaced before it was recorded does not get the other's contents."""
    mine = put(branch.layout, "shared.deb", b"mine")
    put(branch.layout, "shared.deb", b"them")  # as long as it was
    with pytest.raises(ResultsMissing, match=r"shared\.deb of hello is not there as it was fetched"):
        branch.record(build(1), mine)
    assert branch.store.last("hello") is None


def test_a_file_that_is_replaced_while_the_record_waits_is_not_recorded(branch: Branch) -> None:
    branch.record(build(1, package="other"))
    mine = put(branch.layout, "shared.deb", b"mine")
    database = sqlite3.connect(branch.layout.database, isolation_level=None, check_same_thread=False)
    database.execute("BEGIN IMMEDIATE")

    def replace() -> None:
        os.unlink(path_of(branch.layout, mine))
        put(branch.layout, "shared.deb", b"them")
        database.rollback()

    timer = threading.Timer(0.5, replace)
    timer.start()
    with contextlib.closing(database), pytest.raises(ResultsMissing):
        branch.record(build(2), mine)
    timer.join()
