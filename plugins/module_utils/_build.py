# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The module's half of a build: bring in what it needs, start the supervisor, attach to it, wait for it a while.

Everything here may be called again at any time for the same token, or by whoever adopted the job: it attaches to
what runs, reports what ended, and never starts a second build.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import shutil
import stat
import sys
import time
import typing as t

from ._attach import read_status, settle, supervisor_alive
from ._chroots import Chroot, ChrootMissing, ChrootStore
from ._errors import PortbuildError
from ._files import CHUNK, read_json, sync_directory, write_atomic, write_json
from ._lock import Lock
from ._names import check_sha256, incoming_path, Job
from ._progress import initial_status, STATUS
from ._request import BadRequest, Request

_REQUEST = "build.json"
_SCRIPT = "build.sh"
_INSTALL_SECONDS = 60.0
_START_SECONDS = 30.0
_POLL = 0.05

_PROGRAM = "portbuild-supervisor"
_PACKAGE = "portbuild_supervisor"
# Isolated (-I) and without site (-S): neither the environment nor what is installed on the machine has a say.
_START = f"""\
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    from {_PACKAGE}._supervisor import main
except BaseException as error:
    os.write(int(sys.argv[3]), repr(error).encode())
    raise
main(sys.argv[1:])
"""
_IMPORT = re.compile(r"^ *from \.(\w*) import (\([^)]*\)|[^\n#]*)", re.MULTILINE)


class SupervisorError(PortbuildError):
    """The supervisor could not be started."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The supervisor did not start: {why}.", details={"reason": "supervisor"})


class BuildMissing(PortbuildError):
    """There is nothing to attach to, or to collect."""

    def __init__(self, message: str, remedy: str, *, spoiled: bool = False) -> None:
        super().__init__(message, remedy=remedy, details={"reason": "build_missing", "spoiled": spoiled})


def _for_the_zip_file() -> None:
    """Never called: its imports tell Ansible what to send along. Executing them would only cost time here."""
    from . import _isolation_freebsd, _isolation_linux, _supervisor  # pylint: disable=import-outside-toplevel,unused-import  # noqa: F401


def _payload() -> dict[str, bytes]:
    """Return the files of the supervisor's program: its module and what that imports of ours, directly or not.

    They are read from wherever this module was loaded: a directory or the zip file that Ansible sends.
    """
    loader: t.Any = __spec__.loader if __spec__ is not None else None
    files = {_PROGRAM: _START.encode(), f"{_PACKAGE}/__init__.py": b""}
    wanted = ["_supervisor"]
    while wanted:
        name = wanted.pop()
        path = f"{_PACKAGE}/{name}.py"
        if path not in files:
            files[path] = loader.get_data(os.path.join(os.path.dirname(__file__), f"{name}.py"))
            for module, names in _IMPORT.findall(files[path].decode("utf-8")):
                wanted += [module] if module else re.findall(r"\w+", names)
    return files


def install_supervisor(scratch: str, files: t.Mapping[str, bytes] | None = None) -> str:
    """Put the supervisor's program into C(<scratch>/lib) unless it is there, and return the path to run."""
    files = _payload() if files is None else files
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    directory = os.path.join(scratch, "lib", digest.hexdigest())
    program = os.path.join(directory, _PROGRAM)
    # Read rather than trusted: it costs a millisecond, and a crash may have left empty files.
    if _holds(directory, files):
        return program
    library = os.path.dirname(directory)
    os.makedirs(library, 0o755, exist_ok=True)
    # One at a time: whoever took what another has just put there for spoiled would take it away under its supervisor.
    with Lock(os.path.join(library, ".lock"), timeout=_INSTALL_SECONDS):
        if not _holds(directory, files):
            _install(directory, files)
    return program


def _install(directory: str, files: t.Mapping[str, bytes]) -> None:
    temporary = f"{directory}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # of one that was killed
    os.makedirs(os.path.join(temporary, _PACKAGE), 0o755)
    for name, content in files.items():
        write_atomic(os.path.join(temporary, name), content, durable=False)
    if os.path.isdir(directory):  # spoiled; a supervisor that runs from it has loaded what it needs
        shutil.rmtree(directory)
    os.rename(temporary, directory)


def _holds(directory: str, files: t.Mapping[str, bytes]) -> bool:
    try:
        for name, content in files.items():
            with open(os.path.join(directory, name), "rb") as stream:
                if stream.read() != content:
                    return False
    except OSError:
        return False
    return True


def start_supervisor(program: str, job: Job, chroot: str) -> bool:
    """Start the supervisor, detached from everything of ours.

    Returns False if one runs in the chroot already. Raises SupervisorError if it could not start: it says so itself,
    before anything of the build has happened.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _launch([sys.executable or "/usr/bin/python3", "-I", "-S", program, str(job), chroot, str(write)], write)
    os.close(write)
    os.waitpid(child, 0)
    try:
        answer = _answer(read)
    finally:
        os.close(read)
    if answer not in ("ok", "held"):
        raise SupervisorError(answer or "it ended without a word")
    return answer == "ok"


def _launch(argv: list[str], kept: int) -> t.NoReturn:
    """Become the supervisor's parent, and end; the supervisor is then nobody's child and in nobody's session."""
    try:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            os.set_inheritable(kept, True)
            os.closerange(3, kept)
            os.closerange(kept + 1, 4096)
            os.chdir("/")
            os.umask(0o022)
            os.execve(
                argv[0], argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin", "LC_ALL": "C"}
            )
    finally:
        os._exit(127)


def _answer(descriptor: int) -> str:
    deadline = time.monotonic() + _START_SECONDS
    answer = b""
    while True:
        ready, _writable, _errors = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return f"no answer within {_START_SECONDS:g} s"
        chunk = os.read(descriptor, 4096)
        if not chunk:
            return answer.decode("utf-8", "replace")
        answer += chunk


class InputCache:
    """Files from the controller, by their SHA-256. What is in the cache has been verified."""

    def __init__(self, scratch: str, job: Job) -> None:
        self._scratch = scratch
        self._job = job
        self._directory = os.path.join(scratch, "cache", "inputs")
        self.problems: list[str] = []

    def path(self, sha256: str) -> str:
        """Return where the file is, or would be."""
        return os.path.join(self._directory, check_sha256(sha256))

    def take(self, sha256: str, size: int = 0) -> bool:
        """Return whether the file is here now, taking it from what the controller has sent if it is not yet."""
        path, sent = self.path(sha256), incoming_path(self._scratch, sha256, self._job)
        with contextlib.suppress(FileNotFoundError):
            if not size or os.path.getsize(path) == size:
                os.utime(path)  # the cache is cleaned by age
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(sent)  # another job was sent the same, and was quicker
                return True
            os.unlink(path)
        return self._take_incoming(sent, path, sha256)

    def _take_incoming(self, sent: str, target: str, sha256: str) -> bool:
        os.makedirs(self._directory, 0o755, exist_ok=True)
        # Out of the login account's reach before it is looked at.
        source = os.path.join(self._directory, f".{os.path.basename(sent)}")
        try:
            os.rename(sent, source)
        except FileNotFoundError:
            return False
        try:
            return self._take_sent(sent, source, target, sha256)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(source)

    def _take_sent(self, sent: str, source: str, target: str, sha256: str) -> bool:
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            raise BadRequest(f"{sent} is not a regular file of its own.") from None
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise BadRequest(f"{sent} is not a regular file of its own.")
            os.fchown(descriptor, 0, 0)
            os.fchmod(descriptor, 0o444)
            digest = hashlib.sha256()
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
            if digest.hexdigest() != sha256:
                self.problems.append(f"A file came with SHA-256 {digest.hexdigest()} where {sha256} was expected.")
                return False
            os.fsync(descriptor)  # after a power failure the name must not stand for an empty file
        os.replace(source, target)
        sync_directory(self._directory)
        return True


class Builder:
    """The build of one job on this machine."""

    def __init__(
        self,
        scratch: str,
        job: Job,
        *,
        queue: str,
        token: int,
        sleep: t.Callable[[float], None] = time.sleep,
        monotonic: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = ChrootStore(scratch)
        self._scratch = self._store.scratch
        self._cache = InputCache(self._scratch, job)
        self._job = job
        self._queue = queue
        self._token = token
        self._sleep = sleep
        self._monotonic = monotonic

    def look(self, request: dict[str, t.Any] | None) -> dict[str, t.Any]:
        """Say what run() would find, and change nothing."""
        if request is not None:
            Request.from_dict(request)
        try:
            chroot = self._store.get(self._job, queue=self._queue, token=self._token)
        except ChrootMissing:  # nobody has claimed it: in check mode, nobody does
            return {**self._report("", None), "changed": request is not None}
        status = read_status(chroot.path)
        needs = status["needs"] if status is not None else []
        would_start = request is not None and not _begun(chroot.path, status)
        return {**self._report(chroot.path, status, needs), "changed": would_start}

    def run(self, request: dict[str, t.Any] | None, script: str | None, wait: float) -> dict[str, t.Any]:
        """Start the build unless it has been, then wait for up to C(wait) seconds until it ended or needs something.

        Raises what ChrootStore.get() raises, BadRequest, BuildMissing or SupervisorError.
        """
        chroot = self._store.get(self._job, queue=self._queue, token=self._token)
        status = settle(chroot.path, self._job.package)
        started = False
        if not _begun(chroot.path, status):
            if request is not None:
                self._accept(chroot, request, script)
            accepted = self._accepted(chroot)
            missing = [item._asdict() for item in accepted.inputs if not self._cache.take(item.sha256, item.size)]
            if missing:
                waiting = {**initial_status(), "token": self._token, "state": "waiting", "needs": missing}
                return {**self._report(chroot.path, waiting, missing), "changed": request is not None}
            started = self._start(chroot, accepted)
        status, needs = self._wait(chroot.path, wait)
        return {
            **self._report(chroot.path, status, needs),
            "changed": started,
            "started": started,
            "attached": not started,
        }

    def results(self) -> dict[str, t.Any]:
        """Return how the build ended, having seen that every file it left is there.

        Raises BuildMissing if it has not ended or a file is gone.
        """
        chroot = self._store.get(self._job, queue=self._queue, token=self._token)
        status = settle(chroot.path, self._job.package)
        if status is None or status["state"] != "ended":
            raise BuildMissing(f"The build of {self._job} has not ended.", "Wait for its end with build_package.")
        for entry in status["manifest"]:
            path = os.path.join(chroot.path, entry["path"])
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                raise BuildMissing(f"The result {path} is gone.", "Build the package again.", spoiled=True) from None
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry["size"]:
                raise BuildMissing(
                    f"The result {path} is not the file of {entry['size']} bytes that it was.",
                    "Build the package again.",
                    spoiled=True,
                )
        return {"chroot": chroot.path, "status": status}

    def _accept(self, chroot: Chroot, values: dict[str, t.Any], script: str | None) -> None:
        """Write the request down: when its files have come, the build starts without being asked for again."""
        # The controller need not know which backend the machine took.
        values = {**values, "backend": values.get("backend") or chroot.marker.backend}
        request = Request.from_dict(values)
        for name, wanted, got in (
            ("job", self._job, request.job),
            ("token", self._token, request.token),
            ("backend", chroot.marker.backend, request.backend),
            ("base", chroot.marker.base, request.base),
        ):
            if wanted != got:
                raise BadRequest(f"The request's {name} is {got}, the chroot's is {wanted}.")
        if not script:
            raise BadRequest("The request comes without the build script.")
        write_atomic(os.path.join(chroot.path, _SCRIPT), script, mode=0o755, durable=False)
        write_json(os.path.join(chroot.path, _REQUEST), values, mode=0o600, durable=False)

    def _accepted(self, chroot: Chroot) -> Request:
        with contextlib.suppress(FileNotFoundError):
            request = Request.from_dict(read_json(os.path.join(chroot.path, _REQUEST)))
            if request.token == self._token:
                return request
        raise BuildMissing(f"No build of {self._job} was started here.", "Send the request.")

    def _start(self, chroot: Chroot, request: Request) -> bool:
        program = install_supervisor(self._scratch)
        path = chroot.path
        for name in ("inputs", "repo"):
            os.makedirs(os.path.join(path, name), 0o755, exist_ok=True)
        for item in request.inputs:
            _link(self._cache.path(item.sha256), os.path.join(path, item.place, item.name))
        for name, text in request.repo_index.items():
            write_atomic(os.path.join(path, "repo", name), text, durable=False)
        self._store.start(self._job, queue=self._queue, token=self._token)
        return start_supervisor(program, self._job, path)

    def _wait(self, chroot: str, wait: float) -> tuple[dict[str, t.Any] | None, list[dict[str, t.Any]]]:
        """Return the status, and what the build waits for, as soon as it ended or waits for something."""
        deadline = self._monotonic() + wait
        while True:
            seen = _version(chroot)  # before reading: a change in between shows as a new version
            status = settle(chroot, self._job.package)
            if status is not None and status["state"] == "ended":
                return status, []
            if status is not None and status["state"] == "waiting":
                needs = [need for need in status["needs"] if not self._cache.take(need["sha256"])]
                if needs:
                    return status, needs
            while True:
                if self._monotonic() >= deadline:
                    return status, []
                self._sleep(_POLL)
                if _version(chroot) != seen or not supervisor_alive(chroot):
                    break

    def _report(
        self, chroot: str, status: dict[str, t.Any] | None, needs: t.Sequence[dict[str, t.Any]] = ()
    ) -> dict[str, t.Any]:
        found = status or {}
        return {
            "changed": False,
            "chroot": chroot,
            "state": found.get("state", "absent"),
            "reason": found.get("reason"),
            "infrastructure": bool(found.get("infrastructure")),
            "detail": found.get("detail", ""),
            "started": False,
            "attached": False,
            "needs": list(needs),
            "problems": self._cache.problems,
            "status": found,
        }


def _begun(chroot: str, status: dict[str, t.Any] | None) -> bool:
    """Return whether the build of this chroot has been started: then there is a status, or will be in a moment."""
    return status is not None or supervisor_alive(chroot)


def _version(chroot: str) -> tuple[int, int]:
    """Return what changes with every replacement of the status file."""
    try:
        status = os.stat(os.path.join(chroot, STATUS))
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _link(source: str, target: str) -> None:
    """Give a file in the cache its name in the job; a start that was interrupted may have done it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    os.link(source, target)
