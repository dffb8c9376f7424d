# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pathlib
import resource
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._record import path_of, publishing
from ansible_collections.portbuild.cluster.plugins.plugin_utils._results import (
    BadManifest,
    BadResult,
    build_record,
    check_manifest,
    Limits,
    Manifest,
    Receiver,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._space import ControllerDiskFull
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import (
    FileConflict,
    Identity,
    KINDS,
    SET_KINDS,
    SqliteStore,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._text import one_line
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import (
    build,
    JOB,
    make_layout,
    names,
    put,
    QUEUE,
    stored,
)

SHA = hashlib.sha256(b"").hexdigest()


def entry(**more: t.Any) -> dict[str, t.Any]:
    name = more.get("name", "hello_2.10-3_amd64.deb")
    return {"name": name, "size": 10, "sha256": SHA, "kind": "package", "path": f"results/package/{name}", **more}


def check(*entries: t.Any, **more: t.Any) -> Manifest:
    return check_manifest({"manifest": list(entries)}, **more)


# -- judging ----------------------------------------------------------------------------------------------------------


def test_what_is_right() -> None:
    manifest = check(
        entry(version="2.10-3"),
        entry(name="hello_2.10-3_amd64.changes", kind="changes"),
        entry(name="hello_2.10.orig.tar.gz", kind="distfile"),
        entry(name="log", kind="log", path="log", size=0),
    )
    assert [result.path for result in manifest.files][-1] == "log"
    assert manifest.files[0].file.version == "2.10-3"
    assert manifest.total == 30
    assert len(manifest.only(SET_KINDS).files) == 2
    assert check().files == ()


@pytest.mark.parametrize(
    "data", [None, 1, "x", b"x", [], True, {}, {"files": []}, {"manifest": {}}, {"manifest": None}]
)
def test_no_manifest(data: t.Any) -> None:
    with pytest.raises(BadManifest):
        check_manifest(data)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"name": "../x"}, "malformed"),
        ({"name": ""}, "empty"),
        ({"name": ".."}, "malformed"),
        ({"name": ".hidden"}, "malformed"),
        ({"name": "-rf"}, "malformed"),
        ({"name": "a b"}, "malformed"),
        ({"name": "a\nb"}, "malformed"),
        ({"name": "a\x00b"}, "malformed"),
        ({"name": "a/b"}, "malformed"),
        ({"name": "päckchen"}, "malformed"),
        ({"name": "\ud800"}, "malformed"),
        ({"name": "x" * 300}, "characters"),
        ({"name": 7}, "string"),
        ({"name": None}, "string"),
        ({"name": "hello_1:2.10_amd64.deb"}, "epoch"),
        ({"name": "hello_1%3a2.10_amd64.deb"}, "epoch"),
        ({"path": "../../etc/passwd"}, "path"),
        ({"path": "/etc/passwd"}, "path"),
        ({"path": "results/../../x"}, "path"),
        ({"path": "results//x"}, "path"),
        ({"path": "results/x/"}, "path"),
        ({"path": "./x"}, "path"),
        ({"path": "~/x"}, "path"),
        ({"path": ""}, "path"),
        ({"path": "a/b/c/d/e/f/g"}, "path"),
        ({"path": "a" * 2000}, "path"),
        ({"path": "a\nb"}, "path"),
        ({"path": ["a"]}, "path"),
        ({"size": -1}, "size"),
        ({"size": 1 << 60}, "size"),
        ({"size": 1.0}, "size"),
        ({"size": math.nan}, "size"),
        ({"size": "10"}, "size"),
        ({"size": True}, "size"),
        ({"size": None}, "size"),
        ({"sha256": SHA.upper()}, "SHA-256"),
        ({"sha256": SHA[1:]}, "SHA-256"),
        ({"sha256": SHA + "\n"}, "SHA-256"),
        ({"sha256": 5}, "SHA-256"),
        ({"kind": "device"}, "kind"),
        ({"kind": ["package"]}, "kind"),
        ({"kind": {}}, "kind"),
        ({"version": "1 2"}, "version"),
        ({"version": 5}, "version"),
    ],
)
def test_what_is_wrong(bad: dict[str, t.Any], why: str) -> None:
    good = entry(name="good.deb")
    with pytest.raises(BadManifest, match=rf"(?s)^Entry 1 of the manifest.*{why}") as caught:
        check(good, entry(**bad))
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["name", "size", "sha256", "kind", "path"])
def test_what_is_missing(key: str) -> None:
    short = entry()
    del short[key]
    with pytest.raises(BadManifest, match=f"{key} is missing"):
        check(short)


@pytest.mark.parametrize("bad", [None, 1, "x", [], True])
def test_entries_that_are_none(bad: t.Any) -> None:
    with pytest.raises(BadManifest, match="not an object"):
        check(bad)


def test_a_name_occurs_once() -> None:
    with pytest.raises(BadManifest, match="second package"):
        check(entry(), entry())
    with pytest.raises(BadManifest, match="second changes"):
        check(entry(), entry(kind="changes"))  # both live in packages/All
    with pytest.raises(BadManifest, match="second log"):
        check(entry(kind="log", name="a"), entry(kind="log", name="b"))
    with pytest.raises(BadManifest, match="second workdir"):
        check(entry(kind="workdir", name="a.tar"), entry(kind="workdir", name="b.tar"))
    assert len(check(entry(), entry(kind="distfile")).files) == 2


def test_too_much() -> None:
    with pytest.raises(BadManifest, match="at most 2 are accepted"):
        check(*(entry(name=f"{number}.deb") for number in range(3)), limits=Limits(files=2))
    with pytest.raises(BadManifest, match="30 bytes"):
        check(*(entry(name=f"{number}.deb") for number in range(3)), limits=Limits(total_bytes=29))


def test_suffixes() -> None:
    suffixes = {"package": (".deb", ".udeb")}
    assert check(entry(), entry(name="x", kind="distfile"), suffixes=suffixes)
    with pytest.raises(BadManifest, match=r"must end in \.deb or \.udeb"):
        check(entry(name="x.exe"), suffixes=suffixes)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a.deb", "b.deb", "log", "../x"]) | _JSON,
        "size": st.integers(0, 100) | _JSON,
        "sha256": st.just(SHA) | _JSON,
        "kind": st.sampled_from(KINDS) | _JSON,
        "path": st.sampled_from(["results/a", "/etc/passwd", "a/../b"]) | _JSON,
        "version": st.just("1.0") | _JSON,
    },
)


@settings(max_examples=400, deadline=None)
@given(_JSON | st.fixed_dictionaries({"manifest": st.lists(_ENTRY | _JSON, max_size=4) | _JSON}))
def test_anything_is_judged(data: t.Any) -> None:
    try:
        manifest = check_manifest(data)
    except BadManifest as error:
        json.dumps(str(error)).encode("ascii")
        return
    seen = set()
    for path, file in manifest.files:
        assert not path.startswith("/") and ".." not in path.split("/")
        assert "/" not in file.name and not file.name.startswith((".", "-"))
        assert file.kind in KINDS and file.size >= 0 and len(file.sha256) == 64
        place = path_of(Layout("/r", "a", "b"), file)
        assert place not in seen
        seen.add(place)


# -- the record -------------------------------------------------------------------------------------------------------


def record_of(status: dict[str, t.Any], **more: t.Any) -> t.Any:
    return build_record(status, job=JOB, identity=Identity(QUEUE, 3), machine="client1", now=5000.0, **more)


def test_a_record_from_a_status() -> None:
    status = {
        "reason": "timeout",
        "infrastructure": False,
        "phase": "build",
        "detail": "no end\nafter 8 h",
        "seconds": 100.0,
        "ended": 4000.0,
        "cpu_seconds": 160,
        "peak_memory": 12345,
        "phases": [{"name": "fetch", "seconds": 1, "cpu": 0.5}, "nonsense"],
    }
    record = record_of(status, offset=-10.0, version="2.10-3", broken=True)
    assert (record.outcome, record.reason, record.detail) == ("failed", "timeout", "no end after 8 h")
    assert (record.started, record.ended, record.seconds) == (3890.0, 3990.0, 100.0)
    assert record.phases == (("fetch", 1.0, 0.5),)
    assert record.identity == (QUEUE, 3)
    assert record.broken


def test_a_clock_that_is_ahead() -> None:
    assert record_of({"reason": "success", "ended": 9e9}).ended == 5000.0


def test_success_is_the_word_alone() -> None:
    assert record_of({"reason": "success"}).outcome == "success"
    assert not record_of({"reason": "success", "infrastructure": True}).infrastructure
    assert record_of({"reason": "lost", "infrastructure": True}).infrastructure
    for reason in (None, 1, "", "Success", "x" * 100, "a b"):
        assert record_of({"reason": reason}).reason == "failed"


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["reason", "infrastructure", "phase", "detail", "seconds", "ended", "cpu_seconds", "peak_memory", "phases"]
        ),
        _JSON,
    )
)
def test_any_status_makes_a_record(status: dict[str, t.Any]) -> None:
    record = record_of(status)
    assert 0 <= record.started <= record.ended <= 5000.0
    assert one_line(record.detail, 500) == record.detail


# -- receiving --------------------------------------------------------------------------------------------------------


class Client:
    """The chroot's directory on a client, and a connection plugin that copies from it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.entries: list[dict[str, t.Any]] = []

    def make(self, name: str, content: bytes = b"content", kind: str = "package") -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self.entries.append(entry(name=name, size=len(content), sha256=digest, kind=kind, path=name))

    @property
    def manifest(self) -> Manifest:
        return check(*self.entries)

    def fetch_file(self, remote: str, local: str) -> None:
        shutil.copyfile(self.directory / remote, local)


class Setup:
    """A branch and a client."""

    def __init__(self, root: pathlib.Path) -> None:
        self.layout = make_layout(root / "controller")
        self.store = SqliteStore(self.layout.database)
        self.client = Client(root / "client")
        self.client.directory.mkdir()

    def receiver(self, token: int = 1, **more: t.Any) -> Receiver:
        fields = {"store": self.store, "now": lambda: 1_000_000.0, **more}
        return Receiver(self.layout, JOB, token, **fields)

    def fetch(self, receiver: Receiver) -> list[str]:
        with receiver:
            arrivals = receiver.plan(self.client.manifest)
            for arrival in arrivals:
                with receiver.receiving(arrival) as local:
                    self.client.fetch_file(arrival.remote, local)
            receiver.publish()
        return [arrival.remote for arrival in arrivals]

    def nothing_came(self) -> bool:
        directories = (self.layout.packages, self.layout.distfiles, self.layout.workdirs)
        incoming = os.path.join(self.layout.logs, ".incoming")
        return not any(os.listdir(directory) for directory in directories) and (
            not os.path.isdir(incoming) or not os.listdir(incoming)
        )


@pytest.fixture
def setup(tmp_path: pathlib.Path) -> Setup:
    return Setup(tmp_path)


def test_everything_arrives_in_its_place(setup: Setup) -> None:
    setup.client.make("a.deb")
    setup.client.make("a.changes", b"changes", "changes")
    setup.client.make("a.orig.tar.gz", b"source", "distfile")
    setup.client.make("work.tar.zst", b"work", "workdir")
    setup.client.make("log", b"", "log")
    with setup.receiver(7, build_token=5) as receiver:
        for arrival in receiver.plan(setup.client.manifest):
            with receiver.receiving(arrival) as local:
                assert os.stat(os.path.dirname(local)).st_dev == os.stat(setup.layout.packages).st_dev
                setup.client.fetch_file(arrival.remote, local)
        assert names(setup.layout.packages) - {".incoming"} == set()  # nothing shows before the end
        published = receiver.publish()
    assert set(os.listdir(setup.layout.packages)) == {"a.deb", "a.changes"}
    assert os.listdir(setup.layout.distfiles) == ["a.orig.tar.gz"]
    assert os.listdir(setup.layout.workdirs) == ["hello.tar.zst"]
    assert os.listdir(os.path.join(setup.layout.logs, ".incoming")) == ["hello.5.log"]
    for file in published:
        status = os.stat(path_of(setup.layout, file))
        assert status.st_mtime == 1_000_000.0
        assert stat.S_IMODE(status.st_mode) == 0o644
    setup.store.record(build(5), [file for file in published if file.kind != "log"])


@pytest.mark.parametrize(
    ("name", "ours"), [("x", "hello.tar"), ("other.tar.gz", "hello.tar.gz"), ("a.tgz", "hello.tgz")]
)
def test_a_client_does_not_choose_whose_workdir_it_is(setup: Setup, name: str, ours: str) -> None:
    setup.client.make(name, kind="workdir")
    setup.fetch(setup.receiver())
    assert os.listdir(setup.layout.workdirs) == [ours]


def test_a_repeated_fetch_transfers_only_what_is_missing(setup: Setup) -> None:
    setup.client.make("a.deb", b"a")
    setup.client.make("b.deb", b"b")
    setup.client.make("log", b"log", "log")
    assert len(setup.fetch(setup.receiver(1))) == 3
    os.unlink(os.path.join(setup.layout.packages, "b.deb"))
    path = pathlib.Path(setup.layout.packages, "a.deb")
    os.utime(path, (1, 1))
    assert setup.fetch(setup.receiver(2, build_token=1)) == ["b.deb"]
    assert path.stat().st_mtime == 1_000_000.0  # touched although it was there
    path.write_bytes(b"x")
    assert setup.fetch(setup.receiver(2, build_token=1)) == ["a.deb"]
    assert path.read_bytes() == b"a"


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"conten", "it has 6 bytes, 7 were announced"), (b"contents", "it has 8 bytes"), (b"CONTENT", "its SHA-256 is")],
)
def test_what_was_not_announced(setup: Setup, content: bytes, why: str) -> None:
    setup.client.make("good.deb")
    setup.client.make("a.deb")
    (setup.client.directory / "a.deb").write_bytes(content)
    with pytest.raises(BadResult, match=rf"a\.deb of amd64/bookworm/hello is not what .*{why}"):
        setup.fetch(setup.receiver())
    assert setup.nothing_came()


def test_what_did_not_come(setup: Setup) -> None:
    setup.client.make("a.deb")
    with setup.receiver() as receiver:
        (arrival,) = receiver.plan(setup.client.manifest)
        with pytest.raises(BadResult, match=r"a\.deb .* did not come"), receiver.receiving(arrival):
            pass
        with pytest.raises(BadResult, match="did not come"):
            receiver.publish()
    assert setup.nothing_came()


def test_a_link_instead_of_a_file(setup: Setup) -> None:
    setup.client.make("a.deb")
    with setup.receiver() as receiver:
        (arrival,) = receiver.plan(setup.client.manifest)
        with pytest.raises(BadResult, match="no regular file"), receiver.receiving(arrival) as local:
            os.symlink(setup.client.directory / "a.deb", local)
    assert setup.nothing_came()


def test_an_endless_file_is_cut_off(setup: Setup) -> None:
    """Whoever writes it: this process, or one that it starts."""
    setup.client.make("a.deb", b"x" * (3 << 20))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with setup.receiver() as receiver:
        (arrival,) = receiver.plan(setup.client.manifest)
        refused = pytest.raises(BadResult, match="larger than the 3145728 bytes announced")
        with refused, receiver.receiving(arrival) as local, open(local, "wb") as stream:
            while True:
                stream.write(b"x" * (1 << 20))
        assert not os.path.exists(arrival.local)
        with pytest.raises(BadResult, match="larger than"), receiver.receiving(arrival) as local:
            command = ["dd", "if=/dev/zero", f"of={local}", "bs=1M", "count=100"]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before
    assert setup.nothing_came()


def test_a_second_attempt_begins_anew(setup: Setup) -> None:
    setup.client.make("a.deb")
    with setup.receiver() as receiver:
        (arrival,) = receiver.plan(setup.client.manifest)
        with pytest.raises(RuntimeError), receiver.receiving(arrival) as local:
            pathlib.Path(local).write_bytes(b"part")
            raise RuntimeError("cut")
        with receiver.receiving(arrival) as local:
            assert not os.path.exists(local)
            setup.client.fetch_file(arrival.remote, local)
        receiver.publish()
    assert os.listdir(setup.layout.packages) == ["a.deb"]


def test_a_limit_of_the_administrator_stays(setup: Setup) -> None:
    script = """
        import pathlib, resource, sys
        sys.path[:0] = [path for path in sys.argv[2].split(":") if path]
        from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils import test_results as tests
        setup = tests.Setup(pathlib.Path(sys.argv[1]))
        setup.client.make("a.deb", b"a" * (4 << 20))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 3 << 20))
        with setup.receiver() as receiver:
            (arrival,) = receiver.plan(setup.client.manifest)
            try:
                with receiver.receiving(arrival) as local:
                    setup.client.fetch_file(arrival.remote, local)
            except tests.ControllerDiskFull:
                print(resource.getrlimit(resource.RLIMIT_FSIZE))
    """
    root = pathlib.Path(setup.layout.root, "other")
    root.mkdir()
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(root), ":".join(sys.path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{(2 << 20, 3 << 20)}\n", "")


def test_an_error_of_the_connection_passes(setup: Setup) -> None:
    setup.client.make("a.deb")
    with setup.receiver() as receiver:
        (arrival,) = receiver.plan(setup.client.manifest)
        for error in (RuntimeError("gone"), ConnectionResetError("gone")):
            with pytest.raises(type(error), match="gone"), receiver.receiving(arrival):
                raise error
        with receiver.receiving(arrival) as local:
            setup.client.fetch_file("a.deb", local)
        receiver.publish()
    assert os.listdir(setup.layout.packages) == ["a.deb"]


def test_too_little_room(setup: Setup) -> None:
    setup.client.make("a.deb")
    full = pytest.raises(ControllerDiskFull, match=r"The controller's disk is full.*portbuild_min_free")
    with full, setup.receiver(min_free=1 << 60) as receiver:
        receiver.plan(setup.client.manifest)
    assert setup.nothing_came()


def test_room_that_shrinks_meanwhile(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.client.make("a.deb")
    with setup.receiver(min_free=1000) as receiver:
        (arrival,) = receiver.plan(setup.client.manifest)
        real = os.statvfs(setup.layout.packages)
        values = list(real[:10])
        values[4] = 1000 // real.f_frsize  # f_bavail
        monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values))
        with pytest.raises(ControllerDiskFull), receiver.receiving(arrival):
            pytest.fail("begun")
        values[4] = real.f_bavail
        with pytest.raises(ControllerDiskFull), receiver.receiving(arrival) as local:
            pathlib.Path(local).write_bytes(b"con")
            values[4] = 0
            raise RuntimeError("failed to transfer the file")
        assert not os.path.exists(arrival.local)
    monkeypatch.undo()
    assert setup.nothing_came()


@pytest.mark.root
def test_a_disk_that_is_really_full(tmp_path: pathlib.Path) -> None:
    """On a file system of 4 MB, in a mount namespace that ends with the process."""
    script = """
        import pathlib, subprocess, sys
        sys.path[:0] = [path for path in sys.argv[2].split(":") if path]
        from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils import test_results as tests
        root = pathlib.Path(sys.argv[1])
        (root / "controller").mkdir()
        setup = tests.Setup(root)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", setup.layout.packages], check=True)
        setup.client.make("a.deb", b"a" * (2 << 20))
        setup.client.make("b.deb", b"b" * (3 << 20))
        receiver = setup.receiver()
        for way in ("plan", "write"):
            try:
                if way == "plan":
                    setup.fetch(setup.receiver())
                with setup.receiver() as receiver:
                    receiver._check_room = lambda files: None  # somebody else takes the room meanwhile
                    for arrival in receiver.plan(setup.client.manifest):
                        with receiver.receiving(arrival) as local:
                            receiver_space = pathlib.Path(setup.layout.packages, "other")
                            receiver_space.write_bytes(b"x" * (1 << 20))
                            setup.client.fetch_file(arrival.remote, local)
            except tests.ControllerDiskFull as error:
                print("full", error.details["path"])
            else:
                raise SystemExit("not full")
        pathlib.Path(setup.layout.packages, "other").unlink()
        print(list(pathlib.Path(setup.layout.packages).iterdir()))
    """
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), ":".join(sys.path)]
    done = subprocess.run(["unshare", "--mount", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("full") == 2
    assert done.stdout.endswith("[]\n")


def test_names_of_other_packages(setup: Setup) -> None:
    put(setup.layout, "theirs.deb", b"theirs")
    setup.store.record(build(1, package="other"), [stored("theirs.deb", b"theirs"), stored("x.tgz", b"x", "distfile")])
    setup.client.make("theirs.deb", b"mine")
    with pytest.raises(FileConflict, match="other has that file"):
        setup.fetch(setup.receiver(2))
    assert pathlib.Path(setup.layout.packages, "theirs.deb").read_bytes() == b"theirs"
    setup.client.entries.clear()
    setup.client.make("x.tgz", b"y", "distfile")
    with pytest.raises(FileConflict, match="another file of that name"):
        setup.fetch(setup.receiver(2))
    setup.client.entries.clear()
    setup.client.make("x.tgz", b"x", "distfile")
    assert setup.fetch(setup.receiver(2)) == ["x.tgz"]


def test_a_lost_lease_publishes_nothing(setup: Setup) -> None:
    def verify() -> None:
        raise PortbuildError("The lease is lost.")

    setup.client.make("a.deb")
    with pytest.raises(PortbuildError, match="lease is lost"):
        setup.fetch(setup.receiver(verify=verify))
    assert setup.nothing_came()


def test_a_lease_that_is_lost_while_another_publishes_publishes_nothing(setup: Setup) -> None:
    """Verified before the lock is there, old files would replace the newer ones that its holder puts in place."""
    put(setup.layout, "a.deb", b"newer")
    setup.client.make("a.deb", b"older")
    lost = threading.Event()

    def verify() -> None:
        if lost.is_set():
            raise PortbuildError("The lease is lost.")

    with contextlib.ExitStack() as stack:
        stack.enter_context(publishing(setup.layout))

        def take_over() -> None:
            lost.set()
            stack.close()

        timer = threading.Timer(0.5, take_over)
        timer.start()
        with pytest.raises(PortbuildError, match="lease is lost"):
            setup.fetch(setup.receiver(verify=verify))
        timer.join()
    assert pathlib.Path(setup.layout.packages, "a.deb").read_bytes() == b"newer"


def test_what_another_package_records_meanwhile_is_not_replaced(setup: Setup) -> None:
    setup.client.make("a.deb", b"mine")

    def record() -> None:  # what the holder of the lock does before it gives it up
        put(setup.layout, "a.deb", b"theirs")
        setup.store.record(build(1, package="other"), [stored("a.deb", b"theirs")])
        stack.close()

    with contextlib.ExitStack() as stack:
        stack.enter_context(publishing(setup.layout))
        timer = threading.Timer(0.5, record)
        timer.start()
        with pytest.raises(FileConflict, match="other has that file"):
            setup.fetch(setup.receiver(2))
        timer.join()
    assert pathlib.Path(setup.layout.packages, "a.deb").read_bytes() == b"theirs"


def test_a_file_that_cannot_be_replaced_takes_the_others_back(setup: Setup) -> None:
    put(setup.layout, "a.deb", b"old")
    setup.client.make("a.deb", b"new")
    setup.client.make("b.deb", b"new")
    setup.client.make("c.deb", b"new")
    os.mkdir(os.path.join(setup.layout.packages, "c.deb"))
    with pytest.raises(OSError, match=r"c\.deb"):
        setup.fetch(setup.receiver())
    assert pathlib.Path(setup.layout.packages, "a.deb").read_bytes() == b"old"
    assert set(os.listdir(setup.layout.packages)) == {"a.deb", "c.deb"}


def test_what_a_killed_fetch_left_is_removed_by_the_next(setup: Setup) -> None:
    setup.client.make("a.deb")
    setup.client.make("log", kind="log")
    child = os.fork()
    if child == 0:
        receiver = setup.receiver(1)
        for arrival in receiver.plan(setup.client.manifest):
            pathlib.Path(arrival.local).write_bytes(b"half")
        os._exit(0)  # as good as a kill: nothing is cleaned up
    assert os.waitpid(child, 0)[1] == 0
    incoming = os.path.join(setup.layout.packages, ".incoming")
    assert len(os.listdir(incoming)) == 1
    with setup.receiver(2) as living:
        (arrival, _log) = living.plan(setup.client.manifest)
        pathlib.Path(arrival.local).write_bytes(b"half")
        assert len(os.listdir(incoming)) == 1
        setup.fetch(setup.receiver(3))  # one that lives is left alone
        assert os.path.exists(arrival.local)
    assert os.listdir(setup.layout.packages) == ["a.deb"]


def test_a_crash_between_the_renames_is_completed(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.deb", "b.deb", "c.deb"):
        setup.client.make(name, name.encode())
    replace = os.replace
    for kill_at in range(1, 4):
        calls = iter(range(1, 100))

        def dying(source: t.Any, target: t.Any, *, calls: t.Any = calls, kill_at: int = kill_at) -> None:
            if next(calls) == kill_at:
                os._exit(7)
            replace(source, target)

        child = os.fork()
        if child == 0:
            monkeypatch.setattr(os, "replace", dying)
            setup.fetch(setup.receiver(1))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        everything = ["a.deb", "b.deb", "c.deb"]
        assert names(setup.layout.packages) - {".incoming"} == set(everything[: kill_at - 1])
        setup.fetch(setup.receiver(2, build_token=1))
        assert sorted(os.listdir(setup.layout.packages)) == everything
        for name in everything:
            os.unlink(os.path.join(setup.layout.packages, name))


def test_memory_stays_flat(tmp_path: pathlib.Path) -> None:
    script = """
        import hashlib, pathlib, resource, sys
        sys.path[:0] = [path for path in sys.argv[2].split(":") if path]
        from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils import test_results as tests
        setup = tests.Setup(pathlib.Path(sys.argv[1]))
        size, digest = int(sys.argv[3]), hashlib.sha256()
        for _chunk in range(size >> 20):
            digest.update(bytes(1 << 20))
        with open(setup.client.directory / "big.deb", "wb") as stream:
            stream.truncate(size)
        entry = tests.entry(name="big.deb", path="big.deb", size=size, sha256=digest.hexdigest())
        setup.client.entries.append(entry)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        setup.fetch(setup.receiver())
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    size = int(os.environ.get("PORTBUILD_TEST_BIG", "134217728"))
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), ":".join(sys.path), str(size)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 << 10  # KiB
