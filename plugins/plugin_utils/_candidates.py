# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which build machines a job may go to."""

from __future__ import annotations

import collections.abc as c
import difflib
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._names import check_machine
from ._queue import Candidate

GROUP = "build_machines"


def find_candidates(
    machines: c.Sequence[str] | None,
    inventory: c.Sequence[str],
    maxjobs: c.Callable[[str], int],
) -> tuple[list[Candidate], dict[str, str]]:
    """Return the candidates, best first, and why other machines are none.

    C(machines) is what mlist says, C(None) where there is no mlist: then the inventory's order is the order of
    preference. Whether a machine is in the queue directory is for the queue to say, under its lock.
    """
    others: dict[str, str] = {}
    known = set(inventory)
    if machines is None:
        wanted = list(inventory)
    else:
        wanted = [name for name in machines if name in known]
        listed = set(machines)
        others.update(
            {
                name: f"It stands in mlist but not in the inventory group {GROUP}."
                for name in machines
                if name not in known
            }
        )
        others.update(
            {
                name: f"It is in the inventory group {GROUP} but not in mlist."
                for name in inventory
                if name not in listed
            }
        )
    candidates = []
    for name in wanted:
        try:
            limit = maxjobs(check_machine(name))
        except PortbuildError as error:  # one machine's bad settings are no reason to use none
            others[name] = str(error)
            continue
        if limit > 0:
            candidates.append(Candidate(name, limit))
        else:
            others[name] = "Its maxjobs is 0."
    return candidates, others


class UnknownMachine(PortbuildError):
    """A machine that nobody has heard of."""


def check_known(machine: str, known: c.Collection[str]) -> str:
    """Return the machine if it is known, or raise UnknownMachine with the nearest name that is."""
    if machine in known:
        return machine
    near = difflib.get_close_matches(machine, sorted(known), 1)
    raise UnknownMachine(
        f"There is no machine {machine}, neither in the queue nor in the inventory group {GROUP}.",
        remedy=f"Is {near[0]} meant?" if near else f"Known are: {', '.join(sorted(known)[:20]) or 'none'}.",
    )


def inventory_machines(task_vars: c.Mapping[str, t.Any]) -> list[str]:
    """Return the hosts of the group of build machines in the inventory's order."""
    return [str(name) for name in task_vars.get("groups", {}).get(GROUP, [])]


def variables_of(task_vars: c.Mapping[str, t.Any], machine: str) -> c.Mapping[str, t.Any]:
    """Return what the inventory says of the host; nothing when it does not know it.

    C(hostvars.get) makes an undefined value of a host that is not there, which is an error outside of templates.
    """
    hosts = task_vars["hostvars"]
    found: c.Mapping[str, t.Any] = hosts[machine] if machine in hosts else {}  # noqa: SIM401
    return found
