# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks: with threads of this process, with other processes, with flock(1), and with a file that is made anew."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._lock import is_locked, Lock, LockTimeout, try_lock


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> str:
    return str(tmp_path / ".lock")


@pytest.fixture(name="shell")
def fixture_shell(path: str) -> t.Iterator[subprocess.Popen[str]]:
    """A shell that holds the lock with flock(1)."""
    Path(path).touch()
    command = ["flock", path, "sh", "-c", "echo held; read dummy"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_lock_excludes_and_is_given_back(path: str) -> None:
    with Lock(path, timeout=1) as lock:
        assert lock.fileno() >= 0
        assert is_locked(path)
        assert try_lock(path) is None
    assert not is_locked(path)
    again = try_lock(path)
    assert again is not None
    again.release()
    again.release()


def test_mode_does_not_depend_on_the_umask(path: str) -> None:
    before = os.umask(0o077)
    try:
        Lock(path, timeout=0, mode=0o664).acquire()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o664


def test_existing_mode_is_left_alone(path: str) -> None:
    Path(path).touch()
    os.chmod(path, 0o640)
    with Lock(path, timeout=0):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_shared_locks_go_together(path: str) -> None:
    with Lock(path, timeout=0, exclusive=False), Lock(path, timeout=0, exclusive=False):
        assert not is_locked(path)
        assert try_lock(path) is None


def test_looking_creates_nothing(path: str) -> None:
    assert not is_locked(path)
    with pytest.raises(FileNotFoundError):
        Lock(path, timeout=0, create=False).acquire()
    assert not os.path.exists(path)


def test_missing_directory_is_an_error(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        Lock(path + "/x/y", timeout=0).acquire()


def test_timeout_names_the_path(path: str, shell: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    with pytest.raises(LockTimeout, match=path):
        Lock(path, timeout=0.3).acquire()
    assert 0.25 < time.monotonic() - began < 2
    assert shell.poll() is None


def test_waits_for_flock_of_a_shell(path: str, shell: subprocess.Popen[str]) -> None:
    assert shell.stdin is not None
    threading.Timer(0.3, shell.stdin.close).start()
    began = time.monotonic()
    with Lock(path, timeout=10):
        assert 0.2 < time.monotonic() - began < 5


def test_lock_that_came_too_late_is_dropped(path: str, shell: subprocess.Popen[str]) -> None:
    with pytest.raises(LockTimeout):
        Lock(path, timeout=0.05).acquire()
    shell.communicate("\n")
    with Lock(path, timeout=5):
        pass
    deadline = time.monotonic() + 5
    while any(thread.name == "flock" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not is_locked(path)


def test_interrupted_wait_leaves_nothing(path: str, shell: subprocess.Popen[str]) -> None:
    def interrupt(*_unused: t.Any) -> t.NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            Lock(path, timeout=30).acquire()
    finally:
        signal.signal(signal.SIGALRM, before)
    shell.communicate("\n")
    with Lock(path, timeout=5):
        pass


def test_file_removed_and_made_anew_as_lockf_does(path: str) -> None:
    """Who waited for a file that is gone has locked nothing: it must end up with the lock on the new one."""
    old = Lock(path, timeout=0)
    old.acquire()
    got: list[int] = []

    def wait() -> None:
        with Lock(path, timeout=10):
            got.append(os.stat(path).st_ino)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.2)
    os.unlink(path)
    with Lock(path, timeout=0):  # another one, on a new file
        old.release()
        time.sleep(0.2)
        assert not got, "the waiter believed in a lock on a file that is not there"
    waiter.join(10)
    assert got == [os.stat(path).st_ino]


def test_kill_releases(path: str) -> None:
    pid = os.fork()
    if pid == 0:
        Lock(path, timeout=1).acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not is_locked(path)


def test_release_ends_it_for_a_forked_process_too(path: str) -> None:
    lock = Lock(path, timeout=1)
    lock.acquire()
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    try:
        lock.release()
        assert not is_locked(path)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_many_threads_count_right(path: str) -> None:
    total = [0]

    def add() -> None:
        for _dummy in range(20):
            with Lock(path, timeout=30):
                seen = total[0]
                time.sleep(0.0001)
                total[0] = seen + 1

    threads = [threading.Thread(target=add) for _dummy in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == [320]
