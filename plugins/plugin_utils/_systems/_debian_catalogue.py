# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What can be built of Debian source packages: those of a local directory, those of the archive, and what they need.

A package needs another where apt will install a binary package of that one to build it: because a build dependency
names it, or because something does that is installed along with one. All else comes from the archive.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import hashlib

from ...module_utils._errors import PortbuildError
from . import Catalogue, CatalogueInputs, Recipe
from ._catalogue_targets import Complaints, look_up
from ._debian_archive import Archive, ArchiveSource, Binary, open_archive
from ._debian_cycles import break_cycles
from ._debian_paragraphs import cleaned, fields, paragraphs
from ._debian_relations import clauses, concerns, formula, holds, substituted
from ._debian_solver import Solver
from ._debian_sources import BadSource, control_of, describe, digest, list_sources, LocalSource, LocalSources

Parse = c.Callable[[str], tuple[str, str]]
_SHOWN = 5  # missing packages of a recipe
_OF_CONTROL = (
    *("Source", "Section", "Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep"),
    *(
        "Package",
        "Architecture",
        "Build-Profiles",
        "Package-Type",
        "XC-Package-Type",
        "Depends",
        "Pre-Depends",
        "Provides",
    ),
)


class NotThis(PortbuildError):
    """There is such a package, but it cannot be had."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
    """A source package, wherever it comes from."""

    name: str
    version: str
    section: str
    architectures: frozenset[str]
    """Of all its binary packages."""
    depends: str
    """Build-Depends and Build-Depends-Arch."""
    depends_indep: str
    origin: str
    digest: str = ""
    local: LocalSource | None = None
    binaries: tuple[Binary, ...] = ()
    """What a local source makes here."""


def read_catalogue(inputs: CatalogueInputs, parse: Parse) -> Catalogue:
    """Return what there is of the targets, and what of the local sources they need.

    C(parse) returns name and version of what a person asked for.
    """
    complaints = Complaints()
    archive = open_archive(inputs.bindist, inputs.bindist_sha256, inputs.cache_directory, complaints)
    try:
        local = list_sources(inputs.source_directory) if inputs.source_directory else LocalSources({}, {})
        shelf = _Shelf(inputs, local, archive, parse)
        for message in local.bad.values():
            complaints.add(message)
        targets, unknown = look_up(inputs.targets, shelf)
        recipes, broken = _Assembly(inputs, shelf, archive, complaints).recipes(targets)
        return Catalogue(
            recipes=recipes, targets=targets, unknown=unknown, problems=complaints.lines(), broken_edges=broken
        )
    finally:
        archive.close()


# -- what a target may be called ---------------------------------------------------------------------------------------


class _Shelf:
    """The source packages by name, and which one of a name was asked for."""

    def __init__(self, inputs: CatalogueInputs, local: LocalSources, archive: Archive, parse: Parse) -> None:
        self._inputs = inputs
        self._local = local
        self._archive = archive
        self._parse = parse
        self._asked: dict[str, str] = {}
        self.local: dict[str, Package] = {}
        for name, sources in local.found.items():
            if name not in local.bad:
                try:
                    self.local[name] = local_package(sources[0], inputs, archive)
                except BadSource as error:  # somebody works on it
                    local.bad[name] = error.message
        self.chosen: dict[str, Package] = dict(self.local)
        """What is built under each name: of the archive only what was asked for."""

    def everything(self) -> c.Iterable[str]:
        if self._inputs.source_directory:
            return [self._take(name, self.local[name]) for name in self.local]
        return [self._take(source.name, archive_package(source)) for source in self._archive.current()]

    def category(self, name: str) -> c.Iterable[str]:
        if self._inputs.source_directory:
            found = [other for other, package in self.local.items() if name in _categories(package.section)]
        else:
            found = self._archive.section(name)
        return [self.find(other) for other in found]

    def names(self, target: str) -> c.Iterable[str]:
        if not target.endswith("-all"):
            return {*self._local.found, *self._archive.names()}
        sections = {*(package.section for package in self.local.values()), *self._archive.sections()}
        return [f"{word}-all" for section in sections for word in _categories(section)]

    def find(self, target: str) -> str:
        if "/" in target:
            return ""  # the section of another area
        name, version = self._parse(target)
        if name in self._local.bad:
            raise NotThis(self._local.bad[name])
        for source in self._local.found.get(name, ()):
            if not version or source.version == version:
                known = self.local[name]
                same = known.local == source
                return self._take(name, known if same else local_package(source, self._inputs, self._archive), version)
        found = self._archive.source(name, version)
        if found is not None:
            return self._take(name, archive_package(found), version)
        other = self._local.found.get(name, [None])[0] or self._archive.source(name)
        if other is None:
            return ""
        raise NotThis(f"There is {name} {other.version}, but not {version}.")

    def _take(self, name: str, package: Package, version: str = "") -> str:
        before = self._asked.get(name)
        if before and version and self.chosen[name].version != package.version:
            raise NotThis(f"{name} is asked for as version {before} already.")
        if before is None or (version and not before):
            self._asked[name] = version
            self.chosen[name] = package
        return name


def _categories(section: str) -> tuple[str, ...]:
    """Return the section, and without the area before it."""
    return tuple(dict.fromkeys(filter(None, (section, section.rpartition("/")[2]))))


# -- what a source consists of -----------------------------------------------------------------------------------------


def archive_package(source: ArchiveSource) -> Package:
    """Return what the archive says of a source."""
    return Package(
        name=source.name,
        version=source.version,
        section=source.section,
        architectures=frozenset(source.architecture.split()),
        depends=source.depends,
        depends_indep=source.depends_indep,
        origin="the archive",
        digest=hashlib.sha256(f"{source.dsc} {source.version}".encode()).hexdigest() if source.dsc else "",
    )


def local_package(source: LocalSource, inputs: CatalogueInputs, archive: Archive) -> Package:
    """Return what a local source says of itself. What its binaries need is only known from its control file."""
    stanzas = [fields(paragraph, _OF_CONTROL) for paragraph in paragraphs([cleaned(control_of(source))])]
    head = describe(source.path) if source.kind == "dsc" else (stanzas or [{}])[0]
    made = [stanza for stanza in stanzas[1:] if "package" in stanza] or list(_listed(head, archive))
    profiles = frozenset(inputs.profiles_of(source.name))
    made = [stanza for stanza in made if holds(formula(stanza.get("build-profiles", "")), profiles)]
    section = next(
        (stanza["section"] for stanza in (head, *stanzas, *_listed(head, archive)) if stanza.get("section")), ""
    )
    return Package(
        name=source.name,
        version=source.version,
        section=section,
        architectures=frozenset(word for stanza in made for word in stanza.get("architecture", "any").split()),
        depends=_both(head.get("build-depends"), head.get("build-depends-arch")),
        depends_indep=head.get("build-depends-indep", ""),
        origin=source.path,
        local=source,
        binaries=tuple(
            Binary(
                name=stanza["package"],
                version=source.version,
                source=source.name,
                depends=substituted(_both(stanza.get("pre-depends"), stanza.get("depends")), source.version),
                provides=substituted(stanza.get("provides", ""), source.version),
                ours=True,
            )
            for stanza in made
            if "udeb" not in (stanza.get("package-type"), stanza.get("xc-package-type"))
            and is_made(stanza.get("architecture", "any").split(), archive.architecture, indep=inputs.build_indep)
        ),
    )


def _both(first: str | None, second: str | None) -> str:
    return ", ".join(filter(None, (first, second)))


def _listed(head: c.Mapping[str, str], archive: Archive) -> c.Iterator[dict[str, str]]:
    """Yield what the fields of a .dsc tell of its packages; what they need is taken from what the archive has."""
    for line in head.get("package-list", "").splitlines():
        name, kind, section, *words = (line.split() + [""] * 3)[: max(3, len(line.split()))]
        if not name:
            continue
        more = dict(word.partition("=")[::2] for word in words)
        same = archive.binary(name)
        yield {
            "package": name,
            "section": section,
            "package-type": kind,
            "architecture": " ".join(more.get("arch", head.get("architecture", "any")).split(",")),
            "build-profiles": " ".join(
                f"<{' '.join(group.split('+'))}>" for group in more.get("profile", "").split(",") if group
            ),
            "depends": same.depends if same else "",
            "provides": same.provides if same else "",
        }


def is_made(architectures: c.Iterable[str], architecture: str, *, indep: bool) -> bool:
    """Whether a package for these architectures is made on this one."""
    words = list(architectures)
    return (indep and "all" in words) or concerns(architecture, [word for word in words if word != "all"])


# -- putting it together -----------------------------------------------------------------------------------------------


class _Assembly:
    """Makes the recipes of the targets and of the local sources that they need."""

    def __init__(self, inputs: CatalogueInputs, shelf: _Shelf, archive: Archive, complaints: Complaints) -> None:
        self._inputs = inputs
        self._shelf = shelf
        self._archive = archive
        self._complaints = complaints

    def recipes(self, targets: c.Sequence[str]) -> tuple[dict[str, Recipe], tuple[tuple[str, str], ...]]:
        """Return the recipes by name, and the edges that are taken out of cycles."""
        chosen = self._shelf.chosen
        ours = [binary for package in chosen.values() for binary in package.binaries]
        wanted = {name for name in targets if chosen[name].local is None}
        solver = Solver(self._archive, ours, wanted)
        left = list(targets)
        seen = set(left)
        while left:
            package = chosen[left.pop()]
            profiles = frozenset(self._inputs.profiles_of(package.name))
            for name in solver.add(package.name, self._dependencies(package), profiles):
                if name not in seen:
                    seen.add(name)
                    left.append(name)
        names = sorted(seen)
        found = solver.solve(names)
        broken = break_cycles([edges.needs for edges in found], [edges.firm for edges in found])
        dropped: dict[int, set[int]] = {}
        for number, needed in broken:
            dropped.setdefault(number, set()).add(needed)
        recipes = {}
        for number, (name, edges) in enumerate(zip(names, found, strict=True)):
            gone = dropped.get(number)
            kept = [needed for needed in edges.needs if needed not in gone] if gone else edges.needs
            recipes[name] = self._recipe(chosen[name], tuple(map(names.__getitem__, kept)), edges.missing)
        return recipes, tuple((names[number], names[needed]) for number, needed in broken)

    def _dependencies(self, package: Package) -> list[str]:
        indep = package.depends_indep if self._inputs.build_indep else ""
        return clauses(_both(package.depends, indep))

    def _recipe(self, package: Package, needs: tuple[str, ...], missing: c.Sequence[str]) -> Recipe:
        more = (f"{len(missing) - _SHOWN} more packages",) if len(missing) > _SHOWN else ()
        sha256, why = self._digest(package)
        return Recipe(
            name=package.name,
            version=package.version,
            digest=sha256,
            needs=needs,
            missing=(*missing[:_SHOWN], *more),
            ignored=self._ignored(package) or why,
            categories=_categories(package.section),
            origin=package.origin,
        )

    def _digest(self, package: Package) -> tuple[str, str]:
        """Return the digest of a package, or why it cannot be built."""
        if package.local is None:
            return package.digest, ""
        try:
            return digest(package.local), ""
        except BadSource as error:
            why = error.message
        except OSError as error:
            why = f"{error.filename} cannot be read: {error.strerror}."
        self._complaints.add(why)
        return "", why

    def _ignored(self, package: Package) -> str:
        if not self._inputs.trybroken and package.name in self._inputs.duds:
            return self._inputs.duds[package.name]
        here = self._archive.architecture
        if is_made(package.architectures, here, indep=self._inputs.build_indep):
            return ""
        if "all" in package.architectures:
            return "all its packages are architecture-independent, and this arch does not build such"
        return f"it makes no package for {here}"
