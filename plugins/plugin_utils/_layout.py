# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Where everything stands on the controller. No other file joins a path below the root."""

from __future__ import annotations

import contextlib
import os
import stat

from ..module_utils._errors import PortbuildError
from ..module_utils._names import BadName, check_arch, check_branch, check_machine, check_package
from ._conf import CONF, MLIST, PREFIX

_TAKEN = ("queue", "loads", MLIST)


class BadRoot(PortbuildError):
    """A root that no path can be made of."""


class ArchLayout:
    """The paths of an arch: what its branches share."""

    def __init__(self, root: str, arch: str) -> None:
        if not os.path.isabs(root):
            raise BadRoot(
                f"portbuild_root is {root!r}; an absolute path is expected." if root else "portbuild_root is not set.",
                remedy="It is the controller's directory of packages, logs and state.",
            )
        self.root = os.path.normpath(root)
        self.arch = check_arch(arch)
        self.arch_directory = os.path.join(self.root, self.arch)
        self.conf = os.path.join(self.arch_directory, CONF)
        self.mlist = os.path.join(self.arch_directory, MLIST)
        self.queue = os.path.join(self.arch_directory, "queue")
        self.loads = os.path.join(self.arch_directory, "loads")
        self.checks = os.path.join(self.loads, ".checks")  # what checkmachines remembers of the machines

    def machine_conf(self, machine: str) -> str:
        """The settings of one machine."""
        return os.path.join(self.arch_directory, PREFIX + check_machine(machine))

    def load(self, machine: str) -> str:
        """The load averages that were last seen on the machine."""
        return os.path.join(self.loads, check_machine(machine))

    def check(self, machine: str) -> str:
        """How often the machine was lost lately."""
        return os.path.join(self.checks, check_machine(machine) + ".json")

    def check_lock(self, machine: str) -> str:
        """Held by who checks the machine."""
        return os.path.join(self.checks, check_machine(machine) + ".lock")


class Layout(ArchLayout):
    """The paths of a branch of an arch."""

    def __init__(self, root: str, arch: str, branch: str) -> None:
        super().__init__(root, arch)
        self.branch = check_branch(branch)
        if branch in _TAKEN or branch.startswith(PREFIX):
            raise BadName(f"A branch cannot be called {branch!r}: the arch directory has a file of that name.")
        self.branch_directory = os.path.join(self.arch_directory, self.branch)
        self.index = self._below("INDEX")
        self.index_facts = self._below("INDEX.json")  # its SHA-256, and what it was made from
        self.duds = self._below("duds")
        self.holds = self._below("holds.json")  # packages that somebody does not want to be tried for a while
        self.holds_lock = self._below(".holds.lock")
        self.make_conf = self._below("make.conf")
        self.packages = self._below("packages", "All")
        self.logs = self._below("logs")
        self.errors = self._below("errors")
        self.distfiles = self._below("distfiles")
        self.workdirs = self._below("workdirs")
        self.database = self._below("portbuild.sqlite")
        self.tarballs = self._below("tarballs")
        self.bindist = self._below("tarballs", "bindist.tar")
        self.bindist_facts = self._below("tarballs", "bindist.json")  # its SHA-256, and what it was made from
        self.tree = self._below("tarballs", "tree.tar")
        self.tree_facts = self._below("tarballs", "tree.json")  # its SHA-256, and what it was made from
        self.incoming = self._below(".incoming")  # results on their way, on the file system they are renamed within
        self.publish_lock = self._below(".publish.lock")  # held while results are put in place, and while recorded
        self.cache = self._below(".cache")  # what was read once and can be read again
        self.bulk = self._below(
            "bulk"
        )  # of the last bulk build: what it came to, and what its failed dispatches printed
        self.spool = self._below(".spool")  # messages that wait for the mail server

    def make_bulk(self) -> str:
        """Make the directory of bulk builds, for whoever may write to the branch's, and return it."""
        os.makedirs(self.bulk, exist_ok=True)
        with contextlib.suppress(PermissionError):  # somebody else has made it
            os.chmod(self.bulk, stat.S_IMODE(os.stat(self.branch_directory).st_mode))
        return self.bulk

    def log(self, package: str) -> str:
        """The log of the package's last build."""
        return os.path.join(self.logs, f"{check_package(package)}.log")

    def error(self, package: str) -> str:
        """The log of the package's last build, if that failed."""
        return os.path.join(self.errors, f"{check_package(package)}.log")

    def for_index(self) -> Layout:
        """The same, but for the place that packages arrive at: the results of the job that makes the INDEX are none."""
        layout = Layout(self.root, self.arch, self.branch)
        layout.packages = self._below(".index")
        return layout

    @property
    def directories(self) -> tuple[str, ...]:
        """Everything that must exist before the first dispatch, parents first."""
        return (
            self.arch_directory,
            self.queue,
            self.loads,
            self.branch_directory,
            os.path.dirname(self.packages),
            self.packages,
            self.logs,
            self.errors,
            self.distfiles,
            self.workdirs,
            self.tarballs,
            self.incoming,
            self.spool,
        )

    def _below(self, *names: str) -> str:
        return os.path.join(self.branch_directory, *names)
