# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor says."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._conf import load_directory
from ansible_collections.portbuild.cluster.plugins.plugin_utils._context import StepContext
from ansible_collections.portbuild.cluster.plugins.plugin_utils._doctor import (
    branch,
    conf_files,
    CONTROLLER,
    defaults,
    directories,
    Finding,
    finding,
    machine_facts,
    machines,
    numbers,
    Program,
    report,
    space,
    summary,
    variables,
    versions,
)
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import SettingError

GOOD = {
    "uid": 0,
    "problems": {},
    "system": "Linux 6.1 x86_64",
    "python": "3.11.2",
    "scratch": {"free": 1 << 34, "total": 1 << 36},
    "memory": {"available": 1 << 33, "total": 1 << 34},
    "backend": {"chosen": "overlay"},
    "memory_control": "cgroup2",
    "clock_offset": 0.0,
}


@pytest.fixture
def context(tmp_path: pathlib.Path) -> StepContext:
    context = StepContext(
        {
            "portbuild_root": str(tmp_path),
            "portbuild_arch": "amd64",
            "portbuild_branch": "14",
            "portbuild_system": "debian",
        }
    )
    for directory in context.layout.directories:
        os.makedirs(directory, exist_ok=True)
    return context


def levels(findings: list[Finding]) -> set[str]:
    return {found.level for found in findings}


def test_what_machines_share_is_one_line_and_problems_come_first() -> None:
    findings = [Finding("controller", "ok", "Fine.")]
    findings += [Finding(f"a{number}", "PROBLEM", "No bindist.", "Run setup.") for number in range(8)]
    findings += [Finding("a1", "note", "Drained.")] * 2
    assert report(findings) == [
        "PROBLEM  a0, a1, a2, a3, a4, a5 and 2 more: No bindist. Run setup.",
        "note     a1: Drained.",
        "ok       controller: Fine.",
    ]
    assert summary(findings) == "8 problems, 2 notes, 1 in order."
    assert summary([]) == "No problem, 0 notes, 0 in order."
    assert [finding(found.to_dict()) for found in findings] == findings


@pytest.mark.parametrize(
    ("version", "level"),
    [("2.19.0", "ok"), ("2.21.1rc1", "ok"), ("2.9.27", "PROBLEM"), ("", "PROBLEM"), ("unknown", "PROBLEM")],
)
def test_versions_are_compared_as_numbers(version: str, level: str) -> None:
    (found,) = versions([Program("ansible-core", version, "2.19")])
    assert found.level == level
    assert bool(found.remedy) == (level != "ok")


def test_what_is_optional_is_a_note() -> None:
    (found,) = versions([Program("ansible-runner", "", "2.4.0", needed=False)])
    assert found.level == "note"
    assert numbers("0.1.49") == (0, 1, 49)


def test_unknown_variables_are_named_with_the_nearest() -> None:
    (found,) = variables("a1", ["portbuild_maxjob", "portbuild_maxjobs", "ansible_user"])
    assert (found.subject, found.level) == ("a1", "PROBLEM")
    assert "portbuild_maxjob. Did you mean portbuild_maxjobs?" in found.text


def test_bad_lines_of_files_are_problems_and_strange_names_notes(context: StepContext) -> None:
    path = pathlib.Path(context.layout.conf)
    path.write_text("timeout=$(reboot)\nsilence_timout=1h\n", encoding="utf-8")
    pathlib.Path(context.layout.machine_conf("a1")).write_text("maxjobs=`x`\n", encoding="utf-8")
    config = load_directory(context.layout.root, "amd64")
    with pytest.raises(SettingError) as caught:
        StepContext(context.variables)
    assert defaults(caught.value) == {"portbuild_timeout": "8h"}
    found = list(conf_files(config, ["a1"]))
    assert [entry.level for entry in found] == ["PROBLEM", "PROBLEM", "note"]
    assert "silence_timeout" in found[2].text
    path.write_text("", encoding="utf-8")
    assert levels(list(conf_files(load_directory(context.layout.root, "amd64"), []))) == {"ok"}


def test_directories(context: StepContext) -> None:
    assert levels(list(directories(context.layout))) == {"ok"}
    os.rmdir(context.layout.spool)
    os.rmdir(context.layout.logs)
    pathlib.Path(context.layout.logs).touch()
    assert {found.text for found in directories(context.layout)} == {
        f"{context.layout.spool} does not exist.",
        f"{context.layout.logs} is not a directory.",
    }
    shutil.rmtree(context.layout.branch_directory)
    assert [found.text for found in directories(context.layout)] == [
        f"{context.layout.branch_directory} does not exist."
    ]


def test_space(context: StepContext) -> None:
    assert space(context.layout, 0).level == "ok"
    assert space(context.layout, 1 << 60).level == "PROBLEM"


def test_the_branch(context: StepContext) -> None:
    pathlib.Path(context.layout.holds).write_text('{"hello": "too new"}', encoding="utf-8")
    found = list(branch(context))
    assert next(x.text for x in found if x.level == "PROBLEM").startswith("The bindist of 14 cannot be used")
    assert [entry.text for entry in found if entry.level == "note"] == ["hello is held: too new."]
    pathlib.Path(context.layout.database).write_text("rubbish" * 1000, encoding="utf-8")
    assert sum(entry.level == "PROBLEM" for entry in branch(context)) == 2


def test_a_hook_that_is_not_there(context: StepContext) -> None:
    broken = StepContext({**context.variables, "portbuild_hook": "/nonexistent/hook"})
    (found,) = [found for found in branch(broken) if "portbuild_hook" in found.text]
    assert found.level == "PROBLEM"
    assert "the user who runs this may execute" in found.remedy


def test_machines_without_jobs(context: StepContext) -> None:
    context.queue.enter("a1", 2)
    context.queue.enter("a2", 2)
    context.queue.offline("a2", "new disks", "ada")
    context.queue.enter("a3", 2)
    pathlib.Path(context.layout.queue, "a3").write_text("many", encoding="utf-8")
    found = list(machines(context, ["a1", "a2", "a3", "a4"], lambda _machine: 2, forks=2))
    assert [(entry.subject, entry.level) for entry in found] == [
        ("a2", "note"),
        ("a3", "PROBLEM"),
        ("a4", "PROBLEM"),
        (CONTROLLER, "note"),
    ]
    assert "by ada: new disks" in found[0].text
    assert all(entry.remedy for entry in found)


def test_a_good_machine() -> None:
    found = list(machine_facts("a1", GOOD, max_clock_offset=60))
    assert levels(found) == {"ok"}
    assert {"Linux 6.1 x86_64, Python 3.11.2.", "Its clock is +0.0 s off the controller's."} <= {x.text for x in found}


def test_a_bad_machine() -> None:
    facts = {**GOOD, "uid": 1000, "problems": {"disk": ["Only 1 GiB."], "account": ["None."]}, "clock_offset": 7200.0}
    bad = [found for found in machine_facts("a1", facts, max_clock_offset=60) if found.level == "PROBLEM"]
    assert [found.text.split()[0] for found in bad] == ["Modules", "Only", "None.", "Its"]


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD]), _JSON))
def test_whatever_a_machine_says_makes_lines(facts) -> None:
    findings = list(machine_facts("a1", facts, max_clock_offset=60))
    assert findings
    assert all("\n" not in line for line in report(findings))
