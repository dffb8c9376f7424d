# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Install all Debian packages of a directory in clean chroots, from nothing but the archive and that directory.

What cannot be installed together is installed in several rounds, each in a chroot of its own.
"""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

from debian.deb822 import Deb822, PkgRelation
from debian.debian_support import Version

from ansible_collections.portbuild.cluster.tests.tools.host import as_root

SCRIPT = pathlib.Path(__file__).with_name("install.sh")
MARK = "=== installed\n"
OPERATORS: dict[str, t.Callable[[Version, Version], bool]] = {
    "<<": lambda ours, other: bool(ours < other),
    "<=": lambda ours, other: bool(ours <= other),
    "=": lambda ours, other: bool(ours == other),
    ">=": lambda ours, other: bool(ours >= other),
    ">>": lambda ours, other: bool(ours > other),
}


class NotInstalled(Exception):
    """A package that cannot be installed; the message is what apt said."""


class Name(t.NamedTuple):
    """A name that a package has, or that it provides; then its version may be missing."""

    name: str
    version: str


class Binary(t.NamedTuple):
    """What the control file of a binary package says about whom it can live with."""

    file: str
    name: str
    version: str
    architecture: str
    provides: tuple[Name, ...] = ()
    #: Names, operators and versions of Conflicts and Breaks; without operator any version is meant.
    against: tuple[tuple[str, str, str], ...] = ()


def read(path: pathlib.Path) -> Binary:
    """Return what the package says."""
    text = subprocess.run(["dpkg-deb", "-f", str(path)], check=True, capture_output=True, text=True).stdout
    fields = Deb822(text)
    return Binary(
        path.name,
        fields["Package"],
        fields["Version"],
        fields["Architecture"],
        tuple(Name(name, version) for name, _operator, version in relations(fields.get("Provides", ""))),
        tuple(found for field in ("Conflicts", "Breaks") for found in relations(fields.get(field, ""))),
    )


def relations(text: str) -> list[tuple[str, str, str]]:
    """Return names, operators and versions of a field without alternatives."""
    found = []
    for (relation,) in PkgRelation.parse_relations(text) if text.strip() else []:
        operator, version = relation.get("version") or ("", "")
        found.append((relation["name"], operator, version))
    return found


def is_against(one: Binary, other: Binary) -> bool:
    """Say whether the first refuses the second. A package that provides what it conflicts with does not mean itself."""
    names = (Name(other.name, other.version), *other.provides)
    return any(
        wanted == name and (not operator or (version and OPERATORS[operator](Version(version), Version(bound))))
        for wanted, operator, bound in one.against
        for name, version in names
    )


def rounds(packages: t.Iterable[Binary]) -> list[list[Binary]]:
    """Return the packages in as few rounds as first fit finds; those of a round have nothing against each other."""
    found: list[list[Binary]] = []
    for package in packages:
        for others in found:
            if not any(
                package.name == other.name or is_against(package, other) or is_against(other, package)
                for other in others
            ):
                others.append(package)
                break
        else:
            found.append([package])
    return found


def install(packages: pathlib.Path, bindist: pathlib.Path, chroot: pathlib.Path) -> list[list[Binary]]:
    """Install all C(.deb) files of the directory; return the rounds, or raise NotInstalled.

    The chroot is made anew for each round and removed in the end.
    """
    done = rounds(read(path) for path in sorted(packages.glob("*.deb")))
    for members in done:
        try:
            install_round(members, packages, bindist, chroot)
        finally:
            subprocess.run(as_root(["rm", "-rf", "--one-file-system", "--", str(chroot)]), check=True)
    return done


def install_round(
    members: t.Sequence[Binary], packages: pathlib.Path, bindist: pathlib.Path, chroot: pathlib.Path
) -> None:
    """Install these together, and look whether just these versions are there afterwards."""
    script = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "sh", str(SCRIPT)]
    done = subprocess.run(
        as_root([*script, str(chroot), str(bindist), str(packages), *(member.file for member in members)]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1800,
    )
    said, _mark, installed = done.stdout.partition(MARK)
    if done.returncode != 0:
        raise NotInstalled(said)
    there = set(installed.splitlines())
    wanted = {f"{member.name} {member.version} {member.architecture} installed": member for member in members}
    missing = [member.file for line, member in wanted.items() if line not in there]
    if missing:
        raise NotInstalled(f"{said}\nNot installed: {', '.join(missing)}")
