# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dispatches aimed at one machine, several at once, and what is left of a build on the machine afterwards."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import shutil
import threading
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import SOURCES, Ended, Farm, Running

_starting = threading.Lock()


def aimed_at(farm: Farm, client: Client) -> list[str]:
    """Return the arguments of ansible-playbook with which a dispatch finds no other machine."""
    path = farm.root.parent / f"only-{client.name}.yml"
    others = {other.name: {"portbuild_maxjobs": 0} for other in farm.cluster.clients if other is not client}
    # A second inventory, that comes later, so that its host variables win.
    path.write_text(json.dumps({"all": {"children": {"build_machines": {"hosts": others}}}}), encoding="utf-8")
    return ["-i", str(farm.cluster.inventory), "-i", str(path)]


def copy_source(source: str, directory: pathlib.Path, name: str, **files: str) -> str:
    """Copy one of the test sources into the directory under a name of its own, and return the name.

    Two dispatches of one package exclude each other; of copies they do not. C(files) replace files in its debian/.
    """
    target = directory / name
    shutil.copytree(SOURCES / source, target)
    for path in target.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.write_text(path.read_text(encoding="utf-8").replace(source, name), encoding="utf-8")
    for file, text in files.items():
        (target / "debian" / file).write_text(text, encoding="utf-8")
    return name


class Order(t.NamedTuple):
    """A dispatch to be made: where, what, and with which variables (without their prefix)."""

    client: Client
    package: str
    variables: dict[str, t.Any]
    meanwhile: t.Callable[[], t.Any] = lambda: None  # what is to be done while it runs


class Result(t.NamedTuple):
    """What came of it."""

    ended: Ended
    left: list[str]  # processes of the build that were there the moment the dispatch ended


def dispatch_all(farm: Farm, orders: t.Sequence[Order], **variables: t.Any) -> dict[str, Result]:
    """Make all these dispatches, on each machine as many at once as it takes; return the results by package."""
    results: dict[str, Result] = {}

    def make(order: Order) -> None:
        with _starting:
            running = start(farm, order, **variables)
        try:
            order.meanwhile()
        finally:
            ended = running.end()
        results[order.package] = Result(ended, processes_of(order.client, order.package))

    pools = {
        client.name: concurrent.futures.ThreadPoolExecutor(client.spec.maxjobs) for client in farm.cluster.clients
    }
    made = [pools[order.client.name].submit(make, order) for order in orders]
    for pool in pools.values():
        pool.shutdown()
    for future in made:
        future.result()
    return results


def start(farm: Farm, order: Order, **variables: t.Any) -> Running:
    """Start one."""
    wanted = {**variables, **order.variables, "package": order.package}
    return farm.start("dispatch", *aimed_at(farm, order.client), **wanted)


def processes_of(client: Client, package: str) -> list[str]:
    """Return what runs on the client for the build of the package: its supervisor, and whatever it started.

    Each process of a build has the package in its environment, whatever it calls itself and whoever its parent is.
    """
    script = """
        cd /proc
        for environment in $(grep -slzxF "PB_PACKAGE=$1" [0-9]*/environ); do
            tr '\\0' ' ' < "${environment%environ}cmdline" && echo
        done
        for line in $(grep -slzE "/$1\\$" [0-9]*/cmdline); do
            tr '\\0' ' ' < "$line" | grep portbuild-supervisor
        done
        :
    """
    return client.run(["sh", "-c", script, "sh", package]).stdout.splitlines()


def groups_of_builds(client: Client) -> list[str]:
    """Return the control groups of builds that the client has."""
    found = client.run(["find", "/sys/fs/cgroup", "-path", "*/portbuild/job-*", "-type", "d"], check=False)
    return found.stdout.split()


def files_in(client: Client, directory: str) -> list[str]:
    """Return what is in a directory of the client's scratch directory, but for locks and the like."""
    wanted = ["-mindepth", "1", "-not", "-name", ".*", "-printf", "%P\\n"]
    found = client.run(["find", f"{client.scratch}/{directory}", *wanted], check=False)
    return sorted(found.stdout.splitlines())
