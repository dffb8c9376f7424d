# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Packages that somebody has put on hold: they are not tried until somebody releases them, whatever else says so.

They stand in one file of the branch, by package: C({"hello": {"reason": "...", "by": "...", "since": SECONDS}}).
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import BadFile, read_json, write_json
from ..module_utils._lock import Lock
from ..module_utils._names import BadName, check_package
from ._layout import Layout
from ._text import number_of, one_line

LOCK_TIMEOUT = 30.0
_REASON = 1000  # characters that count


class BadHolds(PortbuildError):
    """A file of holds that cannot be read: it must not be written over."""


class Held(t.NamedTuple):
    """Why a package is held, who said so, and since when."""

    reason: str
    by: str
    since: float

    def sentence(self, package: str) -> str:
        """Return what is to be said of the package."""
        when = f" since {time.strftime('%Y-%m-%d %H:%M', time.gmtime(self.since))} UTC" if self.since else ""
        why = f": {self.reason.rstrip('.')}" if self.reason else ""
        return f"{package} is held" + (f" by {self.by}" if self.by else "") + when + why + "."


def read_holds(layout: Layout, problems: list[str] | None = None) -> dict[str, Held]:
    """Return the packages that are held.

    A file that cannot be read holds nobody up: what is wrong with it is added to the C(problems).
    """
    try:
        value = _read(layout)
    except BadHolds as error:
        if problems is not None:
            problems.append(str(error))
        return {}
    return _parse(value, layout.holds, [] if problems is None else problems)


def hold(layout: Layout, package: str, reason: str, by: str, *, now: float, dry_run: bool = False) -> bool:
    """Hold the package and return whether that changed anything: a further reason does, and leaves the time alone."""
    check_package(package)
    held = Held(one_line(reason, _REASON), one_line(by, 100), now)
    with _changing(layout, dry_run) as holds:
        before = _held(holds[package]) if package in holds else None
        if before is not None and before.reason == held.reason:
            return False
        holds[package] = held._replace(since=before.since if before and before.since else now)._asdict()
        return True


def unhold(layout: Layout, package: str, *, dry_run: bool = False) -> bool:
    """Release the package and return whether it was held."""
    check_package(package)
    with _changing(layout, dry_run) as holds:
        return holds.pop(package, None) is not None


@contextlib.contextmanager
def _changing(layout: Layout, dry_run: bool) -> t.Iterator[dict[str, t.Any]]:
    """Yield what stands in the file, and write it back if it was changed. Entries that mean nothing stay in it."""
    with contextlib.nullcontext() if dry_run else Lock(layout.holds_lock, timeout=LOCK_TIMEOUT):
        holds = _read(layout)
        before = dict(holds)
        yield holds
        if holds != before and not dry_run:
            write_json(layout.holds, holds)


def _read(layout: Layout) -> dict[str, t.Any]:
    try:
        return read_json(layout.holds)
    except FileNotFoundError:
        return {}
    except (OSError, BadFile) as error:
        raise BadHolds(
            f"The list of held packages cannot be read: {error}",
            remedy="Correct or remove it: until then no package is held.",
        ) from None


def _parse(value: dict[str, t.Any], path: str, problems: list[str]) -> dict[str, Held]:
    """Return the entries whose names are names of packages. What is malformed in one holds the package all the same."""
    holds = {}
    for package, entry in value.items():
        try:
            holds[check_package(package)] = _held(entry)
        except BadName as error:
            problems.append(f"{path}: {error}")
    return holds


def _held(entry: t.Any) -> Held:
    """Return the entry; a person may have written only the reason, or nothing at all."""
    if not isinstance(entry, dict):
        return Held(one_line(entry, _REASON), "", 0.0)
    return Held(one_line(entry.get("reason"), _REASON), one_line(entry.get("by"), 100), number_of(entry.get("since")))
