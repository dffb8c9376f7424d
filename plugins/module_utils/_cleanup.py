# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a build machine may get rid of: chroots that no lease owns, and files that nobody has used for long."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from ._attach import supervisor_alive
from ._bases import all_bases, all_trees, BASES, Extracted, remove_base, remove_tree, TREES
from ._chroots import Chroot, ChrootStore, KEPT, Stray, UNCOLLECTED
from ._errors import PortbuildError
from ._names import Job
from ._remains import find_remains, Remain
from ._trash import throw_away, trash

DAY = 86400.0
LIB = "lib"
_INCOMING_DAYS = 1.0  # a transfer that takes longer is dead


class Owned(t.NamedTuple):
    """What the controller knows of a queue: its identity, the newest token it gave out, and the jobs that have leases."""

    queue: str
    token: int
    jobs: frozenset[Job]


class Bounds(t.NamedTuple):
    """For how long what is kept of."""

    keep_max: int = 5
    keep_days: float = 7
    cache_days: float = 30
    cache_max: int = 0  # bytes of all files in the caches together; 0: no bound
    base_days: float = 30
    bases: frozenset[str] = frozenset()  # bindists that are current, whether used or not
    trees: frozenset[str] = frozenset()  # and trees


class Goer(t.NamedTuple):
    """Something that goes, and why. C(relative) is its path in the scratch directory, or another name of it."""

    relative: str
    why: str
    chroot: Chroot | Stray | None = None
    remain: Remain | None = None

    def path(self, scratch: str) -> str:
        """Return what a person knows it by."""
        return self.remain.where if self.remain is not None else f"{scratch}/{self.relative}"


def surplus(chroots: t.Iterable[Chroot], *, keep_max: int, oldest: float = 0.0) -> list[Chroot]:
    """Return the kept chroots that are too many, or were made before C(oldest)."""
    kept = sorted(
        (chroot for chroot in chroots if chroot.marker.state == KEPT), key=lambda chroot: -chroot.marker.created
    )
    return [chroot for number, chroot in enumerate(kept) if number >= keep_max or chroot.marker.created < oldest]


def is_unowned(chroot: Chroot, owned: Owned) -> bool:
    """Return whether the chroot is the queue's and no lease goes with it.

    One with a newer token than the list of leases was claimed after that was made.
    """
    marker = chroot.marker
    return marker.queue == owned.queue and marker.token <= owned.token and chroot.job not in owned.jobs


def uncollected(chroots: t.Iterable[Chroot], owned: Owned | None, *, oldest: float) -> list[Chroot]:
    """Return the chroots that no lease owns but that hold results of a build that ended."""
    return [
        chroot
        for chroot in chroots
        if owned is not None
        and is_unowned(chroot, owned)
        and chroot.ended
        and chroot.marker.state != KEPT
        and chroot.marker.created >= oldest
    ]


def attachable(chroots: t.Iterable[Chroot], *, oldest: float) -> list[Chroot]:
    """Return the chroots in which builds run, with a lease or without: the next dispatch attaches to them."""
    return [chroot for chroot in chroots if chroot.running and chroot.marker.created >= oldest]


def plan(store: ChrootStore, owned: Owned | None, bounds: Bounds, now: float) -> list[Goer]:
    """Return everything that goes. Without C(owned), chroots of unknown ownership stay."""
    chroots, strays = store.survey()
    oldest = now - bounds.keep_days * DAY
    too_many = surplus(chroots, keep_max=bounds.keep_max, oldest=oldest)
    staying = [*uncollected(chroots, owned, oldest=oldest), *attachable(chroots, oldest=oldest)]

    def relative(chroot: Chroot) -> str:
        return os.path.relpath(chroot.path, store.scratch)

    goers = [
        Goer(
            relative(chroot),
            f"It was left for debugging; {bounds.keep_max} are kept, for {bounds.keep_days:g} days.",
            chroot,
        )
        for chroot in too_many
    ]
    if owned is not None:
        goers += [
            Goer(relative(chroot), _why_unowned(chroot), chroot)
            for chroot in chroots
            if chroot.marker.state != KEPT and chroot not in staying and is_unowned(chroot, owned)
        ]
    # What a later version has left, that version cleans up.
    goers += [Goer(stray.relative, stray.why, stray) for stray in strays if not stray.running and not stray.newer]
    goers += _remains(store, chroots, strays)
    bases = {chroot.marker.base for chroot in chroots} | bounds.bases
    trees = {chroot.marker.tree for chroot in chroots} | bounds.trees
    goers += _extracted(all_bases(store.scratch), BASES, "bindist", bases, bounds, now)
    goers += _extracted(all_trees(store.scratch), TREES, "tree", trees, bounds, now)
    goers += _files(store.scratch, bounds, now)
    goers += [Goer(f"trash/{name}", "Its removal is not finished.") for name in trash(store.scratch)]
    return goers


def _why_unowned(chroot: Chroot) -> str:
    what = "its build runs" if chroot.running else f"it is {chroot.marker.state}"
    if chroot.marker.state == UNCOLLECTED or chroot.ended:
        what = "nobody has come for its results"
    return f"No lease owns it: {what}."


def _remains(store: ChrootStore, chroots: t.Iterable[Chroot], strays: t.Iterable[Stray]) -> t.Iterator[Goer]:
    """Yield what a killed supervisor left in the operating system. What belongs to a chroot that goes is there too."""
    paths = [*(chroot.path for chroot in chroots), *(stray.path for stray in strays)]
    living = [path for path in paths if supervisor_alive(path)]
    for remain in find_remains(store.scratch, paths, living):
        yield Goer(remain.where, f"Nobody owns this {remain.what}.", remain=remain)


def _extracted(
    entries: t.Iterable[Extracted], directory: str, what: str, used: t.Container[str], bounds: Bounds, now: float
) -> t.Iterator[Goer]:
    for entry in entries:
        last = entry.installed
        with contextlib.suppress(OSError):
            last = max(last, os.stat(f"{entry.path}.json").st_mtime)
        if entry.sha256 not in used and now - last > bounds.base_days * DAY:
            yield Goer(f"{directory}/{entry.sha256}", f"The {what} was not used for {(now - last) / DAY:.0f} days.")


class _File(t.NamedTuple):
    """A file that somebody may still want."""

    relative: str
    used: float
    size: int


_CACHES = ("cache/inputs", "cache/archives")


def _files(scratch: str, bounds: Bounds, now: float) -> t.Iterator[Goer]:
    for file in _unlinked(scratch, ("incoming",)):
        if now - file.used > _INCOMING_DAYS * DAY:
            yield Goer(file.relative, f"It was not used for {(now - file.used) / DAY:.0f} days.")
    yield from _caches(scratch, bounds, now)
    yield from _programs(scratch, bounds, now)


def _caches(scratch: str, bounds: Bounds, now: float) -> t.Iterator[Goer]:
    """Yield what nobody has used for long, and what makes the caches too large, the longest unused first."""
    files = sorted(_unlinked(scratch, _CACHES), key=lambda file: file.used)
    total = sum(file.size for file in files)
    for file in files:
        if now - file.used > bounds.cache_days * DAY:
            why = f"It was not used for {(now - file.used) / DAY:.0f} days."
        elif 0 < bounds.cache_max < total:
            why = f"The caches have {total >> 20} MiB, {bounds.cache_max >> 20} MiB are allowed; it was not used for longest."
        else:
            return
        total -= file.size
        yield Goer(file.relative, why)


def _unlinked(scratch: str, directories: t.Iterable[str]) -> t.Iterator[_File]:
    """Yield the files that have one name only: with more, a job is using them right now."""
    for directory in directories:
        with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(scratch, directory)) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                    used = max(found.st_mtime, found.st_atime)
                    yield _File(f"{directory}/{entry.name}", used, found.st_size)


def _programs(scratch: str, bounds: Bounds, now: float) -> t.Iterator[Goer]:
    """Yield supervisors' programs of other versions of ours. One that runs has loaded what it needs."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(scratch, LIB)) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime, _last_use(entry.path, status), entry.name))
    for _installed, used, name in sorted(found)[:-1]:  # the newest stays, used or not
        if now - used > bounds.base_days * DAY:
            yield Goer(f"{LIB}/{name}", f"This version of our program was not used for {(now - used) / DAY:.0f} days.")


def _last_use(directory: str, status: os.stat_result) -> float:
    """Return when the program was read last: each start of a build reads its files, for one look a day at least."""
    moments = [status.st_mtime]
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        moments += [
            entry.stat(follow_symlinks=False).st_atime for entry in entries if entry.is_file(follow_symlinks=False)
        ]
    return max(moments)


def carry_out(store: ChrootStore, goers: t.Iterable[Goer]) -> list[tuple[Goer, str]]:
    """Throw away what goes; return what could not, and why."""
    problems = []
    for goer in goers:
        try:
            if goer.remain is not None:
                goer.remain.remove()
            elif goer.chroot is not None:
                store.discard(goer.chroot)
            elif goer.relative.startswith(f"{BASES}/"):
                remove_base(store.scratch, os.path.basename(goer.relative))
            elif goer.relative.startswith(f"{TREES}/"):
                remove_tree(store.scratch, os.path.basename(goer.relative))
            elif not goer.relative.startswith("trash/"):
                throw_away(store.scratch, goer.relative)
        except FileNotFoundError:
            pass
        except (OSError, PortbuildError) as error:
            problems.append((goer, str(error)))
    return problems
