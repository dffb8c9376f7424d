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
from ..module_utils._files import sha256_file
from ._layout import Layout
from ._published import publish, Published, read_published


class NoTree(PortbuildError):
    """The branch has no tree that could be built from."""


def read_tree(layout: Layout) -> Published:
    """Return the branch's current tree, or raise NoTree."""
    missing = NoTree(
        f"Branch {layout.branch} of {layout.arch} has no tree ({layout.tree}).",
        remedy="Say with portbuild_tree where it comes from (a directory, a tarball, or git), and run the playbook "
        "portbuild.cluster.setup.",
    )
    remedy = f"Remove {layout.tree_facts} and run the playbook portbuild.cluster.setup."
    return read_published(layout.tree, layout.tree_facts, missing=missing, remedy=remedy)


def publish_tree(layout: Layout, temporary: str, facts: dict[str, t.Any]) -> Published:
    """Put a tarball in place, with its SHA-256 and size added to the facts: source, revision, made."""
    found = {"sha256": sha256_file(temporary), "size": os.stat(temporary).st_size}
    os.chmod(temporary, 0o644)
    publish(temporary, layout.tree, layout.tree_facts, {**facts, **found})
    return read_tree(layout)
