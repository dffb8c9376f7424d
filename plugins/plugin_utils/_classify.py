# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Why a build failed, in a word, and the line of its log that says so.

What the supervisor has seen for itself (a limit, a full disk) is taken from its reason and never from the log, in which
a build can write what it likes. Only where a program of the build has failed is the log read, once, in blocks.

Which of the lines that match a rule counts? What was said before the step or stage that failed began does not: that one
succeeded. Errors that stand close together belong together, and of such a group the most telling line counts, of
several that tell the same the first: what follows an error is mostly its consequence. Of several groups the last one
counts: what was followed by a thousand lines of something else did not end the build. Symptoms (C(make: *** Error 2))
count only where nothing else is found.
"""

from __future__ import annotations

import collections
import collections.abc as c
import gzip
import itertools
import re
import time
import typing as t
import zlib

from ._class_rules import load_rules, OTHER, Pattern, Rule, Rules
from ._text import printable

BUDGET = 20.0  # seconds for the whole of a log; of one that takes longer only the end is looked at from then on

_BLOCK = 256 << 10
_LAST = 8 << 20  # bytes of the end that are looked at in any case
_LONGEST = 4096  # bytes of a line that are looked at
_SHOWN = 500  # characters of a line that are kept
_BEFORE, _AFTER = 3, 5  # lines around the one that counts
_GROUP = 200  # lines between errors that belong together
_FURTHER = 5

# The sequences of ECMA-48, all of bounded length and within a line.
_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]{0,40}[ -/]{0,4}[@-~]|\][^\x07\x1b\n]{0,2000}(?:\x07|\x1b\\)|[@-Z\\^_])")
_GZIP = b"\x1f\x8b"
# The supervisor's own lines, see its log.
_BANNER = Rule(
    name="phase",
    pattern=Pattern("^={20}<phase [0-9]{1,9}: "),
    literals=(b"====================<phase ",),
    stage=True,
)
_FRAME = re.compile(rb"=== |build of .{1,300} ended at |={20}<phase ")


class Classification(t.NamedTuple):
    """What became of a build: C(line) is the C(line_number)th of the log, 0 where no line tells anything."""

    failure_class: str = OTHER
    further: tuple[str, ...] = ()
    line_number: int = 0
    line: str = ""
    context: tuple[str, ...] = ()


def classify(
    path: str,
    *,
    system: str,
    reason: str,
    phase: str,
    detail: str = "",
    rules: Rules | None = None,
    budget: float = BUDGET,
    monotonic: c.Callable[[], float] = time.monotonic,
) -> Classification:
    """Return the class of a build that failed, for this reason in this phase, with its log.

    Whatever is in the log, and whether there is one, the reason and the phase still tell something.
    """
    known = rules or load_rules()
    by_reason = known.reasons.get(reason)
    by_detail = next((name for words, name in known.details.items() if detail.startswith(words)), None)
    if by_reason:
        # A build that was ended from outside has said nothing of it, but its last words may tell what it was at.
        search = _Search((), words=True)
    elif by_detail:
        search = _Search([rule for rule in known.of(system, phase) if rule.name == by_detail and not rule.stages])
    else:
        search = _Search((_BANNER, *known.of(system, phase)), known.anchors)
    end = monotonic() + budget
    try:
        with _opened(path) as stream:
            search.read(stream, lambda: monotonic() < end)
    except (OSError, EOFError, zlib.error):  # gone, or cut off in the middle: what was found counts
        pass
    found = search.result()
    if by_reason or by_detail:
        return found._replace(failure_class=by_reason or by_detail or OTHER, further=())
    if found.failure_class == OTHER and phase in known.phases:
        return found._replace(failure_class=known.phases[phase])
    return found


def _opened(path: str) -> t.IO[bytes]:
    with open(path, "rb") as stream:
        compressed = stream.read(len(_GZIP)) == _GZIP
    return t.cast("t.IO[bytes]", gzip.open(path, "rb")) if compressed else open(path, "rb")


def blocks(stream: t.IO[bytes]) -> c.Iterator[bytes]:
    """Yield the stream in blocks that end with the end of a line; of a longer line only the beginning."""
    rest, cut = b"", False
    while data := stream.read(_BLOCK):
        if cut:
            begin = data.find(b"\n")
            if begin < 0:
                continue
            data, cut = data[begin:], False
        data = rest + data
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if len(rest) > _LONGEST:
            rest, cut = rest[:_LONGEST], True
        if end:
            yield data[:end]
    if rest:
        yield rest


class _Match(t.NamedTuple):
    rule: Rule
    number: int
    line: str
    context: tuple[str, ...]


class _Search:
    """The search for the line that counts. With C(words) it is the last line that the build wrote."""

    def __init__(self, rules: c.Sequence[Rule], anchors: c.Sequence[bytes] = (), *, words: bool = False) -> None:
        self._words = words
        self._rules = rules
        # What is looked for, and of a line that has it, the texts of rules, and the ranks of these rules.
        self._wanted: dict[bytes, dict[bytes, list[int]]] = {}
        for rank, rule in enumerate(rules):
            for literal in rule.literals:
                anchor = next((anchor for anchor in anchors if anchor in literal), literal)
                self._wanted.setdefault(anchor, {}).setdefault(literal, []).append(rank)
        self._lines = 0  # before the block
        self._begin("")

    def _begin(self, stage: str) -> None:
        """Forget what was found: what it was found in has succeeded."""
        self._stage = stage
        self._best: _Match | None = None
        self._last = 0  # line of the last match that is no symptom
        self._classes: dict[str, int] = {}

    def result(self) -> Classification:
        if self._best is None:
            return Classification()
        name = self._best.rule.name
        others = sorted((other for other in self._classes if other not in (name, OTHER)), key=self._rank)
        return Classification(name, tuple(others[:_FURTHER]), *self._best[1:])

    def _rank(self, name: str) -> tuple[int, str]:
        return -self._classes[name], name

    # -- reading

    def read(self, stream: t.IO[bytes], in_time: c.Callable[[], bool]) -> None:
        """Look at the stream, and only at its end from when there is no time left."""
        before, block = b"", b""
        late: collections.deque[bytes] = collections.deque()
        for following in blocks(stream):
            if late:
                late.append(following)
                while sum(map(len, late)) > _LAST and len(late) > 1:
                    self._lines += late.popleft().count(b"\n")
                continue
            self._look(before, block, following)
            before, block = block, following
            if not in_time():
                late.append(block)
        for here, then in itertools.pairwise([*(late or [block]), b""]):
            self._look(before, here, then)
            before = here

    def _look(self, before: bytes, block: bytes, after: bytes) -> None:
        """Look at a block; the ones before and after it are for the context."""
        if b"\x1b" in block:
            block = _ESCAPE.sub(b"", block)
        counted, number = 0, self._lines + 1
        for start, ranks in sorted(self._candidates(block).items()):
            line = _line_at(block, start)
            rule = self._judge(line, ranks)
            if rule is None:
                continue
            number += block.count(b"\n", counted, start)
            counted = start
            if rule.stage:
                self._begin(rule.name or self._stage)
            elif self._counts(rule, number):
                self._best = _Match(rule, number, _shown(line), _around(before, block, after, start, len(line)))
        if self._words:
            self._take_last_words(before, block, after)
        self._lines += block.count(b"\n")

    def _candidates(self, block: bytes) -> dict[int, set[int]]:
        """Return where lines begin that contain a text of a rule, and the ranks of these rules."""
        found: dict[int, set[int]] = {}
        for anchor, literals in self._wanted.items():
            at = block.find(anchor)
            while at >= 0:
                start, end = _line_around(block, at)
                if start >= 0:
                    line = block[start:end]
                    for literal, ranks in literals.items():
                        if literal in line:
                            found.setdefault(start, set()).update(ranks)
                at = block.find(anchor, end)
        return found

    def _judge(self, line: bytes, ranks: c.Iterable[int]) -> Rule | None:
        for rank in sorted(ranks):
            rule = self._rules[rank]
            if (not rule.stages or self._stage in rule.stages) and rule.matches(line):
                return rule
        return None

    def _counts(self, rule: Rule, number: int) -> bool:
        """Note a match; return whether it tells more than what was found before."""
        self._classes[rule.name] = max(rule.priority, self._classes.get(rule.name, 0))
        best = self._best.rule if self._best is not None else None
        if rule.symptom:
            return best is None or (best.symptom and rule.priority > best.priority)
        new_group = number - self._last > _GROUP
        self._last = number
        return best is None or best.symptom or new_group or rule.priority > best.priority

    def _take_last_words(self, before: bytes, block: bytes, after: bytes) -> None:
        end = len(block)
        for _unused in range(_GROUP):
            start = block.rfind(b"\n", 0, end) + 1
            line = block[max(start, end - _LONGEST) : end].rstrip(b"\r").rpartition(b"\r")[2]
            if line.strip() and not _FRAME.match(line):
                number = self._lines + block.count(b"\n", 0, start) + 1
                self._best = _Match(_BANNER, number, _shown(line), _around(before, block, after, start, end - start))
                return
            end = start - 1
            if end < 0:
                return


# -- lines -------------------------------------------------------------------------------------------------------------


def _line_around(block: bytes, at: int) -> tuple[int, int]:
    """Return where the line around this place begins, and where to go on; -1 if it begins too far away.

    A carriage return ends a line too: what draws its progress writes each state of it over the one before.
    """
    low, high = max(0, at - _LONGEST), at + _LONGEST
    start = max(block.rfind(b"\n", low, at), block.rfind(b"\r", low, at)) + 1
    ends = [end for end in (block.find(b"\n", at, high), block.find(b"\r", at, high)) if end >= 0]
    return (-1 if low and not start else start), min(ends, default=min(high, len(block)))


def _line_at(block: bytes, start: int) -> bytes:
    line = block[start : start + _LONGEST]
    return line.partition(b"\n")[0].partition(b"\r")[0]


def _shown(line: bytes) -> str:
    return printable(line[:_LONGEST].decode("utf-8", "replace"))[:_SHOWN].rstrip()


def _around(before: bytes, block: bytes, after: bytes, start: int, length: int) -> tuple[str, ...]:
    """Return the line with those around it."""
    room = _LONGEST
    head = (
        before[-room:] + block[max(0, start - room) : start] if start < room else block[start - room : start]
    ).split(b"\n")
    tail = (block[start : start + length + room] + (after[:room] if start + room > len(block) else b"")).split(b"\n")
    lines = [*head[:-1][-_BEFORE:], *tail[: _AFTER + 1]]
    shown = (_ESCAPE.sub(b"", line).rstrip(b"\r").rpartition(b"\r")[2] for line in lines)
    return tuple(_trimmed(list(map(_shown, shown))))


def _trimmed(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines.pop()
    return lines
