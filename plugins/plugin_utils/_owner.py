# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Who owns a lease: the ansible-playbook that claimed it, and whether it still lives.

A pid means something only within one boot and one PID namespace: two containers on a host share the boot id, and a
signal 0 to the other's process says that it does not exist. Where a pid cannot be judged, time decides.
"""

from __future__ import annotations

import collections.abc as c
import os
import sys
import typing as t
from dataclasses import asdict, dataclass, fields

from ..module_utils._process import boot_id, process_start_time

Verdict = t.Literal["alive", "dead"]

_LINUX = sys.platform.startswith("linux")


@dataclass(frozen=True)
class Owner:
    """A process, told apart from every other one there ever was.

    An empty C(pid_namespace) or C(start) means that it could not be found out: then only time judges this owner.
    """

    boot_id: str
    pid_namespace: str
    pid: int
    start: str
    host: str

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Return the owner that the process of this PID namespace is."""
        return cls(boot_id(), _pid_namespace(), pid, _start(pid), os.uname().nodename)

    @classmethod
    def from_dict(cls, value: t.Any) -> Owner | None:
        """Return the owner that to_dict() described, None when it is none."""
        if not isinstance(value, c.Mapping):
            return None
        parts = {field.name: value.get(field.name) for field in fields(cls)}
        pid = parts.pop("pid")
        if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 1 << 31:
            return None
        if not all(isinstance(part, str) for part in parts.values()):
            return None
        return cls(pid=pid, **t.cast("dict[str, str]", parts))

    def to_dict(self) -> dict[str, t.Any]:
        """Return the owner as JSON has it."""
        return asdict(self)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def judge(self, renewed: float, now: float, ttl: float) -> Verdict:
        """Return whether the owner lives, given when it renewed its lease last."""
        if self.host == os.uname().nodename:
            if self.boot_id != boot_id():
                return "dead"  # it ran before this host was booted
            if self.pid_namespace and self.pid_namespace == _pid_namespace():
                verdict = self._judge_by_pid()
                if verdict is not None:
                    return verdict
        return judge_by_time(renewed, now, ttl)

    def _judge_by_pid(self) -> Verdict | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return "dead"
        except PermissionError:
            hidden = True  # it exists and is another user's: /proc may hide it (hidepid), which proves nothing
        else:
            hidden = False
        if not self.start or not _proc_is_ours():
            return None
        start = process_start_time(self.pid)
        if start is None:
            return None if hidden else "dead"  # a zombie, or gone since the signal
        return "alive" if start == self.start else "dead"  # the pid was given to somebody else


def judge_by_time(renewed: float, now: float, ttl: float) -> Verdict:
    """Return whether an owner nothing else is known of lives. A renewal in the far future was a wrong clock."""
    return "alive" if abs(now - renewed) <= ttl else "dead"


def _pid_namespace() -> str:
    if not _LINUX:
        return "host"  # a jail has a host name of its own
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _proc_is_ours() -> bool:
    """Return whether /proc shows this PID namespace: after unshare --pid without --mount-proc it shows the outer one."""
    try:
        return not _LINUX or os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _start(pid: int) -> str:
    return (process_start_time(pid) or "") if _proc_is_ours() else ""
