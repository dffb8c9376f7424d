# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What all ways of making a bindist share: how it appears under its name, and how it is found again."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
import typing as t

from ._errors import PortbuildError
from ._files import BadFile, read_json, sha256_file, write_json

PREFIX = ".bindist."
ABANDONED = 6 * 3600


class BindistError(PortbuildError):
    """A base that cannot be made here."""


class Recipe(t.Protocol):
    """All that decides what the tarball holds."""

    def digest(self) -> str:
        """Return what two equal recipes share."""


class Made(t.NamedTuple):
    """A tarball."""

    path: str
    sha256: str
    size: int
    made: float


def find_bindist(path: str, recipe: Recipe) -> Made | None:
    """Return the tarball at the path if it was made by this recipe and is whole."""
    try:
        record = read_json(f"{path}.json")
        made = Made(path, str(record["sha256"]), int(record["size"]), float(record["made"]))
        whole = record["recipe"] == recipe.digest() and os.path.getsize(path) == made.size
        return made if whole and sha256_file(path) == made.sha256 else None
    except (OSError, BadFile, KeyError, TypeError, ValueError):
        return None


@contextlib.contextmanager
def work_directory(path: str, moment: float) -> t.Iterator[str]:
    """Yield a directory beside the tarball that is to be made, for as long as it is made."""
    directory = os.path.dirname(os.path.abspath(path))
    os.makedirs(directory, exist_ok=True)
    remove_abandoned(directory, moment - ABANDONED)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=directory) as work:
        yield work


def publish(made: str, path: str, recipe: Recipe, facts: dict[str, t.Any], moment: float) -> Made:
    """Give the tarball its name, and remember what it was made from."""
    result = Made(path, sha256_file(made), os.path.getsize(made), moment)
    with contextlib.suppress(OSError):
        os.unlink(f"{path}.json")  # the record of another tarball must not outlive it
    os.chmod(made, 0o644)
    os.replace(made, path)
    record = {"sha256": result.sha256, "size": result.size, "made": result.made}
    write_json(f"{path}.json", {"recipe": recipe.digest(), **record, **facts})
    return result


def remove_abandoned(directory: str, before: float) -> None:
    """Remove what a killed making left behind; a living one is younger."""
    for path in glob.glob(os.path.join(glob.escape(directory), f"{PREFIX}*")):
        with contextlib.suppress(OSError):
            if os.lstat(path).st_mtime < before and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
