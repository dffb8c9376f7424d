# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Owners: who is alive, judged by pid where that means something and by time where it does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import typing as t
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils import _owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner

NOW = 1_800_000_000.0
TTL = 600.0
LONG_AGO = NOW - 10 * TTL


@pytest.fixture(name="process")
def fixture_process() -> t.Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def judge(owner: Owner, renewed: float = NOW) -> str:
    return owner.judge(renewed, NOW, TTL)


def test_living_process_needs_no_renewal(process: subprocess.Popen[bytes]) -> None:
    assert judge(Owner.of(process.pid), LONG_AGO) == "alive"


def test_killed_process_is_dead_though_just_renewed(process: subprocess.Popen[bytes]) -> None:
    owner = Owner.of(process.pid)
    process.kill()
    process.wait()
    assert judge(owner) == "dead"


def test_zombie_is_dead(process: subprocess.Popen[bytes]) -> None:
    owner = Owner.of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert judge(owner) == "dead"


def test_pid_given_to_another_process_is_dead(process: subprocess.Popen[bytes]) -> None:
    assert judge(replace(Owner.of(process.pid), start="1")) == "dead"


@pytest.mark.parametrize(
    ("renewed", "verdict"), [(NOW, "alive"), (NOW - TTL, "alive"), (NOW - TTL - 1, "dead"), (NOW + 2 * TTL, "dead")]
)
@pytest.mark.parametrize(
    "change",
    [
        {"pid_namespace": "pid:[1]"},
        {"pid_namespace": ""},
        {"start": ""},
        {"host": "elsewhere", "boot_id": "another"},
        {"host": "elsewhere"},
    ],
)
def test_who_cannot_be_judged_by_pid_is_judged_by_time(change: dict[str, str], renewed: float, verdict: str) -> None:
    assert judge(replace(Owner.of(os.getpid()), **t.cast(t.Any, change)), renewed) == verdict


def test_dead_pid_in_another_namespace_proves_nothing(process: subprocess.Popen[bytes]) -> None:
    owner = replace(Owner.of(process.pid), pid_namespace="pid:[1]")
    process.kill()
    process.wait()
    assert judge(owner) == "alive"


def test_before_the_last_boot_of_this_host_is_dead() -> None:
    assert judge(replace(Owner.of(os.getpid()), boot_id="another")) == "dead"


def test_process_of_another_user_hidden_in_proc_is_judged_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_ours(_pid: int, _signal: int) -> None:
        raise PermissionError

    owner = Owner.of(os.getpid())
    monkeypatch.setattr(os, "kill", not_ours)
    assert judge(owner, LONG_AGO) == "alive"
    monkeypatch.setattr(_owner, "process_start_time", lambda _pid: None)
    assert judge(owner) == "alive"
    assert judge(owner, LONG_AGO) == "dead"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("mount_proc", [True, False])
def test_real_pid_namespace(mount_proc: bool) -> None:
    """From inside, our pid may exist or not: it must not matter. The other way round neither."""
    owner = Owner.of(os.getpid())
    program = """
import json, os, sys, time
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
ours = Owner.from_dict(json.loads(sys.argv[1]))
mine = Owner.of(os.getpid())
print(json.dumps([ours.judge(0, 0, 1), ours.judge(0, 9, 1), mine.judge(0, 9, 1), mine.to_dict()]))
"""
    command = ["unshare", "--pid", "--fork", *(["--mount-proc"] if mount_proc else []), sys.executable, "-c", program]
    done = subprocess.run(
        [*command, json.dumps(owner.to_dict())],
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    fresh, stale, own, described = json.loads(done.stdout)
    assert (fresh, stale) == ("alive", "dead")
    # Without a /proc of its own it cannot even be sure of itself.
    assert own == ("alive" if mount_proc else "dead")
    inner = Owner.from_dict(described)
    assert inner is not None
    assert inner.pid_namespace != owner.pid_namespace
    assert judge(inner) == "alive", "it ended, but its pid is not ours to judge"
    assert judge(inner, LONG_AGO) == "dead"


def test_round_trip() -> None:
    owner = Owner.of(os.getpid())
    assert Owner.from_dict(owner.to_dict()) == owner
    assert owner.start
    assert str(os.getpid()) in str(owner)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["boot_id", "pid_namespace", "pid", "start", "host", "x"]), json_values)
    | json_values
)
def test_any_json_is_an_owner_or_none(value: t.Any) -> None:
    owner = Owner.from_dict(value)
    if owner is not None:
        assert owner.judge(time.time(), time.time(), TTL) in ("alive", "dead")
