# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How good the order of a schedule is, on a recorded build, and what a decision costs, on a tree of 36,000 packages.

    python tests/bench/schedule.py [DIRECTORY]

Run it where C(ansible_collections.portbuild.cluster) can be imported. The directory has C(depgraph.txt.gz), a line
C(A -> B) where A must be built before B, and C(history.csv.gz) with pkgname and duration in milliseconds; by default it
is C($PORTBUILD_BENCH_DATA), or C(../shared/data/pkgsrc-bulk) beside the checkout. Exit status 1 when a budget is
exceeded, 2 when the recorded build is not there.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import heapq
import math
import os
import pathlib
import random
import statistics
import sys
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._graph import Graph
from ansible_collections.portbuild.cluster.plugins.plugin_utils._schedule import Dispatch, Schedule
from ansible_collections.portbuild.cluster.plugins.plugin_utils._simulator import Simulator
from ansible_collections.portbuild.cluster.plugins.plugin_utils._text import duration

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
SLOTS = (4, 8, 16, 64)
MAXJOBS = 4  # of each machine
PACKAGES, EDGES = 36_000, 300_000
COST = 0.001  # seconds a decision may take
DISTANCE = 1.005  # makespan of the large tree, over what nobody can be below


def place(argument: str | None = None) -> pathlib.Path:
    """Return where the recorded build should be."""
    given = argument or os.environ.get("PORTBUILD_BENCH_DATA")
    return pathlib.Path(given) if given else CHECKOUT.parent / "shared" / "data" / "pkgsrc-bulk"


def is_there(directory: pathlib.Path) -> bool:
    """Say whether the recorded build is there."""
    return all((directory / name).is_file() for name in ("depgraph.txt.gz", "history.csv.gz"))


def read(directory: pathlib.Path) -> tuple[Graph, dict[str, float]]:
    """Return the graph of the recorded build, and the seconds of what was recorded."""
    needs: dict[str, list[str]] = {}
    with gzip.open(directory / "depgraph.txt.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            before, _arrow, after = line.split()
            needs.setdefault(before, [])
            needs.setdefault(after, []).append(before)
    with gzip.open(directory / "history.csv.gz", "rt", encoding="utf-8") as lines:
        history = {row["pkgname"]: int(row["duration"]) / 1000 for row in csv.DictReader(lines)}
    return Graph(needs.items()), history


# -- orders ------------------------------------------------------------------------------------------------------------


def hops(graph: Graph) -> list[float]:
    """Return how many packages there are in the longest chain that begins with each."""
    return graph.remaining([1.0] * len(graph))


def dependents(graph: Graph) -> list[float]:
    """Return how many packages need each, directly or not."""
    return [float(len(graph.dependents(name))) for name in graph.names]


def make_order(graph: Graph) -> list[float]:
    """Return priorities as make -j has them: goals by name, what a goal needs before it, first come first served."""
    place_of: dict[int, int] = {}
    for goal in range(len(graph)):
        walk = [(goal, iter(graph.needs[goal]))]
        while walk:
            number, rest = walk[-1]
            needed = next((n for n in rest if n not in place_of), None)
            if needed is not None:
                walk.append((needed, iter(graph.needs[needed])))
                continue
            walk.pop()
            place_of.setdefault(number, len(place_of))
    return [-float(place_of[number]) for number in range(len(graph))]


def orders(graph: Graph, known: list[float], half: list[float]) -> dict[str, tuple[list[float], list[float] | None]]:
    """Return for each order what the schedule takes for durations, and the priorities (None: its own)."""
    return {
        "critical path": (known, None),
        "critical path, half of the history": (half, None),
        "depth in hops": (known, hops(graph)),
        "number of dependents": (known, dependents(graph)),
        "longest first": (known, known),
        "make -j": (known, make_order(graph)),
    }


# -- replay ------------------------------------------------------------------------------------------------------------


def with_machines(schedule: Schedule, slots: int) -> Schedule:
    """Give the schedule machines with so many slots together."""
    for number in range(slots // MAXJOBS):
        schedule.machine_came(f"machine{number:02}", MAXJOBS)
    return schedule


def replay(graph: Graph, known: list[float], priorities: list[float] | None, real: list[float], slots: int) -> float:
    """Return how long the build takes."""
    schedule = with_machines(Schedule(graph, known, priorities=priorities), slots)

    def takes(dispatch: Dispatch) -> float:
        return real[graph.number[dispatch.package]]

    return Simulator(schedule, takes).run().makespan


def compare(directory: pathlib.Path) -> None:
    """Print the table: how many times as long as it must each order takes."""
    graph, history = read(directory)
    # Of what is not recorded nobody knows the duration: the schedule takes it for long, in truth it is a usual one.
    real = [history.get(name, statistics.median(history.values())) for name in graph.names]
    half = {name: seconds for number, (name, seconds) in enumerate(sorted(history.items())) if number % 2}
    longest, path = graph.critical_path(real)
    print(
        f"{directory}: {len(graph)} packages, {graph.edges} edges, {duration(math.fsum(real))} of work, "
        f"critical path {duration(longest)}, {len(path)} packages from {path[0]} to {path[-1]}."
    )
    print("Makespan over max(work / slots, critical path), on machines of 4 slots:")
    print(f"{'slots':36}" + "".join(f"{slots:>9}" for slots in SLOTS))
    print(f"{'at least':36}" + "".join(f"{graph.lower_bound(real, slots) / 3600:>7.2f} h" for slots in SLOTS))
    for name, (known, priorities) in orders(graph, graph.seconds(history), graph.seconds(half)).items():
        ratios = [replay(graph, known, priorities, real, slots) / graph.lower_bound(real, slots) for slots in SLOTS]
        print(f"{name:36}" + "".join(f"{ratio:>9.4f}" for ratio in ratios), flush=True)


# -- cost --------------------------------------------------------------------------------------------------------------


def synthetic(seed: int = 1) -> tuple[list[tuple[str, list[str]]], list[float]]:
    """Return a tree with the shape of a real one: what needs little is what most need, and a few take very long."""
    chance = random.Random(seed)
    names = [f"package-{number:05}" for number in range(PACKAGES)]
    needs: list[set[int]] = [set() for _unused in names]
    left = EDGES
    while left:
        number = int(PACKAGES * chance.random() ** 0.5)
        needed = int(number * chance.random() ** 4)
        if needed != number and needed not in needs[number]:
            needs[number].add(needed)
            left -= 1
    seconds = [min(20_000.0, chance.lognormvariate(math.log(34), 1.4)) for _unused in names]
    return [(name, [names[n] for n in needs[number]]) for number, name in enumerate(names)], seconds


def drive(schedule: Schedule, seconds: t.Callable[[str], float]) -> tuple[float, list[float], int]:
    """Build all of it; return the makespan, what each event cost with all decisions after it, and how many there were."""
    running: list[tuple[float, str]] = []
    costs = []
    decisions = 0
    now = 0.0
    while not schedule.finished:
        begin = time.perf_counter()
        if running:
            now, package = heapq.heappop(running)
            schedule.built(package)
        found = schedule.decide(now)
        costs.append(time.perf_counter() - begin)
        decisions += len(found)
        for dispatch in found:
            heapq.heappush(running, (now + seconds(dispatch.package), dispatch.package))
    return now, costs, decisions


def measure(slots: int = 64) -> bool:
    """Print what decisions cost on the large tree; say whether that is within the budget."""
    packages, seconds = synthetic()
    begin = time.perf_counter()
    graph = Graph(packages)
    graphed = time.perf_counter()
    schedule = with_machines(Schedule(graph, seconds), slots)
    scheduled = time.perf_counter()
    makespan, costs, decisions = drive(schedule, lambda name: seconds[graph.number[name]])
    costs.sort()
    mean = math.fsum(costs) / decisions
    distance = makespan / graph.lower_bound(seconds, slots)
    print(
        f"\n{len(graph)} packages, {graph.edges} edges, {slots} slots: graph {graphed - begin:.2f} s, "
        f"schedule {scheduled - graphed:.2f} s."
    )
    print(
        f"{decisions} decisions: {mean * 1e3:.3f} ms each, half of the events below {costs[len(costs) // 2] * 1e3:.3f} ms, "
        f"99 % below {costs[len(costs) * 99 // 100] * 1e3:.3f} ms, none above {costs[-1] * 1e3:.1f} ms."
    )
    print(f"Makespan {duration(makespan)}: {distance:.4f} of what is possible.")
    return mean < COST and distance <= DISTANCE and decisions == len(graph)


def main() -> int:
    """Compare the orders and measure the cost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("directory", nargs="?", help="the recorded build")
    directory = place(parser.parse_args().directory)
    there = is_there(directory)
    if there:
        compare(directory)
    else:
        print(
            f"There is no recorded build in {directory} (depgraph.txt.gz and history.csv.gz): orders are not compared. "
            "Set PORTBUILD_BENCH_DATA to the directory that has them.",
            file=sys.stderr,
        )
    within = measure()
    if not within:
        print(f"Above the budget of {COST * 1e3:g} ms a decision and {DISTANCE} of what is possible.", file=sys.stderr)
    return 2 if not there else 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
