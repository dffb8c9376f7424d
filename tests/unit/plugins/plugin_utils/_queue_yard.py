# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Help for tests of the queue: owners that live and die, an old-style script, a look at the directory itself."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import time
import typing as t
from pathlib import Path

from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Candidate, Lease
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue_files import FileQueue

ARCH = "amd64"


def job(package: str) -> Job:
    """Return the job that builds the package."""
    return Job(ARCH, "bookworm", package)


def dead_owner() -> Owner:
    """Return an owner that is gone."""
    with subprocess.Popen(["sleep", "60"]) as process:
        owner = Owner.of(process.pid)
        process.kill()
    return owner


class Yard:
    """A queue directory with machines in it."""

    def __init__(self, directory: Path, **maxjobs: int) -> None:
        self.directory = directory
        self.candidates = [Candidate(name, limit) for name, limit in maxjobs.items()]
        self.me = Owner.of(os.getpid())
        self.offset = 0.0  # how far the clock is ahead
        self.queue = self.open()
        for candidate in self.candidates:
            assert self.queue.enter(candidate.name, candidate.maxjobs)

    def open(self, **options: t.Any) -> FileQueue:
        return FileQueue(str(self.directory), arch=ARCH, now=lambda: time.time() + self.offset, **options)

    def claim(self, package: str, owner: Owner | None = None, **options: t.Any) -> Lease:
        options.setdefault("wait", 0)
        candidates = options.pop("candidates", self.candidates)
        return self.queue.claim(job(package), candidates, owner or self.me, **options)

    def counter(self, machine: str) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / machine).read_text()
        return None

    def counters(self) -> dict[str, str]:
        """Return the counter files as a person sees them."""
        return {path.name: path.read_text() for path in self.directory.iterdir() if not path.name.startswith(".")}

    def leases(self) -> list[str]:
        return sorted(
            path.name for path in (self.directory / ".claims").iterdir() if ":" in path.name and path.name[0] != "."
        )

    def held(self) -> list[str]:
        return sorted(path.name for path in (self.directory / ".claims" / "held").iterdir())

    def snapshot(self) -> dict[str, tuple[t.Any, ...]]:
        """Return everything there is to see about every file below the directory."""
        seen = {}
        for path in [self.directory, *self.directory.rglob("*")]:
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            seen[str(path)] = (status.st_mode, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, content)
        return seen

    def check(self) -> None:
        """Fail unless the directory is as it should be when nobody does anything."""
        for candidate in self.candidates:
            ours = sum(name.startswith(candidate.name + ":") for name in self.leases())
            assert ours <= candidate.maxjobs
            text = self.counter(candidate.name)
            assert text is None or (text == f"{int(text)}\n" and ours <= int(text) < candidate.maxjobs)


# What the original's script did, with flock(1) for lockf(1). Arguments: directory, its name, rounds, whether the lock
# file is removed with the lock (yes, as lockf(1) does it without -k), machine=maxjobs ... Its log has a line per claim and
# release, written under the lock: "+machine" or "-machine". A job takes $pause seconds, if that is set; a file .stop
# ends the script before its rounds do.
OLD_SCRIPT = r"""
cd "$1" || exit 1
log=.log-$2; rounds=$3; remove=$4; shift 4; pairs=$*
lock() {
    while :; do
        exec 9>>.lock; flock 9
        [ "$remove" = yes ] || return
        [ "$(stat -L -c %i /proc/$$/fd/9)" = "$(stat -c %i .lock 2>/dev/null)" ] && return
    done
}
unlock() { [ "$remove" != yes ] || rm -f .lock; exec 9>&-; }
maxjobs() { for pair in $pairs; do case $pair in "$1"=*) echo "${pair#*=}";; esac; done; }
claim() {
    best=; least=1000000
    for pair in $pairs; do
        machine=${pair%%=*}
        [ -f "$machine" ] || continue
        read -r count < "$machine"
        if [ "$count" -lt "$least" ]; then best=$machine; least=$count; fi
    done
    [ -n "$best" ] || return
    count=$((least + 1))
    if [ "$count" -ge "$(maxjobs "$best")" ]; then rm "$best"; else echo "$count" > "$best"; fi
    echo "+$best" >> "$log"
}
release() {
    if [ -f "$1" ]; then read -r count < "$1"; count=$((count - 1)); else count=$(($(maxjobs "$1") - 1)); fi
    echo "$count" > "$1"
    echo "-$1" >> "$log"
}
while [ "$rounds" -gt 0 ] && [ ! -e .stop ]; do
    lock; claim; unlock
    if [ -n "$best" ]; then
        sleep "${pause:-0.0$((rounds % 4))}"
        lock; release "$best"; unlock
        rounds=$((rounds - 1))
    else
        sleep "${pause:-0.02}"
    fi
done
"""


def old_script(yard: Yard, name: str, rounds: int, *, remove: bool = False) -> subprocess.Popen[bytes]:
    """Start the script; its jobs are on the machines that script_jobs() says."""
    pairs = [f"{candidate.name}={candidate.maxjobs}" for candidate in yard.candidates]
    return subprocess.Popen(
        ["sh", "-c", OLD_SCRIPT, "sh", str(yard.directory), name, str(rounds), "yes" if remove else "no", *pairs]
    )


def script_jobs(yard: Yard, machine: str) -> int:
    """Return how many jobs of scripts run on the machine, by their logs."""
    lines = [line for path in yard.directory.glob(".log-*") for line in path.read_text().splitlines()]
    return lines.count("+" + machine) - lines.count("-" + machine)
