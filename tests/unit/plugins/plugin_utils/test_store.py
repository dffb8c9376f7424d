# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import stat
import subprocess
import sys
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _database
from ansible_collections.portbuild.cluster.plugins.plugin_utils._database import StoreBusy, StoreDamaged, StoreError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._space import ControllerDiskFull
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import (
    Failure,
    FileConflict,
    Identity,
    PackageFile,
    Phase,
    Recorded,
    SqliteStore,
    StaleBuild,
    StoredFile,
)
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import build, lost, QUEUE, stored


@pytest.fixture
def store(tmp_path: pathlib.Path) -> SqliteStore:
    return SqliteStore(str(tmp_path / "portbuild.sqlite"), now=lambda: 5000.0)


def test_an_absent_store_is_empty_and_reading_does_not_make_it(store: SqliteStore) -> None:
    assert store.built(Identity(QUEUE, 1)) is None
    assert store.last("hello") is None
    assert store.history() == []
    assert store.package_files("hello") == []
    assert store.all_package_files() == []
    assert store.average_seconds("hello") is None
    assert store.durations() == {}
    assert store.failures() == []
    assert store.file_owner("x.deb") is None
    assert store.drop_superseded("hello", lambda file: None) == []
    assert not os.path.exists(store.path)


def test_a_build_is_read_as_it_was_recorded(store: SqliteStore) -> None:
    record = build(
        7,
        version="1:2.10-3",
        phase="package",
        detail="fine",
        started=900.0,
        phases=(Phase("fetch", 1.5, 0.1), Phase("build", 8.5, 16.0)),
        cpu_seconds=16.1,
        peak_memory=1 << 33,
        log="logs/hello.log",
    )
    assert store.record(record) == Recorded(True, None, False, False, 0)
    built = store.built(record.identity)
    assert built is not None
    assert built.build == record
    assert built.recorded == 5000.0
    assert store.last("hello") == built
    assert store.history("hello") == store.history() == [built]


def test_the_same_build_again_changes_nothing(store: SqliteStore) -> None:
    store.record(build(1, "failed"))
    placed: list[int] = []
    first = store.record(build(2), [stored("a.deb")], place=lambda: placed.append(1))
    before = pathlib.Path(store.path).read_bytes()
    again = store.record(build(2, "failed", reason="other"), place=lambda: placed.append(2))
    assert first.first_time and not again.first_time
    assert again == first._replace(first_time=False)
    assert placed == [1]
    assert pathlib.Path(store.path).read_bytes() == before
    # … also when the story has gone on
    store.record(build(3, "failed"))
    assert store.record(build(2)) == again


def test_failures_are_counted_until_a_success(store: SqliteStore) -> None:
    assert store.record(build(1, "failed", failure_class="linker", phase="build")).failures == 1
    assert store.record(build(2, "failed", reason="timeout", detail="8 h")).failures == 2
    (failure,) = store.failures()
    assert failure == ("hello", 1001.0, 1002.0, 2, "timeout", "", "8 h", 0, "", None)
    success = store.record(build(3))
    assert success == Recorded(True, "failed", True, False, 0)
    assert store.failures() == []
    assert not store.record(build(4)).builds_again
    store.record(build(5, "failed"))
    assert store.failures()[0].last_success == 1004.0
    assert store.failures()[0].times == 1


def test_what_the_log_told_is_kept(store: SqliteStore) -> None:
    told: dict[str, t.Any] = {
        "failure_class": "missing_header",
        "further": ("linker", "werror"),
        "line_number": 17,
        "line": "main.c:1:10: fatal error: x.h: No such file or directory",
        "around": ("cc -c main.c", "main.c:1:10: fatal error: x.h: No such file or directory"),
    }
    store.record(build(1, "failed", **told))
    last = store.last("hello")
    assert last is not None
    assert {name: getattr(last.build, name) for name in told} == told
    (failure,) = store.failures()
    assert (failure.failure_class, failure.line_number, failure.line) == ("missing_header", 17, told["line"])
    store.record(build(2, "failed", failure_class="other"))
    assert store.failures()[0].line == ""


def test_a_store_of_the_first_version_is_brought_up_to_date(store: SqliteStore) -> None:
    with contextlib.closing(sqlite3.connect(store.path)) as database:
        for statement in (*_database._MIGRATIONS[0], "PRAGMA user_version = 1"):
            database.execute(statement)
        database.execute(
            "INSERT INTO failures (package, first, last, count, failure_class, phase, detail)"
            " VALUES ('hello', 1, 2, 3, 'timeout', 'build', '')"
        )
        database.commit()
    assert store.failures() == [Failure("hello", 1.0, 2.0, 3, "timeout", "build", "", 0, "", None)]
    assert store.record(build(9, "failed", line_number=3)).failures == 4


def test_infrastructure_failures_do_not_count(store: SqliteStore) -> None:
    store.record(build(1, "failed"))
    recorded = store.record(lost(2))
    assert recorded == Recorded(True, "failed", False, False, 1)
    assert store.failures()[0].times == 1
    last = store.last("hello")
    assert last is not None and last.build.token == 2
    counted = store.last("hello", counted=True)
    assert counted is not None and counted.build.token == 1
    assert store.record(build(3)).builds_again
    assert store.record(lost(4)).previous == "success"
    assert store.failures() == []


def test_a_package_marked_broken_that_builds(store: SqliteStore) -> None:
    assert store.record(build(1, broken=True)).broken_built
    assert store.record(build(1, broken=True)).broken_built  # also when asked again
    assert not store.record(build(2, "failed", broken=True)).broken_built


def test_a_late_build_is_refused(store: SqliteStore) -> None:
    store.record(build(5))
    with pytest.raises(StaleBuild, match="build 5 has been recorded"):
        store.record(build(4, "failed"))
    assert len(store.history()) == 1
    store.record(build(4, package="other"))
    store.record(build(1, queue="another"))  # a queue directory that was made anew begins at 1


def test_the_newest_build_is_that_of_the_package_and_the_queue(store: SqliteStore) -> None:
    assert store.newest("hello", "q") == 0
    for one in (build(5), build(7), build(9, package="other"), build(8, queue="another")):
        store.record(one)
    assert store.newest("hello", build(7).queue) == 7
    assert store.newest("hello", "another") == 8


def test_one_identity_is_one_package(store: SqliteStore) -> None:
    store.record(build(5))
    with pytest.raises(StoreError, match=r"recorded as one of hello.*same id"):
        store.record(build(5, package="other"))


def test_nothing_is_recorded_if_the_logs_cannot_be_placed(store: SqliteStore) -> None:
    def place() -> None:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        store.record(build(1), [stored("a.deb")], place=place)
    assert store.history() == []
    assert store.package_files("hello") == []


def test_a_success_replaces_the_set(store: SqliteStore) -> None:
    first = [
        stored("hello_1_amd64.deb", version="1"),
        stored("hello_1.changes", kind="changes"),
        stored("same.deb"),
        stored("hello_1.tar.gz", kind="distfile"),
        stored("hello.tar.gz", kind="workdir"),
        stored("hello.1.log", kind="log"),
    ]
    store.record(build(1, version="1"), first)
    assert set(store.package_files("hello")) == set(first[:-1])  # the log is no file of the package
    store.record(build(2, "failed"))
    assert set(store.package_files("hello")) == set(first[:-1])
    second = [stored("hello_2_amd64.deb", version="2"), stored("same.deb", b"new")]
    store.record(build(3, version="2"), second)
    assert set(store.package_files("hello", ("package", "changes"))) == set(second)
    assert set(store.package_files("hello")) == {*second, first[3], first[4]}
    assert store.all_package_files() == [PackageFile("hello", file) for file in second]
    gone: list[StoredFile] = []
    assert store.drop_superseded("hello", gone.append) == gone
    assert {file.name for file in gone} == {"hello_1_amd64.deb", "hello_1.changes"}
    assert store.drop_superseded("hello", gone.append) == []


def test_what_cannot_be_removed_is_tried_again(store: SqliteStore) -> None:
    store.record(build(1), [stored("old.deb")])
    store.record(build(2), [stored("new.deb")])

    def refuse(file: StoredFile) -> None:
        raise PermissionError(file.name)

    assert store.drop_superseded("hello", refuse) == []
    assert [file.name for file in store.drop_superseded("hello", lambda file: None)] == ["old.deb"]


def test_a_superseded_name_that_came_back_is_kept(store: SqliteStore) -> None:
    store.record(build(1), [stored("a.deb")])
    store.record(build(2), [stored("b.deb")])
    store.record(build(3), [stored("a.deb", b"again")])  # the removal after build 2 never happened
    gone: list[StoredFile] = []
    store.drop_superseded("hello", gone.append)
    assert [file.name for file in gone] == ["b.deb"]


def test_a_superseded_name_that_another_package_has_now_is_kept(store: SqliteStore) -> None:
    store.record(build(1), [stored("moved.deb")])
    store.record(build(2), [stored("b.deb")])
    store.record(build(3, package="other"), [stored("moved.deb")])
    assert store.drop_superseded("hello", lambda file: pytest.fail(file.name)) == []
    assert store.file_owner("moved.deb") == "other"


def test_distfiles_are_never_superseded(store: SqliteStore) -> None:
    store.record(build(1), [stored("a-1.tar.gz", kind="distfile")])
    store.record(build(2), [stored("a-2.tar.gz", kind="distfile")])
    assert [file.name for file in store.package_files("hello") if file.kind == "distfile"] == ["a-2.tar.gz"]
    assert store.drop_superseded("hello", lambda file: pytest.fail(file.name)) == []


@pytest.mark.parametrize("kind", ["package", "changes", "buildinfo"])
def test_two_packages_cannot_have_one_file(store: SqliteStore, kind: t.Any) -> None:
    store.record(build(1), [stored("shared", kind="package")])
    with pytest.raises(FileConflict, match="hello has that file") as caught:
        store.record(build(2, package="other"), [stored("shared", kind=kind)])
    assert caught.value.details["owner"] == "hello"
    assert store.last("other") is None


def test_distfiles_may_be_shared_if_they_are_the_same(store: SqliteStore) -> None:
    store.record(build(1), [stored("x.tar.gz", b"x", "distfile")])
    store.record(build(2, package="other"), [stored("x.tar.gz", b"x", "distfile")])
    with pytest.raises(FileConflict, match="another file of that name"):
        store.record(build(3, package="third"), [stored("x.tar.gz", b"y", "distfile")])
    assert set(store.file_sums("distfile", "x.tar.gz")) == {"hello", "other"}


def test_average_of_the_last_successes(store: SqliteStore) -> None:
    for token, seconds in enumerate((1000.0, 10.0, 20.0, 30.0, 40.0, 50.0), 1):
        store.record(build(token, seconds=seconds))
    store.record(build(7, "failed", seconds=9999.0))
    store.record(build(8, package="other", seconds=7.0))
    assert store.average_seconds("hello") == 30.0
    assert store.durations() == {"hello": 30.0, "other": 7.0}


def test_history_is_bounded_and_the_latest_first(store: SqliteStore) -> None:
    for token in range(1, 8):
        store.record(build(token, package="hello" if token % 2 else "other"))
    assert [built.build.token for built in store.history("hello", 2)] == [7, 5]
    assert [built.build.token for built in store.history(limit=3)] == [7, 6, 5]


@pytest.mark.parametrize(
    "bad",
    [
        {"package": "../x"},
        {"machine": "-rf"},
        {"version": "a b"},
        {"outcome": "perhaps"},
        {"infrastructure": True},
        {"seconds": float("nan")},
        {"ended": float("inf")},
    ],
)
def test_nonsense_is_no_record(bad: dict[str, t.Any]) -> None:
    with pytest.raises((PortbuildError, ValueError)):
        build(1, **bad)


@pytest.mark.parametrize(
    "files",
    [
        [stored("../x")],
        [stored("a"), stored("a")],
        [stored("a")._replace(sha256="x")],
        [stored("a")._replace(size=-1)],
        [stored("a")._replace(kind="device")],  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_no_file(store: SqliteStore, files: list[StoredFile]) -> None:
    with pytest.raises(PortbuildError):
        store.record(build(1), files)
    assert not os.path.exists(store.path)


def test_a_failed_build_has_no_packages(store: SqliteStore) -> None:
    with pytest.raises(StoreError, match="has no package"):
        store.record(build(1, "failed"), [stored("a.deb")])


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_database_is_as_writable_as_its_directory(tmp_path: pathlib.Path) -> None:
    for mode in (0o700, 0o755, 0o775):
        directory = tmp_path / str(mode)
        directory.mkdir()
        directory.chmod(mode)
        store = SqliteStore(str(directory / "db"))
        store.record(build(1))
        assert stat.S_IMODE(os.stat(store.path).st_mode) == mode & 0o666


def test_a_newer_schema_is_refused(store: SqliteStore) -> None:
    store.record(build(1))
    with contextlib.closing(sqlite3.connect(store.path)) as database:
        database.execute("PRAGMA user_version = 99")
    for use in (lambda: store.record(build(2)), store.history):
        with pytest.raises(StoreError, match="schema version 99"):
            use()


def test_migrations_run_once_and_in_order(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.record(build(1))
    more = (*_database._MIGRATIONS, ("ALTER TABLE packages ADD COLUMN note TEXT NOT NULL DEFAULT 'new'",))
    monkeypatch.setattr(_database, "_MIGRATIONS", more)
    monkeypatch.setattr(_database, "SCHEMA_VERSION", len(more))
    for _time in range(2):
        assert len(store.history()) == 1
    with contextlib.closing(sqlite3.connect(store.path)) as database:
        assert database.execute("SELECT note FROM packages").fetchall() == [("new",)]
        assert database.execute("PRAGMA user_version").fetchone() == (len(more),)


def test_a_migration_that_fails_changes_nothing(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.record(build(1))
    more = (*_database._MIGRATIONS, ("CREATE TABLE fine (x)", "NONSENSE"))
    monkeypatch.setattr(_database, "_MIGRATIONS", more)
    monkeypatch.setattr(_database, "SCHEMA_VERSION", len(more))
    with pytest.raises(StoreError):
        store.history()
    monkeypatch.undo()
    assert len(store.history()) == 1


def test_a_damaged_database_is_named(store: SqliteStore) -> None:
    content = b"this is no database, but a text of some length" * 100
    pathlib.Path(store.path).write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"portbuild\.sqlite is damaged"):
        store.history()
    with pytest.raises(StoreDamaged):
        store.record(build(1))
    assert pathlib.Path(store.path).read_bytes() == content


def test_an_empty_file_is_an_empty_store(store: SqliteStore) -> None:
    """What somebody leaves who is killed while making it."""
    pathlib.Path(store.path).touch()
    assert store.history() == []
    store.record(build(1))
    assert len(store.history()) == 1


def test_a_directory_that_is_not_there(tmp_path: pathlib.Path) -> None:
    store = SqliteStore(str(tmp_path / "absent" / "db"))
    assert store.history() == []
    with pytest.raises((StoreError, FileNotFoundError)):
        store.record(build(1))


def test_a_locked_database_is_waited_for_and_named(store: SqliteStore) -> None:
    store.record(build(1))
    impatient = SqliteStore(store.path, busy=0.2)
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert len(impatient.history()) == 1  # reading goes on
        with pytest.raises(StoreBusy, match="locked by another process"):
            impatient.record(build(2))


def test_a_full_disk_is_named(store: SqliteStore) -> None:
    store.record(build(1))
    connect = store._database._connect

    def small(target: str, **more: t.Any) -> sqlite3.Connection:
        database = connect(target, **more)
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        return database

    store._database._connect = small  # type: ignore[method-assign]
    with pytest.raises(ControllerDiskFull):
        store.record(build(2, detail="x" * 100_000))
    assert len(store.history()) == 1


def test_names_that_a_uri_could_misread(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "a?mode=rwc#%20"
    directory.mkdir()
    store = SqliteStore(str(directory / "db"))
    store.record(build(1))
    os.chmod(store.path, 0o444)
    assert len(store.history()) == 1


_CLIENT = """
import sys
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import SqliteStore
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import build, stored
store = SqliteStore(sys.argv[1])
for number in range(int(sys.argv[3])):
    package = "p" + sys.argv[2]
    token = int(sys.argv[2]) * 1000 + number + 1
    assert store.record(build(token, package=package), [stored(f"{package}_{number}.deb")]).first_time
    store.failures(), store.history(limit=5)
"""


def test_several_processes_at_once(store: SqliteStore) -> None:
    """From the very beginning: they also make the database at the same time."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", _CLIENT, store.path]
    running = [subprocess.Popen([*arguments, str(number), "10"], env=environment) for number in range(6)]
    assert [process.wait(timeout=60) for process in running] == [0] * 6
    assert len(store.history(limit=1000)) == 60
    assert {package for package, _file in store.all_package_files()} == {f"p{number}" for number in range(6)}
    assert len(store.all_package_files()) == 6


def test_the_store_survives_a_fork(store: SqliteStore) -> None:
    store.record(build(1))
    child = os.fork()
    if child == 0:
        try:
            store.record(build(2))
        finally:
            os._exit(0 if len(store.history()) == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    store.record(build(3))
    assert len(store.history()) == 3


_EVENTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["success", "failed", "lost"]), st.sets(st.sampled_from("xyz"))),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(_EVENTS)
def test_against_a_model(tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, str, set[str]]]) -> None:
    store = SqliteStore(str(tmp_path_factory.mktemp("model") / "db"))
    sets: dict[str, set[str]] = {}
    failing: dict[str, int] = {}
    disk: set[str] = set()

    def remove(file: StoredFile) -> None:
        disk.remove(file.name)

    for token, (package, what, letters) in enumerate(events, 1):
        if what == "success":
            files = {f"{package}-{letter}.deb" for letter in letters}
            disk |= files
            again = store.record(build(token, package=package), [stored(name) for name in sorted(files)]).builds_again
            assert again == (package in failing)
            failing.pop(package, None)
            sets[package] = files
        elif what == "failed":
            failing[package] = failing.get(package, 0) + 1
            assert store.record(build(token, "failed", package=package)).failures == failing[package]
        else:
            store.record(lost(token, package=package))
        if token % 2:  # now and then somebody is killed before the removal
            store.drop_superseded(package, remove)
    assert {failure.package: failure.times for failure in store.failures()} == failing
    for package in "ab":
        assert {file.name for file in store.package_files(package)} == sets.get(package, set())
        store.drop_superseded(package, remove)
    assert disk == {name for files in sets.values() for name in files}
