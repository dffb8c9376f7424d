# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Makefile that a bulk is compared with has all edges; what dispatches write is added up by step."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

pytest.importorskip("yaml")

from ansible_collections.portbuild.cluster.tests.bench.bulk import BULK, dispatched, makefile
from ansible_collections.portbuild.cluster.tests.packages import load


def test_make_begins_no_package_before_what_it_needs(tmp_path: pathlib.Path) -> None:
    packages = load()
    text = makefile(tmp_path, packages, 1)
    (tmp_path / "Makefile").write_text(text, encoding="ascii")
    argv = ["make", "-n", "-C", str(tmp_path), "--no-print-directory"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(argv, env=clean, capture_output=True, text=True, check=True)
    order = [line.rpartition("logs/")[2].split()[0] for line in done.stdout.splitlines() if " > logs/" in line]
    assert sorted(order) == sorted(package.name for package in packages)
    for package in packages:
        before = set(order[: order.index(package.name)])
        assert package.needs <= before
    for package in packages:
        rule = f"done/{package.name}: {' '.join(f'done/{name}' for name in sorted(package.needs))}\n"
        assert rule in text


def test_steps_are_added_up_without_the_bulk_itself() -> None:
    entries = [
        {"step": "Claim a machine", "seconds": 1.0, "cpu": 0.5},
        {"step": BULK, "seconds": 9.0, "cpu": 9.0},
        {"step": "Claim a machine", "seconds": 2.0, "cpu": 0.25},
    ]
    assert dispatched(entries) == {"Claim a machine": (3.0, 0.75)}
