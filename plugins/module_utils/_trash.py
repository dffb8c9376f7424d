# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a build machine throws away: renamed into C(trash/) at once, removed in the background.

Renaming takes no time and frees the path; whatever is killed before the removal is done leaves its rest in
C(trash/), where the next removal finds it.
"""

from __future__ import annotations

import contextlib
import os

from ._beneath import opened
from ._errors import PortbuildError
from ._lock import try_lock
from ._process import detach
from ._spares import reclaim
from ._trees import move_out, open_beneath, remove_entry

TRASH = "trash"
_LOCK = ".lock"


def throw_away(scratch: str, relative: str) -> None:
    """Free the path C(scratch/relative); raises UnsafePath when something is mounted in it. See empty_trash()."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.join(scratch, TRASH), 0o700)
    move_out(scratch, relative, TRASH)


def trash(scratch: str) -> list[str]:
    """Return the names of what waits for its removal."""
    try:
        return sorted(name for name in os.listdir(os.path.join(scratch, TRASH)) if name != _LOCK)
    except FileNotFoundError:
        return []


def empty_trash(scratch: str, *, background: bool = True) -> None:
    """Remove what is in the trash; what cannot be removed stays, for machine_info to report.

    In the C(background), however much it is: a step of a dispatch would count as frozen, and where the disk fills
    because the removal does not keep up, nothing new is claimed.
    """
    if not trash(scratch):
        return
    if background:
        detach(lambda: _empty(scratch))
    else:
        _empty(scratch)


def _empty(scratch: str) -> None:
    """Remove until nothing is left but what failed.

    One process at a time. Who finds the lock held may leave: the holder looks again after it has released it.
    """
    failed: set[str] = set()
    while names := set(trash(scratch)) - failed:
        lock = try_lock(os.path.join(scratch, TRASH, _LOCK))
        if lock is None:
            return
        try:
            with opened(open_beneath(scratch, TRASH)) as directory:
                for name in names:
                    failed |= _remove(scratch, directory, name)
        finally:
            lock.release()


def _remove(scratch: str, directory: int, name: str) -> set[str]:
    with contextlib.suppress(OSError, ValueError, PortbuildError):  # then it is removed like all else
        reclaim(scratch, os.path.join(scratch, TRASH, name))
    try:
        remove_entry(directory, name)
    except FileNotFoundError:
        pass
    except (OSError, PortbuildError):
        return {name}
    return set()
