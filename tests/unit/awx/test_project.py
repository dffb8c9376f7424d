# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The project for AWX: its files are made, its surveys ask what the roles take, and its answers mean what they say."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import (
    PREFIX,
    resolve,
    SettingError,
    SETTINGS,
)
from ansible_collections.portbuild.cluster.tests.awx_surveys import (
    extra_variables,
    is_listed,
    spec_problems,
    TEXTS,
)
from ansible_collections.portbuild.cluster.tests.awx_templates import files, plain, TEMPLATES

COLLECTION = pathlib.Path(__file__).resolve().parents[3]
PROJECT = COLLECTION / "awx"
DATA = yaml.safe_load((PROJECT / "templates.yml").read_text(encoding="utf-8"))
SURVEYS = {entry["playbook"]: entry["survey_spec"] for entry in DATA["controller_templates"]}
ROLES = {f"{template.playbook}.yml": template.role for template in TEMPLATES}
QUESTIONS = [(playbook, question) for playbook, spec in SURVEYS.items() for question in spec.get("spec", [])]
IDS = [f"{playbook}-{question['variable']}" for playbook, question in QUESTIONS]


def options(playbook: str) -> dict[str, dict[str, t.Any]]:
    """Return what the role of the playbook says that it takes."""
    path = COLLECTION / "roles" / ROLES[playbook] / "meta" / "argument_specs.yml"
    found: dict[str, dict[str, t.Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"][
        "options"
    ]
    return found


def word(value: t.Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- the files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text"), sorted(files().items()), ids=sorted(files()))
def test_what_is_made_is_up_to_date(name: str, text: str) -> None:
    assert (PROJECT / name).read_text(encoding="utf-8") == text, "Run python tests/awx_templates.py."


def test_every_playbook_has_its_twin_and_its_template() -> None:
    ours = {path.name for path in (COLLECTION / "playbooks").glob("*.yml")}
    assert {path.name for path in PROJECT.glob("*.yml")} == {*ours, "apply.yml", "farm.yml", "templates.yml"}
    assert set(SURVEYS) == ours
    names = [entry["name"] for entry in DATA["controller_templates"]]
    assert len(set(names)) == len(names)
    assert {entry["unified_job_template"] for entry in DATA["controller_schedules"]} <= set(names)


def test_awx_lists_the_playbooks_and_nothing_else() -> None:
    listed = {path.name for path in PROJECT.rglob("*.yml") if is_listed(path.read_text(encoding="utf-8"))}
    assert listed == {*SURVEYS, "apply.yml"}


def test_what_checks_the_machines_runs_every_two_minutes_and_never_asks() -> None:
    (found,) = [entry for entry in DATA["controller_schedules"] if "FREQ=MINUTELY;INTERVAL=2" in entry["rrule"]]
    template = next(entry for entry in DATA["controller_templates"] if entry["name"] == found["unified_job_template"])
    assert template["playbook"] == "checkmachines.yml"
    for entry in DATA["controller_schedules"]:
        (playbook,) = [
            other["playbook"]
            for other in DATA["controller_templates"]
            if other["name"] == entry["unified_job_template"]
        ]
        extra_variables(SURVEYS[playbook], {})  # a schedule answers nothing


# -- what is asked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("playbook", SURVEYS)
def test_awx_takes_the_survey(playbook: str) -> None:
    assert not SURVEYS[playbook] or spec_problems(SURVEYS[playbook]) == []


@pytest.mark.parametrize(("playbook", "question"), QUESTIONS, ids=IDS)
def test_a_question_is_the_roles_option(playbook: str, question: dict[str, t.Any]) -> None:
    option = options(playbook)[question["variable"]]
    assert question["question_description"].startswith(" ".join(map(plain, option["description"])))
    if option.get("required"):
        assert question["required"]
    types = {"bool": "multiplechoice", "int": "integer", "list": "textarea", "str": "text"}
    assert question["type"] == ("multiplechoice" if option.get("choices") else types[option["type"]])
    choices = ["true", "false"] if option["type"] == "bool" else option.get("choices")
    assert question.get("choices") == choices
    if "default" in question:
        assert word(question["default"]) == word(option["default"])
    elif "default" in option:  # portbuild.conf may say otherwise, and an extra variable would hide that
        assert question["required"] or SETTINGS[question["variable"]].conf_names
        assert question["required"] or question["question_description"].endswith(f"else {word(option['default'])}.")


@pytest.mark.parametrize(("playbook", "question"), QUESTIONS, ids=IDS)
def test_its_limits_are_those_of_the_setting(playbook: str, question: dict[str, t.Any]) -> None:
    variable = question["variable"]
    if question["type"] in TEXTS:
        assert (question["min"] > 0) == question["required"]
    if question["type"] == "integer":
        for good in (question["min"], question["max"]):
            resolve({variable: good}, None)
        for bad in (question["min"] - 1, question["max"] + 1):
            with pytest.raises(SettingError):
                resolve({variable: bad}, None)


# -- what is answered --------------------------------------------------------------------------------------------------

GOOD = {
    "portbuild_package": "hello=2.10-3",
    "portbuild_machine": "a1",
    "portbuild_machines": "build_machines:!a1",
    "portbuild_bindist_machine": "a1",
    "portbuild_targets": "hello\nlibx games-all\n\n@/srv/list\n",
    "portbuild_reason": "new disks: 4",
}
WHERE = {"portbuild_root": "/srv/portbuild", "portbuild_arch": "amd64", "portbuild_branch": "bookworm"}


def settings_of(playbook: str, answers: dict[str, t.Any]) -> t.Any:
    """Return the settings that a job has which is launched so, after the role has looked at its arguments."""
    variables = {**WHERE, **extra_variables(SURVEYS[playbook], answers)}
    if ROLES[playbook] == "control":
        variables["portbuild_command"] = playbook.partition(".")[0]
    checked = ArgumentSpecValidator(options(playbook)).validate(dict(variables))
    assert checked.error_messages == []
    return resolve(variables, None)


def required(playbook: str) -> dict[str, t.Any]:
    questions = SURVEYS[playbook].get("spec", [])
    return {question["variable"]: GOOD[question["variable"]] for question in questions if question["required"]}


@pytest.mark.parametrize("playbook", SURVEYS)
@pytest.mark.parametrize("empty", [False, True], ids=["missing", "empty"])
def test_what_is_not_answered_is_not_set(playbook: str, empty: bool) -> None:
    answers = required(playbook)
    plainly = settings_of(playbook, answers)
    open_texts = [
        question["variable"]
        for question in SURVEYS[playbook].get("spec", [])
        if question["type"] in TEXTS and not question["required"]
    ]
    found = settings_of(playbook, {**answers, **dict.fromkeys(open_texts, "")}) if empty else plainly
    assert found == plainly
    for variable in open_texts:
        assert getattr(found, variable.removeprefix(PREFIX)) == SETTINGS[variable].default


@pytest.mark.parametrize(("playbook", "question"), QUESTIONS, ids=IDS)
def test_what_is_answered_counts(playbook: str, question: dict[str, t.Any]) -> None:
    variable = question["variable"]
    answers = question.get("choices") or [question["min"] if question["type"] == "integer" else GOOD[variable]]
    for answer in answers:
        found = settings_of(playbook, {**required(playbook), variable: answer})
        value = getattr(found, variable.removeprefix(PREFIX))
        if variable == "portbuild_targets":
            assert value == ("hello", "libx", "games-all", "@/srv/list")
        else:
            assert word(value) == word(answer)
