# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The supervisor: a program of its own on the client that carries one build from its first step to its last.

It is detached from the connection that started it. It holds the lock of its chroot for its lifetime, runs the steps
one after the other, each isolated, watches the limits, brings the results out, and tells how far it is in
C(status.json). When it ends, in whatever way, nothing of the build is left running.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import sys
import time
import traceback
import typing as t

from . import _beneath
from ._backends import Backend, BACKENDS
from ._cgroups import group_name, memory_control
from ._collect import BadResults, Budget, collect, Collected, copy_out, keep_archive, matching, parse_checksums
from ._errors import PortbuildError
from ._files import read_json
from ._isolation import (
    Confinement,
    find_user,
    get_isolation,
    Isolation,
    Offer,
    OUT,
    Outcome,
    prepare_root,
    Running,
    User,
)
from ._limits import DiskWatch, Exceeded, MemoryWatch
from ._lock import Lock, try_lock
from ._names import check_file_name, Job
from ._process import boot_id, process_start_time
from ._progress import BuildLog, INFRASTRUCTURE, LOG, log_entry, STATUS, Status
from ._request import Request, Step

SOFT_FAILURE = 75  # EX_TEMPFAIL: a step with network asks to be tried elsewhere
FETCH_PHASE = "fetch"  # of this phase no step runs what a package brought along
BUILD_PHASE = "build"  # after the last step of this phase the packages are brought out

_TICK = 0.5
_MEMORY_BRAKE = 4 << 30
_CHUNK = 1 << 16
_SHELL = "/bin/sh"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKING_LIST_KINDS = ("extra", "missing", "changed")
_LEFTOVER_KINDS = (*_PACKING_LIST_KINDS, "setuid", "setgid", "world_writable", "uninstallable")
_REPLIES = ("about", "needs", "archives.list", "leftovers")
_ABOUT = ("version", "maintainer", "broken")  # what a step that fetches may tell of the source
_TREE = "usr/ports"  # where a step sees the tree of recipes
_RULER = "=" * 20
_MAX_REPLY = 4 << 20
_MAX_LEFTOVERS = 2000
_MAX_LEFTOVER_PATHS = 256 << 10  # characters, of all together: a status must stay readable, whatever a package does
_MAX_WARNINGS = 200
_WORKDIR_SECONDS = 1800


class Ended(Exception):
    """The build is over, for this reason."""

    def __init__(
        self, reason: str, detail: str = "", *, infrastructure: bool | None = None, outcome: Outcome | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.infrastructure = reason in INFRASTRUCTURE if infrastructure is None else infrastructure
        self.exit = outcome.exit if outcome else None
        self.signal = outcome.signal if outcome else None


class Wakeup:
    """SIGTERM and SIGINT as something to poll."""

    def __init__(self) -> None:
        self.stopped = False
        self._read, write = os.pipe()
        for descriptor in (self._read, write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _stop(self, _number: int, _frame: t.Any) -> None:
        self.stopped = True

    def fileno(self) -> int:
        return self._read

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, _CHUNK)


class Paths:
    """The files of a job on the client."""

    def __init__(self, chroot: str) -> None:
        self.chroot = chroot
        # <scratch>/chroots/<arch>/<branch>/<package>
        self.scratch = os.path.abspath(os.path.join(chroot, "..", "..", "..", ".."))
        self.inputs_cache = os.path.join(self.scratch, "cache", "inputs")
        self.archives_cache = os.path.join(self.scratch, "cache", "archives")

    def base(self, sha256: str) -> str:
        """Return the directory of an extracted base."""
        return os.path.join(self.scratch, "bases", sha256)

    def tree(self, sha256: str) -> str:
        """Return the directory of an extracted tree of recipes."""
        return os.path.join(self.scratch, "trees", sha256)

    def of(self, *names: str) -> str:
        """Return a path in the job's directory."""
        return os.path.join(self.chroot, *names)


class Supervisor:
    """One build."""

    def __init__(
        self, paths: Paths, request: Request, *, isolation: Isolation, backend: Backend, wakeup: Wakeup
    ) -> None:
        self._paths = paths
        self._request = request
        self._isolation = isolation
        self._backend = backend
        self._wakeup = wakeup
        self._owner = _account(request.client_user)
        self._status = Status(paths.of(STATUS), _identity(request))
        self._log: BuildLog
        self._root = ""
        self._builder: User
        self._superuser: User
        self._memory: MemoryWatch
        self._disk: DiskWatch
        self._offers: tuple[Offer, ...] = ()
        self._packages: list[Collected] | None = None
        self._distfiles: list[Collected] = []
        self._workdir: list[Collected] = []
        self._budget = Budget(request.limits.results)
        self._waited = 0.0
        self._banners = 0

    def announce(self) -> None:
        """Write the first status: from now on the build is known to run."""
        self._status.write()

    def run(self) -> None:
        """Carry the build to its end."""
        limits = self._request.limits
        control = memory_control(
            group_name(self._paths.chroot), memory=limits.memory, processes=limits.processes, wanted=limits.cgroups
        )
        self._control = control
        self._memory = MemoryWatch(control, limits.memory, self._isolation.resident)
        self._status.values.update(limits=control.kind)
        end = Ended("killed", "The supervisor failed.")
        try:
            end = self._to_the_end()
        finally:
            control.remove()
            self._finish(end)

    def _to_the_end(self) -> Ended:
        try:
            self._log = BuildLog(self._paths.of(LOG), limit=self._request.limits.log, owner=self._owner)
            self._header()
            self._prepare()
            self._run_steps()
            self._take_results()
            end = self._judge_leftovers()
        except Ended as ended:
            end = ended
        except OSError as error:
            end = _from_oserror(error)
            self._explain(end)
        except BadResults as error:
            end = Ended("results", str(error))
        except _beneath.UnsafeFile as error:
            end = Ended("failed", f"The build damaged its root: {error}")
        except PortbuildError as error:
            end = Ended("chroot", str(error))
        except Exception as error:  # pylint: disable=broad-except
            end = Ended("killed", f"Internal error of the supervisor: {type(error).__name__}: {error}")
            self._explain(end)
        self._disk_close()
        self._keep_workdir(end)
        self._keep_chroot()
        self._finish_isolation()
        return end

    def _finish_isolation(self) -> None:
        try:
            self._isolation.finish()
        except (OSError, PortbuildError) as error:  # whoever cleans the chroot meets it again
            with contextlib.suppress(OSError, AttributeError):
                self._warn(f"Something is left in the chroot: {error}")

    def _explain(self, end: Ended) -> None:
        with contextlib.suppress(Exception):
            self._log.frame(traceback.format_exc().rstrip())
            self._log.frame(end.detail)

    def _disk_close(self) -> None:
        with contextlib.suppress(AttributeError):
            self._disk.close()

    # -- preparation

    def _header(self) -> None:
        request = self._request
        for name, value in (
            ("building for", f"{request.job.arch} {request.job.branch}"),
            ("package", request.job.package),
            ("machine", request.machine),
            ("directory", self._paths.chroot),
            *request.header,
            ("token", request.token),
            ("backend", f"{request.backend}, memory by {self._control.kind}"),
        ):
            self._log.frame(f"{name}: {value}")
        self._log.frame(f"build started at {_date(self._status.values['started'])}")

    def _prepare(self) -> None:
        request = self._request
        for directory in (self._paths.archives_cache, self._paths.inputs_cache):
            os.makedirs(directory, 0o755, exist_ok=True)
        for name in ("inputs", "repo", "staged"):
            os.makedirs(self._paths.of(name), 0o755, exist_ok=True)
        self._results_directory("")
        try:
            self._isolation.prepare()
            self._root = self._mount("root")
            self._builder = find_user(self._root, request.build_user)
            self._superuser = find_user(self._root, "root")
            self._prepare_root(self._root)
            offers = self._planned_offers()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Ended("chroot", f"The chroot could not be made: {error}") from error
        self._offers = offers
        limits = request.limits
        watched, own = self._backend.watched(self._paths.chroot, self._root)
        self._disk = DiskWatch(
            watched,
            lambda: self._backend.usage(self._paths.chroot),
            limit=limits.disk,
            min_free=limits.min_free,
            own=own,
            begin_child=self._isolation.begin_child,
        )

    def _planned_offers(self) -> tuple[Offer, ...]:
        offers = [
            Offer(name, source)
            for name, source in (
                ("build.sh", self._paths.of("build.sh")),
                ("inputs", self._paths.of("inputs")),
                ("repo", self._paths.of("repo")),
                ("staged", self._paths.of("staged")),
                ("archives", self._paths.archives_cache),
            )
        ]
        if self._request.tree:
            tree = self._paths.tree(self._request.tree)
            os.stat(tree)
            offers.append(Offer("ports", tree, _TREE))
        return tuple(offers)

    def _mount(self, name: str) -> str:
        request = self._request
        return self._backend.mount(
            self._paths.chroot, self._paths.base(request.base), name=name, size=request.limits.disk
        )

    def _prepare_root(self, root: str) -> None:
        resolv_conf = None
        with contextlib.suppress(OSError), open("/etc/resolv.conf", encoding="utf-8", errors="replace") as stream:
            resolv_conf = stream.read(1 << 16)
        offers = self._planned_offers()
        prepare_root(root, self._builder, hosts=self._isolation.hosts, resolv_conf=resolv_conf, offers=offers)

    # -- steps

    def _run_steps(self) -> None:
        steps = list(self._request.steps)
        built = False
        while steps:
            step = steps.pop(0)
            if step.fresh or (built and step.phase != BUILD_PHASE):
                self._take_packages()
            built = built or step.phase == BUILD_PHASE
            if step.fresh:
                group = [step]
                while steps and steps[0].fresh and steps[0].group == step.group:
                    group.append(steps.pop(0))
                self._run_in_fresh_roots(group)
            else:
                self._run_step(step, self._root, "")
                self._take_distfiles(step, steps[0] if steps else None)

    def _take_distfiles(self, step: Step, following: Step | None) -> None:
        """Bring them out after the last step that fetches.

        Later, when code of the package has run, nobody knows what these files are.
        """
        last = following is None or following.phase != step.phase
        if step.phase == FETCH_PHASE and last and self._request.want_distfiles:
            self._distfiles = self._collect("distfiles", "distfile")

    def _run_in_fresh_roots(self, group: list[Step]) -> None:
        pattern = group[0].each
        for item in matching(self._packages or (), pattern) if pattern else [""]:
            root = self._mount("fresh")
            try:
                self._prepare_root(root)
                for step in group:
                    self._run_step(step, root, item)
            finally:
                self._backend.drop(self._paths.chroot, "fresh")

    def _run_step(self, step: Step, root: str, item: str) -> None:
        self._forget_replies(root)
        self._judge(step, self._time(step, root, item))
        self._take_replies(step, root, item)

    def _time(self, step: Step, root: str, item: str) -> Outcome:
        phase = self._enter_phase(step, item)
        began = time.monotonic()
        try:
            return self._confine_and_watch(step, root, item)
        finally:
            phase["seconds"] = round(phase["seconds"] + time.monotonic() - began, 3)

    def _judge(self, step: Step, outcome: Outcome) -> None:
        """Raise Ended if the build cannot go on after this."""
        if outcome.problem:
            raise Ended("chroot", f"The step {step.name} could not be started: {outcome.problem}")
        if outcome.exit == 0:
            return
        how = f"exit status {outcome.exit}" if outcome.signal is None else f"signal {outcome.signal}"
        if step.network and outcome.exit == SOFT_FAILURE:
            raise Ended("fetch_infrastructure", f"The step {step.name} could not get what it needs.", outcome=outcome)
        if step.optional:
            self._warn(f"The step {step.name} failed with {how}; it is optional.")
            return
        raise Ended("failed", f"The step {step.name} failed with {how}.", outcome=outcome)

    def _enter_phase(self, step: Step, item: str) -> dict[str, t.Any]:
        phases: list[dict[str, t.Any]] = self._status.values["phases"]
        if not phases or phases[-1]["name"] != step.phase:
            phases.append({"name": step.phase, "seconds": 0.0, "cpu": 0.0})
        network = "yes" if step.network else "no"
        what = f"{step.name} {item}".rstrip()
        self._banners += 1
        about = f"{step.phase} (step {what}, user {step.user}, network {network})"
        self._log.frame(f"{_RULER}<phase {self._banners}: {about}>{_RULER}")
        self._status.values.update(phase=step.phase, step=step.name)
        return phases[-1]

    def _confine_and_watch(self, step: Step, root: str, item: str) -> Outcome:
        user = self._superuser if step.user == "root" else self._builder
        confinement = self._confinement(
            root,
            (_SHELL, "/portbuild/build.sh", step.name, *([item] if item else [])),
            user,
            cwd="/" if step.fresh else "/build",
            network=step.network,
            environment=step.environment,
        )
        read, write = os.pipe()
        try:
            with contextlib.suppress(OSError):  # FreeBSD gives pipes no owner, and needs none for this
                os.fchown(write, user.uid, user.gid)  # or the build could not open /dev/stderr
            running = self._isolation.start(confinement, write)
        finally:
            os.close(write)
        with _beneath.opened(read):
            self._status.write(
                step_pid=running.pid, step_start=process_start_time(running.pid) or "", log_bytes=self._log.size
            )
            running.go()
            exceeded = self._watch(running, read)
            outcome = running.wait()
            exceeded = self._rest_of_output(read) or exceeded
        self._account_for(outcome)
        if exceeded is None and (outcome.exit != 0 or outcome.signal is not None):
            exceeded = self._memory.check("") or self._disk.final()
        if exceeded is not None:
            raise Ended(exceeded.reason, exceeded.detail, infrastructure=exceeded.infrastructure, outcome=outcome)
        return outcome

    def _confinement(
        self,
        root: str,
        argv: tuple[str, ...],
        user: User,
        *,
        cwd: str = "/",
        network: bool = False,
        environment: t.Mapping[str, str] | None = None,
    ) -> Confinement:
        limits = self._request.limits
        resources = {"RLIMIT_CORE": 0}
        if limits.processes and not self._control.limits_processes():
            resources["RLIMIT_NPROC"] = limits.processes
        if limits.memory and self._control.kind == "none":
            # Only a brake for what is faster than the watch: what it refused would look like the build's own failure.
            resources["RLIMIT_DATA"] = limits.memory + _MEMORY_BRAKE
        return Confinement(
            root=root,
            argv=argv,
            environment={
                "PATH": _PATH,
                "HOME": user.home,
                "USER": user.name,
                "LOGNAME": user.name,
                "SHELL": _SHELL,
                "LC_ALL": "C.UTF-8",
                "TERM": "dumb",
                **self._isolation.environment,
                **self._request.environment,
                **(environment or {}),
            },
            user=user,
            cwd=cwd,
            network=network,
            offers=self._offers,
            resources=resources,
            shared_memory=limits.memory // 2,
            enter_groups=self._control.enter,
        )

    def _account_for(self, outcome: Outcome) -> None:
        values = self._status.values
        values["cpu_seconds"] = round(values["cpu_seconds"] + outcome.cpu_seconds, 3)
        values["phases"][-1]["cpu"] = round(values["phases"][-1]["cpu"] + outcome.cpu_seconds, 3)
        values["peak_memory"] = max(values["peak_memory"], self._memory.peak, outcome.peak_memory)
        if self._control.refused_processes():
            self._warn(f"The build reached its limit of {self._request.limits.processes} processes.")

    def _warn(self, text: str) -> None:
        warnings: list[str] = self._status.values["warnings"]
        if text not in warnings:
            if len(warnings) < _MAX_WARNINGS:
                warnings.append(text[:1000])
            self._log.frame(f"=== warning: {text} ===")

    # -- watching

    def _watch(self, running: Running, output: int) -> Exceeded | None:
        """Copy the output to the log and watch the limits until the step has ended."""
        poll = select.poll()
        for descriptor in (output, running.fileno(), self._wakeup.fileno()):
            poll.register(descriptor, select.POLLIN)
        exceeded: Exceeded | None = None
        heard = time.monotonic()
        tick = _TICK / 2 if self._control.kind == "none" else _TICK  # then memory is watched from here
        next_look = heard + tick
        while True:
            events = {descriptor for descriptor, _event in poll.poll(max(0.0, next_look - time.monotonic()) * 1000 + 1)}
            found: Exceeded | None = None
            if output in events:
                data = os.read(output, _CHUNK)
                if data:
                    heard = time.monotonic()
                    found = self._to_log(data)
                else:
                    poll.unregister(output)
            if self._wakeup.fileno() in events:
                self._wakeup.drain()
            if self._wakeup.stopped:
                found = found or Exceeded("killed", "The supervisor was asked to stop.", True)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + tick
                found = found or self._look(running, heard)
                self._status.refresh(2.0, log_bytes=self._log.size, last_line=self._log.last_line)
            if found and not exceeded:
                exceeded = found
                running.kill()
            if running.fileno() in events:
                return exceeded

    def _look(self, running: Running, heard: float) -> Exceeded | None:
        return self._check_time(heard) or self._memory.check(running.namespace) or self._disk.check()

    def _check_time(self, heard: float) -> Exceeded | None:
        limits = self._request.limits
        if limits.timeout and self._status.elapsed() - self._waited > limits.timeout:
            return Exceeded("timeout", f"The build took longer than {limits.timeout:g} s.")
        if limits.silence and time.monotonic() - heard > limits.silence:
            return Exceeded("silence", f"The build said nothing for {limits.silence:g} s.")
        return None

    def _to_log(self, data: bytes) -> Exceeded | None:
        if self._log.write(data):
            return None
        return Exceeded("log_size", f"The log exceeded {self._request.limits.log} bytes.")

    def _rest_of_output(self, output: int) -> Exceeded | None:
        """Read what was in the pipe when the step ended; nobody can write to it any more."""
        exceeded = None
        while data := os.read(output, _CHUNK):
            exceeded = self._to_log(data) or exceeded
        return exceeded

    # -- replies

    def _forget_replies(self, root: str) -> None:
        """Only what a step itself says counts: an earlier one may have written in its name."""
        with _beneath.opened(_beneath.open_top(root)) as top:
            for name in _REPLIES:
                _beneath.remove(top, f"{OUT}/{name}")

    def _take_replies(self, step: Step, root: str, item: str) -> None:
        with _beneath.opened(_beneath.open_top(root)) as top:
            if step.phase == FETCH_PHASE:
                self._take_about(self._reply(top, "about"))
            if step.network:  # such a step downloads, and runs nothing that a package brought along
                self._keep_archives(top, self._reply(top, "archives.list"))
                self._get_needs(parse_checksums(self._reply(top, "needs")))
            if step.fresh:
                self._take_leftovers(self._reply(top, "leftovers"), item)

    @staticmethod
    def _reply(top: int, name: str) -> str:
        return _beneath.read_text(top, f"{OUT}/{name}", limit=_MAX_REPLY, cut=True) or ""

    def _take_about(self, text: str) -> None:
        """Note what the source says of itself, lines of C(NAME TEXT): also a build that fails then has a version."""
        about: dict[str, str] = self._status.values["about"]
        for line in text.splitlines():
            name, _blank, value = line.partition(" ")
            if name in _ABOUT:
                about[name] = value.strip()[:1000]

    def _keep_archives(self, top: int, text: str) -> None:
        for name, sha256 in parse_checksums(text):
            path = name if name.startswith("/") else f"{OUT}/archives/{name}"
            try:
                if not keep_archive(top, path, sha256, self._paths.archives_cache):
                    self._warn(f"{name} is not what it is said to be; it is not kept.")
            except (_beneath.UnsafeFile, FileNotFoundError) as error:
                self._warn(f"{name} is not kept: {error}")

    def _get_needs(self, needs: list[tuple[str, str]]) -> None:
        """Put the packages that a step asked for into the job's repository; wait for those that are not here."""
        wanted = [(check_file_name(name), sha256) for name, sha256 in needs]
        if not wanted:
            return
        began = time.monotonic()
        limit = self._request.limits.waiting or self._request.limits.timeout
        while missing := [need for need in wanted if not os.path.exists(self._cached(need[1]))]:
            if self._status.values["state"] != "waiting":
                self._log.frame(f"=== waiting for {len(missing)} files from the controller ===")
                self._status.write(
                    state="waiting", needs=[{"name": name, "sha256": sha256} for name, sha256 in missing]
                )
            select.select([self._wakeup.fileno()], [], [], 0.1)
            if self._wakeup.stopped:
                raise Ended("killed", "The supervisor was asked to stop.")
            if limit and time.monotonic() - began > limit:
                raise Ended("fetch_infrastructure", f"Nobody brought {missing[0][0]} within {limit:g} s.")
        for name, sha256 in wanted:
            link_or_copy(self._cached(sha256), self._paths.of("repo", name))
        self._waited += time.monotonic() - began
        self._status.write(state="running", needs=[])

    def _cached(self, sha256: str) -> str:
        return os.path.join(self._paths.inputs_cache, sha256)

    def _take_leftovers(self, text: str, item: str) -> None:
        leftovers: list[dict[str, str]] = self._status.values["leftovers"]
        for line in text.splitlines():
            kind, separator, path = line.partition("\t")
            if separator and kind in _LEFTOVER_KINDS:
                room = _MAX_LEFTOVER_PATHS - sum(len(known["path"]) for known in leftovers)
                if len(leftovers) >= _MAX_LEFTOVERS or len(path) > room:
                    self._warn(f"There are more leftovers than these {len(leftovers)}; the rest is only in the log.")
                    return
                leftovers.append({"item": item, "kind": kind, "path": path[:4096]})

    # -- the end

    def _judge_leftovers(self) -> Ended:
        count = sum(found["kind"] in _PACKING_LIST_KINDS for found in self._status.values["leftovers"])
        if count and self._request.plistcheck:
            self._status.values["phase"] = "check"
            return Ended("failed", f"The packing list is wrong: {count} differences.")
        return Ended("success")

    def _results_directory(self, kind: str) -> str:
        """Make and return the directory for results of a kind.

        Only the outer one guards them: the build's checks see the inner ones through a mount.
        """
        path = self._paths.of("results", kind) if kind else self._paths.of("results")
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
            os.chown(path, *self._owner)
            os.chmod(path, 0o755 if kind else 0o750)
        return path

    def _collect(self, collection: str, kind: str) -> list[Collected]:
        wanted = self._request.collect.get(collection)
        if wanted is None:
            return []
        # What a driver that names suffixes does not name belongs to the set, but is no package (Debian: byhand files).
        other = "extra" if wanted.kinds else kind
        with _beneath.opened(_beneath.open_top(self._root)) as top:
            found = collect(top, wanted.directory, self._results_directory, other, self._budget, kinds=wanted.kinds)
        for file in found:
            os.chown(self._result(file), *self._owner)
        return found

    def _result(self, file: Collected) -> str:
        return self._paths.of("results", file.kind, file.name)

    def _take_packages(self) -> None:
        """Bring the packages out, once: before the first step that checks them, or at the end."""
        if self._packages is not None:
            return
        self._packages = self._collect("packages", "package")
        if "packages" in self._request.collect and not any(file.kind == "package" for file in self._packages):
            raise BadResults("The build made no package.")
        for file in self._packages:
            link_or_copy(self._result(file), self._paths.of("staged", file.name))

    def _take_results(self) -> None:
        self._status.values.update(phase="package", step="")
        self._take_packages()

    def _keep_workdir(self, end: Ended) -> None:
        """Pack the work directory if it is wanted: within the chroot, so that nothing in it can lead tar outside."""
        request = self._request
        collection = request.collect.get("workdir")
        wanted = request.keep_workdir == "always" or (request.keep_workdir == "failed" and end.reason != "success")
        if (
            not wanted
            or collection is None
            or not self._offers
            or end.reason in ("machine_disk_full", "chroot", "killed")
        ):
            return
        try:
            file = self._pack(collection.directory, f"{request.job.package}.workdir.tar.gz")
            self._workdir = [file]
        except (OSError, PortbuildError, Ended) as error:
            with contextlib.suppress(OSError):
                self._warn(f"The work directory is not kept: {getattr(error, 'detail', '') or error}")

    def _keep_chroot(self) -> None:
        """What is only in memory, or only seen from here, must be on disk to be looked at later."""
        if self._request.keep_chroot and self._offers:
            try:
                self._backend.preserve(self._paths.chroot)
            except (OSError, PortbuildError) as error:
                with contextlib.suppress(OSError):
                    self._warn(f"The chroot is not kept: {error}")

    def _pack(self, directory: str, name: str) -> Collected:
        parent, _separator, last = ("/" + "/".join(_beneath.components(directory))).rpartition("/")
        argv = (_SHELL, "-c", 'exec tar -C "$1" -czf - -- "$2" 2>/dev/null', "sh", parent or "/", last)
        confinement = self._confinement(self._root, argv, self._superuser)
        read, write = os.pipe()
        try:
            running = self._isolation.start(confinement, write)
        finally:
            os.close(write)
        with _beneath.opened(read):
            running.go()
            timer = _KillTimer(running, _WORKDIR_SECONDS)
            try:
                target = os.path.join(self._results_directory("workdir"), name)
                size, digest = copy_out(read, target, Budget(self._request.limits.results))
            finally:
                timer.cancel()
                running.kill()
                outcome = running.wait()
        # tar reports what vanished or could not be read by 1: then the rest is still worth having.
        if outcome.problem or size == 0:
            os.unlink(target)
            raise BadResults(f"tar failed: {outcome.problem or outcome.exit}")
        os.chown(target, *self._owner)
        return Collected(name, "workdir", size, digest)

    def _finish(self, end: Ended) -> None:
        """Write the end down. The results are complete, nothing of the build runs."""
        log = getattr(self, "_log", None)
        if log is not None:
            with contextlib.suppress(OSError):
                if end.detail:
                    log.frame(f"=== {end.detail} ===")
                what = dict(self._request.header).get("port directory", self._request.job.package)
                log.frame(f"build of {what} ended at {_date(time.time())}")
                log.frame(f"=== ended: {end.reason} after {self._status.elapsed():.1f} s ===")
                self._status.values.update(log_bytes=log.size, last_line=log.last_line)
                log.close()
        packages = (self._packages or []) if end.reason == "success" else []
        manifest = [
            {**file._asdict(), "path": os.path.relpath(self._result(file), self._paths.chroot)}
            for file in (*packages, *self._distfiles, *self._workdir)
        ]
        manifest += log_entry(self._paths.chroot, self._request.job.package)
        changes = {"exit": end.exit, "signal": end.signal, "step_pid": 0, "manifest": manifest}
        try:
            self._status.end(end.reason, end.detail, end.infrastructure, **changes)
        except OSError:
            # No room for even this: the results are of no use then, and make some.
            shutil.rmtree(self._paths.of("results"), ignore_errors=True)
            shutil.rmtree(self._paths.of("staged"), ignore_errors=True)
            self._status.end(
                "machine_disk_full", "There was no room for the end's record.", True, **{**changes, "manifest": []}
            )


class _KillTimer:
    """Ends a step that has no other limit: SIGALRM, as this process has a single thread."""

    def __init__(self, running: Running, seconds: float) -> None:
        signal.signal(signal.SIGALRM, lambda _number, _frame: running.kill())
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def cancel(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def link_or_copy(source: str, target: str) -> None:
    """Give a read-only file a second name, or a copy where that is impossible; the target appears whole."""
    temporary = f"{target}.{os.getpid()}.tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
            raise
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def _date(seconds: float) -> str:
    """Return a time as date(1) prints it."""
    return time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime(seconds))


def _account(name: str) -> tuple[int, int]:
    """Return uid and gid of an account of the machine; root's if there is none."""
    import pwd  # pylint: disable=import-outside-toplevel

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return 0, 0
    return entry.pw_uid, entry.pw_gid


def _identity(request: Request) -> dict[str, t.Any]:
    return {
        "token": request.token,
        "pid": os.getpid(),
        "pid_start": process_start_time(os.getpid()) or "",
        "boot_id": boot_id(),
    }


def _from_oserror(error: OSError) -> Ended:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Ended("machine_disk_full", f"The machine's disk is full: {error}.")
    return Ended("chroot", f"The chroot failed: {error}.")


def _take_lock(path: str) -> Lock | None:
    """Take the chroot's lock. Someone who merely looks whether it is held holds it for a moment."""
    for _attempt in range(20):
        lock = try_lock(path)
        if lock is not None:
            return lock
        time.sleep(0.01)
    return None


def main(arguments: t.Sequence[str]) -> None:
    """Be the supervisor of the job in the chroot directory C(arguments[1]).

    What happens at the start is told through the descriptor C(arguments[2]): C(ok), C(held), or an error.
    """
    job, chroot, report = Job(*arguments[0].split("/")), arguments[1], int(arguments[2])
    os.set_inheritable(report, False)
    with os.fdopen(report, "w", encoding="utf-8") as starter:
        try:
            lock = _take_lock(os.path.join(chroot, "lock"))
            if lock is None:
                starter.write("held")
                return
            supervisor = _start(job, chroot)
        except Exception as error:  # pylint: disable=broad-except
            starter.write(f"error: {error or type(error).__name__}")
            return
        starter.write("ok")
    supervisor.run()


def _start(job: Job, chroot: str) -> Supervisor:
    request = Request.from_dict(read_json(os.path.join(chroot, "build.json")))
    if request.job != job:
        raise PortbuildError(f"{chroot} holds a request for {request.job}, not for {job}.")
    if request.backend not in BACKENDS:
        raise PortbuildError(f"This client has no chroot backend {request.backend!r}.")
    paths = Paths(chroot)
    isolation = get_isolation(paths.scratch, chroot, request.token)
    isolation.protect()
    supervisor = Supervisor(
        paths,
        request,
        isolation=isolation,
        backend=BACKENDS[request.backend],
        wakeup=Wakeup(),
    )
    supervisor.announce()
    return supervisor


if __name__ == "__main__":
    main(sys.argv[1:])
