# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import random
import resource
import subprocess
import sys
import time

import pytest
from hypothesis import example, given, HealthCheck, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils._names import BadName
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _index
from ansible_collections.portbuild.cluster.plugins.plugin_utils._index import (
    IndexFile,
    NoIndex,
    parse_index,
    read_index,
    split_name,
)


def line(name: str, path: str = "", **more: str) -> str:
    path = path or f"/usr/ports/devel/{name.rpartition('-')[0]}"
    fields = [name, path, "/usr/local", more.get("comment", "A comment"), f"{path}/pkg-descr"]
    fields += [more.get("maintainer", "ports@FreeBSD.org"), "devel", more.get("build", ""), more.get("run", "")]
    return "|".join([*fields, "https://example.org/", more.get("extract", ""), "", more.get("fetch", "")])


def write(tmp_path: pathlib.Path, *lines: str | bytes, end: bytes = b"\n") -> str:
    path = tmp_path / "INDEX"
    encoded = [text.encode() if isinstance(text, str) else text for text in lines]
    path.write_bytes(b"".join(text + end for text in encoded))
    return str(path)


USUAL = (
    line("pkg-2.8.4", "/usr/ports/ports-mgmt/pkg", maintainer="pkg@FreeBSD.org"),
    line("foo-1.2_1,1", build="gmake-4.4.1 pkg-2.8.4", run="bar-0.1", fetch="git-2.1"),
    line("foo-bar-2.0"),
    line("bar-0.1"),
    line("gmake-4.4.1"),
    line("git-2.1"),
    line("py311-foo-3.0", "/usr/ports/devel/py-foo@py311"),
    line("py312-foo-3.0", "/usr/ports/devel/py-foo@py312"),
)


def test_an_entry(tmp_path: pathlib.Path) -> None:
    index = read_index(write(tmp_path, *USUAL))
    assert index.problems == []
    entry = index.by_base["foo"]
    assert entry is index.by_name["foo-1.2_1,1"]
    assert (entry.base, entry.version, entry.origin, entry.flavor) == ("foo", "1.2_1,1", "devel/foo", "")
    assert entry.dependencies == ("git-2.1", "gmake-4.4.1", "pkg-2.8.4", "bar-0.1")
    assert (entry.maintainer, entry.comment, entry.line) == ("ports@FreeBSD.org", "A comment", 2)
    flavored = index.by_base["py312-foo"]
    assert (flavored.origin, flavored.flavor) == ("devel/py-foo", "py312")


def test_single_entries_are_found_without_the_others(tmp_path: pathlib.Path) -> None:
    with IndexFile(write(tmp_path, *USUAL)) as index:
        for entry in read_index(index.path).entries:
            for found in (index.by_base(entry.base), index.by_name(entry.name)):
                assert found is not None and found[:-1] == entry[:-1]
            assert entry.name in [found.name for found in index.by_origin(entry.origin)]
        assert [entry.name for entry in index.by_origin("devel/py-foo")] == ["py311-foo-3.0", "py312-foo-3.0"]
        for stranger in ("fo", "foo-bar-2", "foo-1.2_1", "", "pkg-2.8.4", "bar-", "|"):
            assert index.by_base(stranger) is None
        for stranger in ("foo", "foo-1.2_1", "oo-1.2_1,1", "", "pkg-2.8.4|"):
            assert index.by_name(stranger) is None
        for stranger in ("evel/foo", "devel/fo", "ports/devel/foo", "devel", "/", ""):
            assert index.by_origin(stranger) == []
        assert index.nearest("fooo") == ["foo"]
        assert index.nearest("devel/gmaek")[0] == "devel/gmake"
        assert index.problems == []


def test_no_index(tmp_path: pathlib.Path) -> None:
    for opened in (read_index, IndexFile):
        with pytest.raises(NoIndex, match=r"INDEX cannot be read: .*playbook portbuild.cluster.index"):
            opened(str(tmp_path / "INDEX"))
    path = write(tmp_path)
    assert read_index(path).entries == []
    with IndexFile(path) as index:
        assert (index.by_base("foo"), index.by_name("foo-1"), index.by_origin("a/b")) == (None, None, [])
        assert index.nearest("foo") == []


@pytest.mark.parametrize(
    ("odd", "why", "kept"),
    [
        ("foo-1", "It has 1 fields instead of 13. It is left out.", False),
        (line("foo-1.0").rpartition("|")[0], "It has 12 fields instead of 13. It is left out.", False),
        (line("foo-1.0", comment="one|two||"), "it has 16 fields instead of 13; taken for bars in the comment", True),
        (line("foo-1.0", comment="caf\udce9").encode("utf-8", "surrogateescape"), "foo-1.0: it is not UTF-8.", True),
        (line("foo", "/usr/ports/devel/foo"), "no package name with a version", False),
        (line("-rf-1", "/usr/ports/devel/foo"), "malformed", False),
        (line("foo-1.0", "/foo"), "no directory of a port", False),
        (line("foo-1.0", "/usr/ports/../foo"), "no directory of a port", False),
        (line("foo-1.0", "/usr/ports/a b/foo"), "no directory of a port", False),
        (line("bar-1.0"), "bar-1.0 stands in line 1 already; that one counts.", False),
        (line("bar-2.0"), "bar-2.0 and bar-1.0 in line 1 are one package; that one counts.", True),
        (line("foo-1.0", run="a-1 b-1 c-1 d-1 e-1 f-1 bar-1.0"), "needs a-1, b-1, c-1, d-1, e-1 and 1 more", True),
    ],
)
def test_what_is_odd_is_a_warning_with_its_line(tmp_path: pathlib.Path, odd: str | bytes, why: str, kept: bool) -> None:
    index = read_index(write(tmp_path, line("bar-1.0"), "", odd, line("last-1.0")))
    (problem,) = index.problems
    assert problem.line == 3
    assert why in str(problem)
    assert str(problem).startswith("line 3: ")
    assert len(index.entries) == 2 + kept
    assert index.by_base["bar"].version == "1.0"


def test_bars_in_a_comment_shift_nothing(tmp_path: pathlib.Path) -> None:
    (entry,) = read_index(write(tmp_path, line("foo-1.0", comment="a|b", build="x-1", run="y-2"))).entries
    assert (entry.comment, entry.build, entry.run) == ("a|b", ("x-1",), ("y-2",))


def test_carriage_returns_are_no_part_of_names(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, line("foo-1.0", fetch="bar-1.0"), line("bar-1.0"), end=b"\r\n")
    index = read_index(path)
    assert index.problems == []
    assert index.by_base["foo"].fetch == ("bar-1.0",)
    with IndexFile(path) as file:
        entry = file.by_base("foo")
        assert entry is not None and entry.fetch == ("bar-1.0",)


def test_a_file_without_a_last_newline(tmp_path: pathlib.Path) -> None:
    with IndexFile(write(tmp_path, line("foo-1.0") + "\n" + line("bar-1.0"), end=b"")) as index:
        assert index.by_base("bar") is not None
        assert index.by_base("foo") is not None


def test_problems_are_bounded() -> None:
    index = parse_index([b"x\n"] * (_index.MAX_WARNINGS + 5))
    assert (len(index.problems), index.problem_count) == (_index.MAX_WARNINGS, _index.MAX_WARNINGS + 5)


def test_names_and_versions() -> None:
    assert split_name("py311-foo-1.2_1,1") == ("py311-foo", "1.2_1,1")
    assert split_name("font-adobe-100dpi-1.0.3") == ("font-adobe-100dpi", "1.0.3")
    for bad in ("", "foo", "foo-", "-1", "foo-_1", "a/b-1", "a b-1", "x" * 300 + "-1"):
        with pytest.raises(BadName):
            split_name(bad)


NAMES = st.from_regex(r"[a-z0-9][a-z0-9+._-]{0,8}-[0-9][0-9a-z.,_]{0,4}", fullmatch=True)
PIECES = st.one_of(st.binary(max_size=20), NAMES.map(str.encode), st.just(b"/usr/ports/devel/foo"), st.just(b"|"))
LINES = st.one_of(
    st.lists(PIECES, max_size=16).map(b"|".join),
    NAMES.map(lambda name: line(name, "/usr/ports/devel/foo").encode()),
    st.tuples(NAMES, st.text(max_size=20)).map(lambda both: line(both[0], comment=both[1]).encode("utf-8", "replace")),
)


@given(st.lists(LINES, max_size=8), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
@example([b"|" * 12], b"\n", True)
@example([b"\0" * 4 + b"|" * 20], b"\n", False)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_no_file_is_too_strange(tmp_path: pathlib.Path, lines: list[bytes], end: bytes, last: bool) -> None:
    data = end.join(lines) + (end if last else b"")
    path = write(tmp_path, data, end=b"")
    index = read_index(path)
    assert len(index.by_name) == len(index.entries) <= data.count(b"\n") + 1
    assert index.problem_count == len(index.problems)
    with IndexFile(path) as file:
        for base, entry in index.by_base.items():
            found = file.by_base(base)
            assert found is not None and found[:-1] == entry[:-1]
        for entry in index.entries:
            named = file.by_name(entry.name)
            assert named is not None and named[:-1] == entry[:-1]
            assert entry.name in [other.name for other in file.by_origin(entry.origin)]
        file.nearest("foo")
        file.nearest("devel/foo")


SIZE = 36_000


def big_index(path: pathlib.Path) -> None:
    """Write an INDEX of the size of the real one."""
    chance = random.Random(36)
    names = [f"pkg{number:05d}-name-{chance.randint(1, 20)}.{chance.randint(0, 99)}" for number in range(SIZE)]
    with path.open("w", encoding="utf-8") as stream:
        for number, name in enumerate(names):
            below = names[: min(number, 9000)]
            lists = [" ".join(sorted(chance.sample(below, min(count, len(below))))) for count in (27, 18)]
            stream.write(line(name, f"/usr/ports/cat{number % 60}/p{number}", build=lists[0], run=lists[1]) + "\n")


_MEASURE = """
import resource, sys, time
from ansible_collections.portbuild.cluster.plugins.plugin_utils._index import IndexFile, read_index
began = time.process_time()
index = read_index(sys.argv[1])
print(time.process_time() - began, len(index.entries), index.problem_count)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def test_the_whole_tree_in_three_seconds(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "INDEX"
    big_index(path)
    assert path.stat().st_size > 35 << 20
    measured = subprocess.run([sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, check=True)
    seconds, entries, problems, megabytes = measured.stdout.split()
    assert (int(entries), int(problems)) == (SIZE, 0)
    assert float(seconds) < 3.0
    assert int(megabytes) < 500
    began = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with IndexFile(str(path)) as index:
        found = [index.by_base("pkg35999-name"), *index.by_origin("cat59/p35999")]
    assert len(found) == 2 and None not in found
    assert time.process_time() - began < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 << 10
