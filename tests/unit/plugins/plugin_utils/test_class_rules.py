# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may stand in the file of classes, and that nothing in it can take long."""

from __future__ import annotations

import re
import time
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._class_rules import (
    BadRules,
    load_rules,
    parse_rules,
    Pattern,
)

GOOD: dict[str, t.Any] = {
    "anchors": [],
    "classes": {"other": {"meaning": "Unknown."}, "linker": {"meaning": "It does not link.", "rules": []}},
    "reasons": {"timeout": "other"},
    "details": {},
    "phases": {},
    "stages": {},
}


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        ("error: ", "x error: y", True),
        ("^error: ", "x error: y", False),
        ("^a.*b$", "a xx b", True),
        ("^a.*b$", "a xx b ", False),
        ("a.*b.*a", "ab", False),
        ("a.*b.*a", "a-b-a", True),
        ("x[0-9]{1,3}(?:y|zz)?:", "x12zz:", True),
        ("x[0-9]{1,3}(?:y|zz)?:", "x1234:", False),
        (r"\(a\)\t\.", "(a)\t.", True),
        ("[^ ]{3}", "ab c", False),
    ],
)
def test_patterns(pattern: str, line: str, expected: bool) -> None:
    assert Pattern(pattern).matches(line.encode()) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "a+",
        "a*",
        "(a)",
        "(?:a|b){1,3}",
        "(?:a.*b)",
        "(?:a",
        "a)",
        "[a",
        "[a[b]",
        "a{2,1}",
        "a{1,}",
        "a{1000}",
        r"\d",
        r"\1",
        "(?=a)",
        "a^b",
        "a$b",
        "é",
        ".{0,200}.{0,200}",
        "(?:a|b)(?:a|b)(?:a|b)(?:a|b)(?:a|b)(?:a|b)(?:a|b)(?:a|b)(?:a|b)(?:a|b)(?:a|b)",
        "a{400}b",
        "a??",
        "a{1,2}?",
    ],
)
def test_what_could_take_long_or_is_not_in_the_language_is_refused(pattern: str) -> None:
    with pytest.raises(BadRules):
        Pattern(pattern)


@given(st.text(alphabet="ab.*+?(|)[]{}0123,^$\\:-", max_size=20))
def test_a_pattern_is_refused_or_compiles(text: str) -> None:
    try:
        pattern = Pattern(text)
    except BadRules:
        return
    except re.error as error:  # pragma: no cover
        pytest.fail(f"{text!r} was let through: {error}")
    pattern.matches(b"ab" * 50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": {"linker": {"meaning": "x"}}}, "class other"),
        ({"reasons": {"timeout": "nothing"}}, "no classes: nothing"),
        ({"more": 1}, "more is not known"),
        ({"classes": {"other": {}}}, "meaning is missing"),
        ({"classes": {"other": {"meaning": "x"}, "Bad": {"meaning": "x"}}}, "no name of a class"),
        ({"classes": {"other": {"meaning": "x", "rules": [{"pattern": "a[bc]d"}]}}}, "say with contains"),
        ({"classes": {"other": {"meaning": "x", "rules": [{"pattern": "abcd", "prio": 3}]}}}, "prio is not known"),
        ({"classes": {"other": {"meaning": "x", "rules": [{"pattern": "abcd", "priority": 101}]}}}, "101"),
        ({"classes": {"other": {"meaning": "x", "rules": [{"pattern": "abcd", "systems": {}}]}}}, "a list is expected"),
        ({"stages": []}, "a mapping is expected"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(change: dict[str, t.Any], message: str) -> None:
    parse_rules(GOOD)
    with pytest.raises(BadRules, match=re.escape(message)):
        parse_rules({**GOOD, **change})


def test_our_file() -> None:
    rules = load_rules()
    assert {"timeout", "silence", "out_of_memory", "disk_full", "log_size"} <= set(rules.reasons)
    assert {rule.name for rule in rules.rules if not rule.stage} <= set(rules.classes)
    for known in rules.classes.values():
        # What no line stands for comes from the supervisor, or from more than one build.
        told = any(rule.name == known.name for rule in rules.rules)
        assert told or known.name in {*rules.reasons.values(), "resources"}, known.name
        assert bool(known.example) == told


def test_each_example_is_of_its_class() -> None:
    rules = load_rules()

    def told(line: bytes, stage: str) -> str:
        candidates = (rule for rule in rules.rules if any(text in line for text in rule.literals))
        return next(
            rule.name
            for rule in candidates
            if (not rule.stages or stage in rule.stages) and rule.matches(line) and not rule.stage
        )

    examples = {known.name: known.example.encode() for known in rules.classes.values() if known.example}
    found = {name: told(line, "qa" if name == "stage_qa" else "") for name, line in examples.items()}
    assert found == {name: name for name in examples}


def test_no_pattern_of_ours_takes_long_on_lines_made_for_it() -> None:
    """A line four times as long takes four times as long, not sixteen times: measured over all rules, with much room."""
    rules = load_rules().rules

    def cost(size: int) -> float:
        lines = [
            (literal * size)[:size] + filler * (size // len(filler))
            for rule in rules
            for literal in rule.literals
            for filler in (b" ", b"0", b":1:1", literal)
        ]
        begin = time.process_time()
        for rule, line in ((rule, line) for rule in rules[::7] for line in lines[::37]):
            rule.pattern.matches(line)
        return time.process_time() - begin

    cost(200)
    assert cost(4000) < 12 * cost(1000)
