# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the controller may get rid of: logs and work directories beyond their age, and what the dead have left."""

from __future__ import annotations

import collections.abc as c
import contextlib
import glob
import os
import stat
import typing as t

from ._layout import Layout
from ._record import INCOMING, OLD_LOGS
from ._temporary import dead_directories, remove_dead

DAY = 86400.0
ABANDONED_DAYS = 30.0  # for a log that came home of a build that nobody recorded


class Old(t.NamedTuple):
    """A file, or a directory with all that is in it, that goes, and why."""

    path: str
    why: str
    directory: bool = False


def find_old(layout: Layout, *, log_days: int, workdir_days: int, now: float) -> list[Old]:
    """Return the files beyond their age, oldest names first, and what bulk builds have left that were killed.

    With 0 days nothing of the kind is beyond its age.
    """
    places = (
        (os.path.join(layout.logs, OLD_LOGS), ".log.gz", log_days, "This log of an earlier build"),
        (os.path.join(layout.logs, INCOMING), ".log", ABANDONED_DAYS, "This log, of a build that nobody has recorded,"),
        (layout.workdirs, "", workdir_days, "This work directory"),
    )
    found = []
    for directory, suffix, days, what in places:
        for path, age in _files(directory, suffix, now) if days else ():
            if age > days * DAY:
                found.append(Old(path, f"{what} is {age / DAY:.0f} days old, {days:g} are allowed."))
    return [*found, *_left_by_bulk(layout)]


def _left_by_bulk(layout: Layout) -> c.Iterator[Old]:
    """Yield what bulk builds have left that were killed: their dispatches' variables are in it."""
    for base in sorted(glob.glob(os.path.join(glob.escape(layout.bulk), "runs.*"))):
        for path in dead_directories(base):
            yield Old(path, "A bulk build that was killed has left it.", directory=True)


def _files(directory: str, suffix: str, now: float) -> c.Iterator[tuple[str, float]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and entry.name.endswith(suffix) and not entry.name.startswith("."):
                yield entry.path, now - status.st_mtime


def remove_old(old: c.Iterable[Old]) -> list[str]:
    """Remove the files; return what could not be, and why."""
    problems = []
    for path, _why, directory in old:
        try:
            if directory:
                remove_dead(os.path.dirname(path))
            else:
                os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{path} cannot be removed: {error.strerror}.")
    return problems
