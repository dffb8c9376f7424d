# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hurt a cluster for as long as PORTBUILD_SOAK_MINUTES say, and at least 200 times. PORTBUILD_SOAK_SEED repeats a run."""

from __future__ import annotations

import os
import shutil
import sys
import time

from ansible_collections.portbuild.cluster.tests.cluster import Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import CHECKOUT, Farm

from ._soak import prepare, Soak, SPECS

DIRECTORY = CHECKOUT / ".cache" / "soak"
FAULTS = 200


def main() -> int:
    """Run the soak; 0 when everything came out as it should."""
    minutes = float(os.environ.get("PORTBUILD_SOAK_MINUTES") or 10)
    seed = int(os.environ.get("PORTBUILD_SOAK_SEED") or time.time())
    faults = int(os.environ.get("PORTBUILD_SOAK_FAULTS") or FAULTS)
    print(f"At least {faults} faults in at least {minutes:g} minutes, PORTBUILD_SOAK_SEED={seed}.", flush=True)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    with Cluster.start(DIRECTORY / "cluster", SPECS) as cluster:
        farm = Farm(cluster, DIRECTORY / "controller" / "root")
        prepare(farm, CHECKOUT / ".cache" / "bindist" / farm.branch)
        soak = Soak(cluster, farm, DIRECTORY, seed, lambda text: print(text, flush=True))
        try:
            soak.run(60 * minutes, faults)
            soak.settle()
            soak.verify()
        finally:
            soak.close()
    counts = ", ".join(f"{name} {count}" for name, count in sorted(soak.counts.items()))
    print(f"{soak.counts.total()} faults ({counts}), {soak.round} rounds: as an undisturbed run, and nothing is left.")
    shutil.rmtree(DIRECTORY)
    return 0


if __name__ == "__main__":
    sys.exit(main())
