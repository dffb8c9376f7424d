# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The test suite: the unit tests on all Pythons, the cluster's on the newest ansible-core and the oldest."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import time
import typing as t
from xml.etree import ElementTree

from . import host, pythons, venvs
from .project import CACHE, CHECKOUT, environment, link_collection, say, ToolError

NO_TESTS = 5
RESULTS = CACHE / "results"
UNIT = "tests/unit"
CLIENT_UNIT = "tests/unit/plugins/module_utils"
CLUSTER = "tests/integration_cluster"
#: Tests wait much: for processes, for clocks, for machines. Two workers, each with a cluster of its own, use two cores.
WORKERS = 2


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of pytest."""

    name: str
    python: pathlib.Path
    path: str
    expression: str
    #: Seconds that one test may take, its fixtures included.
    timeout: int
    as_root: bool = False


@dataclasses.dataclass
class Count:
    """What a run of pytest counted."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def usable_pythons() -> list[pythons.Python]:
    """Return the Pythons to test on, and say which are left out."""
    found = pythons.discover()
    for python in found:
        if not python.complete:
            say(f"Left out: {python.executable} lacks venv, sqlite3, ssl or ctypes (Debian: apt install python3-venv).")
    usable = [python for python in found if python.complete]
    if not any(python.core for python in usable):
        raise ToolError("No Python 3.11 to 3.14 with venv is here (Debian: apt install python3 python3-venv).")
    return usable


def newest() -> pythons.Python:
    """Return the newest Python that an ansible-core supports."""
    return usable_pythons()[-1]


def plan(found: t.Sequence[pythons.Python], *, long: bool) -> list[Run]:
    """Return the runs, the quick ones first.

    Each Python runs the quick unit tests: the oldest and the newest at once, those in between with what takes minutes,
    which itself is tried on the oldest and the newest.
    """
    speed = "slow" if long else "not slow"
    controllers = [python for python in found if python.core]
    last, first = controllers[-1], controllers[0]
    at_once = [python for python in found if python in (found[0], last)]
    later = [python for python in found if python not in at_once]
    runs = [_unit_tests(python, "not slow") for python in (later if long else at_once)]
    if long:
        runs += [_unit_tests(python, "slow") for python in (found[0], last)]
    newest_python = venvs.ensure(last)
    if os.geteuid() != 0:
        runs.append(Run("unit tests that need root", newest_python, UNIT, f"root and {speed}", 300, as_root=True))
    runs.append(Run(f"cluster, core {last.core}", newest_python, CLUSTER, speed, 1200))
    if first.core != last.core:
        runs.append(Run(f"cluster, core {first.core}", venvs.ensure(first), CLUSTER, f"core_matrix and {speed}", 1200))
    return runs


def _unit_tests(python: pythons.Python, speed: str) -> Run:
    kind = f"core {python.core}" if python.core else "what runs on clients"
    path = UNIT if python.core else CLIENT_UNIT
    return Run(f"unit tests, Python {python.name}, {kind}, {speed}", venvs.ensure(python), path, speed, 300)


def carry_out(run: Run, number: int) -> tuple[int, Count]:
    """Carry out a run; return pytest's exit status and what it counted."""
    report = RESULTS / f"{number}.xml"
    argv = [str(run.python), "-m", "pytest", run.path, "-m", run.expression]
    argv += ["--numprocesses", str(WORKERS), "--dist", "loadfile" if run.path == CLUSTER else "load"]
    argv += ["--timeout", str(run.timeout), "--durations=10", "--durations-min=2", f"--junitxml={report}"]
    variables = environment(run.python)
    if run.as_root:  # sudo drops the environment
        kept = [f"{name}={variables[name]}" for name in ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LC_ALL")]
        kept.append(f"HYPOTHESIS_STORAGE_DIRECTORY={CACHE}/hypothesis-root")
        argv = host.as_root(["env", *kept, *argv])
    say(f"\n>>> {run.name}: pytest {run.path} -m '{run.expression}'")
    if not (CHECKOUT / run.path).is_dir():
        say(f"There is no {run.path}.")
        return NO_TESTS, Count()
    status = subprocess.run(argv, cwd=CHECKOUT, env=variables, stdin=subprocess.DEVNULL, check=False).returncode
    return status, count(report)


def count(report: pathlib.Path) -> Count:
    """Read what pytest wrote for programs."""
    total = Count()
    if report.exists():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            numbers = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
            bad = numbers["failures"] + numbers["errors"]
            total.failed += bad
            total.skipped += numbers["skipped"]
            total.passed += max(0, numbers["tests"] - bad - numbers["skipped"])
    return total


def test(*, long: bool = False) -> int:
    """Run the suite, all of it even if a part fails; return an exit status."""
    host.require(host.FOR_CLUSTER)
    link_collection()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.glob("*.xml"):
        old.unlink()
    total = Count()
    summary = []
    failed = False
    for number, run in enumerate(plan(usable_pythons(), long=long), start=1):
        begun = time.monotonic()
        status, counted = carry_out(run, number)
        bad = status not in (0, NO_TESTS)
        failed = failed or bad
        total.passed += counted.passed
        total.failed += counted.failed or bad  # a run that died counts as one
        total.skipped += counted.skipped
        word = "FAILED" if bad else "no tests" if status == NO_TESTS else "ok"
        summary.append(f"{word:8} {time.monotonic() - begun:6.0f} s  {run.name}: {counted}")
    say("\n" + "\n".join(summary))
    if not total.passed and not failed:
        say("No test was run." if not long else "There are no long tests yet.")
    say(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if failed or not (total.passed or long) else 0
