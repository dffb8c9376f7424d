# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The original's configuration files. Where sh(1) is there, it is the model that the parser is compared with."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils._names import BadName
from ansible_collections.portbuild.cluster.plugins.plugin_utils._conf import (
    load_directory,
    MAX_FILE,
    parse_conf,
    read_mlist,
    record_system,
    SystemMismatch,
    UnreadableConf,
)

ORIGINAL = """\
# settings of a cluster
arch=i386
pb=/var/portbuild
user=ports-${arch}
client_user=root
mailto=one@example.org,two@example.org
scratchpart=/x
scratchdir=${scratchpart}/tmp
branches="6 7 6-exp 7 7-exp"
maxjobs=3
sudo_cmd=
md_size=11g
#ccache_dir=server:/vol
"""


def texts(text: str) -> dict[str, str]:
    conf = parse_conf(text, "conf")
    assert not conf.problems, [str(problem) for problem in conf.problems]
    return conf.texts


def test_original() -> None:
    found = texts(ORIGINAL)
    assert found["scratchdir"] == "/x/tmp"
    assert found["user"] == "ports-i386"
    assert found["branches"] == "6 7 6-exp 7 7-exp"
    assert found["sudo_cmd"] == ""
    assert "ccache_dir" not in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1", {"a": "1"}),
        ("a=1 b=2;c=3\n", {"a": "1", "b": "2", "c": "3"}),
        ("  a=1  # why\n", {"a": "1"}),
        ("a=1#2", {"a": "1#2"}),
        ("a='x $y `z`'", {"a": "x $y `z`"}),
        ('a="x \'y\' \\"z\\" \\$w \\n"', {"a": "x 'y' \"z\" $w \\n"}),
        ("a=x\\ y\\#", {"a": "x y#"}),
        ("a=1\\\n2\nb=3", {"a": "12", "b": "3"}),
        ('a="1\n2"\nb=3', {"a": "1\n2", "b": "3"}),
        ("a=1\r\nb='2'\r\n", {"a": "1", "b": "2"}),
        ("\ufeffa=1\n", {"a": "1"}),
        ("export a=1 b=2\nexport a\nreadonly c=3", {"a": "1", "b": "2", "c": "3"}),
        ("export=1", {"export": "1"}),
        ("a=1\nb=$a.$a\nc=${a}0$", {"a": "1", "b": "1.1", "c": "10$"}),
        ("a=1 b=${a}2", {"a": "1", "b": "12"}),
        ("a=${z:-x y}${z-1}", {"a": "x y1"}),
        ("z=\na=${z:-1}${z-2}${z:+3}${z+4}", {"z": "", "a": "14"}),
        ("a=${b:-${c:-'}'}}", {"a": "}"}),
        ("a=${b:+$undefined}", {"a": ""}),
        ("a=x}y{", {"a": "x}y{"}),
        ("a=1;;", {"a": "1"}),
        ("a=1\n\n#a=2\n", {"a": "1"}),
        ("a=1\na=2", {"a": "2"}),
        ("", {}),
    ],
)
def test_what_is_read(text: str, expected: dict[str, str]) -> None:
    assert texts(text) == expected


@pytest.mark.parametrize(
    "line",
    [
        "bad=$(touch X)",
        "bad=`touch X`",
        'bad="$(touch X)"',
        "bad=$((1 + 1))",
        "touch X",
        "bad =1",
        "bad=1 touch X",
        "bad=1; touch X",
        "bad=1 && touch X",
        "bad=1 & bad=2",
        "bad=1 > X",
        "bad=(1 2)",
        "bad+=1",
        ". /etc/rc.conf",
        "[ -f X ] && bad=1",
        "bad=$undefined",
        "bad=${undefined}",
        "bad=${undefined:?}",
        "bad=${a%x}",
        "bad=${#a}",
        "bad=$1",
        "bad=$$",
        "bad=$'x'",
        "bad=~/x",
        "bad='x\ty\x01'",
        "bad=\x00",
        "bad=${",
        "bad=${a",
        "1bad=2",
        "-n",
        "bäd=1",
        "if true; then bad=1; fi",
        "if true\nthen\n  bad=1\nfi",
        "for i in 1 2; do\n  bad=$i\ndone",
        "while true; do if x; then bad=1; fi; done",
        "case x in\n  x) bad=1;;\nesac",
        "f() {\n  bad=1\n}",
        "{\n  bad=1\n}",
        "cat <<EOF\nbad=1\nEOF",
        "cat <<-'EOF' > X\nbad=1\n\tEOF",
        'echo "\nbad=1\n"',
        "bad=$(\ncat X\n)",
        "echo \\\nbad=1",
    ],
)
def test_what_is_skipped(line: str) -> None:
    """The line, all of it, and nothing else; its place is told."""
    conf = parse_conf(f"a=1\n{line}\nz=2\n", "some/file")
    assert conf.texts == {"a": "1", "z": "2"}
    assert len(conf.problems) == 1
    assert str(conf.problems[0]).startswith("some/file:2: ")


def test_unclosed_quote_costs_one_line() -> None:
    conf = parse_conf("a=1\nb='2\nc=3\n", "f")
    assert conf.texts == {"a": "1", "c": "3"}
    assert str(conf.problems[0]) == "f:2: A quote (') is not closed. The line is skipped."
    assert set(conf.broken) == {"b"}


def test_broken_until_assigned() -> None:
    conf = parse_conf("a=1\na=$(nproc)\nb=$(nproc)\nb=2\nif x; then c=3; fi\n", "f")
    assert conf.texts == {"a": "1", "b": "2"}
    assert set(conf.broken) == {"a", "c"}
    assert conf.broken["a"].where == "f:2"


def test_references_to_given_variables() -> None:
    conf = parse_conf("a=$given/${given}\n", "f", {"given": "x"})
    assert conf.texts == {"a": "x/x"}
    assert conf.used == {"given"}


def test_values_cannot_explode() -> None:
    lines = ["a0=xxxxxxxx"] + [f"a{n}=$a{n - 1}$a{n - 1}" for n in range(1, 40)]
    conf = parse_conf("\n".join(lines), "f")
    assert max(map(len, conf.texts.values())) <= 1 << 14
    assert conf.problems


@pytest.mark.parametrize(
    "piece",
    ["'", '"', "$(\n", '"$(\n', "`\n", "if\n", "{\n", "${a:-", "a=${a:-", "\\\n", "<<x\n", "a='\n", "x \"$(`'\n", "#"],
)
def test_hostile_files_take_no_time(piece: str) -> None:
    text = (piece * MAX_FILE)[:MAX_FILE]
    before = time.process_time()
    parse_conf(text, "f")
    assert time.process_time() - before < 30  # what is worse than linear would take hours


def test_too_large() -> None:
    conf = parse_conf("a=1\n" * MAX_FILE, "f")
    assert not conf.values
    assert "larger" in str(conf.problems[0])


# -- properties ------------------------------------------------------------------------------------------------------

JUNK = st.text(st.sampled_from("ab=$(){}`'\"\\;&|<>#~ \t\n\r\x00é*?[]!-:+%0"), max_size=60)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="'"), max_size=30)


@settings(max_examples=400, deadline=None)
@given(st.text() | JUNK)
def test_anything_is_survived(text: str) -> None:
    conf = parse_conf(text, "f")
    for problem in conf.problems:
        assert re.match(r"f:[0-9]+: ", str(problem))
    for value in conf.values.values():
        assert 1 <= int(value.where.partition(":")[2]) <= text.count("\n") + 1


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=5), JUNK.filter(lambda junk: "\\\n" not in junk))
def test_good_lines_before_junk_survive(good: dict[str, str], junk: str) -> None:
    text = "".join(f"zz{name}='{value}'\n" for name, value in good.items())
    assert texts(text) == {f"zz{name}": value for name, value in good.items()}
    found = parse_conf(text + junk, "f").texts
    assert {name: value for name, value in found.items() if name.startswith("zz")} == texts(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab=$;&|>~ \t*?[]!-:+%0é."), max_size=12), max_size=6), st.integers(0, 6))
def test_good_lines_among_junk_survive(junk: list[str], place: int) -> None:
    """Junk without quotes, brackets and backslashes can hide nothing."""
    conf = parse_conf("\n".join(["good1=a", *junk[:place], "good1=a", "good2='b c'", *junk[place:]]), "f")
    assert conf.texts["good1"] == "a"
    assert conf.texts["good2"] == "b c"


@pytest.mark.skipif(not shutil.which("dash"), reason="the model is dash")
@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.lists(
                st.sampled_from(
                    [
                        "x",
                        "'y z'",
                        '"p $a"',
                        "$a.",
                        "${b}",
                        "${c:-d e}",
                        "${a:+f}",
                        "\\ ",
                        '"\\$"',
                        "#",
                        "}",
                        "=",
                        "1",
                        '"${b:-q}"',
                        ":",
                    ]
                ),
                max_size=5,
            ).map("".join),
        ),
        max_size=6,
    )
)
def test_means_what_it_means_to_a_shell(assignments: list[tuple[str, str]]) -> None:
    text = "a=1\nb=2\nc=3\n" + "".join(f"{name}={value}\n" for name, value in assignments)
    script = text + 'printf \'%s|\' "$a" "$b" "$c"'
    model = subprocess.run(["dash", "-c", script], env={}, capture_output=True, text=True, timeout=10, check=True)
    found = texts(text)
    assert f"{found['a']}|{found['b']}|{found['c']}|" == model.stdout


# -- mlist -----------------------------------------------------------------------------------------------------------


def test_mlist() -> None:
    machines, problems = read_mlist(
        "\ufeff# best\n b1 # fast\r\n\n\tb10\nb2.example.org\nb1\n-rf\n../x\nb3 2\nconf\nb é\n" + "x" * 300
    )
    assert machines == ["b1", "b10", "b2.example.org"]
    assert [problem.where for problem in problems] == [f"mlist:{line}" for line in (6, 7, 8, 9, 10, 11, 12)]
    assert "line 2" in str(problems[0])
    assert "portbuild.b3" in str(problems[3])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=12).map(lambda line: line.replace("\n", "")), max_size=8), st.integers(0, 8))
def test_mlist_survives_anything(junk: list[str], place: int) -> None:
    machines, problems = read_mlist("\n".join([*junk[:place], "good-machine", *junk[place:]]))
    assert "good-machine" in machines
    assert len(machines) == len(set(machines))
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", machine) for machine in machines)
    assert all(re.match(r"mlist:[0-9]+: ", str(problem)) for problem in problems)


# -- the directory -----------------------------------------------------------------------------------------------------


@pytest.fixture
def arch(tmp_path: pathlib.Path) -> pathlib.Path:
    directory = tmp_path / "amd64"
    directory.mkdir()
    (directory / "portbuild.conf").write_text(ORIGINAL + "timeout=4h\n")
    (directory / "mlist").write_text("b2\nb1\n")
    (directory / "portbuild.b1").write_text("maxjobs=1\nscratchdir=${scratchpart}/${host}/$arch\n")
    return directory


def test_directory(arch: pathlib.Path) -> None:
    config = load_directory(str(arch.parent), "amd64")
    assert config.machines == ("b2", "b1")
    assert config.has_mlist
    assert config.for_machine("b1").texts == {"maxjobs": "1", "scratchdir": "/x/b1/i386"}
    assert config.for_machine("b2").texts == {}
    assert config.problems == ()
    assert config.conf.values["timeout"].where == f"{arch}/portbuild.conf:14"


def test_directory_problems(arch: pathlib.Path) -> None:
    (arch / "portbuild.b1").write_text("maxjobs=`nproc`\n")
    (arch / "mlist").write_bytes(b"b1\nb1\n\xff\n")
    config = load_directory(str(arch.parent), "amd64")
    assert len(config.problems) == 2
    config.for_machine("b1")
    assert [problem.where for problem in config.problems] == [
        f"{arch}/mlist:2",
        f"{arch}/mlist:3",
        f"{arch}/portbuild.b1:1",
    ]
    with pytest.raises(BadName):
        config.for_machine("../x")
    with pytest.raises(BadName):
        load_directory(str(arch.parent), "..")


def test_absent_directory(tmp_path: pathlib.Path) -> None:
    config = load_directory(str(tmp_path), "none")
    assert (config.machines, config.has_mlist, config.conf.texts, config.problems) == ((), False, {}, ())


def test_unreadable(arch: pathlib.Path) -> None:
    os.unlink(arch / "mlist")
    (arch / "mlist").mkdir()
    with pytest.raises(UnreadableConf, match="mlist cannot be read"):
        load_directory(str(arch.parent), "amd64")


def test_system_is_recorded_once(arch: pathlib.Path) -> None:
    conf = arch / "portbuild.conf"
    conf.write_text("maxjobs=2 # no newline")
    root = str(arch.parent)
    assert record_system(root, "amd64", "debian", check_mode=True)
    assert conf.read_text() == "maxjobs=2 # no newline"
    assert record_system(root, "amd64", "debian")
    assert conf.read_text() == "maxjobs=2 # no newline\nsystem=debian\n"
    assert not record_system(root, "amd64", "debian")
    with pytest.raises(SystemMismatch, match=r"'ports', but this arch serves 'debian' \(.*portbuild.conf:2\)"):
        record_system(root, "amd64", "ports")


def test_nothing_is_run(arch: pathlib.Path, tmp_path: pathlib.Path) -> None:
    trap = tmp_path / "ran"
    lines = [
        f"x=$(touch {trap})",
        f"touch {trap}",
        f"x=`touch {trap}`",
        f'x="${{y:-$(touch {trap})}}"',
        f"x=1; touch {trap}",
    ]
    (arch / "portbuild.conf").write_text("\n".join(lines))
    assert len(load_directory(str(arch.parent), "amd64").problems) == len(lines)
    assert not trap.exists()
