# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The commands of FreeBSD's base system that the client uses, and how their output reads.

Everything here is pure: a function returns the words of a command, or what a text says. Whoever corrects what a real
host does differently corrects it here. What other programs on the host have left in these texts is passed over.
"""

from __future__ import annotations

import posixpath
import re
import shlex
import typing as t

Argv = list[str]

# -- mounts ----------------------------------------------------------------------------------------------------------


class Mount(t.NamedTuple):
    """A line of C(mount -p)."""

    source: str
    point: str
    kind: str
    options: tuple[str, ...]


def list_mounts() -> Argv:
    """List what is mounted, in the order of mounting."""
    return ["mount", "-p"]


def unescape(word: str) -> str:
    """Undo the octal escapes of fstab(5)."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def parse_mounts(text: str) -> list[Mount]:
    """Read C(mount -p): source, mount point, type, options and two numbers.

    Between source and mount point there are tabs or, after a long source, a blank. A blank in a name is escaped;
    where it is not, the mount point is taken to begin at the last slash that follows one.
    """
    mounts = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6:
            continue
        source, point = fields[0], fields[1]
        if len(fields) > 6:
            start = max((at for at, word in enumerate(fields[:-4]) if at and word.startswith("/")), default=1)
            source, point = " ".join(fields[:start]), " ".join(fields[start:-4])
        mounts.append(Mount(unescape(source), unescape(point), fields[-4], tuple(fields[-3].split(","))))
    return mounts


def mount_devfs(point: str, ruleset: int) -> Argv:
    """Mount devices, only those that the ruleset shows (4 is for jails)."""
    return ["mount", "-t", "devfs", "-o", f"ruleset={ruleset}", "devfs", point]


def mount_nullfs(source: str, point: str) -> Argv:
    """Show a directory of the host, read-only."""
    return ["mount", "-t", "nullfs", "-o", "ro", source, point]


def mount_tmpfs(point: str, size: int = 0) -> Argv:
    """Mount a file system in memory; C(size) in bytes, 0 for what the kernel allows."""
    options = f"mode=0755,size={size}" if size else "mode=0755"
    return ["mount", "-t", "tmpfs", "-o", options, "tmpfs", point]


def mount_fdescfs(point: str) -> Argv:
    """Mount C(/dev/fd) with all descriptors, upon devfs."""
    return ["mount", "-t", "fdescfs", "fdesc", point]


def mount_procfs(point: str) -> Argv:
    """Mount C(/proc)."""
    return ["mount", "-t", "procfs", "proc", point]


def unmount(*points: str) -> Argv:
    """Unmount, whatever is still open there: devfs is busy otherwise."""
    return ["umount", "-f", *points]


# -- jails -----------------------------------------------------------------------------------------------------------

HOSTNAME = "portbuild"
JAIL_PREFIX = "portbuild_"


class Jail(t.NamedTuple):
    """A line of C(jls)."""

    name: str
    jid: int
    path: str


class Release(t.NamedTuple):
    """What a system says that it is: C(15.1-RELEASE) and C(1501000)."""

    name: str
    number: int


def chroot_jails(device: int, inode: int) -> str:
    """Return how the names of all jails of a chroot begin: a directory keeps its numbers when it is renamed."""
    return f"{JAIL_PREFIX}{device & 0xFFFFFFFFFFFFFFFF:x}_{inode:x}_"


def jail_name(device: int, inode: int, token: int, number: int) -> str:
    """Return the name of the jail of a chroot's step. A name that exists is an error of jail(8)."""
    return f"{chroot_jails(device, inode)}{token}_{number}"


def create_jail(name: str, root: str, *, network: bool, release: Release | None = None) -> Argv:
    """Make a jail that stays until it is removed.

    Without network it has the loopback address: test suites need one, and with C(ip4=disable) there would be none.
    """
    argv = ["jail", "-c", f"name={name}", f"path={root}", f"host.hostname={HOSTNAME}"]
    argv += ["ip4=inherit", "ip6=inherit"] if network else ["ip4.addr=127.0.0.1", "ip6=disable"]
    argv += ["enforce_statfs=2", "allow.chflags=1"]
    if release is not None:
        argv += [f"osrelease={release.name}", f"osreldate={release.number}"]
    return [*argv, "persist"]


# What ulimit calls it, and how many bytes its unit has.
_ULIMITS = {"RLIMIT_CORE": ("c", 512), "RLIMIT_DATA": ("d", 1024), "RLIMIT_NPROC": ("u", 1)}


def run_in_jail(
    name: str,
    argv: t.Sequence[str],
    *,
    user: str,
    cwd: str,
    environment: t.Mapping[str, str],
    resources: t.Mapping[str, int],
) -> Argv:
    """Run a command in a jail, as the exit status and the signal of this one.

    jexec takes environment and limits from the jail's login.conf when it changes the user, and begins in C(/). So they
    are set after it, by a shell that becomes the command. A limit that cannot be set (it is lower already) is not
    worth failing.
    """
    limits = []
    for resource, value in sorted(resources.items()):
        letter, unit = _ULIMITS[resource]
        limits.append(f"ulimit -{letter} {value // unit} 2>/dev/null || :")
    script = "; ".join(["umask 022", *limits, 'cd "$0" && exec "$@"'])
    variables = [f"{key}={value}" for key, value in environment.items()]
    become = [] if user == "root" else ["-U", user]
    return ["jexec", *become, name, "/usr/bin/env", "-i", *variables, "/bin/sh", "-c", script, cwd, *argv]


def kill_in_jail(name: str) -> Argv:
    """Kill every process of a jail at once."""
    return ["jexec", name, "/bin/kill", "-9", "-1"]


def remove_jail(name: str) -> Argv:
    """Remove a jail. While a process in it ignores SIGTERM this takes ten seconds: kill them first."""
    return ["jail", "-r", name]


def list_jails() -> Argv:
    """List the jails."""
    return ["jls", "-n", "name", "jid", "path"]


def parse_jails(text: str) -> list[Jail]:
    """Read the lines C(name=N jid=N path=P) of jls, in which values are quoted where need be."""
    jails = []
    for line in text.splitlines():
        try:
            values = dict(word.split("=", 1) for word in shlex.split(line) if "=" in word)
            jails.append(Jail(values["name"], int(values["jid"]), values["path"]))
        except (ValueError, KeyError):
            continue
    return jails


# -- processes -------------------------------------------------------------------------------------------------------


class Process(t.NamedTuple):
    """A line of C(ps)."""

    pid: int
    jid: int
    resident: int  # bytes


def list_processes() -> Argv:
    """List every process with its jail (0 for the host), its state and its memory."""
    return ["ps", "-ax", "-o", "pid,jid,state,rss"]


def parse_processes(text: str) -> list[Process]:
    """Read what list_processes() prints, the header passed over; memory is in KiB there.

    A process that is dead (C(Z)) and only waits for its parent to ask is none any more.
    """
    processes = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) != 4 or fields[2].startswith("Z"):
            continue
        numbers = [fields[0], fields[1], fields[3]]
        if all(number.isascii() and number.isdigit() for number in numbers):
            pid, jid, resident = map(int, numbers)
            processes.append(Process(pid, jid, resident * 1024))
    return processes


def ask_start(pid: int) -> Argv:
    """Ask when a process started."""
    return ["ps", "-o", "state=", "-o", "lstart=", "-p", str(pid)]


def parse_start(text: str) -> str | None:
    """Return that in a form that only means something compared with itself, None if there is no living process."""
    state, *start = text.split() or ["Z"]
    return None if state.startswith("Z") or not start else " ".join(start)


def protect(pid: int) -> Argv:
    """Keep the kernel from killing the process for lack of memory."""
    return ["protect", "-p", str(pid)]


# -- the system ------------------------------------------------------------------------------------------------------


def ask_system(*names: str) -> Argv:
    """Ask for values of sysctl, one line each."""
    return ["sysctl", "-n", *names]


def ask_boot_id() -> Argv:
    """Ask for the random number of this boot, nothing where the kernel has none (before 14)."""
    return ["sysctl", "-i", "-n", "-x", "kern.boot_id"]


def parse_boot_id(text: str) -> str:
    """Return the 16 bytes of it in hexadecimal, or nothing."""
    found = re.search(r"0x([0-9a-fA-F]{32})\b", text)
    return found[1].lower() if found else ""


def parse_boot_time(text: str) -> int | None:
    """Return the seconds of C({ sec = 1763797000, usec = 12 } Sat Nov 22 …), None if it reads otherwise."""
    found = re.search(r"\bsec = ([0-9]{1,15})\b", text)
    return int(found[1]) if found else None


def parse_number(text: str) -> int | None:
    """Return the number that is the text, as sysctl prints C(kern.osreldate)."""
    word = text.strip()
    return int(word) if word.isascii() and word.isdigit() else None


def parse_release(freebsd_version: str, header: str) -> Release | None:
    """Return the release of a base: from its C(bin/freebsd-version), a script, and C(usr/include/sys/param.h)."""
    name = re.search(r'^USERLAND_VERSION="?([A-Za-z0-9._+-]{1,60})"?\s*$', freebsd_version, re.MULTILINE)
    number = re.search(r"^#\s*define\s+__FreeBSD_version\s+([0-9]{5,9})\b", header, re.MULTILINE)
    return Release(name[1], int(number[1])) if name and number else None


def release_environment(release: Release) -> dict[str, str]:
    """Return the variables that uname(1) and the ports tree believe more than the kernel."""
    return {
        "UNAME_s": "FreeBSD",
        "UNAME_r": release.name,
        "UNAME_v": f"FreeBSD {release.name}",
        "OSVERSION": str(release.number),
    }


# -- ZFS -------------------------------------------------------------------------------------------------------------

CLEAN = "clean"  # the snapshot of a base, and of a clone before anything was built in it
_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)*")


class Dataset(t.NamedTuple):
    """A line of C(zfs list)."""

    name: str
    mountpoint: str


def is_dataset(name: str) -> bool:
    """Return whether this can be the name of a file system of ZFS."""
    return len(name) <= 200 and bool(_DATASET.fullmatch(name)) and ".." not in name.split("/")


def zfs_loaded() -> Argv:
    """Succeed if the kernel has ZFS. Without asking first, zfs(8) would load it."""
    return ["kldstat", "-q", "-m", "zfs"]


def list_datasets(*names: str, depth: int = 0) -> Argv:
    """List file systems and where they are mounted; C(depth) 1 adds those directly below."""
    return [
        "zfs",
        "list",
        "-H",
        "-t",
        "filesystem",
        "-o",
        "name,mountpoint",
        *(["-d", str(depth)] if depth else []),
        *names,
    ]


def parse_datasets(text: str) -> list[Dataset]:
    """Read lines of tab-separated fields."""
    found = [line.split("\t") for line in text.splitlines()]
    return [Dataset(*fields) for fields in found if len(fields) == 2 and is_dataset(fields[0])]


def get_property(name: str, dataset: str) -> Argv:
    """Ask for a property, numbers in full."""
    return ["zfs", "get", "-H", "-p", "-o", "value", name, dataset]


def create_dataset(name: str) -> Argv:
    """Make a file system that nothing but mount(8) mounts."""
    return ["zfs", "create", "-o", "mountpoint=legacy", "-o", "atime=off", name]


def snapshot(name: str) -> Argv:
    """Take the snapshot that others are made from, or go back to."""
    return ["zfs", "snapshot", f"{name}@{CLEAN}"]


def clone(base: str, name: str) -> Argv:
    """Make a writable copy of a base's snapshot. A build is lost with the power anyway: it need not wait for the disk."""
    options = ["-o", "mountpoint=legacy", "-o", "atime=off", "-o", "sync=disabled"]
    return ["zfs", "clone", *options, f"{base}@{CLEAN}", name]


def rollback(name: str) -> Argv:
    """Make a file system as it was when its snapshot was taken."""
    return ["zfs", "rollback", "-r", f"{name}@{CLEAN}"]


def destroy(name: str) -> Argv:
    """Remove a file system with its snapshots. It must not be mounted."""
    return ["zfs", "destroy", "-r", name]


def mount_dataset(name: str, point: str) -> Argv:
    """Mount a file system with a legacy mount point."""
    return ["mount", "-t", "zfs", name, point]


def base_dataset(parent: str, sha256: str) -> str:
    """Return the name of the file system of a base."""
    return posixpath.join(parent, f"base-{sha256}")


def chroot_dataset(parent: str, inode: int, name: str) -> str:
    """Return the name of the file system of a chroot's root of this name."""
    return posixpath.join(parent, f"chroot-{inode:x}-{name}")


def parse_chroot_dataset(dataset: str) -> int | None:
    """Return the inode of the chroot's directory, None if the name is another's."""
    found = re.fullmatch(r"chroot-([0-9a-f]{1,16})-[A-Za-z0-9_-]+", posixpath.basename(dataset))
    return int(found[1], 16) if found else None
