# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tiny source packages made for one test, and builds that wait at a gate until the test lets them go on."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
import time
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import Client, Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Running, SOURCES, wait_for

_BEFORE = "build:\n"  # where the commands of a build begin in the templates' rules


def make_source(
    directory: pathlib.Path,
    name: str,
    *,
    template: str = "pb-null",
    commands: t.Sequence[str] = (),
    gate: bool = False,
    **files: str,
) -> None:
    """Write the source package below the directory: the template under another name, whose build begins with these.

    With C(gate) the build first waits until open_gates() lets it go on. C(files) are written into debian/.
    """
    tree = directory / name
    shutil.copytree(SOURCES / template, tree)
    for path in tree.joinpath("debian").iterdir():
        if path.is_file():
            path.write_text(path.read_text(encoding="utf-8").replace(template, name), encoding="utf-8")
    # Ends when its sleep is killed. The shell carries the name, so that one sees from outside whose gate it is.
    waiting = [f"sh -c 'sleep 86400 || :' {_GATE}{name}"] if gate else []
    rules = tree / "debian" / "rules"
    text = rules.read_text(encoding="utf-8")
    assert text.count(_BEFORE) == 1
    recipe = "".join(f"\t{command}\n" for command in (*waiting, *commands))
    rules.write_text(text.replace(_BEFORE, _BEFORE + recipe), encoding="utf-8")
    for file, content in files.items():
        tree.joinpath("debian", file).write_text(content, encoding="utf-8")


_GATE = "gate-of-"


class Gate(t.NamedTuple):
    """A build that waits: where, and for the end of which process."""

    client: Client
    package: str
    pid: int


def closed_gates(cluster: Cluster) -> dict[str, Gate]:
    """Return the builds that wait at their gates now, by package."""
    found = {}
    for client in cluster.clients:
        processes = client.processes()
        shells = {process.pid: process.argv[-1] for process in processes if process.argv[-1].startswith(_GATE)}
        for process in processes:
            if process.argv[0] == "sleep" and process.parent in shells:
                package = shells[process.parent].removeprefix(_GATE)
                found[package] = Gate(client, package, process.pid)
    return found


def wait_for_gates(
    cluster: Cluster, count: int, dispatches: t.Iterable[Running], timeout: float = 180.0
) -> dict[str, Gate]:
    """Return the builds that wait at their gates as soon as there are that many; fail if one of the dispatches ends."""

    def enough() -> dict[str, Gate] | None:
        for dispatch in dispatches:
            assert dispatch.process.poll() is None, dispatch.output()
        found = closed_gates(cluster)
        return found if len(found) >= count else None

    return t.cast("dict[str, Gate]", wait_for(enough, f"{count} builds at their gates", timeout, 0.2))


def let_all_end(cluster: Cluster, dispatches: t.Iterable[Running], timeout: float = 120.0) -> None:
    """Open gates until all the dispatches have ended; kill what does not. For the end of tests that failed."""
    end = time.monotonic() + timeout
    for dispatch in dispatches:
        while dispatch.process.poll() is None and time.monotonic() < end:
            open_gates(cluster)
            with contextlib.suppress(subprocess.TimeoutExpired):
                dispatch.process.wait(0.5)
        if dispatch.process.poll() is None:
            dispatch.kill()


def open_gates(cluster: Cluster, packages: t.Collection[str] | None = None) -> None:
    """Let the builds go on that wait now, or those of these packages among them."""
    for package, gate in closed_gates(cluster).items():
        if packages is None or package in packages:
            gate.client.run(["sh", "-c", 'kill "$1"', "sh", str(gate.pid)], check=False)
