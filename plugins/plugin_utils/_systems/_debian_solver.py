# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which binary packages a build installs, as far as it takes to know which sources must be built before.

Nothing is solved in apt's sense: of each dependency the first alternative that somebody has is taken, ours before the
archive's, and what that needs in turn. Sets of sources are integers with a bit for each, so that a whole archive fits.
"""

from __future__ import annotations

import collections.abc as c
import typing as t

from .._graph import components
from ._debian_archive import Archive, Binary, provisions
from ._debian_relations import alternatives, BadRelation, clauses, counts, is_architecture, Relation, satisfies

_FEW = 3  # packages that are told of all that something installed along with others lacks

_NONE: frozenset[str] = frozenset()


class Choice(t.NamedTuple):
    """What a dependency is satisfied by."""

    binary: Binary | None
    """None where nobody has it, and where it does not count."""
    firm: bool = False
    """Whether the archive has nothing that would do."""
    missing: str = ""


class Edges(t.NamedTuple):
    """What a source needs: sources by number, sorted; and those of them for which the archive has nothing that would do."""

    needs: tuple[int, ...]
    firm: tuple[int, ...]
    missing: tuple[str, ...]


class Solver:
    """Finds out what sources need."""

    def __init__(self, archive: Archive, ours: c.Iterable[Binary], wanted: c.Collection[str]) -> None:
        self._archive = archive
        self._wanted = wanted
        """The archive's sources that are to be built."""
        self._ours: dict[str, Binary] = {}
        self._ours_provide: dict[str, list[tuple[str, Binary]]] = {}
        for binary in sorted(ours):
            self._ours[binary.name] = binary
            for name, version in provisions(binary.provides):
                self._ours_provide.setdefault(name, []).append((version, binary))
        self._choices: dict[str, Choice] = {}
        self._staged: dict[frozenset[str], dict[str, Choice]] = {}  # of clauses that name build profiles
        self._numbers: dict[tuple[str, bool], int] = {}
        self._binaries: list[Binary] = []
        self._needs: list[list[tuple[int, bool]]] = []  # by number of a binary: numbers, and whether firmly
        self._lacks: list[tuple[str, ...]] = []  # what nobody has of that
        self._sources: dict[str, tuple[list[tuple[int, bool]], tuple[str, ...]]] = {}

    # -- one dependency ------------------------------------------------------------------------------------------------

    def _choose(self, clause: str, profiles: frozenset[str]) -> Choice:
        known = self._staged.setdefault(profiles, {}) if "<" in clause else self._choices
        found = known.get(clause)
        if found is None:
            found = known[clause] = self._chosen(clause, profiles)
        return found

    def _chosen(self, clause: str, profiles: frozenset[str]) -> Choice:
        try:
            relations = alternatives(clause)
        except BadRelation:
            return Choice(None, missing=f"what {clause!r:.100} means")
        relations = tuple(relation for relation in relations if counts(relation, self._archive.architecture, profiles))
        if not relations:
            return Choice(None)
        for relation in relations:
            binary = self._candidate(relation)
            if binary is not None:
                firm = binary.ours and not any(map(self._of_archive, relations))
                return Choice(binary, firm)
        return Choice(None, missing=self._lack(clause, relations))

    def _fits_here(self, relation: Relation) -> bool:
        return relation.qualifier in ("", "any", "native") or is_architecture(
            self._archive.architecture, relation.qualifier
        )

    def _candidate(self, relation: Relation) -> Binary | None:
        if not self._fits_here(relation):
            return None
        for named in (self._ours.get(relation.name), self._archive.binary(relation.name)):
            if named is not None and satisfies(named.version, relation.operator, relation.version):
                return named
        return _provider(self._ours_provide.get(relation.name, ()), relation) or _provider(
            self._archive.providers(relation.name), relation
        )

    def _of_archive(self, relation: Relation) -> Binary | None:
        if not self._fits_here(relation):
            return None
        named = self._archive.binary(relation.name)
        if named is not None and satisfies(named.version, relation.operator, relation.version):
            return named
        return _provider(self._archive.providers(relation.name), relation)

    def _lack(self, clause: str, relations: c.Iterable[Relation]) -> str:
        """Return what nobody has: never just a name, as a source may be called the same."""
        has = [
            f"{'ours' if binary.ours else 'the archive'} has {binary.name} {binary.version}"
            for relation in relations
            for binary in (self._ours.get(relation.name), self._archive.binary(relation.name))
            if binary is not None
        ]
        return f"the package {clause:.200}" + (f" ({', '.join(has)})" if has else "")

    # -- all of them ---------------------------------------------------------------------------------------------------

    def add(self, source: str, dependencies: c.Iterable[str], profiles: frozenset[str]) -> set[str]:
        """Note what a source needs; return the local sources that takes, but for those that were returned before."""
        chosen: list[tuple[int, bool]] = []
        missing: list[str] = []
        found: set[str] = set()
        for clause in dict.fromkeys(dependencies):
            choice = self._choose(clause, profiles)
            if choice.binary is not None:
                chosen.append((self._enter(choice.binary, found), choice.firm))
            elif choice.missing:
                missing.append(choice.missing)
        self._sources[source] = (chosen, tuple(missing))
        return found

    def _enter(self, binary: Binary, found: set[str]) -> int:
        """Return the number of a binary package; it and all that is installed along with it is entered."""
        known = self._numbers.get((binary.name, binary.ours))
        if known is not None:
            return known
        first = number = self._new(binary)
        while number < len(self._binaries):  # each one that is entered comes to its turn
            binary = self._binaries[number]
            if binary.ours:
                found.add(binary.source)
            lacks: list[str] = []
            for clause in clauses(binary.depends):
                choice = self._choose(clause, _NONE)
                if choice.binary is not None:
                    needed = self._numbers.get((choice.binary.name, choice.binary.ours))
                    self._needs[number].append((self._new(choice.binary) if needed is None else needed, choice.firm))
                elif choice.missing and len(lacks) < _FEW:
                    lacks.append(f"{choice.missing} for {binary.name}")
            self._lacks[number] = tuple(lacks)
            number += 1
        return first

    def _new(self, binary: Binary) -> int:
        number = self._numbers[binary.name, binary.ours] = len(self._binaries)
        self._binaries.append(binary)
        self._needs.append([])
        self._lacks.append(())
        return number

    def solve(self, names: c.Sequence[str]) -> list[Edges]:
        """Return what each of these sources needs of the others, in their order."""
        bits = _Bits(names)
        places = [
            bits.of(binary.source) if binary.ours or binary.source in self._wanted else 0 for binary in self._binaries
        ]
        reached = [(0, 0)] * len(self._binaries)
        lacks: list[tuple[str, ...]] = self._lacks[:]
        plain = [[needed for needed, _firm in needs] for needs in self._needs]
        for part in components(plain, range(len(plain))):
            needs = firm = 0
            lacking: dict[str, None] = {}
            for number in part:
                lacking.update(dict.fromkeys(lacks[number]))
                for needed, firmly in self._needs[number]:
                    needs |= places[needed] | reached[needed][0]
                    firm |= (places[needed] if firmly else 0) | reached[needed][1]
                    lacking.update(dict.fromkeys(lacks[needed]))
            few = tuple(lacking)[:_FEW]
            for number in part:
                reached[number] = (needs, firm)
                lacks[number] = few
        return [self._edges(name, bits, places, reached, lacks) for name in names]

    def _edges(
        self,
        name: str,
        bits: _Bits,
        places: c.Sequence[int],
        reached: c.Sequence[tuple[int, int]],
        lacks: c.Sequence[tuple[str, ...]],
    ) -> Edges:
        chosen, missing = self._sources[name]
        needs = firm = 0
        lacking = dict.fromkeys(missing)
        for number, firmly in chosen:
            needs |= places[number] | reached[number][0]
            firm |= (places[number] if firmly else 0) | reached[number][1]
            lacking.update(dict.fromkeys(lacks[number]))
        return Edges(bits.numbers(needs), bits.numbers(firm), tuple(lacking))


def _provider(providers: c.Iterable[tuple[str, Binary]], relation: Relation) -> Binary | None:
    """Return the first that provides what is wanted. One that does not say which version has none."""
    for version, binary in providers:
        if not relation.operator or (version and satisfies(version, relation.operator, relation.version)):
            return binary
    return None


class _Bits:
    """Sets of sources as integers. What is wanted first gets a low bit: so the sets of what most need are short."""

    def __init__(self, names: c.Sequence[str]) -> None:
        self._numbers = {name: number for number, name in enumerate(names)}
        self._places: dict[str, int] = {}
        self._order: list[int] = []
        self._known: dict[int, tuple[int, ...]] = {}

    def of(self, name: str) -> int:
        """Return the set with this source only."""
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = len(self._order)
            self._order.append(self._numbers[name])
        return 1 << place

    def numbers(self, bits: int) -> tuple[int, ...]:
        """Return the numbers of the sources in the set, sorted; the same object for the same set."""
        known = self._known.get(bits)
        if known is None:
            found = []
            digits = f"{bits:b}"[::-1]
            place = digits.find("1")
            while place >= 0:
                found.append(self._order[place])
                place = digits.find("1", place + 1)
            known = self._known[bits] = tuple(sorted(found))
        return known
