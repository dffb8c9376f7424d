# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real builds in a tiny root: what a supervisor does, and what a build cannot do."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._attach import settle, stop_supervisor
from ansible_collections.portbuild.cluster.plugins.module_utils._build import BuildMissing
from ansible_collections.portbuild.cluster.plugins.module_utils._chroots import StaleToken
from ansible_collections.portbuild.cluster.plugins.module_utils._names import BadName
from ansible_collections.portbuild.cluster.plugins.module_utils._process import process_start_time
from ansible_collections.portbuild.cluster.plugins.module_utils._request import BadRequest
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._yard import (
    processes_with,
    QUEUE,
    TinyJob,
    wait_until,
    Yard,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux namespaces"),
]

PACKAGES = {
    "packages": {
        "dir": "/build/results",
        "kinds": {".deb": "package", ".changes": "changes", ".buildinfo": "buildinfo"},
    }
}
MAKE_PACKAGE = "mkdir -p results; echo contents > results/a_1_all.deb; echo c > results/a.changes\n"


@pytest.fixture(name="yard")
def _yard(tmp_path: pathlib.Path) -> t.Iterator[Yard]:
    yard = Yard(tmp_path / "scratch")
    yield yard
    yard.close()


@pytest.fixture(name="job")
def _job(yard: Yard) -> TinyJob:
    return yard.job()


def root_step(name: str = "build", **more: t.Any) -> dict[str, t.Any]:
    """Return a step that runs as root."""
    return {"name": name, "phase": "build", "user": "root", **more}


def groups() -> list[str]:
    """Return the control groups of jobs that exist."""
    return [
        str(path)
        for pattern in ("*/portbuild/job-*", "portbuild/job-*")
        for path in pathlib.Path("/sys/fs/cgroup").glob(pattern)
    ]


def nothing_is_left(job: TinyJob) -> None:
    """Check that a build left no process, mount or control group."""
    job.wait_until_unlocked()
    assert not processes_with(str(job.path))
    assert str(job.yard.scratch) not in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    inode = f"{os.stat(job.path).st_ino:x}"
    assert not [group for group in groups() if group.endswith(inode)]


# -- a build ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["overlay", "directory", "tmpfs"])
def test_a_build_ends_with_its_results_laid_out(yard: Yard, backend: str) -> None:
    job = yard.job(backend=backend)
    status = job.build("id -un; pwd; " + MAKE_PACKAGE, collect=PACKAGES)
    assert (status["reason"], status["infrastructure"], status["state"]) == ("success", False, "ended")
    assert {entry["name"]: entry["kind"] for entry in status["manifest"]} == {
        "a_1_all.deb": "package",
        "a.changes": "changes",
        "hello.log": "log",
    }
    for entry in status["manifest"]:
        path = job.path / entry["path"]
        found = path.stat()
        assert found.st_size == entry["size"]
        assert found.st_uid == 65534  # nobody, the client_user here
    assert "builder\n/build\n" in job.log
    banner = "====================<phase 1: build (step build, user builder, network no)>===================="
    assert banner in job.log.splitlines()
    assert "=== ended: success after" in job.log
    assert [phase["name"] for phase in status["phases"]] == ["build"]
    assert job.builder().results()["status"] == status
    nothing_is_left(job)


def test_the_supervisor_is_detached_and_recognisable(job: TinyJob) -> None:
    # The module's process and its whole session are killed, as when sshd dies.
    script = "sleep 0.7; echo survived"
    starter = os.fork()
    if starter == 0:
        with contextlib.suppress(BaseException):
            os.setsid()
            job.start(script)
        os.killpg(0, signal.SIGKILL)
    os.waitpid(starter, 0)
    supervisor = job.status["pid"]
    assert processes_with(f"portbuild-supervisor {job.name}")
    assert os.getsid(supervisor) not in (os.getsid(0), starter)
    assert {os.readlink(f"/proc/{supervisor}/fd/{number}") for number in range(3)} == {"/dev/null"}
    assert job.attach()["reason"] == "success"
    assert "survived" in job.log


def test_its_mounts_are_nobody_elses(job: TinyJob) -> None:
    job.start("sleep 1")
    assert str(job.yard.scratch) not in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    supervisor = job.status["pid"]
    mounts = pathlib.Path(f"/proc/{supervisor}/mountinfo")
    wait_until(lambda: str(job.path) in mounts.read_text(encoding="utf-8"))
    assert job.attach()["reason"] == "success"


def test_a_failure_tells_the_step_and_its_status(job: TinyJob) -> None:
    status = job.build("echo no; exit 3", collect=PACKAGES)
    assert (status["reason"], status["phase"], status["step"], status["exit"]) == ("failed", "build", "build", 3)
    assert [entry["kind"] for entry in status["manifest"]] == ["log"]


def test_a_killed_step_tells_the_signal(job: TinyJob) -> None:
    status = job.build("kill -SEGV $$")
    assert (status["reason"], status["exit"], status["signal"]) == ("failed", None, signal.SIGSEGV)


def test_an_optional_step_may_fail(job: TinyJob) -> None:
    status = job.build("[ $1 != one ]", {"name": "one", "optional": True}, {"name": "two"})
    assert status["reason"] == "success"
    assert status["warnings"] == ["The step one failed with exit status 1; it is optional."]


def test_only_a_step_with_network_can_blame_the_network(yard: Yard) -> None:
    online = yard.job("online").build("exit 75", {"name": "fetch", "phase": "fetch", "network": True})
    assert (online["reason"], online["infrastructure"]) == ("fetch_infrastructure", True)
    offline = yard.job("offline").build("exit 75")
    assert (offline["reason"], offline["infrastructure"]) == ("failed", False)


def test_the_environment_is_clean(job: TinyJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "leaked")
    job.build(
        "env; umask",
        {"name": "build", "environment": {"STEP": "mine"}},
        environment={"DEB_BUILD_OPTIONS": "parallel=2"},
    )
    lines = job.log.splitlines()
    assert "LC_ALL=C.UTF-8" in lines and "TERM=dumb" in lines and "HOME=/build" in lines and "0022" in lines
    assert "DEB_BUILD_OPTIONS=parallel=2" in lines and "STEP=mine" in lines
    assert "SECRET" not in job.log and "ANSIBLE" not in job.log


def test_the_log_has_the_frame_of_the_original(job: TinyJob) -> None:
    header = [["arguments", "PLISTCHECK"], ["port directory", "/usr/ports/devel/hello"], ["maintained by", "a@b.c"]]
    steps = ({"name": "fetch", "phase": "fetch"}, {"name": "build", "phase": "build", "user": "root"})
    assert job.build("echo step $1", *steps, header=header)["reason"] == "success"
    lines = job.log.splitlines()
    assert lines[:2] == ["building for: amd64 12", "package: hello"]
    assert lines[3:7] == [f"directory: {job.path}", *(f"{name}: {value}" for name, value in header)]
    date = r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d UTC \d{4}"
    (begin,) = [number for number, line in enumerate(lines) if re.fullmatch(f"build started at {date}", line)]
    ruler = "=" * 20
    assert lines[begin + 1 : -2] == [
        f"{ruler}<phase 1: fetch (step fetch, user builder, network no)>{ruler}",
        "step fetch",
        f"{ruler}<phase 2: build (step build, user root, network no)>{ruler}",
        "step build",
    ]
    assert re.fullmatch(f"build of /usr/ports/devel/hello ended at {date}", lines[-2])
    assert lines[-1].startswith("=== ended: success after ")


@pytest.mark.parametrize("line", ["text", ["one"], ["a", "b", "c"], ["a", 1], ["a\n", "b"], ["a", "b\nc"]])
def test_a_header_is_lines_of_name_and_value(job: TinyJob, line: t.Any) -> None:
    with pytest.raises(BadRequest, match="A line of 'header'"):
        job.start("true", header=[line])


def test_the_tree_is_offered_read_only(job: TinyJob) -> None:
    tree = job.yard.scratch / "trees" / ("c" * 64)
    (tree / "devel").mkdir(parents=True)
    (tree / "devel" / "Makefile").write_text("all:\n", encoding="utf-8")
    script = "cat /usr/ports/devel/Makefile; echo x > /usr/ports/x || echo read-only"
    steps = ({"name": "build", "user": "root"}, {"name": "check", "root": "fresh", "user": "root"})
    assert job.build(script, *steps, tree="c" * 64)["reason"] == "success"
    assert (job.log.count("all:"), job.log.count("read-only")) == (2, 2)
    assert os.listdir(tree) == ["devel"]
    nothing_is_left(job)


def test_a_missing_tree_is_the_machines_fault(job: TinyJob) -> None:
    status = job.build("true", tree="d" * 64)
    assert (status["reason"], status["infrastructure"]) == ("chroot", True)


def test_a_missing_account_is_the_machines_fault(job: TinyJob) -> None:
    status = job.build("true", {"name": "build", "user": "builder"}, build_user="nosuchuser")
    assert (status["reason"], status["infrastructure"]) == ("chroot", True)
    assert "nosuchuser" in status["detail"]


# -- attaching ----------------------------------------------------------------------------------------------------


def test_a_second_call_attaches(job: TinyJob) -> None:
    first = job.start("echo run >> /build/runs; sleep 0.5; cat /build/runs")
    again = job.start("echo another script")
    assert (first["started"], again["started"], again["attached"]) == (True, False, True)
    assert again["status"]["pid"] == first["status"]["pid"]
    assert job.attach()["reason"] == "success"
    assert job.log.count("\nrun\n") == 1
    assert job.start("echo another script", wait=5)["reason"] == "success"
    assert "another script" not in job.log


def test_ten_starters_make_one_build(job: TinyJob) -> None:
    children = []
    for _number in range(10):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if job.start("echo started here; sleep 0.5", wait=20)["reason"] == "success" else 2
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10
    assert job.log.count("started here") == 1


def test_waiting_returns_soon_after_the_end(job: TinyJob) -> None:
    result = job.start("sleep 0.3", wait=30)
    assert result["state"] == "ended"
    assert time.time() - result["status"]["ended"] < 0.5
    assert job.attach(wait=0)["state"] == "ended"


def test_waiting_ends_when_it_is_to(job: TinyJob) -> None:
    began = time.monotonic()
    assert job.start("sleep 5", wait=0.3)["state"] == "running"
    assert time.monotonic() - began < 2


def test_whoever_adopts_the_job_attaches_and_an_old_token_is_refused(job: TinyJob) -> None:
    job.start("sleep 0.5; echo one build")
    old = job.token
    job.claim(old + 5)
    result = job.attach()
    assert (result["reason"], result["status"]["token"]) == ("success", old)
    with pytest.raises(StaleToken):
        job.attach(token=old)
    assert job.start("echo a second build")["attached"]


def test_there_is_nothing_to_attach_to(job: TinyJob) -> None:
    with pytest.raises(BuildMissing):
        job.attach()
    with pytest.raises(BuildMissing):
        job.builder().results()
    assert job.builder().look(None)["state"] == "absent"
    assert job.builder().look(job.request())["changed"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": []},
        {"schema": 7},
        {"token": 4711},
        {"base": "0" * 64},
        {"steps": [{"name": "../x"}]},
        {"steps": [{"name": "a", "user": "mallory"}]},
        {"limits": {"timeout": -1}},
        {"limits": {"timeout": "soon"}},
        {"limits": 3},
        {"environment": {"A": 3}},
        {"inputs": [{"name": "../../etc/passwd", "sha256": "0" * 64}]},
        {"inputs": [{"name": "x", "sha256": "../../../etc"}]},
        {"repo_index": {"../Packages": ""}},
        {"collect": {"packages": {"dir": "/build/../../etc"}}},
        {"collect": {"everything": {"dir": "/"}}},
        {"package": "another"},
        {"arch": "../.."},
    ],
)
def test_a_bad_request_is_refused_before_anything_is_done(job: TinyJob, wrong: dict[str, t.Any]) -> None:
    with pytest.raises((BadRequest, BadName)):
        job.builder().run({**job.request(), **wrong}, "true", 0)
    assert not (job.path / "status.json").exists()
    assert not (job.path / "build.json").exists()


# -- what the controller brings -----------------------------------------------------------------------------------


def test_inputs_are_asked_for_verified_and_offered(job: TinyJob) -> None:
    digest, part = job.send(b"source\n")
    content = part.read_bytes()
    part.unlink()
    inputs = [{"name": "hello.tar", "sha256": digest, "size": len(content), "place": "inputs"}]
    script = "cat /portbuild/inputs/hello.tar; echo x > /portbuild/inputs/hello.tar || echo read-only"
    first = job.start(script, inputs=inputs)
    assert (first["state"], [need["sha256"] for need in first["needs"]]) == ("waiting", [digest])
    assert first["status"]["state"] == "waiting"
    part.write_bytes(b"forged\n")
    second = job.attach(wait=0)
    assert second["state"] == "waiting" and "expected" in second["problems"][0]
    assert not part.exists()
    part.write_bytes(content)
    result = job.attach()
    assert (result["reason"], result["started"]) == ("success", True)
    assert "source\n" in job.log and "read-only" in job.log
    cached = job.yard.scratch / "cache" / "inputs" / digest
    assert cached.read_bytes() == content and cached.stat().st_mode & 0o777 == 0o444


def test_what_two_jobs_were_sent_is_kept_once(yard: Yard) -> None:
    first, second = yard.job("first"), yard.job("second")
    (digest, one), (_digest, two) = first.send(b"source\n"), second.send(b"source\n")
    inputs = [{"name": "x", "sha256": digest}]
    assert first.build("true", inputs=inputs)["reason"] == second.build("true", inputs=inputs)["reason"] == "success"
    assert not one.exists() and not two.exists()


def test_an_incoming_file_must_be_plain(job: TinyJob) -> None:
    digest, part = job.send(b"source\n")
    os.link(part, part.with_name("another"))
    with pytest.raises(BadRequest):
        job.start("true", inputs=[{"name": "x", "sha256": digest}])


def test_needs_of_a_step_with_network_are_waited_for(job: TinyJob) -> None:
    digest, part = job.send(b"our package\n")
    part.rename(part.with_name("later"))
    script = f"""case $1 in
        plan) echo "ours.deb {digest}" > /portbuild/out/needs ;;
        build) cat /portbuild/repo/ours.deb /portbuild/repo/Packages ;;
        esac"""
    steps = ({"name": "plan", "phase": "depends", "network": True, "user": "root"}, {"name": "build"})
    first = job.start(
        script, *steps, wait=20, repo_index={"Packages": "the index\n"}, limits={"timeout": 1, "waiting": 20}
    )
    assert first["state"] == "waiting"
    assert first["needs"] == [{"name": "ours.deb", "sha256": digest}]
    time.sleep(1.2)  # waiting does not count against the build's limit
    part.with_name("later").rename(part)
    assert job.attach()["reason"] == "success"
    assert "our package\nthe index\n" in job.log


def test_needs_that_nobody_brings_end_the_build(job: TinyJob) -> None:
    script = f"echo 'ours.deb {'0' * 64}' > /portbuild/out/needs"
    job.start(script, {"name": "plan", "network": True}, limits={"waiting": 0.5})
    wait_until(lambda: job.status["state"] == "ended")
    assert (job.status["reason"], job.status["infrastructure"]) == ("fetch_infrastructure", True)


def test_replies_of_steps_without_network_do_not_count(job: TinyJob) -> None:
    script = f"echo 'x.deb {'0' * 64}' > /portbuild/out/needs; cp /portbuild/out/needs /portbuild/out/archives.list"
    assert job.build(script, {"name": "a"}, {"name": "b"})["reason"] == "success"


def test_verified_archives_are_kept_and_offered(job: TinyJob) -> None:
    good, bad = b"archive\n", b"other\n"
    import hashlib

    sums = [hashlib.sha256(data).hexdigest() for data in (good, bad)]
    script = f"""case $1 in
        download)
            mkdir /portbuild/out/archives; echo archive > /portbuild/out/archives/a.deb
            echo forged > /build/b.deb; ln -s /etc/shadow /build/c.deb
            printf 'a.deb {sums[0]}\\n/build/b.deb {sums[1]}\\n/build/c.deb {"0" * 64}\\n' > /portbuild/out/archives.list ;;
        build) cat /portbuild/archives/*; echo x > /portbuild/archives/x || echo read-only ;;
        esac"""
    status = job.build(script, {"name": "download", "network": True}, {"name": "build"})
    assert status["reason"] == "success"
    assert [path.name for path in (job.yard.scratch / "cache" / "archives").iterdir()] == [sums[0]]
    assert "archive\n" in job.log and "read-only" in job.log
    assert len(status["warnings"]) == 2


# -- fresh roots --------------------------------------------------------------------------------------------------

CHECK = {"phase": "check", "user": "root", "root": "fresh", "each": "*.deb", "group": "check"}


@pytest.mark.parametrize("backend", ["overlay", "directory", "tmpfs"])
def test_checks_run_once_per_package_in_a_fresh_root(yard: Yard, backend: str) -> None:
    script = """case $1 in
        build) mkdir results; echo 1 > results/one.deb; echo 2 > results/two.deb; echo c > results/x.changes; touch /build/mark ;;
        first) ls /mark /build/mark; touch /mark; cat /portbuild/staged/$2 ;;
        second) ls /mark; printf 'extra\\t/left over\\nsetuid\\t/x\\nnonsense\\n' > /portbuild/out/leftovers ;;
        package) cd /portbuild/staged; echo *; ls /build/mark ;;
        esac; true"""
    steps = (
        {"name": "build", "phase": "build"},
        {**CHECK, "name": "first"},
        {**CHECK, "name": "second"},
        {"name": "package", "phase": "package"},
    )
    job = yard.job(backend=backend)
    status = job.build(script, *steps, collect=PACKAGES)
    assert status["reason"] == "success", status
    assert job.log.count("cannot access '/mark'") == 2
    assert job.log.count("cannot access '/build/mark'") == 2
    assert "one.deb two.deb x.changes\n" in job.log
    assert status["leftovers"] == [
        {"item": item, "kind": kind, "path": path}
        for item in ("one.deb", "two.deb")
        for kind, path in (("extra", "/left over"), ("setuid", "/x"))
    ]


def test_a_wrong_packing_list_fails_the_build_only_when_asked_to(yard: Yard) -> None:
    script = """[ $1 = build ] && { mkdir results; echo 1 > results/one.deb; } || printf 'extra\\t/x\\n' > /portbuild/out/leftovers"""
    steps = ({"name": "build", "phase": "build"}, {**CHECK, "name": "check"})
    status = yard.job("strict").build(script, *steps, collect=PACKAGES, plistcheck=True)
    assert (status["reason"], status["phase"]) == ("failed", "check")
    assert [entry["kind"] for entry in status["manifest"]] == ["log"]
    assert yard.job("lenient").build(script, *steps, collect=PACKAGES)["reason"] == "success"


def test_a_failed_check_fails_the_build(job: TinyJob) -> None:
    script = "[ $1 = build ] && { mkdir results; echo 1 > results/one.deb; } || exit 1"
    status = job.build(script, {"name": "build", "phase": "build"}, {**CHECK, "name": "check"}, collect=PACKAGES)
    assert (status["reason"], status["phase"]) == ("failed", "check")


# -- limits -------------------------------------------------------------------------------------------------------

DAEMONS = """
trap '' TERM INT HUP
( trap '' TERM INT HUP; setsid sh -c 'trap "" TERM; while :; do sleep 1; done' & )
sh -c 'trap "" TERM; while :; do sleep 1; done' &
"""


def test_daemons_end_with_their_step(job: TinyJob) -> None:
    status = job.build(DAEMONS + "echo done", {"name": "build"}, {"name": "after"})
    assert status["reason"] == "success" and status["seconds"] < 5
    nothing_is_left(job)


def test_total_limit(job: TinyJob) -> None:
    status = job.build(DAEMONS + "while :; do echo tick; sleep 0.2; done", limits={"timeout": 1.5})
    assert (status["reason"], status["infrastructure"]) == ("timeout", False)
    assert 1.4 < status["seconds"] < 4
    nothing_is_left(job)


def test_silence_limit(job: TinyJob) -> None:
    status = job.build(DAEMONS + "echo tick; sleep 0.7; echo tock; sleep 60", limits={"silence": 1.2})
    assert status["reason"] == "silence"
    assert 1.8 < status["seconds"] < 5
    assert "tock" in job.log
    nothing_is_left(job)


def test_log_limit(job: TinyJob) -> None:
    status = job.build("while :; do echo yes yes yes yes yes yes; done", limits={"log": 100_000})
    assert status["reason"] == "log_size"
    assert 100_000 <= (job.path / "log").stat().st_size < 101_000
    assert "=== ended: log_size" in job.log
    nothing_is_left(job)


@pytest.mark.parametrize("cgroups", ["auto", "off"])
def test_memory_limit(job: TinyJob, cgroups: str) -> None:
    # The eater is one process of several, and its parent would hide how it died.
    script = "echo eating; head -c 600M /dev/zero | tail -n 1 | cat > /dev/null; sleep 20; true"
    status = job.build(script, limits={"memory": 100 << 20, "cgroups": cgroups, "timeout": 30})
    assert (status["reason"], status["infrastructure"]) == ("out_of_memory", False), status
    nothing_is_left(job)


def test_a_build_within_its_memory_succeeds(job: TinyJob) -> None:
    status = job.build("dd if=/dev/zero bs=50M count=1 of=/build/file", limits={"memory": 200 << 20})
    assert status["reason"] == "success"
    assert status["peak_memory"] > 40 << 20


@pytest.mark.parametrize("backend", ["overlay", "directory", "tmpfs"])
def test_disk_limit(yard: Yard, backend: str) -> None:
    job = yard.job(backend=backend)
    script = "i=0; while [ $i -lt 60 ]; do dd if=/dev/zero bs=10M count=1 of=f$i 2>/dev/null; i=$((i+1)); sleep 0.05; done; sleep 20"
    status = job.build(script, limits={"disk": 60 << 20, "timeout": 30})
    assert (status["reason"], status["infrastructure"]) == ("disk_full", False), status
    assert status["seconds"] < 15
    nothing_is_left(job)


def test_a_neighbour_filling_the_disk_is_not_the_jobs_fault(job: TinyJob) -> None:
    neighbour = job.yard.scratch / "neighbour"
    job.start("sleep 2.5", limits={"disk": 30 << 20})
    neighbour.write_bytes(b"x" * (100 << 20))
    subprocess.run(["sync", "-f", str(neighbour)], check=True, timeout=60)
    assert job.attach()["reason"] == "success"


def test_a_full_machine_is_not_the_jobs_fault(job: TinyJob) -> None:
    free = os.statvfs(job.path)
    status = job.build("sleep 20", limits={"min_free": free.f_bavail * free.f_frsize + (1 << 40)})
    assert (status["reason"], status["infrastructure"]) == ("machine_disk_full", True)


@pytest.mark.parametrize("cgroups", ["auto", "off"])
def test_the_number_of_processes_is_limited(job: TinyJob, cgroups: str) -> None:
    script = "i=0; while [ $i -lt 100 ]; do sleep 3 & i=$((i+1)); done; echo all 100 started"
    status = job.build(script, limits={"processes": 30, "cgroups": cgroups})
    assert "all 100 started" not in job.log
    assert status["reason"] == "failed"
    if status["limits"] != "none":
        assert "limit of 30 processes" in status["warnings"][0]


def test_no_core_dumps(job: TinyJob) -> None:
    job.build("ulimit -c; ulimit -Hc")
    assert "\n0\n0\n" in job.log


# -- stopping and dying -------------------------------------------------------------------------------------------


def test_stopping(job: TinyJob) -> None:
    job.start(DAEMONS + "sleep 60", limits={"memory": 100 << 20})
    began = time.monotonic()
    assert stop_supervisor(str(job.path), 10)
    assert time.monotonic() - began < 3
    assert (job.status["reason"], job.status["state"], job.status["infrastructure"]) == ("killed", "ended", True)
    nothing_is_left(job)
    assert not stop_supervisor(str(job.path), 1)
    assert [entry["kind"] for entry in job.status["manifest"]] == ["log"]


def test_stopping_a_supervisor_that_does_not_answer(job: TinyJob) -> None:
    job.start(DAEMONS + "sleep 60", limits={"memory": 100 << 20})
    os.kill(job.status["pid"], signal.SIGSTOP)
    assert stop_supervisor(str(job.path), 0.5)
    nothing_is_left(job)
    assert job.attach()["reason"] == "killed"


def test_a_killed_supervisor_takes_everything_along(job: TinyJob) -> None:
    job.start(DAEMONS + "echo begun; sleep 60", limits={"memory": 100 << 20})
    wait_until(lambda: "begun" in job.log)
    status = job.status
    os.kill(status["pid"], signal.SIGKILL)
    result = job.attach(wait=10)
    assert (result["state"], result["reason"], result["infrastructure"]) == ("ended", "killed", True)
    assert process_start_time(status["step_pid"]) != status["step_start"]
    nothing_is_left(job)
    assert [entry["name"] for entry in result["status"]["manifest"]] == ["hello.log"]
    assert job.start("echo again")["attached"]  # never a second build in the same chroot


def test_a_reboot_is_recognised(job: TinyJob) -> None:
    job.start("sleep 60")
    os.kill(job.status["pid"], signal.SIGKILL)
    job.wait_until_unlocked()
    text = (job.path / "status.json").read_text(encoding="utf-8").replace(job.status["boot_id"], "another-boot")
    (job.path / "status.json").write_text(text, encoding="utf-8")
    status = settle(str(job.path), "hello")
    assert status is not None and (status["reason"], status["infrastructure"]) == ("lost", True)


def test_a_pid_that_was_given_again_is_not_killed(job: TinyJob) -> None:
    """The status of a dead supervisor names the pid of an innocent process."""
    job.start("sleep 60")
    os.kill(job.status["pid"], signal.SIGKILL)
    job.wait_until_unlocked()
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        text = (job.path / "status.json").read_text(encoding="utf-8")
        text = text.replace(f'"pid": {job.status["pid"]}', f'"pid": {innocent.pid}')
        (job.path / "status.json").write_text(text.replace('"step_pid": ', '"step_pid": 0, "was": '), encoding="utf-8")
        stop_supervisor(str(job.path), 0.5)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_the_store_cleans_a_running_build(job: TinyJob) -> None:
    job.start(DAEMONS + "sleep 60", limits={"memory": 100 << 20})
    job.yard.store.clean(job.name, queue=QUEUE, token=job.token)
    assert not job.path.exists()
    wait_until(lambda: not processes_with(str(job.path)))


# -- hostile builds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plant", "complaint"),
    [
        ("ln -s /etc/shadow a.deb", "a symbolic link"),
        ("ln -s ../../../../../../etc/shadow a.deb", "a symbolic link"),
        ("echo x > b.deb; ln b.deb a.deb", "2 links"),
        ("mkfifo a.deb", "a FIFO"),
        ("mkdir a.deb", "a directory"),
        ("echo x > -rf", "malformed"),
        ("echo x > 'a b.deb'", "malformed"),
        ("echo x > 'a\nb.deb'", "malformed"),
        ("echo x > ..deb", "malformed"),
        ("cd ..; rmdir results; ln -s /etc results", "a symbolic link"),
        ("cd ..; rmdir results; echo x > results", "a regular file"),
        ("cd ..; rmdir results; mkfifo results", "a FIFO"),
        ("echo x > a.changes", "made no package"),
        ("echo x > images.tar.gz", "made no package"),
        ("echo x > 'a_1%3a1_all.deb'", "carries an epoch"),
        ("dd if=/dev/zero of=a.deb bs=1M count=1 seek=3000 2>/dev/null", "larger than"),
        ("true", "made no package"),
    ],
)
def test_planted_results(job: TinyJob, plant: str, complaint: str) -> None:
    status = job.build(f"mkdir results; cd results; {plant}", collect=PACKAGES, limits={"results": 10 << 20})
    assert (status["reason"], status["infrastructure"]) == ("results", False), status
    assert complaint in status["detail"]
    assert [entry["kind"] for entry in status["manifest"]] == ["log"]
    nothing_is_left(job)


def test_what_is_no_package_belongs_to_the_set(job: TinyJob) -> None:
    status = job.build("mkdir results; cd results; echo 1 > a.deb; echo 2 > a-images_1_amd64.tar.gz", collect=PACKAGES)
    assert status["reason"] == "success"
    kinds = {entry["name"]: entry["kind"] for entry in status["manifest"]}
    assert (kinds["a.deb"], kinds["a-images_1_amd64.tar.gz"]) == ("package", "extra")


def test_no_package_makes_the_status_unreadable(job: TinyJob) -> None:
    bears = "\N{BEAR FACE}" * 200  # twelve bytes each in JSON
    line = f"i=0; while [ $i -lt 4000 ]; do printf 'extra\\t/%s\\n' $i{bears}; i=$((i + 1)); done"
    script = (
        f"if [ $1 = build ]; then mkdir results; echo 1 > results/one.deb; else {line}; fi > /portbuild/out/leftovers"
    )
    status = job.build(script, {"name": "build", "phase": "build"}, {**CHECK, "name": "check"}, collect=PACKAGES)
    assert status["reason"] == "success"
    assert 100 < len(status["leftovers"]) < 2000
    assert any("There are more leftovers" in warning for warning in status["warnings"])
    assert (job.path / "status.json").stat().st_size < 4 << 20


def test_a_root_step_cannot_plant_the_hosts_files_either(job: TinyJob) -> None:
    script = "rm -rf /build; ln -s / /build; true"
    status = job.build(script, root_step(), collect={"packages": {"dir": "/build/etc"}})
    assert status["reason"] == "results" and "a symbolic link" in status["detail"]


def test_a_step_cannot_lead_the_next_ones_mounts_astray(job: TinyJob) -> None:
    script = "rm -rf /dev 2>/dev/null; umount /dev 2>/dev/null; mv /etc /etc.old && ln -s /portbuild/out /etc; rm -rf /tmp; ln -s / /tmp"
    status = job.build(script, root_step(), {"name": "after", "phase": "package"})
    assert status["reason"] in ("success", "failed")
    nothing_is_left(job)


def test_set_uid_bits_do_not_come_along(job: TinyJob) -> None:
    status = job.build("mkdir results; cp /bin/id results/a.deb; chmod 6777 results/a.deb", collect=PACKAGES)
    assert status["reason"] == "success"
    assert (job.path / "results/package/a.deb").stat().st_mode & 0o7777 == 0o644


def test_a_hostile_work_directory(job: TinyJob) -> None:
    script = "mkdir work; cd work; ln -s /etc/shadow link; mkfifo fifo; echo found > file; ln -s / root; exit 1"
    status = job.build(script, keep_workdir="failed", collect={"workdir": {"dir": "/build/work"}})
    kept = [entry for entry in status["manifest"] if entry["kind"] == "workdir"]
    assert [entry["name"] for entry in kept] == ["hello.workdir.tar.gz"]
    listing = subprocess.run(
        ["tar", "-tvzf", str(job.path / kept[0]["path"])], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    assert "work/link -> /etc/shadow" in listing and "work/file" in listing
    assert len(listing.splitlines()) == 5


def test_distfiles_are_taken_before_the_build_can_touch_them(job: TinyJob) -> None:
    script = "mkdir -p distfiles; echo $1 > distfiles/source.tar; exit $2"
    steps = ({"name": "fetch", "phase": "fetch"}, {"name": "build", "phase": "build"})
    status = job.build(
        script.replace("exit $2", "[ $1 = fetch ]"),
        *steps,
        want_distfiles=True,
        collect={"distfiles": {"dir": "/build/distfiles"}},
    )
    assert status["reason"] == "failed"
    (entry,) = [entry for entry in status["manifest"] if entry["kind"] == "distfile"]
    assert (job.path / entry["path"]).read_text() == "fetch\n"


@pytest.mark.parametrize("user", ["root", "builder"])
def test_what_a_build_cannot_do(job: TinyJob, user: str, tmp_path: pathlib.Path) -> None:
    tries = {
        "mknod": "mknod /tmp/disk b 8 0",
        "mount": "mount -t tmpfs none /tmp",
        "remount": "mount -o remount,rw,bind /portbuild/repo",
        "umount": "umount /proc/sys",
        "proc-sys": "echo x > /proc/sys/kernel/core_pattern",
        "proc-sys-rename": "echo x > /proc/sys/kernel/hostname",
        "sysrq": "[ -e /proc/sysrq-trigger ] && [ ! -c /proc/sysrq-trigger ]",
        "kcore": "head -c 1 /proc/kcore | grep -q .",
        "repo": "touch /portbuild/repo/x",
        "inputs": "touch /portbuild/inputs/x",
        "archives": "touch /portbuild/archives/x",
        "staged": "touch /portbuild/staged/x",
        "script": "echo >> /portbuild/build.sh",
        "portbuild": "mkdir /portbuild/new",
        "replace": "mv /portbuild /portbuild.old",
        "init": "readlink /proc/1/root",
        "init-fd": "ls /proc/1/fd/0",
        "init-kill": "kill -9 1; kill -0 1 && false",
        "host-process": f"ls -d /proc/{os.getpid()}",
        "host-sys": "ls /sys/kernel",
        "host-files": f"ls {tmp_path}",
        "chroot-escape": f"ls /proc/1/root{tmp_path}",
        "hostname": "hostname changed",
        "tty": "echo x > /dev/tty",
        "raw-memory": "ls /dev/mem",
        "oom": "echo -1000 > /proc/self/oom_score_adj",
    }
    script = "\n".join(
        f"if ({command}) 2>/dev/null; then echo 'GOT {name}'; else echo 'refused {name}'; fi"
        for name, command in tries.items()
    )
    status = job.build(script, {"name": "build", "user": user})
    assert status["reason"] == "success", job.log
    got = [line for line in job.log.splitlines() if line.startswith("GOT")]
    assert got == []
    assert job.log.count("refused ") == len(tries)


def test_what_a_build_sees(job: TinyJob) -> None:
    script = """
        grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status
        hostname; ls /dev; echo count $(ls -d /proc/[0-9]* | wc -l 2>/dev/null || ls -d /proc/[0-9]* | grep -c .)
        echo out > /dev/stdout; echo err > /dev/stderr; echo shm > /dev/shm/x && cat /dev/shm/x
        cat /etc/hosts; grep -c ' / ' /proc/self/mountinfo; echo x > /portbuild/out/reply
    """
    assert job.build(script)["reason"] == "success"
    lines = job.log.splitlines()
    assert {"out", "err", "shm", "portbuild", "127.0.0.1\tlocalhost portbuild"} <= set(lines)
    values = dict(line.split(":\t") for line in lines if line.startswith(("Cap", "NoNew")))
    assert values["NoNewPrivs"] == "1"
    assert {int(values[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    devices = lines[lines.index("portbuild") + 1 :]
    assert (
        devices[:14] == "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero".split() + devices[13:14]
    )


def test_only_loopback_without_network(job: TinyJob, yard: Yard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"""
            grep -c : /proc/net/dev; grep -c 127.0.0.1 /proc/net/fib_trie
            bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' && echo CONNECTED || echo alone
        """
        assert job.build(script)["reason"] == "success"
        online = yard.job("online")
        assert online.build(script, {"name": "fetch", "network": True})["reason"] == "success"
    assert "alone" in job.log and "CONNECTED" not in job.log
    assert "CONNECTED" in online.log
    lines = job.log.splitlines()
    begin = next(number for number, line in enumerate(lines) if "<phase " in line)
    assert lines[begin + 1] == "1"  # no interface but lo,
    assert int(lines[begin + 2]) > 0  # and lo is up


# -- overhead -----------------------------------------------------------------------------------------------------


def test_an_empty_build_costs_little(yard: Yard) -> None:
    yard.job("warm").build("true")
    job = yard.job()
    began = time.monotonic()
    job.start("true", wait=20)
    assert time.monotonic() - began < 2  # 0.15 s on an idle machine
