# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds that are after the host, other chroots, the caches, or the controller, and what they plant for results."""

from __future__ import annotations

import re
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import (
    copy_source,
    dispatch_all,
    files_in,
    groups_of_builds,
    Order,
    Result,
    wait_for_empty_trash,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm

SECRET = "what-only-root-of-the-build-machine-may-read"


class Plant(t.NamedTuple):
    """Where a build plants something for results, and how that must end."""

    client: str
    reason: str
    said: str = ""


# client1: overlay, client2: tmpfs, client3: directory.
PLANTS = {
    "none": Plant("client1", "success"),
    "symlink": Plant("client2", "results", "is a symbolic link where a regular file is expected"),
    "directory": Plant("client3", "results", "is a symbolic link where a directory is expected"),
    "outside": Plant("client1", "failed", "The step build failed"),  # there is no such directory where it builds
    "device": Plant("client2", "success"),  # it cannot even be made
    "fifo": Plant("client3", "results", "is a FIFO where a regular file is expected"),
    "hardlink": Plant("client1", "results", "has 2 links where a file of its own is expected"),
    "name": Plant("client2", "results", "The file name '-rf x.deb' is malformed"),
    "setuid": Plant("client3", "failed", "check"),  # it is no package
    "needs": Plant("client1", "success"),  # only steps that download are listened to
    "replies": Plant("client2", "success"),
    "directories": Plant("client3", "failed", "The build damaged its root"),
}


def package_of(variant: str) -> str:
    return f"pb-hostile-{variant}"


def precious(client: Client) -> list[str]:
    """Return, in lines that can be compared, what no build may change, as the client itself has it."""
    script = """
        tell="%p %y %m %U:%G %s %T@ %l\\n"
        find bases -mindepth 2 -printf "$tell"
        find cache/archives -printf "%p %y %m %U:%G %s %l\\n"
        find lib -type f -exec sha256sum {} +
        ls -d /*/pb-* /var/lib/portbuild /build /portbuild 2>/dev/null
        cat /proc/sys/kernel/core_pattern
        hostname
    """
    return sorted(client.run(["sh", "-c", f"cd {client.scratch}\n{script}"]).stdout.splitlines())


@pytest.fixture(scope="module")
def before(farm: Farm) -> t.Iterator[dict[str, list[str]]]:
    """What is precious on each machine, beside a secret that lies about there."""
    farm.assert_idle()
    script = 'mkdir -m 755 /srv/pb-secret && cd /srv/pb-secret && cat > secret.deb && cp secret.deb "$1" && chmod 600 *'
    for client in farm.cluster.clients:
        client.run(["sh", "-c", script, "sh", f"{package_of('outside')}-extra_1.0_all.deb"], stdin=SECRET)
    yield {client.name: precious(client) for client in farm.cluster.clients}
    for client in farm.cluster.clients:
        client.run(["rm", "-r", "/srv/pb-secret"])


@pytest.fixture(scope="module")
def results(before: dict[str, list[str]], farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What came of every variant."""
    sources = tmp_path_factory.mktemp("hostile")
    orders = []
    for variant, plant in PLANTS.items():
        package = copy_source("pb-hostile", sources, package_of(variant), variant=f"{variant}\n")
        orders.append(Order(farm.cluster[plant.client], package, {}))
    return dispatch_all(farm, orders, sourcedir=str(sources), attempts=1)


@pytest.mark.parametrize("variant", PLANTS)
def test_what_is_planted_gets_nowhere(results: dict[str, Result], farm: Farm, variant: str) -> None:
    plant, package = PLANTS[variant], package_of(variant)
    ended, left = results[package]
    assert left == []
    build = farm.builds(package)[-1]
    assert (build["reason"], build["infrastructure"]) == (plant.reason, 0), ended.output
    home = sorted(path.name for path in farm.packages.glob(f"{package}*"))
    if plant.reason == "success":
        ended.ok()
        assert home == [f"{package}_1.0_all.deb", f"{package}_1.0_amd64.buildinfo", f"{package}_1.0_amd64.changes"]
    else:
        ended.fails(plant.said)
        assert home == []
        assert plant.said in farm.log(package)


@pytest.mark.parametrize("variant", PLANTS)
def test_nothing_that_it_tries_succeeds(results: dict[str, Result], farm: Farm, variant: str) -> None:
    package = package_of(variant)
    log = farm.log(package)
    assert "BREACH" not in log
    expected = [f"refused: touch /portbuild/archives/{package}", "loopback works", "everything was tried"]
    if PLANTS[variant].reason == "success":  # then it was installed, by root
        expected += [f"refused to root: touch /portbuild/archives/{package}", "everything was tried by root"]
    assert set(expected) <= set(log.splitlines())


def test_no_secret_comes_home(results: dict[str, Result], farm: Farm) -> None:
    for path in farm.root.rglob("*"):
        if path.is_file() and not path.is_symlink() and "tarballs" not in path.parts:
            assert SECRET.encode() not in path.read_bytes(), path
    assert [path for path in farm.root.rglob("*") if path.is_symlink()] == []


def test_nothing_precious_has_changed(results: dict[str, Result], before: dict[str, list[str]], farm: Farm) -> None:
    for client in farm.cluster.clients:
        then, now = set(before[client.name]), set(precious(client))
        assert then - now == set()
        # Only the supervisor's code may have come: when this is the first test that builds anything.
        assert [line for line in now - then if not re.fullmatch("[0-9a-f]{64}  lib/[0-9a-f]{64}/.*", line)] == []


def test_nothing_of_it_stays_on_the_machines(results: dict[str, Result], idle: Farm) -> None:
    for client in idle.cluster.clients:
        assert groups_of_builds(client) == []
        wait_for_empty_trash(client)
        for name in files_in(client, "cache/inputs"):
            assert client.run(["sha256sum", f"{client.scratch}/cache/inputs/{name}"]).stdout.split()[0] == name
        places = ["/srv", "/etc", "/tmp", "/root", "/home"]
        strangers = client.run(["find", *places, "-name", "*pb-hostile*", "-not", "-path", "/srv/pb-secret/*"])
        assert strangers.stdout == ""
