# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The Linux system calls that Python 3.9 has no names for.

Importing this module is harmless everywhere; calling it elsewhere than on Linux is an error.
Every function raises OSError with the errno of the call, and names what it was called for.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import typing as t

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18

MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_CAPABILITY_VERSION_3 = 0x20080522

# The C library has no wrapper for this one. Architectures that came after 2011 share one table.
_PIVOT_ROOT = {
    "x86_64": 155,
    "i386": 217,
    "i486": 217,
    "i586": 217,
    "i686": 217,
    "armv6l": 218,
    "armv7l": 218,
    "ppc": 203,
    "ppc64": 203,
    "ppc64le": 203,
    "s390x": 217,
    "mips": 4216,
    "mips64": 5151,
    "sparc64": 146,
    "alpha": 374,
}
_PIVOT_ROOT_GENERIC = 41

# By number, see include/uapi/linux/capability.h.
CAPABILITIES: dict[str, int] = {
    name: number
    for number, name in enumerate(
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE"
        " NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT"
        " SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE"
        " AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ"
        " PERFMON BPF CHECKPOINT_RESTORE".split()
    )
}


@functools.cache
def _libc() -> ctypes.CDLL:
    if os.uname().sysname != "Linux":
        raise OSError(errno.ENOSYS, "not a Linux system")
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def unshare(flags: int) -> None:
    """Give this process (and for CLONE_NEWPID: its future children) new namespaces."""
    _check(_libc().unshare(ctypes.c_int(flags)), f"unshare {flags:#x}")


def setns(descriptor: int, flags: int = 0) -> None:
    """Enter the namespace that the descriptor of a file in C(/proc/PID/ns) stands for."""
    _check(_libc().setns(ctypes.c_int(descriptor), ctypes.c_int(flags)), "setns")


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Mount a file system, or change a mount."""
    result = _libc().mount(
        _bytes(source), _bytes(target), _bytes(fstype), ctypes.c_ulong(flags), _bytes(data) if data else None
    )
    _check(result, f"mount {fstype or source or ''} on {target}")


def bind(source: str, target: str, *, flags: int = 0) -> None:
    """Bind-mount, with the flags in effect (the kernel ignores them in the first of the two calls it takes)."""
    mount(source, target, None, MS_BIND)
    if flags:
        mount(None, target, None, MS_REMOUNT | MS_BIND | flags)


def make_private(target: str = "/") -> None:
    """Stop mounts from travelling between this mount namespace and others."""
    mount(None, target, None, MS_REC | MS_PRIVATE)


def umount(target: str, flags: int = 0) -> None:
    """Unmount what is mounted there."""
    _check(_libc().umount2(_bytes(target), ctypes.c_int(flags)), f"umount {target}")


def pivot_root(new: str, put_old: str) -> None:
    """Make another mount the root of this mount namespace."""
    number = _PIVOT_ROOT.get(os.uname().machine, _PIVOT_ROOT_GENERIC)
    result = _libc().syscall(ctypes.c_long(number), ctypes.c_char_p(_bytes(new)), ctypes.c_char_p(_bytes(put_old)))
    _check(result, f"pivot_root {new}")


def set_hostname(name: str) -> None:
    """Name this UTS namespace."""
    value = os.fsencode(name)
    _check(_libc().sethostname(value, ctypes.c_size_t(len(value))), "sethostname")


def _prctl(what: str, option: int, *arguments: int) -> int:
    values = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc().prctl(ctypes.c_int(option), *values), what)


def set_no_new_privs() -> None:
    """Make set-uid files and file capabilities powerless for this process and all it starts, for ever."""
    _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def set_parent_death_signal(signal: int) -> None:
    """Have this signal sent to this process when its parent dies. Changing credentials forgets it."""
    _prctl("parent death signal", _PR_SET_PDEATHSIG, signal)


def set_undumpable() -> None:
    """Close C(/proc/self) of this process, and of what it forks, to processes without CAP_SYS_PTRACE."""
    _prctl("undumpable", _PR_SET_DUMPABLE, 0)


def _drop_bound(number: int) -> None:
    _prctl(f"drop capability {number}", _PR_CAPBSET_DROP, number)


def keep_capabilities(names: t.Collection[str], *, bounding: t.Collection[str] | None = None) -> None:
    """Keep at most these capabilities as permitted and effective, none as inheritable or ambient.

    Only what is in C(bounding), by default the same, can be had after an exec. A kernel newer than this table may
    know more capabilities: they are dropped as well.
    """
    bound = {CAPABILITIES[name] for name in (names if bounding is None else bounding)}
    for number in range(64):
        if number not in bound and _libc().prctl(_PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0) == 1:
            _drop_bound(number)
    _prctl("clear ambient capabilities", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _capset(_permitted() & sum(1 << CAPABILITIES[name] for name in names))


def _header() -> t.Any:
    return (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)


def _permitted() -> int:
    data = (ctypes.c_uint32 * 6)()
    _check(_libc().capget(_header(), data), "capget")
    return int(data[1]) | int(data[4]) << 32


def _capset(permitted: int) -> None:
    low, high = permitted & 0xFFFFFFFF, permitted >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _check(_libc().capset(_header(), data), "capset")


def loopback_up() -> None:
    """Bring C(lo) up: in a new network namespace it is down."""
    import fcntl  # pylint: disable=import-outside-toplevel
    import socket  # pylint: disable=import-outside-toplevel
    import struct  # pylint: disable=import-outside-toplevel

    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = bytearray(struct.pack("16sH22x", b"lo", 0))
        fcntl.ioctl(probe.fileno(), get_flags, request)
        flags = struct.unpack_from("H", request, 16)[0]
        struct.pack_into("H", request, 16, flags | up)
        fcntl.ioctl(probe.fileno(), set_flags, request)
