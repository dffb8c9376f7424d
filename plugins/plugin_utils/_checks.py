# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What follows from a look at a machine: whether it goes offline, comes back, or waits. Pure, but for two small files.

A machine that was lost and answers again comes back at once the first time, and later and later if that goes on: after
2 minutes, 4, 8, up to 6 hours. A quiet day is forgiveness.
"""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ..module_utils._files import BadFile, read_json, write_json
from ._queue import CHECK, MachineState
from ._text import number_of, one_line

FIRST_PAUSE = 120.0
LONGEST_PAUSE = 6 * 3600.0
QUIET = 86400.0
_MANY = 64  # outages beyond which nothing changes any more

Standing = t.Literal["absent", "in", "ours", "theirs"]
Action = t.Literal["none", "take_out", "wait", "return"]


@dataclasses.dataclass(frozen=True)
class History:
    """How often the machine was lost since its last quiet day, when it was last lost and returned, and its boot then.

    C(told) is since when it was offline when people were last told that it is.
    """

    outages: int = 0
    lost: float = 0.0
    returned: float = 0.0
    boot_id: str = ""
    told: float = 0.0

    @property
    def away(self) -> bool:
        """Whether the machine was lost, and has not been seen back."""
        return self.lost > self.returned

    @property
    def outage(self) -> float:
        """Since when it is away, as people were told, or when it was last lost if they were not."""
        return self.told if self.told > self.returned else self.lost

    def after_loss(self, now: float) -> History:
        """Return the history of a machine that goes offline now, or that failed to come back."""
        quiet = 0 < self.returned <= now - QUIET and self.lost <= self.returned
        return dataclasses.replace(self, outages=1 if quiet else min(self.outages + 1, _MANY), lost=now)

    def after_return(self, now: float, boot_id: str) -> History:
        """Return the history of a machine that comes back now."""
        return dataclasses.replace(self, returned=now, boot_id=boot_id)

    def welcome(self, now: float) -> float:
        """Return when the machine may come back. A loss in the future was a wrong clock."""
        return min(self.lost, now) + pause(self.outages)


def pause(outages: int) -> float:
    """Return how many seconds a machine waits that was lost so many times."""
    return 0.0 if outages <= 1 else min(FIRST_PAUSE * 2 ** (min(outages, _MANY) - 2), LONGEST_PAUSE)


def read_history(path: str) -> History:
    """Return the history in the file. What is missing or malformed is as if nothing had ever happened."""
    try:
        value = read_json(path, limit=1 << 16)
    except (OSError, BadFile):
        return History()
    return History(
        outages=min(int(number_of(value.get("outages"))), _MANY),
        lost=number_of(value.get("lost")),
        returned=number_of(value.get("returned")),
        boot_id=one_line(value.get("boot_id"), 64),
        told=number_of(value.get("told")),
    )


def write_history(path: str, history: History) -> None:
    """Write the history."""
    write_json(path, dataclasses.asdict(history), durable=False)


def standing(state: MachineState | None) -> Standing:
    """Return how the machine stands in the queue: taken out by a check, by somebody else, or not at all."""
    if state is None:
        return "absent"
    if state.offline is not None:
        return "ours" if state.offline.get("by") == CHECK else "theirs"
    return "theirs" if state.state in ("offline", "unusable") else "in"


def decide(stands: Standing, problem: str, history: History, now: float) -> tuple[Action, str]:
    """Return what is to be done about a machine with this problem, if any, and why."""
    if stands == "absent":
        return "none", "is not in the queue: run the setup playbook for it"
    if problem:
        if stands == "theirs":
            return "none", f"was taken out of the queue by hand, and has a problem besides: {problem}"
        return "take_out", problem
    if stands == "theirs":
        return "none", "is fit, but was taken out of the queue by hand"
    if stands == "in":
        return "none", "is fit"
    if now < history.welcome(now):
        until = time.strftime("%H:%M:%S", time.gmtime(history.welcome(now)))
        return "wait", f"answers again, but was lost {history.outages} times lately: it comes back at {until} UTC"
    return "return", "answers again"
