# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How often the class of a failure is told rightly, on the logs in tests/classify, and what it costs, on a large log.

    python tests/bench/classify.py [-v]

Run it where C(ansible_collections.portbuild.cluster) can be imported. The cost is compared, in the same run, with that
of trying every rule on every line. Exit status 1 when a budget is exceeded.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._class_rules import load_rules
from ansible_collections.portbuild.cluster.plugins.plugin_utils._classify import Classification, classify
from ansible_collections.portbuild.cluster.tests.classify.provoke import Case, cases

MEGABYTE = 1_000_000
LARGE, SMALL, NAIVE = 100 * MEGABYTE, 10 * MEGABYTE, 2 * MEGABYTE
RIGHT = 0.9  # of the logs that are held out
SECONDS = 0.3  # a megabyte
GROWTH = 4  # megabytes of memory that the large log may need more than the small one
ERROR = "src/main.c:12:3: error: 'nowhere' undeclared (first use in this function)"


class Judged(t.NamedTuple):
    """A log, and what it was taken for."""

    case: Case
    found: Classification

    @property
    def right(self) -> bool:
        """Whether that is what it is."""
        return self.case.label == self.found.failure_class


def judge(case: Case) -> Judged:
    """Classify a log of the corpus."""
    found = classify(str(case.log), system=case.system, reason=case.reason, phase=case.phase, detail=case.detail)
    return Judged(case, found)


# -- how often it is right ---------------------------------------------------------------------------------------------


def percentage(part: int, whole: int) -> str:
    """Return it as people read it."""
    return f"{100 * part / whole:6.1f}" if whole else "     -"


def tell_half(title: str, judged: list[Judged]) -> float:
    """Print precision and recall of each class; return which part is right."""
    labels = collections.Counter(one.case.label for one in judged)
    found = collections.Counter(one.found.failure_class for one in judged)
    right = collections.Counter(one.case.label for one in judged if one.right)
    share = sum(right.values()) / len(judged)
    print(f"\n{title}: {sum(right.values())} of {len(judged)} logs are right, {100 * share:.1f} %.\n")
    print(f"{'class':26}{'logs':>6}{'found':>7}{'precision %':>13}{'recall %':>10}")
    for name in sorted({*labels, *found}):
        precision, recall = percentage(right[name], found[name]), percentage(right[name], labels[name])
        print(f"{name:26}{labels[name]:>6}{found[name]:>7}{precision:>13}{recall:>10}")
    return share


def tell_corpus(*, verbose: bool) -> float:
    """Print how often each half of the corpus is right; return it for the one that is held out."""
    judged = [judge(case) for case in cases()]
    tell_half("Logs that rules were written with", [one for one in judged if not one.case.held_out])
    share = tell_half("Logs that were held out", [one for one in judged if one.case.held_out])
    print()
    for one in judged:
        if not one.right or verbose:
            word = "right" if one.right else "WRONG"
            print(f"{word} {one.case.name}: {one.case.label}, found {one.found.failure_class}: {one.found.line:.100}")
    return share


# -- what it costs -----------------------------------------------------------------------------------------------------


def write_log(path: str, size: int, seed: int = 1) -> None:
    """Write a log such as a large package's: nothing but harmless lines, with names that look like errors, to an end."""
    chance = random.Random(seed)
    kinds = (
        "gcc -DHAVE_CONFIG_H -I. -Wdate-time -g -O2 -Wformat -Werror=format-security -c -o object{0}.o ../src/error_{0}.c",
        "libtool: compile:  gcc -DPACKAGE -I. -O2 -c ../lib/failed{0}.c -fPIC -DPIC -o .libs/failed{0}.o",
        "checking for function_{0}... no",
        "../src/file{0}.c:{0}:12: warning: unused variable 'failed_{0}' [-Wunused-variable]",
        "[ 42%] Building CXX object CMakeFiles/errors.dir/src/test_failed_{0}.cpp.o",
        "PASS: tests/check_error_{0}",
        "copying build/lib/package/module_{0}.py -> build/bdist/wheel/package",
    )
    written = 0
    with open(path, "w", encoding="utf-8") as stream:
        while written < size:
            line = chance.choices(kinds, (8, 4, 2, 2, 3, 1, 2))[0].format(chance.randrange(10000)) + "\n"
            written += stream.write(line)
        stream.write(f"{ERROR}\nmake: *** [Makefile:3: main.o] Error 1\n")


def timed(path: str) -> tuple[float, float]:
    """Classify in a process of its own; return its seconds of processor time, and its largest size in megabytes."""
    done = subprocess.run(
        [sys.executable, __file__, "--only", path], stdout=subprocess.PIPE, check=True, text=True, env=os.environ
    )
    seconds, size = done.stdout.split()
    return float(seconds), float(size)


def only(path: str) -> int:
    """Classify one log, print what it took."""
    import resource

    load_rules()
    begin = time.process_time()
    found = classify(path, system="debian", reason="failed", phase="build", budget=1e9)
    seconds = time.process_time() - begin
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE)
    return 0 if found.line == ERROR else 1


def naive(path: str) -> float:
    """Try every rule on every line; return the seconds of processor time."""
    rules = load_rules().of("debian", "build")
    begin = time.process_time()
    with open(path, "rb") as stream:
        for line in stream:
            for rule in rules:
                rule.pattern.matches(line)
    return time.process_time() - begin


def tell_cost() -> tuple[float, float]:
    """Print what large logs cost; return seconds a megabyte, and how much more memory ten times as much needs."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(pathlib.Path(directory, "log"))
        write_log(path, NAIVE)
        every = naive(path) / (NAIVE / MEGABYTE)
        costs = []
        for size in (SMALL, LARGE):
            write_log(path, size)
            seconds, memory = timed(path)
            costs.append((seconds / (size / MEGABYTE), memory))
            print(f"{size // MEGABYTE:>5} MB: {costs[-1][0] * 1e3:7.1f} ms a MB, {memory:6.1f} MB of memory at most.")
    print(f"Every rule on every line: {every * 1e3:7.1f} ms a MB, {every / costs[-1][0]:.0f} times as much.")
    return costs[-1][0], costs[-1][1] - costs[0][1]


def main() -> int:
    """Measure both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="show the line that was found in each log")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        return only(options.only)
    share = tell_corpus(verbose=options.verbose)
    seconds, growth = tell_cost()
    within = share >= RIGHT and seconds < SECONDS and growth < GROWTH
    if not within:
        print(
            f"Out of the budget of {100 * RIGHT:g} % right, {SECONDS * 1e3:g} ms a MB and {GROWTH} MB more for ten times as "
            "much.",
            file=sys.stderr,
        )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
