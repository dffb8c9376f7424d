# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The acceptance on a real build machine: everything that tests on Linux cannot show, through the real dispatch path.

Everything is done as a user would: through ansible-playbook and the person's own inventory, with a controller's root
and a scratch directory of the acceptance's own. What is done on the host is in shell that FreeBSD's and Linux's sh
both know, so that a test can run all of this on Linux, over a test double of a ports tree.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import re
import shlex
import signal
import sqlite3
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils._files import sha256_file
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._store import BuildRecord, SqliteStore, StoredFile
from ansible_collections.portbuild.cluster.tests.freebsd._report import Failed, Report
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Running

ARCH, BRANCH = "check", "acceptance"
SLEEP = "7531"  # how long pb-sleep sleeps: what its process is known by
PKG_ORIGIN = "ports-mgmt/pkg"
#: Nothing but what a command prints is to be in its output.
QUIET = {
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
    "ANSIBLE_LOCALHOST_WARNING": "False",
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_PYTHON_INTERPRETER": "auto_silent",
    "ANSIBLE_SYSTEM_WARNINGS": "False",
}


@dataclasses.dataclass(frozen=True)
class Site:
    """Where the acceptance takes place."""

    host: str
    root: pathlib.Path  # an empty directory of the controller, on a file system with room for packages
    ansible: pathlib.Path  # the directory of ansible-playbook
    environment: dict[str, str]
    inventory: tuple[str, ...] = ()  # options -i
    scratch: str = "/var/portbuild-check"
    variables: dict[str, t.Any] = dataclasses.field(default_factory=dict)  # of the person's, with their prefix
    limit: int = 180  # seconds after which pb-sleep is ended: more than a port takes to get as far as its build
    slow: int = 60  # seconds that pb-slow takes: more than a killed controller takes to be started again
    patience: float = 3600.0  # seconds that one command may take


class Acceptance:
    """The checks, in their order."""

    def __init__(
        self,
        site: Site,
        report: Report,
        *,
        make_tree: t.Callable[[Acceptance], str],
        pkg: t.Literal["host", "port"] = "host",
    ) -> None:
        self.site = site
        self.report = report
        self.layout = Layout(str(site.root / "root"), ARCH, BRANCH)
        self.temporary = ""  # a directory on the host
        self._make_tree = make_tree  # makes the tree and returns what portbuild_tree is to be
        self._tree = ""
        self._pkg = pkg
        self._numbers = itertools.count(1)

    def run(self) -> int:
        """Carry out all checks and leave nothing behind; return the exit status."""
        check = self.report.check
        try:
            check("the host can be reached, as root, with Python", self.host)
            check("bindist of its own release", self.bindist, needs=["the host can be reached, as root, with Python"])
            check("a little ports tree", self.tree, needs=["bindist of its own release"])
            check("setup", self.setup, needs=["a little ports tree"])
            check("setup again changes nothing", self.setup_again, needs=["setup"])
            check("INDEX", self.index, needs=["setup"])
            check("pkg, the first package", self.first_package, needs=["INDEX"])
            first = ["pkg, the first package"]
            check("a port with a local distfile", self.trivial, needs=first)
            check("a port with a dependency", self.depends, needs=["a port with a local distfile"])
            check("a port that fails", self.fails, needs=first)
            check("a packing-list error, PLISTCHECK off", self.plist_off, needs=first)
            check("a packing-list error, PLISTCHECK on", self.plist_on, needs=first)
            check("a time limit ends everything", self.time_limit, needs=first)
            check("kill -9 of the controller, and attach", self.kill_and_attach, needs=first)
            check("clean: no chroot, jail, mount or lease", self.clean, needs=["setup"])
        finally:
            check("nothing is left on the host", self.remove)
        return self.report.total()

    # -- the checks ------------------------------------------------------------------------------------------------

    def host(self) -> str:
        """Look at the host, and make a temporary directory there."""
        system = self.shell("uname -sr; id -u; mktemp -d /tmp/portbuild-check.XXXXXX").split("\n")
        if len(system) < 3 or not system[-1].startswith("/tmp/portbuild-check."):
            raise Failed(f"expected three lines, got {system}")
        self.temporary = system[-1]
        if system[-2] != "0":
            raise Failed(f"commands run with the uid {system[-2]}: set ansible_become for {self.site.host}")
        return system[-3]

    def bindist(self) -> str:
        """Make it, and look at what it says of itself."""
        self.play("bindist", bindist_machine=self.site.host).ok()
        facts = json.loads(pathlib.Path(self.layout.bindist_facts).read_text(encoding="utf-8"))
        return f"{facts.get('osrelease') or 'no release'}, {int(facts['size']) >> 20} MiB"

    def tree(self) -> str:
        """Make the tree on the controller. What pb-slow takes comes from the branch's make.conf."""
        self._tree = self._make_tree(self)
        make_conf = pathlib.Path(self.layout.branch_directory, "make.conf")
        make_conf.parent.mkdir(parents=True, exist_ok=True)
        make_conf.write_text(f"PB_SLOW=\t{self.site.slow}\n", encoding="utf-8")
        return self._tree

    def setup(self) -> str:
        """Prepare the host."""
        self.play("setup", tree=self._tree).ok()
        facts = json.loads(pathlib.Path(self.layout.tree_facts).read_text(encoding="utf-8"))
        found = self.shell(f"ls -d {self.site.scratch}/trees/{facts['sha256']}/Mk")
        return f"tree {found.split('/')[-2][:12]}"

    def setup_again(self) -> None:
        """Nothing is changed, neither in check mode nor outside it."""
        for arguments in (("--check", "--diff"), ()):
            changed = changes(self.play("setup", *arguments, tree=self._tree).ok().output)
            if changed != 0:
                raise Failed(f"{changed} tasks changed something {' '.join(arguments)}".rstrip())

    def index(self) -> str:
        """Make the INDEX on the host."""
        self.play("index").ok()
        lines = pathlib.Path(self.layout.index).read_text(encoding="utf-8", errors="replace").splitlines()
        ports = {line.split("|")[1].rpartition("/")[2]: line.count("|") for line in lines if "|" in line}
        wrong = [name for name in ("pkg", "pb-trivial", "pb-depends", "pb-sleep") if ports.get(name) != 12]
        if wrong:
            raise Failed(f"INDEX has no line of 13 fields for {', '.join(wrong)}: {sorted(ports)}")
        return f"{len(lines)} packages"

    def first_package(self) -> str:
        """Get pkg's own package: from the host, where it is installed, or by building its port."""
        if self._pkg == "port":
            self.built("pkg", asked=PKG_ORIGIN)
        else:
            self.record_given("pkg", self.brought("pkg-*.pkg"))
        return ", ".join(self.packages("pkg"))

    def trivial(self) -> str:
        """It is built, logged as it should be, and its package is at home."""
        self.built("pb-trivial")
        self.expect_log("pb-trivial", "building for:", "build started at", "ended at")
        return ", ".join(self.packages("pb-trivial"))

    def depends(self) -> str:
        """It finds what was built before it."""
        self.built("pb-depends")
        return ", ".join(self.packages("pb-depends"))

    def fails(self) -> str:
        """It is the port's failure, and its log says why."""
        row = self.not_built("pb-fails")
        self.expect_log("pb-fails", "error: it does not build")
        if not pathlib.Path(self.layout.error("pb-fails")).exists():
            raise Failed("errors/pb-fails.log is missing")
        return said(row)

    def plist_off(self) -> str:
        """Leftovers are reported, and do not fail the build."""
        self.built("pb-plist")
        return self.leftovers()

    def plist_on(self) -> str:
        """Leftovers fail the build."""
        row = self.not_built("pb-plist", plistcheck=True)
        self.leftovers()
        return said(row)

    def time_limit(self) -> str:
        """The build is ended, and with it all its processes."""
        row = self.not_built("pb-sleep", timeout=self.site.limit, silence_timeout=self.site.limit)
        if "timeout" not in row["reason"] and "silence" not in row["reason"]:
            raise Failed(f"it ended for another reason than time: {said(row)}")
        self.expect_nobody(f"sleep {SLEEP}")
        return said(row)

    def kill_and_attach(self) -> str:
        """The build goes on without its controller, and the next one brings its result home."""
        running = self.start("dispatch", package="pb-slow")
        try:
            self.wait_for_build("pb-slow", running)
        except BaseException:
            running.kill(signal.SIGTERM)
            raise
        running.kill()
        ended = self.play("dispatch", package="pb-slow")
        rows = self.builds("pb-slow")
        if ended.status != 0 or [row["outcome"] for row in rows] != ["success"]:
            raise Failed(f"{[said(row) for row in rows]}, {last_lines(ended.output)}")
        log = self.log("pb-slow")
        if log.count("build started at") != 1:
            raise Failed(f"the log tells of {log.count('build started at')} builds")
        return f"one build of {rows[0]['seconds']:.0f} s, attached to"

    def clean(self) -> None:
        """Neither the controller nor the host holds anything any more."""
        queue = pathlib.Path(self.layout.queue)
        counter = (queue / self.site.host).read_text(encoding="ascii").strip()
        leases = [path.name for path in (queue / ".claims").rglob("[!.]*:*") if path.is_file()]
        scratch = shlex.quote(self.site.scratch)
        left = self.shell(
            f"find {scratch}/chroots -mindepth 3 -maxdepth 3; mount | grep -F ' {self.site.scratch}/' || :; "
            f"if command -v jls > /dev/null; then jls path | grep -F {scratch}/ || :; fi"
        )
        if counter != "0" or leases or left:
            raise Failed(f"counter {counter}, leases {leases}, on the host: {left or 'nothing'}")

    def remove(self) -> None:
        """Take everything away from the host."""
        scratch, names = shlex.quote(self.site.scratch), [self.site.scratch]
        if self.temporary:
            names.append(self.temporary)
        self.shell(
            f"if mount | grep -F ' {self.site.scratch}/'; then exit 1; fi; "
            f"for name in {' '.join(shlex.quote(name) for name in names)}; do "
            'if [ "$(uname)" = FreeBSD ]; then [ ! -d "$name" ] || chflags -R 0 "$name"; rm -rxf "$name"; '
            'else rm -rf --one-file-system "$name"; fi; done; '
            f"[ ! -e {scratch} ]"
        )

    # -- what they are made of -------------------------------------------------------------------------------------

    def start(self, playbook: str, *arguments: str, **variables: t.Any) -> Running:
        """Start a playbook of the collection. Keyword arguments are portbuild_ variables without their prefix."""
        own = {
            "portbuild_root": self.layout.root,
            "portbuild_arch": ARCH,
            "portbuild_branch": BRANCH,
            "portbuild_system": "ports",
            "portbuild_machines": self.site.host,
            "portbuild_scratchdir": self.site.scratch,
            "portbuild_create_client_user": False,
            "portbuild_maxjobs": 1,
            "portbuild_claim_timeout": 60,
            "portbuild_attempts": 1,
            # Whatever the person's inventory says of these.
            "portbuild_mail_host": "",
            "portbuild_noclean": False,
            "portbuild_plistcheck": False,
            "portbuild_check": "on",
        }
        wanted = {**own, **self.site.variables, **{f"portbuild_{name}": value for name, value in variables.items()}}
        argv = [str(self.site.ansible / "ansible-playbook"), *self.site.inventory, f"portbuild.cluster.{playbook}"]
        return self._running([*argv, "-e", json.dumps(wanted), *arguments])

    def _running(self, argv: list[str]) -> Running:
        return Running(argv, {**self.site.environment, **QUIET}, self.site.root / f"{next(self._numbers):02d}.out")

    def play(self, playbook: str, *arguments: str, **variables: t.Any) -> Ended:
        """Run a playbook to its end."""
        return self.start(playbook, *arguments, **variables).end(self.site.patience)

    def shell(self, command: str) -> str:
        """Run a command on the host as root and return what it prints."""
        argv = [str(self.site.ansible / "ansible"), *self.site.inventory, self.site.host]
        ended = self._running([*argv, "-m", "ansible.builtin.shell", "-a", command]).end(self.site.patience)
        head, found, text = ended.output.partition(">>\n")
        if ended.status != 0 or not found:
            raise Failed(f"{command[:200]} on {self.site.host}: {last_lines(ended.output)}")
        return "" if "rc=0" not in head else text.strip()

    def bring(self, remote: str, local: pathlib.Path) -> pathlib.Path:
        """Copy a file from the host."""
        argv = [str(self.site.ansible / "ansible"), *self.site.inventory, self.site.host]
        options = f"src={shlex.quote(remote)} dest={shlex.quote(str(local))} flat=true"
        ended = self._running([*argv, "-m", "ansible.builtin.fetch", "-a", options]).end(self.site.patience)
        if ended.status != 0 or not local.is_file():
            raise Failed(f"{remote} could not be brought from {self.site.host}: {last_lines(ended.output)}")
        return local

    def brought(self, pattern: str) -> pathlib.Path:
        """Return the one file that the tree's maker brought along."""
        found = sorted(self.site.root.glob(pattern))
        if len(found) != 1:
            raise Failed(f"expected one {pattern} in {self.site.root}, found {len(found)}")
        return found[0]

    def record_given(self, package: str, file: pathlib.Path) -> None:
        """Put a package that was made elsewhere with ours."""
        target = pathlib.Path(self.layout.packages, file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        stored = StoredFile("package", target.name, target.stat().st_size, sha256_file(str(target)))
        build = BuildRecord(
            queue="given", token=1, package=package, machine=self.site.host, outcome="success", reason="success"
        )
        SqliteStore(self.layout.database).record(build, [stored])

    def built(self, package: str, *, asked: str = "", **variables: t.Any) -> dict[str, t.Any]:
        """Dispatch a port that is to be built."""
        ended = self.play("dispatch", package=asked or package, **variables)
        row = (self.builds(package) or [{}])[-1]
        if ended.status != 0 or row.get("outcome") != "success":
            raise Failed(f"{package} was not built: {said(row)}; {self.tail(package) or last_lines(ended.output)}")
        if not self.packages(package):
            raise Failed(f"{package} was built, and there is no package of it")
        return row

    def not_built(self, package: str, **variables: t.Any) -> dict[str, t.Any]:
        """Dispatch a port that is not to be built, by its own fault."""
        ended = self.play("dispatch", package=package, **variables)
        row = (self.builds(package) or [{}])[-1]
        if ended.status == 0 or row.get("outcome") != "failed" or row.get("infrastructure"):
            raise Failed(f"{package} should have failed by its own fault: {said(row)}; {last_lines(ended.output)}")
        return row

    def builds(self, package: str) -> list[dict[str, t.Any]]:
        """Return the recorded builds, oldest first."""
        try:
            with sqlite3.connect(f"file:{self.layout.database}?mode=ro", uri=True) as database:
                database.row_factory = sqlite3.Row
                rows = database.execute("select * from builds where package = ? order by id", (package,)).fetchall()
        except sqlite3.Error:
            return []
        return [dict(row) for row in rows]

    def packages(self, package: str) -> list[str]:
        """Return the names of the package's files."""
        return sorted(path.name for path in pathlib.Path(self.layout.packages).glob(f"{package}-[0-9]*"))

    def log(self, package: str) -> str:
        path = pathlib.Path(self.layout.log(package))
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def tail(self, package: str) -> str:
        return " / ".join(self.log(package).splitlines()[-8:])

    def expect_log(self, package: str, *phrases: str) -> None:
        log = self.log(package)
        missing = [phrase for phrase in phrases if phrase not in log]
        if missing:
            raise Failed(f"the log of {package} lacks {', '.join(map(repr, missing))}: {self.tail(package)}")

    def leftovers(self) -> str:
        found = re.findall(r"^extra\t(.*)$", self.log("pb-plist"), re.MULTILINE)
        if not found:
            raise Failed(f"the log names nothing that was left: {self.tail('pb-plist')}")
        return f"left: {', '.join(found[:5])}"

    def expect_nobody(self, command: str) -> None:
        """Fail if a process of this command line runs on the host."""
        pattern = f"[{command[0]}]{command[1:]}"
        left = self.shell(
            f"ps -axww -o command | grep -F -x -e {shlex.quote(command)} | grep -e {shlex.quote(pattern)} || :"
        )
        if left:
            raise Failed(f"still there: {left}")

    def wait_for_build(self, package: str, running: Running) -> None:
        """Wait until the port itself is being built."""
        path = f"{self.site.scratch}/chroots/{ARCH}/{BRANCH}/{package}/log"
        deadline = time.monotonic() + self.site.patience
        while "second " not in self.shell(f"tail -n 3 {path} 2> /dev/null || :"):
            if running.process.poll() is not None:
                raise Failed(f"the dispatch ended too early: {last_lines(running.output())}")
            if time.monotonic() > deadline:
                raise Failed("the build did not begin")
            time.sleep(1)


def changes(output: str) -> int:
    """Return how many tasks the recap says to have changed something."""
    return sum(int(number) for number in re.findall(r"\bchanged=([0-9]+)", output))


def said(row: t.Mapping[str, t.Any]) -> str:
    """Return what a record says of how a build ended."""
    if not row:
        return "nothing was recorded"
    return " ".join(f"{row['outcome']}, {row['reason']} in {row['phase'] or 'no phase'}: {row['detail']}".split())[:300]


def last_lines(output: str, count: int = 6) -> str:
    """Return the end of what a command said, in one line."""
    lines = [
        line.strip() for line in output.splitlines() if line.strip() and not line.startswith(("PLAY RECAP", "\x1b"))
    ]
    return " / ".join(lines[-count:])[-1200:]
