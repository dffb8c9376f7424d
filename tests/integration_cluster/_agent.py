# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs inside a client for a test that wants to meet a build at a certain moment. Run by _moments.py.

Every command says on its output what it has seen, line by line, and ends, undoing what it did, when its input ends.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import select
import signal
import sys
import typing as t


def say(*words: object) -> None:
    """Write a line."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def input_ended(patience: float) -> bool:
    """Say whether nobody wants this any more, having waited so long for it."""
    readable, _writable, _errors = select.select([0], [], [], patience)
    return bool(readable) and not os.read(0, 1)


def open_in(pid: str) -> t.Iterator[str]:
    """Yield the /proc paths of the files that a process has open."""
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            yield f"/proc/{pid}/fd/{name}"
    except OSError:
        return


def users_of(wanted: t.Callable[[str], bool]) -> t.Iterator[int]:
    """Yield the processes, but this one, that have such a file open."""
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) != os.getpid():
            for path in open_in(pid):
                try:
                    if wanted(path):
                        yield int(pid)
                        break
                except OSError:
                    continue


def gate(path: str) -> None:
    """Hold a lock, and say which process wants it too."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    held = os.fstat(descriptor)
    say("held")
    told: set[int] = set()
    while not input_ended(0.02):
        for pid in users_of(lambda path: os.path.samestat(os.stat(path), held)):
            if pid not in told:
                told.add(pid)
                say("wanted", pid)


def stall(pattern: str) -> None:
    """Stop the first process that has a file of such a name open."""
    directory = os.path.dirname(pattern)
    say("ready")
    stopped = 0
    while not input_ended(0.5 if stopped else 0.002):
        if not stopped and glob.glob(pattern):
            for pid in users_of(lambda path: os.path.dirname(os.readlink(path)) == directory):
                os.kill(pid, signal.SIGSTOP)
                stopped = pid
                say("stopped", pid)
                break
    if stopped:
        os.kill(stopped, signal.SIGCONT)


def census(chroots: str) -> None:
    """Say of every supervisor that there ever is whose it is: one is there for much longer than between two looks."""
    seen: set[tuple[t.Any, ...]] = set()
    say("ready")
    while not input_ended(0.05):
        for path in glob.glob(f"{chroots}/*/*/*/status.json"):
            try:
                with open(path, encoding="utf-8") as stream:
                    status = json.load(stream)
            except (OSError, ValueError):
                continue
            who = (path.split("/")[-2], status.get("pid"), status.get("pid_start"), status.get("token"))
            if who[1] and who not in seen:
                seen.add(who)
                say(*who)


if __name__ == "__main__":
    {"gate": gate, "stall": stall, "census": census}[sys.argv[1]](sys.argv[2])
