# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole builds with FreeBSD's drivers, on the double of a host."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import _backends, _chroots, _remains, _supervisor
from ansible_collections.portbuild.cluster.plugins.module_utils._attach import settle, supervisor_alive
from ansible_collections.portbuild.cluster.plugins.module_utils._backends_freebsd import DRIVERS
from ansible_collections.portbuild.cluster.plugins.module_utils._files import read_json, write_atomic, write_json
from ansible_collections.portbuild.cluster.plugins.module_utils._isolation_freebsd import FreeBSDIsolation, read_means
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._freebsd_host import Host, make_freebsd_base
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._yard import BASE, QUEUE, wait_until, Yard

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not hasattr(os, "setns"), reason="the double needs Python 3.12 and Linux"),
]

PACKAGES = {"packages": {"dir": "/build/results", "kinds": {}}}


class FreeBSDYard(Yard):
    """A yard whose base says that it is FreeBSD, and whose supervisors are forks of the test."""

    def __init__(self, scratch: pathlib.Path, host: Host) -> None:
        super().__init__(scratch)
        self.host = host
        base = scratch / "bases" / BASE
        (scratch / "other").mkdir()
        make_freebsd_base(scratch / "other" / "base")
        for path in ("bin/freebsd-version", "usr/include/sys/param.h"):
            (base / path).parent.mkdir(parents=True, exist_ok=True)
            (scratch / "other" / "base" / path).rename(base / path)
        (base / "dev" / "fd").mkdir(parents=True)
        (base / "dev" / "null").touch()
        (base / "dev" / "null").chmod(0o666)

    def build(self, script: str, *, limits: dict[str, t.Any] | None = None, **more: t.Any) -> Build:
        """Claim a chroot and let a supervisor run in it."""
        job = self.job(backend=more.pop("backend", "directory"))
        values = job.request(limits=limits, **more)
        values["limits"]["cgroups"] = "off"
        write_atomic(str(job.path / "build.sh"), script, mode=0o755)
        write_json(str(job.path / "build.json"), values)
        self.store.start(job.name, queue=QUEUE, token=job.token)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os.close(read)
                os.setsid()
                _supervisor.main([str(job.name), str(job.path), str(write)])
            os._exit(0)
        os.close(write)
        with open(read, encoding="utf-8") as stream:
            assert stream.read() == "ok"
        return Build(self, job, pid)


class Build:
    """A build that runs."""

    def __init__(self, yard: FreeBSDYard, job: t.Any, pid: int) -> None:
        self.yard, self.job, self.pid = yard, job, pid

    def wait(self) -> dict[str, t.Any]:
        """Wait for its end, and return what the supervisor wrote."""
        os.waitpid(self.pid, 0)
        wait_until(lambda: not supervisor_alive(str(self.job.path)), 20)
        return read_json(str(self.job.path / "status.json"))

    def says(self, text: str) -> None:
        """Wait until the log has this."""
        wait_until(lambda: text in self.job.log, 20)


@pytest.fixture(name="yard")
def _yard(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[FreeBSDYard]:
    host = Host(tmp_path, monkeypatch)
    drivers = {driver.name: driver for driver in DRIVERS}
    for module in (_backends, _chroots, _remains, _supervisor):
        monkeypatch.setattr(module, "BACKENDS", drivers)
    monkeypatch.setattr(
        _supervisor,
        "get_isolation",
        lambda scratch, chroot, token: FreeBSDIsolation(chroot, token, read_means(scratch)),
    )
    yard = FreeBSDYard(tmp_path / "scratch", host)
    yield yard
    yard.close()
    host.close()


@pytest.mark.parametrize("backend", ["directory", "tmpfs"])
def test_a_build_ends_with_its_results_and_nothing_left(yard: FreeBSDYard, backend: str):
    script = "id -un; echo $UNAME_r $OSVERSION; mkdir results; echo contents > results/a-1.pkg; cat /etc/hosts"
    build = yard.build(script, collect=PACKAGES, backend=backend, limits={"disk": 1 << 30})
    status = build.wait()
    assert (status["reason"], status["detail"]) == ("success", "")
    assert {entry["name"]: entry["kind"] for entry in status["manifest"]} == {"a-1.pkg": "package", "hello.log": "log"}
    assert "builder\n15.1-RELEASE 1501000\n" in build.job.log
    assert "::1" not in build.job.log
    assert (yard.host.jails, yard.host.mounts) == ({}, [])


def test_a_failure_tells_its_status(yard: FreeBSDYard):
    status = yard.build("exit 3").wait()
    assert (status["reason"], status["exit"]) == ("failed", 3)


def test_the_time_limit_ends_the_whole_jail(yard: FreeBSDYard):
    build = yard.build("trap '' TERM; setsid sleep 4711 & while :; do sleep 1; done", limits={"timeout": 3})
    status = build.wait()
    assert (status["reason"], status["infrastructure"]) == ("timeout", False)
    assert status["cpu_seconds"] >= 0
    assert (yard.host.jails, yard.host.mounts) == ({}, [])


def test_the_memory_limit_is_watched_from_outside(yard: FreeBSDYard):
    build = yard.build("a=x; while :; do a=$a$a; done", limits={"memory": 100 << 20})
    status = build.wait()
    assert (status["reason"], status["infrastructure"]) == ("out_of_memory", False)
    assert status["peak_memory"] > 50 << 20


def test_a_base_that_is_too_new_blames_the_machine(yard: FreeBSDYard):
    yard.host.behave(osreldate=1400097)
    status = yard.build("true").wait()
    assert (status["reason"], status["infrastructure"]) == ("chroot", True)
    assert "newer than this machine's kernel" in status["detail"]


def test_a_supervisor_that_was_killed_leaves_nothing_and_is_told(yard: FreeBSDYard):
    build = yard.build("trap '' TERM HUP; setsid sleep 4712 & echo up; while :; do sleep 1; done")
    build.says("up\n")
    os.kill(build.pid, signal.SIGKILL)
    os.waitpid(build.pid, 0)
    # The keeper holds the lock until all is gone: nobody takes the chroot for free before.
    wait_until(lambda: not supervisor_alive(str(build.job.path)), 20)
    assert yard.host.jails == {}
    status = settle(str(build.job.path), "hello")
    assert status is not None
    assert (status["reason"], status["infrastructure"]) == ("killed", True)
    assert yard.host.mounts == []


@pytest.mark.parametrize("backend", ["directory", "tmpfs", "zfs"])
def test_cleaning_a_chroot_whose_build_runs(yard: FreeBSDYard, backend: str):
    """With zfs the double's root is empty, so that the build has failed by then."""
    (yard.host.state / "zfs").write_text('{"zroot": "", "zroot/data": ""}', encoding="utf-8")
    build = yard.build("trap '' TERM HUP; setsid sleep 4713 & echo up; while :; do sleep 1; done", backend=backend)
    if backend != "zfs":
        build.says("up\n")
    # In the other process that the module is, nobody is the supervisor's parent.
    reaper = os.fork()
    if reaper == 0:
        with contextlib.suppress(BaseException):
            yard.store.clean(build.job.name, queue=QUEUE, token=build.job.token)
            os._exit(0)
        os._exit(1)
    os.waitpid(build.pid, 0)
    assert os.waitpid(reaper, 0)[1] == 0
    assert (yard.host.jails, yard.host.mounts) == ({}, [])
    assert not build.job.path.exists()
    assert not any("chroot-" in name for name in yard.host.datasets)
