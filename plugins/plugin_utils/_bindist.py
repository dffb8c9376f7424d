# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The branch's bindist as it stands on the controller: the tarball, and the facts that say which one it is."""

from __future__ import annotations

import os
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import sha256_file
from ._layout import Layout
from ._published import publish, Published, read_published


class NoBindist(PortbuildError):
    """The branch has no bindist that chroots could be populated from."""


def read_bindist(layout: Layout) -> Published:
    """Return the branch's current bindist, or raise NoBindist."""
    missing = NoBindist(
        f"Branch {layout.branch} of {layout.arch} has no bindist ({layout.bindist}).",
        remedy="Make one with the playbook portbuild.cluster.bindist, then give it to the machines with "
        "portbuild.cluster.setup.",
    )
    remedy = "Make it anew: portbuild.cluster.bindist with portbuild_bindist_rebuild."
    return read_published(layout.bindist, layout.bindist_facts, missing=missing, remedy=remedy)


def publish_bindist(layout: Layout, temporary: str, facts: dict[str, t.Any]) -> Published:
    """Put a tarball that has arrived in place, if it is the one that was announced."""
    found = {"sha256": sha256_file(temporary), "size": os.stat(temporary).st_size}
    announced = {key: facts.get(key) for key in found}
    if found != announced:
        raise NoBindist(f"The bindist that arrived is {found}, announced was {announced}.", remedy="Make it again.")
    publish(temporary, layout.bindist, layout.bindist_facts, facts)
    return read_bindist(layout)
