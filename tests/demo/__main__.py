# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build real packages in bulk on a cluster of two machines, show what came of it, and leave nothing but the results."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import shutil
import sys
import time
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import ClientSpec, Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import CHECKOUT, Ended, Farm, Running
from ansible_collections.portbuild.cluster.tests.packages import DEMO, first
from ansible_collections.portbuild.cluster.tests.packages.install import install, NotInstalled

DIRECTORY = CHECKOUT / ".cache" / "demo"
MACHINES = (ClientSpec("builder1", login="root", maxjobs=1), ClientSpec("builder2", login="pbclient", maxjobs=2))
#: Packages of the Debian archive that need each other, and one of tests/sources that cannot be built.
PACKAGES = tuple(package.name for package in first(DEMO))
FAILS = "pb-fails"
#: What a bulk says is between its own task and the next, or its result.
TASK = "Build all that must be built"
AFTER_PLAN = ("[", "failed: ", "given up: ", "It took ")
RESULTS = ("ok: ", "changed: ", "fatal: ", "[ERROR]", "TASK ", "PLAY ")


def say(text: str = "") -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def timed(text: str, work: t.Callable[[], Ended]) -> Ended:
    """Say what is being done, do it, and say how long it took."""
    print(f"  {text} ...", end="", flush=True)
    ended = work()
    print(f" {ended.seconds:.1f} s", flush=True)
    return ended


def main() -> int:
    """Run the demonstration; 0 when everything came out as it should."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    began = time.monotonic()
    say(
        "Two build machines on loopback addresses, each with its own sshd, processes and mounts, for three jobs in all:"
    )
    say("one lets root log in, the other an ordinary user who has sudo.")
    with Cluster.start(DIRECTORY / "cluster", MACHINES) as cluster:
        farm = Farm(cluster, DIRECTORY / "root", branch=debian_release())
        timed(
            "bindist: the base system, by mmdebstrap on the first machine",
            lambda: farm.play("bindist", timeout=900).ok(),
        )
        timed("setup: directories, bindist, queue", lambda: farm.play("setup", timeout=600).ok())
        wrong = build(farm)
        show(farm)
        if not install_all(farm):
            wrong.append("installing the results")
        farm.assert_idle()
    for path in DIRECTORY.glob("run-*"):
        path.unlink()
    say()
    say(f"The machines are gone; what was built is in {farm.packages}.")
    say(
        f"{'Everything came out as it should' if not wrong else 'WRONG: ' + ', '.join(wrong)}, in {time.monotonic() - began:.0f} s."
    )
    return 1 if wrong else 0


def debian_release() -> str:
    """Return the code name of the release that this machine runs: the one whose archive it can reach."""
    for line in pathlib.Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        name, _equals, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    return "stable"


# -- the bulk ----------------------------------------------------------------------------------------------------------


def build(farm: Farm) -> list[str]:
    """Show the plan, build, build once more; return what did not come out as it should."""
    targets = [*PACKAGES, FAILS]
    say()
    say(f"bulk --check: the plan for {len(PACKAGES)} packages of the archive, and {FAILS}, which cannot be built")
    plan = follow(farm.start("bulk", "--check", targets=targets), everything=True)
    say()
    say("bulk: each with the results of those that it needs")
    ended = follow(farm.start("bulk", targets=targets))
    summary = json.loads((farm.branch_directory / "bulk" / "summary.json").read_text(encoding="utf-8"))
    say()
    say("bulk once more, of what can be built")
    again = follow(farm.start("bulk", targets=list(PACKAGES)))
    failed = [entry["package"] for entry in summary["failed"]]
    checks = {
        "the plan": plan.status == 0,
        "the bulk's exit status": ended.status != 0,  # because of the one that fails
        "what was built": sorted(summary["built"]) == sorted(PACKAGES),
        "what failed": failed == [FAILS],
        "the second bulk": again.status == 0 and all(len(farm.builds(name)) == 1 for name in PACKAGES),
    }
    return [what for what, came_out in checks.items() if not came_out]


def follow(running: Running, *, everything: bool = False) -> Ended:
    """Print what the bulk says, as it says it, until it ends: all of it, or without the plan with which it begins."""
    printed = 0
    while True:
        over = running.process.poll() is not None
        lines = spoken(running.output())
        if not everything:
            lines = list(itertools.dropwhile(lambda line: not line.startswith(AFTER_PLAN), lines))
        for line in lines[printed:]:
            say(f"  {line}")
        printed = len(lines)
        if over:
            break
        time.sleep(0.2)
    ended = running.end()
    if not printed:
        say(ended.output)  # it did not come that far
    return ended


def spoken(output: str) -> list[str]:
    """Return the whole lines that the bulk itself has printed so far, without Ansible's."""
    _before, task, after = output.rpartition("\n")[0].partition(f" : {TASK}]")
    lines = []
    for line in after.splitlines()[1:] if task else []:
        if line.startswith(RESULTS):
            break
        lines.append(line)
    return lines


# -- what came of it ---------------------------------------------------------------------------------------------------


def show(farm: Farm) -> None:
    """Print what was built, where everything is, and how long each phase of the builds took, in seconds."""
    say()
    say("What was built")
    builds = {name: farm.builds(name)[-1] for name in (*PACKAGES, FAILS)}
    for name, entry in builds.items():
        good = entry["outcome"] == "success"
        came = f"built {entry['version']}" if good else f"{entry['reason']} in {entry['phase']}, as it should"
        say(f"  {name:<30} on {entry['machine']}: {came}")
        log = farm.branch_directory / ("logs" if good else "errors") / f"{name}.log"
        say(f"      {log.relative_to(CHECKOUT)}")
    say(f"  The packages are in {farm.packages.relative_to(CHECKOUT)}:")
    for path in sorted(farm.packages.glob("*.deb")):
        say(f"      {path.name}")
    say()
    say("How long each phase took (s)")
    phases = {name: {phase[0]: phase[1] for phase in json.loads(entry["phases"])} for name, entry in builds.items()}
    names = list(dict.fromkeys(phase for known in phases.values() for phase in known))
    say(f"  {'':<30}" + "".join(f"{name:>10}" for name in (*names, "all")))
    for package, known in phases.items():
        cells = [f"{known[name]:.1f}" if name in known else "-" for name in names]
        say(f"  {package:<30}" + "".join(f"{cell:>10}" for cell in (*cells, f"{builds[package]['seconds']:.1f}")))


def install_all(farm: Farm) -> bool:
    """Install all results in a clean chroot, made from the bindist, from nothing but the archive and our packages."""
    say()
    say("Installing all results in a clean chroot")
    bindist = farm.branch_directory / "tarballs" / "bindist.tar"
    try:
        rounds = install(farm.packages, bindist, DIRECTORY / "chroot")
    except NotInstalled as error:
        say(str(error))
        return False
    for number, members in enumerate(rounds):
        if number:
            say("  in another one, what cannot be installed with these")
        for member in members:
            say(f"  installed: {member.name} {member.version}")
    return True


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
