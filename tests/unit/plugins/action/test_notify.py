# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step that tells people and hooks: a slow hook holds a lease, and must not lose it."""

from __future__ import annotations

import os
import pathlib
import types
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.action.notify import ActionModule
from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _step
from ansible_collections.portbuild.cluster.plugins.plugin_utils._candidates import Candidate
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import lease_facts, StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner


def notify(context: StepContext, events: list[dict[str, t.Any]], lease: dict[str, t.Any] | None) -> dict[str, t.Any]:
    """Return the facts of the step."""
    step: t.Any = ActionModule.__new__(ActionModule)
    step._task = types.SimpleNamespace(check_mode=False)
    step.context = lambda *_unused, **_named: context
    arguments = {"lease": lease, "events": events, "blocks": None, "blocked": []}
    return t.cast("dict[str, t.Any]", step.step(arguments, {}))


def make_context(root: pathlib.Path, script: str) -> StepContext:
    hook = root / "hook"
    hook.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    hook.chmod(0o755)
    where = {"root": str(root / "root"), "arch": "amd64", "branch": "14", "system": "debian", "hook": str(hook)}
    context = StepContext({f"portbuild_{name}": value for name, value in where.items()})
    for directory in context.layout.directories:
        os.makedirs(directory, exist_ok=True)
    return context


def test_a_slow_hook_loses_no_lease(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_step, "RENEW_INTERVAL", 0.05)
    context = make_context(tmp_path, "sleep 0.5")
    queue, job = context.queue, Job("amd64", "14", "foo")
    queue.enter("a1", 1)
    claimed = queue.claim(job, [Candidate("a1", 1)], Owner.of(os.getpid()), wait=0)
    lease = lease_facts(claimed, queue.id())
    event = {"event": "failure", "package": "foo", "token": claimed.token}
    assert notify(context, [event], lease)["problems"] == []
    found = queue.find(job)
    assert found is not None
    assert found.renewed > claimed.renewed + 0.2
    queue.release(claimed)
    assert notify(context, [{**event, "token": 99}], lease)["problems"] == []  # told though the lease is gone
    assert len(list(pathlib.Path(context.layout.spool, "hooked").iterdir())) == 2
