# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import types
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils import _requests
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._requests import asked_for
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems._debian import Debian
from ansible_collections.portbuild.cluster.tests.conftest import CHECKOUT

LEASE = {"arch": "debian", "branch": "bookworm", "package": "pb-null", "machine": "a1", "queue": "q", "token": 7}


def asked(root: pathlib.Path, sources: pathlib.Path, **variables: t.Any) -> str:
    about = {"root": str(root), "arch": "debian", "branch": "bookworm", "system": "debian", "package": "pb-null"}
    wanted = {**about, "sourcedir": str(sources), **variables}
    context = StepContext({f"portbuild_{name}": value for name, value in wanted.items()}, package="pb-null")
    return asked_for(context, LEASE)


@pytest.fixture
def sources(tmp_path: pathlib.Path) -> pathlib.Path:
    target = tmp_path / "sources"
    source = CHECKOUT / "tests" / "sources" / "pb-null" / "debian"
    (target / "pb-null").mkdir(parents=True)
    (target / "pb-null" / "debian").mkdir()
    for path in source.iterdir():
        if path.is_file():
            (target / "pb-null" / "debian" / path.name).write_bytes(path.read_bytes())
    return target


def test_the_same_wish_is_known_again(tmp_path: pathlib.Path, sources: pathlib.Path) -> None:
    assert asked(tmp_path, sources) == asked(tmp_path, sources)
    assert asked(tmp_path, sources, make_jobs=3, maxjobs=4, timeout="1h") == asked(tmp_path, sources)


@pytest.mark.parametrize(
    "variables",
    [{"version_suffix": "+b1"}, {"build_options": ["nocheck"]}, {"build_profiles": ["nodoc"]}, {"check": "off"}],
)
def test_another_wish_is_another(tmp_path: pathlib.Path, sources: pathlib.Path, variables: dict[str, t.Any]) -> None:
    assert asked(tmp_path, sources, **variables) != asked(tmp_path, sources)


def test_another_source_is_another_wish(tmp_path: pathlib.Path, sources: pathlib.Path) -> None:
    before = asked(tmp_path, sources)
    rules = sources / "pb-null" / "debian" / "rules"
    rules.write_text(rules.read_text(encoding="utf-8") + "# corrected\n", encoding="utf-8")
    assert asked(tmp_path, sources) != before


def test_another_version_is_another_wish(tmp_path: pathlib.Path) -> None:
    empty = tmp_path / "none"
    empty.mkdir()
    any_version = asked(tmp_path, empty)
    assert asked(tmp_path, empty, package="pb-null=1.0") not in (
        any_version,
        asked(tmp_path, empty, package="pb-null=2"),
    )


def test_another_tree_is_another_wish(
    tmp_path: pathlib.Path, sources: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = asked(tmp_path, sources)
    monkeypatch.setattr(Debian, "needs_tree", True)
    answers = []
    for tree in ("1", "2"):
        monkeypatch.setattr(_requests, "read_tree", lambda _layout, tree=tree: types.SimpleNamespace(sha256=tree))
        answers.append(asked(tmp_path, sources))
    assert len({before, *answers}) == 3
