# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Debian's archive as it was when the bindist was made: the lists of sources and packages that the base brings along.

They are read out of the tarball once. What a catalogue asks for is kept in a small database beside it, which may be
removed at any time; only that of the present bindist stays. It is looked into name by name, so that a handful of
packages costs little.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import re
import sqlite3
import tarfile
import typing as t
from urllib.parse import quote

from ...module_utils._errors import PortbuildError
from .._temporary import own_directory
from ._catalogue_targets import Complaints
from ._debian_paragraphs import fields, paragraphs
from ._debian_relations import alternatives, BadRelation, clauses, version_key
from ._debian_sources import NAME, VERSION

CACHE = "archive"  # the directory of the database
_DATABASE = "archive.sqlite"
_SCHEMA = 1
_CHUNK = 1 << 20
_LIMIT = 1 << 32  # bytes of all lists; Debian's have some 110 MB
_MEMBERS = 5_000_000  # of the bindist's tarball
_LISTS = "var/lib/apt/lists/"
_ARCHITECTURES = "var/lib/dpkg/arch"  # is only there when there are several; the base's own stands first
_PACKAGES = re.compile(r"[^/]+_binary-([a-z0-9-]+)_Packages")
_SOURCES = re.compile(r"[^/]+_Sources")
_OF_SOURCES = (
    *("Package", "Version", "Architecture", "Section", "Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep"),
    *("Checksums-Sha256", "Extra-Source-Only"),
)
_OF_PACKAGES = ("Package", "Version", "Source", "Depends", "Pre-Depends", "Provides", "Priority")
_PRIORITIES = {"required": 0, "important": 1, "standard": 2, "optional": 3}
_SOURCE = re.compile(r"([a-z0-9][a-z0-9+.-]+)(?: +\([^()]*\))?")
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE source (
    name TEXT, version TEXT, architecture TEXT, section TEXT, depends TEXT, depends_indep TEXT, dsc TEXT, newest INTEGER,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;
CREATE TABLE binary (
    name TEXT PRIMARY KEY, version TEXT, source TEXT, depends TEXT, provides TEXT, priority INTEGER
) WITHOUT ROWID;
CREATE TABLE provided (name TEXT, version TEXT, binary TEXT, priority INTEGER);
"""
_SELECT = "SELECT name, version, architecture, section, depends, depends_indep, dsc FROM source"


class UnreadableBindist(PortbuildError):
    """A bindist whose lists cannot be read."""


class Binary(t.NamedTuple):
    """A package that can be installed."""

    name: str
    version: str
    source: str
    depends: str
    """Pre-Depends and Depends."""
    provides: str
    ours: bool = False
    """Whether it is built from a local source; else it is the archive's."""


class ArchiveSource(t.NamedTuple):
    """A source package of the archive."""

    name: str
    version: str
    architecture: str
    section: str
    depends: str
    """Build-Depends and Build-Depends-Arch."""
    depends_indep: str
    dsc: str
    """SHA-256 of the C(.dsc)."""


# -- filling the database ----------------------------------------------------------------------------------------------


def _pieces(stream: t.IO[bytes]) -> c.Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


class _Filler:
    """Takes lists in any order. Of several versions of a package apt takes the highest, and so does this."""

    def __init__(self, database: sqlite3.Connection, complaints: Complaints) -> None:
        self._database = database
        self._complaints = complaints
        self.architectures: dict[str, dict[str, tuple[t.Any, ...]]] = {}
        self._newest: dict[str, str] = {}
        database.executescript(_TABLES)

    def add_sources(self, name: str, stream: t.IO[bytes]) -> None:
        bad = 0
        for paragraph in paragraphs(_pieces(stream)):
            found = fields(paragraph, _OF_SOURCES)
            package, version = found.get("package", ""), found.get("version", "")
            if not _is_package(package, version):
                bad += 1
                continue
            both = ", ".join(filter(None, (found.get("build-depends"), found.get("build-depends-arch"))))
            self._database.execute(
                "INSERT OR IGNORE INTO source VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                (
                    *(package, version, found.get("architecture", "any"), found.get("section", "")),
                    *(both, found.get("build-depends-indep", ""), _dsc(found.get("checksums-sha256", ""))),
                ),
            )
            if found.get("extra-source-only") != "yes":  # else it is only kept for what was built from it
                self._take_newer(package, version)
        self._complain(name, bad)

    def add_packages(self, name: str, architecture: str, stream: t.IO[bytes]) -> None:
        kept = self.architectures.setdefault(architecture, {})
        bad = 0
        for paragraph in paragraphs(_pieces(stream)):
            found = fields(paragraph, _OF_PACKAGES)
            package, version = found.get("package", ""), found.get("version", "")
            source = _SOURCE.fullmatch(found.get("source", package))
            if source is None or not _is_package(package, version):
                bad += 1
                continue
            other = kept.get(package)
            if other is None or version_key(other[1]) < version_key(version):
                depends = ", ".join(filter(None, (found.get("pre-depends"), found.get("depends"))))
                priority = _PRIORITIES.get(found.get("priority", ""), 4)
                kept[package] = (package, version, source[1], depends, found.get("provides", ""), priority)
        self._complain(name, bad)

    def finish(self, architecture: str, bindist_sha256: str) -> None:
        """Take the packages of this architecture."""
        binaries = self.architectures.get(architecture, {})
        self._database.executemany("UPDATE source SET newest = 1 WHERE name = ? AND version = ?", self._newest.items())
        self._database.executemany("INSERT INTO binary VALUES (?, ?, ?, ?, ?, ?)", binaries.values())
        self._database.executemany(
            "INSERT INTO provided VALUES (?, ?, ?, ?)",
            (
                (provided, version, name, priority)
                for name, _version, _source, _depends, provides, priority in binaries.values()
                for provided, version in provisions(provides)
            ),
        )
        self._database.execute("CREATE INDEX provided_name ON provided (name)")
        about = {"schema": str(_SCHEMA), "bindist": bindist_sha256, "architecture": architecture}
        self._database.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        self._database.commit()

    def _take_newer(self, package: str, version: str) -> None:
        other = self._newest.get(package)
        if other is None or version_key(other) < version_key(version):
            self._newest[package] = version

    def _complain(self, name: str, bad: int) -> None:
        if bad:
            self._complaints.add(f"{name} of the bindist: {bad} paragraphs do not describe a package.")


def _is_package(name: str, version: str) -> bool:
    return len(name) + len(version) < 200 and bool(NAME.fullmatch(name) and VERSION.fullmatch(version))


def _dsc(checksums: str) -> str:
    """Return the SHA-256 of the .dsc that the list names; empty without one."""
    match = re.search(r"^ *([0-9a-f]{64}) +[0-9]+ +[^ ]+\.dsc$", checksums, re.MULTILINE)
    return match[1] if match else ""


def provisions(text: str) -> list[tuple[str, str]]:
    """Return name and version (empty for none) of each package that a field Provides names."""
    found = []
    for clause in clauses(text):
        with contextlib.suppress(BadRelation):
            for relation in alternatives(clause)[:1]:
                found.append((relation.name, relation.version if relation.operator == "=" else ""))
    return found


def _fill(tarball_path: str, filler: _Filler, complaints: Complaints) -> str:
    """Read all lists of the tarball; return the architecture of the base."""
    first = ""
    size = 0
    with tarfile.open(tarball_path, "r|*", encoding="utf-8", errors="surrogateescape") as tarball:
        for _unused in range(_MEMBERS):
            member = tarball.next()
            if member is None:
                break
            tarball.members.clear()  # type: ignore[attr-defined]  # there is no public way to have it forget them
            path = member.name.removeprefix("./")
            if not member.isreg() or not path.startswith((_LISTS, _ARCHITECTURES)):
                continue
            stream = tarball.extractfile(member)
            name = path.removeprefix(_LISTS)
            packages = _PACKAGES.fullmatch(name)
            size += member.size
            if stream is None or size > _LIMIT:
                complaints.add(f"{name} of the bindist is not read: it is too large.")
            elif path == _ARCHITECTURES:
                first = stream.read(100).decode("ascii", "replace").split("\n")[0].strip()
            elif packages:
                filler.add_packages(name, packages[1], stream)
            elif _SOURCES.fullmatch(name):
                filler.add_sources(name, stream)
            elif re.search(r"_(Packages|Sources)\.[a-z0-9]+$", name):
                complaints.add(f"{name} of the bindist is compressed and is not read.")
    known = sorted(filler.architectures)
    return first if first in known or not known else known[0]


# -- asking it ---------------------------------------------------------------------------------------------------------


class Archive:
    """What the archive has."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        about = dict(database.execute("SELECT key, value FROM about"))
        self.architecture: str = about["architecture"]
        self._binaries: dict[str, Binary | None] = {}
        self._providers: dict[str, list[tuple[str, Binary]]] = {}

    def close(self) -> None:
        """Let the database go."""
        self._database.close()

    def binary(self, name: str) -> Binary | None:
        """Return the package of this name that apt would take."""
        if name not in self._binaries:
            row = self._database.execute(
                "SELECT name, version, source, depends, provides FROM binary WHERE name = ?", (name,)
            ).fetchone()
            self._binaries[name] = Binary(*row) if row else None
        return self._binaries[name]

    def providers(self, name: str) -> list[tuple[str, Binary]]:
        """Return the packages that provide this name, with the version that they provide; the usual ones first."""
        if name not in self._providers:
            rows = self._database.execute(
                "SELECT version, binary FROM provided WHERE name = ? ORDER BY priority, binary", (name,)
            ).fetchall()
            found = [(version, self.binary(binary)) for version, binary in rows]
            self._providers[name] = [(version, binary) for version, binary in found if binary is not None]
        return self._providers[name]

    def source(self, name: str, version: str = "") -> ArchiveSource | None:
        """Return the source of this name: this version if one is asked for, else the newest."""
        rows = self._database.execute(f"{_SELECT} WHERE name = ? AND (version = ? OR ? = '')", (name, version, version))
        return max(map(ArchiveSource._make, rows), key=lambda source: version_key(source.version), default=None)

    def current(self) -> list[ArchiveSource]:
        """Return the newest version of each source."""
        return [ArchiveSource(*row) for row in self._database.execute(f"{_SELECT} WHERE newest")]

    def section(self, name: str) -> list[str]:
        """Return the names of the sources of a section, with or without the area before it."""
        rows = self._database.execute(
            "SELECT name FROM source WHERE newest AND (section = ? OR substr(section, instr(section, '/') + 1) = ?)",
            (name, name),
        )
        return [row[0] for row in rows]

    def names(self) -> list[str]:
        """Return the names of all sources."""
        return [row[0] for row in self._database.execute("SELECT DISTINCT name FROM source")]

    def sections(self) -> list[str]:
        """Return the names of all sections."""
        return [row[0] for row in self._database.execute("SELECT DISTINCT section FROM source")]


def open_archive(bindist: str, sha256: str, cache_directory: str, complaints: Complaints) -> Archive:
    """Return what the lists of the bindist say, read now unless that is remembered; raises UnreadableBindist."""
    cache = os.path.join(cache_directory, CACHE, _DATABASE) if cache_directory and sha256 else ""
    database = _remembered(cache, sha256) if cache else None
    if database is None and cache:
        try:
            with own_directory(os.path.dirname(cache), ".new-") as directory:
                path = os.path.join(directory, _DATABASE)
                _make(path, bindist, sha256, complaints).close()
                os.replace(path, cache)
            database = _remembered(cache, sha256)
        except (OSError, sqlite3.Error) as error:
            complaints.add(f"The lists of the bindist cannot be remembered in {os.path.dirname(cache)}: {error}.")
    return Archive(database or _make(":memory:", bindist, sha256, complaints))


def _remembered(cache: str, sha256: str) -> sqlite3.Connection | None:
    if not os.path.isfile(cache):
        return None
    database = sqlite3.connect(f"file:{quote(cache)}?mode=ro&immutable=1", uri=True)
    with contextlib.suppress(sqlite3.Error):
        about = dict(database.execute("SELECT key, value FROM about"))
        if (about.get("schema"), about.get("bindist")) == (str(_SCHEMA), sha256):
            return database
    database.close()
    return None


def _make(path: str, bindist: str, sha256: str, complaints: Complaints) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA synchronous = OFF")  # a lost one costs some seconds
        database.execute("PRAGMA journal_mode = OFF")
        filler = _Filler(database, complaints)
        architecture = _fill(bindist, filler, complaints) if bindist else ""
        filler.finish(architecture, sha256)
    except sqlite3.Error:
        database.close()
        raise
    except Exception as error:  # pylint: disable=broad-except  # of damaged ones anything comes, TypeError included
        database.close()
        if isinstance(error, OSError) and error.errno is not None and error.filename != bindist:
            raise
        raise UnreadableBindist(
            f"The lists of {bindist} cannot be read: {error}.", remedy="Make the bindist anew."
        ) from None
    return database
