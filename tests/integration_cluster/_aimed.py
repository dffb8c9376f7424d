# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dispatches aimed at one machine, several at once, and what is left of a build on the machine afterwards."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import json
import pathlib
import shutil
import threading
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import (
    Ended,
    Farm,
    Running,
    SOURCES,
    wait_for,
)

_starting = threading.Lock()


def aimed_at(farm: Farm, client: Client, **variables: t.Any) -> list[str]:
    """Return the arguments of ansible-playbook with which a dispatch finds no other machine.

    C(variables) are host variables of this one.
    """
    hosts: dict[str, dict[str, t.Any]] = {other.name: {"portbuild_maxjobs": 0} for other in farm.cluster.clients}
    return with_host_variables(farm, {**hosts, client.name: variables})


def with_host_variables(farm: Farm, hosts: dict[str, dict[str, t.Any]]) -> list[str]:
    """Return the arguments of ansible-playbook that give the machines these variables."""
    text = json.dumps({"all": {"children": {"build_machines": {"hosts": hosts}}}})
    # A second inventory, that comes later, so that its host variables win.
    path = farm.root.parent / f"aimed-{hashlib.sha256(text.encode()).hexdigest()[:16]}.yml"
    path.write_text(text, encoding="utf-8")
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
        wanted = {**variables, **order.variables, "package": order.package}
        running = start(farm, *aimed_at(farm, order.client), **wanted)
        try:
            order.meanwhile()
        finally:
            ended = running.end()
        results[order.package] = Result(ended, processes_of(order.client, order.package))

    work = [(order.client, functools.partial(make, order)) for order in orders]
    in_slots(work)
    return results


def in_slots(work: t.Sequence[tuple[Client, t.Callable[[], None]]]) -> None:
    """Do all the work, for each machine as much at once as it has slots."""
    pools: dict[str, concurrent.futures.ThreadPoolExecutor] = {}
    for client, _task in work:
        pools.setdefault(client.name, concurrent.futures.ThreadPoolExecutor(client.spec.maxjobs))
    done = [pools[client.name].submit(task) for client, task in work]
    for pool in pools.values():
        pool.shutdown()
    for future in done:
        future.result()


def at_once(count: int, tasks: t.Sequence[t.Callable[[], None]]) -> None:
    """Do all the tasks, so many at once."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def start(farm: Farm, *arguments: str, **variables: t.Any) -> Running:
    """Start a dispatch, from whatever thread."""
    with _starting:
        return farm.start("dispatch", *arguments, **variables)


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


def wait_for_empty_trash(client: Client) -> None:
    """Wait until what was thrown away is gone: that is done in the background."""
    wait_for(lambda: files_in(client, "trash") == [], f"the trash of {client.name} to be emptied")
