# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the state files of this version into tests/upgrade/VERSION.txt, before it is released: python -m upgrade.

A real run on two machines, in which as much as possible is under way when the files are taken: a package built, one
failed with a mail that cannot be sent, one whose build runs while its dispatch is dead, one whose results could not
be brought home, a chroot left for debugging, a machine drained, a package on hold, a bulk build killed in its middle.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import sqlite3
import sys
import tempfile
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import Client, ClientSpec, Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import CHECKOUT, Farm, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    closed_gates,
    make_source,
    open_gates,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._tree import make_tree, start_bulk
from ansible_collections.portbuild.cluster.tests.integration_cluster.conftest import provide_bindist
from ansible_collections.portbuild.cluster.tests.tools.release import version

MACHINES = (
    ClientSpec("alpha", login="root", maxjobs=2, backend="directory"),
    ClientSpec("beta", login="pbclient", maxjobs=2, backend="directory"),
)
# The licence of this file is that of what it writes.
LICENCE = "\n".join(pathlib.Path(__file__).read_text(encoding="utf-8").splitlines()[:3])
#: What is state: not the contents of packages and sources, locks, programs and trees, nor what can be made again.
SUFFIXES = (".json", ".conf")
NAMES = ("mlist", "duds")


def under_way(farm: Farm, top: pathlib.Path) -> None:
    """Do what the sample is about."""
    sources = top / "sources"
    for name, gate in {"up-built": False, "up-running": True, "up-uncollected": True, "up-kept": False}.items():
        make_source(sources, name, gate=gate)
    make_source(sources, "up-failed", commands=["echo 'this is why' >&2; exit 1"])
    farm.variables["portbuild_sourcedir"] = str(sources)
    farm.dispatch("up-built", machine="alpha").ok()
    mail: dict[str, t.Any] = {"mail_host": "127.0.0.1", "mail_port": 1, "mail_to": ["somebody@example.org"]}
    farm.dispatch("up-failed", machine="alpha", **mail).fails("up-failed 1.0 failed on alpha")
    farm.dispatch("up-kept", machine="beta", noclean=True).ok()
    farm.play("hold", package="up-held", reason="an example").ok()
    farm.play("checkmachines").ok()

    free = farm.variables.pop("portbuild_min_free")  # an extra variable would count more than the file
    uncollected = farm.start("dispatch", package="up-uncollected", machine="beta")
    wait_for(lambda: "up-uncollected" in closed_gates(farm.cluster), "its build", 120)
    conf = farm.root / farm.arch / "portbuild.conf"
    before = conf.read_text(encoding="utf-8")
    conf.write_text(f"{before}min_free=1000T\n", encoding="utf-8")
    open_gates(farm.cluster, ["up-uncollected"])
    uncollected.end().fails("The controller's disk is full")
    conf.write_text(before, encoding="utf-8")
    farm.variables["portbuild_min_free"] = free

    running = farm.start("dispatch", package="up-running", machine="beta")
    wait_for(lambda: "up-running" in closed_gates(farm.cluster), "its build", 120)
    running.kill()

    tree = make_tree(top / "tree", {"up-a": "", "up-b": "up-a", "up-c": "up-b"}, gates=["up-b"])
    bulk = start_bulk(farm, tree)
    wait_for(lambda: "up-b" in closed_gates(farm.cluster), "the middle of the bulk build", 180)
    bulk.kill()
    farm.play("drain", machine="beta", reason="an example").ok()


def take_controller(farm: Farm) -> dict[str, str]:
    """Return the state of the controller, by path. The database comes as the statements that make it."""
    found = {}
    for path in sorted(farm.root.rglob("*")):
        relative = path.relative_to(farm.root)
        parts = relative.parts
        if not path.is_file() or {".cache", "sent"} & set(parts) or "/runs." in str(path) or path.name.endswith("lock"):
            continue
        if path.suffix in SUFFIXES or path.name in NAMES or {"queue", "loads"} & set(parts[1:2]):
            found[f"root/{relative}"] = path.read_text(encoding="utf-8")
    database = farm.branch_directory / "portbuild.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        schema = connection.execute("pragma user_version").fetchone()[0]
        statements = [*connection.iterdump(), f"PRAGMA user_version = {schema};", ""]
    found[f"root/{database.relative_to(farm.root).with_suffix('.sql')}"] = "\n".join(statements)
    return found


def take_client(client: Client) -> dict[str, str]:
    """Return the state of a machine, by path."""
    wanted = "-name fs -prune -o -name cache -prune -o -type f ( -name *.json -o -name portbuild.conf ) -printf %P\\n"
    names = client.run(["find", client.scratch, *wanted.split()]).stdout.split()
    return {f"{client.name}/{name}": client.run(["cat", f"{client.scratch}/{name}"]).stdout for name in sorted(names)}


def main() -> int:
    """Make the sample."""
    places = CHECKOUT / ".cache" / "upgrade"
    places.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places) as temporary:
        top = pathlib.Path(temporary)
        with Cluster.start(top / "cluster", MACHINES) as cluster:
            farm = Farm(cluster, top / "root")
            provide_bindist(farm)
            farm.play("setup", timeout=600).ok()
            under_way(farm, top)
            files = take_controller(farm)
            for client in cluster.clients:
                files.update(take_client(client))
            open_gates(cluster)
    about = {"arch": farm.arch, "branch": farm.branch, "files": files}
    text = json.dumps(about, indent=1, sort_keys=True).replace(str(top), "/srv/example")
    target = pathlib.Path(__file__).with_name(f"{version(CHECKOUT)}.txt")
    target.write_text(f"{LICENCE}\n{text}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
