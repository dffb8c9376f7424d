# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook doctor, on an installation that is in order and on a broken one."""

from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster._snapshots import differences, look


def said(ended: Ended) -> str:
    return " ".join(ended.output.replace("\\n", " ").replace('\\"', '"').split())


def test_an_installation_that_is_in_order(idle: Farm) -> None:
    before = look(idle)
    ended = idle.play("doctor").ok()
    assert differences(before, look(idle)) == []
    assert "PROBLEM" not in ended.output
    assert "No problem, " in said(ended)  # what other tests have left may be worth a note
    for phrase in (
        "client1, client2, client3: It has the current bindist.",
        "controller: ansible-core",
        "s off the controller's",
    ):
        assert phrase in said(ended)


def test_a_broken_installation(idle: Farm, controller_root: pathlib.Path, request: pytest.FixtureRequest) -> None:
    """Everything at once: each is a line, and none hides another."""
    farm = Farm(idle.cluster, controller_root / "broken" / "root", variables={"portbuild_maxjob": 3})
    arch = farm.root / farm.arch
    (arch / "queue").mkdir(parents=True)
    (arch / "portbuild.conf").write_text("system=debian\ntimeout=$(uptime)\n", encoding="utf-8")
    client1, client2, _client3 = farm.cluster.clients
    client1.kill_sshd()
    request.addfinalizer(client1.start_sshd)
    sudoers = "/etc/sudoers.d/portbuild-test"
    client2.run(["mv", sudoers, "/root/rule"])
    request.addfinalizer(lambda: client2.run(["mv", "/root/rule", sudoers]))
    unfit = controller_root / "broken" / "unfit.json"
    unfit.write_text(json.dumps({"portbuild_scratchdir": "/srv/none"}), encoding="utf-8")
    ended = farm.play("doctor", "-e", f"@{unfit}").fails()
    text = said(ended)
    for phrase in (
        "There is no setting portbuild_maxjob. Did you mean portbuild_maxjobs?",
        "client1: Machine client1 cannot be reached",
        "Try: ansible client1 -m ping",
        "client2: machine_info on client2:",
        "must become root by portbuild_sudo_cmd without a prompt",
        "The scratch directory /srv/none does not exist: run the setup playbook.",
        "portbuild.conf:2: A command substitution $(...) is not run.",
        f"{arch}/bookworm does not exist. Run the setup playbook.",
        "portbuild_timeout could not be read",
        "The bindist of bookworm cannot be used",
        "client1, client2, client3: It is not in the queue.",
    ):
        assert phrase in text, f"{phrase!r} is missing from:\n{ended.output}"
    assert "unreachable=0" in text
    assert "client3: Linux" in text
