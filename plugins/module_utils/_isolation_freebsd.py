# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""FreeBSD: every step in a jail of its own, with its own C(/dev) and, unless it may use the network, loopback only.

Nothing here ends with the process that made it, so each step has a keeper, a fork of the supervisor. It mounts, makes
the jail, starts the command, and waits for the command's end or the supervisor's (which is the end of a pipe). Then it
kills everything in the jail, removes the jail and unmounts. While it does, it holds the chroot's lock, which it has
inherited: nobody takes the chroot for free. What a keeper that was killed itself has left is found by
C(_freebsd_remains), from the supervisor or from whoever comes next.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import typing as t

from . import _beneath, _freebsd
from ._errors import PortbuildError
from ._freebsd_remains import all_jails, clear, end_jail, find_jail, jails_of, kill_processes, processes_in, unmount
from ._isolation import BaseRefused, Confinement, Isolation, IsolationError, Offer, Outcome, PORTBUILD, Running
from ._node import read_conf
from ._process import check_run, CommandError, die_with_parent, run
from ._trees import mounts_below

DEVFS_RULESET = 4  # devfsrules_jail of /etc/defaults/devfs.rules
_GO, _KILL = b"g", b"k"  # what the supervisor tells a keeper
_MOUNT_SECONDS = 60.0
_JAIL_SECONDS = 60.0
_VERSION_SCRIPT = "bin/freebsd-version"
_VERSION_HEADER = "usr/include/sys/param.h"


class Means(t.NamedTuple):
    """What the per-node configuration says of jails."""

    devfs_ruleset: int = DEVFS_RULESET
    fdescfs: bool = False
    procfs: bool = False


def read_means(scratch: str) -> Means:
    """Return what setup wrote down."""
    conf = read_conf(scratch)
    return Means(
        _freebsd.parse_number(conf.get("devfs_ruleset", "")) or DEVFS_RULESET,
        conf.get("mount_fdescfs") == "True",
        conf.get("mount_procfs") == "True",
    )


def check_release(base: str) -> _freebsd.Release:
    """Return which release a base is; raises BaseRefused for one that is newer than the kernel, or does not say.

    System calls that the kernel does not know end programs, and a package made that way is worthless.
    """
    with _beneath.opened(_beneath.open_top(base)) as top:
        script, header = (_beneath.read_text(top, path) for path in (_VERSION_SCRIPT, _VERSION_HEADER))
    release = _freebsd.parse_release(script or "", header or "")
    if release is None:
        raise BaseRefused(
            f"The bindist in {base} does not say which release it is, by {_VERSION_SCRIPT} and {_VERSION_HEADER}.",
            remedy="Make it from a complete base.txz.",
        )
    kernel = _freebsd.parse_number(run(_freebsd.ask_system("kern.osreldate"), timeout=30).stdout)
    if kernel is None:
        raise BaseRefused("The kernel does not say its version (sysctl kern.osreldate).", remedy="Use another machine.")
    if release.number > kernel:
        raise BaseRefused(
            f"The bindist is FreeBSD {release.name} ({release.number}), newer than this machine's kernel ({kernel}).",
            remedy="Upgrade the machine, or make the branch's bindist from a release that is no newer.",
        )
    return release


class FreeBSDIsolation(Isolation):
    """Jails."""

    # Without network a jail has no IPv6 loopback, so nothing must be told that localhost is there.
    hosts = "127.0.0.1\tlocalhost portbuild\n"

    def __init__(self, chroot: str, token: int, means: Means) -> None:
        super().__init__()
        self.means = means
        self.release: _freebsd.Release | None = None
        self._chroot = os.path.realpath(chroot)
        self._token = token
        self._count = 0
        self._supervisor = os.getpid()
        self._pipes: set[int] = set()  # while one of them is open anywhere, its keeper waits
        self._jids: dict[str, int] = {}

    def protect(self) -> None:
        with contextlib.suppress(CommandError):
            run(_freebsd.protect(os.getpid()), timeout=10)

    def prepare(self) -> None:
        clear(self._chroot)
        self.release = check_release(os.path.realpath(os.path.join(self._chroot, "fs", "base")))
        self.environment = _freebsd.release_environment(self.release)

    def finish(self) -> None:
        clear(self._chroot)

    def begin_child(self) -> None:
        for descriptor in self._pipes:
            os.close(descriptor)
        self._pipes.clear()
        _default_signals()
        die_with_parent(self._supervisor)

    def resident(self, namespace: str) -> int:
        """Add up the memory of a jail's processes; what they share is counted once per process."""
        try:
            if namespace and namespace not in self._jids:
                jail = find_jail(namespace)
                if jail is not None:
                    self._jids[namespace] = jail.jid
            jid = self._jids.get(namespace)
            return sum(process.resident for process in processes_in(jid)) if jid else 0
        except PortbuildError:  # the machine is busy: it is asked again in a moment
            return 0

    def start(self, confinement: Confinement, output: int) -> Running:
        self._count += 1
        status = os.stat(self._chroot)
        name = _freebsd.jail_name(status.st_dev, status.st_ino, self._token, self._count)
        command_read, command_write = os.pipe()
        report_read, report_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(command_write)
            os.close(report_read)
            _Keeper(self.means, self.release, confinement, name).keep(output, command_read, report_write)
        os.close(command_read)
        os.close(report_write)
        self._pipes.add(command_write)
        return _JailedStep(self, confinement.root, name, pid, command_write, report_read)

    def forget(self, pipe: int, name: str) -> None:
        """Called when a step has ended."""
        self._pipes.discard(pipe)
        self._jids.pop(name, None)
        os.close(pipe)

    def clear_step(self, root: str) -> None:
        """End what a killed keeper left: the chroot's jails, and all mounts in this root."""
        for jail in jails_of(self._chroot, all_jails()):
            end_jail(jail)
        path = os.path.realpath(root)
        unmount([point for point in mounts_below(path) if point != path])  # the root itself may be mounted


class _JailedStep(Running):
    """A step, as the supervisor sees it: its keeper and two pipes."""

    def __init__(self, isolation: FreeBSDIsolation, root: str, name: str, pid: int, command: int, report: int) -> None:
        self.pid = pid
        self.namespace = name
        self._isolation = isolation
        self._root = root
        self._command = command
        self._report = report

    def go(self) -> None:
        self._tell(_GO)

    def fileno(self) -> int:
        return self._report

    def kill(self) -> None:
        self._tell(_KILL)  # never the keeper itself: it does the killing

    def _tell(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            os.write(self._command, word)

    def wait(self) -> Outcome:
        report = b""
        while chunk := os.read(self._report, 1 << 16):
            report += chunk
        os.close(self._report)
        os.waitpid(self.pid, 0)
        self._isolation.forget(self._command, self.namespace)
        try:
            return Outcome(**json.loads(report))
        except (ValueError, TypeError):  # the keeper was killed
            pass
        try:
            self._isolation.clear_step(self._root)
        except PortbuildError as error:
            return Outcome(problem=str(error))
        return Outcome(signal=signal.SIGKILL)


class _Keeper:
    """The process beside a step."""

    def __init__(self, means: Means, release: _freebsd.Release | None, confinement: Confinement, name: str) -> None:
        self._means = means
        self._release = release
        self._confinement = confinement
        self._name = name
        self._mounted: list[str] = []
        self._jail: _freebsd.Jail | None = None

    def keep(self, output: int, command: int, report: int) -> t.NoReturn:
        """Keep a step from its beginning to its end. Never returns."""
        answer: dict[str, t.Any] = {}
        try:
            _default_signals()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_IGN)  # it ends when the jail has
            os.setsid()
            try:
                self._build_world()
                # The supervisor's death shows as the end of this pipe.
                answer = (
                    self._run_command(output, command) if os.read(command, 1) == _GO else {"signal": signal.SIGKILL}
                )
            finally:
                self._tear_down()
        except BaseException as error:
            answer = {"problem": str(error) or type(error).__name__}
        with contextlib.suppress(OSError):
            os.write(report, json.dumps(answer).encode())
        os._exit(0)

    # -- the step's view of the world

    def _build_world(self) -> None:
        root, means = self._confinement.root, self._means
        with _beneath.opened(_beneath.open_top(root)) as top:
            self._mount(top, "dev", lambda point: _freebsd.mount_devfs(point, means.devfs_ruleset))
            if means.fdescfs:
                self._mount(top, "dev/fd", _freebsd.mount_fdescfs)
            if means.procfs:
                self._mount(top, "proc", _freebsd.mount_procfs)
            for offer in self._confinement.offers:
                self._offer(top, offer)
        argv = _freebsd.create_jail(
            self._name, os.path.realpath(root), network=self._confinement.network, release=self._release
        )
        check_run(argv, "Making the jail", timeout=_JAIL_SECONDS)
        self._jail = find_jail(self._name)
        if self._jail is None:
            raise IsolationError(
                f"The jail {self._name} was made, but is not there.", remedy="See jls -n name jid path."
            )

    def _mount(self, top: int, path: str, argv: t.Callable[[str], list[str]], *, make: bool = False) -> None:
        """Mount on a directory of the root; a link on the way would lead the mount astray, and is an error."""
        os.close(_beneath.open_directory(top, path, create=make))
        point = os.path.join(os.path.realpath(self._confinement.root), path)
        check_run(argv(point), f"Mounting {point}", timeout=_MOUNT_SECONDS)
        self._mounted.append(point)

    def _offer(self, top: int, offer: Offer) -> None:
        """Show a directory; put a file there anew for each step (nullfs takes only directories before FreeBSD 14)."""
        path = offer.target or f"{PORTBUILD}/{offer.name}"
        if os.path.isdir(offer.source):
            source = os.path.realpath(offer.source)
            self._mount(top, path, lambda point: _freebsd.mount_nullfs(source, point), make=True)
            return
        with open(offer.source, encoding="utf-8", errors="surrogateescape") as stream:
            _beneath.replace_text(top, path, stream.read(), mode=0o755)

    def _tear_down(self) -> None:
        """Leave nothing of the step; raises RemainsStuck if that cannot be had."""
        try:
            jail = self._jail or find_jail(self._name)  # it may have been made by a command that did not end in time
            if jail is not None:
                end_jail(jail)
        finally:
            unmount(self._mounted[::-1])

    # -- the command

    def _run_command(self, output: int, command: int) -> dict[str, t.Any]:
        wake_read, wake_write = os.pipe()
        for descriptor in (wake_read, wake_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        failed_read, failed_write = os.pipe()
        child = os.fork()
        if child == 0:
            self._become_command(output, failed_write)
        os.close(failed_write)
        os.close(output)  # or the supervisor would never see the end of it
        problem = os.read(failed_read, 4096)  # closed by a successful exec
        poll = select.poll()
        poll.register(command, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        while True:
            pid, status, usage = os.wait4(child, os.WNOHANG)
            if pid:
                break
            events = {descriptor for descriptor, _event in poll.poll()}
            if wake_read in events:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
            if command in events:  # to kill, or the supervisor is gone
                poll.unregister(command)
                self._kill(child)
        if problem:
            return {"problem": problem.decode("utf-8", "replace")}
        end = {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"exit": os.WEXITSTATUS(status)}
        # FreeBSD counts in KiB, as Linux does.
        return {**end, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_memory": usage.ru_maxrss * 1024}

    def _kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)  # it may not have entered the jail yet
        if self._jail is not None:
            kill_processes(self._jail)

    def _become_command(self, output: int, failed: int) -> t.NoReturn:
        confinement = self._confinement
        argv = _freebsd.run_in_jail(
            self._name,
            confinement.argv,
            user=confinement.user.name,
            cwd=confinement.cwd,
            environment=confinement.environment,
            resources=confinement.resources,
        )
        try:
            _default_signals()
            os.setsid()
            null = os.open("/dev/null", os.O_RDONLY)
            for wanted, descriptor in enumerate((null, output, output)):
                os.dup2(descriptor, wanted)
            os.set_inheritable(failed, False)
            os.closerange(3, failed)
            os.closerange(failed + 1, max(4096, failed + 2))
            confinement.enter_groups()
            os.execvp(argv[0], argv)
        except BaseException as error:
            os.write(failed, (str(error) or type(error).__name__).encode("utf-8", "replace"))
        os._exit(127)


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
