# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How others speak with a bulk build that runs: through its journal, which it looks into every other second."""

from __future__ import annotations

import time

from ..module_utils._errors import PortbuildError
from ._journal import Journal, NoBulk
from ._rebuild import describe

PATIENCE = 30.0  # seconds that a run may take to answer
_GLANCE = 0.2


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
