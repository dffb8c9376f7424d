# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A branch on disk, and builds in it, for tests of the store and of what surrounds it."""

from __future__ import annotations

import hashlib
import os
import pathlib
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._record import path_of
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import BuildRecord, Kind, StoredFile

QUEUE = "3f0c"
JOB = Job("amd64", "bookworm", "hello")


def make_layout(root: str | os.PathLike[str]) -> Layout:
    layout = Layout(str(root), JOB.arch, JOB.branch)
    for directory in layout.directories:
        os.makedirs(directory, exist_ok=True)
    return layout


def build(token: int, outcome: t.Literal["success", "failed"] = "success", **more: t.Any) -> BuildRecord:
    fields: dict[str, t.Any] = {
        "queue": QUEUE,
        "token": token,
        "package": JOB.package,
        "machine": "client1",
        "outcome": outcome,
        "reason": "success" if outcome == "success" else "failed",
        "ended": 1000.0 + token,
        "seconds": 10.0,
    }
    return BuildRecord(**{**fields, **more})


def lost(token: int, **more: t.Any) -> BuildRecord:
    """A failure of the infrastructure."""
    return build(token, "failed", reason="lost", infrastructure=True, **more)


def stored(name: str, content: bytes = b"content", kind: Kind = "package", version: str = "") -> StoredFile:
    return StoredFile(kind, name, len(content), hashlib.sha256(content).hexdigest(), version)


def put(layout: Layout, name: str, content: bytes = b"content", kind: Kind = "package") -> StoredFile:
    """A file in its place, as a fetch leaves it."""
    file = stored(name, content, kind)
    path = pathlib.Path(path_of(layout, file))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return file


def put_log(layout: Layout, token: int, text: str = "", package: str = JOB.package) -> StoredFile:
    return put(layout, f"{package}.{token}.log", (text or f"log of build {token}\n").encode(), "log")


def names(directory: str) -> set[str]:
    """What is in the directory, but for an empty directory of arrivals."""
    found = set(os.listdir(directory))
    if ".incoming" in found and not os.listdir(os.path.join(directory, ".incoming")):
        found.remove(".incoming")
    return found
