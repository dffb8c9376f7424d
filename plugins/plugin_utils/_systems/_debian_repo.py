# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The index of our own packages, as apt reads it from a flat repository: C(Packages) and C(Release)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import lzma
import os
import re
import sqlite3
import tarfile
import typing as t
import zlib

from ...module_utils._errors import PortbuildError
from . import PackageFile

try:
    from debian.deb822 import Deb822
except ImportError:  # told by _debian.py, which needs it for everything
    Deb822 = None  # type: ignore[assignment,misc]

CONTROL_LIMIT = 16 << 20  # control.tar unpacked: md5sums of the largest packages have a few MB
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
DATE = "Thu, 01 Jan 1970 00:00:00 UTC"
# What the index says itself: a package must not say where it is or what it hashes to.
OURS = frozenset({"filename", "size", "md5sum", "sha1", "sha256", "sha512"})


class BadPackage(PortbuildError):
    """A file that is not the Debian package it should be."""


def read_control(path: str) -> str:
    """Return the control file of a .deb, reading no more than it takes.

    Only what C(dpkg-deb) of Debian writes is understood: C(ar) with control.tar uncompressed, or by gzip or xz.
    """
    with open(path, "rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise BadPackage(f"{path} is not a Debian package: it does not begin like an ar archive.")
        while header := stream.read(60):
            if len(header) < 60 or header[58:] != b"`\n":
                raise BadPackage(f"{path} is damaged: bad ar header.")
            name = header[:16].decode("ascii", errors="replace").strip().rstrip("/")
            try:
                size = int(header[48:58])
            except ValueError:
                size = -1
            if size < 0:
                raise BadPackage(f"{path} is damaged: bad size in an ar header.")
            if name.startswith("control.tar"):
                if size > CONTROL_LIMIT:
                    raise BadPackage(f"{path} has a {name} of {size} bytes.")
                return _control_of(_unpacked(stream.read(size), name, path), path)
            stream.seek(size + size % 2, os.SEEK_CUR)
    raise BadPackage(f"{path} has no control.tar.")


def _unpacked(data: bytes, name: str, path: str) -> bytes:
    suffix = name.removeprefix("control.tar")
    try:
        if suffix == "":
            return data
        if suffix == ".gz":
            result = zlib.decompressobj(wbits=31).decompress(data, CONTROL_LIMIT + 1)
        elif suffix == ".xz":
            # The memory limit is for the dictionary: xz -9 has 64 MiB.
            result = lzma.LZMADecompressor(memlimit=128 << 20).decompress(data, CONTROL_LIMIT + 1)
        else:
            raise BadPackage(f"{path} has {name}: only gzip and xz are supported here.")
    except (zlib.error, lzma.LZMAError) as error:
        raise BadPackage(f"{path} is damaged: {name}: {error}.") from None
    if len(result) > CONTROL_LIMIT:
        raise BadPackage(f"{path} has a {name} of more than {CONTROL_LIMIT} bytes unpacked.")
    return result


def _control_of(data: bytes, path: str) -> str:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for entry in archive:
                if entry.isreg() and entry.name.removeprefix("./") == "control":
                    content = archive.extractfile(entry)
                    return content.read().decode("utf-8", errors="replace") if content else ""
    except (tarfile.TarError, ValueError, OSError) as error:
        raise BadPackage(f"{path} is damaged: control.tar: {error}.") from None
    raise BadPackage(f"{path} has no control file.")


def description(control: str, path: str) -> str:
    """Return what the index says of a package beside where it is: one well-formed paragraph."""
    try:
        fields = Deb822(io.StringIO(control))
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        for field in list(fields):
            if field.lower() in OURS:
                del fields[field]
        text = fields.dump()
    except (KeyError, ValueError, TypeError) as error:
        raise BadPackage(f"{path} has a malformed control file: {error}.") from None
    if not text or not NAME.fullmatch(name) or not version or "\n" in version + architecture:
        raise BadPackage(f"{path} has a malformed control file: Package {name!r:.80}, Version {version!r:.80}.")
    return str(text).rstrip() + "\n"


class RepositoryIndex:
    """Reads packages once: what it has read is remembered by SHA-256 in a file that may be removed at any time."""

    def __init__(self, cache: str = "") -> None:
        self._cache = cache

    def packages(self, files: t.Iterable[PackageFile]) -> tuple[str, list[str]]:
        """Return the text of C(Packages), and a problem for each file that is left out."""
        wanted = sorted((file for file in files if file.name.endswith(".deb")), key=lambda file: file.name)
        known = self._known(wanted)
        fresh: dict[str, str] = {}
        texts: list[str] = []
        problems = []
        for file in wanted:
            try:
                text = known.get(file.sha256) or description(read_control(file.path), file.path)
            except BadPackage as error:
                problems.append(error.message)
                continue
            except OSError as error:
                problems.append(f"{file.path} cannot be read: {error.strerror}.")
                continue
            texts.append(f"{text}Filename: ./{file.name}\nSize: {file.size}\nSHA256: {file.sha256}\n")
            if file.sha256 not in known:
                fresh[file.sha256] = text
        self._remember(fresh)
        return "\n".join(texts), problems

    def _open(self) -> sqlite3.Connection:
        os.makedirs(os.path.dirname(self._cache), exist_ok=True)
        connection = sqlite3.connect(self._cache, timeout=5)
        connection.execute("PRAGMA synchronous = OFF")  # a lost cache costs a second
        connection.execute("CREATE TABLE IF NOT EXISTS description (sha256 TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")
        return connection

    def _known(self, files: t.Sequence[PackageFile]) -> dict[str, str]:
        if not self._cache or not files:
            return {}
        try:
            with contextlib.closing(self._open()) as connection:
                if len(files) > 500:
                    return dict(connection.execute("SELECT sha256, text FROM description"))
                found = (
                    connection.execute(
                        "SELECT sha256, text FROM description WHERE sha256 = ?", (file.sha256,)
                    ).fetchone()
                    for file in files
                )
                return dict(row for row in found if row)
        except (sqlite3.Error, OSError):
            return {}

    def _remember(self, fresh: t.Mapping[str, str]) -> None:
        if not self._cache or not fresh:
            return
        with contextlib.suppress(sqlite3.Error, OSError), contextlib.closing(self._open()) as connection:
            connection.executemany("INSERT OR REPLACE INTO description VALUES (?, ?)", list(fresh.items()))
            connection.commit()


def release(packages: str, name: str) -> str:
    """Return the text of C(Release): the name is what apt's pins match."""
    data = packages.encode("utf-8")
    digest = hashlib.sha256(data).hexdigest()
    # apt wants a date, and refuses one that goes backwards; what counts here is the hash.
    return f"Origin: {name}\nLabel: {name}\nDate: {DATE}\nSHA256:\n {digest} {len(data)} Packages\n"
