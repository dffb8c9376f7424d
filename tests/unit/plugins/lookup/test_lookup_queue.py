# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup: what it returns, what it refuses, and that it changes nothing."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError

from ansible_collections.portbuild.cluster.plugins.lookup.queue import LookupModule
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._queue_yard import ARCH, dead_owner, Yard


@pytest.fixture(name="yard")
def fixture_yard(tmp_path: Path) -> Yard:
    (tmp_path / ARCH).mkdir()
    return Yard(tmp_path / ARCH / "queue", a1=2, a10=1)


def look(yard: Yard, *terms: str, **options: t.Any) -> t.Any:
    """Run the lookup with these options, without the loader that would read them from variables."""
    values = {"root": str(yard.directory.parent.parent), "arch": ARCH, **options}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(LookupModule, "set_options", lambda *_unused, **_dummy: None)
        monkeypatch.setattr(LookupModule, "get_option", lambda _self, name: values[name])
        return LookupModule().run(list(terms), {})


def test_machines_with_leases(yard: Yard) -> None:
    yard.queue.release(yard.claim("left"), hold="kept", reason="noclean")
    lease = yard.claim("one", passed_over=["a10"])
    yard.claim("two", dead_owner(), passed_over=["a1"])
    yard.queue.offline("a10", "fan", "me")
    before = yard.snapshot()
    a1, a10 = look(yard)
    assert yard.snapshot() == before
    assert (a1["machine"], a1["state"], a1["jobs"], a1["maxjobs"], a1["counter"], a1["offline"]) == (
        "a1",
        "free",
        1,
        2,
        1,
        None,
    )
    assert [(item["package"], item["token"], item["alive"], item["state"]) for item in a1["leases"]] == [
        ("one", lease.token, True, "claimed")
    ]
    assert [(item["package"], item["state"], item["reason"]) for item in a1["held"]] == [("left", "kept", "noclean")]
    assert (a10["state"], a10["offline"]["reason"], a10["offline"]["by"]) == ("offline", "fan", "me")
    assert [(item["package"], item["alive"]) for item in a10["leases"]] == [("two", False)]


def test_terms_and_options(yard: Yard) -> None:
    assert [machine["machine"] for machine in look(yard, "a10", "a1")] == ["a10", "a1"]
    with pytest.raises(AnsibleLookupError, match="Not in the queue: a100"):
        look(yard, "a1", "a100")
    assert look(yard, arch="i386") == []
    with pytest.raises(AnsibleLookupError, match="arch"):
        look(yard, arch="../x")
