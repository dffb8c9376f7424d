# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Bases: the clean systems that chroots are made from, each extracted once per machine from a bindist tarball."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ._errors import PortbuildError
from ._files import BadFile, read_json, sha256_file, write_json
from ._lock import Lock
from ._names import check_sha256
from ._process import check_run, run
from ._spares import remove_spares
from ._trash import throw_away
from ._trees import usage

BASES = "bases"
_EXTRACT_TIMEOUT = 3600.0


class BaseMissing(PortbuildError):
    """The base that a chroot is to be made from is not on this machine."""


class BadBase(PortbuildError):
    """A tarball that is not the expected one, or not a system."""


class Base(t.NamedTuple):
    """An extracted base. The SHA-256 is that of its tarball."""

    sha256: str
    path: str
    bytes: int
    installed: float


def base_path(scratch: str, sha256: str) -> str:
    """Return where the base is, or would be."""
    return os.path.join(scratch, BASES, check_sha256(sha256))


def has_base(scratch: str, sha256: str) -> bool:
    """Return whether the base is there: it is complete if it is."""
    return os.path.isdir(base_path(scratch, sha256))


def find_base(scratch: str, sha256: str) -> str:
    """Return the path of the base, or raise BaseMissing."""
    if not has_base(scratch, sha256):
        raise BaseMissing(
            f"The base {sha256} is not on this machine.",
            remedy="Run the setup playbook: it brings the current bindist of the branch.",
            details={"base": sha256, "present": [base.sha256 for base in all_bases(scratch)]},
        )
    return base_path(scratch, sha256)


def all_bases(scratch: str) -> list[Base]:
    """Return the bases on this machine, oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(os.path.join(scratch, BASES)):
            with contextlib.suppress(PortbuildError):
                if has_base(scratch, name):
                    found.append(_describe(scratch, name))
    return sorted(found, key=lambda base: (base.installed, base.sha256))


def _describe(scratch: str, sha256: str) -> Base:
    path = base_path(scratch, sha256)
    try:
        notes = read_json(f"{path}.json")
    except (FileNotFoundError, BadFile):
        notes = {}
    size, installed = notes.get("bytes"), notes.get("installed")
    return Base(
        sha256,
        path,
        size if isinstance(size, int) else 0,
        float(installed) if isinstance(installed, (int, float)) else os.stat(path).st_mtime,
    )


def install_base(scratch: str, tarball: str, sha256: str, *, now: t.Callable[[], float] = time.time) -> bool:
    """Extract the tarball unless that was done before; return whether anything was done.

    The base appears under its name when it is complete and on the disk. A killed attempt is done over.
    """
    path = base_path(scratch, sha256)
    if os.path.isdir(path):
        return False
    bases = os.path.dirname(path)
    with Lock(os.path.join(bases, ".lock"), timeout=_EXTRACT_TIMEOUT):
        if os.path.isdir(path):
            return False
        found = sha256_file(tarball)
        if found != sha256:
            raise BadBase(f"{tarball} has the SHA-256 {found}, expected {sha256}.", remedy="Transfer it again.")
        partial = f".{sha256}.partial"
        with contextlib.suppress(FileNotFoundError):
            throw_away(scratch, f"{BASES}/{partial}")
        extracted = os.path.join(bases, partial)
        os.mkdir(extracted, 0o755)
        _extract(tarball, extracted)
        write_json(f"{path}.json", {"schema": 1, "bytes": usage(extracted), "installed": now()})
        os.sync()  # or a power failure leaves a complete tree of empty files
        os.rename(extracted, path)
    return True


def _extract(tarball: str, target: str) -> None:
    argv = ["tar", "-C", target, "--numeric-owner", "-xpf", tarball]
    if "GNU tar" in run(["tar", "--version"], timeout=10).stdout:  # bsdtar restores them unasked
        argv[1:1] = ["--xattrs", "--xattrs-include=*"]
    check_run(argv, f"Extracting {tarball}", timeout=_EXTRACT_TIMEOUT)
    if not os.path.lexists(os.path.join(target, "bin", "sh")):
        raise BadBase(
            f"{tarball} does not hold a system: there is no bin/sh at its top.", remedy="Make the bindist anew."
        )


def remove_base(scratch: str, sha256: str) -> None:
    """Throw a base away; nothing may use it."""
    path = base_path(scratch, sha256)
    throw_away(scratch, f"{BASES}/{sha256}")
    remove_spares(scratch, sha256)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.json")


def note_use(scratch: str, sha256: str) -> None:
    """Remember that the base was used just now."""
    with contextlib.suppress(OSError):
        os.utime(f"{base_path(scratch, sha256)}.json")
