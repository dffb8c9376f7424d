# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The journal of bulk builds: what is wanted, what has begun and how it ended, what people ask of a run that goes on.

C(Journal) is the interface, C(SqliteJournal) the one on a local file system. What a package came to is told by the
record of builds; the journal says which of these builds were this run's, so that a run that was interrupted goes on
where it was: nothing is built twice, and nothing is forgotten.
"""

from __future__ import annotations

import abc
import collections.abc as c
import dataclasses
import json
import sqlite3
import time
import typing as t

from ._database import Database, StoreError
from ._owner import Owner
from ._store import Identity

OWNER_TTL = 600.0  # seconds without renewal after which an owner that cannot be judged by its process is dead
KEPT_RUNS = 20


class BulkRuns(StoreError):
    """A bulk build of the branch runs already."""


class NotOurs(StoreError):
    """Another process has taken the run over: whoever wakes up late must do nothing any more."""


class NoBulk(StoreError):
    """No bulk build of the branch runs."""


class Run(t.NamedTuple):
    """A bulk build. C(ended) is None while it runs, or was interrupted; C(resumed) says that it goes on."""

    number: int
    wish: dict[str, t.Any]
    owner: Owner | None
    begun: float
    renewed: float
    ended: float | None
    ending: str
    resumed: bool = False

    def lives(self, now: float) -> bool:
        """Whether somebody is at it."""
        if self.ended is not None or self.owner is None:
            return False
        return self.owner.judge(self.renewed, now, OWNER_TTL) == "alive"


@dataclasses.dataclass
class Row:
    """What a run knows of a package. Times are the controller's clock.

    C(why) are the codes of the reasons for building it, C(since) the newest token when the run first began to build it:
    a build with a newer one is this run's. C(attempts) are those that infrastructure has spoilt, C(made_of) what the
    build that has begun is made of.
    """

    package: str
    state: str
    why: tuple[str, ...] = ()
    reason: str = ""
    machine: str = ""
    since: int | None = None
    started: float | None = None
    ended: float | None = None
    seconds: float = 0.0
    attempts: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    made_of: dict[str, t.Any] = dataclasses.field(default_factory=dict)


class Command(t.NamedTuple):
    """What somebody asks of a run."""

    number: int
    command: str
    package: str
    who: str


class Answer(t.NamedTuple):
    """What the run says to that; whether it does what was asked."""

    done: bool
    text: str


class Journal(abc.ABC):
    """The journal of one branch of one arch."""

    @abc.abstractmethod
    def begin(self, wish: dict[str, t.Any], owner: Owner) -> Run:
        """Return the run to work on: the interrupted one with the same wish, else a new one.

        An interrupted one with another wish is closed. Raises BulkRuns when the owner of the last run lives.
        """

    # What changes a run raises NotOurs unless the run still has the owner that it was begun with.

    @abc.abstractmethod
    def renew(self, run: Run) -> None:
        """Say that the run's owner lives."""

    @abc.abstractmethod
    def end(self, run: Run, ending: str) -> None:
        """Close the run."""

    @abc.abstractmethod
    def let_go(self, run: Run) -> None:
        """Say that nobody is at the run any more, though it has not ended: it can go on at once, from anywhere."""

    @abc.abstractmethod
    def last(self) -> Run | None:
        """Return the last run, whether or not it has ended."""

    @abc.abstractmethod
    def rows(self, run: Run) -> dict[str, Row]:
        """Return what the run knows of its packages."""

    @abc.abstractmethod
    def write(self, run: Run, rows: c.Iterable[Row]) -> None:
        """Remember the rows, all or none."""

    @abc.abstractmethod
    def ask(self, command: str, package: str, who: str) -> int:
        """Ask something of the run that goes on; return the number of the question. Raises NoBulk when none does."""

    @abc.abstractmethod
    def asked(self, run: Run) -> list[Command]:
        """Return what was asked and is not answered yet, in order."""

    @abc.abstractmethod
    def answer(self, number: int, answer: Answer) -> None:
        """Answer a question."""

    @abc.abstractmethod
    def answer_to(self, number: int) -> Answer | None:
        """Return the answer, None while there is none."""

    @abc.abstractmethod
    def made_of(self) -> dict[str, tuple[Identity, dict[str, t.Any]]]:
        """Return, by package, what its last build by a bulk was made of, and which build that was."""

    @abc.abstractmethod
    def note_made_of(self, package: str, identity: Identity, ingredients: dict[str, t.Any]) -> None:
        """Remember what this build of the package was made of."""


_ROW = "INSERT OR REPLACE INTO bulk_packages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class SqliteJournal(Journal):
    """The journal in the branch's database."""

    def __init__(self, path: str, *, now: c.Callable[[], float] = time.time) -> None:
        self._database = Database(path)
        self._now = now

    def begin(self, wish: dict[str, t.Any], owner: Owner) -> Run:
        now, text = self._now(), json.dumps(wish, sort_keys=True)
        with self._database.writing() as database:
            last = _last(database)
            if last is not None and last.lives(now) and last.owner != owner:
                raise BulkRuns(
                    f"A bulk build of this branch runs already, by {last.owner}.",
                    remedy="Wait for its end, or stop it with the playbook portbuild.cluster.stop.",
                )
            if last is not None and last.ended is None and json.dumps(last.wish, sort_keys=True) == text:
                database.execute(
                    "UPDATE bulk_runs SET owner = ?, renewed = ? WHERE id = ?",
                    (json.dumps(owner.to_dict()), now, last.number),
                )
                return last._replace(owner=owner, renewed=now, resumed=True)
            database.execute("UPDATE bulk_runs SET ended = ?, ending = 'superseded' WHERE ended IS NULL", (now,))
            number = database.execute(
                "INSERT INTO bulk_runs (wish, owner, begun, renewed, ending) VALUES (?, ?, ?, ?, '')",
                (text, json.dumps(owner.to_dict()), now, now),
            ).lastrowid
            _forget(database, int(number or 0) - KEPT_RUNS)
            return Run(int(number or 0), wish, owner, now, now, None, "")

    def renew(self, run: Run) -> None:
        with self._database.writing() as database:
            _refuse_unless_ours(database, run)
            database.execute("UPDATE bulk_runs SET renewed = ? WHERE id = ?", (self._now(), run.number))

    def end(self, run: Run, ending: str) -> None:
        with self._database.writing() as database:
            _refuse_unless_ours(database, run)
            database.execute(
                "UPDATE bulk_runs SET ended = ?, ending = ? WHERE id = ?", (self._now(), ending, run.number)
            )
            answer = Answer(False, "The bulk build has ended.")
            database.execute(_ANSWER_ALL, (json.dumps(answer), run.number))

    def let_go(self, run: Run) -> None:
        with self._database.writing() as database:
            _refuse_unless_ours(database, run)
            database.execute("UPDATE bulk_runs SET owner = 'null' WHERE id = ?", (run.number,))

    def last(self) -> Run | None:
        with self._database.reading() as database:
            return _last(database)

    def rows(self, run: Run) -> dict[str, Row]:
        with self._database.reading() as database:
            found = database.execute("SELECT * FROM bulk_packages WHERE run = ?", (run.number,))
            return {row["package"]: _row(row) for row in found}

    def write(self, run: Run, rows: c.Iterable[Row]) -> None:
        with self._database.writing() as database:
            _refuse_unless_ours(database, run)
            database.executemany(_ROW, (_values(run, row) for row in rows))

    def ask(self, command: str, package: str, who: str) -> int:
        now = self._now()
        with self._database.writing() as database:
            last = _last(database)
            if last is None or not last.lives(now):
                raise NoBulk(
                    "No bulk build of this branch runs.", remedy="The playbook portbuild.cluster.bulk runs one."
                )
            number = database.execute(
                "INSERT INTO bulk_commands (run, command, package, who, asked) VALUES (?, ?, ?, ?, ?)",
                (last.number, command, package, who, now),
            ).lastrowid
            return int(number or 0)

    def asked(self, run: Run) -> list[Command]:
        query = "SELECT id, command, package, who FROM bulk_commands WHERE run = ? AND answer IS NULL ORDER BY id"
        with self._database.reading() as database:
            return [Command(*row) for row in database.execute(query, (run.number,))]

    def answer(self, number: int, answer: Answer) -> None:
        with self._database.writing() as database:
            database.execute(_ANSWER_ONE, (json.dumps(answer), number))

    def answer_to(self, number: int) -> Answer | None:
        with self._database.reading() as database:
            row = database.execute("SELECT answer FROM bulk_commands WHERE id = ?", (number,)).fetchone()
            return None if row is None or row[0] is None else Answer(*json.loads(row[0]))

    def made_of(self) -> dict[str, tuple[Identity, dict[str, t.Any]]]:
        with self._database.reading() as database:
            rows = database.execute("SELECT package, queue, token, ingredients FROM made_of")
            return {row[0]: (Identity(row[1], row[2]), json.loads(row[3])) for row in rows}

    def note_made_of(self, package: str, identity: Identity, ingredients: dict[str, t.Any]) -> None:
        values = (package, identity.queue, identity.token, json.dumps(ingredients, sort_keys=True))
        with self._database.writing() as database:
            database.execute("INSERT OR REPLACE INTO made_of VALUES (?, ?, ?, ?)", values)


_ANSWER_ONE = "UPDATE bulk_commands SET answer = ? WHERE id = ? AND answer IS NULL"
_ANSWER_ALL = "UPDATE bulk_commands SET answer = ? WHERE run = ? AND answer IS NULL"


def _refuse_unless_ours(database: sqlite3.Connection, run: Run) -> None:
    last = _last(database)
    if last is None or (last.number, last.owner, last.ended) != (run.number, run.owner, None):
        raise NotOurs("Another process has taken over this bulk build.", remedy="It goes on there.")


def _last(database: sqlite3.Connection) -> Run | None:
    row = database.execute("SELECT * FROM bulk_runs ORDER BY id DESC LIMIT 1").fetchone()
    if row is None:
        return None
    owner = Owner.from_dict(json.loads(row["owner"]))
    return Run(row["id"], json.loads(row["wish"]), owner, row["begun"], row["renewed"], row["ended"], row["ending"])


def _forget(database: sqlite3.Connection, number: int) -> None:
    """Forget the run of this number and those before it."""
    database.execute("DELETE FROM bulk_packages WHERE run <= ?", (number,))
    database.execute("DELETE FROM bulk_commands WHERE run <= ?", (number,))
    database.execute("DELETE FROM bulk_runs WHERE id <= ?", (number,))


def _values(run: Run, row: Row) -> tuple[t.Any, ...]:
    return (
        run.number,
        row.package,
        row.state,
        " ".join(row.why),
        row.reason,
        row.machine,
        row.since,
        row.started,
        row.ended,
        row.seconds,
        json.dumps(row.attempts),
        json.dumps(row.made_of, sort_keys=True),
    )


def _row(row: sqlite3.Row) -> Row:
    return Row(
        package=row["package"],
        state=row["state"],
        why=tuple(row["why"].split()),
        reason=row["reason"],
        machine=row["machine"],
        since=row["since"],
        started=row["started"],
        ended=row["ended"],
        seconds=row["seconds"],
        attempts=json.loads(row["attempts"]),
        made_of=json.loads(row["made_of"]),
    )
