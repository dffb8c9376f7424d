# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The branch's tree of recipes as it stands on the controller: the tarball, and the facts that say which one it is."""

from __future__ import annotations

import os
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import read_json, sha256_file, write_json
from ..module_utils._names import check_sha256
from ._layout import Layout

SCHEMA = 1


class NoTree(PortbuildError):
    """The branch has no tree that could be built from."""


class Tree(t.NamedTuple):
    """A tree on the controller."""

    path: str
    sha256: str
    size: int
    facts: dict[str, t.Any]


def read_tree(layout: Layout) -> Tree:
    """Return the branch's current tree, or raise NoTree."""
    try:
        facts = read_json(layout.tree_facts)
        tree = Tree(layout.tree, check_sha256(facts.get("sha256")), os.stat(layout.tree).st_size, facts)
    except (FileNotFoundError, NotADirectoryError):
        raise NoTree(
            f"Branch {layout.branch} of {layout.arch} has no tree ({layout.tree}).",
            remedy="Say with portbuild_tree where it comes from (a directory, a tarball, or git), and run the playbook "
            "portbuild.cluster.setup.",
        ) from None
    if tree.size != facts.get("size"):
        raise NoTree(
            f"{layout.tree} has {tree.size} bytes, {layout.tree_facts} says {facts.get('size')!r}.",
            remedy=f"Remove {layout.tree_facts} and run the playbook portbuild.cluster.setup.",
        )
    return tree


def publish_tree(layout: Layout, temporary: str, facts: dict[str, t.Any]) -> Tree:
    """Put a tarball in place, with its SHA-256 and size added to the facts: source, revision, made.

    The facts are written last: until then the old ones name another size or sum, which read_tree and every client
    refuse; nobody builds in a mixture.
    """
    found = {"schema": SCHEMA, "sha256": sha256_file(temporary), "size": os.stat(temporary).st_size}
    os.chmod(temporary, 0o644)
    os.replace(temporary, layout.tree)
    write_json(layout.tree_facts, {**facts, **found})
    return read_tree(layout)
