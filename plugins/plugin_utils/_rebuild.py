# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which packages a bulk build builds anew, and why each: pure rules over what is wanted and what is there."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

from ._store import Identity

Mode = t.Literal["changed", "missing", "targets", "all"]
Cascade = t.Literal["content", "always"]
Files = t.Literal["there", "missing", "damaged"]

FORCED: t.Final = "forced"
MISSING: t.Final = "missing"
DAMAGED: t.Final = "damaged"
VERSION: t.Final = "version"
RECIPE: t.Final = "recipe"
OPTIONS: t.Final = "options"
NEEDS: t.Final = "needs"
DEPENDENCY: t.Final = "dependency"
BINDIST: t.Final = "bindist"

MEANINGS: dict[str, str] = {
    FORCED: "it was asked for",
    MISSING: "there is none",
    DAMAGED: "a file of it is not as it was built",
    VERSION: "its version has changed",
    RECIPE: "its recipe has changed",
    OPTIONS: "its options have changed",
    NEEDS: "it needs other packages than before",
    DEPENDENCY: "a package that it needs has been built anew",
    BINDIST: "the bindist has changed",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What a package is made of. Empty strings are not known. C(needs): by package, the digest of its files."""

    version: str = ""
    recipe: str = ""
    options: str = ""
    bindist: str = ""
    needs: c.Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, t.Any]:
        """Return them as JSON has them."""
        return {**dataclasses.asdict(self), "needs": dict(self.needs)}

    @classmethod
    def from_dict(cls, value: c.Mapping[str, t.Any]) -> Ingredients:
        """Return what to_dict() described; what is missing or malformed is not known."""
        words = {name: value.get(name) for name in ("version", "recipe", "options", "bindist")}
        needs = value.get("needs")
        return cls(
            **{name: word if isinstance(word, str) else "" for name, word in words.items()},
            needs={str(name): str(digest) for name, digest in needs.items()} if isinstance(needs, dict) else {},
        )


class Present(t.NamedTuple):
    """A package that has been built: which build it is, what came of it, and of what it was made, where that is known."""

    identity: Identity
    version: str
    succeeded: float
    files: Files
    content: str
    made_of: Ingredients | None


def reasons(
    wanted: Ingredients,
    present: Present | None,
    others: c.Mapping[str, Present],
    *,
    forced: bool = False,
    mode: Mode = "changed",
    cascade: Cascade = "content",
) -> tuple[str, ...]:
    """Return the codes of all reasons for building the package anew; none when it can stay.

    C(others) are the packages that it needs, as they are now. With a cascade by C(content) one that was built anew to
    the same content is no reason, else any build of it is one.
    """
    if present is None or present.files == "missing":
        return (MISSING,)
    found = [FORCED] if forced else []
    if present.files == "damaged":
        found.append(DAMAGED)
    if mode == "missing":
        return tuple(found)
    if present.made_of is None:
        found += _by_version(wanted, present)
        if any(other.succeeded > present.succeeded for other in others.values()):
            found.append(DEPENDENCY)
        return tuple(found)
    before = present.made_of
    found += [
        code
        for code, now, then in (
            (VERSION, wanted.version, before.version),
            (RECIPE, wanted.recipe, before.recipe),
            (OPTIONS, wanted.options, before.options),
            (BINDIST, wanted.bindist, before.bindist),
        )
        if now and now != then
    ]
    if VERSION in found and RECIPE in found:
        found.remove(RECIPE)  # a new version is a new recipe
    if wanted.needs.keys() != before.needs.keys():
        found.append(NEEDS)
    if _rebuilt(wanted, present, others, cascade):
        found.append(DEPENDENCY)
    return tuple(found)


def _by_version(wanted: Ingredients, present: Present) -> list[str]:
    """Compare what a single dispatch has built: nobody noted what it was made of."""
    if not wanted.version or not present.version:
        return []
    more = present.version.removeprefix(wanted.version)
    if not more or (more != present.version and more[0] in "+~"):
        return []  # a suffix makes a rebuild newer than the archive's
    return [VERSION]


def _rebuilt(wanted: Ingredients, present: Present, others: c.Mapping[str, Present], cascade: Cascade) -> bool:
    before = present.made_of.needs if present.made_of is not None else {}
    same = before.keys() & wanted.needs.keys()
    if any(wanted.needs[name] != before[name] for name in same):
        return True
    return cascade == "always" and any(other.succeeded > present.succeeded for other in others.values())


def cascades(
    own: c.Mapping[str, tuple[str, ...]], needs: c.Mapping[str, c.Sequence[str]], mode: Mode
) -> dict[str, tuple[str, ...]]:
    """Return the reasons of all packages that are to be built, with those that hold only if a dependency changes.

    C(own) has the reasons of each package, in an order in which each comes after all that it needs.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, codes in own.items():
        if not codes and mode != "missing" and any(needed in found for needed in needs[name]):
            codes = (DEPENDENCY,)
        if codes:
            found[name] = codes
    return found


def depends_on_others(codes: c.Sequence[str]) -> bool:
    """Whether the package is built only if what it needs has really changed: to be looked at again when that is there."""
    return tuple(codes) == (DEPENDENCY,)


def describe(codes: c.Iterable[str]) -> str:
    """Return the reasons as a person reads them."""
    return ", ".join(MEANINGS.get(code, code) for code in codes)
