# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two packages that make one file: whoever comes second has failed, and everybody learns why."""

from __future__ import annotations

import hashlib
import pathlib

from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import copy_source
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, SOURCES


def test_a_file_of_another_package_is_not_replaced(idle: Farm, tmp_path: pathlib.Path) -> None:
    texts = {name: (SOURCES / "pb-null" / "debian" / name).read_text(encoding="utf-8") for name in ("control", "rules")}
    rules = texts["rules"].replace("PACKAGE = pb-null", "PACKAGE = pb-conflict")
    for name in ("pb-conflict-one", "pb-conflict-two"):
        control = texts["control"].replace("Source: pb-null", f"Source: {name}")
        control = control.replace("Package: pb-null", "Package: pb-conflict")
        copy_source("pb-null", tmp_path, name, control=control, rules=rules)

    idle.dispatch("pb-conflict-one", sourcedir=str(tmp_path), check="off").ok()
    package = idle.packages / "pb-conflict_1.0_all.deb"
    before = hashlib.sha256(package.read_bytes()).hexdigest(), package.stat().st_mtime_ns

    why = "brings the package pb-conflict_1.0_all.deb, but pb-conflict-one has that file"
    idle.dispatch("pb-conflict-two", sourcedir=str(tmp_path), check="off").fails("failed on", "conflict", why)
    assert (hashlib.sha256(package.read_bytes()).hexdigest(), package.stat().st_mtime_ns) == before
    (build,) = idle.builds("pb-conflict-two")
    assert (build["outcome"], build["reason"], build["infrastructure"]) == ("failed", "conflict", 0)
    assert (idle.branch_directory / "errors" / "pb-conflict-two.log").exists()
