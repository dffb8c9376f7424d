# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The action's side of a bulk build: starts its process, listens to it, and sees that nothing of it is left."""

from __future__ import annotations

import collections.abc as c
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import typing as t

from ..module_utils._errors import PortbuildError

_MODULE = f"{__package__}._bulk_child"
_GRACE = 30.0  # seconds for the process to end its dispatches and itself
_LAST_GRACE = 10.0  # for dispatches whose parent was killed, after each signal
_LONGEST = 16 << 20  # of a line that is believed to be one


class BulkDied(PortbuildError):
    """The process of the bulk build has died."""


class BulkProcess:
    """The process of a bulk build. It has a session of its own, so that a signal to the group reaches all of it."""

    def __init__(self, wish: c.Mapping[str, t.Any]) -> None:
        line = _line(wish)
        # Below the directory that Ansible has found the collection in; there is no package around it.
        top = os.path.abspath(__file__)
        for _level in _MODULE.split("."):
            top = os.path.dirname(top)
        code = f"import sys, runpy; sys.path.insert(0, {top!r}); runpy.run_module({_MODULE!r}, run_name='__main__')"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._rest = b""
        self._write(line)

    def tell(self, message: c.Mapping[str, t.Any]) -> None:
        """Tell the process something."""
        self._write(_line(message))

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # that it is gone is seen where it is listened to
            stdin = t.cast("t.IO[bytes]", self._process.stdin)
            stdin.write(line)
            stdin.flush()

    def messages(self, seconds: float) -> list[dict[str, t.Any]] | None:
        """Return what the process has said, waiting at most so long for it; None when it will say nothing any more."""
        stdout = t.cast("t.IO[bytes]", self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return []
        data = os.read(stdout.fileno(), 1 << 16)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            raise BulkDied("The process of the bulk build says something endless.")
        return [json.loads(line) for line in lines]

    def end(self) -> int:
        """End the process and all its dispatches, if they have not ended; return its exit status."""
        with contextlib.suppress(BrokenPipeError):
            t.cast("t.IO[bytes]", self._process.stdin).close()
        try:
            status = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        for number in (signal.SIGTERM, signal.SIGKILL):  # dispatches whose parent was killed
            self._signal_all(number)
        self._process.wait()
        return status

    def _signal_all(self, number: int) -> None:
        """Send the signal to the whole group, and wait until none of it is left, or for some time."""
        end = time.monotonic() + _LAST_GRACE
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
            while time.monotonic() < end:
                self._process.poll()
                os.killpg(self._process.pid, 0)
                time.sleep(0.1)


def _line(message: c.Mapping[str, t.Any]) -> bytes:
    """Return the message as the process reads it. What JSON does not know, such as a decrypted text, goes as text."""
    return json.dumps(message, default=str).encode() + b"\n"
