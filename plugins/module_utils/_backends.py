# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Chroot backends: how a clean root is made from a base, and thrown away.

C(directory) copies the base; it works everywhere. C(overlay) stacks a writable layer on disk on the base, C(tmpfs)
one in memory: nothing is copied, and cleaning is dropping the layer.

A job's directory holds everything of its roots in C(fs/), which only root can enter: a build may have made set-uid
files, and nobody on the machine may reach them by a path::

    fs/base          a symbolic link to the base, for whoever enters a kept chroot by hand
    fs/root          directory: the tree; otherwise where it is mounted
    fs/upper fs/work overlay: the layer
    fs/memory        tmpfs: where the file system in memory is mounted
    fs/root.NAME …   the same for each additional fresh root

On Linux, roots are mounted by the supervisor, in its own mount namespace, and vanish with it.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import re
import secrets
import typing as t

from . import _linux, _spares
from ._beneath import opened
from ._errors import PortbuildError
from ._files import BadFile, read_json, write_json
from ._process import boot_id, check_run, in_child, LINUX
from ._trees import mounts_below, open_beneath, remove_entry, usage

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


class BackendUnusable(PortbuildError):
    """The wanted backend cannot be used on this machine."""


class Backend(abc.ABC):
    """One way to have clean roots. C(chroot) is a job's directory, C(base) the directory of an extracted base."""

    name: t.ClassVar[str]

    @abc.abstractmethod
    def probe(self, scratch: str) -> str:
        """Return why the backend cannot be used in this scratch directory, "" if it can: found out by trying."""

    def create(self, chroot: str, base: str) -> None:
        """Prepare a claimed chroot, once. What a killed attempt left is done over; what is complete is kept."""
        _prepare(chroot, base)

    @abc.abstractmethod
    def mount(self, chroot: str, base: str, *, name: str = "root", size: int = 0) -> str:
        """Make a clean root and return its path, which is a mount point on Linux.

        The build's own root is C(root); any other name is an additional one from the same base. A root of that name
        that has been used before is thrown away. C(size) is how many bytes a root in memory may take, 0 for half of
        the memory. The caller is in a mount namespace of its own, with private propagation.
        """

    @abc.abstractmethod
    def drop(self, chroot: str, name: str) -> None:
        """Unmount a root and throw it away. The caller is the one that mounted it."""

    def preserve(self, chroot: str) -> None:
        """Put on disk what would vanish with the mounts, for a chroot that is kept. The caller mounted it."""

    def usage(self, chroot: str) -> int:
        """Return the bytes that the job takes on disk beyond the base, its results and its log included."""
        return usage(chroot, skip=("inputs", "repo"))  # hard links into the cache

    def enter(self, chroot: str) -> str:
        """Return the shell command by which an administrator looks into a chroot that was kept.

        It holds the chroot's lock meanwhile, so that nobody removes it.
        """
        return _enter(chroot, "mount --bind root root")


def _enter(chroot: str, mount: str) -> str:
    inner = f"cd {chroot}/fs && {mount} && exec chroot root /bin/sh"
    return f"flock -n {chroot}/lock unshare --mount sh -c '{inner}'" if LINUX else f"chroot {chroot}/fs/root /bin/sh"


def _prepare(chroot: str, base: str) -> str:
    """Make C(fs/) and return its path."""
    fs = os.path.join(chroot, "fs")
    with contextlib.suppress(FileExistsError):
        os.mkdir(fs, 0o700)
    link = os.path.join(fs, "base")
    if not os.path.islink(link):
        os.symlink(base, link)
    return fs


def _made(path: str) -> str:
    os.mkdir(path, 0o700)
    return path


def _part(name: str, what: str) -> str:
    """Return the name in C(fs/) of what belongs to the root of this name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,80}", name):
        raise ValueError(f"{name!r} cannot be the name of a root")
    return what if name == "root" else f"{what}.{name}"


def _discard(chroot: str, *parts: str) -> None:
    """Remove parts of C(fs/) that exist."""
    with opened(open_beneath(chroot, "fs")) as directory:
        for part in parts:
            with contextlib.suppress(FileNotFoundError):
                remove_entry(directory, part)


def _unmount(path: str) -> None:
    """Unmount everything at and below the path, as this process sees it."""
    for point in mounts_below(os.path.realpath(path)):
        if LINUX:
            _linux.umount(point, _linux.MNT_DETACH | _linux.UMOUNT_NOFOLLOW)
        else:
            check_run(["umount", "-f", point], f"Unmounting {point}", timeout=60)


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


def _like(base: str, directory: str) -> None:
    """Make the directory, which becomes the top of a root, with owner and mode of the base's top."""
    top = os.stat(base)
    os.mkdir(directory, 0o700)
    os.chown(directory, top.st_uid, top.st_gid)
    os.chmod(directory, top.st_mode & 0o7777)


def copy_tree(source: str, target: str) -> None:
    """Copy the tree with everything that root can copy; the target is complete or absent."""
    parent, name = os.path.split(target)
    with opened(os.open(parent, os.O_RDONLY | os.O_DIRECTORY)) as directory:
        for left in os.listdir(directory):
            if left.startswith(f".{name}."):  # by a killed copy
                remove_entry(directory, left)
    partial = os.path.join(parent, f".{name}.{secrets.token_hex(4)}")
    if LINUX:  # cp beats a pipe of two tars and unpacking the tarball, whose bytes pass through memory once more
        check_run(["cp", "-ax", "--", source, partial], f"Copying {source}", timeout=3600)
    else:  # cp knows no hard links there
        os.mkdir(partial)
        script = 'tar -C "$1" -cf - . | tar -C "$2" -xpf - --numeric-owner'
        check_run(["/bin/sh", "-c", script, "sh", source, partial], f"Copying {source}", timeout=3600)
    os.rename(partial, target)


class Directory(Backend):
    """A copy of the base for each job."""

    name = "directory"

    def probe(self, scratch: str) -> str:
        if os.geteuid() != 0:
            return "only root can chroot"
        if os.statvfs(scratch).f_flag & getattr(os, "ST_NOEXEC", 8):
            return "the scratch directory is on a file system that is mounted noexec"
        return ""

    def create(self, chroot: str, base: str) -> None:
        self._fill(_prepare(chroot, base), base, "root")

    def _fill(self, fs: str, base: str, name: str) -> None:
        """Have a clean tree for the root of this name: a spare one, or a copy."""
        part, stamps = _part(name, "root"), _part(name, "stamps")
        root = os.path.join(fs, part)
        if os.path.isdir(root) or _spares.take(fs, base, part, stamps):
            return
        copy_tree(base, root)
        if _spares.usable_here():
            _spares.take_stamps(root, os.path.join(fs, stamps))

    def mount(self, chroot: str, base: str, *, name: str = "root", size: int = 0) -> str:  # noqa: ARG002
        fs = _prepare(chroot, base)
        root, used = os.path.join(fs, _part(name, "root")), os.path.join(fs, _part(name, "used"))
        if os.path.exists(used):
            _discard(chroot, _part(name, "root"), _part(name, "stamps"))
        self._fill(fs, base, name)
        with open(used, "wb"):
            pass
        if LINUX:
            _linux.mount(root, root, None, _linux.MS_BIND)  # pivot_root wants a mount point
        return root

    def drop(self, chroot: str, name: str) -> None:
        fs, part, stamps = os.path.join(chroot, "fs"), _part(name, "root"), _part(name, "stamps")
        _unmount(os.path.join(fs, part))
        left = os.path.join(fs, f".dropped.{secrets.token_hex(4)}")
        _prepare(_made(left), base := os.readlink(os.path.join(fs, "base")))
        for source, target in ((stamps, "stamps"), (part, "root")):
            with contextlib.suppress(FileNotFoundError):
                os.rename(os.path.join(fs, source), os.path.join(left, "fs", target))
        with contextlib.suppress(OSError, ValueError, PortbuildError):
            _spares.reclaim(os.path.dirname(os.path.dirname(base)), left)
        _discard(chroot, os.path.basename(left), _part(name, "used"))

    def usage(self, chroot: str) -> int:
        fs = os.path.join(chroot, "fs")
        try:
            roots = sum(name == "root" or name.startswith("root.") for name in os.listdir(fs))
            return max(super().usage(chroot) - roots * base_bytes(os.readlink(os.path.join(fs, "base"))), 0)
        except FileNotFoundError:
            return super().usage(chroot)


class Overlay(Backend):
    """A writable layer on disk above the base."""

    name = "overlay"

    def probe(self, scratch: str) -> str:
        return _try_overlay(scratch, self)

    def mount(self, chroot: str, base: str, *, name: str = "root", size: int = 0) -> str:  # noqa: ARG002
        fs = _prepare(chroot, base)
        root, upper, work = (_part(name, what) for what in ("root", "upper", "work"))
        _discard(chroot, upper, work)
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(fs, root))
        _like(base, os.path.join(fs, upper))
        os.mkdir(os.path.join(fs, work), 0o700)
        _mount_overlay(fs, base, fs, upper, work, root)
        return os.path.join(fs, root)

    def drop(self, chroot: str, name: str) -> None:
        _unmount(os.path.join(chroot, "fs", _part(name, "root")))
        _discard(chroot, *(_part(name, what) for what in ("root", "upper", "work")))

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
        fs = _prepare(chroot, base)
        part, memory = _part(name, "root"), os.path.join(fs, _part(name, "memory"))
        root = os.path.join(fs, part)
        for directory in (root, memory):
            _unmount(directory)
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        _linux.mount("tmpfs", memory, "tmpfs", 0, f"mode=0700,size={size}" if size else "mode=0700")
        _like(base, os.path.join(memory, "upper"))
        os.mkdir(os.path.join(memory, "work"), 0o700)
        try:
            _mount_overlay(fs, base, memory, "upper", "work", part)
        except OSError:
            copy_tree(base, os.path.join(memory, "tree"))
            _linux.mount(os.path.join(memory, "tree"), root, None, _linux.MS_BIND)
        return root

    def drop(self, chroot: str, name: str) -> None:
        fs = os.path.join(chroot, "fs")
        for what in ("root", "memory"):
            _unmount(os.path.join(fs, _part(name, what)))
        _discard(chroot, _part(name, "root"), _part(name, "memory"))

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


BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Overlay(), Directory(), Tmpfs())}

# What "auto" takes, best first. Never tmpfs: only a person knows whether a build fits the memory, and one that does
# not would be reported as the package's failure.
PREFERENCE = ("overlay", "directory")


def base_bytes(base: str) -> int:
    """Return the bytes on disk of an extracted base, as written down when it was."""
    try:
        size = read_json(f"{base}.json").get("bytes")
    except (FileNotFoundError, BadFile):
        size = None
    return size if isinstance(size, int) else usage(base)


def probe_all(scratch: str) -> dict[str, str]:
    """Return for each backend why it cannot be used here, "" if it can.

    The answers are kept until the next boot, for another boot may bring another kernel or other file systems.
    """
    path = os.path.join(scratch, ".backends.json")
    system = os.uname()
    key = f"{boot_id()} {system.sysname} {system.release} {os.stat(scratch).st_dev}"
    with contextlib.suppress(FileNotFoundError, BadFile):
        known = read_json(path)
        answers = known.get("answers")
        if known.get("key") == key and isinstance(answers, dict) and set(answers) == set(BACKENDS):
            return {name: str(answers[name]) for name in BACKENDS}
    answers = {name: backend.probe(scratch) for name, backend in BACKENDS.items()}
    with contextlib.suppress(OSError):  # not ours to write to: then it is tried anew each time
        write_json(path, {"key": key, "answers": answers}, durable=False)
    return answers


def choose(scratch: str, wanted: str = "auto") -> tuple[str, dict[str, str]]:
    """Return the backend to use, and for each other one why not.

    Raises BackendUnusable when the wanted one, or for C(auto) each that is safe to take unasked, cannot be used.
    """
    answers = probe_all(scratch)
    if wanted != "auto" and wanted not in BACKENDS:
        raise BackendUnusable(
            f"There is no chroot backend {wanted!r}.", remedy=f"Choose one of auto, {', '.join(sorted(BACKENDS))}."
        )
    candidates = PREFERENCE if wanted == "auto" else (wanted,)
    chosen = next((name for name in candidates if not answers[name]), None)
    if chosen is None:
        reasons = "; ".join(f"{name}: {answers[name]}" for name in candidates)
        raise BackendUnusable(
            f"The chroot backend {wanted!r} cannot be used in {scratch}: {reasons}.",
            remedy="Put the scratch directory on another file system, or set another portbuild_chroot_backend.",
            details={"backends": answers},
        )
    return chosen, {name: why or _why_not(name, chosen) for name, why in answers.items() if name != chosen}


def _why_not(name: str, chosen: str) -> str:
    if name not in PREFERENCE:
        return "usable, but takes memory: only when asked for"
    return (
        f"usable, but {chosen} is preferred"
        if chosen in PREFERENCE and PREFERENCE.index(chosen) < PREFERENCE.index(name)
        else "usable, but not asked for"
    )
