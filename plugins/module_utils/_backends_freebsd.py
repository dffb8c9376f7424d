# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The chroot backends of FreeBSD.

Mounts here outlive who made them. The supervisor unmounts what is in its chroot before it ends; what a killed one
left is found by C(_freebsd_remains).

C(zfs) has, below the file system C(zfs_dataset) of the per-node configuration (or C(portbuild), below the one that the
scratch directory is on)::

    base-SHA256@clean        a base, copied once per machine
    chroot-INODE-NAME        the root NAME of the chroot whose directory has this inode: a clone of a base's snapshot
    chroot-INODE-NAME@clean  the same as it was made: what a reset goes back to

None of them is mounted but by us, by mount(8).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import typing as t

from . import _freebsd
from ._backends_common import (
    Backend,
    BackendFailed,
    base_bytes,
    copy_tree,
    Directory,
    like,
    part_name,
    pour_tree,
    prepare,
    remove_parts,
)
from ._errors import PortbuildError
from ._files import write_atomic
from ._freebsd_remains import unmount_below
from ._lock import Lock
from ._node import read_conf
from ._process import check_run, LINUX, run
from ._trees import usage

_ZFS_SECONDS = 120.0
_COPY_SECONDS = 3600.0
_DATASET = "dataset"  # in fs/: the name of the parent of the chroot's file systems


class _Mounted(Backend):
    """What the backends with roots that are mounted have in common."""

    def unmount(self, path: str) -> None:
        unmount_below(os.path.realpath(path))

    def _place(self, chroot: str, base: str, name: str) -> str:
        """Return the directory to mount a root on, with nothing mounted there."""
        root = os.path.join(prepare(chroot, base), part_name(name, "root"))
        with contextlib.suppress(FileExistsError):
            os.mkdir(root, 0o700)
        self.unmount(root)
        return root

    def drop(self, chroot: str, name: str) -> None:
        self.unmount(os.path.join(chroot, "fs", part_name(name, "root")))
        remove_parts(chroot, part_name(name, "root"))


class FreeBSDDirectory(Directory):
    """A copy of the base for each job."""

    def unmount(self, path: str) -> None:
        unmount_below(os.path.realpath(path))


class FreeBSDTmpfs(_Mounted):
    """A copy of the base in memory."""

    name = "tmpfs"

    def probe(self, scratch: str) -> str:
        del scratch
        return _only_root() or ""

    def mount(self, chroot: str, base: str, *, name: str = "root", size: int = 0) -> str:
        if 0 < size < base_bytes(base):
            raise BackendFailed(
                f"A chroot in memory may have {size} bytes, but the base alone has {base_bytes(base)}.",
                remedy="Set portbuild_tmpfs_size and portbuild_disk_limit higher, or another portbuild_chroot_backend.",
            )
        root = self._place(chroot, base, name)
        check_run(_freebsd.mount_tmpfs(root, size), f"Mounting {root}", timeout=60)
        pour_tree(base, root)
        like(base, root)
        return root

    def preserve(self, chroot: str) -> None:
        fs = os.path.join(chroot, "fs")
        copy_tree(os.path.join(fs, "root"), os.path.join(fs, "tree"))

    def enter(self, chroot: str) -> str:
        return f"{self.locked(chroot)} chroot {chroot}/fs/tree /bin/sh"

    def watched(self, chroot: str, root: str) -> tuple[str, str]:
        return chroot, root

    def usage(self, chroot: str) -> int:
        """As above, and what is in memory, beyond the base that was copied there."""
        fs = os.path.join(chroot, "fs")
        total = super().usage(chroot)
        with contextlib.suppress(FileNotFoundError):
            outside = os.stat(fs).st_dev
            copied = base_bytes(os.readlink(os.path.join(fs, "base")))
            for name in os.listdir(fs):
                root = os.path.join(fs, name)
                if re.match(r"root(\.|$)", name) and os.stat(root).st_dev != outside:
                    found = os.statvfs(root)
                    total += max((found.f_blocks - found.f_bfree) * found.f_frsize - copied, 0)
        return total


class Zfs(_Mounted):
    """A clone of the base's snapshot."""

    name = "zfs"

    def probe(self, scratch: str) -> str:
        if why := _only_root():
            return why
        if run(_freebsd.zfs_loaded(), timeout=30).rc != 0:
            return "the kernel has no ZFS (is zfs_enable set, or the module loaded?)"
        try:
            parent = self._parent(scratch)
            return self._try(parent if _exists(parent) else os.path.dirname(parent))
        except PortbuildError as error:
            return error.message

    def _try(self, parent: str) -> str:
        trial = f"{parent}/probe-{secrets.token_hex(6)}"
        try:
            _zfs(_freebsd.create_dataset(trial))
            _zfs(_freebsd.snapshot(trial))
            _zfs(_freebsd.clone(trial, f"{trial}-clone"))
            _zfs(_freebsd.snapshot(f"{trial}-clone"))
            _zfs(_freebsd.rollback(f"{trial}-clone"))
        finally:
            for name in (f"{trial}-clone", trial):
                run(_freebsd.destroy(name), timeout=_ZFS_SECONDS)
        return ""

    def create(self, chroot: str, base: str) -> None:
        parent = self._ensure_parent(_scratch_of(base))
        fs = prepare(chroot, base)
        write_atomic(os.path.join(fs, _DATASET), f"{parent}\n", mode=0o600)
        self._ensure_base(parent, fs, base)
        self._ensure_clone(parent, chroot, base, "root")

    def mount(self, chroot: str, base: str, *, name: str = "root", size: int = 0) -> str:  # noqa: ARG002
        root = self._place(chroot, base, name)
        parent = self._parent_of(chroot)
        if not parent:  # claimed for another backend, or cut short
            self.create(chroot, base)
            parent = self._parent_of(chroot)
        dataset = self._ensure_clone(parent, chroot, base, name)
        check_run(_freebsd.mount_dataset(dataset, root), f"Mounting {root}", timeout=60)
        return root

    def drop(self, chroot: str, name: str) -> None:
        super().drop(chroot, name)
        if parent := self._parent_of(chroot):
            _zfs(_freebsd.destroy(_dataset(parent, chroot, name)))

    def watched(self, chroot: str, root: str) -> tuple[str, str]:
        """Return the root: what is written there does not show in the figures of the chroot's own file system."""
        del chroot
        return root, ""

    def usage(self, chroot: str) -> int:
        total = usage(chroot, skip=("inputs", "repo"))
        if parent := self._parent_of(chroot):
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(os.path.join(chroot, "fs")):
                    if found := re.fullmatch(r"root(?:\.(.+))?", name):
                        dataset = _dataset(parent, chroot, found[1] or "root")
                        done = run(_freebsd.get_property("used", dataset), timeout=_ZFS_SECONDS)
                        total += _freebsd.parse_number(done.stdout) or 0
        return total

    def enter(self, chroot: str) -> str:
        root = f"{chroot}/fs/root"
        dataset = _dataset(self._parent_of(chroot), chroot, "root")
        inner = f"mount -t zfs {dataset} {root} && chroot {root} /bin/sh; umount {root}"
        return f"{self.locked(chroot)} sh -c '{inner}'"

    def discard(self, chroot: str) -> None:
        if parent := self._parent_of(chroot):
            inode = os.stat(chroot).st_ino
            for name in self._children(parent):
                if _freebsd.parse_chroot_dataset(name) == inode:
                    _zfs(_freebsd.destroy(name))

    def strays(self, scratch: str, chroots: t.Collection[str]) -> list[str]:
        if run(_freebsd.zfs_loaded(), timeout=30).rc != 0:
            return []
        try:
            children = self._children(self._parent(scratch))
        except PortbuildError:
            return []
        inodes = set()
        for path in chroots:
            with contextlib.suppress(FileNotFoundError):
                inodes.add(os.stat(path).st_ino)
        found = [name for name in children if (_freebsd.parse_chroot_dataset(name) or 0) not in {0, *inodes}]
        for name in children:
            sha256 = os.path.basename(name).partition("base-")[2]
            if re.fullmatch(r"[0-9a-f]{64}", sha256) and not os.path.isdir(os.path.join(scratch, "bases", sha256)):
                found.append(name)  # after the chroots: it cannot go while there are clones of it
        return found

    def remove_stray(self, name: str) -> None:
        _zfs(_freebsd.destroy(name))

    # -- names

    def _parent(self, scratch: str) -> str:
        """Return the name of the file system that ours are in."""
        wanted = read_conf(scratch).get("zfs_dataset", "")
        if wanted:
            if not _freebsd.is_dataset(wanted):
                raise BackendFailed(
                    f"{wanted!r} cannot be the name of a ZFS file system.", remedy="Set portbuild_zfs_dataset."
                )
            return wanted
        listed = _zfs(_freebsd.list_datasets(scratch))
        found = _freebsd.parse_datasets(listed)
        if not found:
            raise BackendFailed(
                f"{scratch} is not on ZFS, and zfs_dataset does not say where else chroots may be.",
                remedy="Set portbuild_zfs_dataset to a file system of ZFS, and run the setup playbook.",
            )
        return f"{found[0].name}/portbuild"

    def _ensure_parent(self, scratch: str) -> str:
        parent = self._parent(scratch)
        if not _exists(parent):
            _zfs(_freebsd.create_dataset(parent))
        return parent

    def _parent_of(self, chroot: str) -> str:
        """Return what create() wrote down, "" if it did not."""
        try:
            with open(os.path.join(chroot, "fs", _DATASET), encoding="ascii", errors="replace") as stream:
                name = stream.read(1000).strip()
        except FileNotFoundError:
            return ""
        return name if _freebsd.is_dataset(name) else ""

    def _children(self, parent: str) -> list[str]:
        found = _freebsd.parse_datasets(_zfs(_freebsd.list_datasets(parent, depth=1)))
        return [dataset.name for dataset in found if os.path.dirname(dataset.name) == parent]

    # -- making

    def _ensure_base(self, parent: str, fs: str, base: str) -> None:
        """Have the base as a file system with a snapshot; the snapshot says that it is complete."""
        dataset = _freebsd.base_dataset(parent, os.path.basename(base))
        if _exists(f"{dataset}@{_freebsd.CLEAN}"):
            return
        with Lock(os.path.join(os.path.dirname(base), ".zfs.lock"), timeout=_COPY_SECONDS, mode=0o600):
            if _exists(f"{dataset}@{_freebsd.CLEAN}"):
                return
            # Within the chroot, whose lock is held: there a mount that is left is found, and belongs to somebody.
            filling = os.path.join(fs, "filling")
            with contextlib.suppress(FileExistsError):
                os.mkdir(filling, 0o700)
            self.unmount(filling)
            if _exists(dataset):
                _zfs(_freebsd.destroy(dataset))
            _zfs(_freebsd.create_dataset(dataset))
            check_run(_freebsd.mount_dataset(dataset, filling), f"Mounting {filling}", timeout=60)
            try:
                pour_tree(base, filling)
                like(base, filling)
            finally:
                self.unmount(filling)
            _zfs(_freebsd.snapshot(dataset))
            os.rmdir(filling)

    def _ensure_clone(self, parent: str, chroot: str, base: str, name: str) -> str:
        """Have a clean clone, not mounted: go back to its snapshot, or make it anew."""
        dataset = _dataset(parent, chroot, name)
        origin = _freebsd.base_dataset(parent, os.path.basename(base))
        found = run(_freebsd.get_property("origin", dataset), timeout=_ZFS_SECONDS)
        if found.rc == 0:
            same = found.stdout.strip() == f"{origin}@{_freebsd.CLEAN}"
            if same and run(_freebsd.rollback(dataset), timeout=_ZFS_SECONDS).rc == 0:
                return dataset
            _zfs(_freebsd.destroy(dataset))
        _zfs(_freebsd.clone(origin, dataset))
        _zfs(_freebsd.snapshot(dataset))
        return dataset


def _only_root() -> str:
    if LINUX:
        return "this driver is for FreeBSD"
    return "" if os.geteuid() == 0 else "only root can mount"


def _scratch_of(base: str) -> str:
    return os.path.dirname(os.path.dirname(base))


def _dataset(parent: str, chroot: str, name: str) -> str:
    part_name(name, "root")  # refuses what cannot be one
    return _freebsd.chroot_dataset(parent, os.stat(chroot).st_ino, name)


def _zfs(argv: t.Sequence[str]) -> str:
    return check_run(argv, " ".join(argv[:2]), timeout=_ZFS_SECONDS, limit=1 << 24).stdout


def _exists(name: str) -> bool:
    return run(_freebsd.get_property("name", name), timeout=_ZFS_SECONDS).rc == 0


DRIVERS: tuple[Backend, ...] = (FreeBSDDirectory(), FreeBSDTmpfs(), Zfs())

# What "auto" takes, best first. Never tmpfs, as on Linux.
PREFERENCE: tuple[str, ...] = ("zfs", "directory")
