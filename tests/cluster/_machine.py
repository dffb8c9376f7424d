# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of the test bed that runs as root: boots, ends and removes one client.

A client is a PID namespace with its own mounts, host name, IPC and cgroups on the kernel and the root file system of
this machine. What a client may change is private to it (see PRIVATE); everything else is the host's.

Called as a program (through sudo where the caller is not root) with the path of the client's machine.json, so it must
run on the system's own Python and import nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
import typing as t
import uuid

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

#: Directories of which each client has its own, on disk, below its directory: they survive a reboot.
PRIVATE = ("etc", "home", "root", "srv", "tmp", "var/log", "var/tmp")
CLIENT_UID = 30001
SSHD = ("/usr/sbin/sshd", "-f", "/etc/portbuild-test/sshd_config", "-E", "/var/log/sshd.log")

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    """Raise the C library's error, naming what failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system; the arguments are the system call's."""
    result = libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    checked(result, f"mount {source} on {target}")


def start_time(pid: int) -> str:
    """Return when the process started, in the kernel's ticks; empty if there is none or it is a zombie."""
    try:
        line = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = line.rsplit(")", 1)[1].split()
    return "" if fields[0] == "Z" else fields[19]


def boot_id() -> str:
    """Return the host's boot id."""
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Machine:
    """One client, seen by root on the host."""

    def __init__(self, path: str) -> None:
        self.directory = pathlib.Path(path).resolve().parent
        self.spec: dict[str, t.Any] = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        self.state_file = self.directory / "state.json"
        self.name: str = self.spec["name"]

    def state(self) -> dict[str, t.Any]:
        """Return what the last boot recorded."""
        try:
            state: dict[str, t.Any] = json.loads(self.state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state

    def pid(self) -> int:
        """Return the pid of the client's first process as the host sees it, 0 if the client is down."""
        state = self.state()
        same_boot = state.get("boot_id") == boot_id()
        alive = same_boot and start_time(state["pid"]) == state["start"] != ""
        return state["pid"] if alive else 0

    # -- boot ------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start the client; return when its sshd listens."""
        if self.pid():
            return
        for name in PRIVATE:
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self.fill_etc(self.directory / "etc")
        # The lock is opened by its path before the private directories may hide it.
        owner = -1 if self.spec["lasting"] else os.open(self.directory.parent.parent / "lock", os.O_RDONLY)
        cgroups = self.make_cgroups()
        checked(libc.unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC), "unshare")
        go_read, go_write = os.pipe()
        ready_read, ready_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            os.close(ready_read)
            self.first_process(go_read, ready_write, owner, cgroups)
        os.close(go_read)
        os.close(ready_write)
        state = {"pid": pid, "start": start_time(pid), "boot_id": boot_id(), "cgroups": cgroups}
        temporary = self.directory / ".state.json.tmp"
        temporary.write_text(json.dumps(state) + "\n", encoding="utf-8")
        temporary.replace(self.state_file)
        # Only now may the client go on: had we died before, it would have ended with us instead of being lost.
        os.write(go_write, b"+")
        with os.fdopen(ready_read, "rb") as ready:
            answer = ready.read().decode(errors="replace")
        if answer != "ready":
            self.kill()
            raise SystemExit(f"{self.name} does not start: {answer or 'it died.'}")

    def first_process(self, go: int, ready: int, owner: int, cgroups: list[str]) -> t.NoReturn:
        """Be process 1 of the client."""
        try:
            os.setsid()
            if os.read(go, 1) != b"+":
                os._exit(1)
            enter_cgroups(cgroups)
            self.lay_out(cgroups)
            if subprocess.run(SSHD, check=False).returncode != 0:
                raise RuntimeError("sshd failed: " + pathlib.Path("/var/log/sshd.log").read_text(encoding="utf-8"))
            detach_stdio()
            os.write(ready, b"ready")
            os.close(ready)
        except BaseException:
            os.write(ready, traceback.format_exc().encode())
            os._exit(1)
        watch(owner)

    def lay_out(self, cgroups: list[str]) -> None:
        """Give the new namespaces their own name, files and mounts."""
        # Descriptors, because the client's directory may itself be below one of the directories that get covered.
        sources = {name: os.open(self.directory / name, os.O_PATH | os.O_DIRECTORY) for name in PRIVATE}
        os.chdir("/")
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        socket.sethostname(self.name)
        fresh_boot_id = self.directory / "boot_id"
        fresh_boot_id.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        boot_id_descriptor = os.open(fresh_boot_id, os.O_PATH)
        for name, descriptor in sources.items():
            mount(f"/proc/self/fd/{descriptor}", f"/{name}", flags=MS_BIND)
        if self.spec["scratch_size"]:
            mount("tmpfs", "/srv", "tmpfs", MS_NOSUID, f"mode=755,size={self.spec['scratch_size']}")
        for name in ("tmp", "var/tmp"):
            empty(pathlib.Path("/", name))
            os.chmod(f"/{name}", 0o1777)
        mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
        pathlib.Path("/run/sshd").mkdir(mode=0o755)
        pathlib.Path("/run/lock").mkdir(mode=0o755)
        os.chmod("/run/lock", 0o1777)
        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
        mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        # All clients share the host's kernel; a boot id of its own, new at each boot, is what makes a reboot visible.
        mount(f"/proc/self/fd/{boot_id_descriptor}", "/proc/sys/kernel/random/boot_id", flags=MS_BIND)
        mount_cgroups(cgroups)
        self.make_login()

    def fill_etc(self, etc: pathlib.Path) -> None:
        """Copy the host's /etc once, and write into it what makes this client."""
        done = self.directory / "etc.done"
        if done.exists():
            return
        shutil.rmtree(etc)
        subprocess.run(["cp", "-a", "/etc", str(etc)], check=True)
        etc.joinpath("hostname").write_text(f"{self.name}\n", encoding="utf-8")
        with etc.joinpath("hosts").open("a", encoding="utf-8") as hosts:
            hosts.write(f"\n{self.spec['address']} {self.name}\n")
        resolver = etc / "resolv.conf"
        if resolver.is_symlink():  # commonly into /run, of which the client has its own
            content = pathlib.Path("/etc/resolv.conf")
            text = content.read_text(encoding="utf-8") if content.exists() else ""
            resolver.unlink()
            resolver.write_text(text, encoding="utf-8")
        sshd = etc / "portbuild-test"
        sshd.mkdir(exist_ok=True)
        shutil.copy(self.directory / "host_key", sshd / "host_key")
        sshd.joinpath("host_key").chmod(0o600)
        sshd.joinpath("authorized_keys").write_text(self.spec["public_key"] + "\n", encoding="utf-8")
        sshd.joinpath("sshd_config").write_text(SSHD_CONFIG.format(**self.spec), encoding="utf-8")
        done.touch()

    def make_login(self) -> None:
        """Make the account that the controller logs in as, with its sudo rule, in the client's own /etc."""
        login = self.spec["login"]
        if login == "root":
            return
        try:
            account = pwd.getpwnam(login)
        except KeyError:
            for file, line in (
                ("passwd", f"{login}:x:{CLIENT_UID}:{CLIENT_UID}::/home/{login}:/bin/sh"),
                ("shadow", f"{login}:*:19000:0:99999:7:::"),
                ("group", f"{login}:x:{CLIENT_UID}:"),
                ("gshadow", f"{login}:!::"),
            ):
                with open(f"/etc/{file}", "a", encoding="utf-8") as stream:
                    stream.write(line + "\n")
            account = pwd.getpwnam(login)
        home = pathlib.Path(account.pw_dir)
        if not home.exists():
            home.mkdir(mode=0o700)
            os.chown(home, account.pw_uid, account.pw_gid)
        rule = pathlib.Path("/etc/sudoers.d/portbuild-test")
        rule.write_text(f"{login} ALL=(ALL:ALL) NOPASSWD: ALL\n", encoding="utf-8")
        rule.chmod(0o440)

    def make_cgroups(self) -> list[str]:
        """Make a cgroup of the client's own in each hierarchy that limits memory or processes.

        Returns their directories. A host without usable cgroups has clients without them.
        """
        own: list[str] = []
        for line in pathlib.Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _number, controllers, path = line.split(":", 2)
            if controllers and not {"memory", "pids"} & set(controllers.split(",")):
                continue
            point = cgroup_mount(controllers)
            # Version 2 forbids children with controllers beside processes, which only the topmost cgroup is exempt from.
            below = bool(controllers) and ".." not in path and os.path.isdir(point + path)
            parent = point + path if below else point
            directory = f"{parent.rstrip('/')}/portbuild-test-{self.spec['id']}-{self.name}"
            if not point:
                continue
            try:
                os.makedirs(directory, exist_ok=True)
            except OSError as error:
                print(f"{self.name}: goes without cgroup {directory}: {error}", file=sys.stderr)
            else:
                own.append(directory)
        return own

    # -- the end ---------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the client as if its power had failed: every process at once; its mounts vanish with them."""
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not self.pid(), f"{self.name} (process {pid}) to end")
        for directory in self.state().get("cgroups", []):
            wait_for(functools.partial(remove_cgroup, directory), f"cgroup {directory} to be empty")

    def remove(self) -> None:
        """End the client and remove its files."""
        self.kill()
        mounts = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        points = [line.split(" ")[4] for line in mounts]
        inside = [point for point in points if point.startswith(f"{self.directory}/")]
        if inside:  # never remove across a mount: it may be the host's own files
            raise SystemExit(f"{self.directory} is not removed: {', '.join(inside)} is mounted in it.")
        # Builds leave directories that only root can enter, and files that only root can remove.
        shutil.rmtree(self.directory)


SSHD_CONFIG = """\
ListenAddress {address}:{port}
HostKey /etc/portbuild-test/host_key
AuthorizedKeysFile /etc/portbuild-test/authorized_keys
AllowUsers root {login}
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PidFile /run/sshd.pid
MaxStartups 100
Subsystem sftp internal-sftp
"""


def cgroup_mount(controllers: str) -> str:
    """Return where the hierarchy with these controllers is mounted; version 2 has none in this list."""
    found = ""
    for line in pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _source, point, kind, options, *_rest = line.split(" ")
        wanted = set(controllers.split(",")) <= set(options.split(",")) if controllers else True
        if kind == ("cgroup" if controllers else "cgroup2") and wanted:
            found = point  # the last one covers those before it
    return found


def enter_cgroups(directories: list[str]) -> None:
    """Move this process into the cgroups, and take them for the roots of what it and its children see."""
    for directory in directories:
        pathlib.Path(directory, "cgroup.procs").write_text("0", encoding="ascii")
    checked(libc.unshare(CLONE_NEWCGROUP), "unshare")


def mount_cgroups(directories: list[str]) -> None:
    """Show the client its own cgroups as the roots of their hierarchies, as on a machine of its own."""
    for directory in directories:
        parent = directory
        while not os.path.ismount(parent):
            parent = os.path.dirname(parent)
        if os.path.exists(f"{directory}/cgroup.controllers"):
            # The limits of a cgroup's children can be set only while it holds no process itself.
            leaf = pathlib.Path(directory, "init")
            leaf.mkdir(exist_ok=True)
            leaf.joinpath("cgroup.procs").write_text("0", encoding="ascii")
            for controller in ("memory", "pids"):
                with contextlib.suppress(OSError):
                    pathlib.Path(directory, "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")
        mount(directory, parent, flags=MS_BIND)


def remove_cgroup(directory: str) -> bool:
    """Remove the cgroup and those below it; say whether it is gone."""
    for current, _directories, _files in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):  # a process that has just been killed still counts for a moment
            os.rmdir(current)
    return not os.path.isdir(directory)


def empty(directory: pathlib.Path) -> None:
    """Remove what is in the directory."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def detach_stdio() -> None:
    """Let go of the starter's terminal or pipes."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def watch(owner: int) -> t.NoReturn:
    """Reap orphans; end when the test run that the client belongs to has let go of its lock, be it by kill -9."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, 0.5)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if owner >= 0 and lock_is_free(owner):
            os._exit(0)  # the kernel ends everything else in the namespace


def lock_is_free(descriptor: int) -> bool:
    """Say whether nobody holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for(condition: t.Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"Gave up after {seconds:.0f} s waiting for {what}.")
        time.sleep(0.02)


def main() -> None:
    """Carry out one command on one client."""
    command, path = sys.argv[1:]
    machine = Machine(path)
    {"boot": machine.boot, "kill": machine.kill, "remove": machine.remove}[command]()


if __name__ == "__main__":
    main()
