# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the supervisor asks of an operating system: to run one step of a build so that it can do no harm outside.

Linux does it with namespaces (C(_isolation_linux)), FreeBSD with a jail. The supervisor knows only this interface.
"""

from __future__ import annotations

import abc
import os
import typing as t

from . import _beneath
from ._errors import PortbuildError

PORTBUILD = "portbuild"  # the directory in a root where the supervisor offers what a step needs
OUT = PORTBUILD + "/out"  # what a step replies


class IsolationError(PortbuildError):
    """A step could not be started: the machine's fault, not the build's."""


class User(t.NamedTuple):
    """An account of the chroot."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class Offer(t.NamedTuple):
    """A file or directory of the host that a step sees, read-only.

    C(target) is where, relative to the root, for a directory only; by default it is C(portbuild/NAME).
    """

    name: str
    source: str
    target: str = ""


class Confinement(t.NamedTuple):
    """One command, and everything that it may see and use."""

    root: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    user: User
    cwd: str
    network: bool
    offers: tuple[Offer, ...]
    resources: dict[str, int]  # resource limits by the name of the RLIMIT_ constant
    shared_memory: int = 0  # bytes of /dev/shm
    enter_groups: t.Callable[[], None] = lambda: None


class Outcome(t.NamedTuple):
    """How a step ended; exactly one of the first three says something."""

    exit: int | None = None
    signal: int | None = None
    problem: str = ""  # it was never started
    cpu_seconds: float = 0.0
    peak_memory: int = 0  # of the largest single process


class Running(abc.ABC):
    """A step that runs."""

    pid: int  # while it exists, something of the step may exist
    namespace: str = ""  # what resident() knows it by: on Linux its PID namespace, on FreeBSD its jail

    @abc.abstractmethod
    def go(self) -> None:
        """Let the command start. Until then nothing of the build has run, and nothing will if the caller dies."""

    @abc.abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the step has ended."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End everything in the step at once, whatever it does about it."""

    @abc.abstractmethod
    def wait(self) -> Outcome:
        """Return the outcome. When this returns, nothing of the step is left."""


class BaseRefused(IsolationError):
    """A base that cannot run here."""


class Isolation(abc.ABC):
    """How an operating system confines."""

    hosts: t.ClassVar[str]  # the content of /etc/hosts in a root

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}  # what steps must see, known after prepare()

    def protect(self) -> None:
        """Called once, in the supervisor: outlive what the build does to the machine, and the session of who began."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Called once, in the supervisor, before anything is mounted.

        What an earlier supervisor of the chroot has left is gone then. Raises BaseRefused.
        """

    @abc.abstractmethod
    def finish(self) -> None:
        """Called once, at the end: nothing is mounted for the chroot any more, as whoever looks at it sees it."""

    @abc.abstractmethod
    def resident(self, namespace: str) -> int:
        """Return the bytes of memory that the processes of a running step have, 0 if that is not known."""

    @abc.abstractmethod
    def start(self, confinement: Confinement, output: int) -> Running:
        """Start a step whose output goes to the descriptor. The command waits for go()."""

    @abc.abstractmethod
    def begin_child(self) -> None:
        """Called first in every helper process of the supervisor: it must not outlive it."""


def get_isolation(scratch: str, chroot: str, token: int) -> Isolation:
    """Return the isolation of this operating system for the build of a chroot."""
    system = os.uname().sysname
    if system == "Linux":
        from ._isolation_linux import LinuxIsolation  # pylint: disable=import-outside-toplevel

        return LinuxIsolation()
    if system == "FreeBSD":
        from ._isolation_freebsd import FreeBSDIsolation, read_means  # pylint: disable=import-outside-toplevel

        return FreeBSDIsolation(chroot, token, read_means(scratch))
    raise IsolationError(f"There is no isolation for {system}.", remedy="Use another build machine.")


def check_base(base: str) -> None:
    """Raise BaseRefused if builds in this base cannot run on this machine's kernel."""
    if os.uname().sysname == "FreeBSD":
        from ._isolation_freebsd import check_release  # pylint: disable=import-outside-toplevel

        check_release(base)


def prepare_root(
    root: str, builder: User, *, hosts: str, resolv_conf: str | None, offers: t.Iterable[Offer] = ()
) -> None:
    """Make a pristine root ready for steps. Nothing of the build has run in it."""
    with _beneath.opened(_beneath.open_top(root)) as top:
        for path in ("dev", "proc", "tmp", PORTBUILD, *(offer.target for offer in offers if offer.target)):
            os.close(_beneath.open_directory(top, path, create=True))
        for path in (OUT, "build"):
            with _beneath.opened(_beneath.open_directory(top, path, create=True)) as directory:
                os.fchown(directory, builder.uid, builder.gid)
                os.fchmod(directory, 0o755)
        with _beneath.opened(_beneath.open_directory(top, "tmp")) as directory:
            os.fchmod(directory, 0o1777)
        _beneath.replace_text(top, "etc/hosts", hosts)
        if resolv_conf is not None:
            _beneath.replace_text(top, "etc/resolv.conf", resolv_conf)


def find_user(root: str, name: str) -> User:
    """Look an account up in a pristine root."""
    with _beneath.opened(_beneath.open_top(root)) as top:
        passwd = _beneath.read_text(top, "etc/passwd") or "root:x:0:0:root:/root:/bin/sh\n"
        group = _beneath.read_text(top, "etc/group") or ""
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[0] == name:
            groups = tuple(sorted({int(fields[3]), *_groups_of(group, name)}))
            return User(name, int(fields[2]), int(fields[3]), groups, fields[5] or "/")
    raise IsolationError(
        f"The base has no account {name!r} to build as.",
        remedy="Make the branch's base again, or set portbuild_build_user to an account that it has.",
    )


def _groups_of(text: str, name: str) -> t.Iterator[int]:
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and name in fields[3].split(","):
            yield int(fields[2])
