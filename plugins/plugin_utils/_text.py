# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Text that strangers wrote, made fit to be shown: reasons, last lines and logs of other people's code."""

from __future__ import annotations

import math
import os
import re
import typing as t

# Everything that moves a cursor, ends a line or is no character: C0 and C1, line and paragraph separators, directions.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_TAIL = 512 << 10
_CELL = 100  # characters of a table's cell


def one_line(value: t.Any, limit: int) -> str:
    """Return the value as one printable line; what is no string is empty."""
    text = value[: 4 * limit] if isinstance(value, str) else ""
    return " ".join(_CONTROL.sub(" ", text).split())[:limit]


def printable(line: str) -> str:
    """Return the line of a log without colours, and with each other control character replaced by one that shows."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _ESCAPE.sub("", line.rstrip("\r")).replace("\t", "    "))


def tail(path: str, lines: int, *, limit: int = _TAIL) -> list[str]:
    """Return the last lines of the log, of at most C(limit) bytes, whatever is in it."""
    with open(path, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - limit))
        data = stream.read(limit)
    found = data.decode("utf-8", "replace").split("\n")
    if found and not found[-1]:
        found.pop()
    if size > limit and len(found) > 1:
        del found[0]  # begins somewhere within a line
    return [printable(line) for line in found[-lines:]]


def duration(seconds: float) -> str:
    """Return the time as a person reads it."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.1f} s"


def table(head: t.Sequence[str], rows: t.Iterable[t.Sequence[str]]) -> list[str]:
    """Return aligned lines; none for no rows. A column in which nothing stands is left out."""
    cells = [[cell if len(cell) <= _CELL else cell[: _CELL - 3] + "..." for cell in row] for row in rows]
    columns = [number for number in range(len(head)) if any(row[number] for row in cells)]
    lines = [[str(row[number]) for number in columns] for row in (list(head), *cells)] if cells else []
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def clock(seconds: float) -> str:
    """Return the time as hours, minutes and seconds, as a line of progress begins."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def number_of(value: t.Any) -> float:
    """Return the value if it is a number that can be right, else 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    return float(value) if abs(value) < 1e15 and math.isfinite(value) and value > 0 else 0.0
