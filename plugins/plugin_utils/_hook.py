# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The administrator's own programs and tasks, which get each event as JSON.

Nothing that a hook does, or fails to do, is the failure of a build. A hook gets each event once, but for crashes: an
executable whose dispatch dies before the hook has ended is run again with the same event, which has the same C(id); a
task file whose dispatch dies is not.
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


class Hooks:
    """The hooks of a branch, and a directory of markers of what they have been told."""

    def __init__(self, command: str, tasks: str, directory: str, *, limit: float) -> None:
        self._command = command
        self.tasks = tasks
        self._directory = directory
        self._limit = limit
        self.problems: list[str] = []

    def tell(self, event: c.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
        """Run the executable; return what the task file is to get. Neither gets what was told before."""
        if not self._command and not self.tasks:
            return []
        facts = facts_of(event)
        marker = os.path.join(self._directory, facts["id"])
        if os.path.exists(marker):
            return []
        problem = run_hook(self._command, facts, limit=self._limit) if self._command else ""
        if problem:
            self.problems.append(f"The hook {self._command} was told of {facts['event']}: {problem}")
        os.makedirs(self._directory, exist_ok=True)
        with open(marker, "wb"):
            pass
        if self.tasks and not os.path.isfile(self.tasks):
            self.problems.append(f"The task file {self.tasks} was not told of {facts['event']}: it is not there.")
            return []
        return [facts] if self.tasks else []

    def forget_old(self) -> None:
        """Remove markers that nobody will ask for any more."""
        forget_old(self._directory, time.time())


def run_hook(command: str, facts: c.Mapping[str, t.Any], *, limit: float) -> str:
    """Run the executable with the event; return what went wrong, empty if nothing did."""
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
            return f"it cannot be run: {error.strerror}."
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
