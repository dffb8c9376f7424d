# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How a bulk build starts a dispatch and hears of its end. C(_runner.py) does so through ansible-runner."""

from __future__ import annotations

import abc
import typing as t


class Launch(t.NamedTuple):
    """A dispatch to start. C(asked) is the package, with the version if one is asked for.

    C(earlier) are the attempts that infrastructure has spoilt, as the role dispatch knows them. C(blocks) is how many
    packages cannot be built if this one fails, C(blocked) the names of some of them.
    """

    package: str
    asked: str
    machine: str
    make_share: int
    earlier: list[dict[str, t.Any]]
    blocks: int | None = None
    blocked: tuple[str, ...] = ()


class Ended(t.NamedTuple):
    """A dispatch that has ended: what it came to, in the words of the role; empty when it died before it could say.

    C(log) is where what it printed is kept, empty when all went well.
    """

    package: str
    outcome: dict[str, t.Any]
    log: str


class Launcher(abc.ABC):
    """Starts dispatches."""

    @abc.abstractmethod
    def start(self, launch: Launch) -> None:
        """Start the dispatch and return at once."""

    @abc.abstractmethod
    def ended(self, seconds: float) -> list[Ended]:
        """Return what has ended since the last call; wait at most so long if nothing has."""

    @abc.abstractmethod
    def close(self, grace: float) -> bool:
        """End what still runs, softly; say whether all of it has ended after so many seconds. Builds go on."""
