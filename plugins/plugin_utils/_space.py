# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Room on the controller's disk: a full one must cost time, never results."""

from __future__ import annotations

import collections.abc as c
import contextlib
import errno
import os

from ..module_utils._errors import PortbuildError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_RESULTS_STAY = (
    "Make room there; the results stay on the build machine and are collected by the next dispatch of the package, "
    "cleanup or checkmachines."
)


class ControllerDiskFull(PortbuildError):
    """The controller has no room for what is to be written."""


def human_size(size: float) -> str:
    """Return the size as a person reads it."""
    for unit in _UNITS:
        if abs(size) < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def free_bytes(path: str) -> int:
    """Return what this user may still write to the file system that holds the path, which need not exist yet."""
    while True:
        try:
            status = os.statvfs(path)
        except FileNotFoundError:
            parent = os.path.dirname(path)
            if parent == path:
                raise
            path = parent or "."
        else:
            return status.f_bavail * status.f_frsize


def disk_full(path: str, *, needed: int, min_free: int, free: int, remedy: str = _RESULTS_STAY) -> ControllerDiskFull:
    """Return the error that says what is missing where."""
    demands = [f"{human_size(needed)} are to be written"] if needed else []
    demands += [f"{human_size(min_free)} must stay free (portbuild_min_free)"] if min_free else []
    wanted = f", {' and '.join(demands)}" if demands else ""
    return ControllerDiskFull(
        f"The controller's disk is full: {path} has {human_size(free)} free{wanted}.",
        remedy=remedy,
        details={
            "reason": "controller_disk",
            "path": path,
            "free": free,
            "needed": needed,
            "min_free": min_free,
        },
    )


def check_space(path: str, *, needed: int = 0, min_free: int = 0, remedy: str = _RESULTS_STAY) -> int:
    """Return the free bytes, or raise ControllerDiskFull unless C(min_free) would be left after writing C(needed)."""
    free = free_bytes(path)
    if free - needed < min_free:
        raise disk_full(path, needed=needed, min_free=min_free, free=free, remedy=remedy)
    return free


@contextlib.contextmanager
def full_disk_is_named(path: str, *, needed: int = 0, min_free: int = 0) -> c.Iterator[None]:
    """Turn "no space left on device" and its kin into ControllerDiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise disk_full(path, needed=needed, min_free=min_free, free=free_bytes(path)) from error
