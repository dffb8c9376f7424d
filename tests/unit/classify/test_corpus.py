# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each log in tests/classify gives its label, and the documentation says what the rules say."""

from __future__ import annotations

import collections
import gzip
import pathlib
import re

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._class_rules import load_rules
from ansible_collections.portbuild.cluster.plugins.plugin_utils._classify import Classification, classify
from ansible_collections.portbuild.cluster.tests.classify.provoke import Case, cases, LOGS
from ansible_collections.portbuild.cluster.tests.failure_classes import BEGIN, DOCUMENT, END, table

CASES = cases()


def judge(case: Case, path: pathlib.Path) -> Classification:
    return classify(str(path), system=case.system, reason=case.reason, phase=case.phase, detail=case.detail)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_log_gives_its_label(case: Case) -> None:
    found = judge(case, case.log)
    assert found.failure_class == case.label, (found.line_number, found.line)
    lines = case.log.read_bytes().decode("utf-8").split("\n")
    if found.line_number:
        shown = re.sub(r"\x1b\[[0-9;]*[mK]", "", lines[found.line_number - 1]).replace("\t", "    ")
        assert found.line in shown
    else:
        assert case.label == "other"
    if not case.fails:
        assert found.further == ()


def test_the_corpus_is_what_it_says() -> None:
    assert {path.stem for path in LOGS.iterdir()} == {case.name for case in CASES}
    assert len([case for case in CASES if case.fails]) >= 80
    labels = collections.Counter(case.label for case in CASES)
    rules = load_rules()
    assert set(labels) <= set(rules.classes)
    half = sum(case.held_out for case in CASES)
    assert 0.4 < half / len(CASES) < 0.6
    private = re.compile(
        r"/root/|/home/[a-z]|/tmp/(?!x\b)|@(?!example\.org|v|Base|deb\.debian|FreeBSD\.org|gnu\.org)[a-z]+\.(?:com|net)\b"
    )
    for case in CASES:
        found = private.search(case.log.read_text("utf-8"))
        assert found is None, (case.name, found)


def test_a_compressed_log_gives_the_same(tmp_path: pathlib.Path) -> None:
    for case in CASES[::10]:
        path = tmp_path / "log.gz"
        path.write_bytes(gzip.compress(case.log.read_bytes()))
        assert judge(case, path) == judge(case, case.log)


def test_a_log_among_others_gives_its_label(tmp_path: pathlib.Path) -> None:
    """Whatever the steps before have said: a log begins with those of all other failures."""
    others = b"".join(case.log.read_bytes() for case in CASES[:40])
    for case in CASES[::5]:
        path = tmp_path / "log"
        path.write_bytes(others + case.log.read_bytes())
        assert judge(case, path).failure_class == case.label


def test_the_documentation_has_the_table() -> None:
    """Made by python tests/failure_classes.py."""
    text = DOCUMENT.read_text("utf-8")
    assert f"{BEGIN}\n{table()}\n{END}" in text
