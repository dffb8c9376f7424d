# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a ports tree can build: all of its INDEX, with a digest of each port's directory."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import tarfile
import typing as t

from ...module_utils._errors import PortbuildError
from ...module_utils._files import BadFile, CHUNK, read_json, write_json
from ...module_utils._names import check_version
from .._index import Entry, Index, PKG_ORIGIN, read_index
from . import Catalogue, CatalogueInputs, Recipe
from ._catalogue_targets import closure, Complaints, look_up

CACHE = "ports.json"
_SCHEMA = 1
_SHOWN = 5  # missing packages of a recipe
_MEMBERS = 5_000_000  # of the tree's tarball
_LIMIT = 1 << 26  # bytes of the cache


class UnreadableTree(PortbuildError):
    """A tree whose tarball cannot be read."""


class NotThis(PortbuildError):
    """There is such a package, but not as it was asked for."""


def read_catalogue(inputs: CatalogueInputs) -> Catalogue:
    """Return what the branch's INDEX has of the targets, and what they need."""
    complaints = Complaints()
    index = read_index(inputs.index)
    for problem in index.problems:
        complaints.add(f"INDEX, {problem}")
    complaints.count(index.problem_count - len(index.problems))
    shelf = _Shelf(index)
    needs, missing = _dependencies(index, complaints)
    targets, unknown = look_up(inputs.targets, shelf)
    chosen = closure(targets, needs.__getitem__)
    digests = _Digests(inputs, complaints)
    recipes = {}
    for name in chosen:
        entry = index.by_base[name]
        recipes[name] = Recipe(
            name=name,
            version=entry.version,
            digest=digests.of(entry, needs[name]),
            needs=needs[name],
            missing=missing.get(name, ()),
            ignored="" if inputs.trybroken else inputs.duds.get(name, ""),
            aliases=shelf.aliases(entry),
            categories=tuple(entry.categories.split()),
            origin=entry.origin,
        )
    return Catalogue(recipes=recipes, targets=targets, unknown=unknown, problems=complaints.lines())


# -- what is needed ----------------------------------------------------------------------------------------------------


def _dependencies(
    index: Index, complaints: Complaints
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Return for each package what it needs, and what of it nobody has."""
    built = {entry.name: base for base, entry in index.by_base.items()}
    pkg = next((entry.base for entry in index.entries if entry.origin == PKG_ORIGIN), "")
    pkg = pkg if pkg and index.by_base[pkg].origin == PKG_ORIGIN else ""
    if not pkg and index.entries:
        complaints.add(f"The INDEX does not have {PKG_ORIGIN}, which every build needs: make that of a whole tree.")
    needs: dict[str, tuple[str, ...]] = {}
    missing: dict[str, tuple[str, ...]] = {}
    for base, entry in index.by_base.items():
        names = {*entry.fetch, *entry.extract, *entry.patch, *entry.build, *entry.run}
        found = set(map(built.get, names, itertools.repeat("")))
        if "" in found:
            found.remove("")
            absent = sorted(names - built.keys())
            more = [f"{len(absent) - _SHOWN} more packages"] if len(absent) > _SHOWN else []
            missing[base] = (*(_absent(index, name) for name in absent[:_SHOWN]), *more)
        if not pkg:
            missing[base] = (*missing.get(base, ()), PKG_ORIGIN)
        elif entry.origin != PKG_ORIGIN:
            found.add(pkg)
        needs[base] = tuple(sorted(found))
    return needs, missing


def _absent(index: Index, name: str) -> str:
    other = index.by_base.get(name.rpartition("-")[0])
    # Not the name alone: that may be another package's without its version.
    return f"the package {name}" + (f" (the INDEX has {other.name})" if other else "")


# -- what a target may be called ---------------------------------------------------------------------------------------


class _Shelf:
    """The packages of an INDEX by all of their names."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._ports: dict[str, list[Entry]] = {}
        for entry in index.entries:
            self._ports.setdefault(entry.origin, []).append(entry)
        for entries in self._ports.values():
            if len(entries) > 1:
                entries.sort(key=lambda entry: bool(entry.flavor))  # the default flavor is the first

    def everything(self) -> t.Iterable[str]:
        return self._index.by_base

    def category(self, name: str) -> t.Iterable[str]:
        return [base for base, entry in self._index.by_base.items() if name in entry.categories.split()]

    def names(self, target: str) -> t.Iterable[str]:
        if target.endswith("-all"):
            categories = {word for entry in self._index.entries for word in entry.categories.split()}
            return [*(f"{word}-all" for word in categories), *self._index.by_base]
        return self._ports if "/" in target else self._index.by_base

    def find(self, target: str) -> str:
        entry = self._port(target) if "/" in target else self._package(target)
        if entry is None:
            return ""
        first = self._index.by_base[entry.base]
        if first is not entry:
            raise NotThis(f"{target} makes a package {entry.base}, but so does {first.name} of {first.origin}.")
        return entry.base

    def _package(self, target: str) -> Entry | None:
        name, equals, version = target.partition("=")
        entry = self._index.by_base.get(name) or self._index.by_name.get(name)
        if entry is not None and equals and check_version(version) != entry.version:
            raise NotThis(
                f"{entry.base} has version {entry.version} in this branch, not {version}.",
                remedy="A tree has one version of each package: update the tree, or ask for no version.",
            )
        return entry

    def _port(self, target: str) -> Entry | None:
        origin, _at, flavor = target.partition("@")
        entries = self._ports.get(origin, [])
        if not flavor or not entries:
            return entries[0] if entries else None
        fitting = flavored(entries, flavor)
        if not fitting:
            names = ", ".join(entry.base for entry in entries[:20])
            raise NotThis(f"There is no flavor {flavor!r:.100} of {origin}; it makes {names}.")
        return fitting[0]

    def aliases(self, entry: Entry) -> tuple[str, ...]:
        """Return the other names of a package."""
        names = [entry.name]
        if self._ports[entry.origin][0] is entry:
            names.append(entry.origin)
        if entry.flavor:
            names.append(f"{entry.origin}@{entry.flavor}")
        return tuple(names)


def flavored(entries: t.Sequence[Entry], flavor: str) -> list[Entry]:
    """Return those of a port's entries that are of the flavor.

    An INDEX tells the flavor in the path, or only by the prefix or suffix that it gives the name.
    """
    return [entry for entry in entries if entry.flavor == flavor] or [
        entry for entry in entries if not entry.flavor and flavor in re.split("[-_]", entry.base)
    ]


# -- digests -----------------------------------------------------------------------------------------------------------


class _Digests:
    """What each recipe consists of, in a word: the port's directory where there is a tree, else its line."""

    def __init__(self, inputs: CatalogueInputs, complaints: Complaints) -> None:
        self._ports: dict[str, str] | None = None
        if inputs.tree:
            try:
                self._ports = _port_digests(inputs.tree, inputs.tree_sha256, inputs.cache_directory)
            except (PortbuildError, OSError) as error:
                complaints.add(f"What has changed in the tree is not known: {error}")
                self._ports = {}

    def of(self, entry: Entry, needs: t.Sequence[str]) -> str:
        """Return the digest; empty for a port that the tree does not have."""
        port = f"{entry.origin}@{entry.flavor}"
        if self._ports is None:
            return _digest(entry.name, port, entry.prefix, *needs)
        found = self._ports.get(entry.origin, "")
        return found and _digest(entry.name, port, found)


def _digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()


def _port_digests(tree: str, sha256: str, cache_directory: str) -> dict[str, str]:
    """Return the digest of each port's directory: read once, then remembered for as long as the tree stays the same."""
    cache = os.path.join(cache_directory, CACHE) if cache_directory and sha256 else ""
    if cache:
        with contextlib.suppress(OSError, BadFile):
            known = read_json(cache, limit=_LIMIT)
            if (known.get("schema"), known.get("tree")) == (_SCHEMA, sha256) and isinstance(known.get("ports"), dict):
                return {str(port): str(digest) for port, digest in known["ports"].items()}
    found = digest_ports(tree)
    if cache:
        with contextlib.suppress(OSError):
            os.makedirs(cache_directory, exist_ok=True)
            write_json(cache, {"schema": _SCHEMA, "tree": sha256, "ports": found}, durable=False)
    return found


def digest_ports(tree: str) -> dict[str, str]:
    """Return the digest of each port's directory in the tarball: names, modes and contents, whatever their order."""
    lines = sorted(_files(tree))
    at_top = any(path.startswith("Mk/") for path, _line in lines)  # else all is in one directory
    digests: dict[str, t.Any] = {}
    for path, line in lines:
        parts = path.split("/") if at_top else path.split("/")[1:]
        if len(parts) < 3:
            continue
        port = "/".join(parts[:2])
        digests.setdefault(port, hashlib.sha256()).update(
            f"{'/'.join(parts[2:])}\0{line}\n".encode("utf-8", "surrogateescape")
        )
    return {port: digest.hexdigest() for port, digest in digests.items()}


def _files(tree: str) -> t.Iterator[tuple[str, str]]:
    """Yield path and properties of each file, reading the tarball once from its beginning to its end."""
    try:
        with tarfile.open(tree, "r|*", encoding="utf-8", errors="surrogateescape") as tarball:
            for _unused in range(_MEMBERS):
                member = tarball.next()
                if member is None:
                    return
                tarball.members.clear()  # type: ignore[attr-defined]  # there is no public way to have it forget them
                path = member.name.removeprefix("./")
                if member.isreg():
                    yield path, f"{'x' if member.mode & 0o100 else '-'} {_sum(tarball, member)}"
                elif not member.isdir():
                    yield path, f"l {member.linkname}"
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnreadableTree(f"{tree} cannot be read as a tarball: {error}.") from None
    except Exception as error:  # pylint: disable=broad-except  # of damaged ones anything comes, TypeError included
        raise UnreadableTree(f"{tree} cannot be read as a tarball: {error}.") from None
    raise UnreadableTree(f"{tree} has more than {_MEMBERS} members.")


def _sum(tarball: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    digest = hashlib.sha256()
    stream = tarball.extractfile(member)
    while stream and (chunk := stream.read(CHUNK)):
        digest.update(chunk)
    return digest.hexdigest()
