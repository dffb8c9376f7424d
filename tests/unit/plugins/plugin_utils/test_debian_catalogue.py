# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be built of Debian sources, from a directory of them and the lists in a bindist."""

from __future__ import annotations

import io
import os
import pathlib
import tarfile
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("debian")

from ansible_collections.portbuild.cluster.plugins.plugin_utils._graph import Graph
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import (
    _debian_catalogue,
    _debian_sources,
    Catalogue,
    CatalogueInputs,
    get_system,
)
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._debian_lists import binary, bindist, source

Lists = dict[str, t.Any]

ARCHIVE: Lists = {
    "main_Sources": [
        source("hello", "2.10-3", Section="devel", Build_Depends="debhelper-compat (= 13)"),
        source("debhelper", "13.11", Architecture="all", Section="devel", Build_Depends="perl:any"),
        source("perl", "5.36.0-7", Section="perl", Build_Depends="libdb-dev", Architecture="any all"),
        source("db", "5.3", Section="libs", Build_Depends="hello <!nocheck>"),
        source("grub-ppc", "1", Architecture="ppc64el", Section="contrib/admin"),
        source("docs", "1", Architecture="all", Section="doc"),
    ],
    "main_binary_amd64_Packages": [
        binary("hello", "2.10-3", Depends="libc6"),
        binary(
            "debhelper", "13.11", Provides="debhelper-compat (= 13), dh-sequence-x", Depends="perl:any, dh-tool | none"
        ),
        binary("perl", "5.36.0-7", Depends="libdb (>= 5)", Provides="perl-api"),
        binary("libdb-dev", "5.3", Source="db"),
        binary("libdb", "5.3+b1", Source="db (5.3)"),
        binary("libc6", "2.36", Source="glibc"),
        binary("dh-tool", "1", Depends="old-lib"),
        binary("old-lib", "1.0"),
        binary("mawk", "1", Provides="awk", Priority="required"),
        binary("gawk", "1", Provides="awk"),
    ],
}


class Sources:
    """A directory of local sources."""

    def __init__(self, tmp_path: pathlib.Path) -> None:
        self.path = tmp_path / "sources"
        self.path.mkdir()
        self.bindist = bindist(tmp_path, **ARCHIVE)
        self._cache = str(tmp_path / "cache")

    def add(self, name: str, needs: str = "", *binaries: str, version: str = "1.0", **fields: str) -> pathlib.Path:
        """Add an unpacked source; a binary is its stanza, or C(name: what it depends on)."""
        debian = self.path / name / "debian"
        debian.mkdir(parents=True, exist_ok=True)
        (debian / "changelog").write_text(f"{name} ({version}) unstable; urgency=low\n\n  * x\n\n -- x <x@y>  now\n")
        more = "".join(f"{field.replace('_', '-')}: {value}\n" for field, value in fields.items())
        stanzas = [f"Source: {name}\nSection: local\n" + (f"Build-Depends: {needs}\n" if needs else "") + more]
        for text in binaries or (name,):
            package, _colon, depends = text.partition(": ")
            usual = f"Package: {package}\nArchitecture: any\nDepends: ${{misc:Depends}}, {depends}\n"
            stanzas.append(text + "\n" if text.startswith("Package:") else usual)
        (debian / "control").write_text("\n".join(stanzas))
        return debian.parent

    def dsc(self, name: str, text: str, control: str = "", version: str = "1.0") -> pathlib.Path:
        """Add a .dsc, with a debian.tar that holds the control file if there is one."""
        if control:
            with tarfile.open(self.path / f"{name}_{version}.debian.tar.xz", "w:xz") as tarball:
                member = tarfile.TarInfo("./debian/control")
                member.size = len(control.encode())
                tarball.addfile(member, io.BytesIO(control.encode()))
        path = self.path / f"{name}_{version}.dsc"
        listed = f"Files:\n {'0' * 32} 1 {name}_1.orig.tar.gz\n {'0' * 32} 1 {name}_{version}.debian.tar.xz\n"
        path.write_text(f"Source: {name}\nVersion: {version}\n{text}{listed}")
        return path

    def read(self, *targets: str, **more: t.Any) -> Catalogue:
        usual = {"bindist": self.bindist, "bindist_sha256": "a" * 64, "source_directory": str(self.path)}
        return get_system("debian").catalogue(
            CatalogueInputs(targets=targets or ("all",), cache_directory=self._cache, **{**usual, **more})
        )

    def needs(self, *targets: str, **more: t.Any) -> dict[str, tuple[str, ...]]:
        return {name: recipe.needs for name, recipe in self.read(*targets, **more).recipes.items()}


@pytest.fixture
def sources(tmp_path: pathlib.Path) -> Sources:
    return Sources(tmp_path)


# -- targets -----------------------------------------------------------------------------------------------------------


def test_all_is_what_is_local(sources: Sources) -> None:
    sources.add("foo", "bar-dev, debhelper-compat (= 13)")
    sources.add("bar", "", "bar-dev: libbar (= ${binary:Version})", "libbar")
    (sources.path / "README").write_text("not a source")
    (sources.path / "notes").mkdir()
    found = sources.read()
    assert (found.targets, found.unknown, found.problems, found.broken_edges) == (("bar", "foo"), {}, (), ())
    recipe = found.recipes["foo"]
    assert (recipe.name, recipe.version, recipe.needs, recipe.missing, recipe.ignored) == (
        *("foo", "1.0", ("bar",), (), ""),
    )
    assert (recipe.categories, recipe.origin, len(recipe.digest)) == (("local",), str(sources.path / "foo"), 64)


def test_without_local_sources_all_is_the_archive(sources: Sources) -> None:
    found = sources.read(source_directory="")
    assert found.targets == ("db", "debhelper", "docs", "grub-ppc", "hello", "perl")
    assert found.recipes["hello"].needs == ("db", "debhelper", "perl")
    assert found.recipes["grub-ppc"].ignored == "it makes no package for amd64"
    assert found.recipes["grub-ppc"].categories == ("contrib/admin", "admin")
    assert found.recipes["hello"].origin == "the archive"
    # perl needs db to be installed, db is built with hello, hello with debhelper, and that needs perl.
    assert found.broken_edges
    assert Graph((r.name, (*r.needs, *r.missing)) for r in found.recipes.values()).cycles == []


def test_of_the_archive_only_targets_are_built(sources: Sources) -> None:
    assert sources.needs("hello") == {"hello": ()}
    assert sources.needs("hello", "debhelper") == {"hello": ("debhelper",), "debhelper": ()}
    assert sources.needs("hello", "perl", source_directory="") == {"hello": ("perl",), "perl": ()}


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("devel-all", ["debhelper", "hello"]),
        ("admin-all", ["grub-ppc"]),
        ("contrib/admin-all", ["grub-ppc"]),
        ("hello=2.10-3", ["hello"]),
    ],
)
def test_targets(sources: Sources, target: str, names: list[str]) -> None:
    found = sources.read(target, source_directory="")
    assert (list(found.targets), found.unknown) == (names, {})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("helo", "There is no package 'helo'. Did you mean hello"),
        ("hello=2.11", "There is hello 2.10-3, but not 2.11."),
        ("foo=2", "There is foo 1.0, but not 2."),
        ("Hello", "cannot be the name of a Debian source package"),
        ("-rf", "malformed"),
        ("hello=$(id)", "malformed"),
        ("deve-all", "There is no category 'deve-all'. Did you mean devel-all"),
        ("broken", "debian/changelog does not begin with an entry"),
        ("../etc", "There is no package"),
    ],
)
def test_targets_that_are_nothing(sources: Sources, target: str, message: str) -> None:
    sources.add("foo")
    (sources.add("broken") / "debian" / "changelog").write_text("rubbish")
    found = sources.read(target, "foo")
    assert (found.targets, list(found.unknown)) == (("foo",), [target])
    assert message in found.unknown[target]


def test_nothing_at_all(sources: Sources) -> None:
    assert sources.read("all").unknown == {"all": "There is no package at all."}
    found = sources.read("all", source_directory="", bindist="", bindist_sha256="")
    assert (found.recipes, found.unknown) == ({}, {"all": "There is no package at all."})


def test_local_sources_come_first_unless_another_version_is_asked_for(sources: Sources) -> None:
    sources.add("hello", version="3.0")
    assert sources.read("hello").recipes["hello"].version == "3.0"
    assert sources.read("hello=3.0").recipes["hello"].origin == str(sources.path / "hello")
    assert sources.read("hello=2.10-3").recipes["hello"].origin == "the archive"
    found = sources.read("all", "hello=2.10-3")
    assert (found.targets, found.recipes["hello"].version) == (("hello",), "2.10-3")
    found = sources.read("hello=3.0", "hello=2.10-3")
    assert found.unknown == {"hello=2.10-3": "hello is asked for as version 3.0 already."}
    sources.dsc("hello", "Architecture: any\nBinary: hello\n", version="4.0")
    assert sources.read("hello").recipes["hello"].version == "4.0"
    assert sources.read("hello=3.0").recipes["hello"].version == "3.0"


def test_a_bad_source_costs_itself_only(sources: Sources) -> None:
    sources.add("foo")
    (sources.add("broken") / "debian" / "control").write_text("Source: another\n")
    (sources.path / "bad_1.dsc").write_text("rubbish")
    (sources.path / "dir_1.dsc").mkdir()
    (sources.path / "link_1.dsc").symlink_to("/etc/passwd")
    os.mkfifo(sources.add("odd") / "debian" / "pipe")
    sources.add("bad-name").rename(sources.path / "Bad_Name")
    found = sources.read()
    assert found.targets == ("foo", "odd")
    assert found.recipes["odd"].ignored == f"{sources.path}/odd/debian/pipe is neither a file, a directory nor a link."
    for word in ("broken", "bad_1.dsc", "dir_1.dsc", "link_1.dsc", "odd", "Bad_Name"):
        assert any(word in problem for problem in found.problems), word
    assert len(found.problems) == 6


def test_a_source_that_somebody_works_on(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    sources.add("foo", "bar")
    sources.add("bar")
    control_of = _debian_sources.control_of

    def gone(source: _debian_sources.LocalSource) -> str:
        if source.name == "bar":
            raise _debian_sources.BadSource("bar/debian/control cannot be read: No such file or directory.")
        return control_of(source)

    monkeypatch.setattr(_debian_catalogue, "control_of", gone)
    found = sources.read()
    assert (found.targets, found.recipes["foo"].missing) == (("foo",), ("the package bar",))
    assert found.problems == ("bar/debian/control cannot be read: No such file or directory.",)
    monkeypatch.setattr(_debian_catalogue, "control_of", lambda source: "")
    assert sources.read().targets == ("bar", "foo")


# -- what is needed ----------------------------------------------------------------------------------------------------


def test_local_sources_that_a_target_needs_come_along(sources: Sources) -> None:
    sources.add("foo", "libbar-dev")
    sources.add("bar", "tool [amd64], nothing [i386]", "libbar-dev: libbar1", "libbar1: data")
    sources.add("tool")
    sources.add("data")
    sources.add("other")
    assert sources.needs("foo") == {"foo": ("bar", "data"), "bar": ("tool",), "tool": (), "data": ()}


def test_what_the_archive_installs_may_be_ours(sources: Sources) -> None:
    # debhelper of the archive needs dh-tool, which needs old-lib: apt takes ours.
    sources.add("lib", "", "old-lib", version="2.0")
    sources.add("foo", "debhelper-compat (= 13)")
    assert sources.needs("foo") == {"foo": ("lib",), "lib": ()}


@pytest.mark.parametrize(
    ("dependency", "needs", "missing"),
    [
        ("bar", ["bar"], ""),
        ("bar (>= 1.0)", ["bar"], ""),
        ("bar (>> 1.0)", [], "the package bar (>> 1.0) (ours has bar 1.0)"),
        ("bar (<< 1.0) | hello", [], ""),
        ("hello (>= 2.10)", [], ""),
        ("hello (>= 3)", [], "the package hello (>= 3) (the archive has hello 2.10-3)"),
        ("nothing", [], "the package nothing"),
        ("nothing | bar", ["bar"], ""),
        ("hello | bar", [], ""),
        ("bar | hello", ["bar"], ""),
        ("nothing | neither", [], "the package nothing | neither"),
        ("nothing [i386]", [], ""),
        ("nothing [!amd64], bar [linux-any]", ["bar"], ""),
        ("nothing [hurd-any] | bar", ["bar"], ""),
        ("nothing <stage1>", [], ""),
        ("nothing <!stage1>", [], "the package nothing <!stage1>"),
        ("bar <!nocheck>", ["bar"], ""),
        ("bar:any, bar:native, bar:amd64", ["bar"], ""),
        ("bar:i386", [], "the package bar:i386 (ours has bar 1.0)"),
        ("awk", [], ""),
        ("awk (>= 1)", [], "the package awk (>= 1)"),
        ("debhelper-compat (= 13)", [], ""),
        ("debhelper-compat (= 12)", [], "the package debhelper-compat (= 12)"),
        ("virtual", ["bar"], ""),
        ("virtual (>= 2)", [], "the package virtual (>= 2)"),
        ("versioned (>= 2)", ["bar"], ""),
        ("versioned (>= 3)", [], "the package versioned (>= 3)"),
        ("bar-doc", ["bar"], ""),
        ("bar-i386", [], "the package bar-i386"),
        ("bar-udeb", [], "the package bar-udeb"),
        ("bar-staged", [], "the package bar-staged"),
        ("what is this", [], "what 'what is this' means"),
        ("bar, , bar,", ["bar"], ""),
        ("needs-nothing", ["bar"], "the package nothing (>= 1) for needs-nothing"),
        ("${shlibs:Depends}", [], "what '${shlibs:Depends}' means"),
    ],
)
def test_dependencies(sources: Sources, dependency: str, needs: list[str], missing: str) -> None:
    sources.add("foo", dependency)
    sources.add(
        "bar",
        "",
        "Package: bar\nArchitecture: linux-any\nProvides: virtual, versioned (= 2.5), ${python:Provides}",
        "Package: bar-doc\nArchitecture: all",
        "Package: bar-i386\nArchitecture: i386",
        "Package: bar-udeb\nArchitecture: any\nPackage-Type: udeb",
        "Package: bar-staged\nArchitecture: any\nBuild-Profiles: <stage1>",
        "needs-nothing: nothing (>= 1), ${shlibs:Depends}, hello (>= ${version})",
    )
    recipe = sources.read("foo").recipes["foo"]
    assert (list(recipe.needs), list(recipe.missing)) == (needs, [missing] if missing else [])


def test_profiles(sources: Sources) -> None:
    sources.add("foo", "bar <!nocheck>, baz <!nodoc>")
    sources.add("bar", "", "Package: bar\nArchitecture: any\nBuild-Profiles: <!nodoc>")
    sources.add("baz")
    assert sources.read("foo").recipes["foo"].needs == ("bar", "baz")
    assert sources.read("foo", build_profiles=["nocheck"]).recipes["foo"].needs == ("baz",)
    assert sources.read("foo", build_options=["nocheck"]).recipes["foo"].needs == ("bar", "baz")
    assert sources.read("foo", build_profiles=["nodoc"]).recipes["foo"].missing == ("the package bar <!nocheck>",)
    given = {"package_profiles": lambda name: ["nodoc"] if name == "foo" else []}
    assert sources.read("foo", **given).recipes["foo"].needs == ("bar",)


def test_architecture_independent_packages(sources: Sources) -> None:
    sources.add("foo", Build_Depends_Indep="doctool", Build_Depends_Arch="archtool")
    sources.add("doctool", "", "Package: doctool\nArchitecture: all")
    sources.add("archtool")
    assert sources.read("foo").recipes["foo"].needs == ("archtool", "doctool")
    found = sources.read("foo", "doctool", build_indep=False)
    assert found.recipes["foo"].needs == ("archtool",)
    why = "all its packages are architecture-independent, and this arch does not build such"
    assert found.recipes["doctool"].ignored == why
    assert sources.read("docs", build_indep=False).recipes["docs"].ignored == why


def test_duds(sources: Sources) -> None:
    sources.add("foo")
    assert sources.read(duds={"foo": "does not build"}).recipes["foo"].ignored == "does not build"
    assert sources.read(duds={"foo": "does not build"}, trybroken=True).recipes["foo"].ignored == ""


# -- cycles ------------------------------------------------------------------------------------------------------------


def test_a_cycle_is_broken_where_the_archive_has_what_is_needed(sources: Sources) -> None:
    sources.add("hello", "bar", version="3.0")
    sources.add("bar", "hello")
    found = sources.read()
    assert found.broken_edges == (("bar", "hello"),)
    assert {name: recipe.needs for name, recipe in found.recipes.items()} == {"bar": (), "hello": ("bar",)}


def test_a_cycle_stays_where_it_does_not(sources: Sources) -> None:
    sources.add("hello", "bar", version="3.0")
    sources.add("bar", "hello (>= 3)")
    sources.add("self", "self")
    found = sources.read()
    assert found.broken_edges == ()
    graph = Graph((r.name, (*r.needs, *r.missing)) for r in found.recipes.values())
    assert graph.cycles == [("bar", "hello"), ("self",)]


def test_a_package_that_needs_itself_takes_the_archives(sources: Sources) -> None:
    sources.add("hello", "hello", version="3.0")
    found = sources.read()
    assert (found.broken_edges, found.recipes["hello"].needs) == ((("hello", "hello"),), ())


def test_all_that_is_printed_is_the_same_each_time(sources: Sources) -> None:
    for number in range(6):
        sources.add(
            "hello" if not number else f"x{number}", ", ".join(f"x{other}" for other in range(1, 6)) + ", hello"
        )
    assert sources.read() == sources.read()


# -- .dsc --------------------------------------------------------------------------------------------------------------

DSC = "Architecture: any all\nBuild-Depends: bar\nPackage-List:\n lib deb libs optional arch=any\n"
CONTROL = "Source: foo\n\nPackage: lib\nArchitecture: any\nDepends: data\nProvides: liblib\n"


def test_what_binaries_need_stands_in_the_tarball_of_a_dsc(sources: Sources) -> None:
    sources.dsc("foo", DSC, CONTROL)
    sources.add("bar")
    sources.add("data")
    sources.add("user", "liblib")
    found = sources.read()
    assert {name: recipe.needs for name, recipe in found.recipes.items()} == {
        "foo": ("bar",),
        "bar": (),
        "data": (),
        "user": ("data", "foo"),
    }
    assert found.recipes["foo"].categories == ("libs",)


@pytest.mark.parametrize("damage", ["absent", "rubbish", "cut", "link", "a bomb"])
def test_else_in_the_lists_of_the_archive(sources: Sources, damage: str, tmp_path: pathlib.Path) -> None:
    more = " mawk deb interpreters optional arch=linux-any profile=!nocheck,stage1\n x udeb d o arch=any\n y deb d o arch=i386\n\n"
    sources.dsc("foo", DSC + more.rstrip("\n") + "\n", CONTROL)
    tarball = sources.path / "foo_1.0.debian.tar.xz"
    data = tarball.read_bytes()
    tarball.unlink()
    if damage == "rubbish":
        tarball.write_bytes(b"rubbish" * 100)
    elif damage == "cut":
        tarball.write_bytes(data[: len(data) // 2])
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        tarball.symlink_to(tmp_path / "elsewhere")
    elif damage == "a bomb":
        with tarfile.open(tarball, "w:xz") as archive:
            member = tarfile.TarInfo("zero")
            member.size = 100 << 20
            with open("/dev/zero", "rb") as zero:
                archive.addfile(member, zero)
    sources.add("bar")
    for name, needed in {"a1": "lib", "a2": "awk", "a3": "x", "a4": "y"}.items():
        sources.add(name, needed)
    found = sources.read()
    assert found.recipes["a1"].needs == ("foo",)
    assert found.recipes["a2"].needs == ("foo",)  # ours provides it, as the archive's of the same name does
    assert found.recipes["a3"].missing and found.recipes["a4"].missing
    assert found.problems == ()


# -- digests -----------------------------------------------------------------------------------------------------------


def test_digests(sources: Sources) -> None:
    top = sources.add("foo")
    (top / "a").write_text("a")
    (top / "link").symlink_to("a")

    def digest() -> str:
        return sources.read("foo").recipes["foo"].digest

    usual = digest()
    os.utime(top / "a", (1, 1))
    (top / ".git").mkdir()
    (top / ".git" / "HEAD").write_text("x")
    assert digest() == usual
    found = {usual}
    (top / "a").write_text("b")
    found.add(digest())
    (top / "a").chmod(0o755)
    found.add(digest())
    (top / "a").rename(top / "c")
    found.add(digest())
    (top / "link").unlink()
    (top / "link").symlink_to("c")
    found.add(digest())
    (top / "empty").mkdir()
    found.add(digest())
    assert len(found) == 6

    path = sources.dsc("dsc", DSC)
    before = sources.read("dsc").recipes["dsc"].digest
    path.write_text(path.read_text() + "X-More: 1\n")
    assert sources.read("dsc").recipes["dsc"].digest != before
    archive = sources.read("hello", "perl").recipes
    assert len({archive["hello"].digest, archive["perl"].digest, ""}) == 3


def test_the_list_of_sources_is_what_is_found_one_by_one(sources: Sources) -> None:
    sources.add("foo", version="1:1.0")
    sources.dsc("foo", DSC, version="2.0")
    sources.dsc("foo", DSC, version="1.0~rc1")
    sources.add("foo-bar")
    found = _debian_sources.list_sources(str(sources.path)).found
    for name in ("foo", "foo-bar"):
        assert found[name][0] == _debian_sources.find_source(str(sources.path), name)
    assert [one.version for one in found["foo"]] == ["1:1.0", "2.0", "1.0~rc1"]
    with pytest.raises(_debian_sources.BadSource, match="cannot be read: No such file"):
        sources.read(source_directory=str(sources.path / "nowhere"))


# -- anything ----------------------------------------------------------------------------------------------------------

TEXT = st.text(alphabet="ab: ,|()[]<>=1\n\t#-${}!", max_size=80)


@given(st.lists(TEXT, max_size=3), TEXT)
@settings(max_examples=60, deadline=None)
def test_no_control_file_is_too_strange(
    tmp_path_factory: pytest.TempPathFactory, stanzas: list[str], needs: str
) -> None:
    sources = Sources(tmp_path_factory.mktemp("strange"))
    sources.add("foo", needs)
    control = sources.path / "foo" / "debian" / "control"
    control.write_text("\n\n".join([control.read_text(), *stanzas]))
    sources.add("user", "foo")
    found = sources.read()
    assert {"user"} <= {*found.recipes} <= {"user", "foo"}
    Graph((r.name, (*r.needs, *r.missing)) for r in found.recipes.values())
