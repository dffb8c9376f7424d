# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Looking into a tarball before anything is extracted from it.

tar(1) has precautions of its own, which differ from one to the other and from version to version. A tarball whose
members all pass here can be extracted by any of them: no member leaves the directory, none is written through a
symbolic link, and none is anything but a directory, a regular file or a link.
"""

from __future__ import annotations

import tarfile
import typing as t

from ._errors import PortbuildError

_MANY = 5_000_000  # members; the largest ports tree has some 250,000


class BadTarball(PortbuildError):
    """A tarball that cannot be read, or that must not be extracted."""


class Contents(t.NamedTuple):
    """What was seen in a tarball."""

    members: int
    bytes: int  # of its regular files
    top: frozenset[str]  # the names at its top
    found: frozenset[str]  # those of the members that were looked for
    below: frozenset[str]  # those that are there in a directory of the top


def _parts(path: str, name: str, what: str = "member") -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise BadTarball(
            f"{path}: the {what} {name!r:.200} leads out of the directory that it is extracted to.",
            remedy="Make the tarball with relative names, for example: tar -C DIRECTORY -cf FILE .",
        )
    return parts


class _Checker:
    """Remembers the symbolic links seen so far, because nothing may be written through one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._links: set[tuple[str, ...]] = set()

    def check(self, member: tarfile.TarInfo) -> tuple[str, ...]:
        parts = _parts(self._path, member.name)
        self._not_through_a_link(parts, member.name)
        if member.issym():
            if not parts:
                raise BadTarball(f"{self._path}: its top is a symbolic link.")
            self._links.add(parts)
        elif member.islnk():
            self._not_through_a_link(_parts(self._path, member.linkname, "target"), member.linkname)
        elif not member.isreg() and not member.isdir():
            raise BadTarball(
                f"{self._path}: {member.name!r:.200} is neither a directory nor a regular file nor a link.",
                remedy="Take it out of the tarball.",
            )
        return parts

    def _not_through_a_link(self, parts: tuple[str, ...], name: str) -> None:
        for length in range(1, len(parts) + 1):
            if parts[:length] in self._links:
                raise BadTarball(
                    f"{self._path}: {name!r:.200} would be written through the symbolic link "
                    f"{'/'.join(parts[:length])!r:.200}.",
                    remedy="Make the tarball anew from the directory.",
                )


def _members(path: str) -> t.Iterator[tarfile.TarInfo]:
    """Yield the members in their order; raises BadTarball for what cannot be read."""
    try:
        # As a stream: one pass whatever the compression, and with flat memory as long as the members are forgotten.
        with tarfile.open(path, "r|*", encoding="utf-8", errors="surrogateescape") as tarball:
            while True:
                member = tarball.next()
                if member is None:
                    return
                tarball.members.clear()  # type: ignore[attr-defined]  # there is no public way to have it forget them
                yield member
    except OSError as error:
        if error.errno is not None:  # without a number it is about the content
            raise
        raise _unreadable(path, error) from None
    except Exception as error:  # pylint: disable=broad-except  # of damaged ones anything comes, TypeError included
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: Exception) -> BadTarball:
    return BadTarball(
        f"{path} cannot be read as a tarball: {error}.",
        remedy="Give a tarball that is not compressed, or compressed by gzip, bzip2 or xz.",
    )


def check_members(path: str, wanted: t.Collection[str] = ()) -> Contents:
    """Read the whole list of members and return what was seen, or raise BadTarball.

    C(wanted) are paths to look for, at the top and in the directories there.
    """
    members = size = 0
    top: set[str] = set()
    found: set[str] = set()
    below: set[str] = set()
    checker = _Checker(path)
    for member in _members(path):
        parts = checker.check(member)
        members += 1
        size += member.size if member.isreg() else 0
        if members > _MANY:
            raise BadTarball(f"{path} has more than {_MANY} members.")
        if parts:
            top.add(parts[0])
        found.update({"/".join(parts)}.intersection(wanted))
        below.update({"/".join(parts[1:])}.intersection(wanted))
    return Contents(members, size, frozenset(top), frozenset(found), frozenset(below))
