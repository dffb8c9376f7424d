# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Relations of Debian packages: what one needs of others, by name, version, architecture and build profile.

Debian Policy 7.1; deb-src-control(5) for architectures and profiles. Nothing here reads a file.
"""

from __future__ import annotations

import collections.abc as c
import functools
import re
import typing as t

from ...module_utils._errors import PortbuildError

_RELATION = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9+.-]{0,199})(?: ?:(?P<qualifier>[A-Za-z0-9-]+))?"
    r" ?(?:\( ?(?P<operator><<|<=|>=|>>|=|<|>) ?(?P<version>[^ ()]{1,200}) ?\))?"
    r" ?(?:\[(?P<architectures>[^\[\]]*)\])?"
    r" ?(?P<profiles>(?:<[^<>]*> ?)*)"
)
_WORDS = re.compile(r"!?[A-Za-z0-9][A-Za-z0-9.-]*")
_VERSION_IN_PARENTHESES = re.compile(r"\([^()]*\$\{[^()]*\)")
_PARTS = re.compile(r"([^0-9]*)([0-9]*)")
# What the tables of dpkg say of architectures whose name does not tell it: ABI, C library, kernel, processor.
_ODD_ARCHITECTURES = {
    "armel": ("eabi", "gnu", "linux", "arm"),
    "armhf": ("eabihf", "gnu", "linux", "arm"),
    "x32": ("x32", "gnu", "linux", "amd64"),
    "arm64ilp32": ("ilp32", "gnu", "linux", "arm64"),
    "powerpcspe": ("spe", "gnu", "linux", "powerpc"),
}


class BadRelation(PortbuildError):
    """Words that are no relation."""


class Relation(t.NamedTuple):
    """One package that would do."""

    name: str
    qualifier: str = ""
    operator: str = ""
    version: str = ""
    architectures: tuple[str, ...] = ()
    profiles: tuple[tuple[str, ...], ...] = ()


# -- reading -----------------------------------------------------------------------------------------------------------


def clauses(text: str) -> list[str]:
    """Return the parts of a field, each of which must be satisfied."""
    return [clause for part in text.split(",") if (clause := " ".join(part.split()))]


@functools.lru_cache(maxsize=1 << 17)
def alternatives(clause: str) -> tuple[Relation, ...]:
    """Return the relations any of which satisfies the clause, or raise BadRelation."""
    return tuple(_relation(part.strip(), clause) for part in clause.split("|"))


def _relation(text: str, clause: str) -> Relation:
    match = _RELATION.fullmatch(text)
    if match is None:
        raise BadRelation(f"{clause!r:.200} is no dependency.")
    architectures = tuple((match["architectures"] or "").lower().split())
    profiles = tuple(tuple(group.split()) for group in re.findall(r"<([^<>]*)>", match["profiles"]))
    empty = (match["architectures"] is not None and not architectures) or () in profiles
    if empty or not all(map(_WORDS.fullmatch, (*architectures, *(word for group in profiles for word in group)))):
        raise BadRelation(f"{clause!r:.200} is no dependency.")
    return Relation(
        match["name"],
        match["qualifier"] or "",
        {"<": "<=", ">": ">="}.get(match["operator"], match["operator"] or ""),
        match["version"] or "",
        architectures,
        profiles,
    )


def substituted(text: str, version: str) -> str:
    """Return a field of a source's control file without what only the build knows.

    A version that is not known yet is left out, and a clause with a word in the place of a name as a whole.
    """
    for variable in ("${binary:Version}", "${source:Version}", "${Source-Version}"):
        text = text.replace(variable, version)
    text = _VERSION_IN_PARENTHESES.sub("", text)
    return ", ".join(clause for clause in clauses(text) if "${" not in clause)


# -- versions ----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1 << 18)
def version_key(version: str) -> tuple[t.Any, ...]:
    """Return what sorts as dpkg sorts versions."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _dash, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return (int(epoch) if epoch.isdecimal() else 0, _part_key(upstream), _part_key(revision))


def _part_key(text: str) -> tuple[t.Any, ...]:
    # Up to the first digit, then a number, and so on. The end comes after a tilde and before everything else.
    pieces = [piece for piece in _PARTS.findall(text or "0") if any(piece)]
    return tuple((_letters_key(letters), int(digits or "0")) for letters, digits in (*pieces, ("", "")))


@functools.cache
def _letters_key(text: str) -> tuple[int, ...]:
    return (*(-1 if ch == "~" else ord(ch) if ch.isalpha() else ord(ch) + 0x110000 for ch in text), 0)


def satisfies(version: str, operator: str, wanted: str) -> bool:
    """Whether the version is in this relation to the wanted one; any version is where no operator is given."""
    if not operator:
        return True
    have, want = version_key(version), version_key(wanted)
    return {
        "<<": have < want,
        "<=": have <= want,
        "=": have == want,
        ">=": have >= want,
        ">>": have > want,
    }[operator]


# -- architectures and profiles ----------------------------------------------------------------------------------------


@functools.cache
def _tuple_of(architecture: str) -> tuple[str, str, str, str]:
    """Return ABI, C library, kernel and processor; of a wildcard each may be C(any)."""
    parts = architecture.split("-")
    if "any" in parts:
        whole = ("any", "any", "any", *parts)[-4:]
        return ("any",) * 4 if parts == ["any"] else t.cast("tuple[str, str, str, str]", whole)
    if parts[-1] in _ODD_ARCHITECTURES:
        abi, library, kernel, processor = _ODD_ARCHITECTURES[parts[-1]]
    else:
        abi, library, kernel, processor = "base", "gnu", "linux", parts[-1]
    if len(parts) > 1:
        kernel = parts[-2]
    if len(parts) > 2:
        library = parts[-3]
    return abi, library, kernel, processor


@functools.cache
def is_architecture(architecture: str, wanted: str) -> bool:
    """Whether the architecture is the wanted one, which may be a wildcard such as C(linux-any)."""
    return architecture == wanted or (
        "any" in wanted.split("-")
        and all(want in ("any", have) for have, want in zip(_tuple_of(architecture), _tuple_of(wanted), strict=True))
    )


def concerns(architecture: str, listed: c.Iterable[str]) -> bool:
    """Whether a list such as C(amd64 !i386 linux-any) is about the architecture, as dpkg reads it."""
    seen = False
    for word in listed:
        if word.startswith("!"):
            if is_architecture(architecture, word[1:]):
                return False
            seen = True  # all the others
        elif is_architecture(architecture, word):
            return True
    return seen


def holds(formula: c.Iterable[c.Iterable[str]], profiles: c.Collection[str]) -> bool:
    """Whether a formula of build profiles is true: all words of one of its groups are. An empty one is true."""
    groups = list(formula)
    return not groups or any(
        all((word[1:] not in profiles) if word.startswith("!") else word in profiles for word in group)
        for group in groups
    )


def formula(text: str) -> list[list[str]]:
    """Return the formula that a field Build-Profiles holds."""
    return [group.split() for group in re.findall(r"<([^<>]*)>", text)]


def counts(relation: Relation, architecture: str, profiles: c.Collection[str]) -> bool:
    """Whether the relation is about this architecture and these profiles."""
    return (not relation.architectures or concerns(architecture, relation.architectures)) and holds(
        relation.profiles, profiles
    )
