# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._text import duration, one_line, printable, tail


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("a\nBcc: x", "a Bcc: x"),
        ("a\r\n\tb\x00\x1b[0mc", "a b [0mc"),
        ("a\u2028b\u202ec\ud800d", "a b c d"),
        ("x" * 50, "x" * 20),
        (None, ""),
        (7, ""),
        (["a"], ""),
    ],
)
def test_one_line(value: object, shown: str) -> None:
    assert one_line(value, 20) == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("a\tb\r", "a    b"),
        ("bell\x07 back\x08", "bell\ufffd back\ufffd"),
        ("grüße", "grüße"),
    ],
)
def test_printable(line: str, shown: str) -> None:
    assert printable(line) == shown


@given(st.text())
def test_printable_lines_are_lines(line: str) -> None:
    shown = printable(line)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\nb\n", ["a", "b"]),
        (b"1\n2\n3\n4\n", ["2", "3", "4"]),
        (b"\xff\xfe\x00\n", ["\ufffd\ufffd\ufffd"]),
        (b"a\r\nb\r\n", ["a", "b"]),
    ],
)
def test_tail(tmp_path: pathlib.Path, content: bytes, lines: list[str]) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    assert tail(str(path), 3) == lines


def test_tail_of_what_is_large(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(100_000)))
    assert tail(str(path), 1000) == [f"line {number}" for number in range(99_000, 100_000)]
    assert tail(str(path), 1000, limit=25) == ["line 99998", "line 99999"]
    path.write_bytes(b"x" * (10 << 20))
    assert len(tail(str(path), 1000)[0]) == 512 << 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (34.24, "34.2 s"), (59.9, "1 min 0 s"), (125, "2 min 5 s"), (28800, "8 h 0 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
