# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a build machine returned: judged before anything is done with it, and received whole or not at all.

A build machine runs other people's code, so its answers are checked like any stranger's.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import re
import resource
import shutil
import stat
import time
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import sha256_file, sync_directory
from ..module_utils._names import BadName, check_file_name, check_result_name, check_sha256, check_version, Job
from ._record import directory_of, INCOMING, incoming_log, path_of, publishing
from ._space import check_space, ControllerDiskFull, disk_full, free_bytes, full_disk_is_named
from ._store import BuildRecord, conflict, Identity, Kind, KINDS, Phase, SET_KINDS, Store, StoredFile
from ._temporary import make_directory, remove_dead
from ._text import number_of, one_line

if t.TYPE_CHECKING:
    from ._layout import Layout

_PART = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9+._,~@=:%-]*")
_REASON = re.compile(r"[a-z][a-z_]{0,39}")
_ARCHIVE = re.compile(r"(\.tar(?:\.[a-z0-9]{1,4})?|\.t[a-z]z)$")


class Spoiled(PortbuildError):
    """Results that cannot be taken from where they are, however often one tries: the machine's fault.

    There is nothing to collect then, and the package is to be built elsewhere.
    """

    def __init__(self, message: str, *, remedy: str = "", details: dict[str, t.Any] | None = None) -> None:
        blame = {"reason": "bad_results", "infrastructure": True, "spoiled": True}
        super().__init__(message, remedy=remedy, details={**blame, **(details or {})})


class BadManifest(Spoiled):
    """A build machine returned a list of results that cannot be right."""


class BadResult(Spoiled):
    """A file that came is not the one that was announced."""


class Limits(t.NamedTuple):
    """What a list of results may hold at most."""

    files: int = 5000
    file_bytes: int = 64 << 30
    total_bytes: int = 256 << 30
    depth: int = 6


class ResultFile(t.NamedTuple):
    """An announced file: where it is on the client, below the chroot's directory, and what it will be here."""

    path: str
    file: StoredFile


class Manifest(t.NamedTuple):
    """The checked list of what a build left on the client."""

    files: tuple[ResultFile, ...]

    @property
    def total(self) -> int:
        return sum(entry.file.size for entry in self.files)

    def only(self, kinds: c.Collection[Kind]) -> Manifest:
        """Return the manifest of these kinds alone."""
        return Manifest(tuple(entry for entry in self.files if entry.file.kind in kinds))


# -- judging -----------------------------------------------------------------------------------------------------------


def check_manifest(
    data: t.Any,
    *,
    limits: Limits | None = None,
    suffixes: c.Mapping[str, c.Sequence[str]] | None = None,
) -> Manifest:
    """Return the checked list of results, or raise BadManifest saying which entry is wrong and how.

    C(data) is an object with the list under C(manifest), such as the supervisor's status. C(suffixes) says how names of
    a kind may end; kinds that it does not name may end in anything.
    """
    bounds = limits or Limits()
    if not isinstance(data, dict):
        raise BadManifest(f"The build machine returned {_shown(data)} where an object with a manifest is expected.")
    if "manifest" not in data:
        raise BadManifest(f"The build machine's answer has no manifest, only {_shown(sorted(map(str, data)))}.")
    entries = data["manifest"]
    if not isinstance(entries, list):
        raise BadManifest(f"The manifest is {_shown(entries)}, a list is expected.")
    if len(entries) > bounds.files:
        raise BadManifest(f"The manifest names {len(entries)} files, at most {bounds.files} are accepted.")
    files = []
    names: set[tuple[str, str]] = set()
    for number, entry in enumerate(entries):
        try:
            result = _check_entry(entry, bounds, suffixes or {})
        except BadName as error:
            raise BadManifest(f"Entry {number} of the manifest: {error}") from None
        # The kinds of a set share a directory.
        name = ("set" if result.file.kind in SET_KINDS else result.file.kind, result.file.name)
        if name in names or (result.file.kind in ("log", "workdir") and any(name[0] == kind for kind, _name in names)):
            raise BadManifest(f"Entry {number} of the manifest names a second {result.file.kind} {result.file.name}.")
        names.add(name)
        files.append(result)
    manifest = Manifest(tuple(files))
    if manifest.total > bounds.total_bytes:
        raise BadManifest(
            f"The manifest announces {manifest.total} bytes, at most {bounds.total_bytes} are accepted.",
            remedy="See portbuild_results_limit.",
        )
    return manifest


def _check_entry(entry: t.Any, limits: Limits, suffixes: c.Mapping[str, c.Sequence[str]]) -> ResultFile:
    if not isinstance(entry, dict):
        raise BadName(f"{_shown(entry)} is not an object.")
    missing = [key for key in ("name", "size", "sha256", "kind", "path") if key not in entry]
    if missing:
        raise BadName(f"{', '.join(missing)} is missing.")
    kind = entry["kind"]
    if kind not in KINDS:  # a list of strings: also safe for what cannot be hashed
        raise BadName(f"The kind {_shown(kind)} is unknown, it must be one of {', '.join(KINDS)}.")
    name = (check_result_name if kind in SET_KINDS else check_file_name)(entry["name"])
    endings = suffixes.get(kind)
    if endings is not None and not name.endswith(tuple(endings)):
        raise BadName(f"The {kind} {name!r} must end in {' or '.join(endings)}.")
    size = entry["size"]
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= limits.file_bytes:
        raise BadName(f"The size of {name} is {_shown(size)}, a number from 0 to {limits.file_bytes} is expected.")
    version = entry.get("version") or ""
    return ResultFile(
        _check_path(entry["path"], limits.depth),
        StoredFile(kind, name, size, check_sha256(entry["sha256"]), check_version(version) if version else ""),
    )


def _check_path(path: t.Any, depth: int) -> str:
    if not isinstance(path, str) or len(path) > 1000:
        raise BadName(f"The path {_shown(path)} is no string of at most 1000 characters.")
    parts = path.split("/")
    if len(parts) > depth or not all(_PART.fullmatch(part) for part in parts):
        raise BadName(
            f"The path {_shown(path)} is malformed: expected is one below the chroot's directory, of at most {depth} plain names."
        )
    return path


def _shown(value: t.Any) -> str:
    text = ascii(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def build_record(
    status: c.Mapping[str, t.Any],
    *,
    job: Job,
    identity: Identity,
    machine: str,
    version: str = "",
    broken: bool = False,
    offset: float = 0.0,
    now: float | None = None,
) -> BuildRecord:
    """Return the record of a build that ended with this status.

    C(offset) is what must be added to the client's clock to get the controller's. What is malformed in the status is
    left out: a strange number is no reason to lose a build.
    """
    at = time.time() if now is None else now
    reason = status.get("reason")
    reason = reason if isinstance(reason, str) and _REASON.fullmatch(reason) else "failed"
    seconds = number_of(status.get("seconds"))
    ended = min(number_of(status.get("ended")) + offset, at) if number_of(status.get("ended")) else at
    phases = status.get("phases")
    return BuildRecord(
        queue=identity.queue,
        token=identity.token,
        package=job.package,
        machine=machine,
        outcome="success" if reason == "success" else "failed",
        reason=reason,
        infrastructure=reason != "success" and status.get("infrastructure") is True,
        version=version,
        phase=one_line(status.get("phase"), 40),
        detail=one_line(status.get("detail"), 500),
        broken=broken,
        started=max(0.0, ended - seconds),
        ended=ended,
        seconds=seconds,
        phases=tuple(
            Phase(one_line(phase.get("name"), 40), number_of(phase.get("seconds")), number_of(phase.get("cpu")))
            for phase in (phases if isinstance(phases, list) else [])[:100]
            if isinstance(phase, dict)
        ),
        cpu_seconds=number_of(status.get("cpu_seconds")),
        peak_memory=int(number_of(status.get("peak_memory"))),
    )


# -- receiving ---------------------------------------------------------------------------------------------------------


class Arrival(t.NamedTuple):
    """A file on its way: C(remote) below the chroot's directory, C(local) the temporary name the transfer writes."""

    remote: str
    local: str
    file: StoredFile


def place_of(job: Job, build_token: int, file: StoredFile) -> StoredFile:
    """Return the file under its name on the controller.

    Where a name says whose it is, ours is used and not the client's: a build must not replace another's log or workdir.
    """
    if file.kind == "log":
        return file._replace(name=incoming_log(job.package, build_token))
    if file.kind == "workdir":
        suffix = _ARCHIVE.search(file.name)
        return file._replace(name=job.package + (suffix[1] if suffix else ".tar"))
    return file


class Receiver:
    """Receives the results of one build.

    The files are written below C(.incoming) in the directory that they are for, so that they can be renamed into it.
    Each fetch has a directory of its own there and holds a lock on it: one that can be locked belongs to a dead fetch,
    and the next fetch, of whatever package, removes it.

    C(token) is the lease's, C(build_token) the one that the build was started under. C(verify) is called before
    anything is renamed into place and raises if the lease is lost.
    """

    def __init__(
        self,
        layout: Layout,
        job: Job,
        token: int,
        *,
        build_token: int | None = None,
        store: Store | None = None,
        min_free: int = 0,
        verify: c.Callable[[], object] = lambda: None,
        now: c.Callable[[], float] = time.time,
    ) -> None:
        self._layout = layout
        self._job = job
        self._token = token
        self._build_token = token if build_token is None else build_token
        self._store = store
        self._min_free = min_free
        self._verify = verify
        self._now = now
        self._directories: dict[str, tuple[str, int]] = {}  # for which directory: the temporary one, its lock
        self._arrivals: list[Arrival] = []
        self._present: list[StoredFile] = []
        self._accepted: set[str] = set()

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.abort()

    def plan(self, manifest: Manifest) -> list[Arrival]:
        """Return what is to be transferred: everything but the files that are here already.

        Raises FileConflict for a name that belongs to another package, and ControllerDiskFull.
        """
        self.abort()
        entries = [(entry.path, place_of(self._job, self._build_token, entry.file)) for entry in manifest.files]
        for _path, file in entries:
            self._refuse_conflict(file)
        for kind in KINDS:
            remove_dead(os.path.join(directory_of(self._layout, kind), "" if kind == "log" else INCOMING))
        wanted = []
        for path, file in entries:
            if self._is_here(file):
                self._present.append(file)
            else:
                wanted.append((path, file))
        self._check_room([file for _path, file in wanted])
        for path, file in wanted:
            directory = self._temporary_directory(directory_of(self._layout, file.kind))
            self._arrivals.append(Arrival(path, os.path.join(directory, file.name), file))
        return list(self._arrivals)

    @contextlib.contextmanager
    def receiving(self, arrival: Arrival) -> c.Iterator[str]:
        """Transfer the file in this block, to the name it yields; it is accepted at the end.

        A file that grows while it is being read, or that was announced too small, is cut off at the announced size: no
        process started here may write a larger file meanwhile.
        """
        size = arrival.file.size
        with contextlib.suppress(FileNotFoundError):
            os.unlink(arrival.local)  # what an earlier attempt left takes up the room that this one needs
        check_space(directory_of(self._layout, arrival.file.kind), needed=size, min_free=self._min_free)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        # Room for what else a process may write, such as its messages; what is too much is found by the size.
        bound = min([max(size, 1 << 20) + 1, *(limit for limit in before if limit != resource.RLIM_INFINITY)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, before[1]))
        try:
            yield arrival.local
        except Exception as error:
            self._explain(arrival, error)
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self.accept(arrival)

    def accept(self, arrival: Arrival) -> None:
        """Check a file that was transferred; raises BadResult, and removes it, if it is not what was announced."""
        path, file = arrival.local, arrival.file
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            raise BadResult(f"{file.name} of {self._job} did not come.") from None
        why = ""
        if not stat.S_ISREG(status.st_mode):
            why = "it is no regular file"
        elif status.st_size != file.size:
            why = f"it has {status.st_size} bytes, {file.size} were announced"
        elif (found := sha256_file(path)) != file.sha256:
            why = f"its SHA-256 is {found}, {file.sha256} was announced"
        if why:
            os.unlink(path)
            self._check_free(file)
            raise BadResult(
                f"{file.name} of {self._job} is not what the build machine announced: {why}.",
                details={"file": file.name},
            )
        with full_disk_is_named(path, needed=file.size, min_free=self._min_free), open(path, "rb") as stream:
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        self._accepted.add(path)

    def publish(self) -> list[StoredFile]:
        """Put all files in place, with the controller's time, and return them.

        If one cannot be put in place those before it are taken back. A crash in between leaves some of them in place:
        they are not recorded then, and the same fetch again completes them.
        """
        missing = [arrival.file.name for arrival in self._arrivals if arrival.local not in self._accepted]
        if missing:
            raise BadResult(f"{', '.join(missing[:5])} of {self._job} did not come.")
        with publishing(self._layout):
            # Only in here: whoever waits for the lock, or is frozen before it, may lose the job meanwhile.
            self._verify()
            for file in (*(arrival.file for arrival in self._arrivals), *self._present):
                self._refuse_conflict(file)
            now = self._now()
            for path in (
                *(arrival.local for arrival in self._arrivals),
                *(path_of(self._layout, file) for file in self._present),
            ):
                os.utime(path, (now, now))
            self._rename()
        published = [arrival.file for arrival in self._arrivals] + self._present
        self.abort()
        return published

    def abort(self) -> None:
        """Forget the fetch and remove what it has written under temporary names."""
        for directory, (path, lock) in self._directories.items():
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
            with contextlib.suppress(OSError):  # another fetch is in it
                if os.path.basename(directory) != INCOMING:
                    os.rmdir(os.path.dirname(path))
        self._directories.clear()
        self._arrivals.clear()
        self._present.clear()
        self._accepted.clear()

    # -- parts --------------------------------------------------------------------------------------------------------

    def _refuse_conflict(self, file: StoredFile) -> None:
        if self._store is None:
            return
        owner: str | None = None
        if file.kind in SET_KINDS:
            owner = self._store.file_owner(file.name)
        elif file.kind == "distfile":
            sums = self._store.file_sums("distfile", file.name)
            owner = next((package for package, found in sums.items() if found != file.sha256), None)
        if owner is not None and owner != self._job.package:
            raise conflict(self._job.package, file, owner)

    def _is_here(self, file: StoredFile) -> bool:
        """Whether an earlier fetch of the same build put it in place, or another package's, if it is a distfile."""
        try:
            status = os.lstat(path_of(self._layout, file))
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
            return False
        if os.geteuid() not in (0, status.st_uid):
            return False  # it could not be touched
        return sha256_file(path_of(self._layout, file)) == file.sha256

    def _check_room(self, files: c.Sequence[StoredFile]) -> None:
        needed: dict[int, int] = {}
        for file in files:
            directory = directory_of(self._layout, file.kind)
            os.makedirs(directory, exist_ok=True)
            device = os.stat(directory).st_dev
            needed[device] = needed.get(device, 0) + file.size
            check_space(directory, needed=needed[device], min_free=self._min_free)

    def _check_free(self, file: StoredFile) -> None:
        """A file is often short because the disk is full: then say so."""
        directory = directory_of(self._layout, file.kind)
        free = free_bytes(directory)
        if free < self._min_free or free < (1 << 16):
            raise disk_full(directory, needed=file.size, min_free=self._min_free, free=free)

    def _explain(self, arrival: Arrival, error: Exception) -> None:
        """Raise what is known better than the connection plugin knows it."""
        with contextlib.suppress(FileNotFoundError):
            size = os.stat(arrival.local).st_size
            if size > arrival.file.size:
                os.unlink(arrival.local)
                raise BadResult(
                    f"{arrival.file.name} of {self._job} is larger than the {arrival.file.size} bytes announced."
                ) from error
        try:
            self._check_free(arrival.file)
            with full_disk_is_named(arrival.local, needed=arrival.file.size, min_free=self._min_free):
                if isinstance(error, OSError):
                    raise error
        except ControllerDiskFull:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(arrival.local)
            raise

    def _temporary_directory(self, directory: str) -> str:
        if directory in self._directories:
            return self._directories[directory][0]
        base = directory if os.path.basename(directory) == INCOMING else os.path.join(directory, INCOMING)
        self._directories[directory] = make_directory(base, f"{self._job.package}.{self._token}.")
        return self._directories[directory][0]

    def _rename(self) -> None:
        done: list[tuple[str, str | None]] = []
        try:
            for number, arrival in enumerate(self._arrivals):
                target = path_of(self._layout, arrival.file)
                before = os.path.join(os.path.dirname(arrival.local), f".before.{number}")
                kept = _keep(target, before)
                os.replace(arrival.local, target)
                done.append((target, before if kept else None))
        except BaseException:
            for target, earlier in reversed(done):
                with contextlib.suppress(OSError):
                    if earlier is None:
                        os.unlink(target)
                    else:
                        os.replace(earlier, target)
            raise
        for directory in self._directories:
            sync_directory(directory)


def _keep(path: str, name: str) -> bool:
    """Give the file another name; whether there is one, and it could be done."""
    try:
        os.link(path, name, follow_symlinks=False)
    except OSError:
        return False
    return True
