# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import pathlib

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._port_tree import NoTree, publish_tree, read_tree


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    layout = Layout(str(tmp_path), "amd64", "14")
    pathlib.Path(layout.tarballs).mkdir(parents=True)
    return layout


def arrived(layout: Layout, content: bytes = b"a tarball") -> str:
    path = pathlib.Path(layout.tarballs, ".arriving")
    path.write_bytes(content)
    return str(path)


def test_what_was_published_is_read(layout: Layout) -> None:
    published = publish_tree(layout, arrived(layout), {"revision": "r1"})
    assert read_tree(layout) == published
    assert published.sha256 == hashlib.sha256(b"a tarball").hexdigest()
    assert published.facts["revision"] == "r1"


def test_a_branch_without_tree_says_what_to_do(layout: Layout) -> None:
    with pytest.raises(NoTree, match="portbuild_tree"):
        read_tree(layout)


def test_a_tarball_that_is_not_the_one_of_the_facts_is_refused(layout: Layout) -> None:
    publish_tree(layout, arrived(layout), {})
    pathlib.Path(layout.tree).write_bytes(b"cut")
    with pytest.raises(NoTree, match="has 3 bytes"):
        read_tree(layout)
