# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""FreeBSD: jails and mounts, which do not vanish with the process that made them: ending them, and finding those left.

Everything may be repeated, and may meet somebody else who does the same: what counts is that nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import typing as t

from . import _freebsd
from ._errors import PortbuildError
from ._freebsd import Jail
from ._process import check_run, CommandError, run
from ._trees import mounts_below

_KILL_SECONDS = 10.0
_REMOVE_SECONDS = 30.0  # jail -r waits ten for a process that ignores SIGTERM
_UNMOUNT_SECONDS = 60.0
_UNMOUNT_ROUNDS = 5
_PAUSE = 0.02
_MUCH = 1 << 24  # of output: a large machine has many processes and mounts


class RemainsStuck(PortbuildError):
    """A jail or a mount that cannot be got rid of."""


def all_jails() -> list[Jail]:
    """Return the jails of this host."""
    return _freebsd.parse_jails(check_run(_freebsd.list_jails(), "Listing the jails", timeout=30, limit=_MUCH).stdout)


def find_jail(name: str) -> Jail | None:
    """Return the jail of this name, if there is one."""
    return next((jail for jail in all_jails() if jail.name == name), None)


def processes_in(jid: int) -> list[_freebsd.Process]:
    """Return the processes in a jail."""
    text = check_run(_freebsd.list_processes(), "Listing the processes", timeout=30, limit=_MUCH).stdout
    return [process for process in _freebsd.parse_processes(text) if process.jid == jid]


def kill_processes(jail: Jail) -> None:
    """Kill everything in a jail, now.

    The program that does it at one stroke is the jail's own, which a hostile build may have replaced. So what is left
    after it, and after a bounded time, is killed one by one from outside.
    """
    with contextlib.suppress(CommandError):
        run(_freebsd.kill_in_jail(jail.name), timeout=_KILL_SECONDS / 2)
    deadline = time.monotonic() + _KILL_SECONDS
    while left := processes_in(jail.jid):
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in left[:10])
            raise RemainsStuck(
                f"Processes in the jail {jail.name} cannot be killed: {pids}.", remedy="Reboot the machine."
            )
        time.sleep(_PAUSE)


def end_jail(jail: Jail) -> None:
    """Kill everything in a jail and remove it."""
    kill_processes(jail)
    done = run(_freebsd.remove_jail(jail.name), timeout=_REMOVE_SECONDS)
    if done.rc != 0 and find_jail(jail.name) is not None:  # else somebody was quicker
        raise RemainsStuck(f"The jail {jail.name} cannot be removed: {done.stderr.strip()[-500:]}")


def unmount(points: t.Sequence[str]) -> None:
    """Unmount these, in this order; what is not mounted (any more) is none of our business."""
    if points and run(_freebsd.unmount(*points), timeout=_UNMOUNT_SECONDS).rc != 0:
        wanted = set(points)
        _insist(lambda: [point for point in _mounted_last_first() if point in wanted])


def unmount_below(path: str) -> None:
    """Unmount everything at or below a path (which must be resolved), what was mounted last first."""
    _insist(lambda: mounts_below(path))


def _mounted_last_first() -> list[str]:
    return mounts_below("/")


def _insist(find: t.Callable[[], list[str]]) -> None:
    said = ""
    for _round in range(_UNMOUNT_ROUNDS):
        points = find()
        if not points:
            return
        done = run(_freebsd.unmount(*points), timeout=_UNMOUNT_SECONDS)
        said = done.stderr.strip()[-500:]
        if done.rc != 0:
            time.sleep(_PAUSE)
    left = find()
    if left:
        raise RemainsStuck(f"{', '.join(left[:5])} cannot be unmounted: {said}", remedy="See who uses it: fstat -f")


def jails_of(chroot: str, jails: t.Iterable[Jail]) -> list[Jail]:
    """Return the jails of a chroot, whose path must be resolved.

    They are known by the numbers of its directory, which stay when it is moved, or by their path.
    """
    status = os.stat(chroot)
    prefix = _freebsd.chroot_jails(status.st_dev, status.st_ino)
    return [jail for jail in jails if jail.name.startswith(prefix) or _is_below(jail.path, chroot)]


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def clear(chroot: str) -> None:
    """End the jails of a chroot and unmount what is mounted in it. Its lock must be ours: no supervisor lives."""
    path = os.path.realpath(chroot)
    if path == "/" or not os.path.isdir(path):
        return
    for jail in jails_of(path, all_jails()):
        end_jail(jail)
    unmount_below(path)


# Where chroots are or were: elsewhere in the scratch directory an administrator may have mounted something.
_OURS = ("chroots", "kept", "trash", "spares", "bases")


def find_strays(scratch: str, living: t.Collection[str]) -> tuple[list[Jail], list[str]]:
    """Return jails and mounts below the scratch directory that do not belong to one of the C(living) chroots."""
    top = os.path.realpath(scratch)
    if top == "/":
        return [], []
    ours = [os.path.join(top, name) for name in _OURS]
    alive = [os.path.realpath(path) for path in living]

    def stray(path: str) -> bool:
        return any(_is_below(path, place) for place in ours) and not any(_is_below(path, chroot) for chroot in alive)

    return [jail for jail in all_jails() if stray(jail.path)], [path for path in mounts_below(top) if stray(path)]


def remove_strays(jails: t.Iterable[Jail], mounts: t.Sequence[str]) -> None:
    """End these jails, and unmount."""
    for jail in jails:
        end_jail(jail)
    unmount(mounts)
