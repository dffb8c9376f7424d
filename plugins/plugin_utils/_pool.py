# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The machines of a schedule: what runs where, which of them a package goes to, and which are not to be trusted."""

from __future__ import annotations

import typing as t


class Need(t.NamedTuple):
    """What a package asks of a machine. All that ask the same wait in one line."""

    slots: int = 1
    alone: bool = False
    tags: frozenset[str] = frozenset()
    avoid: frozenset[str] = frozenset()  # machines that let it down


PLAIN = Need()


class Machine:
    """A build machine, with the slots that each package there asks for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.maxjobs = 0
        self.rank = 0
        self.tags: frozenset[str] = frozenset()
        self.present = False
        self.absence = ""  # why it is not there
        self.jobs: dict[int, int] = {}
        self.others = 0  # jobs there that are none of this schedule's
        self.used = 0
        self.alone = False
        self.debits: set[int] = set()  # packages that it let down since one got through
        self.times_aside = 0
        self.back_at: float | None = None  # while it is set aside

    @property
    def usable(self) -> bool:
        """Whether it takes packages."""
        return not self.obstacle

    @property
    def obstacle(self) -> str:
        """Return why it takes no packages; empty when it does."""
        if not self.present:
            return self.absence or "it is not there"
        if self.maxjobs <= 0:
            return "it has no slots"
        if self.back_at is not None:
            return f"it is set aside for a while, after it has let {len(self.debits)} packages in a row down"
        return ""

    @property
    def idle(self) -> int:
        """How many slots are free."""
        return 0 if self.alone else max(0, self.maxjobs - self.others - self.used)

    def takes(self, slots: int) -> int:
        """Return how many of its slots that takes: what is heavier than the machine needs all of it."""
        return max(1, min(slots, self.maxjobs))

    def recount(self) -> None:
        """Work out anew what is used; what is heavier than the machine was takes more when it grows."""
        self.used = sum(map(self.takes, self.jobs.values()))

    def fits(self, need: Need) -> bool:
        """Say whether there is room now."""
        if need.alone:
            return not self.jobs and not self.others
        return not self.alone and self.others + self.used + self.takes(need.slots) <= self.maxjobs


class Pool:
    """All machines."""

    def __init__(self, *, debits: int, aside: float, aside_limit: float) -> None:
        self.machines: dict[str, Machine] = {}
        self.where: dict[int, Machine] = {}
        self._debits = debits
        self._aside = aside
        self._aside_limit = aside_limit
        self._eligible: dict[Need, list[Machine]] = {}

    # -- machines come and go ------------------------------------------------------------------------------------------

    def came(self, name: str, maxjobs: int, rank: int | None, tags: t.Iterable[str]) -> None:
        """Take packages there from now on; what it did before is forgiven."""
        machine = self.machine(name)
        if rank is not None:
            machine.rank = rank
        machine.tags = frozenset(tags)
        machine.maxjobs = max(0, maxjobs)
        machine.others = 0
        machine.recount()
        machine.present = True
        machine.debits.clear()
        machine.times_aside = 0
        machine.back_at = None
        self._eligible.clear()

    def went(self, name: str, why: str = "") -> None:
        """Take nothing there any more; what runs there runs until somebody says otherwise."""
        machine = self.machine(name)
        machine.present, machine.absence = False, why
        self._eligible.clear()

    def changed(
        self, name: str, maxjobs: int, others: int = 0, rank: int | None = None, tags: t.Iterable[str] | None = None
    ) -> None:
        """Run so many there at most, from the next one on, of which so many are others'."""
        machine = self.machine(name)
        machine.maxjobs = max(0, maxjobs)
        machine.others = max(0, others)
        machine.rank = machine.rank if rank is None else rank
        machine.tags = machine.tags if tags is None else frozenset(tags)
        machine.recount()
        self._eligible.clear()

    def machine(self, name: str) -> Machine:
        """Return the machine; one that nobody has spoken of yet is not there and ranks last."""
        found = self.machines.get(name)
        if found is None:
            found = self.machines[name] = Machine(name)
            found.rank = len(self.machines)
        return found

    @property
    def slots(self) -> int:
        """How many slots all machines have that take packages."""
        return sum(max(0, machine.maxjobs - machine.others) for machine in self.machines.values() if machine.usable)

    # -- choice --------------------------------------------------------------------------------------------------------

    def eligible(self, need: Need) -> list[Machine]:
        """Return the machines that such a package may go to, best first, whether or not there is room."""
        found = self._eligible.get(need)
        if found is None:
            tagged = [machine for machine in self.machines.values() if machine.present and need.tags <= machine.tags]
            tagged = [machine for machine in tagged if machine.maxjobs > 0]
            large = [machine for machine in tagged if machine.maxjobs >= need.slots] or tagged
            usable = sorted((machine for machine in large if machine.usable), key=lambda m: (m.rank, m.name))
            found = [machine for machine in usable if machine.name not in need.avoid] or usable
            self._eligible[need] = found
        return found

    def obstacles(self, need: Need) -> list[str]:
        """Return for each machine that could take such a package why it takes none now, best first."""
        tagged = sorted((m for m in self.machines.values() if need.tags <= m.tags), key=lambda m: (m.rank, m.name))
        return [f"{machine.name}: {machine.obstacle}" for machine in tagged if machine.obstacle]

    def choose(self, need: Need, kept: t.Collection[str]) -> Machine | None:
        """Return the machine with the fewest jobs, among equals the first in rank, of those with room and not kept."""
        best, fewest = None, 0
        for machine in self.eligible(need):
            jobs = len(machine.jobs) + machine.others
            if machine.fits(need) and machine.name not in kept and (best is None or jobs < fewest):
                best, fewest = machine, jobs
        return best

    def keep_for(self, need: Need, kept: t.Collection[str]) -> Machine | None:
        """Return the machine that has room the soonest if nothing else goes there: one slot at a time never would."""
        free = [machine for machine in self.eligible(need) if machine.name not in kept]
        return max(free, key=lambda machine: machine.idle, default=None)

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def book(self, package: int, machine: Machine, need: Need) -> int:
        """Note that the package is there now; return how many slots it takes."""
        machine.jobs[package] = need.slots
        machine.used += machine.takes(need.slots)
        machine.alone = machine.alone or need.alone
        self.where[package] = machine
        return machine.takes(need.slots)

    def release(self, package: int) -> Machine:
        """Note that the package is not there any more; return where it was."""
        machine = self.where.pop(package)
        machine.used -= machine.takes(machine.jobs.pop(package))
        if not machine.jobs:
            machine.alone = False
        return machine

    # -- trust ---------------------------------------------------------------------------------------------------------

    def worked(self, machine: Machine) -> None:
        """Note that a build got to its end there, whichever."""
        machine.debits.clear()
        machine.times_aside = 0

    def debit(self, machine: Machine, package: int, now: float) -> bool:
        """Note that the machine let the package down; say whether that was one package too many.

        One package counts once: if it takes down each machine that it comes to, that is not the machines' fault.
        """
        machine.debits.add(package)
        if len(machine.debits) < self._debits or machine.back_at is not None:
            return False
        machine.back_at = now + min(self._aside_limit, self._aside * 2.0 ** min(machine.times_aside, 60))
        machine.times_aside += 1
        self._eligible.clear()
        return True

    def wake(self, now: float) -> None:
        """Try machines again whose time is over; the next one that they let down is one too many."""
        for machine in self.machines.values():
            if machine.back_at is not None and machine.back_at <= now:
                machine.back_at = None
                self._eligible.clear()

    def wake_at(self) -> float | None:
        """Return when the next machine that was set aside is tried again."""
        times = [machine.back_at for machine in self.machines.values() if machine.back_at is not None]
        return min(times, default=None)
