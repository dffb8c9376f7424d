# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A look at a machine by machine_info, with what the controller expects of it."""

from __future__ import annotations

import contextlib
import time
import typing as t

from ._bindist import NoBindist, read_bindist
from ._context import StepContext
from ._port_tree import NoTree, read_tree
from ._settings import Settings
from ._step import StepAction
from ._text import number_of

Facts = dict[str, t.Any]
LIMIT = 120.0  # seconds for the answer


class Current(t.NamedTuple):
    """The SHA-256 of the tarballs that the branch builds with now, as far as there are any."""

    bases: list[str]
    trees: list[str]


def current_tarballs(context: StepContext, *, needed_only: bool = True) -> Current:
    """Return which bindist and tree are current; with C(needed_only) the tree only if the package system has one."""
    current = Current([], [])
    with contextlib.suppress(NoBindist):
        current.bases.append(read_bindist(context.layout).sha256)
    if context.system.needs_tree or not needed_only:
        with contextlib.suppress(NoTree):
            current.trees.append(read_tree(context.layout).sha256)
    return current


def wishes(settings: Settings, current: Current) -> Facts:
    """Return what the machine should be like."""
    return {
        "scratchdir": settings.scratchdir,
        "maxjobs": settings.maxjobs,
        "client_user": settings.client_user,
        "backend": settings.chroot_backend,
        "min_free": settings.machine_min_free,
        **current._asdict(),
    }


def look(
    step: StepAction,
    wanted: Facts,
    task_vars: Facts,
    *,
    machine: str,
    max_clock_offset: float,
    limit: float = LIMIT,
) -> Facts:
    """Return what the machine says of itself, and how its clock compares with ours."""
    asked = time.time()
    reply = step.remote("machine_info", wanted, task_vars, machine=machine, limit=limit)
    answered = time.time()
    clock = number_of(reply["clock"].get("seconds"))  # one that cannot be right is 0, and far off
    # The client read its clock at some moment in between; what is nearer to zero is true for one of them.
    offset = clock - min(max(clock, asked), answered)
    reply["clock_offset"] = round(offset, 3)
    if abs(offset) > max_clock_offset:
        reply["fit"] = False
        reply["unfit"].append(f"Its clock is {offset:+.0f} s off the controller's; set it, for example by NTP.")
    return reply
