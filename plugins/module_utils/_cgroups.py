# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Linux: limits of memory and processes by control groups, of either version, found out by trying.

Where there are none, as on other systems, nothing here does any harm.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
import typing as t

from ._limits import MemoryControl

_PARENT = "portbuild"
_PAGE = 4096


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def _write(path: str, value: str) -> None:
    # No O_CREAT: a control file that does not exist is an error, not a new file.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _counter(path: str, name: str) -> int:
    """Return one number of a file made of C(name number) lines, 0 if it is not there."""
    with contextlib.suppress(OSError, ValueError):
        for line in _read(path).splitlines():
            key, _separator, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


class _Groups(MemoryControl):
    """Control groups in these directories."""

    def __init__(self, directories: t.Sequence[str]) -> None:
        self.directories = list(directories)

    def enter(self) -> None:
        for directory in self.directories:
            _write(os.path.join(directory, "cgroup.procs"), "0")

    def remove(self) -> None:
        remove_groups(self.directories)


class _Version2(_Groups):
    kind = "cgroup2"

    def __init__(self, directory: str, memory: int, processes: int) -> None:
        super().__init__([directory])
        self._directory = directory
        self._processes = processes
        if memory:
            _write(self._file("memory.max"), str(memory))
            with contextlib.suppress(OSError):  # no swap accounting
                _write(self._file("memory.swap.max"), "0")
        if processes:
            _write(self._file("pids.max"), str(processes))

    def _file(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def killed(self) -> str:
        events = self._file("memory.events")
        if not _counter(events, "oom_kill"):
            return ""
        return "job" if _counter(events, "oom") else "machine"

    def resident(self) -> int:
        stat = self._file("memory.stat")
        return _counter(stat, "anon") + _counter(stat, "shmem")

    def refused_processes(self) -> bool:
        return self._processes > 0 and _counter(self._file("pids.events"), "max") > 0

    def limits_processes(self) -> bool:
        return self._processes > 0


class _Version1(_Groups):
    kind = "cgroup1"

    def __init__(self, memory_directory: str, pids_directory: str, memory: int, processes: int) -> None:
        super().__init__([directory for directory in (memory_directory, pids_directory) if directory])
        self._memory = memory_directory
        self._pids = pids_directory
        self._limit = memory
        self._processes = processes
        if memory:
            _write(os.path.join(memory_directory, "memory.limit_in_bytes"), str(memory))
            with contextlib.suppress(OSError):  # no swap accounting
                _write(os.path.join(memory_directory, "memory.memsw.limit_in_bytes"), str(memory))
        if processes and pids_directory:
            _write(os.path.join(pids_directory, "pids.max"), str(processes))

    def killed(self) -> str:
        if not _counter(os.path.join(self._memory, "memory.oom_control"), "oom_kill"):
            return ""
        # The counter of refused charges stays at 0 on some kernels, but a job that was refused memory had reached
        # its limit, to within what the kernel charges at once.
        reached = self._number("memory.max_usage_in_bytes") >= self._limit - (1 << 20)
        return "job" if self._limit and reached else "machine"

    def _number(self, name: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(_read(os.path.join(self._memory, name)))
        return 0

    def resident(self) -> int:
        stat = os.path.join(self._memory, "memory.stat")
        return _counter(stat, "total_rss") + _counter(stat, "total_shmem")

    def refused_processes(self) -> bool:
        return self.limits_processes() and _counter(os.path.join(self._pids, "pids.events"), "max") > 0

    def limits_processes(self) -> bool:
        return bool(self._pids) and self._processes > 0


def _make(parent: str, name: str) -> str:
    """Make the job's group below our parent group; what an earlier job of this name left is removed."""
    directory = os.path.join(parent, _PARENT, name)
    remove_groups([directory])
    for _attempt in range(5):
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(directory))
        try:
            os.mkdir(directory)
            return directory
        except FileNotFoundError:  # somebody else's last job removed the parent just now
            continue
    raise OSError(errno.EAGAIN, f"cannot make {directory}")


def _enable(directory: str, controllers: t.Iterable[str]) -> None:
    """Hand these controllers of a version 2 group down to the groups below it."""
    path = os.path.join(directory, "cgroup.subtree_control")
    missing = set(controllers) - set(_read(path).split())
    if missing:
        _write(path, " ".join(f"+{name}" for name in sorted(missing)))


def _version2(root: str, name: str, memory: int, processes: int) -> MemoryControl:
    controllers = {"memory", "pids"}
    available = set(_read(os.path.join(root, "cgroup.controllers")).split())
    if not controllers <= available:
        raise OSError(errno.ENOSYS, f"{root} does not offer the controllers memory and pids")
    _enable(root, controllers)
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.join(root, _PARENT))
    _enable(os.path.join(root, _PARENT), controllers)
    return _Version2(_make(root, name), memory, processes)


def _version1(root: str, name: str, memory: int, processes: int) -> MemoryControl:
    memory_root, pids_root = os.path.join(root, "memory"), os.path.join(root, "pids")
    if not os.path.exists(os.path.join(memory_root, "memory.limit_in_bytes")):
        raise OSError(errno.ENOSYS, f"{memory_root} is not a memory controller")
    directories = [_make(memory_root, name)]
    pids_directory = ""
    if os.path.exists(os.path.join(pids_root, "cgroup.procs")):
        with contextlib.suppress(OSError):
            pids_directory = _make(pids_root, name)
            directories.append(pids_directory)
    try:
        return _Version1(directories[0], pids_directory, memory, processes)
    except OSError:
        remove_groups(directories)
        raise


def memory_control(
    name: str, *, memory: int = 0, processes: int = 0, wanted: str = "auto", root: str = "/sys/fs/cgroup"
) -> MemoryControl:
    """Make the best control there is, found by trying: cgroup version 2, version 1, none."""
    if wanted != "off":
        for make in (_version2, _version1):
            try:
                return make(root, name, memory, processes)
            except OSError:
                continue
    return MemoryControl()


def control_kind(root: str = "/sys/fs/cgroup") -> str:
    """Return the kind of control that a job would get here: C(cgroup2), C(cgroup1) or C(none). For machine_info."""
    control = memory_control(f"probe-{os.getpid()}", root=root)
    control.remove()
    return control.kind


def group_name(chroot: str) -> str:
    """Name a job's control groups after its directory itself.

    So they keep the name when it is moved, and scratch directories may have the same path in different mount namespaces.
    """
    status = os.stat(chroot)
    return f"job-{status.st_dev:x}-{status.st_ino:x}"


def remove_job_groups(chroot: str, *, root: str = "/sys/fs/cgroup") -> bool:
    """Remove what control groups of the job there may be; whether one was made need not be known."""
    name = group_name(chroot)
    return remove_groups(os.path.join(root, part, _PARENT, name) for part in ("", "memory", "pids"))


def remove_groups(directories: t.Iterable[str], *, timeout: float = 5.0) -> bool:
    """Remove control groups, waiting a little for what is dying in them; return whether they are gone."""
    gone = True
    deadline = time.monotonic() + timeout
    for directory in directories:
        if os.path.basename(os.path.dirname(directory)) != _PARENT:
            continue  # never anything that this module did not make
        while True:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno == errno.EBUSY and time.monotonic() < deadline:
                    _kill_members(directory)
                    time.sleep(0.01)
                    continue
                gone = False
            break
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(directory))  # the last one turns off the light
    return gone


def _kill_members(directory: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        for pid in _read(os.path.join(directory, "cgroup.procs")).split():
            if int(pid) > 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def resident_in_namespace(namespace: str) -> int:
    """Linux: add up the memory of the processes in a PID namespace; what they share is counted once per process."""
    total = 0
    if not namespace:
        return total
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            if os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                fields = _read(f"/proc/{entry}/statm").split()
                total += (int(fields[1]) - int(fields[2])) * _PAGE
    return total
