# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killing the processes of a playbook that runs: all of them, or one of a kind."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Running


def children(pid: int) -> set[int]:
    """Return the process and all below it."""
    found, left = {pid}, [pid]
    while left:
        parent = left.pop()
        for path in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                more = {int(word) for word in path.read_text(encoding="ascii").split()} - found
            except OSError:
                continue
            found |= more
            left += more
    return found


def kill(running: Running, whom: str) -> None:
    """Kill ansible-playbook alone, the process of the bulk build alone, or everything at once.

    Or one dispatch alone, and the rest a moment later.
    """
    pids = children(running.pid)
    if whom == "dispatch":
        for pid in sorted(pid for pid in pids if b"portbuild.cluster.dispatch" in command_line(pid))[:1]:
            os.kill(pid, signal.SIGKILL)
        time.sleep(3.0)
        whom = "main"
    bulks = {pid for pid in pids if b"_bulk_child" in command_line(pid)}
    if whom == "main" or (whom == "child" and not bulks):
        running.kill()
        return
    for pid in bulks if whom == "child" else pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.end(120)


def command_line(pid: int) -> bytes:
    """Return the words of the process; none when it has gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
