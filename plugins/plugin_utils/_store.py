# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What was built, when, by whom and into which files: the memory of one branch of one arch.

C(Store) is the interface, C(SqliteStore) the one on a local file system. Nothing outside this file may know that there
is SQL, nor that there is a file.
"""

from __future__ import annotations

import abc
import collections.abc as c
import dataclasses
import json
import math
import sqlite3
import time
import typing as t

from ..module_utils._names import check_file_name, check_machine, check_package, check_sha256, check_version
from ._database import BUSY, Database, StoreError

Kind = t.Literal["package", "changes", "buildinfo", "extra", "distfile", "workdir", "log"]
Outcome = t.Literal["success", "failed"]

KINDS: tuple[Kind, ...] = t.get_args(Kind)
# These are one set: a successful build replaces all of them together, and each name belongs to one package.
SET_KINDS: tuple[Kind, ...] = ("package", "changes", "buildinfo", "extra")
PACKAGES: tuple[Kind, ...] = ("package",)

_AVERAGED = 5  # builds: enough to even out a busy machine, few enough to follow a package that grows


class StaleBuild(StoreError):
    """A later build of the package has been recorded already."""


class FileConflict(StoreError):
    """Two packages want the same file name."""


class Identity(t.NamedTuple):
    """One build: the queue directory it was dispatched from, and the token it was started under."""

    queue: str
    token: int


class StoredFile(t.NamedTuple):
    """A file of a package, as it is on the controller."""

    kind: Kind
    name: str
    size: int
    sha256: str
    version: str = ""


def stored_file(entry: c.Mapping[str, t.Any]) -> StoredFile:
    """Return the file that a step's result describes, its kind, name and sum checked."""
    if entry.get("kind") not in KINDS:
        raise StoreError(f"{entry.get('kind')!r:.80} is not a kind of file; expected one of {', '.join(KINDS)}.")
    name, sha256 = check_file_name(entry.get("name")), check_sha256(entry.get("sha256"))
    return StoredFile(t.cast(Kind, entry["kind"]), name, int(entry["size"]), sha256, str(entry.get("version") or ""))


class PackageFile(t.NamedTuple):
    """A file and the package that it belongs to."""

    package: str
    file: StoredFile


class BuiltPackage(t.NamedTuple):
    """A package as its last successful build has made it."""

    identity: Identity
    version: str
    succeeded: float
    files: tuple[StoredFile, ...]


class Phase(t.NamedTuple):
    """How long a phase took."""

    name: str
    seconds: float
    cpu: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """A build that has ended. Times are the controller's clock, C(seconds) is monotonic time on the client."""

    queue: str
    token: int
    package: str
    machine: str
    outcome: Outcome
    reason: str
    infrastructure: bool = False  # the machine or the network is to blame: does not count against the package
    version: str = ""
    phase: str = ""
    detail: str = ""
    failure_class: str = ""
    further: tuple[str, ...] = ()  # classes that other lines of the log stand for
    line_number: int = 0  # of the line of the log that tells the class; 0: there is none
    line: str = ""
    around: tuple[str, ...] = ()  # it with the lines around it
    broken: bool = False  # the package was marked BROKEN and tried nevertheless
    started: float = 0.0
    ended: float = 0.0
    seconds: float = 0.0
    phases: tuple[Phase, ...] = ()
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    log: str = ""

    def __post_init__(self) -> None:
        check_package(self.package)
        check_machine(self.machine)
        if self.version:
            check_version(self.version)
        if self.outcome not in t.get_args(Outcome):
            raise ValueError(f"outcome {self.outcome!r} is not one of {', '.join(t.get_args(Outcome))}")
        if self.outcome == "success" and self.infrastructure:
            raise ValueError("a build cannot succeed and be a failure of the infrastructure")
        for name in ("started", "ended", "seconds", "cpu_seconds"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}, a finite number is expected")

    @property
    def identity(self) -> Identity:
        return Identity(self.queue, self.token)

    @property
    def counted(self) -> bool:
        """Whether this says anything about the package."""
        return not self.infrastructure


class Recorded(t.NamedTuple):
    """What recording a build told. But for C(first_time), a repeated call returns the same."""

    first_time: bool
    previous: Outcome | None  # of the package's last counted build before this one
    builds_again: bool  # it succeeded, and the one before had failed
    broken_built: bool  # it succeeded although it is marked BROKEN
    failures: int  # counted failures in a row, this one included


class Built(t.NamedTuple):
    """A recorded build."""

    build: BuildRecord
    recorded: float
    result: Recorded


class Failure(t.NamedTuple):
    """The failure record of a package: it is there exactly while the last counted build failed."""

    package: str
    first: float
    last: float
    times: int
    failure_class: str
    phase: str
    detail: str
    line_number: int
    line: str
    last_success: float | None


class Store(abc.ABC):
    """The record of builds of one branch of one arch."""

    @abc.abstractmethod
    def record(
        self,
        build: BuildRecord,
        files: c.Sequence[StoredFile] = (),
        *,
        place: c.Callable[[], None] | None = None,
    ) -> Recorded:
        """Record the build in one transaction, once: the same identity again changes nothing and returns the same.

        C(place) is called inside the transaction, the first time only, when everything else is known to be right. It
        puts the logs in place; if it raises, nothing is recorded. Whoever dies between its end and the commit has
        placed the logs of a build that is not recorded yet, so it must be able to run again.
        Raises StaleBuild when a later build of the package from the same queue is recorded, and FileConflict when
        another package has a file of that name.
        """

    @abc.abstractmethod
    def built(self, identity: Identity) -> Built | None:
        """Return the build of this identity, if it has been recorded."""

    @abc.abstractmethod
    def newest(self, package: str, queue: str) -> int:
        """Return the newest token of a recorded build of the package from this queue, 0 if there is none."""

    @abc.abstractmethod
    def last(self, package: str, *, counted: bool = False) -> Built | None:
        """Return the package's last build; with C(counted), the last that was no infrastructure failure."""

    @abc.abstractmethod
    def history(self, package: str | None = None, limit: int = 50) -> list[Built]:
        """Return the last builds, the latest first: of the package, or of all."""

    @abc.abstractmethod
    def package_files(self, package: str, kinds: c.Collection[Kind] = KINDS) -> list[StoredFile]:
        """Return the current files of the package. It exists only if each of them is there and matches."""

    @abc.abstractmethod
    def all_package_files(self, kinds: c.Collection[Kind] = PACKAGES) -> list[PackageFile]:
        """Return the current files of all packages, by package and name."""

    @abc.abstractmethod
    def packages(self) -> dict[str, BuiltPackage]:
        """Return all packages that have been built, by name."""

    @abc.abstractmethod
    def package(self, package: str) -> BuiltPackage | None:
        """Return the package, if it has been built."""

    @abc.abstractmethod
    def file_owner(self, name: str) -> str | None:
        """Return the package whose set (see SET_KINDS) has the file name."""

    @abc.abstractmethod
    def file_sums(self, kind: Kind, name: str) -> dict[str, str]:
        """Return which packages name the file of this kind, and with which SHA-256."""

    @abc.abstractmethod
    def average_seconds(self, package: str) -> float | None:
        """Return how long the package's last successful builds took, or None if there is none."""

    @abc.abstractmethod
    def durations(self) -> dict[str, float]:
        """Return average_seconds of all packages that have one."""

    @abc.abstractmethod
    def failures(self) -> list[Failure]:
        """Return the failure records, the latest failure first."""

    @abc.abstractmethod
    def drop_superseded(self, package: str, remove: c.Callable[[StoredFile], None]) -> list[StoredFile]:
        """Call C(remove) for each file that the package's earlier builds left and that no package names now.

        Nothing can be recorded meanwhile. What C(remove) did not raise for is forgotten; the list of it is returned.
        """


_BUILD_COLUMNS = tuple(field.name for field in dataclasses.fields(BuildRecord))
_INSERT_BUILD = (
    f"INSERT INTO builds ({', '.join(_BUILD_COLUMNS)}, recorded, previous, builds_again, failures)"
    f" VALUES ({', '.join('?' * (len(_BUILD_COLUMNS) + 4))})"
)


def _marks(values: c.Collection[t.Any]) -> str:
    return f"({', '.join('?' * len(values))})"


def _from_row(row: sqlite3.Row) -> Built:
    fields: dict[str, t.Any] = {name: row[name] for name in _BUILD_COLUMNS}
    fields["infrastructure"] = bool(row["infrastructure"])
    fields["broken"] = bool(row["broken"])
    fields["phases"] = tuple(Phase(*phase) for phase in json.loads(row["phases"]))
    for name in ("further", "around"):
        fields[name] = tuple(json.loads(row[name]))
    build = BuildRecord(**fields)
    result = Recorded(
        first_time=False,
        previous=row["previous"],
        builds_again=bool(row["builds_again"]),
        broken_built=build.broken and build.outcome == "success",
        failures=row["failures"],
    )
    return Built(build, row["recorded"], result)


class SqliteStore(Store):
    """The store in the branch's database. A connection lives for one call: Ansible forks its workers."""

    def __init__(self, path: str, *, now: c.Callable[[], float] = time.time, busy: float = BUSY) -> None:
        self.path = path
        self._database = Database(path, busy=busy)
        self._now = now

    # -- interface ----------------------------------------------------------------------------------------------------

    def record(
        self,
        build: BuildRecord,
        files: c.Sequence[StoredFile] = (),
        *,
        place: c.Callable[[], None] | None = None,
    ) -> Recorded:
        _check_files(build, files)
        with self._database.writing() as database:
            row = database.execute("SELECT * FROM builds WHERE queue = ? AND token = ?", build.identity).fetchone()
            if row is not None:
                return _replayed(build, _from_row(row))
            _refuse_stale(database, build)
            _refuse_conflicts(database, build, files)
            result = _outcome(database, build)
            number = _insert_build(database, build, self._now(), result)
            _update_failures(database, build)
            if build.outcome == "success":
                database.execute(
                    "INSERT OR REPLACE INTO packages (package, version, succeeded, build) VALUES (?, ?, ?, ?)",
                    (build.package, build.version, build.ended, number),
                )
            _replace_files(database, build, files)
            if place is not None:
                place()
            return result

    def built(self, identity: Identity) -> Built | None:
        return self._one("SELECT * FROM builds WHERE queue = ? AND token = ?", identity)

    def newest(self, package: str, queue: str) -> int:
        with self._database.reading() as database:
            return _newest(database, package, queue)

    def last(self, package: str, *, counted: bool = False) -> Built | None:
        only = "AND NOT infrastructure" if counted else ""
        return self._one(f"SELECT * FROM builds WHERE package = ? {only} ORDER BY id DESC LIMIT 1", (package,))

    def history(self, package: str | None = None, limit: int = 50) -> list[Built]:
        where, values = ("WHERE package = ?", (package, limit)) if package is not None else ("", (limit,))
        with self._database.reading() as database:
            rows = database.execute(f"SELECT * FROM builds {where} ORDER BY id DESC LIMIT ?", values)
            return [_from_row(row) for row in rows]

    def package_files(self, package: str, kinds: c.Collection[Kind] = KINDS) -> list[StoredFile]:
        with self._database.reading() as database:
            rows = database.execute(
                "SELECT kind, name, size, sha256, version FROM files"
                f" WHERE package = ? AND kind IN {_marks(kinds)} ORDER BY kind, name",
                (package, *kinds),
            )
            return [StoredFile(*row) for row in rows]

    def all_package_files(self, kinds: c.Collection[Kind] = PACKAGES) -> list[PackageFile]:
        with self._database.reading() as database:
            rows = database.execute(
                "SELECT package, kind, name, size, sha256, version FROM files"
                f" WHERE kind IN {_marks(kinds)} ORDER BY package, name",
                tuple(kinds),
            )
            return [PackageFile(row[0], StoredFile(*row[1:])) for row in rows]

    def packages(self) -> dict[str, BuiltPackage]:
        with self._database.reading() as database:
            return _packages(database)

    def package(self, package: str) -> BuiltPackage | None:
        with self._database.reading() as database:
            return _packages(database, package).get(package)

    def file_owner(self, name: str) -> str | None:
        with self._database.reading() as database:
            return _owner(database, name)

    def file_sums(self, kind: Kind, name: str) -> dict[str, str]:
        with self._database.reading() as database:
            return dict(
                database.execute(
                    "SELECT package, sha256 FROM files WHERE kind = ? AND name = ?", (kind, name)
                ).fetchall()
            )

    def average_seconds(self, package: str) -> float | None:
        with self._database.reading() as database:
            row = database.execute(
                "SELECT avg(seconds) FROM (SELECT seconds FROM builds"
                " WHERE package = ? AND outcome = 'success' ORDER BY id DESC LIMIT ?)",
                (package, _AVERAGED),
            ).fetchone()
            return t.cast("float | None", row[0])

    def durations(self) -> dict[str, float]:
        with self._database.reading() as database:
            rows = database.execute(
                "SELECT package, avg(seconds) FROM (SELECT package, seconds,"
                " row_number() OVER (PARTITION BY package ORDER BY id DESC) AS age"
                " FROM builds WHERE outcome = 'success') WHERE age <= ? GROUP BY package",
                (_AVERAGED,),
            )
            return dict(rows.fetchall())

    def failures(self) -> list[Failure]:
        with self._database.reading() as database:
            rows = database.execute(
                "SELECT package, first, last, count, failure_class, phase, detail, line_number, line, succeeded FROM failures"
                " LEFT JOIN packages USING (package) ORDER BY last DESC, package"
            )
            return [Failure(*row) for row in rows]

    def drop_superseded(self, package: str, remove: c.Callable[[StoredFile], None]) -> list[StoredFile]:
        query = "SELECT kind, name, size, sha256, version FROM superseded WHERE package = ?"
        with self._database.reading() as database:
            if database.execute(query, (package,)).fetchone() is None:
                return []
        removed = []
        with self._database.writing() as database:
            for row in database.execute(query, (package,)).fetchall():
                file = StoredFile(*row)
                # A name is one file whatever the kind: the kinds of a set share a directory.
                if database.execute("SELECT 1 FROM files WHERE name = ?", (file.name,)).fetchone() is None:
                    try:
                        remove(file)
                    except OSError:
                        continue  # stays in the table: the next record of this package tries again
                    removed.append(file)
                database.execute(
                    "DELETE FROM superseded WHERE package = ? AND kind = ? AND name = ?",
                    (package, file.kind, file.name),
                )
        return removed

    def _one(self, query: str, values: c.Sequence[t.Any]) -> Built | None:
        with self._database.reading() as database:
            row = database.execute(query, values).fetchone()
            return None if row is None else _from_row(row)


def _packages(database: sqlite3.Connection, package: str = "") -> dict[str, BuiltPackage]:
    """Return what has been built, of all packages or of one."""
    only, values = ("AND package = ?", (package,)) if package else ("", ())
    files: dict[str, list[StoredFile]] = {}
    for row in database.execute(
        f"SELECT package, kind, name, size, sha256, version FROM files WHERE kind IN {_marks(SET_KINDS)} {only}"
        " ORDER BY package, kind, name",
        (*SET_KINDS, *values),
    ):
        files.setdefault(row[0], []).append(StoredFile(*row[1:]))
    only = "WHERE packages.package = ?" if package else ""
    rows = database.execute(
        "SELECT packages.package, builds.queue, builds.token, packages.version, succeeded FROM packages"
        f" JOIN builds ON builds.id = packages.build {only}",
        values,
    )
    return {
        row[0]: BuiltPackage(Identity(row[1], row[2]), row[3], row[4], tuple(files.get(row[0], ()))) for row in rows
    }


# -- the parts of record(): each runs inside its transaction ----------------------------------------------------------


def _check_files(build: BuildRecord, files: c.Sequence[StoredFile]) -> None:
    seen = set()
    for file in files:
        check_file_name(file.name)
        check_sha256(file.sha256)
        if file.kind not in KINDS or file.size < 0:
            raise StoreError(f"{file} is no file of a build.")
        if (file.kind, file.name) in seen:
            raise StoreError(f"{file.name} is named twice.")
        seen.add((file.kind, file.name))
        if build.outcome != "success" and file.kind in SET_KINDS:
            raise StoreError(f"{build.package} failed, so it has no {file.kind} {file.name}.")


def _replayed(build: BuildRecord, earlier: Built) -> Recorded:
    if earlier.build.package != build.package:
        raise StoreError(
            f"Build {build.token} of queue {build.queue} is recorded as one of {earlier.build.package},"
            f" so it cannot be one of {build.package}.",
            remedy="Two queue directories have the same id: remove .claims/id in the one that was copied.",
        )
    return earlier.result


def _newest(database: sqlite3.Connection, package: str, queue: str) -> int:
    values = (package, queue)
    (token,) = database.execute("SELECT max(token) FROM builds WHERE package = ? AND queue = ?", values).fetchone()
    return 0 if token is None else int(token)


def _refuse_stale(database: sqlite3.Connection, build: BuildRecord) -> None:
    latest = _newest(database, build.package, build.queue)
    if latest > build.token:
        raise StaleBuild(
            f"Build {build.token} of {build.package} comes too late: build {latest} has been recorded.",
            details={"token": build.token, "latest": latest},
        )


def _owner(database: sqlite3.Connection, name: str, *, but: str = "") -> str | None:
    row = database.execute(
        f"SELECT package FROM files WHERE name = ? AND package <> ? AND kind IN {_marks(SET_KINDS)}",
        (name, but, *SET_KINDS),
    ).fetchone()
    return None if row is None else t.cast("str", row[0])


def _refuse_conflicts(database: sqlite3.Connection, build: BuildRecord, files: c.Sequence[StoredFile]) -> None:
    for file in files:
        if file.kind in SET_KINDS:
            owner = _owner(database, file.name, but=build.package)
        elif file.kind == "distfile":  # packages may share a source archive, if it is the same
            row = database.execute(
                "SELECT package FROM files WHERE kind = 'distfile' AND name = ? AND package <> ? AND sha256 <> ?",
                (file.name, build.package, file.sha256),
            ).fetchone()
            owner = None if row is None else row[0]
        else:
            continue
        if owner is not None:
            raise conflict(build.package, file, owner)


def conflict(package: str, file: StoredFile, owner: str) -> FileConflict:
    """Return the error that says which package has the file."""
    what = "another file of that name" if file.kind == "distfile" else "that file"
    return FileConflict(
        f"{package} brings the {file.kind} {file.name}, but {owner} has {what}.",
        remedy=f"Build {owner} anew if it no longer makes it, or change the version of one of them.",
        details={"package": package, "file": file.name, "owner": owner},
    )


def _outcome(database: sqlite3.Connection, build: BuildRecord) -> Recorded:
    row = database.execute(
        "SELECT outcome FROM builds WHERE package = ? AND NOT infrastructure ORDER BY id DESC LIMIT 1", (build.package,)
    ).fetchone()
    count = database.execute("SELECT count FROM failures WHERE package = ?", (build.package,)).fetchone()
    before = 0 if count is None else int(count[0])
    success = build.outcome == "success"
    return Recorded(
        first_time=True,
        previous=None if row is None else row[0],
        builds_again=success and before > 0,
        broken_built=success and build.broken,
        failures=0 if success else before + build.counted,
    )


def _insert_build(database: sqlite3.Connection, build: BuildRecord, now: float, result: Recorded) -> int:
    fields = {name: getattr(build, name) for name in _BUILD_COLUMNS}
    for name in ("phases", "further", "around"):
        fields[name] = json.dumps(fields[name])
    values = (*fields.values(), now, result.previous, result.builds_again, result.failures)
    return t.cast("int", database.execute(_INSERT_BUILD, values).lastrowid)


def _update_failures(database: sqlite3.Connection, build: BuildRecord) -> None:
    if not build.counted:
        return
    if build.outcome == "success":
        database.execute("DELETE FROM failures WHERE package = ?", (build.package,))
        return
    database.execute(
        "INSERT INTO failures (package, first, last, count, failure_class, phase, detail, line_number, line)"
        " VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?)"
        " ON CONFLICT (package) DO UPDATE SET last = excluded.last, count = count + 1,"
        " failure_class = excluded.failure_class, phase = excluded.phase, detail = excluded.detail,"
        " line_number = excluded.line_number, line = excluded.line",
        (
            build.package,
            build.ended,
            build.ended,
            build.failure_class or build.reason,
            build.phase,
            build.detail,
            build.line_number,
            build.line,
        ),
    )


def _replace_files(database: sqlite3.Connection, build: BuildRecord, files: c.Sequence[StoredFile]) -> None:
    """Make these the package's files.

    A success replaces the whole set, even by nothing. Of the other kinds the last ones that came stay: a source archive
    or a work directory that was not asked for this time is no reason to forget the one that is here.
    """
    replaced: set[str] = {file.kind for file in files if file.kind != "log"}
    if build.outcome == "success":
        replaced.update(SET_KINDS)
    kinds = sorted(replaced)
    # Distfiles are a cache, cleaned by age: other packages may be about to use them.
    garbage = [kind for kind in kinds if kind != "distfile"]
    database.execute(
        "INSERT OR REPLACE INTO superseded SELECT package, kind, name, size, sha256, version FROM files"
        f" WHERE package = ? AND kind IN {_marks(garbage)}",
        (build.package, *garbage),
    )
    database.execute(f"DELETE FROM files WHERE package = ? AND kind IN {_marks(kinds)}", (build.package, *kinds))
    for file in files:
        if file.kind != "log":
            database.execute(
                "INSERT INTO files (package, kind, name, size, sha256, version) VALUES (?, ?, ?, ?, ?, ?)",
                (build.package, *file),
            )
            database.execute("DELETE FROM superseded WHERE package = ? AND name = ?", (build.package, file.name))
