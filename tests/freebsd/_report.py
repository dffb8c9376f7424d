# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person sees of the acceptance: a line for each check, and a total."""

from __future__ import annotations

import dataclasses
import time
import typing as t


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


class Failed(Exception):
    """A check that did not come out as it should; the message says in one line what was seen."""


@dataclasses.dataclass
class Report:
    """Carries out checks and counts them."""

    say: t.Callable[[str], None] = say
    clock: t.Callable[[], float] = time.monotonic
    passed: list[str] = dataclasses.field(default_factory=list)
    failed: list[str] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def check(self, name: str, work: t.Callable[[], str | None], *, needs: t.Collection[str] = ()) -> bool:
        """Do the work and print how it came out; what it returns is said along. Without what it needs it is skipped."""
        lacking = [need for need in needs if need not in self.passed]
        if lacking:
            self.skipped.append(name)
            self.say(f"skipped  {name:<44}          needs: {', '.join(lacking)}")
            return False
        began = self.clock()
        try:
            more, kind, names = work() or "", "ok", self.passed
        except Exception as error:
            more, kind, names = " ".join(str(error).split())[:2000] or type(error).__name__, "FAILED", self.failed
        seconds = self.clock() - began
        self.seconds += seconds
        names.append(name)
        self.say(f"{kind:<7}  {name:<44} {seconds:7.1f} s  {more}".rstrip())
        return kind == "ok"

    def total(self) -> int:
        """Print the total; return the exit status."""
        count = len(self.passed) + len(self.failed) + len(self.skipped)
        self.say(
            f"{count} checks: {len(self.passed)} ok, {len(self.failed)} failed, {len(self.skipped)} skipped; "
            f"{self.seconds:.0f} s"
        )
        return 1 if self.failed or self.skipped or not count else 0
