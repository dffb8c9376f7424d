# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Claims and releases per second with many claimers on one queue directory; and never more jobs than maxjobs.

    python tests/bench/bench_queue.py [--claimers 64] [--seconds 10] [--maxjobs 1,2,3,16,16,16,16]

Run it where C(ansible_collections.portbuild.cluster) can be imported. While they hold a slot, claimers count
themselves in memory that they share: what is checked is what happened, not what the files say. Exit status 1 when a
machine ever had too many jobs, or fewer claims per second than C(--budget).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils._owner import Owner
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue import Candidate
from ansible_collections.portbuild.cluster.plugins.plugin_utils._queue_files import FileQueue

ARCH = "amd64"


class Tally:
    """What all claimers count together."""

    def __init__(self, machines: int, claimers: int) -> None:
        self.lock = multiprocessing.Lock()
        self.running = multiprocessing.RawArray("i", machines)
        self.peaks = multiprocessing.RawArray("i", machines)
        self.claims = multiprocessing.RawArray("i", claimers)
        self.slowest = multiprocessing.RawArray("d", claimers)

    def change(self, machine: int, by: int) -> None:
        """Count a job more, or one less, on the machine."""
        with self.lock:
            self.running[machine] += by
            self.peaks[machine] = max(self.peaks[machine], self.running[machine])


def claimer(
    number: int, directory: str, candidates: list[Candidate], tally: Tally, start: float, end: float, work: float
) -> None:
    """Claim and release until the end."""
    queue = FileQueue(directory, arch=ARCH)
    owner = Owner.of(os.getpid())
    names = [candidate.name for candidate in candidates]
    time.sleep(max(0.0, start - time.monotonic()))
    serial = 0
    while time.monotonic() < end:
        serial += 1
        began = time.monotonic()
        lease = queue.claim(Job(ARCH, "bench", f"p{number}-{serial}"), candidates, owner)
        tally.slowest[number] = max(tally.slowest[number], time.monotonic() - began)
        machine = names.index(lease.machine)
        tally.change(machine, +1)
        if work:
            time.sleep(random.uniform(0, 2 * work))
        tally.change(machine, -1)
        queue.release(lease)
        tally.claims[number] += 1


def run(directory: str, claimers: int, seconds: float, maxjobs: list[int], work: float = 0.0) -> dict[str, t.Any]:
    """Return what was measured."""
    candidates = [Candidate(f"m{number}", limit) for number, limit in enumerate(maxjobs)]
    queue = FileQueue(directory, arch=ARCH)
    for candidate in candidates:
        queue.enter(candidate.name, candidate.maxjobs)
    tally = Tally(len(candidates), claimers)
    start = time.monotonic() + 1 + claimers / 50  # all are there before the first claims
    before = os.times()
    processes = [
        multiprocessing.Process(
            target=claimer, args=(number, directory, candidates, tally, start, start + seconds, work)
        )
        for number in range(claimers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    took = time.monotonic() - start
    after = os.times()
    state = {machine.name: machine for machine in queue.machines()}
    peaks = list(tally.peaks)
    claims = list(tally.claims)
    return {
        "claimers": claimers,
        "slots": sum(maxjobs),
        "machines": len(maxjobs),
        "claims_per_second": round(sum(claims) / took, 1),
        "claims": sum(claims),
        "fewest_by_a_claimer": min(claims),
        "most_by_a_claimer": max(claims),
        "slowest_claim_seconds": round(max(tally.slowest), 3),
        "cpu_seconds": round(
            after.children_user + after.children_system - before.children_user - before.children_system, 2
        ),
        "peaks": peaks,
        "never_above_maxjobs": all(peak <= limit for peak, limit in zip(peaks, maxjobs)),
        "all_slots_back": all(state[candidate.name].counter == 0 for candidate in candidates) and not queue.leases(),
        "failed_claimers": sum(process.exitcode != 0 for process in processes),
    }


def main() -> int:
    """Run as the arguments say, print the result, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claimers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--maxjobs", default="1,2,3,16,16,16,16", help="of each machine")
    parser.add_argument("--work", type=float, default=0.0, help="seconds a slot is held on average")
    parser.add_argument("--budget", type=float, default=500.0, help="claims and releases per second")
    parser.add_argument("--directory", help="where the queue is made (default: a temporary directory)")
    options = parser.parse_args()
    multiprocessing.set_start_method("fork")
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        maxjobs = [int(limit) for limit in options.maxjobs.split(",")]
        result = run(directory, options.claimers, options.seconds, maxjobs, options.work)
    print(json.dumps(result, indent=1))
    good = result["never_above_maxjobs"] and result["all_slots_back"] and not result["failed_claimers"]
    return 0 if good and result["claims_per_second"] >= options.budget else 1


if __name__ == "__main__":
    sys.exit(main())
