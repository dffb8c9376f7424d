# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a ports tree can build, from an INDEX, duds and a tarball of the tree."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._graph import Graph
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import (
    _ports_catalogue,
    Catalogue,
    CatalogueInputs,
    get_system,
    Recipe,
)

PKG = "pkg-2.8.4"


def line(name: str, port: str = "", build: str = "", run: str = "", categories: str = "devel") -> str:
    path = f"/usr/ports/{port or 'devel/' + name.rpartition('-')[0]}"
    return f"{name}|{path}|/usr/local|A comment|{path}/pkg-descr|me@example.org|{categories}|{build}|{run}||||"


LINES = (
    line(PKG, "ports-mgmt/pkg", categories="ports-mgmt"),
    line("foo-1.2_1,1", build="gmake-4.4.1", run="bar-0.1"),
    line("bar-0.1", categories="textproc devel"),
    line("gmake-4.4.1", build=PKG),
    line("lacks-1.0", build="gone-1.0 bar-0.2"),
    line("py311-x-3.0", "textproc/py-x@py311", categories="textproc python"),
    line("py312-x-3.0", "textproc/py-x@py312", categories="textproc python"),
    line("x-nox11-1.0", "x11/x"),
    line("other-1.0", "misc/other"),
    line("other-2.0", "misc/other2"),
    line("lonely-1.0"),
)


def read(tmp_path: pathlib.Path, *targets: str, lines: t.Sequence[str] = LINES, **more: t.Any) -> Catalogue:
    index = tmp_path / "INDEX"
    index.write_text("\n".join(lines) + "\n")
    given = {"cache_directory": str(tmp_path / "cache"), **more}
    return get_system("ports").catalogue(CatalogueInputs(targets=targets, index=str(index), **given))


def test_all(tmp_path: pathlib.Path) -> None:
    found = read(tmp_path, "all")
    assert found.targets == tuple(sorted(found.recipes))
    assert sorted(found.recipes) == [
        *("bar", "foo", "gmake", "lacks", "lonely", "other", "pkg", "py311-x", "py312-x", "x-nox11")
    ]
    assert (found.unknown, found.broken_edges) == ({}, ())
    recipe = found.recipes["foo"]
    assert recipe == Recipe(
        name="foo",
        version="1.2_1,1",
        digest=recipe.digest,
        needs=("bar", "gmake", "pkg"),
        aliases=("foo-1.2_1,1", "devel/foo"),
        categories=("devel",),
        origin="devel/foo",
    )
    assert len(recipe.digest) == 64
    assert found.recipes["pkg"].needs == ()
    assert found.recipes["lonely"].needs == ("pkg",)
    assert found.recipes["lacks"].missing == ("the package bar-0.2 (the INDEX has bar-0.1)", "the package gone-1.0")
    assert found.recipes["py311-x"].aliases == ("py311-x-3.0", "textproc/py-x", "textproc/py-x@py311")
    assert found.recipes["py312-x"].aliases == ("py312-x-3.0", "textproc/py-x@py312")
    assert [problem for problem in found.problems if "are one package" in problem]


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("foo", ["foo"]),
        ("foo=1.2_1,1", ["foo"]),
        ("foo-1.2_1,1", ["foo"]),
        ("devel/foo", ["foo"]),
        ("textproc/py-x", ["py311-x"]),
        ("textproc/py-x@py312", ["py312-x"]),
        ("x11/x@nox11", ["x-nox11"]),
        ("textproc-all", ["bar", "py311-x", "py312-x"]),
        ("python-all", ["py311-x", "py312-x"]),
    ],
)
def test_targets(target: str, names: list[str], tmp_path: pathlib.Path) -> None:
    found = read(tmp_path, target)
    assert (list(found.targets), found.unknown) == (names, {})
    for name in names:
        for alias in found.recipes[name].aliases:
            assert read(tmp_path, alias).targets == (name,)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("fooo", "There is no package 'fooo'. Did you mean foo?"),
        ("devel/fooo", "Did you mean devel/foo"),
        ("foo=1.3", "foo has version 1.2_1,1 in this branch, not 1.3."),
        ("foo=$(id)", "version '$(id)' is malformed"),
        ("textproc/py-x@py39", "There is no flavor 'py39' of textproc/py-x; it makes py311-x, py312-x."),
        ("txtproc-all", "There is no category 'txtproc-all'. Did you mean textproc-all?"),
        ("other-2.0", "other-2.0 makes a package other, but so does other-1.0 of misc/other."),
        ("misc/other2", "so does other-1.0"),
        ("", "There is no package ''."),
        ("../../etc/passwd", "There is no package"),
    ],
)
def test_targets_that_are_nothing(target: str, message: str, tmp_path: pathlib.Path) -> None:
    found = read(tmp_path, target, "foo")
    assert list(found.unknown) == [target]
    assert message in found.unknown[target]
    assert found.targets == ("foo",)


def test_what_is_needed_comes_along(tmp_path: pathlib.Path) -> None:
    found = read(tmp_path, "foo")
    assert (found.targets, sorted(found.recipes)) == (("foo",), ["bar", "foo", "gmake", "pkg"])
    assert read(tmp_path).recipes == {}


def test_what_nobody_has_is_no_package_of_that_name(tmp_path: pathlib.Path) -> None:
    # gtk-2.0 is a package without its version, and may be one with it.
    lines = [LINES[0], line("gtk-2.0-1.1", "x11/gtk-2.0"), line("foo-1", build="gtk-2.0")]
    graph = Graph((r.name, (*r.needs, *r.missing)) for r in read(tmp_path, "all", lines=lines).recipes.values())
    assert list(graph.missing) == ["foo"]


def test_without_pkg_nothing_can_be_built(tmp_path: pathlib.Path) -> None:
    found = read(tmp_path, "all", lines=LINES[1:])
    assert all("ports-mgmt/pkg" in recipe.missing for recipe in found.recipes.values())
    assert any("make that of a whole tree" in problem for problem in found.problems)


def test_duds(tmp_path: pathlib.Path) -> None:
    duds = {"bar": "BROKEN: does not build", "nowhere": "x"}
    assert read(tmp_path, "foo", duds=duds).recipes["bar"].ignored == "BROKEN: does not build"
    assert read(tmp_path, "foo", duds=duds).recipes["foo"].ignored == ""
    assert read(tmp_path, "foo", duds=duds, trybroken=True).recipes["bar"].ignored == ""


def test_problems_are_bounded(tmp_path: pathlib.Path) -> None:
    found = read(tmp_path, "foo", lines=[*LINES, *["x" * 10000] * 3000])
    assert len(found.problems) == 101
    assert found.problems[-1] == "2902 more such lines."
    assert max(map(len, found.problems)) < 400


# -- digests -----------------------------------------------------------------------------------------------------------

FILES = {
    "Mk/bsd.port.mk": b"",
    "devel/foo/Makefile": b"PORTNAME=foo",
    "devel/foo/files/patch-a": b"a",
    "devel/bar/Makefile": b"PORTNAME=bar",
    "devel/Makefile": b"SUBDIR += foo",
}


def tree(
    tmp_path: pathlib.Path, files: dict[str, bytes], top: str = "", mode: int = 0o644, kind: t.Any = "w:gz"
) -> str:
    path = tmp_path / "tree.tar"
    with tarfile.open(path, kind) as tarball:
        for name, content in files.items():
            member = tarfile.TarInfo(top + name)
            member.size, member.mode, member.mtime = len(content), mode, len(files) + len(top)
            tarball.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(f"{top}devel/bar/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../foo"
        tarball.addfile(link)
    return str(path)


def test_digests_are_of_names_modes_and_contents(tmp_path: pathlib.Path) -> None:
    usual = _ports_catalogue.digest_ports(tree(tmp_path, FILES))
    assert sorted(usual) == ["devel/bar", "devel/foo"]
    ways: tuple[dict[str, t.Any], ...] = (
        {},
        {"top": "./"},
        {"top": "freebsd-ports-main/"},
        {"kind": "w:xz"},
        {"kind": "w:"},
    )
    for more in ways:
        assert _ports_catalogue.digest_ports(tree(tmp_path, dict(reversed(FILES.items())), **more)) == usual
    for files, mode in (
        ({**FILES, "devel/foo/Makefile": b"PORTNAME=fop"}, 0o644),
        ({**FILES, "devel/foo/new": b""}, 0o644),
        ({name.replace("patch-a", "patch-b"): content for name, content in FILES.items()}, 0o644),
    ):
        other = _ports_catalogue.digest_ports(tree(tmp_path, files, mode=mode))
        assert (other["devel/bar"], other["devel/foo"] != usual["devel/foo"]) == (usual["devel/bar"], True)
    assert _ports_catalogue.digest_ports(tree(tmp_path, FILES, mode=0o755))["devel/foo"] != usual["devel/foo"]


def test_the_tree_is_read_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, t.Any] = {"tree": tree(tmp_path, FILES), "tree_sha256": "a" * 64}
    first = read(tmp_path, "foo", **given)
    assert [name for name, recipe in first.recipes.items() if not recipe.digest] == ["gmake", "pkg"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["ports.json"]
    monkeypatch.setattr(_ports_catalogue, "digest_ports", lambda tree: {})
    assert read(tmp_path, "foo", **given).recipes == first.recipes
    assert read(tmp_path, "foo", **{**given, "tree_sha256": "b" * 64}).recipes["foo"].digest == ""
    cache = json.loads((tmp_path / "cache" / "ports.json").read_text())
    assert (cache["tree"], cache["ports"]) == ("b" * 64, {})
    monkeypatch.undo()
    for damaged in ("", "{", "[]", json.dumps({"schema": 1, "tree": given["tree_sha256"], "ports": []})):
        (tmp_path / "cache" / "ports.json").write_text(damaged)
        assert read(tmp_path, "foo", **given).recipes == first.recipes
    # A version counts beside the directory, and so does the flavor.
    other = [text.replace("foo-1.2_1,1", "foo-1.3") for text in LINES]
    assert read(tmp_path, "foo", lines=other, **given).recipes["foo"].digest != first.recipes["foo"].digest


@pytest.mark.parametrize("content", [b"", b"no tarball" * 1000, None])
def test_a_tree_that_cannot_be_read_costs_the_digests_only(content: bytes | None, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tree.tar"
    if content is not None:
        path.write_bytes(content)
    found = read(tmp_path, "foo", tree=str(path), tree_sha256="a" * 64)
    assert {recipe.digest for recipe in found.recipes.values()} == {""}
    assert any("What has changed in the tree is not known" in problem for problem in found.problems)
    assert not (tmp_path / "cache" / "ports.json").exists()
