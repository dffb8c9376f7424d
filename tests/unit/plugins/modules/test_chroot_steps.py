# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client halves around a chroot, as Ansible runs them."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pathlib
import typing as t

import pytest

pytest.importorskip("ansible.module_utils.testing")

from ansible.module_utils.testing import patch_module_args

from ansible_collections.portbuild.cluster.plugins.modules import client_step
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import CLIENT_STEPS
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._shed import BASE, DASH, HELLO, Shed

LEASE = {**HELLO._asdict(), "machine": "a1", "queue": "q", "token": 5}


@pytest.fixture
def shed(tmp_path: pathlib.Path) -> t.Iterator[Shed]:
    shed = Shed(tmp_path)
    yield shed
    shed.close()


def call(module: str, shed: Shed, *, check: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
    """Run the module as the controller does, and return its result."""
    entry = importlib.import_module(f"ansible_collections.portbuild.cluster.plugins.modules.{module}")
    output = io.StringIO()
    given = {"scratchdir": str(shed.scratch), "_ansible_check_mode": check, **arguments}
    with patch_module_args(given), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        entry.main()
    result: dict[str, t.Any] = json.loads(output.getvalue())
    return result


def claim(shed: Shed, **more: t.Any) -> dict[str, t.Any]:
    return call("claim_chroot", shed, **{"lease": LEASE, "base": BASE, "backend": "directory", "maxjobs": 2, **more})


def clean(shed: Shed, **more: t.Any) -> dict[str, t.Any]:
    return call("clean_chroot", shed, **{"lease": LEASE, **more})


@pytest.mark.root
class TestClaimChroot:
    def test_check_mode_then_once_then_again(self, shed: Shed):
        told = claim(shed, check=True)
        assert (told["changed"], os.listdir(shed.scratch / "bases")) == (True, [BASE])
        assert shed.store.all() == []
        first, second = claim(shed), claim(shed)
        assert (first["changed"], second["changed"]) == (True, False)
        assert first["chroot"] == second["chroot"] == told["chroot"] == shed.store.path(HELLO)
        assert (first["state"], first["build_token"], first["status"], first["running"]) == ("claimed", None, {}, False)
        assert claim(shed, check=True)["changed"] is False

    @pytest.mark.parametrize(
        ("change", "reason", "infrastructure"),
        [
            ({"lease": {**LEASE, "token": 4}}, "stale", False),
            ({"lease": {**LEASE, "queue": "other"}}, "foreign_chroot", True),
            ({"lease": {**LEASE, "package": "dash"}, "maxjobs": 1}, "machine_full", True),
            ({"lease": {**LEASE, "package": "../x"}}, "name", False),
            ({"base": "0" * 64}, "base_missing", True),
            ({"base": "x"}, "name", False),
            ({"tree": "0" * 64}, "tree_missing", True),
            ({"tree": "x"}, "name", False),
            ({"min_free": 1 << 60}, "machine_disk_full", True),
            ({"scratchdir": "/nonexistent"}, "base_missing", True),
        ],
    )
    @pytest.mark.parametrize("check", [False, True])
    def test_failures_say_why_and_who_is_to_blame(
        self, shed: Shed, change: dict, reason: str, infrastructure: bool, check: bool
    ):
        claim(shed)
        result = claim(shed, check=check, **change)
        assert result["failed"]
        assert (result["reason"], result["infrastructure"]) == (reason, infrastructure)
        assert [chroot.marker.token for chroot in shed.store.all()] == [5]

    def test_an_empty_chroot_is_made_anew_for_another_tree(self, shed: Shed):
        for digit in "12":
            (shed.scratch / "trees" / (digit * 64)).mkdir(parents=True)
        first, again, other = claim(shed, tree="1" * 64), claim(shed, tree="1" * 64), claim(shed, tree="2" * 64)
        assert [result["changed"] for result in (first, again, other)] == [True, False, True]
        assert [result["tree"] for result in (first, again, other)] == ["1" * 64, "1" * 64, "2" * 64]
        assert [chroot.marker.tree for chroot in shed.store.all()] == ["2" * 64]
        shed.ended(token=5)
        assert claim(shed, tree="1" * 64)["tree"] == "2" * 64  # what was built in it, was built from it

    def test_a_full_machine_tells_what_it_is_busy_with(self, shed: Shed):
        claim(shed)
        result = claim(shed, lease={**LEASE, "package": "dash"}, maxjobs=1)
        assert [(job["package"], job["token"]) for job in result["jobs"]] == [("hello", 5)]
        orphans = [HELLO._asdict()]
        assert "failed" not in claim(shed, lease={**LEASE, "package": "dash"}, maxjobs=1, orphans=orphans)

    def test_an_adopted_build_is_told_of(self, shed: Shed):
        claim(shed)
        shed.ended(token=5)
        result = claim(shed, lease={**LEASE, "token": 6})
        assert (result["changed"], result["build_token"], result["status"]["reason"]) == (True, 5, "success")


@pytest.mark.root
class TestCleanChroot:
    def test_check_mode_then_once_then_again(self, shed: Shed):
        claim(shed)
        told = clean(shed, check=True)
        assert (told["changed"], told["cleaned"], told["held"]) == (True, True, "")
        assert len(shed.store.all()) == 1
        assert [clean(shed)["changed"], clean(shed)["changed"]] == [True, False]
        assert shed.store.all() == []

    def test_what_is_not_recorded_is_held(self, shed: Shed):
        claim(shed)
        shed.ended(token=5)
        for changed in (True, False):
            result = clean(shed)
            assert (result["changed"], result["cleaned"], result["held"]) == (changed, False, "uncollected")
        assert result["chroot"] == shed.store.path(HELLO)
        assert clean(shed, recorded=True)["cleaned"]

    def test_what_is_to_be_kept_is_held_when_it_is_recorded(self, shed: Shed):
        claim(shed)
        shed.ended(token=5)
        assert clean(shed, keep=True)["held"] == "uncollected"
        for changed in (True, False):
            result = clean(shed, keep=True, recorded=True)
            assert (result["changed"], result["cleaned"], result["held"]) == (changed, False, "kept")
            assert os.path.isdir(result["chroot"])
            assert result["chroot"] in result["enter"]

    def test_nothing_was_started_so_there_is_nothing_to_keep(self, shed: Shed):
        claim(shed)
        assert clean(shed, keep=True)["cleaned"]

    def test_a_build_that_runs_is_ended_and_not_collected(self, shed: Shed):
        claim(shed)
        pid = shed.start(token=5)
        assert clean(shed, check=True)["changed"]
        assert shed.store.get(HELLO, queue="q", token=5).running
        assert clean(shed)["cleaned"]
        assert os.waitpid(pid, 0)[1] == 9

    def test_the_oldest_kept_ones_go(self, shed: Shed):
        for token in (5, 6, 7):
            lease = {**LEASE, "token": token}
            claim(shed, lease=lease)
            shed.ended(token=token)
            clean(shed, lease=lease, keep=True, recorded=True, keep_max=2)
        assert sorted(chroot.marker.token for chroot in shed.store.all()) == [6, 7]

    def test_a_stale_owner_cleans_nothing(self, shed: Shed):
        claim(shed, lease={**LEASE, "token": 9})
        result = clean(shed)
        assert (result["failed"], result["reason"], result["infrastructure"]) == (True, "stale", False)
        assert len(shed.store.all()) == 1


@pytest.mark.root
def test_cleanup_twice(shed: Shed):
    claim(shed)
    claim(shed, lease={**LEASE, "package": "dash", "token": 6})
    wanted: dict[str, t.Any] = {"queue": "q", "token": 6, "owned": [DASH._asdict()]}
    told = call("cleanup", shed, check=True, **wanted)
    done = call("cleanup", shed, **wanted)
    assert (
        told["removed"]
        == done["removed"]
        == [{"path": shed.store.path(HELLO), "why": "No lease owns it: it is claimed."}]
    )
    assert (done["changed"], done["problems"], done["uncollected"]) == (True, [], [])
    again = call("cleanup", shed, **wanted)
    assert (again["changed"], again["removed"]) == (False, [])
    assert shed.trash() == []


@pytest.mark.root
def test_machine_info_works_alone(shed: Shed):
    result = call("machine_info", shed)
    assert result["fit"], result["unfit"]
    assert result["backend"]["chosen"] in ("overlay", "directory")
    result = call("machine_info", shed, bases=["0" * 64])
    assert result["unfit"] == [f"The current bindist {'0' * 64} is not on the machine: run the setup playbook."]
    assert result["summary"][0].endswith(result["unfit"][0])


class TestClientStep:
    def call(self, step: str, *, check: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
        output = io.StringIO()
        given = {"step": step, "arguments": arguments, "_ansible_check_mode": check}
        with patch_module_args(given), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
            client_step.main()
        result: dict[str, t.Any] = json.loads(output.getvalue())
        return result

    def test_the_actions_know_all_of_them(self):
        assert sorted(client_step.STEPS) == sorted(CLIENT_STEPS)

    @pytest.mark.root
    def test_it_does_what_the_modules_of_the_steps_do(self, shed: Shed):
        arguments: dict[str, t.Any] = {"scratchdir": str(shed.scratch), "lease": LEASE}
        told = self.call("claim_chroot", **arguments, base=BASE, backend="directory", maxjobs="2")
        assert (told["changed"], told["state"], told["tree"]) == (True, "claimed", "")
        assert claim(shed)["chroot"] == told["chroot"]
        assert self.call("clean_chroot", check=True, **arguments)["cleaned"]
        assert self.call("clean_chroot", **arguments)["cleaned"]
        assert shed.store.all() == []

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ({}, "claim_chroot: missing required arguments: base, lease."),
            ({"base": BASE, "lease": LEASE, "maxjob": 1}, "claim_chroot: maxjob. Supported parameters include:"),
            ({"base": BASE, "lease": LEASE, "maxjobs": "many"}, "claim_chroot: argument 'maxjobs' is of type"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments: dict[str, t.Any], complaint: str):
        told = self.call("claim_chroot", **arguments)
        assert told["failed"] and told["msg"].startswith(complaint), told
