# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What AWX makes of a survey: which answers it accepts, and which extra variables a job gets of them.

A double of AWX's own rules, in our words. An answer to a question that is not required may be missing; a text may be
empty, and is handed on so; a default that the question itself would not accept is dropped without a word.
"""

from __future__ import annotations

import collections.abc as c
import re
import typing as t

Question = c.Mapping[str, t.Any]

#: The lines by which AWX knows a playbook of a project.
PLAYBOOK_LINE = re.compile(r"\s*?-?\s*?(?:hosts|include|import_playbook):\s*?.*?$")
TYPES = ("text", "textarea", "password", "integer", "float", "multiplechoice", "multiselect")
TEXTS = ("text", "textarea", "password")


def is_listed(text: str) -> bool:
    """Say whether AWX offers the file as a playbook."""
    return any(PLAYBOOK_LINE.match(line) for line in text.splitlines())


def spec_problems(spec: c.Mapping[str, t.Any]) -> list[str]:
    """Say what AWX refuses a survey for."""
    problems = [f"{name} is missing" for name in ("name", "description", "spec") if name not in spec]
    variables = [question.get("variable") for question in spec.get("spec", [])]
    if len(set(variables)) != len(variables):
        problems.append("a variable is asked for twice")
    for question in spec.get("spec", []):
        name = str(question.get("variable"))
        missing = {"question_name", "type", "variable", "required"} - set(question)
        problems += [f"{name}: {key} is missing" for key in sorted(missing)]
        if question.get("type") not in TYPES:
            problems.append(f"{name}: unknown type {question.get('type')}")
        if " " in name:
            problems.append(f"{name}: a blank in a variable")
        if "choices" in question and not all(isinstance(choice, str) for choice in question["choices"]):
            problems.append(f"{name}: a choice is no string")
        if question.get("type") == "multiplechoice" and "choices" not in question:
            problems.append(f"{name}: no choices")
        if not missing and "default" in question and not accepts(question, question["default"]):
            problems.append(f"{name}: the default is no answer")
    return problems


def accepts(question: Question, answer: t.Any) -> bool:
    """Say whether AWX takes the answer to the question."""
    least, most = question.get("min"), question.get("max")
    if question["type"] in TEXTS:
        size = len(answer) if isinstance(answer, str) else None
    elif question["type"] == "integer":
        size = answer if isinstance(answer, int) and not isinstance(answer, bool) else None
    else:
        return answer in question["choices"]
    return size is not None and (least is None or size >= least) and (most is None or size <= most)


def extra_variables(spec: c.Mapping[str, t.Any], answers: c.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the extra variables of a job that is launched with these answers; fail where AWX would."""
    questions: list[Question] = list(spec.get("spec", []))
    found: dict[str, t.Any] = {}
    for question in questions:
        variable = question["variable"]
        if "default" in question and accepts(question, question["default"]):
            found[variable] = question["default"]
        if variable in answers:
            assert accepts(question, answers[variable]), f"AWX refuses {variable}={answers[variable]!r}"
        else:
            assert not question["required"] or variable in found, f"AWX misses {variable}"
    strangers = set(answers) - {question["variable"] for question in questions}
    assert not strangers, f"AWX does not allow {strangers}"
    return {**found, **answers}
