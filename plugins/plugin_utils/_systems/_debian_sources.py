# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Debian source packages in a local directory: C(NAME_VERSION.dsc) with its files, or unpacked as C(NAME/debian/).

They may come from anybody: everything is bounded, no link is followed out of them, and checksums are compared before
anything travels.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import os
import re
import stat
import tarfile
import typing as t
import zlib

from ...module_utils._files import sha256_file
from ...module_utils._names import BadName, check_file_name, check_sha256
from . import BadSource, InputFile

try:
    from debian.deb822 import Deb822
    from debian.debian_support import Version
except ImportError:  # told by _debian.py, which needs it for everything
    Deb822 = Version = None  # type: ignore[assignment,misc]

DESCRIPTION_LIMIT = 1 << 20  # a .dsc, a control file or the head of a changelog; the largest known .dsc has 150 kB
_COMPRESSED_LIMIT, _UNPACKED_LIMIT = 1 << 24, 1 << 26  # of the beginning of a tarball in which a control file may be
VERSION_CONTROL = frozenset({".git", ".svn", ".hg", ".bzr", "_darcs", "CVS", ".pc.lock"})

# Debian Policy 5.6.1 and 5.6.12.
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
VERSION = re.compile(r"(?:[0-9]+:)?[0-9][A-Za-z0-9.+~-]*")
_ENTRY = re.compile(r"([a-z0-9][a-z0-9+.-]+) \(([^() \t]+)\)((?:\s+[A-Za-z0-9.+-]+)+);")


class LocalSource(t.NamedTuple):
    """A source package of the directory."""

    kind: t.Literal["dsc", "tree"]
    name: str
    version: str
    path: str


def find_source(directory: str, name: str, version: str = "") -> LocalSource | None:
    """Return the local source of this name: this version if one is asked for, else the newest; None without one."""
    try:
        entries = sorted(os.listdir(directory))
    except OSError as error:
        raise BadSource(f"The source directory {directory!r} cannot be read: {error.strerror}.") from None
    found = []
    if name in entries and os.path.isfile(os.path.join(directory, name, "debian", "control")):
        found.append(read_tree(os.path.join(directory, name), name))
    for entry in entries:
        if entry.startswith(f"{name}_") and entry.endswith(".dsc"):
            found.append(read_dsc_head(os.path.join(directory, entry), name))
    found = [source for source in found if not version or source.version == version]
    # Of equal versions the unpacked one: it is what somebody works on.
    return max(found, key=lambda source: (Version(source.version), source.kind), default=None)


class LocalSources(t.NamedTuple):
    """All source packages of a directory, by name; and what is wrong with those that cannot be read."""

    found: dict[str, list[LocalSource]]
    bad: dict[str, str]


def list_sources(directory: str) -> LocalSources:
    """Return all that C(find_source) could find, having looked through the directory once."""
    try:
        entries = sorted(os.listdir(directory))
    except OSError as error:
        raise BadSource(f"The source directory {directory!r} cannot be read: {error.strerror}.") from None
    sources = LocalSources({}, {})
    for entry in entries:
        path = os.path.join(directory, entry)
        name = entry.partition("_")[0] if entry.endswith(".dsc") else entry
        try:
            if entry.endswith(".dsc"):
                source = read_dsc_head(path, name)
            elif os.path.isfile(os.path.join(path, "debian", "control")):
                source = read_tree(path, name)
            else:
                continue
            if not NAME.fullmatch(name):
                raise BadSource(f"{path}: {name!r:.100} cannot be the name of a Debian source package.")
        except BadSource as error:
            sources.bad.setdefault(name, error.message)
            continue
        sources.found.setdefault(name, []).append(source)
    for found in sources.found.values():
        found.sort(key=lambda source: (Version(source.version), source.kind), reverse=True)
    return sources


# --- .dsc ---------------------------------------------------------------------------------------------------------


def _read_description(path: str) -> str:
    """Return the text of a small regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadSource(f"{path} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadSource(f"{path} is not a regular file.")
    with os.fdopen(descriptor, "rb") as stream:
        data = stream.read(DESCRIPTION_LIMIT)
    return data.decode("utf-8", errors="replace")


def describe(path: str) -> dict[str, str]:
    """Return the fields of a .dsc, a .changes or a control file's first paragraph, with names in lower case."""
    return parse_control(_read_description(path), path)


def parse_control(text: str, where: str) -> dict[str, str]:
    """Return the fields of the first paragraph, with names in lower case; a signature around it is taken off."""
    text = text.replace("\r\n", "\n").lstrip("\n")
    if text.startswith("-----BEGIN PGP SIGNED MESSAGE-----"):
        text = text.partition("\n\n")[2].partition("\n-----BEGIN PGP SIGNATURE-----")[0].lstrip("\n")
    try:
        paragraph = Deb822(io.StringIO(text))
        return {name.lower(): paragraph[name] for name in paragraph}
    except (ValueError, KeyError, TypeError) as error:
        raise BadSource(f"{where} is malformed: {error}.") from None


def _checked(kind: t.Literal["dsc", "tree"], path: str, where: str, found: str, version: str, name: str) -> LocalSource:
    if found != name:
        raise BadSource(f"{where} is for the source package {found!r:.100}, where {name!r} is expected.")
    if not VERSION.fullmatch(version) or len(version) > 200:
        raise BadSource(f"{where} has the malformed version {version!r:.100}.")
    return LocalSource(kind, name, version, path)


def read_dsc_head(path: str, name: str) -> LocalSource:
    """Return what the .dsc describes; its files are not looked at."""
    fields = describe(path)
    return _checked("dsc", path, path, fields.get("source", ""), fields.get("version", ""), name)


def dsc_files(path: str) -> list[InputFile]:
    """Return the .dsc and the files it lists, each of them compared with its size and checksum."""
    fields = describe(path)
    files = []
    for line in fields.get("checksums-sha256", "").splitlines():
        if not line.strip():
            continue
        try:
            digest, count, name = line.split()
            sha256, size = check_sha256(digest), int(count)
            check_file_name(name)
        except (BadName, ValueError):
            raise BadSource(f"{path} has the malformed checksum line {line!r:.200}.") from None
        files.append(_verified(os.path.join(os.path.dirname(path), name), name, size, sha256, path))
    if not files:
        raise BadSource(f"{path} lists no files with SHA-256 checksums.", remedy="Make it anew with dpkg-source.")
    if len({file.name for file in files}) != len(files):
        raise BadSource(f"{path} lists a file twice.")
    own = os.path.basename(path)
    return [InputFile(check_file_name(own), path, os.path.getsize(path), sha256_file(path)), *files]


def control_in_dsc(path: str) -> str:
    """Return the control file in the source that the .dsc describes, reading no more than its beginning; else nothing.

    It is looked for where dpkg-source puts it: in debian.tar, or in the only tarball.
    """
    names = [line.split()[-1] for line in describe(path).get("files", "").splitlines() if line.strip()]
    tarballs = [name for name in names if re.search(r"\.tar\.(gz|xz|bz2)$", name)]
    chosen = [name for name in tarballs if ".debian.tar." in name] or (tarballs if len(tarballs) == 1 else [])
    try:
        data = _beginning(os.path.join(os.path.dirname(path), check_file_name(chosen[0])))
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
            for entry in archive:
                parts = [part for part in entry.name.split("/") if part != "."]
                if entry.isreg() and parts[-2:] == ["debian", "control"] and len(parts) <= 3:
                    content = archive.extractfile(entry)
                    return content.read(DESCRIPTION_LIMIT).decode("utf-8", errors="replace") if content else ""
    except Exception:  # pylint: disable=broad-except  # of damaged ones anything comes, TypeError included
        return ""
    return ""


def _beginning(path: str) -> bytes:
    """Return the beginning of what is compressed in a small regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        data = stream.read(_COMPRESSED_LIMIT)
    if path.endswith(".gz"):
        return zlib.decompressobj(wbits=31).decompress(data, _UNPACKED_LIMIT)
    if path.endswith(".bz2"):
        return bz2.BZ2Decompressor().decompress(data, _UNPACKED_LIMIT)
    # The memory limit is for the dictionary: xz -9 has 64 MiB.
    return lzma.LZMADecompressor(memlimit=128 << 20).decompress(data, _UNPACKED_LIMIT)


def _verified(path: str, name: str, size: int, sha256: str, dsc: str) -> InputFile:
    try:
        found = os.lstat(path)
    except OSError as error:
        raise BadSource(f"{dsc} lists {name}, which cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(found.st_mode):
        raise BadSource(f"{path} is not a regular file.")
    if found.st_size != size:
        raise BadSource(f"{path} has {found.st_size} bytes, {dsc} says {size}.")
    actual = sha256_file(path)
    if actual != sha256:
        raise BadSource(f"{path} has the SHA-256 {actual}, {dsc} says {sha256}.")
    return InputFile(name, path, size, sha256)


# --- unpacked -----------------------------------------------------------------------------------------------------


def parse_changelog_head(text: str, where: str) -> tuple[str, str]:
    """Return name and version of the newest entry."""
    for line in text.splitlines()[:200]:
        if not line.strip():
            continue
        match = _ENTRY.match(line)
        if match:
            return match[1], match[2]
        break
    raise BadSource(f"{where} does not begin with an entry like 'name (version) distribution; urgency=low'.")


def read_tree(path: str, name: str) -> LocalSource:
    """Return what the unpacked source describes."""
    changelog = os.path.join(path, "debian", "changelog")
    found, version = parse_changelog_head(_read_description(changelog), changelog)
    control = os.path.join(path, "debian", "control")
    source = describe(control).get("source", "")
    if source != found:
        raise BadSource(f"{control} names the source {source!r:.100}, {changelog} names it {found!r}.")
    return _checked("tree", path, changelog, found, version, name)


def pack_tree(source: LocalSource, directory: str) -> InputFile:
    """Return the unpacked source as a tarball in the directory: the same bytes for the same files and times.

    Version control directories stay behind. Links go as links: they are resolved in the chroot, by the build user.
    """
    name = check_file_name(f"{source.name}_{source.version.replace(':', '%3a')}.tar")
    path = os.path.join(directory, name)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for relative in _walk(source.path):
            _add(archive, source.path, relative)
    return InputFile(name, path, os.path.getsize(path), sha256_file(path))


def control_of(source: LocalSource) -> str:
    """Return the control file of a local source; nothing where it cannot be read."""
    if source.kind == "dsc":
        return control_in_dsc(source.path)
    return _read_description(os.path.join(source.path, "debian", "control"))


def digest(source: LocalSource) -> str:
    """Return the SHA-256 of what a source consists of: names, modes and contents of what is packed, but no times."""
    if source.kind == "dsc":
        return sha256_file(source.path)
    whole = hashlib.sha256()
    for relative in _walk(source.path):
        full = os.path.join(source.path, relative)
        found = os.lstat(full)
        words = [relative, f"{stat.S_IFMT(found.st_mode):o} {_mode(found):o}"]
        if stat.S_ISLNK(found.st_mode):
            words.append(os.readlink(full))
        elif stat.S_ISREG(found.st_mode):
            words.append(sha256_file(full))
        elif not stat.S_ISDIR(found.st_mode):
            raise _odd_file(full)
        whole.update(b"\0".join(map(os.fsencode, words)) + b"\0\n")
    return whole.hexdigest()


def _mode(found: os.stat_result) -> int:
    """Return the mode that something is packed with."""
    mode = stat.S_IMODE(found.st_mode) & 0o777 | 0o600
    return mode | 0o100 if stat.S_ISDIR(found.st_mode) else mode


def _odd_file(path: str) -> BadSource:
    path = os.path.normpath(path)
    return BadSource(f"{path} is neither a file, a directory nor a link.", remedy="Remove it from the source.")


def _walk(top: str) -> t.Iterator[str]:
    pending = ["."]
    while pending:
        relative = pending.pop()
        yield relative
        full = os.path.join(top, relative)
        if os.path.isdir(full) and not os.path.islink(full):
            names = sorted(os.listdir(full), reverse=True)
            pending += [os.path.join(relative, name) for name in names if name not in VERSION_CONTROL]


def _add(archive: tarfile.TarFile, top: str, relative: str) -> None:
    full = os.path.join(top, relative)
    found = os.lstat(full)
    entry = tarfile.TarInfo(relative)
    entry.mtime = int(found.st_mtime)
    entry.mode = _mode(found)
    if stat.S_ISDIR(found.st_mode):
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    elif stat.S_ISLNK(found.st_mode):
        entry.type = tarfile.SYMTYPE
        entry.linkname = os.readlink(full)
        archive.addfile(entry)
    elif stat.S_ISREG(found.st_mode):
        descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            entry.size = os.fstat(stream.fileno()).st_size
            archive.addfile(entry, stream)
    else:
        raise _odd_file(full)
