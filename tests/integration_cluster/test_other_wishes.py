# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A build that was begun for one wish is no answer to another."""

from __future__ import annotations

import pathlib
import shutil

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    make_source,
    open_gates,
    wait_for_gates,
)

PACKAGE = "pb-wished"


def test_what_an_earlier_dispatch_asked_for_is_brought_home_but_not_the_answer(
    idle: Farm, tmp_path: pathlib.Path
) -> None:
    make_source(tmp_path, PACKAGE, gate=True)
    wishes = {"sourcedir": str(tmp_path), "check": "off"}
    running = idle.start("dispatch", package=PACKAGE, **wishes)
    wait_for_gates(idle.cluster, 1, [running])
    running.kill()

    shutil.rmtree(tmp_path / PACKAGE)
    make_source(tmp_path, PACKAGE, commands=["false"])
    corrected = idle.start("dispatch", package=PACKAGE, attempts=1, **wishes)
    wait_for_gates(idle.cluster, 1, [corrected])
    open_gates(idle.cluster)
    ended = corrected.end().fails(f"{PACKAGE} 1.0 failed on client1", "failed in build")
    assert f"{PACKAGE} is still to be built" in ended.output
    assert [build["outcome"] for build in idle.builds(PACKAGE)] == ["success", "failed"]
