# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start and stop a lasting cluster: what C(make cluster) and C(make cluster-stop) call."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

from ._cluster import Cluster, ClusterError, THREE_CLIENTS

ADVICE = """
# It runs until 'make cluster-stop'. To use it from this directory:
#   export {exports}
#   ansible build_machines -m ansible.builtin.ping
# A shell on {client.name}, past ssh:
#   {shell}
"""


def start(directory: str, count: int) -> None:
    """Start the cluster, unless it runs, and print how to use it."""
    cluster = Cluster.load(directory)
    if not cluster or not cluster.running():
        root = pathlib.Path(directory).resolve().parent / "root"
        cluster = Cluster.start(
            directory, THREE_CLIENTS[:count], subnet="127.0.0", lasting=True, variables={"portbuild_root": str(root)}
        )
    print(cluster.inventory.read_text(encoding="utf-8"), end="")
    exports = [f"ANSIBLE_CONFIG={cluster.ansible_cfg}", f"PATH={pathlib.Path(sys.executable).parent}:$PATH"]
    if "ANSIBLE_COLLECTIONS_PATH" in os.environ:
        exports.append(f"ANSIBLE_COLLECTIONS_PATH={os.environ['ANSIBLE_COLLECTIONS_PATH']}")
    client = cluster.clients[0]
    print(ADVICE.format(exports=" ".join(exports), client=client, shell=" ".join(client.enter(["bash"]))), end="")


def stop(directory: str) -> None:
    """Stop the cluster, or say that there is none."""
    cluster = Cluster.load(directory)
    if cluster:
        cluster.stop()
    print(f"The cluster in {directory} is stopped." if cluster else f"There is no cluster in {directory}.")


def main() -> int:
    """Carry out one command."""
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__)
    parser.add_argument("command", choices=("start", "stop"))
    parser.add_argument("directory")
    parser.add_argument("--clients", type=int, choices=(1, 2, 3), default=3)
    arguments = parser.parse_args()
    try:
        if arguments.command == "start":
            start(arguments.directory, arguments.clients)
        else:
            stop(arguments.directory)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
