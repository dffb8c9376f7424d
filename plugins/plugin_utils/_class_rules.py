# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The classes of failures and the rules that find them in a log: C(_classes/classes.yml), read and checked once.

A rule's pattern is pieces with C(.*) between them, and matches a line in which they follow each other. A piece is a
regular expression in a language so small that it cannot take long: characters, classes, groups of alternatives, C(?)
and C({m,n}) with small bounds, nothing that repeats without end. How many ways there are to match it at one place is
counted when the file is read, and too many are refused. So a line costs at most its length times a constant, whatever
is in it.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import functools
import os
import re
import typing as t

from ..module_utils._errors import PortbuildError

try:
    import yaml
except ImportError:  # pragma: no cover
    HAS_YAML = False  # Ansible itself needs it
else:
    HAS_YAML = True

OTHER = "other"
RULES = os.path.join(os.path.dirname(__file__), "_classes", "classes.yml")

_NAME = re.compile(r"[a-z][a-z_]{1,39}")
_REPEAT = re.compile(r"\{([0-9]{1,3})(?:,([0-9]{1,3}))?\}")
_SPECIAL = frozenset("\\^$.|?*+()[]{}")
_ESCAPED = _SPECIAL | frozenset("t\"'/-")
_MAX_WAYS = 2000  # to match one piece at one place
_MAX_WIDTH = 400  # characters of one piece
_MIN_LITERAL = 4  # shorter ones are in too many lines


class BadRules(PortbuildError):
    """The file of classes is not what it should be."""


# -- patterns ----------------------------------------------------------------------------------------------------------


class _Part(t.NamedTuple):
    """What is known of a part of a piece: ways to match it, greatest width, and the text that it begins with or is."""

    ways: int = 1
    width: int = 0
    text: str | None = ""  # None: not always the same


class _PieceReader:
    """Reads one piece of a pattern, refusing what is not in the language."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.literals: list[str] = []

    def read(self) -> _Part:
        self._skip("^")
        part = self._sequence(top=True)
        self._skip("$")
        if self._at < len(self._text):
            raise BadRules(f"{self._text[self._at :]!r:.40} cannot stand there.")
        return part

    def _skip(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        if found:
            self._at += len(text)
        return found

    def _sequence(self, *, top: bool = False) -> _Part:
        ways, width, run = 1, 0, ""
        while self._at < len(self._text) and self._text[self._at] not in "|)$":
            part = self._item()
            ways, width = ways * part.ways, width + part.width
            if part.text is None:
                self._end_run(run, top=top)
                run = ""
            else:
                run += part.text
        self._end_run(run, top=top)
        return _Part(ways, width)

    def _end_run(self, run: str, *, top: bool) -> None:
        if top and run:
            self.literals.append(run)

    def _item(self) -> _Part:
        part = self._atom()
        if self._skip("?"):
            return _Part(part.ways + 1, part.width, None)
        repeat = _REPEAT.match(self._text, self._at)
        if repeat is None:
            return part
        self._at = repeat.end()
        low, high = int(repeat[1]), int(repeat[2] or repeat[1])
        if part.width != 1 or part.ways != 1 or low > high:
            raise BadRules(f"{repeat[0]} may only follow one character or class, with the smaller number first.")
        return _Part(high - low + 1, high, None)

    def _atom(self) -> _Part:
        if self._skip("(?:"):
            return self._group()
        if self._skip("["):
            return self._class()
        if self._skip("."):
            return _Part(1, 1, None)
        character = self._text[self._at]
        if character == "\\":
            character = self._text[self._at + 1 : self._at + 2]
            if character not in _ESCAPED or not character:
                raise BadRules(f"\\{character} is not known.")
            self._at += 2
            return _Part(1, 1, "\t" if character == "t" else character)
        if character in _SPECIAL:
            raise BadRules(f"{character!r} cannot stand there: nothing repeats without a bound, and .* stands alone.")
        self._at += 1
        return _Part(1, 1, character)

    def _group(self) -> _Part:
        ways, width = 0, 0
        while True:
            part = self._sequence()
            ways, width = ways + part.ways, max(width, part.width)
            if self._skip(")"):
                return _Part(ways, width, None)
            if not self._skip("|"):
                raise BadRules("A group is not closed.")

    def _class(self) -> _Part:
        end = self._text.find("]", self._at + (2 if self._text.startswith("^", self._at) else 1))
        if end < 0 or "[" in self._text[self._at : end]:
            raise BadRules("A class is not closed.")
        self._at = end + 1
        return _Part(1, 1, None)


class Pattern:
    """A pattern for lines of bytes, in time that is bounded by the length of the line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.literals: list[str] = []
        self._pieces: list[re.Pattern[bytes]] = []
        if not text.isascii():
            raise BadRules(f"The pattern {text!r:.80} is not ASCII: logs are looked at as bytes.")
        for piece in text.split(".*"):
            reader = _PieceReader(piece)
            try:
                part = reader.read()
            except BadRules as error:
                raise BadRules(f"The pattern {text!r:.200}: {error}") from None
            if part.ways > _MAX_WAYS or part.width > _MAX_WIDTH:
                raise BadRules(
                    f"The pattern {text!r:.200}: there are {part.ways} ways to match {piece!r:.80}, which is up to"
                    f" {part.width} characters wide; {_MAX_WAYS} ways and {_MAX_WIDTH} characters are allowed."
                )
            self.literals += reader.literals
            self._pieces.append(re.compile(piece.encode()))

    def matches(self, line: bytes) -> bool:
        """Return whether the pieces follow each other in the line."""
        at = 0
        for piece in self._pieces:
            found = piece.search(line, at)
            if found is None:
                return False
            at = found.end()
        return True


# -- rules -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Lines that stand for a class of failures, or for the beginning of a stage of a build.

    Only lines that contain one of the C(literals), and none of C(unless), are compared with the pattern.
    """

    name: str
    pattern: Pattern
    literals: tuple[bytes, ...]
    unless: tuple[bytes, ...] = ()
    priority: int = 50
    symptom: bool = False
    systems: frozenset[str] = frozenset()
    phases: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    stage: bool = False

    def matches(self, line: bytes) -> bool:
        """Return whether the line is one of these."""
        return not any(text in line for text in self.unless) and self.pattern.matches(line)

    def applies(self, system: str, phase: str) -> bool:
        """Return whether the rule holds for this package system and phase; for one that is not known all hold."""
        return (not self.systems or system in self.systems or not system) and (
            not self.phases or phase in self.phases or not phase
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FailureClass:
    """A class as people read of it."""

    name: str
    meaning: str
    example: str = ""
    former: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What the file says."""

    classes: dict[str, FailureClass]
    reasons: dict[str, str]
    """By the supervisor's reason."""
    details: dict[str, str]
    """By what the supervisor's words begin with."""
    phases: dict[str, str]
    """By the phase that failed, where no line tells more."""
    rules: tuple[Rule, ...]
    anchors: tuple[bytes, ...] = ()
    """What many of the literals have in common: one search of a block for all of these."""

    @functools.lru_cache(maxsize=16)  # noqa: B019  there is one of these
    def of(self, system: str, phase: str) -> tuple[Rule, ...]:
        """Return the rules that apply, the most telling first."""
        return tuple(rule for rule in self.rules if rule.applies(system, phase))

    def __hash__(self) -> int:
        return id(self)


@functools.cache
def load_rules(path: str = RULES) -> Rules:
    """Return what the file says; raises BadRules, naming the rule that is wrong."""
    if not HAS_YAML:
        raise BadRules(
            "The classes of failures need the Python library PyYAML.", remedy="Install it on the controller."
        )
    try:
        with open(path, encoding="utf-8") as stream:
            data = yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  both are safe
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadRules(f"{path} cannot be read: {error}") from error
    return parse_rules(data)


def parse_rules(data: t.Any) -> Rules:
    """Return the checked rules."""
    top = _fields(data, "The file", required=("anchors", "classes", "reasons", "details", "phases", "stages"))
    classes: dict[str, FailureClass] = {}
    rules: list[Rule] = []
    for name, value in _mapping(top["classes"], "classes").items():
        known = _fields(value, name, required=("meaning",), optional=("example", "former", "rules"))
        if not _NAME.fullmatch(str(name)):
            raise BadRules(f"{name!r} is no name of a class.")
        classes[name] = FailureClass(
            name=name,
            meaning=_text(known["meaning"], name),
            example=_text(known.get("example", ""), name),
            former=_names(known, "former", name),
        )
        rules += [_rule(name, rule) for rule in known.get("rules") or ()]
    for name, stages in _mapping(top["stages"], "stages").items():
        rules += [_rule(name, rule, stage=True) for rule in stages]
    if OTHER not in classes:
        raise BadRules(f"There must be a class {OTHER}.")
    tables = {
        key: {str(k): str(v) for k, v in _mapping(top[key], key).items()} for key in ("reasons", "details", "phases")
    }
    unknown = {name for table in tables.values() for name in table.values()} - set(classes)
    if unknown:
        raise BadRules(f"These are no classes: {', '.join(sorted(unknown))}.")
    anchors = tuple(text.encode() for text in _names(top, "anchors", "The file"))
    # Sorting is stable: among equals the order of the file decides. Stages come before everything.
    ordered = tuple(sorted(rules, key=lambda rule: (not rule.stage, -rule.priority)))
    return Rules(classes=classes, rules=ordered, anchors=anchors, **tables)


def _rule(name: str, data: t.Any, *, stage: bool = False) -> Rule:
    optional = ("why", "contains", "unless", "priority", "symptom", "systems", "phases", "stages")
    fields = _fields(data, f"A rule of {name}", required=("pattern",), optional=optional)
    pattern = Pattern(_text(fields["pattern"], name))
    contains = _names(fields, "contains", name) or tuple(sorted(pattern.literals, key=len)[-1:])
    if not contains or min(map(len, contains)) < _MIN_LITERAL:
        raise BadRules(
            f"The rule {pattern.text!r:.200} of {name} has no text of {_MIN_LITERAL} characters that each of its lines"
            " contains: say with contains which texts they contain."
        )
    priority = fields.get("priority", 50)
    if not isinstance(priority, int) or not 0 <= priority <= 100:
        raise BadRules(f"The priority {priority!r} of {pattern.text!r:.200} is no number from 0 to 100.")
    return Rule(
        name=name,
        pattern=pattern,
        literals=tuple(text.encode() for text in contains),
        unless=tuple(text.encode() for text in _names(fields, "unless", name)),
        priority=priority,
        symptom=bool(fields.get("symptom", name == OTHER)),
        systems=frozenset(_names(fields, "systems", name)),
        phases=frozenset(_names(fields, "phases", name)),
        stages=frozenset(_names(fields, "stages", name)),
        stage=stage,
    )


def _mapping(value: t.Any, where: str) -> dict[str, t.Any]:
    if not isinstance(value, dict):
        raise BadRules(f"{where} is {value!r:.80}, a mapping is expected.")
    return value


def _fields(value: t.Any, where: str, *, required: c.Sequence[str], optional: c.Sequence[str] = ()) -> dict[str, t.Any]:
    fields = _mapping(value, where)
    missing = [name for name in required if name not in fields]
    unknown = [str(name) for name in fields if name not in (*required, *optional)]
    if missing or unknown:
        raise BadRules(f"{where}: {', '.join(missing + unknown)} {'is missing' if missing else 'is not known'}.")
    return fields


def _text(value: t.Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadRules(f"{where}: {value!r:.80} is no text.")
    return value


def _names(fields: c.Mapping[str, t.Any], key: str, where: str) -> tuple[str, ...]:
    value = fields.get(key, ())
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)):
        raise BadRules(f"{where}: {key} is {value!r:.80}, a list is expected.")
    return tuple(_text(text, where) for text in texts)
