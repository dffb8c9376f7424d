# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machines that cannot be reached, for a while or for good: builds are not lost, and dispatches go elsewhere."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, Running
from ansible_collections.portbuild.cluster.tests.integration_cluster._moments import (
    Case,
    case_of,
    said,
    WAIT_TO_BE_TOLD,
)

#: Nobody comes back: how long that is waited for, and how often it is looked.
IMPATIENT = {"reconnect_timeout": 5, "poll_interval": 2}
PATIENT = {"reconnect_timeout": 300, "poll_interval": 2}
UNREACHABLE = "Machine client1 cannot be reached"


@pytest.fixture
def case(idle: Farm, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> t.Iterator[Case]:
    """A package named after the test."""
    # pytest goes on after the yield, whatever happens: pylint: disable-next=contextmanager-generator-missing-cleanup
    with case_of(idle, request.node.name, tmp_path) as case:
        yield case


@pytest.fixture
def client(case: Case) -> Client:
    """The machine that is chosen first."""
    return case.farm.cluster["client1"]


@pytest.fixture
def own_ssh(case: Case) -> t.Iterator[list[str]]:
    """Return arguments that give a dispatch ssh connections of its own: the first one decides for all that share it."""
    sockets = case.farm.cluster.control_path_dir / "own"
    sockets.mkdir(mode=0o700)
    yield ["-e", f"ansible_control_path_dir={sockets}", "-e", "ansible_timeout=3"]
    for socket in sockets.iterdir():
        subprocess.run(
            ["ssh", "-F", "/dev/null", "-O", "exit", "-o", f"ControlPath={socket}", "x"],
            capture_output=True,
            check=False,
        )
    shutil.rmtree(sockets)


def alive(interval: int, count: int) -> list[str]:
    """Return the arguments that make ssh ask a silent machine whether it is alive."""
    return ["-e", f"ansible_ssh_extra_args='-o ServerAliveInterval={interval} -o ServerAliveCountMax={count}'"]


def attempts(case: Case) -> list[tuple[str, str, bool]]:
    """Return machine, reason and whose fault it was of the recorded builds."""
    builds = case.farm.builds(case.package)
    return [(build["machine"], build["reason"], bool(build["infrastructure"])) for build in builds]


def held_lease(case: Case) -> list[str]:
    return [f"held/client1:{case.farm.branch}:{case.package}"]


# -- ssh ---------------------------------------------------------------------------------------------------------------


def test_ssh_is_cut_during_the_build(case: Case, client: Client) -> None:
    case.waiting_source()
    running = case.start(**PATIENT)
    before = case.wait_until_building(client)
    client.kill_sshd()
    case.wait_for_output(running, UNREACHABLE)
    assert case.status(client)["state"] == "running"
    client.start_sshd()
    case.let_go(client)
    ended = running.end().ok()
    assert said(ended.output, f"{case.package} 1.0 was built on client1")
    assert "rescued=0" in ended.output
    assert case.supervisors() == [f"client1: {before['pid']} {before['pid_start']} {before['token']}"]
    case.assert_built_once()
    case.assert_nothing_lost()


def test_the_build_ends_while_ssh_is_cut(case: Case, client: Client) -> None:
    case.waiting_source()
    running = case.start(**PATIENT)
    case.wait_until_building(client)
    client.kill_sshd()
    case.let_go(client)
    case.wait_until_ended(client)
    case.wait_for_output(running, UNREACHABLE)
    client.start_sshd()
    running.end().ok()
    case.assert_built_once()
    case.assert_nothing_lost()


def test_ssh_is_cut_while_results_come_home(case: Case, client: Client) -> None:
    case.source(build=WAIT_TO_BE_TOLD, result=64)
    running = case.start(**PATIENT)
    case.let_go(client)
    with case.transfer_stopped(running, case.farm.packages / ".incoming"):
        client.kill_sshd()
    case.wait_for_output(running, UNREACHABLE)
    client.start_sshd()
    running.end().ok()
    case.assert_built_once()
    case.assert_nothing_lost()


def test_there_is_no_ssh_from_the_start(case: Case, client: Client) -> None:
    case.source()
    client.kill_sshd()
    ended = case.dispatch(**IMPATIENT).ok()
    assert said(ended.output, UNREACHABLE)
    assert said(ended.output, f"{case.package} 1.0 was built on client2")
    case.assert_built_once()
    client.start_sshd()
    settle_what_was_lost(case)


# -- the machine -------------------------------------------------------------------------------------------------------


def settle_what_was_lost(case: Case) -> None:
    """The dispatch could not see what it left on client1; cleaning up does."""
    assert case.farm.leases() == held_lease(case)
    assert case.farm.counters()["client1"] == 0
    case.farm.play("cleanup").ok()
    case.assert_nothing_lost()


def lose_the_machine(case: Case, client: Client) -> Running:
    """Start a dispatch, and cut the power of the machine that it builds on."""
    case.waiting_source()
    running = case.start(**IMPATIENT)
    case.wait_until_building(client)
    client.kill()
    case.let_go(case.farm.cluster["client2"])
    return running


def test_the_machine_is_gone_for_good(case: Case, client: Client) -> None:
    ended = lose_the_machine(case, client).end().ok()
    assert said(ended.output, UNREACHABLE)
    assert said(ended.output, f"{case.package} was not built on client1")
    assert said(ended.output, "left as lost")
    assert said(ended.output, f"{case.package} 1.0 was built on client2")
    assert attempts(case) == [("client2", "success", False)]
    assert not case.farm.failed(case.package)
    client.boot()
    case.count_on(client)
    assert case.farm.chroots(client) != []  # of before
    settle_what_was_lost(case)


def test_the_next_dispatch_copes_with_what_a_lost_machine_has(case: Case, client: Client) -> None:
    lose_the_machine(case, client).end().ok()
    client.boot()
    case.count_on(client)
    again = case.start()
    case.let_go(client)
    ended = again.end().ok()
    assert said(ended.output, f"{case.package} 1.0 was built on client1")
    assert attempts(case) == [("client2", "success", False), ("client1", "success", False)]
    case.assert_nothing_lost()


def test_the_machine_restarts_during_the_build(case: Case, client: Client) -> None:
    case.waiting_source()
    running = case.start(**PATIENT)
    case.wait_until_building(client)
    client.kill()
    case.wait_for_output(running, UNREACHABLE)
    client.boot()
    case.count_on(client)
    case.let_go(case.farm.cluster["client2"])
    ended = running.end().ok()
    assert said(ended.output, f"{case.package} 1.0 was built on client2")
    assert attempts(case) == [("client1", "lost", True), ("client2", "success", False)]
    case.assert_nothing_lost()


def test_the_machine_restarts_while_results_come_home(case: Case, client: Client) -> None:
    case.source(build=WAIT_TO_BE_TOLD, result=64)
    running = case.start(**PATIENT)
    case.let_go(client)
    with case.transfer_stopped(running, case.farm.packages / ".incoming"):
        client.kill()
    case.wait_for_output(running, UNREACHABLE)
    client.boot()
    case.count_on(client)
    ended = running.end().ok()
    assert said(ended.output, f"{case.package} 1.0 was built on client1")
    case.assert_built_once()
    case.assert_nothing_lost()


# -- frozen ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def frozen(client: Client) -> t.Iterator[None]:
    client.freeze()
    try:
        yield
    finally:
        client.thaw()


def test_the_machine_freezes_for_a_while(case: Case, client: Client, own_ssh: list[str]) -> None:
    case.waiting_source()
    running = case.start(*own_ssh, *alive(1, 3), **PATIENT)
    case.wait_until_building(client)
    with frozen(client):
        case.wait_for_output(running, UNREACHABLE)
    case.let_go(client)
    ended = running.end().ok()
    assert said(ended.output, f"{case.package} 1.0 was built on client1")
    case.assert_built_once()
    case.assert_nothing_lost()


def test_the_machine_freezes_for_good(case: Case, client: Client, own_ssh: list[str]) -> None:
    case.waiting_source()
    running = case.start(*own_ssh, *alive(1, 3), **IMPATIENT)
    case.wait_until_building(client)
    with frozen(client):
        case.let_go(case.farm.cluster["client2"])
        ended = running.end().ok()
    assert said(ended.output, UNREACHABLE)
    assert said(ended.output, f"{case.package} 1.0 was built on client2")
    assert attempts(case) == [("client2", "success", False)]
    assert case.farm.supervisors(client) != []  # it woke up, and builds for nobody
    settle_what_was_lost(case)


@pytest.mark.slow
def test_a_frozen_machine_is_noticed_without_the_help_of_ssh(case: Case, client: Client, own_ssh: list[str]) -> None:
    """The poll has an end of its own, whatever the options of ssh."""
    case.waiting_source()
    running = case.start(*own_ssh, *alive(0, 0), **IMPATIENT)
    case.wait_until_building(client)
    with frozen(client):
        case.wait_for_output(running, "no answer to build_package within", timeout=120)
        case.let_go(case.farm.cluster["client2"])
        running.end().ok()
    settle_what_was_lost(case)
