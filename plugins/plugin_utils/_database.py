# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The database of a branch: one SQLite file, its schema, and how it is opened.

Nothing but the record of builds (C(_store.py)) and the journal of bulk builds (C(_journal.py)) may know that it exists.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import sqlite3
import urllib.parse

from ..module_utils._errors import PortbuildError
from ._space import disk_full, free_bytes

BUSY = 30.0  # seconds to wait for another process; a transaction takes milliseconds


class StoreError(PortbuildError):
    """The record of builds cannot be used."""


class StoreBusy(StoreError):
    """Another process holds the record of builds."""


class StoreDamaged(StoreError):
    """The database is not what it should be."""


# One entry per schema version, each run once, in order, in one transaction. Append; never change one that was released.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE builds (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          queue TEXT NOT NULL, token INTEGER NOT NULL,
          package TEXT NOT NULL, version TEXT NOT NULL, machine TEXT NOT NULL,
          outcome TEXT NOT NULL, reason TEXT NOT NULL, infrastructure INTEGER NOT NULL, broken INTEGER NOT NULL,
          phase TEXT NOT NULL, detail TEXT NOT NULL, failure_class TEXT NOT NULL,
          started REAL NOT NULL, ended REAL NOT NULL, seconds REAL NOT NULL,
          phases TEXT NOT NULL, cpu_seconds REAL NOT NULL, peak_memory INTEGER NOT NULL, log TEXT NOT NULL,
          recorded REAL NOT NULL, previous TEXT, builds_again INTEGER NOT NULL, failures INTEGER NOT NULL,
          UNIQUE (queue, token)
        )
        """,
        "CREATE INDEX builds_of_package ON builds (package, id)",
        """
        CREATE TABLE packages (
          package TEXT PRIMARY KEY, version TEXT NOT NULL, succeeded REAL NOT NULL,
          build INTEGER NOT NULL REFERENCES builds (id)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE files (
          package TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
          size INTEGER NOT NULL, sha256 TEXT NOT NULL, version TEXT NOT NULL,
          PRIMARY KEY (package, kind, name)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX files_by_name ON files (name)",
        """
        CREATE TABLE superseded (
          package TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
          size INTEGER NOT NULL, sha256 TEXT NOT NULL, version TEXT NOT NULL,
          PRIMARY KEY (package, kind, name)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE failures (
          package TEXT PRIMARY KEY, first REAL NOT NULL, last REAL NOT NULL, count INTEGER NOT NULL,
          failure_class TEXT NOT NULL, phase TEXT NOT NULL, detail TEXT NOT NULL
        ) WITHOUT ROWID
        """,
    ),
    (
        """
        CREATE TABLE bulk_runs (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          wish TEXT NOT NULL, owner TEXT NOT NULL,
          begun REAL NOT NULL, renewed REAL NOT NULL, ended REAL, ending TEXT NOT NULL
        )
        """,
        """
        CREATE TABLE bulk_packages (
          run INTEGER NOT NULL REFERENCES bulk_runs (id), package TEXT NOT NULL,
          state TEXT NOT NULL, why TEXT NOT NULL, reason TEXT NOT NULL, machine TEXT NOT NULL,
          since INTEGER, started REAL, ended REAL, seconds REAL NOT NULL, attempts TEXT NOT NULL, made_of TEXT NOT NULL,
          PRIMARY KEY (run, package)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE bulk_commands (
          id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES bulk_runs (id),
          command TEXT NOT NULL, package TEXT NOT NULL, who TEXT NOT NULL, asked REAL NOT NULL, answer TEXT
        )
        """,
        """
        CREATE TABLE made_of (
          package TEXT PRIMARY KEY, queue TEXT NOT NULL, token INTEGER NOT NULL, ingredients TEXT NOT NULL
        ) WITHOUT ROWID
        """,
    ),
    (
        "ALTER TABLE builds ADD COLUMN further TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE builds ADD COLUMN line_number INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE builds ADD COLUMN line TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE builds ADD COLUMN around TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE failures ADD COLUMN line_number INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE failures ADD COLUMN line TEXT NOT NULL DEFAULT ''",
    ),
)

SCHEMA_VERSION = len(_MIGRATIONS)


class Database:
    """The database in one file, for any number of processes, users and containers on one local file system.

    The rollback journal, not WAL: WAL needs two more files that every reader must be able to write and memory shared
    between all of them, which users of different groups and containers do not always have; and a transaction here takes
    a few milliseconds now and then. A connection lives for one call, so nothing breaks when Ansible forks its workers.
    """

    def __init__(self, path: str, *, busy: float = BUSY) -> None:
        self.path = path
        self._busy = busy

    @contextlib.contextmanager
    def writing(self) -> c.Iterator[sqlite3.Connection]:
        """A transaction that is committed at the end of the block, alone in the database from its beginning."""
        with self._errors(), contextlib.closing(self._create()) as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> c.Iterator[sqlite3.Connection]:
        """A consistent view. Reading a store that does not exist yet finds it empty, and does not make it."""
        with self._errors(), contextlib.closing(self._existing()) as database:
            database.execute("BEGIN")
            yield database

    def _connect(self, target: str, *, uri: bool = False) -> sqlite3.Connection:
        database = sqlite3.connect(target, timeout=self._busy, isolation_level=None, uri=uri)
        database.row_factory = sqlite3.Row
        # EXTRA: superseded files are removed after a commit, which must then not be undone by a power failure.
        database.execute("PRAGMA synchronous = EXTRA")
        return database

    def _create(self) -> sqlite3.Connection:
        if not os.path.exists(self.path):
            # Whoever may write to the directory may write to the database: several users share a cluster.
            mode = os.stat(os.path.dirname(self.path) or ".").st_mode & 0o666
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    os.fchmod(descriptor, mode)
                finally:
                    os.close(descriptor)
        return self._migrated(self._connect(self.path))

    def _existing(self) -> sqlite3.Connection:
        try:
            empty = os.stat(self.path).st_size == 0  # made, but not filled yet
        except FileNotFoundError:
            empty = True
        if empty:
            database = self._connect(":memory:")
        elif os.access(self.path, os.W_OK):
            return self._create()
        else:
            database = self._connect(f"file:{urllib.parse.quote(os.path.abspath(self.path))}?mode=ro", uri=True)
        return self._migrated(database)

    def _migrated(self, database: sqlite3.Connection) -> sqlite3.Connection:
        """Return the database with its schema up to date; close it if that cannot be."""
        try:
            self._migrate(database)
        except BaseException:
            database.close()
            raise
        return database

    def _migrate(self, database: sqlite3.Connection) -> None:
        """Bring the schema up to date."""
        if self._version(database) == SCHEMA_VERSION:
            return
        database.execute("BEGIN IMMEDIATE")
        try:
            for number, statements in enumerate(_MIGRATIONS[self._version(database) :], self._version(database) + 1):
                for statement in statements:
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {number}")
            database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise

    def _version(self, database: sqlite3.Connection) -> int:
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
        if not 0 <= version <= SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} has schema version {version}, this version of the collection knows 1 to {SCHEMA_VERSION}.",
                remedy="Update portbuild.cluster on this controller.",
            )
        return version

    @contextlib.contextmanager
    def _errors(self) -> c.Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name.startswith("SQLITE_FULL"):
                raise disk_full(self.path, needed=0, min_free=0, free=free_bytes(self.path)) from error
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StoreBusy(
                    f"{self.path} has been locked by another process for {self._busy:.0f} s.",
                    remedy="Look for a program that has it open, such as a sqlite3 shell in a transaction.",
                ) from error
            if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
                raise StoreDamaged(
                    f"{self.path} is damaged or is not a database: {error}.",
                    remedy="Restore it from a backup, or move it away: a new one is made, and packages are built anew.",
                ) from error
            raise StoreError(
                f"{self.path} cannot be used: {error}.",
                remedy="The file and its directory must be writable for the user that dispatches.",
            ) from error
