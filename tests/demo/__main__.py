# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build real packages on a cluster of one machine, show what came of it, and leave nothing behind but the results."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import ClientSpec, Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import CHECKOUT, Ended, Farm
from ansible_collections.portbuild.cluster.tests.tools.host import as_root

DIRECTORY = CHECKOUT / ".cache" / "demo"
HERE = pathlib.Path(__file__).parent
MACHINE = ClientSpec("builder", login="pbclient", maxjobs=2)
#: Each package, where its source comes from, and whether it is to be built. The third needs the second's result.
PACKAGES = (
    ("hello", "the Debian archive", True),
    ("tree", "the Debian archive", True),
    ("pb-hello", "tests/sources", True),
    ("pb-depends", "tests/sources", True),
    ("pb-fails", "tests/sources", False),
)
STEPS = (
    "Claim a machine",
    "Claim a chroot",
    "Build the package",
    "Fetch the results",
    "Touch the results",
    "Record the result",
    "Clean the chroot",
    "Release the machine",
)


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
    say("A build machine on a loopback address: its own sshd, processes and mounts; sudo to become root.")
    with Cluster.start(DIRECTORY / "cluster", [MACHINE]) as cluster:
        farm = Farm(cluster, DIRECTORY / "root", branch=debian_release())
        timed(
            "bindist: the base system, by mmdebstrap on the build machine",
            lambda: farm.play("bindist", timeout=900).ok(),
        )
        timed("setup: directories, bindist, queue", lambda: farm.play("setup", timeout=600).ok())
        rows = [(name, source, wanted, dispatch(farm, name)) for name, source, wanted in PACKAGES]
        show(farm, rows)
        wrong = [name for name, _source, wanted, ended in rows if (ended.status == 0) != wanted]
        if not install(farm):
            wrong.append("installing the results")
        farm.assert_idle()
    for path in DIRECTORY.glob("run-*"):
        path.unlink()
    say()
    say(f"The machine is gone; what was built is in {farm.packages}.")
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


def dispatch(farm: Farm, package: str) -> Ended:
    """Dispatch the package and show how long it took."""
    return timed(f"dispatch {package}", lambda: farm.dispatch(package, timeout=1800))


def show(farm: Farm, rows: t.Sequence[tuple[str, str, bool, Ended]]) -> None:
    """Print what was built, where everything is, and how long each step took, in seconds."""
    say()
    say("What was built")
    for name, source, wanted, _ended in rows:
        build = farm.builds(name)[-1]
        came = (
            f"built {build['version']}" if build["outcome"] == "success" else f"{build['reason']} in {build['phase']}"
        )
        say(f"  {name:<12} from {source:<20} {came}{'' if wanted else ', as it should'}")
        for path in sorted(farm.packages.glob(f"{name}*_*.deb")):
            say(f"      {path.relative_to(CHECKOUT)}")
        log = farm.branch_directory / ("logs" if build["outcome"] == "success" else "errors") / f"{name}.log"
        say(f"      {log.relative_to(CHECKOUT)}")
    say()
    say("How long each step took (s)")
    names = [row[0] for row in rows]
    say(f"  {'':<20}" + "".join(f"{name:>12}" for name in names))
    for step in STEPS:
        seconds = [sum(entry["seconds"] for entry in row[3].steps if entry["step"] == step) for row in rows]
        say(f"  {step:<20}" + "".join(f"{value:>12.2f}" for value in seconds))
    totals = [row[3].seconds for row in rows]
    say(f"  {'ansible-playbook':<20}" + "".join(f"{value:>12.2f}" for value in totals))


def install(farm: Farm) -> bool:
    """Install all results in a clean chroot, made from the bindist, from nothing but the archive and our packages."""
    say()
    say("Installing all results in a clean chroot")
    chroot = DIRECTORY / "chroot"
    bindist = farm.branch_directory / "tarballs" / "bindist.tar"
    try:
        script = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "sh", str(HERE / "install.sh")]
        done = subprocess.run(
            as_root([*script, str(chroot), str(bindist), str(farm.packages)]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
    finally:
        subprocess.run(as_root(["rm", "-rf", "--one-file-system", "--", str(chroot)]), check=True)
    for line in done.stdout.splitlines():
        if line.startswith("installed:"):
            say(f"  {line}")
    if done.returncode != 0:
        say(done.stdout + done.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
