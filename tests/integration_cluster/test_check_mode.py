# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode tells and changes nothing; a second run changes nothing; diff mode shows what would be written."""

from __future__ import annotations

import pathlib
import re
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._another import another
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster._snapshots import differences, look

CLIENTS = ["client1", "client2", "client3"]


def changed(ended: Ended) -> dict[str, int]:
    """Return how many changes the recap counts, by host."""
    return {
        host: int(count) for host, count in re.findall(r"^(\S+)\s*: ok=.* changed=(\d+) ", ended.output, re.MULTILINE)
    }


@pytest.fixture
def unchanged(idle: Farm) -> t.Iterator[Farm]:
    """The controller and its clients, on which the test leaves every file as it was."""
    before = look(idle)
    for place in CLIENTS:  # that the snapshot sees what it is about
        assert "/srv/portbuild/portbuild.conf" in before[place]
        assert "/etc/passwd" in before[place]
    assert str(idle.queue / "client1") in before["controller"]
    yield idle
    assert differences(before, look(idle)) == []


@pytest.fixture
def strangers(farm: Farm, controller_root: pathlib.Path) -> t.Iterator[Farm]:
    """A new controller, and a scratch directory that no client has: the machines were never set up."""
    farm = Farm(
        farm.cluster,
        controller_root / "strangers" / "root",
        variables={"portbuild_scratchdir": "/srv/strangers/portbuild"},
    )
    before = look(farm)
    yield farm
    assert differences(before, look(farm)) == []


def test_check_mode_on_machines_that_are_set_up(unchanged: Farm) -> None:
    ended = unchanged.play("bindist", "--check").ok()
    assert "has its bindist" in ended.output
    assert changed(ended) == {"localhost": 0}

    ended = unchanged.play("bindist", "--check", bindist_rebuild=True).ok()
    assert "client1 would make the bindist of bookworm" in ended.output

    ended = unchanged.play("setup", "--check").ok()
    assert changed(ended) == dict.fromkeys(CLIENTS, 0)

    ended = unchanged.dispatch("pb-hello", "--check").ok()
    assert "pb-hello would be built on client1" in ended.output

    ended = unchanged.play("cleanup", "--check").ok()
    assert changed(ended) == dict.fromkeys((*CLIENTS, "localhost"), 0)


def test_check_and_diff_mode_show_what_setup_would_write(unchanged: Farm) -> None:
    ended = unchanged.play("setup", "--check", "--diff", "--limit", "client2", maxjobs=1).ok()
    assert changed(ended)["client2"] > 0
    assert re.search(r"^-maxjobs=2$", ended.output, re.MULTILINE)
    assert re.search(r"^\+maxjobs=1$", ended.output, re.MULTILINE)
    without = unchanged.play("setup", "--check", "--limit", "client2", maxjobs=1).ok()
    assert "+maxjobs=1" not in without.output


def test_check_mode_on_machines_that_were_never_set_up(strangers: Farm) -> None:
    ended = strangers.play("bindist", "--check").ok()
    assert "client1 would make the bindist of bookworm" in ended.output
    strangers.play("setup", "--check").fails(
        "Branch bookworm of debian-amd64 has no bindist", "portbuild.cluster.bindist"
    )
    strangers.dispatch("pb-hello", "--check").fails("has no bindist", "portbuild.cluster.setup")
    strangers.play("cleanup", "--check").fails("does not exist", "setup playbook")


def test_check_mode_of_the_first_setup(farm: Farm, controller_root: pathlib.Path) -> None:
    new = another(farm, controller_root / "first" / "root", scratchdir="/srv/first/portbuild")
    before = look(new)
    ended = new.play("setup", "--check", "--diff").ok()
    assert all(count >= 2 for count in changed(ended).values()), ended.output  # the machine itself, and the queue
    assert "/srv/first/portbuild/bases: directory, mode 0700, owner 0:0" in ended.output
    assert differences(before, look(new)) == []


def test_a_second_setup_and_bindist_change_nothing(unchanged: Farm) -> None:
    assert changed(unchanged.play("setup").ok()) == dict.fromkeys(CLIENTS, 0)
    ended = unchanged.play("bindist").ok()
    assert changed(ended) == {"localhost": 0}
    assert "has its bindist" in ended.output
