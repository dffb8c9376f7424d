# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests and demonstrations may leave behind on the host, and must not."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import time

ACCOUNT_FILES = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers", "/etc/hosts")
ACCOUNT_DIRECTORIES = ("/etc/sudoers.d", "/home")
#: What marks a mount as ours on a machine where others mount things too.
MOUNT_MARKS = ("portbuild",)
#: How long a process that has been told to end may take.
PATIENCE = 5.0


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What is to be the same before and after. The directory is where a test run or a demonstration keeps its state."""

    directory: str
    mounts: frozenset[str]
    processes: frozenset[str]
    cgroups: frozenset[str]
    accounts: frozenset[str]

    @classmethod
    def take(cls, directory: str | os.PathLike[str]) -> Snapshot:
        """Look at the host."""
        path = os.fspath(directory)
        return cls(path, our_mounts(path), our_processes(path), our_cgroups(), accounts())

    def compared_to(self, before: Snapshot) -> list[str]:
        """Say what is there now and was not before. What has just been told to end gets a moment for it."""
        now = self
        deadline = time.monotonic() + PATIENCE
        while (problems := now.problems(before)) and time.monotonic() < deadline:
            time.sleep(0.1)
            now = Snapshot.take(self.directory)
        return problems

    def problems(self, before: Snapshot) -> list[str]:
        """Say what is there and was not before."""
        return [
            *(f"mount: {line}" for line in sorted(self.mounts - before.mounts)),
            *(f"process: {line}" for line in sorted(self.processes - before.processes)),
            *(f"cgroup: {line}" for line in sorted(self.cgroups - before.cgroups)),
            *(f"changed: {line}" for line in sorted(self.accounts ^ before.accounts)),
        ]


def our_mounts(directory: str) -> frozenset[str]:
    """Return the host's mounts that are ours by their name or by where they are."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if any(mark in line for mark in (directory, *MOUNT_MARKS)))


def our_processes(directory: str) -> frozenset[str]:
    """Return the processes whose command line, environment or working directory names the directory."""
    found = set()
    mark = os.fsencode(directory)
    family = {os.getpid(), os.getppid()}  # pytest itself, and what started it, may name it as an argument
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in family:
            continue
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes()
            # Of another user's process only the command line can be read; a kernel thread or a zombie has none.
            texts = [argv]
            with contextlib.suppress(OSError):
                texts.append(os.fsencode(os.readlink(entry / "cwd")))
                texts.append((entry / "environ").read_bytes())
            if argv and any(mark in text for text in texts):
                found.add(f"{entry.name} {argv.replace(bytes(1), b' ').decode(errors='replace')}")
    return frozenset(found)


def our_cgroups() -> frozenset[str]:
    """Return the cgroups that test clients or builds have left: those with a process in them are in use."""
    found = set()
    for current, directories, _files in os.walk("/sys/fs/cgroup"):
        if "portbuild" in os.path.basename(current):
            directories.clear()
            if not in_use(current):
                found.add(current)
    return frozenset(found)


def in_use(cgroup: str) -> bool:
    """Say whether there is a process in the cgroup or below it."""
    for current, _directories, _files in os.walk(cgroup):
        with contextlib.suppress(OSError):
            if pathlib.Path(current, "cgroup.procs").read_bytes():
                return True
    return False


def accounts() -> frozenset[str]:
    """Return a fingerprint of the files that say who may do what on the host."""
    found = set()
    for name in ACCOUNT_FILES:
        with contextlib.suppress(OSError):  # an ordinary user cannot read all of them
            found.add(f"{name} {hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest()[:16]}")
    for name in ACCOUNT_DIRECTORIES:
        with contextlib.suppress(OSError):
            found.add(f"{name} {sorted(os.listdir(name))}")
    return frozenset(found)
