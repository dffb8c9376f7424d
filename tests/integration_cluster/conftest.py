# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the cluster tests: a controller whose machines are set up, with a bindist made by one of them."""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Cluster
from ansible_collections.portbuild.cluster.tests.conftest import CHECKOUT
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm

#: A bindist is kept for the next test run of this checkout: it takes half a minute, and the same one is made again.
BINDISTS = CHECKOUT / ".cache" / "bindist"
BINDIST_AGE = 24 * 3600.0


@pytest.fixture(scope="session")
def controller_root(cluster: Cluster) -> t.Iterator[pathlib.Path]:
    """The directory below which controllers of this test run have their roots."""
    path = cluster.directory / "controllers"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def farm(cluster: Cluster, controller_root: pathlib.Path) -> Farm:
    """A controller that has made a bindist and set up all three clients."""
    farm = Farm(cluster, controller_root / "main" / "root")
    provide_bindist(farm)
    farm.play("setup", timeout=600).ok()
    return farm


@pytest.fixture
def idle(farm: Farm) -> t.Iterator[Farm]:
    """The controller, with all slots free before and after the test, and nothing of any build left anywhere."""
    farm.assert_idle()
    yield farm
    try:
        farm.assert_idle()
    except AssertionError:
        farm.start_over()  # what this test left is its own failure, and no other's
        raise


def provide_bindist(farm: Farm) -> None:
    """Make the bindist with the playbook, or take the one that this checkout's last test run made with it."""
    BINDISTS.mkdir(parents=True, exist_ok=True)
    with open(BINDISTS / f".{farm.branch}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other worker's tests want the same one
        provide_bindist_alone(farm, farm.branch_directory / "tarballs", BINDISTS / farm.branch)


def provide_bindist_alone(farm: Farm, tarballs: pathlib.Path, cached: pathlib.Path) -> None:
    """Copy the one in the cache; make it first where it is missing or old."""
    if (cached / "bindist.json").exists() and time.time() - (cached / "bindist.json").stat().st_mtime < BINDIST_AGE:
        shutil.copytree(cached, tarballs, copy_function=link_or_copy, dirs_exist_ok=True)
        return
    farm.play("bindist", timeout=900).ok()
    temporary = cached.with_name(f".{cached.name}.{os.getpid()}")
    shutil.copytree(tarballs, temporary, copy_function=link_or_copy)
    shutil.rmtree(cached, ignore_errors=True)
    temporary.rename(cached)


def link_or_copy(source: str, target: str) -> None:
    """Give the file a second name where that is possible: it has 200 MB and is never changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
