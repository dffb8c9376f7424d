# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where things stand: the names that scripts and people know must not change."""

from __future__ import annotations

import os

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import ArchLayout, Layout


def test_public_paths() -> None:
    layout = Layout("/pb/", "amd64", "14")
    assert layout.conf == "/pb/amd64/portbuild.conf"
    assert layout.machine_conf("b1") == "/pb/amd64/portbuild.b1"
    assert layout.mlist == "/pb/amd64/mlist"
    assert layout.queue == "/pb/amd64/queue"
    assert layout.load("b1") == "/pb/amd64/loads/b1"
    assert layout.index == "/pb/amd64/14/INDEX"
    assert layout.duds == "/pb/amd64/14/duds"
    assert layout.packages == "/pb/amd64/14/packages/All"
    assert layout.log("hello") == "/pb/amd64/14/logs/hello.log"
    assert layout.error("hello") == "/pb/amd64/14/errors/hello.log"
    assert layout.distfiles == "/pb/amd64/14/distfiles"
    assert layout.workdirs == "/pb/amd64/14/workdirs"
    assert layout.database == "/pb/amd64/14/portbuild.sqlite"


def test_directories_can_be_made_in_order() -> None:
    layout = Layout("/pb", "amd64", "14")
    made = {"/pb"}
    for directory in layout.directories:
        assert os.path.dirname(directory) in made
        made.add(directory)


@pytest.mark.parametrize(
    ("root", "arch", "branch"),
    [
        ("", "amd64", "14"),
        ("pb", "amd64", "14"),
        ("/pb", "", "14"),
        ("/pb", "../x", "14"),
        ("/pb", "amd64", ""),
        ("/pb", "amd64", ".."),
        ("/pb", "amd64", "queue"),
        ("/pb", "amd64", "mlist"),
        ("/pb", "amd64", "portbuild.b1"),
    ],
)
def test_refused(root: str, arch: str, branch: str) -> None:
    with pytest.raises(PortbuildError):
        Layout(root, arch, branch)


def test_paths_of_others() -> None:
    layout = ArchLayout("/pb", "amd64")
    for name in ("../x", "", "-rf", "a/b"):
        with pytest.raises(PortbuildError):
            layout.machine_conf(name)
        with pytest.raises(PortbuildError):
            Layout("/pb", "amd64", "14").log(name)
