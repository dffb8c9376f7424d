# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The root of the collection's exceptions.

Each subject derives its own exceptions from PortbuildError, so that one guard at the edge (a module's
C(main), an action's C(run)) turns every foreseen failure into a message a person can act on.
"""

from __future__ import annotations

import typing as t


class PortbuildError(Exception):
    """A foreseen failure.

    The message names the thing, the value and what was expected; the remedy says what to do about it.
    Details go along into the result of the step, so that programs need not parse the message.
    """

    def __init__(self, message: str, *, remedy: str = "", details: dict[str, t.Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.details = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message
