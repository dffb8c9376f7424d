# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The branch's INDEX and duds as they stand on the controller, and what they were made from."""

from __future__ import annotations

import collections.abc as c
import hashlib
import os
import shutil
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import BadFile, read_json, sha256_file, temporary_name, write_json
from ..module_utils._names import BadName, check_sha256
from ._bindist import read_bindist
from ._context import StepContext
from ._index import Index, read_index
from ._layout import Layout
from ._port_tree import read_tree
from ._record import path_of
from ._store import StoredFile

SCHEMA = 1


class BadIndex(PortbuildError):
    """An INDEX that cannot be the branch's."""

    def __init__(self, message: str, *, remedy: str = "", spoiled: bool = False) -> None:
        blame = {"reason": "bad_index", "infrastructure": False, "spoiled": spoiled}
        super().__init__(message, remedy=remedy, details=blame)


def made_from(context: StepContext) -> str:
    """Return what an INDEX made now is made from: one SHA-256 over the tree, the base and all that changes names."""
    layout, settings = context.layout, context.settings
    digest = hashlib.sha256()
    for part in (
        read_tree(layout).sha256,
        read_bindist(layout).sha256,
        sha256_file(layout.make_conf) if os.path.isfile(layout.make_conf) else "",
        f"no_restricted={settings.no_restricted}",
        f"duds={settings.index_duds}",
    ):
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()


def is_current(layout: Layout, wanted: str) -> bool:
    """Whether the INDEX is there and was made from just this."""
    try:
        facts = read_json(layout.index_facts)
        known = facts.get("schema") == SCHEMA
        return known and facts.get("made_from") == wanted and facts.get("sha256") == sha256_file(layout.index)
    except (FileNotFoundError, NotADirectoryError, BadFile):
        return False


def check_index(path: str, *, spoiled: bool = False) -> Index:
    """Return the INDEX at this path if it can be a branch's, or raise BadIndex."""
    index = read_index(path)
    if not index.entries:
        first = f" {index.problems[0]}" if index.problems else ""
        raise BadIndex(
            f"{path} describes no package.{first}", remedy="It must be an INDEX of 13 fields.", spoiled=spoiled
        )
    return index


def publish_given(layout: Layout, path: str, *, check_mode: bool) -> tuple[bool, Index]:
    """Make the file at this path the branch's INDEX; return whether that changes it, and what is in it."""
    index = check_index(path)
    sha256 = sha256_file(path)
    changed = not os.path.isfile(layout.index) or sha256_file(layout.index) != sha256
    if changed and not check_mode:
        os.makedirs(layout.branch_directory, exist_ok=True)
        temporary = temporary_name(layout.index)
        try:
            shutil.copyfile(path, temporary)
            _put(layout, temporary, {"made_from": "", "source": path}, index)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
    return changed, index


def publish_made(layout: Layout, files: c.Sequence[StoredFile]) -> tuple[list[StoredFile], list[str]]:
    """Put an INDEX in place that has arrived, and the duds with it; return the other files, and what is odd about it.

    C(layout) is C(Layout.for_index). The duds go first: a package must not be tried for the time in between.
    """
    arrived = {file.name: path_of(layout, file) for file in files if file.kind == "package"}
    odd: list[str] = []
    if "INDEX" in arrived:
        index = check_index(arrived["INDEX"], spoiled=True)
        source = _made_from(arrived.get("made-from", ""))
        if "duds" in arrived:
            os.replace(arrived["duds"], layout.duds)
        _put(layout, arrived["INDEX"], {"made_from": source, "source": "make describe"}, index)
        odd = oddities(index)
    return [file for file in files if file.kind != "package"], odd


def oddities(index: Index, count: int = 20) -> list[str]:
    """Return what is to be said of an INDEX, a line each, not more than a person reads."""
    lines = [f"INDEX, {problem}" for problem in index.problems[:count]]
    more = index.problem_count - len(lines)
    return [*lines, f"INDEX: {more} more such lines."] if more > 0 else lines


def _made_from(path: str) -> str:
    """Return what a build machine says the INDEX was made from, if that has the right form."""
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return check_sha256(stream.read(100).strip())
    except (OSError, BadName):
        return ""


def _put(layout: Layout, source: str, facts: dict[str, t.Any], index: Index) -> None:
    """Rename the INDEX into place. The facts are written last: until then they name another SHA-256."""
    sha256 = sha256_file(source)
    os.replace(source, layout.index)
    counts = {"packages": len(index.entries), "problems": index.problem_count}
    write_json(layout.index_facts, {"schema": SCHEMA, "sha256": sha256, **facts, **counts})
