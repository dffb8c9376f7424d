# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook status, while something runs, something is held, and a machine does not answer."""

from __future__ import annotations

import json
import pathlib
import re
import typing as t

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    make_source,
    open_gates,
    wait_for_gates,
)

RUNNING = "status-running"


def lines(ended: Ended) -> list[str]:
    """Return the lines of the report."""
    found = re.search(r'"status_report.lines": (\[.*?\n\s*\])', ended.output, re.DOTALL)
    assert found, ended.output
    return t.cast("list[str]", json.loads(found[1]))


def line_of(report: list[str], name: str) -> str:
    return next((line for line in report if line.startswith(f"{name} ")), "")


def answered(farm: Farm) -> list[str] | None:
    """Return the report if client1 answered within the time that a machine is given: this host may be busy."""
    report = lines(farm.play("status", timeout=90).ok())
    line = line_of(report, "client1")
    return report if re.fullmatch(r"client1  full     1/1   \d+\.\d\d \d+\.\d\d \d+\.\d\d", line) else None


def test_status(idle: Farm, tmp_path: pathlib.Path) -> None:
    farm, (_client1, _client2, client3) = idle, idle.cluster.clients
    make_source(tmp_path, RUNNING, gate=True, commands=["echo never reached"])
    dispatch = farm.start("dispatch", package=RUNNING, sourcedir=str(tmp_path))
    try:
        wait_for_gates(farm.cluster, 1, [dispatch])
        farm.play("hold", package="pb-null", reason="its tests eat the disk").ok()
        farm.play("drain", machine="client2", reason="new disks").ok()
        client3.freeze()
        try:
            report = wait_for(lambda: answered(farm), "client1 to answer in time", timeout=180)
        finally:
            client3.thaw()
        assert re.search(r"offline  0/2 .* new disks$", line_of(report, "client2"))
        assert "client3 cannot be reached: no answer" in line_of(report, "client3")
        assert re.search(r"bookworm  client1  build  .* s  .*gate", line_of(report, RUNNING))
        assert re.search(r" its tests eat the disk$", line_of(report, "pb-null"))

        told = farm.play("status", ask_machines=False).ok()
        assert re.search(r"bookworm  client1  +\d", line_of(lines(told), RUNNING))
    finally:
        open_gates(farm.cluster)
        farm.play("undrain", machine="client2").ok()
        farm.play("unhold", package="pb-null").ok()
        dispatch.end().ok()
    assert "Nothing runs." in lines(farm.play("status").ok())
