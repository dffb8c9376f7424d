# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The chroot backends of Linux. Roots are mounted in the supervisor's own mount namespace, and vanish with it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets

from . import _linux
from ._backends_common import Backend, copy_tree, Directory, like, part_name, prepare, remove_parts
from ._beneath import opened
from ._isolation_linux import ROOT_CAPABILITIES
from ._process import in_child, LINUX
from ._trees import mounts_below, remove_entry

# In order of what is tried: the first that the kernel takes. A build is lost with the power anyway, so "volatile"
# only drops the waiting for the disk at each of dpkg's many fsyncs. With "redirect_dir" a directory of the base can
# be renamed, with "index" its hard links stay together and one layer cannot be mounted twice.
_OVERLAY_OPTIONS = ("redirect_dir=on,index=on,metacopy=off,volatile", "redirect_dir=on,index=on,metacopy=off", "")

# Why the kernel refuses; what perror says is of little help.
_OVERLAY_REFUSALS = {
    errno.ENODEV: "the kernel has no overlay file system",
    errno.EPERM: "mounting is not permitted here",
    errno.EINVAL: "the kernel refuses a writable layer on this file system (an overlay, or one without what overlay needs)",
}


def unmount(path: str) -> None:
    """Unmount everything at and below the path, as this process sees it."""
    for point in mounts_below(os.path.realpath(path)):
        _linux.umount(point, _linux.MNT_DETACH | _linux.UMOUNT_NOFOLLOW)


def _enter(chroot: str, mount: str) -> str:
    """Return the command of a shell that may do what a step of root may: what it runs is the build's code."""
    bounds = ",".join(["-all", *(f"+{name.lower()}" for name in ROOT_CAPABILITIES)])
    become = f"setpriv --bounding-set={bounds} --inh-caps=-all chroot root /bin/sh"
    inner = f"cd {chroot}/fs && {mount} && exec {become}"
    return f"flock -n {chroot}/lock unshare --mount --ipc --pid --fork --kill-child sh -c '{inner}'"


def _mount_overlay(fs: str, base: str, layer: str, upper: str, work: str, root: str) -> None:
    """Mount C(fs/root) with the writable layer in the directory C(layer).

    The layer's names are relative to the working directory: a path with a comma would end the option.
    """
    with opened(os.open(".", os.O_RDONLY | os.O_DIRECTORY)) as before:
        os.chdir(layer)
        try:
            for options in _OVERLAY_OPTIONS:
                data = ",".join(filter(None, (f"lowerdir={base},upperdir={upper},workdir={work}", options)))
                try:
                    _linux.mount("overlay", os.path.join(fs, root), "overlay", 0, data)
                    return
                except OSError as error:
                    if error.errno != errno.EINVAL or not options:
                        raise
        finally:
            os.fchdir(before)


class LinuxDirectory(Directory):
    """A copy of the base for each job, mounted upon itself: pivot_root wants a mount point."""

    def show(self, root: str) -> None:
        _linux.mount(root, root, None, _linux.MS_BIND)

    def unmount(self, path: str) -> None:
        unmount(path)

    def enter(self, chroot: str) -> str:
        return _enter(chroot, "mount --bind root root")


class Overlay(Backend):
    """A writable layer on disk above the base."""

    name = "overlay"

    def probe(self, scratch: str) -> str:
        return _try_overlay(scratch, self)

    def mount(self, chroot: str, base: str, *, name: str = "root", size: int = 0) -> str:  # noqa: ARG002
        fs = prepare(chroot, base)
        root, upper, work = (part_name(name, what) for what in ("root", "upper", "work"))
        remove_parts(chroot, upper, work)
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(fs, root))
        like(base, os.path.join(fs, upper))
        os.mkdir(os.path.join(fs, work), 0o700)
        _mount_overlay(fs, base, fs, upper, work, root)
        return os.path.join(fs, root)

    def drop(self, chroot: str, name: str) -> None:
        unmount(os.path.join(chroot, "fs", part_name(name, "root")))
        remove_parts(chroot, *(part_name(name, what) for what in ("root", "upper", "work")))

    def enter(self, chroot: str) -> str:
        # A new work directory: the old one carries the mark of the volatile mount that was never finished.
        layers = "lowerdir=$(readlink base),upperdir=upper,workdir=work.again"
        return _enter(
            chroot,
            f"rm -rf work.again && mkdir work.again && mount -t overlay -o {layers},redirect_dir=on overlay root",
        )


class Tmpfs(Backend):
    """A root in memory: a writable layer in memory above the base or, where overlay cannot do that, a copy."""

    name = "tmpfs"

    def probe(self, scratch: str) -> str:
        return _try_overlay(scratch, self)

    def mount(self, chroot: str, base: str, *, name: str = "root", size: int = 0) -> str:
        fs = prepare(chroot, base)
        own, memory = part_name(name, "root"), os.path.join(fs, part_name(name, "memory"))
        root = os.path.join(fs, own)
        for directory in (root, memory):
            unmount(directory)
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        _linux.mount("tmpfs", memory, "tmpfs", 0, f"mode=0700,size={size}" if size else "mode=0700")
        like(base, os.path.join(memory, "upper"))
        os.mkdir(os.path.join(memory, "work"), 0o700)
        try:
            _mount_overlay(fs, base, memory, "upper", "work", own)
        except OSError:
            copy_tree(base, os.path.join(memory, "tree"))
            _linux.mount(os.path.join(memory, "tree"), root, None, _linux.MS_BIND)
        return root

    def watched(self, chroot: str, root: str) -> tuple[str, str]:
        return chroot, root

    def drop(self, chroot: str, name: str) -> None:
        fs = os.path.join(chroot, "fs")
        for what in ("root", "memory"):
            unmount(os.path.join(fs, part_name(name, what)))
        remove_parts(chroot, part_name(name, "root"), part_name(name, "memory"))

    def preserve(self, chroot: str) -> None:
        fs = os.path.join(chroot, "fs")
        copy_tree(os.path.join(fs, "root"), os.path.join(fs, "tree"))

    def enter(self, chroot: str) -> str:
        return _enter(chroot, "mount --bind tree root")

    def usage(self, chroot: str) -> int:
        """As above, and what is in memory, which only the supervisor's mount namespace sees."""
        fs = os.path.join(chroot, "fs")
        total = super().usage(chroot)
        with contextlib.suppress(FileNotFoundError):
            outside = os.stat(fs).st_dev
            for name in os.listdir(fs):
                memory = os.path.join(fs, name)
                if name.startswith("memory") and os.stat(memory).st_dev != outside:
                    found = os.statvfs(memory)
                    total += (found.f_blocks - found.f_bfree) * found.f_frsize
        return total


def _try_overlay(scratch: str, backend: Backend) -> str:
    """Return why a root of this backend cannot be had: make one, in a child with a mount namespace of its own."""
    if not LINUX:
        return "this driver is for Linux"
    if os.geteuid() != 0:
        return "only root can mount"
    trial = os.path.join(scratch, f".probe.{secrets.token_hex(6)}")
    try:
        os.makedirs(os.path.join(trial, "base", "directory"))
        return in_child(lambda: _use_overlay(trial, backend), timeout=20)
    except OSError as error:
        return str(error)
    finally:
        with opened(os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)) as directory, contextlib.suppress(OSError):
            remove_entry(directory, os.path.basename(trial))


def _use_overlay(trial: str, backend: Backend) -> str:
    """Do in a root what a build does. Runs in the child."""
    with open(os.path.join(trial, "base", "file"), "wb"):
        pass
    try:
        _linux.unshare(_linux.CLONE_NEWNS)
        _linux.make_private()
        root = backend.mount(trial, os.path.join(trial, "base"))
    except OSError as error:
        return _OVERLAY_REFUSALS.get(error.errno or 0, str(error))
    os.unlink(os.path.join(root, "file"))
    with open(os.path.join(root, "directory", "new"), "wb"):
        pass
    os.chown(os.path.join(root, "directory"), 1, 1)
    backend.drop(trial, "root")
    return "" if os.path.exists(os.path.join(trial, "base", "file")) else "the layer does not protect the base"


DRIVERS: tuple[Backend, ...] = (Overlay(), LinuxDirectory(), Tmpfs())

# What "auto" takes, best first. Never tmpfs: only a person knows whether a build fits the memory, and one that does
# not would be reported as the package's failure.
PREFERENCE: tuple[str, ...] = ("overlay", "directory")
