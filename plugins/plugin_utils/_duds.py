# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The file of duds: packages that must not be tried unless asked for."""

from __future__ import annotations

from ..module_utils._errors import PortbuildError
from ..module_utils._names import check_package


def read_duds(path: str) -> dict[str, str]:
    """Return the duds with the reason of each.

    A line is C(NAME) or C(NAME|REASON) (or blanks for the bar); C(#) begins a comment. A malformed line is passed over:
    one of them must not make every other dud a package to be built. No file means no duds.
    """
    duds: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                name, _bar, reason = line.partition("#")[0].strip().replace("|", " ", 1).partition(" ")
                try:
                    duds[check_package(name)] = reason.strip() or "listed in duds"
                except PortbuildError:
                    continue
    except FileNotFoundError:
        pass
    return duds
