# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The little ports tree of the acceptance: the framework of a real one, pkg, and the ports that stand beside this file.

INDEX of a whole tree takes hours on a small host; of this one, seconds.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import typing as t

PORTS = pathlib.Path(__file__).resolve().parent / "ports"
#: What is taken of a ports tree, as far as it is there.
PARTS = ("Mk", "Templates", "Keywords", "Tools", "Makefile", "GIDs", "UIDs", "LEGAL", "MOVED", "ports-mgmt/pkg")
NEEDED = ("Mk/bsd.port.mk", "Makefile", "ports-mgmt/pkg/Makefile")
CATEGORIES = ("devel", "ports-mgmt")


class BadTree(Exception):
    """A ports tree that the acceptance cannot use."""


class Version(t.NamedTuple):
    """A package's version, in its parts: 2.8.4_1,1."""

    version: str
    revision: str = ""
    epoch: str = ""

    @classmethod
    def parse(cls, text: str) -> Version:
        """Split what C(pkg query %v) prints."""
        found = re.fullmatch(r"([0-9A-Za-z.+]+)(?:_([0-9]+))?(?:,([0-9]+))?", text.strip())
        if not found:
            raise BadTree(f"{text!r} is not the version of a package.")
        return cls(found[1], found[2] or "", found[3] or "")


def take_parts(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy what is needed of a ports tree."""
    for name in PARTS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, symlinks=True)
        elif (source / name).exists():
            target.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def make_little(tree: pathlib.Path, pkg: Version | None = None) -> None:
    """Turn the parts of a ports tree into a whole little tree; its pkg gets the version, where one is given."""
    missing = [name for name in NEEDED if not (tree / name).is_file()]
    if missing:
        raise BadTree(f"The ports tree lacks {', '.join(missing)}.")
    shutil.copytree(PORTS, tree, dirs_exist_ok=True)
    (tree / "devel" / "pb-plist" / "pkg-install").chmod(0o755)
    edit(tree / "Makefile", only_categories)
    if pkg is not None:
        edit(tree / "ports-mgmt" / "pkg" / "Makefile", lambda text: with_version(text, pkg))


def edit(path: pathlib.Path, change: t.Callable[[str], str]) -> None:
    """Change the text of a file."""
    path.write_text(change(path.read_text(encoding="utf-8", errors="surrogateescape")), "utf-8", "surrogateescape")


def only_categories(text: str, categories: t.Collection[str] = CATEGORIES) -> str:
    """Return the top-level Makefile of a tree that has only these categories."""

    def keep(line: str) -> bool:
        found = re.match(r"\s*SUBDIR\s*\+?=\s*(\S+)\s*$", line)
        return found is None or found[1] in categories

    return "".join(line for line in text.splitlines(keepends=True) if keep(line))


def with_version(text: str, version: Version) -> str:
    """Return a port's Makefile with another version; nothing is built from it, INDEX only names it."""
    words = r"(?:DISTVERSION|PORTVERSION|PORTREVISION|PORTEPOCH|DISTVERSIONSUFFIX|DISTVERSIONPREFIX)"
    kept = [line for line in text.splitlines() if not re.match(rf"{words}\s*[?+:]?=", line)]
    own = [f"PORTVERSION=\t{version.version}"]
    own += [f"PORTREVISION=\t{version.revision}"] if version.revision else []
    own += [f"PORTEPOCH=\t{version.epoch}"] if version.epoch else []
    where = next((number for number, line in enumerate(kept, 1) if re.match(r"PORTNAME\s*\??=", line)), 0)
    return "\n".join([*kept[:where], *own, *kept[where:], ""])
