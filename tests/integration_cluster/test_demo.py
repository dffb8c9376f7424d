# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demonstration does what it says, and leaves nothing but its results."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from ansible_collections.portbuild.cluster.tests.conftest import CHECKOUT
from ansible_collections.portbuild.cluster.tests.packages import DEMO, first
from ansible_collections.portbuild.cluster.tests.tools.leftovers import Snapshot
from ansible_collections.portbuild.cluster.tests.tools.project import environment

DIRECTORY = CHECKOUT / ".cache" / "demo"
PACKAGES = [package.name for package in first(DEMO)]


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1800)
def test_the_demonstration() -> None:
    before = Snapshot.take(DIRECTORY)
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=CHECKOUT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert Snapshot.take(DIRECTORY).compared_to(before) == []
    assert [path.name for path in DIRECTORY.iterdir()] == ["root"]

    assert f"{len(PACKAGES) + 1} packages to build" in output
    assert re.search(r"^  Longest chain: \S+ > \S+ > \S+ > \S+", output, re.MULTILINE)
    assert f"{len(PACKAGES)} built, 0 stayed as they are, 1 failed" in output
    assert f"0 built, {len(PACKAGES)} stayed as they are" in output
    for package in PACKAGES:
        assert re.search(rf"^  \[[0-9:]+\] builder[12]: {re.escape(package)} \S+ built in ", output, re.MULTILINE)
        assert f"  installed: {package} " in output
    assert "failed in build, as it should" in output
    assert "Everything came out as it should" in output
    (branch,) = (DIRECTORY / "root" / "debian-amd64").glob("*/packages")
    assert {path.name.partition("_")[0] for path in (branch / "All").glob("*.deb")} >= set(PACKAGES)
    assert (branch.parent / "errors" / "pb-fails.log").exists()
    assert not any((branch.parent / "errors" / f"{package}.log").exists() for package in PACKAGES)
    for shown in (f"logs/{PACKAGES[0]}.log", "errors/pb-fails.log"):
        assert shown in output
    shutil.rmtree(DIRECTORY)
