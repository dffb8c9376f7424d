# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the host must have beside Python, and how it gets it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import typing as t

from .project import say, ToolError

#: Program -> the Debian package that has it. Clients use the host's programs.
FOR_CLUSTER = {
    "apt-get": "apt",
    "doas": "opendoas",
    "dpkg-source": "dpkg-dev",
    "mmdebstrap": "mmdebstrap",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "sudo": "sudo",
    "tar": "tar",
    "/usr/bin/python3": "python3",
}
FOR_LINT = {"bmake": "bmake", "git": "git", "shellcheck": "shellcheck"}
FOR_CHECK = {"ssh": "openssh-client"}
FOR_BENCH = {**FOR_CLUSTER, "make": "make", "sbuild": "sbuild", "unshare": "util-linux"}

PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POLICY = pathlib.Path("/usr/sbin/policy-rc.d")


def as_root(argv: t.Sequence[str]) -> list[str]:
    """Return the command that runs this one as root."""
    return list(argv) if os.geteuid() == 0 else ["sudo", "-n", "--", *argv]


def can_be_root() -> bool:
    """Say whether commands can be run as root without a password."""
    if os.geteuid() == 0:
        return True
    with contextlib.suppress(OSError):
        done = subprocess.run(["sudo", "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return done.returncode == 0
    return False


def missing(programs: t.Mapping[str, str]) -> list[str]:
    """Return the packages of the programs that are not there."""
    return sorted({package for program, package in programs.items() if not shutil.which(program, path=PLACES)})


def require(programs: t.Mapping[str, str], *, root: bool = True) -> None:
    """See to it that the programs are there: installs what is missing where that is possible, else says what is."""
    problems = []
    packages = missing(programs)
    able = can_be_root()
    if root and not able:
        problems.append("root rights: be root, or have sudo that asks for no password")
    if packages and able and shutil.which("apt-get", path=PLACES):
        install(packages)
        packages = missing(programs)
    if packages:
        problems.append(f"what is in the Debian packages {', '.join(packages)}")
    if problems:
        raise ToolError("This machine lacks\n" + "\n".join(f"  - {problem}" for problem in problems))


def install(packages: t.Sequence[str]) -> None:
    """Install Debian packages, without starting any service now or at the next boot."""
    say(f"Installing with apt-get: {' '.join(packages)}")
    services = "openssh-server" in packages
    with no_services_started():
        apt = as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120"])
        get = [*apt, "install", "--no-install-recommends", *packages]
        if subprocess.run(get, stdin=subprocess.DEVNULL, check=False).returncode != 0:
            say("Once more, with new package lists.")
            subprocess.run([*apt, "update"], stdin=subprocess.DEVNULL, check=False)
            subprocess.run(get, stdin=subprocess.DEVNULL, check=False)
    if services and shutil.which("systemctl", path=PLACES):
        say("The host's own ssh service stays switched off: the tests start sshd themselves.")
        subprocess.run(
            as_root(["systemctl", "--quiet", "disable", "ssh.service", "ssh.socket"]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )


@contextlib.contextmanager
def no_services_started() -> t.Iterator[None]:
    """Keep Debian's packages from starting services while they are installed."""
    if POLICY.exists():  # the administrator's own, commonly that of a container, where it says the same
        yield
        return
    script = f"printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}"
    subprocess.run(as_root(["sh", "-c", script]), check=True)
    try:
        yield
    finally:
        subprocess.run(as_root(["rm", "-f", str(POLICY)]), check=True)
