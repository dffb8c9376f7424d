# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running commands, children, background."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._process import (
    boot_id,
    check_run,
    CommandError,
    detach,
    in_child,
    process_start_time,
    run,
)


def test_input_outputs_and_status_come_through():
    done = run(["sh", "-c", "cat; echo problem >&2; exit 3"], input="text")
    assert done == (3, "text", "problem\n")


def test_death_by_signal_is_a_negative_status():
    assert run(["sh", "-c", "kill -9 $$"]).rc == -9


def test_large_input_and_output_do_not_block_each_other():
    data = b"x" * 3_000_000
    assert len(run(["cat"], input=data, limit=1 << 24).stdout) == len(data)


def test_output_beyond_the_limit_is_dropped_and_the_command_goes_on():
    done = run(["sh", "-c", "head -c 3000000 /dev/zero; echo end >&2"], limit=1000)
    assert (len(done.stdout), done.stderr, done.rc) == (1000, "end\n", 0)


def test_a_command_that_does_not_read_its_input_ends_all_the_same():
    assert run(["true"], input=b"x" * 1_000_000).rc == 0


def test_environment_and_directory(tmp_path: pathlib.Path):
    done = run(["sh", "-c", 'echo "$A"; pwd'], env={"A": "1", "PATH": os.defpath}, cwd=str(tmp_path))
    assert done.stdout.split() == ["1", str(tmp_path)]


@pytest.mark.parametrize("argv", [["/nonexistent"], ["/etc/passwd"]])
def test_what_cannot_be_started_is_named(argv: list[str]):
    with pytest.raises(CommandError, match=argv[0]):
        run(argv)


def test_a_time_limit_ends_the_command_and_its_children(tmp_path: pathlib.Path):
    pids = tmp_path / "pids"
    begin = time.monotonic()
    with pytest.raises(CommandError, match=r"within 0\.5 s"):
        run(["sh", "-c", f"sleep 60 & echo $! > {pids}; wait"], timeout=0.5)
    assert time.monotonic() - begin < 5
    child = int(pids.read_text(encoding="utf-8"))
    while process_start_time(child) is not None:  # it was killed; whoever inherited it takes its time to reap it
        assert time.monotonic() - begin < 10
        time.sleep(0.01)


def test_no_descriptor_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    for argv in (["true"], ["/nonexistent"], ["sleep", "9"]):
        with contextlib.suppress(CommandError):
            run(argv, timeout=0.2)
    assert len(os.listdir("/proc/self/fd")) == before


def test_check_run_says_what_failed():
    with pytest.raises(CommandError, match=r"Counting failed.*status 4: no sheep") as caught:
        check_run(["sh", "-c", "echo no sheep >&2; exit 4"], "Counting")
    assert caught.value.details["rc"] == 4


def test_in_child_returns_the_text_and_nothing_else_of_the_child():
    directory = os.getcwd()

    def elsewhere() -> str:
        os.chdir("/")
        return os.getcwd()

    assert in_child(elsewhere) == "/"
    assert os.getcwd() == directory
    assert in_child(str) == ""


def test_in_child_reports_errors_deaths_and_silence():
    def fail() -> str:
        raise OSError("no luck")

    def die() -> str:
        os.kill(os.getpid(), 9)
        return "survived"

    def sleep() -> str:
        time.sleep(9)
        return "woke up"

    assert in_child(fail) == "no luck"
    assert "status -9" in in_child(die)
    assert "0.2 s" in in_child(sleep, timeout=0.2)


def test_detached_work_is_in_a_session_of_its_own_and_holds_no_descriptor(tmp_path: pathlib.Path):
    told = tmp_path / "told"
    read, write = os.pipe()
    parent = os.getsid(0)

    def tell() -> None:
        (tmp_path / "new").write_text(f"{os.getsid(0)}", encoding="utf-8")
        os.rename(tmp_path / "new", told)
        time.sleep(1)

    detach(tell)
    os.close(write)
    assert os.read(read, 1) == b""  # the end of the file: nobody else has the other end
    os.close(read)
    deadline = time.monotonic() + 5
    while not told.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert int(told.read_text(encoding="utf-8")) != parent


def test_start_time_tells_processes_apart():
    assert process_start_time(os.getpid()) == process_start_time(os.getpid())
    assert process_start_time(0) is None
    assert process_start_time(1 << 30) is None


def test_a_zombie_has_no_start_time():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert process_start_time(pid) is None
    os.waitpid(pid, 0)


def test_the_name_of_a_process_may_be_anything(tmp_path: pathlib.Path):
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    pid = os.posix_spawn(str(program), [str(program), "30"], {})
    try:
        mine, its = process_start_time(os.getpid()), process_start_time(pid)
        assert mine is not None and its is not None
        assert int(its) >= int(mine)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_the_boot_is_the_same_as_before():
    assert boot_id() == boot_id() != ""


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="Linux")
def test_a_command_does_not_outlive_its_killed_caller(tmp_path: pathlib.Path):
    told = tmp_path / "pid"
    pid = os.fork()
    if pid == 0:
        run(["sh", "-c", f"echo $$ > {told}; exec sleep 60"])
        os._exit(0)
    deadline = time.monotonic() + 10
    while not (told.exists() and told.read_text(encoding="utf-8").strip()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    while process_start_time(int(told.read_text(encoding="utf-8"))) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
