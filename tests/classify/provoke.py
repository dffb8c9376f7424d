# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the logs that the classifier is tried on, by provoking each failure again.

    python tests/classify/provoke.py [--all] [NAME...]

As root on Debian, with the tools of the cases installed. Each case runs its script as nobody in namespaces of its own:
without a network, with an empty directory C(/build), on a host called C(builder). What it prints goes to
C(logs/NAME.log), framed as the supervisor frames it, shortened in the middle. Without names all cases that have no log
are run; with C(--all) all are run anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parent
LOGS = HERE / "logs"
DOUBLE = HERE.parent / "ports" / "tree"
CACHE = HERE.parent.parent / ".cache" / "classify"
HEAD = 2500
SECONDS = 300
_ENVIRONMENT = {
    "HOME": "/build/home",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "SOURCE_DATE_EPOCH": "1793534400",
    "USER": "builder",
    "DEB_BUILD_OPTIONS": "parallel=2",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# What is this machine's alone, people, and moments that tell nothing.
_PRIVATE = [
    (re.compile(r"/tmp/[A-Za-z0-9_.-]*"), "/tmp/x"),
    (re.compile(r"\b20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-9:_.Z]+"), "DATE"),
    (re.compile(r"(?<=source changed by ).*"), "A Builder <builder@example.org>"),
    (
        re.compile(r"\b[A-Za-z0-9._+-]+@(?:debian\.org|(?!example\.)[a-z0-9-]+\.(?:com|net|de|fr|uk|es|it))\b"),
        "builder@example.org",
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A log, how it is made, and what it is to be taken for."""

    name: str
    label: str
    script: str
    how: str = ""
    system: str = "debian"
    phase: str = "build"
    reason: str = "failed"
    detail: str = ""
    root: bool = False
    source: str = ""
    """The Debian source package that is there, unpacked."""
    keep: int = 6500
    """How many characters of the end of the log are kept."""

    @property
    def held_out(self) -> bool:
        """Whether no rule was written for it: decided by the name alone, so that nobody chooses."""
        return hashlib.sha256(self.name.encode()).digest()[0] % 2 == 1

    @property
    def fails(self) -> bool:
        """Whether its script is to fail."""
        return not self.name.startswith("success-")

    @property
    def log(self) -> pathlib.Path:
        """Where its log is."""
        return LOGS / f"{self.name}.log"


def cases() -> list[Case]:
    """Return all cases, by name."""
    found = []
    for path in sorted(HERE.glob("cases/*.yml")):
        found += [Case(**case) for case in yaml.safe_load(path.read_text("utf-8"))]
    if len({case.name for case in found}) != len(found):
        raise ValueError("Two cases have the same name.")
    return sorted(found, key=lambda case: case.name)


_SETUP = """
set -e
hostname builder
ip link set lo up 2> /dev/null || :
mount -t tmpfs -o mode=0755 tmpfs /build
mkdir -p /build/home /build/work/hello
cp -r "$1" /build/double
cp "$2" /build/prelude.sh
[ -z "$3" ] || (cd /build/work/hello && dpkg-source -x "$3"/*.dsc > /dev/null 2>&1)
cat > /build/case.sh
chown -R nobody /build/home /build/work /build/double
chmod 1777 /build
cd /build/work/hello
"""
_RUN = 'exec env -i {environment} {become} sh -ec ". /build/prelude.sh; . /build/case.sh" 2>&1'


def source(case: Case) -> str:
    """Return the directory of the case's source package, having downloaded it if need be; empty if it has none."""
    if not case.source:
        return ""
    directory = CACHE / case.source
    if not directory.is_dir():
        lists = CACHE / "apt"
        (lists / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (lists / "sources.list").write_text("deb-src http://deb.debian.org/debian bookworm main\n", encoding="ascii")
        apt = ["apt-get", "-q", "-o", f"Dir::State::lists={lists}/lists", "-o", f"Dir::Cache={lists}",
               "-o", f"Dir::Etc::SourceList={lists}/sources.list", "-o", "Dir::Etc::SourceParts=-",
               "-o", "APT::Sandbox::User=root"]  # fmt: skip
        if not any((lists / "lists").glob("*_Sources*")):
            subprocess.run([*apt, "update"], check=True)
        directory.mkdir()
        subprocess.run([*apt, "source", "--download-only", case.source], cwd=directory, check=True)
    return str(directory)


def provoke(case: Case) -> tuple[int, str]:
    """Run the case; return its exit status and what it said."""
    become = "" if case.root else "setpriv --reuid=65534 --regid=65534 --clear-groups"
    environment = " ".join(f"{name}={value}" for name, value in _ENVIRONMENT.items())
    inner = _SETUP + _RUN.format(environment=environment, become=become)
    os.makedirs("/build", exist_ok=True)
    done = subprocess.run(
        ["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", inner,
         "sh", str(DOUBLE), str(HERE / "prelude.sh"), source(case)],
        input=case.script.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode("utf-8", "replace")


def framed(case: Case, status: int, text: str) -> str:
    """Return the log as the supervisor would have written it."""
    for private, public in _PRIVATE:
        text = private.sub(public, text)
    if len(text) > HEAD + case.keep + 500:
        head, tail = text[:HEAD].rpartition("\n")[0], text[-case.keep :].partition("\n")[2]
        text = f"{head}\n[{text.count(chr(10)) - head.count(chr(10)) - tail.count(chr(10))} lines are left out]\n{tail}"
    if not text.endswith("\n"):
        text += "\n"
    banner = f"{'=' * 20}<phase 1: {case.phase} (step {case.phase}, user builder, network no)>{'=' * 20}\n"
    if not status:
        return f"{banner}{text}=== ended: success after 1.0 s ===\n"
    how = f"=== The step {case.phase} failed with exit status {status}. ===\n"
    return f"package: hello\n{banner}{text}{how}=== ended: failed after 1.0 s ===\n"


def main() -> int:
    """Make the logs; 0 when each script did what it is to do."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    LOGS.mkdir(exist_ok=True)
    wrong = 0
    for case in cases():
        if options.names and case.name not in options.names:
            continue
        if not options.names and not options.all and case.log.exists():
            continue
        try:
            status, text = provoke(case)
        except subprocess.TimeoutExpired:
            status, text = -1, "It took too long."
        if (status != 0) != case.fails or status < 0 or 128 < status < 200:
            print(f"{case.name}: exit status {status}:\n{text[-1500:]}", file=sys.stderr)
            wrong += 1
            continue
        case.log.write_text(framed(case, status, text), encoding="utf-8", newline="")
        print(f"{case.name}: {len(text)} characters")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
