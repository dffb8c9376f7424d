# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a bulk of real packages costs, against sbuild one by one and against make -j with plain ssh, in the same run.

All three build the same packages of the archive on this host, from the same bindist, each package with the results of
those before it, and get everything from where this host gets it. Nobody checks what was built. Before the first one
starts, all that the builds download has been downloaded once and thrown away, so that whatever caches there are on the
way to the archive are equally warm. The builders begin with empty caches of their own: ours and make's machines keep what
they have downloaded, sbuild has nowhere to. sbuild and make's script ask the archive for new lists in each chroot; ours
does so only where those that the bindist brings do not do.

make and ours have the same slots: machines with one slot each. sbuild runs on the host itself, with all of its cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import Client, ClientSpec, Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import CHECKOUT, Ended, Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster.conftest import provide_bindist
from ansible_collections.portbuild.cluster.tests.packages import first, load, longest, Package

from ._sbuild import sbuild

DIRECTORY = CHECKOUT / ".cache" / "bench-bulk"
HERE = pathlib.Path(__file__).parent
PLAIN = "/srv/plain"
TICK = os.sysconf("SC_CLK_TCK")
#: Many times what any way takes for a package.
LIMIT = 300.0
#: The step of the bulk itself, in which all dispatches are; and the share of a step that is worth a line.
BULK, LEAST = "Build all that must be built", 0.005


class Cost(t.NamedTuple):
    """Seconds on the clock, of the processor for everything, and of it for what is not on a build machine."""

    wall: float
    cpu: float
    controller: float


class Way(t.NamedTuple):
    """How it went one way."""

    name: str
    cost: Cost
    #: Seconds from the first to the last that was done for a package, by package.
    packages: dict[str, float]
    missing: list[str]
    #: What was said last, when a package is missing.
    said: str
    #: Seconds on the clock and of the controller's processor, by step of the dispatches, where there are such.
    steps: t.Mapping[str, tuple[float, float]] = {}


def say(text: str = "") -> None:
    """Print at once: all of it takes minutes."""
    print(text, flush=True)


# -- what it costs -----------------------------------------------------------------------------------------------------


def on_client(client: Client) -> float:
    """Return the processor time of all that has run on the client and been waited for, and of what runs.

    A process hands its own to whoever waits for it, which is the client's first process in the end.
    """
    lines = client.run(["sh", "-c", "cat /proc/[0-9]*/stat"], check=False).stdout.splitlines()
    return sum(sum(int(ticks) for ticks in line.rpartition(")")[2].split()[11:15]) for line in lines) / TICK


def measured(clients: t.Sequence[Client], work: t.Callable[[], t.Any]) -> Cost:
    """Return what the work cost: here, by the programs that were run and waited for, and on the clients."""
    far = sum(on_client(client) for client in clients)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    work()
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    near = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, near + sum(on_client(client) for client in clients) - far, near)


# -- three ways --------------------------------------------------------------------------------------------------------


def by_sbuild(farm: Farm, packages: t.Sequence[Package], slots: int) -> Way:  # noqa: ARG001  # it has one
    """Build them by sbuild, one by one."""
    bindist = farm.branch_directory / "tarballs" / "bindist.tar"
    names = [package.name for package in packages]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    built = sbuild(bindist, farm.branch, names, jobs=os.cpu_count() or 1, timeout=LIMIT * len(names))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Way("sbuild, one by one", Cost(built.seconds, cpu, 0.0), built.packages, built.failed, built.why())


def prepare_plain(farm: Farm, work: pathlib.Path, packages: t.Sequence[Package], jobs: int) -> None:
    """Write what make and ssh need, and bring the machines the script; the base that they have is ours."""
    for name in ("machines", "results", "logs", "done"):
        (work / name).mkdir(parents=True)
    bindist = json.loads((farm.branch_directory / "tarballs" / "bindist.json").read_text(encoding="utf-8"))
    (work / "ssh_config").write_text("".join(ssh_config(client) for client in farm.cluster.clients), encoding="ascii")
    (work / "Makefile").write_text(makefile(work, packages, jobs), encoding="ascii")
    script = (HERE / "plain-build.sh").read_text(encoding="utf-8")
    for client in farm.cluster.clients:
        (work / "machines" / client.name).touch()
        client.run(["mkdir", PLAIN])
        client.run(["ln", "-s", f"{client.scratch}/bases/{bindist['sha256']}", f"{PLAIN}/base"])
        client.run(["tee", f"{PLAIN}/build.sh"], stdin=script)


def ssh_config(client: Client) -> str:
    """Return how ssh gets to the client: the options that the test bed's own ssh has."""
    argv = client.ssh()
    options = [argv[index + 1].replace("=", " ", 1) for index, word in enumerate(argv) if word == "-o"]
    port, key = argv[argv.index("-p") + 1], argv[argv.index("-i") + 1]
    user, _at, address = argv[-1].partition("@")
    lines = [f"HostName {address}", f"User {user}", f"Port {port}", f"IdentityFile {key}", *options]
    return f"Host {client.name}\n" + "".join(f"  {line}\n" for line in lines)


def makefile(work: pathlib.Path, packages: t.Sequence[Package], jobs: int) -> str:
    """Return the rules: a package behind those that it needs."""
    rules = [f".PHONY: all\nall: {' '.join(f'done/{package.name}' for package in packages)}\n"]
    for package in packages:
        needs = sorted(package.needs)
        command = f"sh {HERE / 'plain.sh'} {work} {jobs} {package.name} {' '.join(needs)}"
        rules.append(
            f"done/{package.name}: {' '.join(f'done/{name}' for name in needs)}\n"
            f"\t@{command} > logs/{package.name} 2>&1 < /dev/null\n\t@touch $@\n"
        )
    return "\n".join(rules)


def by_make(farm: Farm, packages: t.Sequence[Package], slots: int) -> Way:
    """Build them by a Makefile whose rules are ssh and scp."""
    work = DIRECTORY / "make"
    prepare_plain(farm, work, packages, make_jobs(slots))
    argv = ["make", "-k", f"-j{slots}", "-C", str(work)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    def build() -> None:
        subprocess.run(argv, env=clean, check=False, capture_output=True, timeout=LIMIT * len(packages))

    cost = measured(farm.cluster.clients, build)
    missing = [package.name for package in packages if not (work / "done" / package.name).exists()]
    logs = [work / "logs" / name for name in missing]
    said = next((log.read_text(encoding="utf-8", errors="replace") for log in logs if log.exists()), "")
    times = (work / "times").read_text(encoding="ascii").split() if (work / "times").exists() else []
    seconds = {name: float(value) for name, value in zip(times[::2], times[1::2], strict=True)}
    return Way(f"make -j{slots}, ssh and scp", cost, seconds, missing, last_lines(said))


def by_us(farm: Farm, packages: t.Sequence[Package], slots: int) -> Way:
    """Build them by the playbook."""
    names = [package.name for package in packages]
    done: list[Ended] = []

    def build() -> None:
        done.append(
            farm.play("bulk", timeout=LIMIT * len(names), targets=names, check="off", make_jobs=make_jobs(slots))
        )

    cost = measured(farm.cluster.clients, build)
    builds = {name: farm.builds(name) for name in names}
    seconds = {name: found[-1]["seconds"] for name, found in builds.items() if found}
    missing = [name for name, found in builds.items() if not found or found[-1]["outcome"] != "success"]
    return Way("portbuild.cluster.bulk", cost, seconds, missing, last_lines(done[0].output), dispatched(done[0].steps))


def dispatched(entries: t.Iterable[dict[str, t.Any]]) -> dict[str, tuple[float, float]]:
    """Return what each step of the dispatches cost in all: they write into the same file as the bulk itself."""
    found: dict[str, tuple[float, float]] = {}
    for entry in entries:
        if entry["step"] != BULK:
            wall, cpu = found.get(entry["step"], (0.0, 0.0))
            found[entry["step"]] = (wall + entry["seconds"], cpu + entry["cpu"])
    return found


WAYS = {"sbuild": by_sbuild, "make": by_make, "bulk": by_us}


def make_jobs(slots: int) -> int:
    """Return how many make jobs a build may have: the machines are all on this host."""
    return max(1, (os.cpu_count() or 1) // slots)


def last_lines(text: str) -> str:
    """Return the end of it."""
    return "\n".join(text.splitlines()[-15:])


def warm_up(farm: Farm, packages: t.Sequence[Package]) -> None:
    """Download all that the builds will need, and throw it away."""
    client = farm.cluster.clients[0]
    prepare_plain(farm, DIRECTORY / "warm", packages, 1)
    names = [package.name for package in packages]
    client.run(["sh", f"{PLAIN}/build.sh", "download", *names], timeout=LIMIT)
    for each in farm.cluster.clients:
        each.run(["rm", "-rf", "--one-file-system", PLAIN])


# -- the report --------------------------------------------------------------------------------------------------------


def report(ways: t.Sequence[Way], packages: t.Sequence[Package], slots: int) -> None:
    """Print what each way cost, and what it is to the last."""
    say(f"\n{len(packages)} packages, {slots} slots")
    say(f"  {'':<28}{'wall s':>9}{'CPU s':>9}{'of it here':>12}{'built':>7}{'wall':>8}{'CPU':>7}")
    ours = ways[-1].cost
    for way in ways:
        here = f"{way.cost.controller:>12.1f}" if way.cost.controller else f"{'-':>12}"
        ratio = f"{way.cost.wall / ours.wall:>8.2f}{way.cost.cpu / ours.cpu:>7.2f}"
        built = len(packages) - len(way.missing)
        say(f"  {way.name:<28}{way.cost.wall:>9.1f}{way.cost.cpu:>9.1f}{here}{built:>7}{ratio}")
    say(f"  (the last two columns: times that of {ways[-1].name})")
    say("\nSeconds for each package")
    say(f"  {'':<36}" + "".join(f"{way.name.split(',')[0]:>24}" for way in ways))
    for package in packages:
        cells = [f"{way.packages[package.name]:.1f}" if package.name in way.packages else "-" for way in ways]
        say(f"  {package.name:<36}" + "".join(f"{cell:>24}" for cell in cells))
    say(f"  {'all':<36}" + "".join(f"{sum(way.packages.values()):>24.1f}" for way in ways))
    for way in ways:
        if way.missing:
            say(f"\n{way.name} did not build {', '.join(way.missing)}:\n  " + way.said.replace("\n", "\n  "))


def report_ours(farm: Farm, packages: t.Sequence[Package], way: Way, slots: int) -> None:
    """Print where the time of the bulk went: by step of its dispatches, and by phase of its builds."""
    whole = slots * way.cost.wall
    say(f"\nWhere the time of ours went ({slots} slots for {way.cost.wall:.1f} s)")
    say(f"  {'':<60}{'s':>9}{'share':>8}{'CPU s':>9}")

    def line(text: str, seconds: float, cpu: float) -> None:
        say(f"  {text:<60}{seconds:>9.1f}{seconds / whole:>8.0%}{cpu:>9.1f}")

    rest = [0.0, 0.0]
    for name, (seconds, cpu) in way.steps.items():
        if seconds >= LEAST * whole:
            line(f"dispatches: {name}", seconds, cpu)
        else:
            rest = [rest[0] + seconds, rest[1] + cpu]
    line("dispatches: all other steps", *rest)
    known = [sum(values) for values in zip(*way.steps.values(), strict=True)] or [0.0, 0.0]
    line("starting dispatches, deciding, nothing ready", whole - known[0], way.cost.controller - known[1])
    phases: dict[str, list[float]] = {}
    for package in packages:
        for name, seconds, *cpu_seconds in json.loads(farm.builds(package.name)[-1]["phases"]):
            entry = phases.setdefault(name, [0.0, 0.0])
            entry[0] += seconds
            entry[1] += sum(cpu_seconds)
    say("Of it, on the machines")
    for name, (seconds, cpu) in phases.items():
        line(f"builds: {name}", seconds, cpu)
    in_builds = sum(way.packages.values())
    inside = [sum(values) for values in zip(*phases.values(), strict=True)]
    line("builds: between their phases", in_builds - inside[0], 0.0)
    line("all else", 0.0, way.cost.cpu - way.cost.controller - inside[1])
    bound = max(in_builds / slots, longest(packages, way.packages))
    say(f"  No order of these builds takes less than {bound:.1f} s; {way.cost.wall / bound:.2f} times that was taken.")


def main() -> int:
    """Build, measure and print; 0 if everything was built every way."""
    parser = argparse.ArgumentParser(prog="bench.bulk", description=__doc__)
    number = int(os.environ.get("PORTBUILD_BENCH_PACKAGES") or len(load()))
    parser.add_argument("--packages", type=int, default=number, help="how many of the list; PORTBUILD_BENCH_PACKAGES")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    packages = first(options.packages)
    machines = [ClientSpec(f"builder{index + 1}", login="root", maxjobs=1) for index in range(options.slots)]
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, DIRECTORY, ignore_errors=True)
        cluster = stack.enter_context(Cluster.start(DIRECTORY / "cluster", machines))
        farm = Farm(cluster, DIRECTORY / "controller" / "root")
        say(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it begins.")
        provide_bindist(farm)
        farm.play("setup", timeout=600).ok()
        warm_up(farm, packages)
        done = {}
        for name in options.ways:
            done[name] = WAYS[name](farm, packages, options.slots)
            say(f"{done[name].name}: {done[name].cost.wall:.1f} s")
        report(list(done.values()), packages, options.slots)
        if "bulk" in done and not done["bulk"].missing:
            report_ours(farm, packages, done["bulk"], options.slots)
        say(f"\nLoad {os.getloadavg()[0]:.1f} at the end; figures from a busy machine are too high.")
    return 1 if any(way.missing for way in done.values()) else 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
