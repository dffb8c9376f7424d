# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which problems were told lately, and how often each has come again since: one small file for each package that has one.

A message goes to the spool before its cause is noted as told. So whoever dies in between has a message sent once more;
none is lost. What cannot be read was never told.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import time
import typing as t

from ..module_utils._files import BadFile, read_json, write_json
from ..module_utils._lock import Lock, LockTimeout
from ._events import cause_of, problem_of
from ._text import number_of

_LOCK_TIMEOUT = 5.0  # seconds; it is held for a few writes
_SUFFIX = ".json"


class Cause:
    """The cause of a problem: when it was told, and how often it has come again since. The lock is held."""

    def __init__(self, path: str, cause: str, now: float) -> None:
        self._path = path
        self._cause = cause
        self._now = now
        self._all = _read(path)
        self._known: dict[str, t.Any] = self._all.get(cause, {})

    @property
    def times(self) -> int:
        """How often it has come since it was told, without a message."""
        return int(number_of(self._known.get("times")))

    def counts(self, key: str, seconds: float) -> bool:
        """Count the event, once, if its cause was told less than so many seconds ago; else return False."""
        told = number_of(self._known.get("told"))
        if not told or not 0 <= self._now - told < seconds:
            return False
        if key != self._known.get("last"):  # else the step is repeated, as after a crash
            self._write({"told": told, "times": self.times + 1, "last": key})
        return True

    def told(self, key: str) -> None:
        """Note that it has been told just now."""
        self._write({"told": self._now, "times": 0, "last": key})

    def _write(self, known: dict[str, t.Any]) -> None:
        self._known = known
        write_json(self._path, {**self._all, self._cause: known}, mode=0o640)


class Repeats:
    """What was told lately, in a directory."""

    def __init__(self, directory: str, *, now: c.Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._now = now

    @contextlib.contextmanager
    def cause(self, event: c.Mapping[str, t.Any]) -> c.Iterator[Cause]:
        """Hold the cause of the problem against others who tell of one."""
        os.makedirs(self._directory, exist_ok=True)
        with contextlib.ExitStack() as held:
            with contextlib.suppress(LockTimeout):  # a message too many is better than none
                held.enter_context(Lock(os.path.join(self._directory, ".lock"), timeout=_LOCK_TIMEOUT))
            yield Cause(self._path(problem_of(event)), cause_of(event), self._now())

    def forget(self, name: str, event: c.Mapping[str, t.Any]) -> None:
        """Forget all causes of the problem of that name that the event's package had: it is mended."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(problem_of(event, name)))

    def forget_old(self, seconds: float) -> None:
        """Forget what has not come again for so long."""
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX) and self._now() - entry.stat().st_mtime > seconds:
                    os.unlink(entry.path)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name + _SUFFIX)


def _read(path: str) -> dict[str, t.Any]:
    try:
        found = read_json(path, limit=1 << 20)
    except (OSError, BadFile):
        return {}
    return {cause: known for cause, known in found.items() if isinstance(known, dict)}
