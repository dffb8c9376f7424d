# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steps in jails, with keepers: real processes, on the double of a host."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import _freebsd_remains, _process
from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.module_utils._freebsd import Release
from ansible_collections.portbuild.cluster.plugins.module_utils._isolation import (
    BaseRefused,
    check_base,
    Confinement,
    Offer,
    Outcome,
    prepare_root,
    Running,
    User,
)
from ansible_collections.portbuild.cluster.plugins.module_utils._isolation_freebsd import (
    check_release,
    FreeBSDIsolation,
    Means,
    read_means,
)
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._freebsd_host import Host, make_freebsd_base
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._yard import BUILDER_ID, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not hasattr(os, "setns"), reason="the double needs Python 3.12 and Linux"),
]

BUILDER = User("builder", BUILDER_ID, BUILDER_ID, (BUILDER_ID,), "/build")
ROOT = User("root", 0, 0, (0,), "/root")


@pytest.fixture(name="host")
def _host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Host]:
    host = Host(tmp_path, monkeypatch)
    yield host
    host.close()


class Place:
    """A chroot that was claimed, with its root filled."""

    def __init__(self, scratch: pathlib.Path) -> None:
        self.scratch = scratch
        self.chroot = scratch / "chroots" / "amd64" / "15" / "hello"
        base = scratch / "bases" / "b"
        make_freebsd_base(base)
        (self.chroot / "fs").mkdir(parents=True)
        (self.chroot / "fs" / "base").symlink_to(base)
        self.root = self.chroot / "fs" / "root"
        make_freebsd_base(self.root)
        (self.chroot / "repo").mkdir()
        self.tree = scratch / "tree"
        self.tree.mkdir()
        self.offers = (
            Offer("build.sh", str(self.chroot / "build.sh")),
            Offer("repo", str(self.chroot / "repo")),
            Offer("tree", str(self.tree), "usr/ports"),
        )
        prepare_root(str(self.root), BUILDER, hosts=FreeBSDIsolation.hosts, resolv_conf=None, offers=self.offers)
        (self.root / "dev" / "null").touch()  # the double's devfs has nothing in it
        (self.root / "dev" / "null").chmod(0o666)
        (self.root / "dev" / "fd").mkdir()

    def isolation(self, means: Means | None = None) -> FreeBSDIsolation:
        """Return the isolation, prepared."""
        isolation = FreeBSDIsolation(str(self.chroot), 7, means or Means())
        isolation.prepare()
        return isolation

    def confinement(self, script: str, *, user: User = BUILDER, **more: t.Any) -> Confinement:
        """Return what runs the script."""
        (self.chroot / "build.sh").write_text(script, encoding="utf-8")
        values: dict[str, t.Any] = {
            "root": str(self.root),
            "argv": ("/bin/sh", "/portbuild/build.sh", "step"),
            "environment": {"PATH": "/bin", "HOME": user.home},
            "user": user,
            "cwd": "/build",
            "network": False,
            "offers": self.offers,
            "resources": {"RLIMIT_CORE": 0},
            **more,
        }
        return Confinement(**values)


@pytest.fixture(name="place")
def _place(tmp_path: pathlib.Path, host: Host) -> Place:
    return Place(tmp_path / "scratch")


def start(isolation: FreeBSDIsolation, confinement: Confinement) -> tuple[Running, int]:
    """Start a step and return it with the end of its output to read from."""
    read, write = os.pipe()
    try:
        return isolation.start(confinement, write), read
    finally:
        os.close(write)


def read_all(descriptor: int) -> str:
    """Read to the end, which comes when no process holds the other end."""
    with open(descriptor, encoding="utf-8") as stream:
        return stream.read()


def step(place: Place, script: str, *, means: Means | None = None, **more: t.Any) -> tuple[Outcome, str]:
    """Run a step to its end."""
    running, output = start(place.isolation(means), place.confinement(script, **more))
    running.go()
    outcome = running.wait()
    return outcome, read_all(output)


def nothing_is_left(host: Host, *, mounts: int = 0) -> None:
    """Check that no jail, process or mount is left."""
    assert host.jails == {}
    assert len(host.mounts) == mounts


# -- a step -----------------------------------------------------------------------------------------------------------


def test_a_step_runs_in_its_jail(place: Place, host: Host):
    outcome, output = step(place, "id -un; pwd; echo $HOME; ulimit -c; env | grep -c .; touch left; exit 3")
    assert (outcome.exit, outcome.signal, outcome.problem) == (3, None, "")
    assert output.splitlines()[:4] == ["builder", "/build", "/build", "0"]
    assert (place.root / "build" / "left").exists()
    nothing_is_left(host)


def test_the_commands_are_these(place: Place, host: Host):
    step(place, "true")
    root, status = place.root, os.stat(place.chroot)
    name = f"portbuild_{status.st_dev:x}_{status.st_ino:x}_7_1"
    assert host.calls("mount", "jail", "umount") == [
        ["mount", "-p"],  # clearing
        ["mount", "-t", "devfs", "-o", "ruleset=4", "devfs", f"{root}/dev"],
        ["mount", "-t", "nullfs", "-o", "ro", f"{place.chroot}/repo", f"{root}/portbuild/repo"],
        ["mount", "-t", "nullfs", "-o", "ro", f"{place.tree}", f"{root}/usr/ports"],
        [
            *("jail", "-c", f"name={name}", f"path={root}", "host.hostname=portbuild", "ip4.addr=127.0.0.1"),
            *("ip6=disable", "enforce_statfs=2", "allow.chflags=1", "osrelease=15.1-RELEASE", "osreldate=1501000"),
            "persist",
        ],
        ["jail", "-r", name],
        ["umount", "-f", f"{root}/usr/ports", f"{root}/portbuild/repo", f"{root}/dev"],
    ]
    run, kill = host.calls("jexec")
    assert run[:6] == ["jexec", "-U", "builder", name, "/usr/bin/env", "-i"]
    assert kill == ["jexec", name, "/bin/kill", "-9", "-1"]


def test_network_root_and_what_the_settings_ask_for(place: Place, host: Host):
    outcome, output = step(place, "id -u", means=Means(9, fdescfs=True, procfs=True), user=ROOT, cwd="/", network=True)
    assert (outcome.exit, output) == (0, "0\n")
    mounts = host.calls("mount")[1:4]
    assert [mount[2] for mount in mounts] == ["devfs", "fdescfs", "procfs"]
    assert "ruleset=9" in mounts[0]
    assert {"ip4=inherit", "ip6=inherit"} <= set(host.calls("jail")[0])
    assert "-U" not in host.calls("jexec")[0]


def test_the_signal_is_told(place: Place, host: Host):
    assert step(place, "kill -SEGV $$")[0].signal == signal.SIGSEGV
    nothing_is_left(host)


def test_time_and_memory_are_measured(place: Place):
    outcome, _output = step(place, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
    assert outcome.cpu_seconds > 0.01
    assert outcome.peak_memory > 1 << 20


def test_daemons_do_not_outlive_the_step(place: Place, host: Host):
    outcome, _output = step(place, "setsid sleep 4711 & sleep 0.2; exit 0")
    assert outcome.exit == 0
    nothing_is_left(host)


def test_a_step_that_ignores_everything_is_killed_at_once(place: Place, host: Host):
    running, output = start(
        place.isolation(), place.confinement("trap '' TERM INT HUP; echo up; while :; do sleep 1; done")
    )
    running.go()
    assert os.read(output, 100) == b"up\n"
    began = time.monotonic()
    running.kill()
    running.kill()
    assert running.wait().signal == signal.SIGKILL
    assert time.monotonic() - began < 5  # jail -r alone takes ten
    os.close(output)
    nothing_is_left(host)


def test_a_jail_whose_kill_was_replaced_is_emptied_from_outside(place: Place, host: Host):
    host.behave(kill_does_nothing=True)
    began = time.monotonic()
    outcome, _output = step(place, "sleep 4711 & sleep 0.2; exit 1")
    assert outcome.exit == 1
    assert time.monotonic() - began < 8
    nothing_is_left(host)


def test_a_step_that_is_killed_before_it_may_start_does_not(place: Place, host: Host):
    running, output = start(place.isolation(), place.confinement("echo started"))
    running.kill()
    assert running.wait().signal == signal.SIGKILL
    assert read_all(output) == ""
    nothing_is_left(host)


def test_memory_is_that_of_the_jail(place: Place):
    isolation = place.isolation()
    running, output = start(isolation, place.confinement("sleep 5 & echo up; wait"))
    running.go()
    os.read(output, 100)
    assert 1 << 20 < isolation.resident(running.namespace) < 1 << 28
    assert isolation.resident("") == isolation.resident("another") == 0
    running.kill()
    running.wait()
    os.close(output)


# -- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("mount", "nullfs"), ("jail", "-c"), ("jls", "")])
def test_a_world_that_cannot_be_built_is_a_problem_and_leaves_nothing(
    place: Place, host: Host, command: tuple[str, str]
):
    isolation = place.isolation()
    host.behave(fails=dict([command]))
    running, output = start(isolation, place.confinement("echo started"))
    running.go()
    outcome = running.wait()
    assert outcome.exit is None
    assert "this was made to fail" in outcome.problem
    assert read_all(output) == ""
    if command[0] != "jls":
        nothing_is_left(host)


def test_what_cannot_be_unmounted_is_a_problem(place: Place, host: Host):
    isolation = place.isolation()
    host.behave(fails={"umount": "-f"})
    running, output = start(isolation, place.confinement("true"))
    running.go()
    assert "cannot be unmounted" in running.wait().problem
    os.close(output)
    host.behave()
    isolation.finish()
    nothing_is_left(host)


@pytest.mark.parametrize("path", ["dev", "portbuild/repo", "usr/ports", "usr"])
def test_a_link_never_leads_a_mount_astray(place: Place, host: Host, tmp_path: pathlib.Path, path: str):
    """A step that ran as root may have put one there."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "ports").mkdir()
    (victim / "repo").mkdir()
    where = place.root / path
    if where.is_dir():
        where.rename(place.root / "moved")
    where.symlink_to(victim)
    outcome, _output = step(place, "true")
    assert "is a symbolic link" in outcome.problem
    assert not any(str(victim) in " ".join(call) for call in host.calls())
    nothing_is_left(host)


def test_the_build_script_is_put_there_anew_for_each_step(place: Place):
    isolation = place.isolation()
    for _round in range(2):
        running, output = start(
            isolation, place.confinement("echo ours; echo echo theirs > /portbuild/build.sh", user=ROOT)
        )
        running.go()
        running.wait()
        assert read_all(output) == "ours\n"


# -- who dies -----------------------------------------------------------------------------------------------------------


def supervise(place: Place, script: str, *, go: bool = True) -> tuple[int, int]:
    """Be a supervisor in a child that starts a step and waits; return its pid and the keeper's."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            running, output = start(place.isolation(), place.confinement(script))
            if go:
                running.go()
                os.read(output, 100)
            os.write(write, str(running.pid).encode())
            time.sleep(60)
        os._exit(0)
    os.close(write)
    with open(read, encoding="ascii") as stream:
        return pid, int(stream.read(20) if not go else _first(stream))


def _first(stream: t.TextIO) -> str:
    return os.read(stream.fileno(), 20).decode()


def gone(pid: int) -> bool:
    """Return whether the process is no more, or waits only for somebody to ask."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stream:
            return stream.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


SURVIVOR = "trap '' TERM HUP; setsid sleep 4712 & echo up; while :; do sleep 1; done"


def test_the_death_of_the_supervisor_ends_the_step(place: Place, host: Host):
    supervisor, keeper = supervise(place, SURVIVOR)
    assert len(host.jails) == 1
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    wait_until(lambda: gone(keeper), 20)
    nothing_is_left(host)


def test_asking_the_keeper_to_end_does_not_make_it_leave_anything(place: Place, host: Host):
    supervisor, keeper = supervise(place, SURVIVOR)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(keeper, number)
    time.sleep(0.2)
    assert not gone(keeper)
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    wait_until(lambda: gone(keeper), 20)
    nothing_is_left(host)


def test_the_supervisor_clears_up_after_a_keeper_that_was_killed(place: Place, host: Host):
    isolation = place.isolation()
    running, output = start(isolation, place.confinement(SURVIVOR))
    running.go()
    os.read(output, 100)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait().signal == signal.SIGKILL
    nothing_is_left(host)
    read_all(output)


def test_whoever_comes_next_clears_up_after_both(place: Place, host: Host):
    supervisor, keeper = supervise(place, SURVIVOR)
    os.kill(keeper, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    wait_until(lambda: gone(keeper))
    assert (len(host.jails), len(host.mounts)) == (1, 3)
    host.forget_calls()
    place.isolation()
    nothing_is_left(host)
    # What was mounted last first.
    assert host.calls("umount") == [
        ["umount", "-f", f"{place.root}/usr/ports", f"{place.root}/portbuild/repo", f"{place.root}/dev"]
    ]


def test_clearing_spares_the_neighbours(place: Place, host: Host):
    _supervisor, _keeper = supervise(place, SURVIVOR)
    neighbour = place.chroot.with_name("hello2")
    neighbour.mkdir()
    _freebsd_remains.clear(str(neighbour))
    assert (len(host.jails), len(host.mounts)) == (1, 3)
    jails, mounts = _freebsd_remains.find_strays(str(place.scratch), [str(place.chroot)])
    assert (jails, mounts) == ([], [])
    jails, mounts = _freebsd_remains.find_strays(str(place.scratch), [str(neighbour)])
    assert (len(jails), len(mounts)) == (1, 3)
    os.kill(_supervisor, signal.SIGKILL)
    os.waitpid(_supervisor, 0)
    wait_until(lambda: gone(_keeper), 20)


def test_a_chroot_that_was_moved_is_cleared_all_the_same(place: Place, host: Host):
    supervisor, keeper = supervise(place, SURVIVOR)
    for pid in (keeper, supervisor):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    (host.state / "mounts").unlink()  # a mount point cannot be moved; a jail does not care
    moved = place.scratch / "kept"
    place.chroot.rename(moved)
    _freebsd_remains.clear(str(moved))
    assert host.jails == {}


def test_clearing_refuses_the_host(host: Host, tmp_path: pathlib.Path):
    link = tmp_path / "link"
    link.symlink_to("/")
    for path in ("/", str(link), str(tmp_path / "missing")):
        _freebsd_remains.clear(path)
    assert host.calls() == []
    assert _freebsd_remains.find_strays("/", []) == ([], [])


def test_helpers_let_go_of_what_keepers_wait_for(place: Place, host: Host):
    """A scan of the disk that outlives its supervisor must not keep the step alive."""
    isolation = place.isolation()
    running, output = start(isolation, place.confinement("true"))
    helper = os.fork()
    if helper == 0:
        pipes = set(isolation._pipes)
        isolation.begin_child()
        closed = 0
        for descriptor in pipes:
            with contextlib.suppress(OSError):
                os.fstat(descriptor)
                closed -= 1
            closed += 1
        os._exit(0 if pipes and closed == len(pipes) else 1)
    assert os.waitpid(helper, 0)[1] == 0
    running.go()
    assert running.wait().exit == 0
    os.close(output)


# -- the release --------------------------------------------------------------------------------------------------------


def test_the_bindists_release_is_what_steps_see(place: Place):
    isolation = place.isolation()
    assert isolation.release == Release("15.1-RELEASE", 1501000)
    assert isolation.environment == {
        "UNAME_s": "FreeBSD",
        "UNAME_r": "15.1-RELEASE",
        "UNAME_v": "FreeBSD 15.1-RELEASE",
        "OSVERSION": "1501000",
    }


def test_a_bindist_newer_than_the_kernel_is_refused(place: Place, host: Host):
    base = str(place.scratch / "bases" / "b")
    for kernel in (1501000, 1600000):
        host.behave(osreldate=kernel)
        assert check_release(base).number == 1501000
    host.behave(osreldate=1500500)
    with pytest.raises(BaseRefused, match=r"15\.1-RELEASE \(1501000\), newer than this machine's kernel \(1500500\)"):
        place.isolation()
    host.behave(osreldate="")
    with pytest.raises(BaseRefused, match=r"kern\.osreldate"):
        check_release(base)


def test_a_bindist_that_does_not_say_what_it_is_is_refused(place: Place):
    (place.scratch / "bases" / "b" / "bin" / "freebsd-version").unlink()
    with pytest.raises(BaseRefused, match="does not say which release"):
        check_release(str(place.scratch / "bases" / "b"))


def test_the_check_of_a_base_is_for_freebsd(place: Place, host: Host, monkeypatch: pytest.MonkeyPatch):
    host.behave(osreldate=1300000)
    base = str(place.scratch / "bases" / "b")
    check_base(base)
    monkeypatch.setattr(_process, "die_with_parent", lambda _parent: None)
    freebsd = os.uname_result(("FreeBSD", "host", "13.0-RELEASE", "", "amd64"))
    monkeypatch.setattr(os, "uname", lambda: freebsd)
    with pytest.raises(BaseRefused):
        check_base(base)


def test_boots_are_told_apart(host: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_process, "LINUX", False)
    monkeypatch.setattr(_process, "die_with_parent", lambda _parent: None)
    for behaviour, expected in (
        ({"boot_id": "0A" * 16}, "0a" * 16),
        ({}, "boottime-1763797000"),
    ):
        host.behave(**behaviour)
        _process._freebsd_boot_id.cache_clear()
        assert _process.boot_id() == expected
    host.behave(boottime="garbage")
    _process._freebsd_boot_id.cache_clear()
    with pytest.raises(PortbuildError, match="which is no time"):
        _process.boot_id()
    _process._freebsd_boot_id.cache_clear()


def test_the_per_node_configuration_says_what_is_mounted(tmp_path: pathlib.Path):
    assert read_means(str(tmp_path)) == Means(4, fdescfs=False, procfs=False)
    (tmp_path / "portbuild.conf").write_text(
        "devfs_ruleset=7\nmount_fdescfs=True\nmount_procfs=False\n", encoding="utf-8"
    )
    assert read_means(str(tmp_path)) == Means(7, fdescfs=True, procfs=False)
    (tmp_path / "portbuild.conf").write_text("devfs_ruleset='1;reboot'\n", encoding="utf-8")
    assert read_means(str(tmp_path)).devfs_ruleset == 4
