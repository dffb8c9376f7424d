# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A short soak: what 'make soak' does for as long as one likes."""

from __future__ import annotations

import os
import pathlib
import time

from ansible_collections.portbuild.cluster.tests.cluster import Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster.conftest import provide_bindist
from ansible_collections.portbuild.cluster.tests.soak._soak import Soak, SPECS


def test_whatever_happens_the_results_are_those_of_an_undisturbed_run(tmp_path: pathlib.Path) -> None:
    seed = int(os.environ.get("PORTBUILD_SOAK_SEED") or time.time())
    with Cluster.start(tmp_path / "cluster", SPECS) as cluster:
        farm = Farm(cluster, tmp_path / "controller" / "root")
        provide_bindist(farm)
        farm.play("setup", timeout=600).ok()
        soak = Soak(cluster, farm, tmp_path, seed, print)
        try:
            soak.run(45, 15)
            soak.settle()
            soak.verify()
        finally:
            soak.close()
