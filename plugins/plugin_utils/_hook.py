# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The administrator's own programs and tasks, which get each event as JSON.

Nothing that a hook does, or fails to do, is the failure of a build. A hook gets each event once, but for crashes: an
executable whose dispatch dies before the hook has ended is run again with the same event, which has the same C(id); a
task file whose dispatch dies is not. Who cannot be told at all has not been told: he is the next time.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import typing as t

from ..module_utils._errors import PortbuildError
from ._events import facts_of
from ._notify import forget_old
from ._text import one_line

_TAIL = 2000  # bytes of what a hook prints that a warning may show
_PARTING = 0.5  # seconds for the last of its output, which something that it started may hold open
# No more of ours: there may be secrets in the environment of an ansible-playbook.
_ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")


class BadHook(PortbuildError):
    """A hook that is not there, or cannot be run. It is the controller's trouble: a bulk build waits for a remedy."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy, details={"reason": "controller"})


def check_hooks(command: str, tasks: str) -> None:
    """Raise BadHook unless what is set is there: said before anything is claimed, not when something happens."""
    if command and not (os.path.isfile(command) and os.access(command, os.X_OK)):
        raise BadHook(
            f"portbuild_hook is {command}, which is no executable file.",
            remedy="It is a file on the controller that the user who runs this may execute.",
        )
    if tasks and not (os.path.isfile(tasks) and os.access(tasks, os.R_OK)):
        raise BadHook(
            f"portbuild_hook_tasks is {tasks}, which is no file that can be read.",
            remedy="It is a file of Ansible tasks on the controller.",
        )


def check_file(tasks: str) -> None:
    """Raise BadHook for a task file that is not there."""
    check_hooks("", tasks)


class Hooks:
    """The hooks of a branch, and a directory of markers of what they have been told.

    C(check_tasks) raises BadHook for a task file that cannot be included. C(untold) are the events that a hook could not
    be given.
    """

    def __init__(
        self,
        command: str,
        tasks: str,
        directory: str,
        *,
        limit: float,
        check_tasks: c.Callable[[str], None] = check_file,
    ) -> None:
        self._command = command
        self.tasks = tasks
        self._directory = directory
        self._limit = limit
        self._check_tasks = check_tasks
        self.problems: list[str] = []
        self.untold: list[str] = []

    def tell(self, event: c.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
        """Run the executable; return what the task file is to get. Neither gets what it was told before."""
        facts = facts_of(event)
        for_command = os.path.join(self._directory, facts["id"])
        for_tasks = f"{for_command}.tasks"
        if self._command and not os.path.exists(for_command):
            self._run(facts, for_command)
        if not self.tasks or os.path.exists(for_tasks):
            return []
        try:
            self._check_tasks(self.tasks)
        except BadHook as error:
            self._failed(facts, f"The task file {self.tasks} was not told of {facts['event']}: {error}")
            return []
        self._mark(for_tasks)
        return [facts]

    def _run(self, facts: dict[str, t.Any], marker: str) -> None:
        try:
            problem = run_hook(self._command, facts, limit=self._limit)
        except BadHook as error:
            self._failed(facts, f"The hook {self._command} was not told of {facts['event']}: {error}")
            return
        if problem:
            self.problems.append(f"The hook {self._command} was told of {facts['event']}: {problem}")
        self._mark(marker)

    def _failed(self, facts: dict[str, t.Any], problem: str) -> None:
        self.problems.append(problem)
        self.untold.append(facts["event"])

    def _mark(self, marker: str) -> None:
        os.makedirs(self._directory, exist_ok=True)
        with open(marker, "wb"):
            pass

    def forget_old(self) -> None:
        """Remove markers that nobody will ask for any more."""
        forget_old(self._directory, time.time())


def run_hook(command: str, facts: c.Mapping[str, t.Any], *, limit: float) -> str:
    """Run the executable with the event; return what went wrong, empty if nothing did. Raises BadHook if it never ran."""
    with tempfile.TemporaryFile() as event:  # no pipe: a hook need not read it
        event.write(json.dumps(facts, sort_keys=True).encode() + b"\n")
        event.seek(0)
        try:
            process = subprocess.Popen(
                [command, facts["event"]],
                stdin=event,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise BadHook(f"It cannot be run: {error.strerror}.") from error
    output = _Output(t.cast("t.IO[bytes]", process.stdout))
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"it did not end within {limit:.0f} s and was killed.{output.shown()}"
    return f"it ended with {status}.{output.shown()}" if status else ""


class _Output:
    """Reads all that a hook prints, and keeps the end of it."""

    def __init__(self, stream: t.IO[bytes]) -> None:
        self._stream = stream
        self._kept = b""
        self._thread = threading.Thread(target=self._read, name="hook", daemon=True)
        self._thread.start()

    def shown(self) -> str:
        """Return what to say of it."""
        self._thread.join(_PARTING)
        text = one_line(self._kept.decode("utf-8", "replace"), _TAIL)
        return f" It printed: {text}" if text else ""

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._stream:
            while data := os.read(self._stream.fileno(), 1 << 16):
                self._kept = (self._kept + data)[-_TAIL:]
