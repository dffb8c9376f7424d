# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Names that become parts of paths, and the identity of a job.

Every name is checked here before it touches a path, a command line or a lock: on the controller for what a
person typed, on the client for what the controller sent, and again on the controller for what a client replied.
"""

from __future__ import annotations

import hashlib
import re
import typing as t

from ._errors import PortbuildError

# FreeBSD: PKGNAME with flavor prefix, e.g. py311-foo-1.2_1,1 (ports/Mk: letters, digits and +._,~-).
# Debian: Policy 5.6.1 allows a subset of this. A leading dash would be read as an option.
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._,~@-]*")
# Debian Policy 5.6.12 (version) and FreeBSD's PKGVERSION; never part of a path, but part of a command line.
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.:_,~-]*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_FILE = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9+._,~@=:%-]*")

# The chroot backends of all operating systems. Which of them there are on a machine is in _backends_linux.py and
# _backends_freebsd.py; documentation and argument specs list them all.
BACKENDS = ("overlay", "zfs", "tmpfs", "directory")

MAX_PACKAGE = 200  # leaves room for a suffix below NAME_MAX (255)
MAX_WORD = 64
MAX_FILE = 240


class BadName(PortbuildError):
    """A name that cannot be used."""


def _check(kind: str, value: t.Any, pattern: re.Pattern[str], limit: int, allowed: str) -> str:
    if not isinstance(value, str):
        raise BadName(f"The {kind} must be a string, got {type(value).__name__}.")
    if not value:
        raise BadName(f"The {kind} is empty.", remedy=f"Give one made of {allowed}.")
    if len(value) > limit:
        raise BadName(f"The {kind} {value[:40]!r}... has {len(value)} characters, at most {limit} are allowed.")
    if not pattern.fullmatch(value) or value in (".", ".."):
        raise BadName(
            f"The {kind} {value!r} is malformed.",
            remedy=f"It must begin with a letter or a digit and consist of {allowed}.",
        )
    return value


def check_package(value: t.Any) -> str:
    """Return the package name, or raise BadName."""
    return _check("package name", value, _PACKAGE, MAX_PACKAGE, "letters, digits and + . _ , ~ @ -")


def check_version(value: t.Any) -> str:
    """Return the package version, or raise BadName."""
    return _check("version", value, _VERSION, MAX_PACKAGE, "letters, digits and + . : _ , ~ -")


def check_arch(value: t.Any) -> str:
    """Return the target architecture, or raise BadName."""
    return _check("arch", value, _WORD, MAX_WORD, "letters, digits and . _ + -")


def check_branch(value: t.Any) -> str:
    """Return the branch, or raise BadName."""
    return _check("branch", value, _WORD, MAX_WORD, "letters, digits and . _ + -")


def check_machine(value: t.Any) -> str:
    """Return the name of a build machine (its mlist name and inventory_hostname), or raise BadName."""
    return _check("machine name", value, _WORD, MAX_PACKAGE, "letters, digits and . _ + -")


def check_file_name(value: t.Any) -> str:
    """Return the name of a result file (one path component), or raise BadName."""
    return _check("file name", value, _FILE, MAX_FILE, "letters, digits and + . _ , ~ @ = : % -")


def check_result_name(value: t.Any) -> str:
    """Return the name of a file of a package set, or raise BadName. Epochs never are part of one (deb-version(7))."""
    name = check_file_name(value)
    if ":" in name or "%3a" in name.lower():
        raise BadName(f"The file name {name!r} carries an epoch.")
    return name


def check_sha256(value: t.Any) -> str:
    """Return a SHA-256 in lower-case hexadecimal, or raise BadName."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise BadName(f"{value!r:.80} is not a SHA-256 in 64 lower-case hexadecimal digits.")
    return value


class Job(t.NamedTuple):
    """The identity of a build: one job per package of a branch of an arch, whatever its version."""

    arch: str
    branch: str
    package: str

    @classmethod
    def checked(cls, arch: t.Any, branch: t.Any, package: t.Any) -> Job:
        """Return the job made of checked names, or raise BadName."""
        return cls(check_arch(arch), check_branch(branch), check_package(package))

    def __str__(self) -> str:
        return f"{self.arch}/{self.branch}/{self.package}"


CHROOTS = "chroots"
INCOMING = "incoming"


def relative_chroot(job: Job) -> str:
    """Return where in the scratch directory the job's chroot is, or would be."""
    return "/".join((CHROOTS, *Job.checked(*job)))


def chroot_path(scratch: str, job: Job) -> str:
    """Return where the job's chroot is, or would be. Works on paths of another machine too."""
    return f"{scratch.rstrip('/')}/{relative_chroot(job)}"


def incoming_path(scratch: str, sha256: str, job: Job) -> str:
    """Return where the controller puts a file for the job: no other job's transfer writes there.

    Whoever adopts the job finds there what a dispatch that died has left.
    """
    word = hashlib.sha256(str(job).encode()).hexdigest()[:16]
    return f"{scratch.rstrip('/')}/{INCOMING}/{check_sha256(sha256)}.{word}.part"
