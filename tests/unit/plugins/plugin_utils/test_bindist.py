# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import pathlib

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._files import NewerFile
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import NoBindist, publish_bindist, read_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout

CONTENT = b"a tarball"
FACTS = {"schema": 1, "sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    layout = Layout(str(tmp_path), "amd64", "14")
    pathlib.Path(layout.tarballs).mkdir(parents=True)
    return layout


def arrived(layout: Layout, content: bytes = CONTENT) -> str:
    path = pathlib.Path(layout.tarballs, ".arriving")
    path.write_bytes(content)
    return str(path)


def test_what_was_published_is_read(layout: Layout) -> None:
    published = publish_bindist(layout, arrived(layout), dict(FACTS))
    assert read_bindist(layout) == published
    assert published.sha256 == FACTS["sha256"]


def test_what_is_not_as_announced_is_refused_and_the_old_one_stays(layout: Layout) -> None:
    before = publish_bindist(layout, arrived(layout), dict(FACTS))
    with pytest.raises(NoBindist, match="announced"):
        publish_bindist(layout, arrived(layout, b"another"), dict(FACTS))
    assert read_bindist(layout) == before


def test_a_branch_without_bindist_says_how_to_make_one(layout: Layout) -> None:
    with pytest.raises(NoBindist, match=r"portbuild\.cluster\.bindist"):
        read_bindist(layout)


def test_a_tarball_that_is_not_the_one_of_the_facts_is_refused(layout: Layout) -> None:
    publish_bindist(layout, arrived(layout), dict(FACTS))
    pathlib.Path(layout.bindist).write_bytes(b"cut")
    with pytest.raises(NoBindist, match="has 3 bytes"):
        read_bindist(layout)


def test_facts_of_a_later_version_are_refused(layout: Layout) -> None:
    publish_bindist(layout, arrived(layout), dict(FACTS))
    pathlib.Path(layout.bindist_facts).write_text(json.dumps({**FACTS, "schema": 2}), encoding="utf-8")
    with pytest.raises(NewerFile, match=rf"{layout.bindist_facts} was written by a later version"):
        read_bindist(layout)
