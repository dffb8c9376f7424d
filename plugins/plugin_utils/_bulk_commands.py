# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How others speak with a bulk build that runs: through its journal, which it looks into every other second."""

from __future__ import annotations

import os
import time
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import BadFile, read_json
from ._journal import Journal, NoBulk
from ._layout import Layout
from ._rebuild import describe
from ._text import duration, number_of

PATIENCE = 30.0  # seconds that a run may take to answer
_GLANCE = 0.2
STATUS_SCHEMA = 1  # of the status.json that a bulk build writes: here, where nothing costly is imported


class NotDone(PortbuildError):
    """The bulk build does not do what it is asked."""


def ask(journal: Journal, command: str, package: str, who: str) -> str:
    """Return what the bulk build that runs answers; raises NotDone when it refuses, or does not answer."""
    number = journal.ask(command, package, who)
    end = time.monotonic() + PATIENCE
    while (answer := journal.answer_to(number)) is None:
        if time.monotonic() > end:
            raise NotDone(
                f"The bulk build has not answered for {PATIENCE:.0f} s.",
                remedy="It does so when it can; see what it does with the playbook portbuild.cluster.status.",
            )
        time.sleep(_GLANCE)
    if not answer.done:
        raise NotDone(answer.text)
    return answer.text


class Going(t.NamedTuple):
    """How a bulk build that runs is doing: in a sentence, and which packages wait, with the reason of each."""

    sentence: str
    waiting: list[dict[str, str]]


def going(journal: Journal, layout: Layout) -> Going | None:
    """Return how the bulk build does, as it wrote down last; None when none runs."""
    run = journal.last()
    if run is None or not run.lives(time.time()):
        return None
    try:
        status = read_json(os.path.join(layout.bulk, "status.json"))
    except (OSError, BadFile):
        status = {}
    if status.get("schema") != STATUS_SCHEMA:
        return Going(f"run {run.number} has not said yet how it does.", [])
    if number_of(status.get("began")) < run.begun - 1:  # an earlier run's
        return Going(f"run {run.number} begins.", [])
    counts = ", ".join(f"{count} {state}" for state, count in status["counts"].items() if count)
    left = duration(status["to_go"])
    return Going(f"run {run.number}: {counts}; about {left} to go.", list(status["waiting"]))


def why(journal: Journal, package: str, who: str) -> str:
    """Return why the package is where it is: of the bulk build that runs, else of the last one."""
    try:
        return ask(journal, "why", package, who)
    except NoBulk:
        last = journal.last()
    row = journal.rows(last).get(package) if last is not None else None
    if row is None:
        raise NotDone(
            f"The last bulk build of this branch knows nothing of {package}.",
            remedy="A bulk build in check mode says what it would do with it.",
        )
    because = f" It was to be built because {describe(row.why)}." if row.why else ""
    return f"In the last bulk build {package} was {row.state}. {row.reason}{because}".replace("  ", " ")
