# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one dispatch costs: wall time, controller CPU and remote executions from claim to release.

Compared with the ssh and scp calls of the original dispatcher, and with sbuild for a real package, in the same run on
the same machine. Everything is a median of several repetitions. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import time
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import Client, ClientSpec, Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import CHECKOUT, COLLECTIONS, Ended, Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster.conftest import provide_bindist

from ._sbuild import Built, sbuild

DIRECTORY = CHECKOUT / ".cache" / "bench"
HERE = pathlib.Path(__file__).parent
MACHINE = ClientSpec("builder", login="root", maxjobs=1)
FIRST, LAST = "Claim a machine", "Release the machine"
BUDGET_WALL, BUDGET_CPU, BUDGET_CALLS = 2.0, 1.5, 6
EMPTY_PLAY = "- {hosts: localhost, gather_facts: false, tasks: [{ansible.builtin.set_fact: {nothing: true}}]}\n"


class Cost(t.NamedTuple):
    """Seconds on the clock and of the processor."""

    wall: float
    cpu: float


class Dispatch(t.NamedTuple):
    """One measured dispatch."""

    total: Cost
    steps: dict[str, Cost]
    build: float
    phases: dict[str, float]

    @property
    def inside(self) -> Cost:
        """From claim to release."""
        return Cost(sum(cost.wall for cost in self.steps.values()), sum(cost.cpu for cost in self.steps.values()))

    @property
    def added(self) -> float:
        """Wall time that the dispatch adds to the build."""
        return self.inside.wall - self.build


def say(text: str = "") -> None:
    """Print at once: some of it takes minutes."""
    print(text, flush=True)


def measured(work: t.Callable[[], t.Any]) -> Cost:
    """Return what the work cost: processor time is that of the programs that it ran and waited for."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    work()
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def median(values: t.Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(list(values))


def median_cost(costs: t.Iterable[Cost]) -> Cost:
    """Return the medians of wall and of processor time."""
    known = list(costs)
    return Cost(median(cost.wall for cost in known), median(cost.cpu for cost in known))


# -- our dispatch ------------------------------------------------------------------------------------------------------


def dispatch(farm: Farm, package: str, **variables: t.Any) -> Dispatch:
    """Dispatch the package once and return what it cost."""
    ended: list[Ended] = []
    total = measured(lambda: ended.append(farm.dispatch(package, timeout=1800, **variables).ok()))
    names = [entry["step"] for entry in ended[0].steps]
    chosen = ended[0].steps[names.index(FIRST) : names.index(LAST) + 1]
    steps = {entry["step"]: Cost(entry["seconds"], entry["cpu"]) for entry in chosen}
    build = farm.builds(package)[-1]
    phases = {name: seconds for name, seconds, *_cpu in json.loads(build["phases"])}
    return Dispatch(total, steps, build["seconds"], phases)


def counted(farm: Farm, client: Client) -> dict[str, int]:
    """Return how often one dispatch runs which kind of program, and the connections that sshd accepted meanwhile."""
    links, calls = farm.root.parent / "counting", farm.root.parent / "calls"
    links.mkdir()
    for program in ("ssh", "sftp", "scp"):
        (links / program).symlink_to(HERE / "count.sh")
    programs = {f"ansible_{program}_executable": str(links / program) for program in ("ssh", "sftp", "scp")}
    counting = Farm(farm.cluster, farm.root, branch=farm.branch, variables={**farm.variables, **programs})
    end_connections(client)
    before = connections(client)
    os.environ["PORTBUILD_BENCH_CALLS"] = str(calls)
    counting.dispatch("pb-null").ok()
    kinds = calls.read_text(encoding="ascii").split()
    return {**{kind: kinds.count(kind) for kind in sorted(set(kinds))}, "connection": connections(client) - before}


def connections(client: Client) -> int:
    """Return how many connections sshd has accepted since the client exists."""
    return client.run(["cat", "/var/log/sshd.log"]).stdout.count("Accepted publickey")


def end_connections(client: Client) -> None:
    """Have the next dispatch open its own, as the first of the day does."""
    client.kill_sshd()
    client.start_sshd()
    while subprocess.run(client.ssh("true"), capture_output=True, check=False).returncode != 0:
        time.sleep(0.05)


# -- what the original did ---------------------------------------------------------------------------------------------


def original(client: Client, work: pathlib.Path) -> None:
    """Call ssh and scp as the original dispatcher did, a connection each, for a build that does nothing."""
    far, near = f"{client.scratch}/bench", work / "back"
    near.mkdir(exist_ok=True)
    script = work / "script"
    script.write_text("#!/bin/sh\nexit 0\n", encoding="ascii")
    login = f"{client.spec.login}@{client.address}"

    def ssh(command: str) -> None:
        subprocess.run(client.ssh(command), check=True, capture_output=True)

    def scp(*arguments: str) -> None:
        options = ["-P" if option == "-p" else option for option in client.ssh()[1:-1]]
        subprocess.run(["scp", "-q", *options, *arguments], check=True, capture_output=True)

    ssh(f"mkdir {far} && echo {far}")  # claim-chroot
    scp(str(script), f"{login}:{far}/script")
    scp(str(script), f"{login}:{far}/settings")
    ssh(f"sh {far}/script > {far}/log 2>&1 && echo package > {far}/package")  # the build
    scp(f"{login}:{far}/log", str(near))
    scp(f"{login}:{far}/package", str(near))
    ssh(f"test ! -e {far}/distfiles")
    ssh(f"rm -r {far}")  # clean-chroot


CALLS_OF_ORIGINAL = 8


# -- the report --------------------------------------------------------------------------------------------------------


def verdict(value: float, budget: float) -> str:
    """Say how the value stands to its budget."""
    return f"budget {budget:g}: {'met' if value <= budget else f'MISSED, {value / budget:.1f} times'}"


def report_dispatch(runs: list[Dispatch], calls: dict[str, int], empty: Cost) -> None:
    """Print what the dispatch that does nothing costs, step by step."""
    say("\nA package whose build does nothing (pb-null), claim to release")
    say(f"  {'step':<42}{'wall s':>9}{'CPU s':>9}")
    for name in runs[0].steps:
        cost = median_cost(run.steps[name] for run in runs if name in run.steps)
        say(f"  {name:<42}{cost.wall:>9.3f}{cost.cpu:>9.3f}")
    inside = median_cost(run.inside for run in runs)
    total = median_cost(run.total for run in runs)
    build, added = median(run.build for run in runs), median(run.added for run in runs)
    say(f"  {'claim to release':<42}{inside.wall:>9.3f}{inside.cpu:>9.3f}   {verdict(inside.cpu, BUDGET_CPU)} (CPU)")
    say(f"  {'of it the build itself':<42}{build:>9.3f}")
    say(f"  {'added to the build':<42}{added:>9.3f}{'':>9}   {verdict(added, BUDGET_WALL)}")
    say(
        f"  {'ansible-playbook, all of it':<42}{total.wall:>9.3f}{total.cpu:>9.3f}   {verdict(total.cpu, BUDGET_CPU)} (CPU)"
    )
    say(f"  {'an empty play, for comparison':<42}{empty.wall:>9.3f}{empty.cpu:>9.3f}")
    say(
        f"  {'remote executions':<42}{calls.get('command', 0):>9}{'':>9}   {verdict(calls.get('command', 0), BUDGET_CALLS)}"
    )
    say(f"  {'file transfers':<42}{calls.get('transfer', 0):>9}")
    say(f"  {'connections':<42}{calls['connection']:>9}{'':>9}   {verdict(calls['connection'], 1)}")


def report_original(costs: list[Cost], runs: list[Dispatch]) -> None:
    """Print what the original's calls cost."""
    cost, added = median_cost(costs), median(run.added for run in runs)
    say("\nThe original's ssh and scp calls for the same, nothing populated and nothing built")
    say(f"  {f'{CALLS_OF_ORIGINAL} connections':<42}{cost.wall:>9.3f}{cost.cpu:>9.3f}")
    say(f"  {'ours, added to the build':<42}{added:>9.3f}{'':>9}   {added / cost.wall:.1f} times the original's")


def report_hello(ours: list[Dispatch], theirs: list[Built]) -> None:
    """Print both ways to build a real package."""
    say("\nA real package (hello), from the archive, with its build dependencies")
    wall, whole = median(run.inside.wall for run in ours), median(run.total.wall for run in ours)
    check = median(run.phases.get("check", 0.0) for run in ours)
    say(f"  {'dispatch, claim to release':<42}{wall:>9.1f}")
    for name in ours[0].phases:
        say(f"    {f'phase {name}':<40}{median(run.phases[name] for run in ours):>9.1f}")
    say(f"  {'dispatch, ansible-playbook in all':<42}{whole:>9.1f}")
    good = [entry.seconds for entry in theirs if not entry.failed]
    if good:
        other = median(good)
        say(f"  {'sbuild --chroot-mode=unshare':<42}{other:>9.1f}")
        say(f"  {'dispatch in all / sbuild':<42}{whole / other:>9.2f}")
        say(f"  {'without our check phase':<42}{(whole - check) / other:>9.2f}")
    else:
        say("  sbuild did not work here:")
        say("    " + theirs[-1].why().replace("\n", "\n    "))


def report_backends(results: dict[str, list[dict[str, list[float]]]]) -> None:
    """Print what populating and cleaning costs."""
    say("\nPopulate and clean on the machine, by backend (1000 small files written in between)")
    say(f"  {'':<26}{'populate':>18}{'clean':>18}{'removed later':>18}")
    say(f"  {'':<26}" + f"{'wall s':>10}{'CPU s':>8}" * 3)
    for name, repetitions in results.items():
        line = f"  {name:<26}"
        for part in ("populate", "clean", "remove"):
            cost = median_cost(Cost(*entry[part]) for entry in repetitions)
            line += f"{cost.wall:>10.3f}{cost.cpu:>8.3f}"
        say(line)


def backends(farm: Farm, client: Client, repetitions: int) -> dict[str, list[dict[str, list[float]]]]:
    """Return what populating and cleaning costs inside the client."""
    facts = json.loads((farm.branch_directory / "tarballs" / "bindist.json").read_text(encoding="utf-8"))
    python = ["env", f"PYTHONPATH={COLLECTIONS}", "PYTHONDONTWRITEBYTECODE=1", "/usr/bin/python3"]
    argv = [*python, str(HERE / "_backends.py"), client.scratch, facts["sha256"], str(repetitions)]
    results: dict[str, list[dict[str, list[float]]]] = json.loads(client.run(argv, timeout=900).stdout)
    return results


def main() -> int:
    """Measure and print; a budget that is missed is printed, not an error."""
    parser = argparse.ArgumentParser(prog="bench.dispatch", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--hello", type=int, default=2, help="how often hello is built each way; 0: not at all")
    options = parser.parse_args()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, DIRECTORY, ignore_errors=True)
        cluster = stack.enter_context(Cluster.start(DIRECTORY / "cluster", [MACHINE]))
        client = cluster.clients[0]
        farm = Farm(cluster, DIRECTORY / "controller" / "root")
        say(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it begins.")
        provide_bindist(farm)
        farm.play("setup", timeout=600).ok()
        dispatch(farm, "pb-null")  # the supervisor's code and the source are on the machine from now on
        runs = [dispatch(farm, "pb-null") for _number in range(options.repetitions)]
        play = DIRECTORY / "empty.yml"
        play.write_text(EMPTY_PLAY, encoding="ascii")
        ansible = [str(farm.bin / "ansible-playbook"), str(play)]
        empty = [
            measured(lambda: subprocess.run(ansible, env=farm.environment(), check=True, capture_output=True))
            for _number in range(options.repetitions)
        ]
        report_dispatch(runs, counted(farm, client), median_cost(empty))
        report_original([measured(lambda: original(client, DIRECTORY)) for _number in range(options.repetitions)], runs)
        report_backends(backends(farm, client, options.repetitions))
        if options.hello:
            ours = [dispatch(farm, "hello") for _number in range(options.hello)]
            bindist = farm.branch_directory / "tarballs" / "bindist.tar"
            report_hello(
                ours,
                [sbuild(bindist, farm.branch, ["hello"], jobs=os.cpu_count() or 1) for _number in range(options.hello)],
            )
        say(f"\nLoad {os.getloadavg()[0]:.1f} at the end; figures from a busy machine are too high.")
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
