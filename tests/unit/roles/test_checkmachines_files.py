# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that are shipped for systemd and cron."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

FILES = pathlib.Path(__file__).resolve().parents[3] / "roles" / "checkmachines" / "files"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="There is no systemd here.")
def test_systemd_understands_the_units() -> None:
    units = [str(FILES / f"portbuild-checkmachines.{kind}") for kind in ("service", "timer")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "portbuild" in line]) == (0, [])


def test_the_line_for_cron_has_its_fields() -> None:
    lines = (FILES / "portbuild-checkmachines.cron").read_text(encoding="utf-8").splitlines()
    (entry,) = [line for line in lines if line and not line.startswith("#") and not re.match(r"[A-Z_]+=", line)]
    *when, user, command = entry.split("\t")
    assert when == ["*/2", "*", "*", "*", "*"]
    assert user == "portbuild"
    assert "%" not in command  # cron takes it for the end of a line
    assert "portbuild.cluster.checkmachines" in command
