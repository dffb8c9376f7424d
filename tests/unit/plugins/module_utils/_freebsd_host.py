# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A test double of a FreeBSD host: its commands as scripts on PATH, and the process handling behind them real.

A jail of the double is a PID namespace: so killing, waiting and dying are those of real processes. Mounts and ZFS are
only written down. Every call is recorded. It says nothing about what a real host does: see docs/freebsd.md.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import (
    _backends_common,
    _backends_freebsd,
    _remains,
    _spares,
    _trees,
)
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._yard import make_tiny_base

RELEASE = 1501000
COMMANDS = ("mount", "umount", "jail", "jexec", "jls", "ps", "sysctl", "protect", "kldstat", "zfs")

_SCRIPT = r'''
import fcntl, json, os, shutil, signal, sys, time

STATE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAME, ARGUMENTS = sys.argv[1], sys.argv[2:]


def at(name):
    return os.path.join(STATE, name)


def load(name, default):
    try:
        with open(at(name)) as stream:
            return json.load(stream)
    except FileNotFoundError:
        return default


def save(name, value):
    with open(at(name) + ".new", "w") as stream:
        json.dump(value, stream)
    os.rename(at(name) + ".new", at(name))


def fail(text, status=1):
    print(f"{NAME}: {text}", file=sys.stderr)
    sys.exit(status)


with open(at("calls"), "a") as stream:
    stream.write(json.dumps([NAME, *ARGUMENTS]) + "\n")
lock = open(at("lock"), "a")
fcntl.flock(lock, fcntl.LOCK_EX)
behaviour = load("behaviour", {})
if behaviour.get("fails", {}).get(NAME, "\0") in " ".join(ARGUMENTS):
    fail("this was made to fail")


def namespace(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def members(jail):
    """Return the processes of a jail but its init, which a real jail has not."""
    inside = namespace(jail["pid"])
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != jail["pid"] and inside and namespace(pid) == inside]


def become_init():
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, 200)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        signal.pause()


def do_jail():
    jails = load("jails", {})
    if ARGUMENTS[0] == "-c":
        values = dict(word.split("=", 1) for word in ARGUMENTS[1:] if "=" in word)
        if values["name"] in jails:
            fail(f'jail "{values["name"]}" already exists')
        if not os.path.isdir(values["path"]):
            fail(f'{values["path"]}: No such file or directory')
        read, write = os.pipe()
        if os.fork() == 0:
            os.unshare(os.CLONE_NEWPID)
            pid = os.fork()
            if pid == 0:
                become_init()
            os.write(write, str(pid).encode())
            os._exit(0)
        os.wait()
        jid = load("next", 1)
        save("next", jid + 1)
        save("jails", {**jails, values["name"]: {"jid": jid, "path": values["path"], "pid": int(os.read(read, 20))}})
        return
    jail = jails.get(ARGUMENTS[1])
    if jail is None:
        fail(f'"{ARGUMENTS[1]}" not found')
    if members(jail):
        time.sleep(10)  # stop.timeout
    os.kill(jail["pid"], signal.SIGKILL)
    save("jails", {name: value for name, value in load("jails", {}).items() if name != ARGUMENTS[1]})


def do_jls():
    for name, jail in load("jails", {}).items():
        print(f'name={name} jid={jail["jid"]} path={jail["path"]}')


def do_jexec():
    arguments, user = ARGUMENTS, None
    if arguments[0] == "-U":
        user, arguments = arguments[1], arguments[2:]
    jail = load("jails", {}).get(arguments[0])
    if jail is None:
        fail(f'jail "{arguments[0]}" not found')
    if behaviour.get("kill_does_nothing") and arguments[1] == "/bin/kill":
        return
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.setns(os.open(f'/proc/{jail["pid"]}/ns/pid', os.O_RDONLY), os.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        os.chroot(jail["path"])
        os.chdir("/")
        if user:
            with open("/etc/passwd") as stream:
                fields = next(line.split(":") for line in stream if line.startswith(user + ":"))
            os.setgroups([])
            os.setgid(int(fields[3]))
            os.setuid(int(fields[2]))
        try:
            os.execv(arguments[1], arguments[1:])
        except OSError as error:
            print(f"jexec: execvp: {arguments[1]}: {error}", file=sys.stderr)
            os._exit(1)
    while True:
        try:
            status = os.waitpid(pid, 0)[1]
            break
        except InterruptedError:
            continue
    if os.WIFSIGNALED(status):  # on a real host it is the same process
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) not in (9, 19) else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.WEXITSTATUS(status))


def do_ps():
    print("  PID JID STAT    RSS")
    for jail in load("jails", {}).values():
        for pid in members(jail):
            try:
                with open(f"/proc/{pid}/statm") as stream:
                    print(pid, jail["jid"], "S+J", int(stream.read().split()[1]) * 4)
            except (OSError, IndexError):
                continue


def do_mount():
    mounts = load("mounts", [])
    if ARGUMENTS == ["-p"]:
        for source, point, kind, options in mounts:
            gap = "\t\t\t" if len(source) < 8 else "\t\t" if len(source) < 16 else "\t" if len(source) < 24 else " "
            print(f"{source}{gap}{point}\t\t{kind}\t{options}\t0 0")
        return
    kind, options, rest = ARGUMENTS[1], "rw", ARGUMENTS[2:]
    if rest[0] == "-o":
        options, rest = rest[1], rest[2:]
    source, point = rest
    if not os.path.isdir(point) or os.path.realpath(point) != point:
        fail(f"{point}: No such file or directory")
    if kind == "nullfs" and not os.path.isdir(source):
        fail(f"{source}: Not a directory")
    save("mounts", [*mounts, [source, point, kind, options]])


def do_umount():
    mounts, status = load("mounts", []), 0
    for point in ARGUMENTS[1:]:
        last = next((at for at in reversed(range(len(mounts))) if mounts[at][1] == point), None)
        if last is None:
            print(f"umount: {point}: not a file system root directory", file=sys.stderr)
            status = 1
        else:
            if mounts[last][2] in ("tmpfs", "zfs"):  # what is in it goes out of sight
                for entry in os.scandir(point):
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
            del mounts[last]
    save("mounts", mounts)
    sys.exit(status)


def do_sysctl():
    if ARGUMENTS[-1] == "kern.osreldate":
        print(behaviour.get("osreldate", 1501000))
    if ARGUMENTS[-1] == "kern.boot_id" and behaviour.get("boot_id"):
        print("Format: Length:16 Dump:0x" + behaviour["boot_id"])
    if ARGUMENTS[-1] == "kern.boottime":
        print(behaviour.get("boottime", "{ sec = 1763797000, usec = 12 } Sat Nov 22 07:36:40 2025"))


def do_protect():
    pass


def do_kldstat():
    sys.exit(0 if behaviour.get("zfs", True) else 1)


def do_zfs():
    sets = load("zfs", {"zroot": "", "zroot/portbuild": ""})  # name: its origin
    what, name = ARGUMENTS[0], ARGUMENTS[-1]
    parent = name.partition("@")[0].rpartition("/")[0]
    if what in ("create", "snapshot", "clone"):
        if name in sets:
            fail(f"cannot create '{name}': dataset already exists")
        if what == "snapshot" and name.partition("@")[0] not in sets or what != "snapshot" and parent not in sets:
            fail(f"cannot create '{name}': parent does not exist")
        if what == "clone" and ARGUMENTS[-2] not in sets:
            fail(f"cannot open '{ARGUMENTS[-2]}': dataset does not exist")
        sets[name] = ARGUMENTS[-2] if what == "clone" else ""
    elif what == "list" and name.startswith("/"):
        print("zroot/data\t/data")
        return
    elif name not in sets:
        fail(f"cannot open '{name}': dataset does not exist")
    elif what == "destroy":
        gone = {other for other in sets if other == name or other.startswith((name + "@", name + "/"))}
        busy = [other for other, origin in sets.items() if origin in gone and other not in gone]
        mounted = [mount for mount in load("mounts", []) if mount[0] in gone]
        if busy or mounted:
            fail(f"cannot destroy '{name}': it is busy")
        sets = {other: origin for other, origin in sets.items() if other not in gone}
    elif what == "get":
        print({"origin": sets[name] or "-", "name": name, "used": 4096}[ARGUMENTS[-2]])
    elif what == "list":
        for other in sets:
            if "@" not in other and (other == name or "-d" in ARGUMENTS and other.rpartition("/")[0] == name):
                print(f"{other}\tlegacy")
    save("zfs", sets)


globals()[f"do_{NAME}"]()
'''


class Host:
    """The double."""

    def __init__(self, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = directory / "host"
        programs = self.state / "bin"
        programs.mkdir(parents=True)
        script = programs / "double.py"
        script.write_text(_SCRIPT, encoding="utf-8")
        for name in COMMANDS:
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {script} {name} "$@"\n', encoding="utf-8")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        for module in (_backends_common, _backends_freebsd, _remains, _spares, _trees):
            monkeypatch.setattr(module, "LINUX", False)

    def _load(self, name: str, default: t.Any) -> t.Any:
        path = self.state / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default

    def behave(self, **behaviour: t.Any) -> None:
        """Change what the host does: C(fails) is a command and what its arguments contain when it does."""
        (self.state / "behaviour").write_text(json.dumps(behaviour), encoding="utf-8")

    @property
    def jails(self) -> dict[str, dict[str, t.Any]]:
        """The jails that exist."""
        return self._load("jails", {})

    @property
    def mounts(self) -> list[list[str]]:
        """The mounts that exist: source, point, type, options."""
        return self._load("mounts", [])

    @property
    def datasets(self) -> dict[str, str]:
        """The file systems and snapshots of ZFS, with their origin."""
        return self._load("zfs", {"zroot": "", "zroot/portbuild": ""})

    def calls(self, *names: str) -> list[list[str]]:
        """Return the calls of these commands so far, all by default."""
        path = self.state / "calls"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if not names or call[0] in names]

    def forget_calls(self) -> None:
        """Begin to record anew."""
        (self.state / "calls").unlink(missing_ok=True)

    def close(self) -> None:
        """Leave no process behind."""
        for jail in self.jails.values():
            try:
                os.kill(jail["pid"], 9)
            except ProcessLookupError:
                continue


def make_freebsd_base(path: pathlib.Path, number: int = RELEASE) -> None:
    """Make a tiny base that says that it is a FreeBSD."""
    make_tiny_base(path)
    (path / "bin" / "freebsd-version").write_text('#!/bin/sh\n\nUSERLAND_VERSION="15.1-RELEASE"\n', encoding="utf-8")
    header = path / "usr" / "include" / "sys" / "param.h"
    header.parent.mkdir(parents=True)
    header.write_text(f"#undef __FreeBSD_version\n#define __FreeBSD_version {number}\t/* Master */\n", encoding="utf-8")
