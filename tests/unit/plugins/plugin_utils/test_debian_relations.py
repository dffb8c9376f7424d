# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Relations of Debian packages, against python-debian and dpkg."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("debian")

from debian.deb822 import PkgRelation
from debian.debian_support import NativeVersion

from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems._debian_relations import (
    alternatives,
    BadRelation,
    clauses,
    concerns,
    counts,
    formula,
    holds,
    is_architecture,
    Relation,
    satisfies,
    substituted,
    version_key,
)

VERSIONS = st.from_regex(r"([0-9]:)?[0-9][a-z0-9.+~]{0,6}(-[a-z0-9.+~]{1,4})?", fullmatch=True)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,8}", fullmatch=True)
WORDS = st.from_regex(r"!?[a-z][a-z0-9-]{0,5}", fullmatch=True)
SPACE = st.sampled_from(["", " ", "  ", "\n "])


@st.composite
def relations(draw: st.DrawFn) -> tuple[str, Relation]:
    """A relation as it may be written, and what it means."""
    space = [draw(SPACE) for _unused in range(6)]
    relation = Relation(
        draw(NAMES),
        draw(st.sampled_from(["", "any", "native", "amd64"])),
        operator := draw(st.sampled_from(["", "<<", "<=", "=", ">=", ">>"])),
        draw(VERSIONS) if operator else "",
        tuple(draw(st.lists(WORDS, max_size=3))),
        tuple(map(tuple, draw(st.lists(st.lists(WORDS, min_size=1, max_size=2), max_size=2)))),
    )
    text = relation.name + (f":{relation.qualifier}" if relation.qualifier else "")
    text += f"{space[0]}({operator}{space[1]}{relation.version}{space[2]})" if operator else ""
    text += f"{space[3]}[{' '.join(relation.architectures)}]" if relation.architectures else ""
    between = " " * len(space[4])  # python-debian takes no other space there
    text += "".join(f"{between}<{' '.join(group)}>" for group in relation.profiles)
    return text + space[5], relation


@given(st.lists(st.lists(relations(), min_size=1, max_size=3), max_size=3))
def test_relations_are_read_as_python_debian_reads_them(written: list[list[tuple[str, Relation]]]) -> None:
    text = ", ".join(" | ".join(one for one, _relation in either) for either in written)
    found = [alternatives(clause) for clause in clauses(text)]
    assert found == [tuple(relation for _text, relation in either) for either in written]
    theirs = PkgRelation.parse_relations(text) if text else []
    assert [
        [
            Relation(
                one["name"],
                one["archqual"] or "",
                *(one["version"] or ("", "")),
                tuple(("" if enabled else "!") + arch for enabled, arch in one["arch"] or ()),
                tuple(tuple(("" if yes else "!") + word for yes, word in group) for group in one["restrictions"] or ()),
            )
            for one in either
        ]
        for either in theirs
    ] == [list(either) for either in found]


@pytest.mark.parametrize(
    "text",
    [
        *("a b", "a (>= 1", "a (1)", "a (== 1)", "a []", "a <>", "a [!]", "a <x", "(>= 1)", "|", "a |", "-a", "a:b:c"),
        *(
            "a (>= 1) (<< 2)",
            "a <x> [y]",
            "${x}",
            "a (>= 1 2)",
            "a" * 300,
            f"a (>= {'9' * 5000})",
            "<" * 5000,
            " |" * 9,
        ),
    ],
)
def test_what_is_no_relation(text: str) -> None:
    with pytest.raises(BadRelation, match="is no dependency"):
        for clause in clauses(text):
            alternatives(clause)


@given(st.text(alphabet="ab1 ()[]<>|,!:=.${}\n", max_size=60))
def test_nothing_is_too_strange(text: str) -> None:
    for clause in clauses(text):
        with contextlib.suppress(BadRelation):
            assert alternatives(clause)
    substituted(text, "1")


@given(VERSIONS, VERSIONS)
@example("1.0", "1.0~")
@example("1.", "1.0")
@example("0", "0-0")
def test_versions_sort_as_dpkg_sorts_them(one: str, other: str) -> None:
    ours, theirs = (version_key(one), version_key(other)), (NativeVersion(one), NativeVersion(other))
    assert (ours[0] < ours[1], ours[0] == ours[1]) == (theirs[0] < theirs[1], theirs[0] == theirs[1])


def test_what_satisfies() -> None:
    for operator, versions in {
        "": ["1", "2", "3"],
        "<<": ["1"],
        "<=": ["1", "2"],
        "=": ["2"],
        ">=": ["2", "3"],
        ">>": ["3"],
    }.items():
        assert [version for version in ("1", "2", "3") if satisfies(version, operator, "2")] == versions
    (old,) = alternatives("a (< 2)")
    assert old.operator == "<="


ARCHITECTURES = ("amd64", "armhf", "armel", "arm64", "x32", "kfreebsd-amd64", "hurd-i386", "musl-linux-amd64")
WILDCARDS = (
    *("any", "linux-any", "any-amd64", "any-arm", "any-i386", "hurd-any", "any-linux-any", "gnu-linux-any"),
    *("gnu-any-any", "musl-any-any", "any-any-any-arm", "eabihf-any-any-any", "base-any-any-any", "amd64", "armhf"),
)


@pytest.mark.skipif(shutil.which("dpkg-architecture") is None, reason="needs dpkg-architecture")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_wildcards_are_those_of_dpkg(architecture: str) -> None:
    for wanted in WILDCARDS:
        done = subprocess.run(
            ["dpkg-architecture", "-a", architecture, "-i", wanted], stderr=subprocess.DEVNULL, check=False, timeout=60
        )
        assert is_architecture(architecture, wanted) == (done.returncode == 0), wanted


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("amd64", True),
        ("i386", False),
        ("i386 amd64", True),
        ("!amd64", False),
        ("!i386", True),
        ("!i386 !amd64", False),
        ("linux-any", True),
        ("!linux-any", False),
        ("hurd-any kfreebsd-any", False),
        ("any", True),
        ("amd64 !i386 linux-any", True),
        ("", False),
    ],
)
def test_lists_of_architectures(words: str, expected: bool) -> None:
    assert concerns("amd64", words.split()) is expected


@pytest.mark.parametrize(
    ("text", "profiles", "expected"),
    [
        ("a", "", True),
        ("a <!nocheck>", "", True),
        ("a <!nocheck>", "nocheck", False),
        ("a <nocheck>", "", False),
        ("a <!nocheck !nodoc>", "nodoc", False),
        ("a <!nocheck> <!nodoc>", "nodoc", True),
        ("a <!nocheck> <!nodoc>", "nodoc nocheck", False),
        ("a <stage1 cross>", "stage1", False),
        ("a <stage1 cross>", "stage1 cross", True),
        ("a [i386] <!nocheck>", "", False),
        ("a [amd64] <!nocheck>", "nocheck", False),
    ],
)
def test_build_profiles(text: str, profiles: str, expected: bool) -> None:
    (relation,) = alternatives(text)
    assert counts(relation, "amd64", profiles.split()) is expected


def test_what_only_a_build_knows_is_left_out() -> None:
    text = "${misc:Depends}, libc6 (>= ${x:V}), a (= ${binary:Version}), b | ${or:Not}, c (>= 1) | d,\n e (<< ${source:Version}.1~)"
    assert substituted(text, "1:2-3") == "libc6, a (= 1:2-3), c (>= 1) | d, e (<< 1:2-3.1~)"
    assert holds(formula("<!nodoc> <x>"), ["x", "nodoc"]) and not holds(formula("<!nodoc>"), ["nodoc"])
