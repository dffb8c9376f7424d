# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watching what happens meanwhile: on the clients, past everything that the collection says of itself, and in the queue."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import threading
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._lock import Lock
from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, Running, wait_for

INTERVAL = 0.1

# Runs in the client. Writes a line whenever what it sees has changed, and at the end how often it has looked.
_SAMPLER = r"""
import glob, json, os, select, sys

scratch, interval = sys.argv[1], float(sys.argv[2])

def supervisors():
    # A supervisor forks the steps of its build; the outermost of these processes is the supervisor itself.
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as stream:
                argv = stream.read().decode(errors="replace").split("\0")[:-1]
            if len(argv) > 6 and os.path.basename(argv[3]) == "portbuild-supervisor":
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stream:
                    found[int(entry)] = (argv[4], int(stream.read().rsplit(")", 1)[1].split()[1]))
        except OSError:
            pass
    return sorted((job, pid) for pid, (job, parent) in found.items() if parent not in found)

def locked(chroots):
    # From the kernel's list: trying the locks would get into the way of those who take them.
    with open("/proc/locks", encoding="ascii") as stream:
        entries = [line.split() for line in stream]
    held = {entry[5].rsplit(":", 1)[1] for entry in entries if entry[1:4] == ["FLOCK", "ADVISORY", "WRITE"]}
    return [chroot for chroot in chroots if inode(chroot) in held]

def inode(chroot):
    try:
        return str(os.stat(f"{scratch}/chroots/{chroot}/lock").st_ino)
    except OSError:
        return ""

looks, before = 0, None
while True:
    chroots = sorted(os.path.relpath(path, f"{scratch}/chroots") for path in glob.glob(f"{scratch}/chroots/*/*/*"))
    seen = {"chroots": chroots, "locked": locked(chroots), "supervisors": supervisors()}
    looks += 1
    if seen != before:
        before = seen
        print(json.dumps(seen), flush=True)
    if select.select([0], [], [], interval)[0]:
        print(json.dumps({"looks": looks}), flush=True)
        break
"""


class Sight(t.NamedTuple):
    """What was there on a client at one moment. Jobs are C(ARCH/BRANCH/PACKAGE)."""

    chroots: list[str]
    locked: list[str]  # chroots whose lock somebody holds
    supervisors: list[tuple[str, int]]  # job and pid

    @property
    def jobs(self) -> int:
        """The number of jobs by whichever of the signs says most."""
        return max(len(self.chroots), len(self.locked), len(self.supervisors))


class ClientWatch:
    """Looks at a client ten times a second, from inside it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sights: list[Sight] = []
        self.looks = 0
        self._process = subprocess.Popen(
            client.enter(["/usr/bin/python3", "-I", "-c", _SAMPLER, client.scratch, str(INTERVAL)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def stop(self) -> None:
        """Stop looking; from now on there is something to read."""
        if self.looks:
            return
        output, _none = self._process.communicate("\n", timeout=60)
        for line in map(json.loads, output.splitlines()):
            if "looks" in line:
                self.looks = line["looks"]
            else:
                self.sights.append(Sight(**{**line, "supervisors": [tuple(item) for item in line["supervisors"]]}))

    @property
    def most(self) -> int:
        """The largest number of jobs that were there at once."""
        return max(sight.jobs for sight in self.sights)

    def builds(self, package: str) -> set[int]:
        """Return the pids of all supervisors that were seen to build the package."""
        return {pid for sight in self.sights for job, pid in sight.supervisors if job.endswith(f"/{package}")}


@dataclasses.dataclass
class Page:
    """What stood in the queue directory at a moment at which nobody changed it, and what was on the clients then."""

    counters: dict[str, str | None]  # as they stand in the files
    leases: dict[str, list[str]]  # the packages that have a slot, by machine
    foreign: dict[str, int]
    chroots: dict[str, list[str]]  # by machine, the packages

    def problems(self, maxjobs: t.Mapping[str, int], *, scripts: bool = False) -> list[str]:
        """Say what is not as the original would have it, and where there are too many jobs.

        With C(scripts) a counter may be missing, or too high: when a script takes the last slot and one of our jobs ends
        before the script's, the missing file looks as if it had been removed by hand, and is left alone.
        """
        found = []
        for machine, counter in self.counters.items():
            limit = maxjobs[machine]
            jobs = len(self.leases[machine]) + self.foreign[machine]
            allowed = [f"{count}\n" for count in range(jobs, limit)] if scripts else [f"{jobs}\n"] * (jobs < limit)
            if jobs > limit:
                found.append(f"{machine} has {jobs} jobs, {limit} are allowed: {self}")
            if counter not in allowed and (counter is not None or (allowed and not scripts)):
                found.append(f"the counter of {machine} is {counter!r}, expected {allowed}: {self}")
            if not set(self.chroots[machine]) <= set(self.leases[machine]):
                found.append(f"{machine} has chroots without a lease: {self}")
        return found


class QueueWatch:
    """Reads the queue directory now and then, as an old script would: under the lock.

    C(foreign) counts jobs on a machine that are not the collection's; it is called under the lock too.
    """

    def __init__(self, farm: Farm, foreign: t.Callable[[str], int] = lambda _machine: 0) -> None:
        self._farm = farm
        self._foreign = foreign
        self.pages: list[Page] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue watch", daemon=True)
        self._failure: BaseException | None = None
        self._thread.start()

    def stop(self) -> None:
        """Stop reading."""
        self._done.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._done.wait(INTERVAL):
                with Lock(str(self._farm.queue / ".lock"), timeout=300):
                    page = read_page(self._farm, self._foreign)
                if page not in self.pages[-1:]:
                    self.pages.append(page)
        except BaseException as error:
            self._failure = error


def read_page(farm: Farm, foreign: t.Callable[[str], int] = lambda _machine: 0) -> Page:
    """Return what stands in the queue directory and on the clients. For who holds the lock."""
    names = [client.name for client in farm.cluster.clients]
    page = Page({}, {name: [] for name in names}, {name: foreign(name) for name in names}, {})
    for lease in os.listdir(farm.queue / ".claims"):
        machine, _colon, job = lease.partition(":")
        if job and not machine.startswith("."):
            page.leases[machine].append(job.partition(":")[2])
    for client in farm.cluster.clients:
        page.counters[client.name] = None
        with contextlib.suppress(FileNotFoundError):
            page.counters[client.name] = farm.queue.joinpath(client.name).read_text(encoding="ascii")
        chroots = client.scratch_on_host / "chroots"
        page.chroots[client.name] = sorted(path.name for path in chroots.glob(f"{farm.arch}/{farm.branch}/*"))
    return page


# Scripts may remove the lock file with the lock, as lockf(1) does: then the lock is on a file that is not there. It is
# flock(1) that stays and holds the lock, and no shell with its descriptor: /proc/locks names only who still lives.
_HOLD = r"""
until flock "$1" sh -c '
    [ "$(stat -L -c %i /proc/$$/fd/3)" = "$(stat -c %i "$1" 2>/dev/null)" ] && echo held && read -r _go' sh "$1"
do :; done
"""


class Held:
    """A shell that holds the queue's lock, as an administrator's would; a context manager."""

    def __init__(self, farm: Farm) -> None:
        self._path = farm.queue / ".lock"

    def __enter__(self) -> t.Self:
        self._process = subprocess.Popen(
            ["sh", "-c", _HOLD, "sh", str(self._path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"held\n"
        self._inode = f":{self._path.stat().st_ino}"
        return self

    def __exit__(self, *_unused: object) -> None:
        self._process.communicate(b"go\n", timeout=60)

    def wait_for(self, dispatches: t.Collection[Running], others: int, timeout: float = 240.0) -> None:
        """Return when the dispatches, and so many others, wait for the lock; fail if one of them ends."""

        def all_wait() -> bool:
            for dispatch in dispatches:
                assert dispatch.process.poll() is None, dispatch.output()
            return self.waiting() >= len(dispatches) + others

        wait_for(all_wait, f"{len(dispatches)} dispatches and {others} others to wait for the lock", timeout)

    def waiting(self) -> int:
        """Return how many processes wait for the lock."""
        # "1: -> FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF". Readers, which do not wait for long, are not meant; nor are
        # threads that wait though their process has lost its patience and begun to wait again.
        lines = [line.split() for line in pathlib.Path("/proc/locks").read_text(encoding="ascii").splitlines()]
        return len(
            {
                line[5]
                for line in lines
                if line[1:5] == ["->", "FLOCK", "ADVISORY", "WRITE"] and line[6].endswith(self._inode)
            }
        )
