# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A build in a moment: drives a schedule with a virtual clock and given durations.

What it tells about a plan is true of the run, since it is the same schedule that decides.
"""

from __future__ import annotations

import collections.abc as c
import enum
import heapq
import typing as t

from ._schedule import Dispatch, Schedule


class Outcome(enum.Enum):
    """How a build ends."""

    BUILT = "built"
    FAILED = "failed"
    INFRASTRUCTURE = "infrastructure"


class Build(t.NamedTuple):
    """A build that came to an end."""

    package: str
    machine: str
    start: float
    end: float
    slots: int
    outcome: Outcome


class Simulation(t.NamedTuple):
    """What came of it: how long it took, and each build, in the order of their ends."""

    makespan: float
    builds: list[Build]

    @property
    def work(self) -> float:
        """How many slot seconds were used."""
        return sum((build.end - build.start) * build.slots for build in self.builds)


def _always_built(_dispatch: Dispatch) -> Outcome:
    return Outcome.BUILT


class Simulator:
    """Plays machines that take the given time for each package, and people who do something at a given time."""

    def __init__(
        self,
        schedule: Schedule,
        duration: c.Callable[[Dispatch], float],
        outcome: c.Callable[[Dispatch], Outcome] = _always_built,
    ) -> None:
        self.schedule = schedule
        self.now = 0.0
        self.builds: list[Build] = []
        self._duration = duration
        self._outcome = outcome
        self._happenings: list[tuple[float, int, c.Callable[[], object]]] = []
        self._count = 0  # what happens at the same time happens in the order in which it was said

    def at(self, time: float, happening: c.Callable[[], object]) -> None:
        """Let something happen then: a machine goes, a person says stop."""
        self._count += 1
        heapq.heappush(self._happenings, (time, self._count, happening))

    def run(self) -> Simulation:
        """Go on until nothing happens any more; what finds no machine until then is given up."""
        while True:
            for dispatch in self.schedule.decide(self.now):
                self._start(dispatch)
            if not self._advance():
                if not self.schedule.stalled:
                    break
                self.schedule.give_up("No machine takes it.")
        return Simulation(max((build.end for build in self.builds), default=0.0), self.builds)

    def _advance(self) -> bool:
        """Go to the next moment at which something happens; let all happen that happens then."""
        times = [self._happenings[0][0]] if self._happenings else []
        wake = self.schedule.wake_at()
        if wake is not None:
            times.append(wake)
        if not times or (self.schedule.finished and not self._happenings):
            return False
        self.now = max(self.now, min(times))
        while self._happenings and self._happenings[0][0] <= self.now:
            heapq.heappop(self._happenings)[2]()
        return True

    def _start(self, dispatch: Dispatch) -> None:
        self.schedule.started(dispatch.package, dispatch.machine, self.now)
        start = self.now
        self.at(start + self._duration(dispatch), lambda: self._end(dispatch, start))

    def _end(self, dispatch: Dispatch, start: float) -> None:
        outcome = self._outcome(dispatch)
        package, machine = dispatch.package, dispatch.machine
        self.builds.append(Build(package, machine, start, self.now, dispatch.slots, outcome))
        if outcome is Outcome.BUILT:
            self.schedule.built(package)
        elif outcome is Outcome.FAILED:
            self.schedule.failed(package)
        else:
            self.schedule.infrastructure_failed(package, self.now)
