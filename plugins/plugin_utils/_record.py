# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Recording a build: its row in the store, its log in C(logs/) and C(errors/), and the end of what it supersedes.

A file system and a database have no common transaction. So the logs are put in place inside the database's, from a
source that stays until it is committed: C(logs/.incoming/<package>.<token>.log). Whoever dies before the commit leaves
the source, and the same call again does everything again; whoever dies after it leaves only things to remove, and the
same call again removes them. Superseded package files go last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gzip
import os
import re
import shutil
import stat
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import sha256_file, write_atomic
from ..module_utils._lock import Lock
from ..module_utils._names import check_package
from ._space import full_disk_is_named
from ._store import BuildRecord, Kind, Recorded, Store, StoredFile

if t.TYPE_CHECKING:
    import collections.abc as c

    from ._layout import Layout

INCOMING = ".incoming"
OLD_LOGS = "old"
KEEP_OLD_LOGS = 10
PUBLISH_TIMEOUT = 120.0  # seconds; it is held for renames


@contextlib.contextmanager
def publishing(layout: Layout) -> c.Iterator[None]:
    """Keep everybody else from putting files of the branch in place.

    Whoever is frozen in here keeps the branch to himself: the same who would otherwise wake up in the middle, long after
    somebody took over the job, and put old files over new ones that have been recorded.
    """
    # What the directory grants its group (or everybody), files in it must grant too.
    shared = stat.S_IMODE(os.stat(layout.branch_directory).st_mode) & 0o022
    with Lock(layout.publish_lock, timeout=PUBLISH_TIMEOUT, mode=0o644 | shared):
        yield


class _Seen(t.NamedTuple):
    """What tells whether a file was replaced."""

    inode: int
    size: int
    changed: int


class ResultsMissing(PortbuildError):
    """A file that the build is said to have made is not there."""


def directory_of(layout: Layout, kind: Kind) -> str:
    """Return the directory that files of this kind live in."""
    if kind == "distfile":
        return layout.distfiles
    if kind == "workdir":
        return layout.workdirs
    if kind == "log":
        return os.path.join(layout.logs, INCOMING)
    return layout.packages


def path_of(layout: Layout, file: StoredFile) -> str:
    """Return where the file is."""
    return os.path.join(directory_of(layout, file.kind), file.name)


def incoming_log(package: str, token: int) -> str:
    """Return the name under which a fetched log waits to be recorded."""
    return f"{check_package(package)}.{token}.log"


def waiting_log(layout: Layout, package: str, token: int) -> str:
    """Return the path of a fetched log that waits to be recorded; it need not be there."""
    return os.path.join(layout.logs, INCOMING, incoming_log(package, token))


def is_present(layout: Layout, file: StoredFile) -> bool:
    """Return whether the file is there in its full size. Its contents were checked when it came."""
    try:
        status = os.stat(path_of(layout, file))
    except FileNotFoundError:
        return False
    return status.st_size == file.size


class Recorder:
    """Records builds of one branch of one arch.

    With C(compress_logs) each build's log is also kept as C(logs/old/<package>.<token>.log.gz), the last
    C(keep_logs) of a package; the last log alone stays plain, under the name everybody knows.
    """

    def __init__(
        self, store: Store, layout: Layout, *, compress_logs: bool = False, keep_logs: int = KEEP_OLD_LOGS
    ) -> None:
        self._store = store
        self._layout = layout
        self._compress = compress_logs
        self._keep = keep_logs

    def record(self, build: BuildRecord, files: c.Sequence[StoredFile] = ()) -> Recorded:
        """Record the build and put its log in place. The same build again changes nothing and returns the same."""
        waiting = waiting_log(self._layout, build.package, build.token)
        for directory in (os.path.dirname(waiting), self._layout.errors):
            os.makedirs(directory, exist_ok=True)
        seen = self._look(files)
        with full_disk_is_named(self._layout.logs):
            build = dataclasses.replace(build, log=self._log_name(build, waiting))
            # Not under the lock of who publishes: a worker that is frozen here must not stop the whole branch. What
            # was replaced since it was looked at is seen in the transaction.
            result = self._store.record(build, files, place=lambda: self._place(build, seen, waiting))
        self._store.drop_superseded(build.package, self._remove)
        self._remove_incoming(build)
        return result

    def _log_name(self, build: BuildRecord, waiting: str) -> str:
        """Return where the build's log will be, below the branch's directory; keep a compressed copy if asked to."""
        if build.infrastructure and not os.path.exists(waiting):
            return ""
        if not self._compress or not os.path.exists(waiting):
            return f"logs/{build.package}.log"
        # Before the transaction: compressing a large log takes seconds, and the transaction keeps others waiting.
        directory = os.path.join(self._layout.logs, OLD_LOGS)
        os.makedirs(directory, exist_ok=True)
        name = f"{build.package}.{build.token}.log.gz"
        temporary = _beside(os.path.join(directory, name))
        with open(waiting, "rb") as source, gzip.open(temporary, "wb", compresslevel=6) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        os.replace(temporary, os.path.join(directory, name))
        for old in _numbered(directory, build.package, ".log.gz")[: -self._keep]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(old.path)
        return f"logs/{OLD_LOGS}/{name}"

    def _look(self, files: c.Sequence[StoredFile]) -> dict[str, _Seen | None]:
        """Return how the build's files are in place, having read them; None for what is not there as it was made.

        Another package may have made a file of the same name: before either is recorded, the later one replaces the
        earlier one's. Read before the transaction: large files take seconds, and it keeps others waiting.
        """
        seen: dict[str, _Seen | None] = {}
        for file in files:
            if file.kind != "log":
                path = path_of(self._layout, file)
                found = _seen(path)
                good = is_present(self._layout, file) and sha256_file(path) == file.sha256
                seen[path] = found if good else None
        return seen

    def _place(self, build: BuildRecord, seen: c.Mapping[str, _Seen | None], waiting: str) -> None:
        for path, before in seen.items():
            if before is None or _seen(path) != before:
                raise _replaced(build, path)
        if not os.path.exists(waiting):
            if build.infrastructure:
                return  # nothing came back, and nothing is known about the package: the last log stays the last
            write_atomic(waiting, _stand_in(build))
        _put(waiting, self._layout.log(build.package))
        error = self._layout.error(build.package)
        if build.outcome == "success":
            for path in (error, _beside(error)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        elif build.counted:
            _put(waiting, error)

    def _remove(self, file: StoredFile) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path_of(self._layout, file))

    def _remove_incoming(self, build: BuildRecord) -> None:
        """Remove this build's source, and those of earlier builds that nobody came back to record."""
        for entry in _numbered(os.path.join(self._layout.logs, INCOMING), build.package, ".log"):
            if entry.number <= build.token:
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    os.unlink(entry.path)


class _Numbered(t.NamedTuple):
    number: int
    path: str


def _numbered(directory: str, package: str, suffix: str) -> list[_Numbered]:
    """Return the package's files C(<package>.<number><suffix>), by number."""
    pattern = re.compile(re.escape(package) + r"\.([0-9]+)" + re.escape(suffix))
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if match := pattern.fullmatch(entry.name):
                found.append(_Numbered(int(match[1]), entry.path))
    return sorted(found)


def _seen(path: str) -> _Seen | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return _Seen(status.st_ino, status.st_size, status.st_mtime_ns)


def _replaced(build: BuildRecord, path: str) -> ResultsMissing:
    return ResultsMissing(
        f"{path} of {build.package} is not there as it was fetched.",
        remedy="It was removed, or replaced by another package's file of that name: dispatch the package again.",
    )


def _put(source: str, target: str) -> None:
    """Make the target another name of the source, or where that cannot be a copy of it, in one step.

    The temporary name is always the same, so that one left by a killed process is found again: only one process is
    inside the store's transaction.
    """
    temporary = _beside(target)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        os.link(source, temporary)
    except OSError as error:
        # Another file system, too many links, a file system without links, somebody else's file (protected_hardlinks).
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP):
            raise
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    # Renaming one link of a file onto another does nothing at all, says POSIX: the temporary name is then still there.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)


def _beside(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.new")


def _stand_in(build: BuildRecord) -> str:
    return (
        f"No log of this build came back.\n\npackage: {build.package}\nmachine: {build.machine}\n"
        f"outcome: {build.outcome}\nreason: {build.reason}\nphase: {build.phase}\ndetail: {build.detail}\n"
    )
