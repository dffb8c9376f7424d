# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Bringing what a build made out of its tree.

A build is hostile code: where a package is expected it may have put links, devices, FIFOs, a directory, or a file
that never ends. This runs after every process of the build is gone, so nothing changes while it looks.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import typing as t

from . import _beneath
from ._errors import PortbuildError
from ._files import CHUNK, temporary_name
from ._names import check_file_name, check_result_name, check_sha256

MAX_FILES = 10000


class BadResults(PortbuildError):
    """Results that cannot be taken."""


class Budget:
    """How many bytes may still be taken, over all of a job's collections."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = limit

    def take(self, count: int) -> None:
        if not self.limit:
            return
        self.left -= count
        if self.left < 0:
            raise BadResults(
                f"The results are larger than {self.limit} bytes.",
                remedy="If that is right for this package, raise its limit for results.",
            )


class Collected(t.NamedTuple):
    """One file that was brought out."""

    name: str
    kind: str
    size: int
    sha256: str


def copy_out(source: int, target: str, budget: Budget, *, mode: int = 0o644, durable: bool = True) -> tuple[int, str]:
    """Copy an open file to a new file, and return its size and SHA-256. The target appears when it is whole."""
    digest = hashlib.sha256()
    size = 0
    temporary = temporary_name(target)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as stream:
            while chunk := os.read(source, CHUNK):
                size += len(chunk)
                budget.take(len(chunk))
                digest.update(chunk)
                stream.write(chunk)
            os.fchmod(stream.fileno(), mode)
            if durable:
                os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return size, digest.hexdigest()


def collect(
    top: int,
    directory: str,
    destination: t.Callable[[str], str],
    kind: str,
    budget: Budget,
    *,
    kinds: t.Mapping[str, str] | None = None,
) -> list[Collected]:
    """Copy the files of one directory beneath the top out.

    C(kinds) maps suffixes to kinds; what it does not name is of the kind C(kind). C(destination) returns the
    directory for a kind. A missing directory has no files; anything in it that is not a
    plain file with a proper name spoils the whole collection.
    """
    found: list[Collected] = []
    try:
        source = _beneath.open_directory(top, directory)
    except FileNotFoundError:
        return found
    except _beneath.UnsafeFile as error:
        raise BadResults(error.message) from None
    with _beneath.opened(source):
        for name in _names(source, directory):
            which = (kinds or {}).get(os.path.splitext(name)[1], kind)
            found.append(_collect_one(source, name, destination, which, budget))
    return found


def _names(directory: int, path: str) -> list[str]:
    names = []
    with os.scandir(directory) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > MAX_FILES:
                raise BadResults(f"There are more than {MAX_FILES} files in {path!r}.")
    return sorted(names)


def _collect_one(
    directory: int, name: str, destination: t.Callable[[str], str], kind: str, budget: Budget
) -> Collected:
    try:
        (check_file_name if kind == "distfile" else check_result_name)(name)
        with _beneath.opened(_beneath.open_file(directory, name)) as file:
            size, digest = copy_out(file, os.path.join(destination(kind), name), budget)
    except (BadResults, OSError):
        raise
    except PortbuildError as error:
        raise BadResults(f"Among the results: {error.message}") from None
    return Collected(name, kind, size, digest)


def matching(files: t.Iterable[Collected], pattern: str) -> list[str]:
    """Return the names that a step with C(each) runs for."""
    return sorted(file.name for file in files if fnmatch.fnmatchcase(file.name, pattern))


def parse_checksums(text: str, *, limit: int = 20000) -> list[tuple[str, str]]:
    """Read a step's list of C(name sha256) lines."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        name, _separator, digest = line.strip().rpartition(" ")
        found.append((name.strip(), check_sha256(digest)))
        if len(found) > limit:
            raise BadResults(f"A step listed more than {limit} files.")
    return found


def keep_archive(top: int, path: str, sha256: str, cache: str) -> bool:
    """Copy a downloaded file into the cache if it is what it is said to be; return whether it is there now."""
    target = os.path.join(cache, sha256)
    if os.path.exists(target):
        os.utime(target)  # the cache is cleaned by age
        return True
    directory_path, _separator, name = path.rpartition("/")
    pending = os.path.join(cache, f".{sha256}.{os.getpid()}.new")  # another build may be bringing the same
    opened = _beneath.opened
    with (
        opened(_beneath.open_directory(top, directory_path)) as directory,
        opened(_beneath.open_file(directory, name)) as file,
    ):
        _size, digest = copy_out(file, pending, Budget(0), mode=0o444)
    if digest != sha256:
        os.unlink(pending)
        return False
    os.replace(pending, target)
    return True
