# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import pathlib
import re
import shutil
import subprocess
import typing as t

import pytest
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils._errors import PortbuildError
from ansible_collections.portbuild.cluster.plugins.module_utils._names import BadName, Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _systems
from ansible_collections.portbuild.cluster.plugins.plugin_utils._index import Index, NoIndex, read_index
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import (
    _ports,
    BuildInputs,
    get_system,
    MissingDependencies,
    PackageFile,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems._ports import UnknownPackage

SYSTEM = get_system("ports")
SCRIPT = pathlib.Path(_systems.__file__).parent / "ports.sh"
INDEX = """\
pkg-2.8.4|/usr/ports/ports-mgmt/pkg|/usr/local|Manager|/d|pkg@FreeBSD.org|ports-mgmt|||https://x|||
foo-1.2_1|/usr/ports/devel/foo|/usr/local|Foo|/d|foo@example.org|devel|gmake-4.4 bar-2.0|bar-2.0|https://x|||git-2.1
bar-2.0|/usr/ports/devel/bar|/usr/local|Bar|/d|ports@FreeBSD.org|devel|||https://x|||
gmake-4.4|/usr/ports/devel/gmake|/usr/local|Make|/d|ports@FreeBSD.org|devel|||https://x|||
git-2.1|/usr/ports/devel/git|/usr/local|Git|/d|ports@FreeBSD.org|devel|||https://x|||
py311-baz-3.0|/usr/ports/devel/py-baz@py311|/usr/local|Baz|/d|ports@FreeBSD.org|devel|||https://x|||
py312-baz-3.0|/usr/ports/devel/py-baz@py312|/usr/local|Baz|/d|ports@FreeBSD.org|devel|||https://x|||
py311-qux-4.0|/usr/ports/devel/py-qux|/usr/local|Qux|/d|ports@FreeBSD.org|devel|||https://x|||
py312-qux-4.0|/usr/ports/devel/py-qux|/usr/local|Qux|/d|ports@FreeBSD.org|devel|||https://x|||
bar-3.0|/usr/ports/misc/bar|/usr/local|Another bar|/d|ports@FreeBSD.org|misc|||https://x|||
"""
ALL = ("pkg-2.8.4.pkg", "bar-2.0.pkg", "gmake-4.4.txz", "git-2.1.pkg")


@pytest.fixture
def index(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "INDEX"
    path.write_text(INDEX, encoding="utf-8")
    return str(path)


def packages(*names: str) -> list[PackageFile]:
    return [PackageFile(name, f"/packages/{name}", 7, hashlib.sha256(name.encode()).hexdigest()) for name in names]


def inputs(index: str, package: str = "foo", built: t.Sequence[str] = ALL, **more: t.Any) -> BuildInputs:
    job = Job("amd64", "15", package)
    return BuildInputs(job=job, work_directory="/nowhere", index=index, packages=packages(*built), **more)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("foo", "foo", "1.2_1"),
        ("foo=1.2_1", "foo", "1.2_1"),
        ("foo-1.2_1", "foo", "1.2_1"),
        ("devel/foo", "foo", "1.2_1"),
        ("py312-baz", "py312-baz", "3.0"),
        ("py312-baz-3.0", "py312-baz", "3.0"),
        ("devel/py-baz@py312", "py312-baz", "3.0"),
        ("devel/py-baz", "py311-baz", "3.0"),
        ("devel/py-qux@py312", "py312-qux", "4.0"),
        ("devel/bar", "bar", "2.0"),
        ("INDEX", "INDEX", ""),
    ],
)
def test_what_is_asked_for_is_found_in_the_index(index: str, text: str, name: str, version: str) -> None:
    assert SYSTEM.resolve(text, index) == (name, version)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fo", "There is no package fo in .*INDEX. Did you mean foo"),
        ("foo-1.3", "There is no package foo-1.3"),
        ("foo=1.3", "foo has version 1.2_1 in this branch, not 1.3"),
        ("devel/fooo", "There is no package devel/fooo in .*INDEX. Did you mean devel/foo"),
        ("devel/py-baz@py39", "no flavor 'py39' of devel/py-baz; it makes py311-baz, py312-baz"),
        ("devel/py-qux@py39", "no flavor 'py39'"),
        ("misc/bar", "misc/bar makes a package bar, but so does devel/bar, which stands first"),
    ],
)
def test_what_is_not_there_is_named_with_what_is_near(index: str, text: str, said: str) -> None:
    with pytest.raises(UnknownPackage, match=said) as caught:
        SYSTEM.resolve(text, index)
    assert caught.value.details["infrastructure"] is False


@pytest.mark.parametrize(
    "text", ["", "-rf", "../x", "a/b/c", "/foo", "devel/../foo", "devel/foo@", "a b", "foo=", None, 3]
)
def test_names_that_cannot_be(index: str, text: t.Any) -> None:
    with pytest.raises(BadName):
        SYSTEM.resolve(text, index)


@given(st.text(max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_a_request_is_found_or_refused(index: str, text: str) -> None:
    try:
        name, _version = SYSTEM.resolve(text, index)
    except PortbuildError:
        return
    assert name == "INDEX" or f"\n{name}-" in f"\n{INDEX}"


def test_without_an_index_nothing_is_known(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NoIndex, match=r"portbuild\.cluster\.index"):
        SYSTEM.resolve("foo", str(tmp_path / "INDEX"))
    assert SYSTEM.resolve("INDEX", str(tmp_path / "INDEX")) == ("INDEX", "")


# -- dependencies ------------------------------------------------------------------------------------------------------


def test_all_that_is_missing_is_named(index: str) -> None:
    with pytest.raises(MissingDependencies) as caught:
        SYSTEM.check_ready("foo", index, lambda: packages("bar-1.9.pkg", "git-2.1.pkg", "gmake-4.4.deb"))
    assert "foo-1.2_1 needs 3 packages that are not built: pkg-2.8.4, gmake-4.4, bar-2.0 (there is bar-1.9)." in str(
        caught.value
    )
    assert caught.value.details == {
        "reason": "depends",
        "infrastructure": False,
        "missing": ["pkg-2.8.4", "gmake-4.4", "bar-2.0"],
    }
    with pytest.raises(MissingDependencies):
        SYSTEM.prepare(inputs(index, built=("pkg-2.8.4.pkg",)))


def test_what_is_ready(index: str) -> None:
    SYSTEM.check_ready("foo", index, lambda: packages(*ALL))
    SYSTEM.check_ready("pkg", index, packages)
    SYSTEM.check_ready("INDEX", "/nowhere", packages)
    with pytest.raises(MissingDependencies, match=r"bar-2\.0 needs a package that is not built: pkg-2\.8\.4"):
        SYSTEM.check_ready("bar", index, packages)


def test_an_index_without_pkg_is_of_no_use(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "INDEX"
    path.write_text(INDEX.partition("\n")[2], encoding="utf-8")
    with pytest.raises(UnknownPackage, match="does not have ports-mgmt/pkg"):
        SYSTEM.check_ready("foo", str(path), lambda: packages(*ALL))


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_plan(index: str) -> None:
    plan = SYSTEM.prepare(inputs(index, proxy="http://proxy.example:3128"))
    assert [(step["name"], step["user"], step["network"]) for step in plan.steps] == [
        ("fetch-depends", "root", False),
        ("fetch", "builder", True),
        ("depends", "root", False),
        ("build", "builder", False),
        ("build-as-root", "root", False),
        ("check", "root", False),
    ]
    for step in plan.steps:
        assert bool(step["environment"]) == step["network"], "a build sees no proxy"
        assert (step["root"] == "fresh") == (step["name"] == "check")
    assert "proxy" not in " ".join(plan.environment.values())
    assert [(file.name, file.place) for file in plan.inputs] == [
        ("pkg-2.8.4.pkg", "repo"),
        ("git-2.1.pkg", "repo"),
        ("gmake-4.4.txz", "repo"),
        ("bar-2.0.pkg", "repo"),
    ]
    assert plan.repo_index == {
        "fetch.list": "git-2.1.pkg\n",
        "depends.list": "git-2.1.pkg\ngmake-4.4.txz\nbar-2.0.pkg\n",
        "run.list": "bar-2.0.pkg\n",
    }
    assert plan.header == [("port directory", "/usr/ports/devel/foo"), ("maintained by", "foo@example.org")]
    environment = plan.environment
    assert {name: environment[name] for name in ("PB_PKGNAME", "PB_PORT", "PB_FLAVOR", "PB_PKG")} == {
        "PB_PKGNAME": "foo-1.2_1",
        "PB_PORT": "devel/foo",
        "PB_FLAVOR": "",
        "PB_PKG": "pkg-2.8.4.pkg",
    }
    for name, value in (
        ("BATCH", "yes"),
        ("PACKAGE_BUILDING", "yes"),
        ("USE_PACKAGE_DEPENDS_ONLY", "yes"),
        ("WRKDIRPREFIX", "/build/work"),
        ("DISTDIR", "/build/distfiles"),
        ("PACKAGES", "/build/packages"),
        ("PORTSDIR", "/usr/ports"),
    ):
        assert environment[name] == value
    assert not {"TRYBROKEN", "NO_RESTRICTED", "__MAKE_CONF"} & set(environment)


def test_what_the_switches_change(index: str, tmp_path: pathlib.Path) -> None:
    conf = tmp_path / "make.conf"
    conf.write_text("A=b\n", encoding="utf-8")
    plan = SYSTEM.prepare(
        inputs(
            index,
            "py312-baz",
            trybroken=True,
            no_restricted=True,
            fetch_original=True,
            want_distfiles=True,
            check="off",
            make_jobs=3,
            max_jobs=2,
            make_conf=str(conf),
        )
    )
    assert [step["name"] for step in plan.steps] == ["fetch", "depends", "build", "build-as-root"]
    wanted = {
        "TRYBROKEN": "yes",
        "NO_RESTRICTED": "yes",
        "PB_FETCH_ORIGINAL": "1",
        "PB_WANT_DISTFILES": "1",
        "PB_MAKE_JOBS": "3",
        "PB_MAXJOBS": "2",
        "PB_FLAVOR": "py312",
        "__MAKE_CONF": "/portbuild/inputs/make.conf",
    }
    assert {name: plan.environment.get(name) for name in wanted} == wanted
    (file,) = [file for file in plan.inputs if file.place == "inputs"]
    assert (file.name, file.sha256) == ("make.conf", hashlib.sha256(b"A=b\n").hexdigest())
    with pytest.raises(BadName):
        SYSTEM.prepare(inputs(index, check_ignore=("a\nb",)))


def test_pkg_itself_needs_no_pkg(index: str) -> None:
    plan = SYSTEM.prepare(inputs(index, "pkg", built=()))
    assert plan.environment["PB_PKG"] == ""
    assert plan.inputs == []


def test_another_version_than_the_trees_cannot_be_had(index: str) -> None:
    with pytest.raises(UnknownPackage, match=r"has version 1\.2_1"):
        SYSTEM.prepare(inputs(index, version="1.1"))


def test_the_index_is_made_by_a_build(index: str) -> None:
    plan = SYSTEM.prepare(inputs("/nowhere", "INDEX", built=(), made_from="a" * 64, duds=False, no_restricted=True))
    assert [(step["name"], step["user"], step["network"]) for step in plan.steps] == [("index", "builder", False)]
    assert plan.environment["PB_MADE_FROM"] == "a" * 64
    assert (plan.environment["PB_DUDS"], plan.environment["NO_RESTRICTED"]) == ("0", "yes")
    assert "TRYBROKEN" not in plan.environment, "or what is marked as broken would be no dud"
    assert SYSTEM.result_suffixes("INDEX") == ("INDEX", "duds", "made-from")
    assert SYSTEM.result_suffixes("foo") == SYSTEM.package_suffixes
    assert SYSTEM.index_job == "INDEX"


def test_every_step_of_a_plan_is_in_the_script(index: str) -> None:
    plan = SYSTEM.prepare(inputs(index))
    making = SYSTEM.prepare(inputs(index, "INDEX"))
    for step in (*plan.steps, *making.steps):
        assert re.search(rf"^    {step['name']}\) step_", plan.script, re.MULTILINE)
    used = set(re.findall(r"\b(PB_[A-Z_]+)", plan.script))
    assert used == {name for name in {**plan.environment, **making.environment} if name.startswith("PB_")}


def test_ignored_paths_are_expressions() -> None:
    ignored = re.compile("|".join(f"(?:{pattern})" for pattern in _ports.ignored_paths()))
    for path in ("/etc/master.passwd", "/var/run/ld-elf.so.hints", "/usr/local/share/mime/x", "/tmp/x", "/var/log/x"):
        assert ignored.fullmatch(path), path
    for path in ("/etc/rc.conf", "/usr/local/bin/x", "/var/db/x", "/usr/local/etc/x.conf", "/var/run", "/etc/passwdx"):
        assert not ignored.fullmatch(path), path


# -- the script --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
@pytest.mark.parametrize("dialect", ["sh", "dash"])  # FreeBSD's sh is an Almquist shell, as dash is
def test_the_script_is_clean_posix_shell(dialect: str) -> None:
    found = subprocess.run(
        ["shellcheck", f"--shell={dialect}", str(SCRIPT)], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stdout


def run_part(what: str, tmp_path: pathlib.Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a piece of shell with the script's functions, in directories of the test."""
    text = SCRIPT.read_text(encoding="utf-8").partition("\nstep=$1\n")[0]
    for name in ("build", "portbuild", "var/lib/portbuild"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    text = re.sub(r"^(\w+)=/(build|portbuild|var/lib)", rf"\1={tmp_path}/\2", text, flags=re.MULTILINE)
    script = tmp_path / "part.sh"
    script.write_text(f"{text}\n{what}\n", encoding="utf-8")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PB_IGNORE": "", **environment}
    shell = shutil.which("dash") or "/bin/sh"
    return subprocess.run(
        [shell, str(script)], capture_output=True, text=True, env=environment, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("fetch: https://a.example/resolved-1.tar.gz: Not Found", 1),
        ("fetch: https://a.example/x: No address record", 75),
        ("fetch: https://a.example/x: Network is unreachable", 75),
        ("fetch: transfer timed out", 75),
        ("fetch: https://unreachable.example/refused: Forbidden", 1),
        ("fetch: https://a.example/x: No address record\nfetch: https://b.example/x: Not Found", 1),
        ("=> Attempting to fetch https://a.example/timed out\nsomething else", 1),
        ("=> resolvconf-1.tar.gz doesn't seem to exist in /distfiles.\nsomething else", 1),
        ("=> SHA256 Checksum mismatch for x.tar.gz.", 1),
        ("fetch: https://a.example/x: size mismatch: expected 1, actual 2", 1),
    ],
)
def test_who_is_to_blame_for_a_failed_fetch(tmp_path: pathlib.Path, said: str, status: int) -> None:
    (tmp_path / "said").write_text(said + "\n", encoding="utf-8")
    assert run_part(f"judge_fetch {tmp_path}/said", tmp_path).returncode == status


def test_distfiles_come_from_the_cache_and_enter_it(tmp_path: pathlib.Path) -> None:
    sums = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("old", "new", "evil")}
    info = tmp_path / "distinfo"
    info.write_text(
        "TIMESTAMP = 1\n"
        f"SHA256 (sub dir/old 1.tar) = {sums['old']}\nSIZE (sub dir/old 1.tar) = 3\n"
        f"SHA256 (new.tar) = {sums['new']}\nSHA256 (absent.tar) = {'0' * 64}\n"
        f"SHA256 (/etc/evil) = {sums['evil']}\nSHA256 (../../evil) = {sums['evil']}\nSHA256 (x) = short\n",
        encoding="utf-8",
    )
    archives = tmp_path / "portbuild" / "archives"
    archives.mkdir(parents=True)
    (tmp_path / "portbuild" / "out").mkdir()
    for name in ("old", "evil"):
        (archives / sums[name]).write_text(name, encoding="utf-8")
    (tmp_path / "build" / "distfiles").mkdir(parents=True)
    (tmp_path / "build" / "distfiles" / "new.tar").write_text("new", encoding="utf-8")
    facts = f"printf '\\n\\n\\n\\n\\n{info}\\n' > $facts"
    done = run_part(f"{facts}; link_cached; report_fetched; lay_out_distfiles", tmp_path)
    assert done.returncode == 0, done.stderr
    distfiles = tmp_path / "build" / "distfiles"
    assert sorted(str(path.relative_to(distfiles)) for path in distfiles.rglob("*") if not path.is_dir()) == [
        "new.tar",
        "sub dir/old 1.tar",
    ]
    assert not (tmp_path / "evil").exists()
    listed = (tmp_path / "portbuild" / "out" / "archives.list").read_text(encoding="utf-8")
    assert listed == f"{distfiles}/new.tar {sums['new']}\n"
    wanted = tmp_path / "build" / "wanted"
    assert {path.name: path.read_text(encoding="utf-8") for path in wanted.iterdir()} == {
        "new.tar": "new",
        "sub dir%2fold 1.tar": "old",
    }
    assert not any(path.is_symlink() for path in wanted.iterdir())


OLD = """\
/a\t-rwxr-xr-x 0:0 5 100
/gone\t-rw-r--r-- 0:0 5 100
/same\t-rw-r--r-- 0:0 5 100
/etc/x\t-rw-r--r-- 0:0 5
/etc/x\t0123
/link\tlrwxrwxrwx 0:0 'link' -> 'a'
"""
NEW = """\
/a\t-rwxr-xr-x 0:0 5 101
/same\t-rw-r--r-- 0:0 5 100
/etc/x\t-rw-r--r-- 0:0 5
/etc/x\t4567
/link\tlrwxrwxrwx 0:0 'link' -> 'b'
/new file\t-rwsr-xr-x 0:0 5 100
/var/run/x\t-rw-r--r-- 0:0 5 100
/g\t-rwxr-sr-x 0:0 5 100
/w\tdrwxrwxrwx 0:0
/t\tdrwxrwxrwt 0:0
/l\tlrwxrwxrwx 0:0 'l' -> 'x'
"""


def test_what_a_check_finds(tmp_path: pathlib.Path) -> None:
    (tmp_path / "portbuild" / "out").mkdir(parents=True)
    (tmp_path / "old").write_text(OLD, encoding="utf-8")
    (tmp_path / "new").write_text(NEW, encoding="utf-8")
    what = f"compare {tmp_path}/old {tmp_path}/new privileged; compare {tmp_path}/old {tmp_path}/new leftovers"
    done = run_part(what, tmp_path, PB_IGNORE="# a comment\n/var/run/.*")
    assert done.returncode == 0, done.stderr
    found = (tmp_path / "portbuild" / "out" / "leftovers").read_text(encoding="utf-8").splitlines()
    assert found == [
        "setgid\t/g",
        "setuid\t/new file",
        "world_writable\t/w",
        "changed\t/a",
        "changed\t/etc/x",
        "changed\t/link",
        "extra\t/g",
        "extra\t/l",
        "extra\t/new file",
        "extra\t/t",
        "extra\t/w",
        "missing\t/gone",
    ]
    assert "portbuild: list of set-uid files:\nsetuid\t/new file\n" in done.stdout
    assert (
        "not present before this port was installed but present after it was deinstalled):\nextra\t/g\n" in done.stdout
    )


def test_files_are_described(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a b").write_text("x", encoding="utf-8")
    (tmp_path / "a b").chmod(0o4711)
    (tmp_path / "link").symlink_to("a b")
    done = run_part(f"describe '{tmp_path}/a b' {tmp_path}/link; digest '{tmp_path}/a b'", tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path}/a b\t-rws--x--x ")
    assert lines[1].startswith(f"{tmp_path}/link\tlrwxrwxrwx ") and "a b" in lines[1].partition("\t")[2]
    assert lines[2] == f"{hashlib.sha256(b'x').hexdigest()}  {tmp_path}/a b"


# -- what make describe tells becomes an INDEX -------------------------------------------------------------------------


def described(name: str, path: str, *, build: str = "", run: str = "", extract: str = "", fetch: str = "") -> str:
    """Return a line of make describe; the fields of dependencies are directories."""
    return f"{name}|{path}|/usr/local|A comment|{path}/pkg-descr|ports@FreeBSD.org|devel|{extract}||{fetch}|{build}|{run}|https://a.example/"


def make_index(tmp_path: pathlib.Path, *lines: str) -> tuple[Index, str]:
    """Return the INDEX that the script makes of these lines, and what it says beside."""
    (tmp_path / "described").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = run_part(f"make_index {tmp_path}/described", tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "INDEX").write_text(done.stdout, encoding="utf-8")
    return read_index(str(tmp_path / "INDEX")), done.stderr


def test_an_index_is_made_of_what_ports_tell(tmp_path: pathlib.Path) -> None:
    index, said = make_index(
        tmp_path,
        "===> devel",
        "--- describe.devel ---",
        described(
            "foo-1.0_1", "/usr/ports/devel/foo", build="/usr/ports/devel/gmake", run="/usr/ports/x11/../devel/bar"
        ),
        described("bar-2.0", "/usr/ports/devel/bar", run="/usr/ports/devel/py-baz@py312 /usr/ports/devel/none"),
        described("py311-baz-3", "/usr/ports/devel/py-baz@py311"),
        described("py312-baz-3", "/usr/ports/devel/py-baz@py312", fetch="/usr/ports/devel/py-baz"),
        described("gmake-4", "/usr/ports/devel/gmake", run="/usr/ports/devel/ring", extract="/usr/ports/devel/bar"),
        described("ring-1", "/usr/ports/devel/ring", run="/usr/ports/devel/gmake"),
        described("bar-2.0", "/usr/ports/misc/bar"),
    )
    assert index.problems == []
    assert list(index.by_base) == ["foo", "bar", "py311-baz", "py312-baz", "gmake", "ring"]
    entry, other = index.by_base["foo"], index.by_base["bar"]
    assert (entry.build, entry.run) == (("gmake-4", "ring-1"), ("bar-2.0", "py312-baz-3"))
    assert (other.origin, other.run, other.www) == ("devel/bar", ("py312-baz-3",), "https://a.example/")
    assert index.by_base["py312-baz"].fetch == ("py311-baz-3",), "without a flavor the first is meant"
    gmake = index.by_base["gmake"]
    assert (gmake.run, gmake.extract) == (("ring-1",), ("bar-2.0", "py312-baz-3")), "a circle is no obstacle"
    assert "bar-2.0 needs /usr/ports/devel/none, which makes no package." in said
    assert "/usr/ports/misc/bar makes bar-2.0 too, as /usr/ports/devel/bar does, which counts." in said


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11))), min_size=1, max_size=12))
def test_dependencies_are_transitive(tmp_path_factory: pytest.TempPathFactory, graph: list[tuple[set, set]]) -> None:
    """Against a model: what each package needs to build, and all that is needed to run that. Only backwards, so no circles."""
    run = [sorted(number for number in needs if number < own) for own, (_build, needs) in enumerate(graph)]
    build = [sorted(number for number in needs if number < own) for own, (needs, _run) in enumerate(graph)]
    every_run: list[set[int]] = []
    for needs in run:
        every_run.append(set(needs).union(*(every_run[number] for number in needs)))
    lines = [
        described(
            f"p{own}-1",
            f"/usr/ports/devel/p{own}",
            build=" ".join(f"/usr/ports/devel/p{number}" for number in build[own]),
            run=" ".join(f"/usr/ports/devel/p{number}" for number in run[own]),
        )
        for own in range(len(graph))
    ]
    index, said = make_index(tmp_path_factory.mktemp("index"), *lines)
    assert (index.problems, said) == ([], "")
    for own in range(len(graph)):
        entry = index.by_base[f"p{own}"]
        wanted = set(build[own]).union(*(every_run[number] for number in build[own]))
        assert sorted(entry.run) == sorted(f"p{number}-1" for number in every_run[own])
        assert sorted(entry.build) == sorted(f"p{number}-1" for number in wanted)
