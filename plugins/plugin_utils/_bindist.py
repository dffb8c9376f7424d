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
from ..module_utils._files import read_json, sha256_file, write_json
from ..module_utils._names import check_sha256
from ._layout import Layout


class NoBindist(PortbuildError):
    """The branch has no bindist that chroots could be populated from."""


class Bindist(t.NamedTuple):
    """A bindist on the controller."""

    path: str
    sha256: str
    size: int
    facts: dict[str, t.Any]


def read_bindist(layout: Layout) -> Bindist:
    """Return the branch's current bindist, or raise NoBindist."""
    try:
        facts = read_json(layout.bindist_facts)
        bindist = Bindist(layout.bindist, check_sha256(facts.get("sha256")), os.stat(layout.bindist).st_size, facts)
    except (FileNotFoundError, NotADirectoryError):
        raise NoBindist(
            f"Branch {layout.branch} of {layout.arch} has no bindist ({layout.bindist}).",
            remedy="Make one with the playbook portbuild.cluster.bindist, then give it to the machines with "
            "portbuild.cluster.setup.",
        ) from None
    if bindist.size != facts.get("size"):
        raise NoBindist(
            f"{layout.bindist} has {bindist.size} bytes, {layout.bindist_facts} says {facts.get('size')!r}.",
            remedy="Make it anew: portbuild.cluster.bindist with portbuild_bindist_rebuild.",
        )
    return bindist


def publish_bindist(layout: Layout, temporary: str, facts: dict[str, t.Any]) -> Bindist:
    """Put a tarball that has arrived in place, if it is the one that was announced.

    The facts are written last: until then the old ones name another size or sum, which read_bindist and every client
    refuse; nobody builds in a mixture.
    """
    found = {"sha256": sha256_file(temporary), "size": os.stat(temporary).st_size}
    announced = {key: facts.get(key) for key in found}
    if found != announced:
        raise NoBindist(f"The bindist that arrived is {found}, announced was {announced}.", remedy="Make it again.")
    os.replace(temporary, layout.bindist)
    write_json(layout.bindist_facts, facts)
    return read_bindist(layout)
