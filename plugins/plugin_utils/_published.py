# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A tarball of the branch on the controller, and beside it the facts that say which one it is.

The facts are written last: until then the old ones name another size or sum, which readers and every client refuse;
nobody builds in a mixture.
"""

from __future__ import annotations

import os
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import read_json, refuse_newer, write_json
from ..module_utils._names import check_sha256

SCHEMA = 1  # of the facts


class Published(t.NamedTuple):
    """A tarball on the controller."""

    path: str
    sha256: str
    size: int
    facts: dict[str, t.Any]


def read_published(path: str, facts_path: str, *, missing: PortbuildError, remedy: str) -> Published:
    """Return the tarball, or raise C(missing) if there is none, one of its kind with the C(remedy) if it is another."""
    try:
        facts = read_json(facts_path)
        refuse_newer(facts, SCHEMA, facts_path)
        found = Published(path, check_sha256(facts.get("sha256")), os.stat(path).st_size, facts)
    except (FileNotFoundError, NotADirectoryError):
        raise missing from None
    if found.size != facts.get("size"):
        raise type(missing)(f"{path} has {found.size} bytes, {facts_path} says {facts.get('size')!r}.", remedy=remedy)
    return found


def publish(temporary: str, path: str, facts_path: str, facts: dict[str, t.Any]) -> None:
    """Put the tarball in place, then the facts."""
    os.replace(temporary, path)
    write_json(facts_path, {"schema": SCHEMA, **facts})
