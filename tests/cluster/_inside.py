# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the test bed asks from within a client: fed to the client's Python on standard input, answers in JSON."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pwd
import signal
import sys
import typing as t

SSHD_NAMES = {"sshd", "sshd-session", "sshd-auth"}


def process_directories() -> t.Iterator[pathlib.Path]:
    """Yield the /proc directory of each process but process 1, this one and the one that let it in."""
    ours = {"1", str(os.getpid())}
    for entry in sorted(pathlib.Path("/proc").iterdir(), key=lambda entry: (len(entry.name), entry.name)):
        if entry.name.isdigit() and entry.name not in ours:
            yield entry


def stat(entry: pathlib.Path) -> tuple[str, str, int]:
    """Return the name, the state and the parent of a process."""
    before, after = (entry / "stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)
    fields = after.split()
    return before.split("(", 1)[1], fields[0], int(fields[1])


def user_name(uid: int) -> str:
    """Return the name of the user, or the number of one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def processes() -> list[t.Any]:
    """Return pid, parent, user, state and command line of each process that is not a zombie."""
    found: list[t.Any] = []
    for entry in process_directories():
        with contextlib.suppress(OSError):
            name, state, parent = stat(entry)
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            if state not in "ZX":
                found.append((int(entry.name), parent, user_name(entry.stat().st_uid), state, argv or [name]))
    return found


def mounts() -> list[t.Any]:
    """Return namespace, mount point, type and source of what is mounted in each mount namespace."""
    found: list[t.Any] = []
    seen: set[str] = set()
    for entry in [pathlib.Path("/proc/self"), *process_directories()]:
        with contextlib.suppress(OSError):
            namespace = os.readlink(entry / "ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            for line in (entry / "mountinfo").read_text(encoding="utf-8").splitlines():
                before, after = line.split(" - ", 1)
                kind, source = after.split(" ")[:2]
                found.append((namespace, before.split(" ")[4], kind, source))
    return found


def send(number: int, names: t.Container[str] | None = None) -> int:
    """Send the signal to all processes, or to those of these names; return to how many."""
    sent = 0
    for entry in process_directories():
        with contextlib.suppress(OSError):
            name, state, _parent = stat(entry)
            if state != "Z" and (names is None or name in names) and not (number == signal.SIGSTOP and state == "T"):
                os.kill(int(entry.name), number)
                sent += 1
    return sent


def repeat(number: int, names: t.Container[str] | None = None) -> int:
    """Send the signal until nobody is left to be sent it: a process may fork while the list is read."""
    total = 0
    for _attempt in range(100):
        sent = send(number, names)
        total += sent
        if not sent:
            break
    return total


COMMANDS: dict[str, t.Callable[[], t.Any]] = {
    "processes": processes,
    "mounts": mounts,
    "kill_sshd": lambda: repeat(signal.SIGKILL, SSHD_NAMES),
    "freeze": lambda: repeat(signal.SIGSTOP),
    "thaw": lambda: send(signal.SIGCONT),
}

json.dump(COMMANDS[sys.argv[1]](), sys.stdout)
