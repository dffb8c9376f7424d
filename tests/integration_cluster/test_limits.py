# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds that do not end by themselves, or that take what is not theirs, on each of the chroot backends."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import (
    copy_source,
    dispatch_all,
    files_in,
    groups_of_builds,
    Order,
    processes_of,
    Result,
    wait_for_empty_trash,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, wait_for

CLIENTS = ("client1", "client2", "client3")  # overlay, tmpfs, directory


class Limit(t.NamedTuple):
    """A limit, a build that exceeds it, and what must come of it."""

    source: str
    variables: dict[str, t.Any]
    reason: str
    said: str
    seconds: tuple[float, float] = (0.0, 60.0)  # how long the build takes, at least and on a very busy machine


LIMITS = {
    "total": Limit("pb-daemon", {"timeout": 12}, "timeout", "The build took longer than 12 s.", (12.0, 42.0)),
    "silence": Limit("pb-silent", {"silence_timeout": 7}, "silence", "The build said nothing for 7 s.", (7.0, 60.0)),
    "disk": Limit("pb-fillsdisk", {"disk_limit": "64M"}, "disk_full", "67108864"),
    "memory": Limit(
        "pb-eatsmemory", {"memory_limit": "256M"}, "out_of_memory", "more than its 268435456 bytes of memory"
    ),
    "log": Limit("pb-endlesslog", {"log_limit": "1M"}, "log_size", "The log exceeded 1048576 bytes."),
}


def package_of(limit: Limit, client: str) -> str:
    return f"{limit.source}-{client}"


@pytest.fixture(scope="module")
def results(farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """All of them on each machine, and then a build that does nothing wrong."""
    farm.assert_idle()
    sources = tmp_path_factory.mktemp("limits")
    orders = []
    for name in CLIENTS:
        client = farm.cluster[name]
        for limit in LIMITS.values():
            package = copy_source(limit.source, sources, package_of(limit, name))
            watch = sees_daemons(client, package) if limit.source == "pb-daemon" else lambda: None
            orders.append(Order(client, package, limit.variables, watch))
        orders.append(Order(client, copy_source("pb-null", sources, f"pb-null-{name}"), {"check": "off"}))
    # No second attempt: what is blamed on the machine by mistake is to be seen as such.
    return dispatch_all(farm, orders, sourcedir=str(sources), attempts=1)


def sees_daemons(client: Client, package: str) -> t.Callable[[], t.Any]:
    """Return what waits until the build has its daemons: else it would be no news that they are gone."""

    def daemons() -> bool:
        return sum(line.startswith("sh -c trap") for line in processes_of(client, package)) == 3

    return lambda: wait_for(daemons, f"the daemons of {package} on {client.name}", interval=0.3)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_ends_the_build_for_its_own_reason(
    results: dict[str, Result], farm: Farm, name: str, client: str
) -> None:
    limit = LIMITS[name]
    package = package_of(limit, client)
    ended, left = results[package]
    ended.fails(f"{package} 1.0 failed on {client}", f"{limit.reason} in build", limit.said)
    assert left == []
    (build,) = farm.builds(package)
    assert (build["outcome"], build["reason"], build["phase"]) == ("failed", limit.reason, "build")
    assert not build["infrastructure"]
    least, most = limit.seconds
    assert least <= build["seconds"] < most
    assert farm.failed(package)
    assert farm.log(package).splitlines()[-1].startswith(f"=== ended: {limit.reason} after ")


@pytest.mark.parametrize("client", CLIENTS)
def test_an_endless_log_comes_home_as_far_as_it_may(results: dict[str, Result], farm: Farm, client: str) -> None:
    log = farm.log(package_of(LIMITS["log"], client))
    assert (1 << 20) - 4096 < len(log) < (1 << 20) + 4096
    assert "one more line of a log that does not end" in log


@pytest.mark.parametrize("client", CLIENTS)
def test_the_machine_builds_again_at_once(results: dict[str, Result], farm: Farm, client: str) -> None:
    results[f"pb-null-{client}"].ended.ok()
    (build,) = farm.builds(f"pb-null-{client}")
    assert build["machine"] == client


def test_nothing_is_left_of_all_that(results: dict[str, Result], idle: Farm) -> None:
    for client in idle.cluster.clients:
        assert groups_of_builds(client) == []
        assert files_in(client, "incoming") == []
        wait_for_empty_trash(client)
    assert list((idle.branch_directory / "logs" / ".incoming").iterdir()) == []
