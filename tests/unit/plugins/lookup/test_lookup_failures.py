# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup of failures: what it returns, what it refuses, and what it sees while others write."""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError

from ansible_collections.portbuild.cluster.plugins.lookup.failures import LookupModule
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import SqliteStore
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import build, JOB, lost, make_layout

TOLD: dict[str, t.Any] = {
    "failure_class": "missing_header",
    "line_number": 7,
    "line": "a.c:1:1: fatal error: b.h: No such file or directory",
    "phase": "build",
    "detail": "The step build failed with exit status 2.",
}


def look(root: Path, *terms: str, **options: t.Any) -> t.Any:
    """Run the lookup with these options, without the loader that would read them from variables."""
    values = {"root": str(root), "arch": JOB.arch, "branch": JOB.branch, **options}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(LookupModule, "set_options", lambda *_unused, **_dummy: None)
        monkeypatch.setattr(LookupModule, "get_option", lambda _self, name: values[name])
        return LookupModule().run(list(terms), {})


def test_failures_as_documented(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    store = SqliteStore(layout.database)
    store.record(build(1, seconds=30.0))
    store.record(build(2, "failed"))
    store.record(build(3, "failed", **TOLD))
    store.record(lost(4))
    store.record(build(5, "failed", package="libfoo"))
    store.record(build(6, package="libbar"))
    assert [found["package"] for found in look(tmp_path)] == ["libfoo", "hello"]
    assert look(tmp_path, "h?llo", "nowhere") == [
        {
            "package": "hello",
            "first": 1002.0,
            "last": 1003.0,
            "count": 2,
            **TOLD,
            "log": layout.error("hello"),
            "last_success": 1001.0,
            "average_seconds": 30.0,
        }
    ]
    assert [found["package"] for found in look(tmp_path, "lib*")] == ["libfoo"]
    assert look(tmp_path, "lib") == []


def test_nothing_was_built_yet(tmp_path: Path) -> None:
    assert look(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_bad_branch(tmp_path: Path) -> None:
    with pytest.raises(AnsibleLookupError, match="branch"):
        look(tmp_path, branch="../x")


_WRITER = """
import sys
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import SqliteStore
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import build
store, writer = SqliteStore(sys.argv[1]), int(sys.argv[2])
for number in range(1, 13):
    token = writer * 100 + number
    text = f"{writer} {number}"
    outcome = "success" if number % 5 == 0 else "failed"
    store.record(build(token, outcome, package=f"p{writer}", failure_class="" if outcome == "success" else "linker",
                       line_number=number, line=text, detail=text))
"""


def test_several_writers(tmp_path: Path) -> None:
    """Each of five writers fails, succeeds and fails again; whoever looks meanwhile sees whole records."""
    layout = make_layout(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", _WRITER, layout.database]
    running = [subprocess.Popen([*argv, str(number)], env=environment) for number in range(5)]
    while any(process.poll() is None for process in running):
        for found in look(tmp_path):
            writer, number = found["line"].split()
            assert found["package"] == f"p{writer}"
            assert (found["line_number"], found["detail"], found["failure_class"]) == (
                int(number),
                found["line"],
                "linker",
            )
            assert found["count"] == int(number) % 5
    assert [process.returncode for process in running] == [0] * 5
    assert {(found["package"], found["count"], found["line_number"]) for found in look(tmp_path)} == {
        (f"p{number}", 2, 12) for number in range(5)
    }
