# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a supervisor that was killed leaves in the operating system, beside files.

On Linux that is nothing: its mounts and processes are in namespaces of their own, which vanish with it.
"""

from __future__ import annotations

import functools
import typing as t

from ._backends import BACKENDS
from ._process import LINUX


class Remain(t.NamedTuple):
    """Something that is left. C(relative) is its path in the scratch directory, if it has one."""

    what: str
    where: str
    remove: t.Callable[[], None]


def clear_chroot(chroot: str) -> None:
    """End and unmount what is left in a chroot, whose lock the caller has seen to be free."""
    if not LINUX:
        from ._freebsd_remains import clear  # pylint: disable=import-outside-toplevel

        clear(chroot)


def find_remains(scratch: str, chroots: t.Collection[str], living: t.Collection[str]) -> list[Remain]:
    """Return what is left below the scratch directory that belongs to no chroot in which something lives.

    C(chroots) are the directories of all chroots, C(living) of those that are in use.
    """
    if LINUX:
        return []
    return [*_jails_and_mounts(scratch, living), *_datasets(scratch, chroots)]


def _jails_and_mounts(scratch: str, living: t.Collection[str]) -> t.Iterator[Remain]:
    from ._freebsd_remains import find_strays, remove_strays  # pylint: disable=import-outside-toplevel

    jails, mounts = find_strays(scratch, living)
    for jail in jails:
        yield Remain(f"jail {jail.name}", jail.path, functools.partial(remove_strays, [jail], []))
    for point in mounts:
        yield Remain("mount", point, functools.partial(remove_strays, [], [point]))


def _datasets(scratch: str, chroots: t.Collection[str]) -> t.Iterator[Remain]:
    for backend in BACKENDS.values():
        for name in backend.strays(scratch, chroots):
            yield Remain(f"{backend.name} file system", name, functools.partial(backend.remove_stray, name))
