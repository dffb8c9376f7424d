# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bulk of real packages: each is built once, with our own results, and all of them install from clean."""

from __future__ import annotations

import pathlib
import re
import subprocess

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster._tree import summary
from ansible_collections.portbuild.cluster.tests.integration_cluster.conftest import provide_bindist
from ansible_collections.portbuild.cluster.tests.packages import load
from ansible_collections.portbuild.cluster.tests.packages.install import install

#: What apt says when it takes a package of ours, and where in a log the build itself begins.
OURS = re.compile(r"^Get:[0-9]+ file:/portbuild/repo \./ (\S+) \S+ \[", re.MULTILINE)
BUILD = "(step build,"


@pytest.fixture
def archive(cluster: Cluster, controller_root: pathlib.Path) -> Farm:
    """A controller of its own: the results are these packages' alone."""
    farm = Farm(cluster, controller_root / "archive" / "root")
    provide_bindist(farm)
    farm.play("setup", timeout=600).ok()
    return farm


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(3600)
def test_a_bulk_of_the_archives_packages(archive: Farm) -> None:
    packages = load()
    names = [package.name for package in packages]
    archive.play("bulk", timeout=2700, targets=names).ok()
    archive.assert_idle()
    assert sorted(summary(archive)["built"]) == sorted(names)
    builds = {name: archive.builds(name) for name in names}
    assert {name: [build["outcome"] for build in found] for name, found in builds.items()} == {
        name: ["success"] for name in names
    }
    sources = built_from(archive.packages)
    assert set(sources.values()) == set(names)
    taken = {name: {sources[binary] for binary in taken_from_us(archive.log(name))} for name in names}
    assert taken == {package.name: set(package.needs) for package in packages}

    bindist = archive.branch_directory / "tarballs" / "bindist.tar"
    rounds = install(archive.packages, bindist, archive.root.parent / "chroot")
    assert {binary.name for members in rounds for binary in members} >= set(sources)

    archive.play("bulk", timeout=300, targets=names).ok()
    assert summary(archive)["built"] == []
    assert sorted(summary(archive)["stayed"]) == sorted(names)
    assert {name: len(archive.builds(name)) for name in names} == dict.fromkeys(names, 1)
    archive.assert_idle()


def taken_from_us(log: str) -> set[str]:
    """Return the binary packages of ours that were installed to build with."""
    before, mark, _after = log.partition(BUILD)
    assert mark
    return set(OURS.findall(before))


def built_from(directory: pathlib.Path) -> dict[str, str]:
    """Return the source package of each binary package."""
    found = {}
    for path in directory.glob("*.deb"):
        show = ["dpkg-deb", "-W", "--showformat=${Package} ${source:Package}", str(path)]
        binary, source = subprocess.run(show, check=True, capture_output=True, text=True).stdout.split()
        found[binary] = source
    return found
