# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Linux: every step in its own PID, mount, IPC, host name and (unless it may use the network) network namespaces.

The supervisor forks the first process of the new PID namespace, its init. It builds the step's view of the world,
gives up every capability, starts the command, reaps what is orphaned and ends with the command: the kernel then
kills whatever is left in the namespace. It also dies with the supervisor, by its parent death signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import typing as t

from . import _beneath, _linux
from ._cgroups import resident_in_namespace
from ._isolation import Confinement, Isolation, OUT, Outcome, PORTBUILD, Running

HOSTNAME = "portbuild"

# Enough to install packages and change users. Of what is missing, the important ones: SYS_ADMIN (mounts), MKNOD,
# DAC_READ_SEARCH (opening files by handle, past the root), SYS_PTRACE, SYS_MODULE, SYS_RAWIO, SYS_TIME, NET_ADMIN,
# NET_RAW. AUDIT_WRITE is there because PAM refuses su(1) to root without it.
ROOT_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "SETFCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "AUDIT_WRITE",
)

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# What /proc tells about, or lets root do to, the whole machine rather than the namespace.
_PROC_HIDDEN_FILES = (
    "kcore kmsg kallsyms keys key-users kpagecount kpagecgroup kpageflags latency_stats sched_debug timer_list"
    " sysrq-trigger vmallocinfo iomem ioports modules".split()
)
_PROC_HIDDEN_DIRECTORIES = ("acpi", "asound", "scsi")
_PROC_READ_ONLY = ("bus", "fs", "irq", "sys")

_SAFE = _linux.MS_NOSUID | _linux.MS_NODEV


class LinuxIsolation(Isolation):
    """Namespaces."""

    hosts = "127.0.0.1\tlocalhost portbuild\n::1\tlocalhost ip6-localhost ip6-loopback\n"

    def protect(self) -> None:
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
            stream.write("-500")
        if not os.path.isdir("/run/systemd/system"):
            return
        for hierarchy in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd"):
            group = os.path.join(hierarchy, "portbuild", "supervisors")
            with contextlib.suppress(OSError):
                os.makedirs(group, exist_ok=True)
                with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as stream:
                    stream.write("0")

    def finish(self) -> None:
        """Its mounts are in a namespace of the supervisor's own, and vanish with it."""

    def resident(self, namespace: str) -> int:
        return resident_in_namespace(namespace)

    def prepare(self) -> None:
        self._parent_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        _linux.unshare(_linux.CLONE_NEWNS)
        _linux.make_private("/")

    def begin_child(self) -> None:
        _linux.set_parent_death_signal(signal.SIGKILL)
        _default_signals()

    def start(self, confinement: Confinement, output: int) -> Running:
        go_read, go_write = os.pipe()
        report_read, report_write = os.pipe()
        # The namespace is for children, so ours is entered again after the fork: the next step gets another one.
        _linux.unshare(_linux.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(go_write)
                os.close(report_read)
                _init(confinement, output, go_read, report_write)
        finally:
            _linux.setns(self._parent_namespace, _linux.CLONE_NEWPID)
        os.close(go_read)
        os.close(report_write)
        return _LinuxRunning(pid, go_write, report_read)


class _LinuxRunning(Running):
    def __init__(self, pid: int, go: int, report: int) -> None:
        self.pid = pid
        self._go = go
        self._report = report
        self.namespace = ""
        with contextlib.suppress(OSError):
            self.namespace = os.readlink(f"/proc/{pid}/ns/pid")

    def go(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it could not be set up: the report says why
            os.write(self._go, b"g")
        os.close(self._go)
        self._go = -1

    def fileno(self) -> int:
        return self._report

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Outcome:
        report = b""
        while chunk := os.read(self._report, 1 << 16):
            report += chunk
        if self._go >= 0:
            os.close(self._go)
        os.close(self._report)
        _pid, status, usage = os.wait4(self.pid, 0)
        values: dict[str, t.Any] = {}
        with contextlib.suppress(ValueError):
            values = json.loads(report)
        if not values:
            values = {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else signal.SIGKILL}
        return Outcome(
            **values,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_memory=usage.ru_maxrss * 1024,
        )


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _init(confinement: Confinement, output: int, go: int, report: int) -> t.NoReturn:
    """Be the first process of the namespace. Never returns."""
    answer: dict[str, t.Any] = {}
    try:
        _default_signals()  # the kernel protects an init from signals that it has no handler for
        _linux.set_parent_death_signal(signal.SIGKILL)
        # The supervisor's death between the fork and the line above shows as the end of this pipe.
        _build_world(confinement)
        if os.read(go, 1) == b"g":
            answer = _run_command(confinement, output)
    except BaseException as error:
        answer = {"problem": str(error) or type(error).__name__}
    with contextlib.suppress(OSError):
        os.write(report, json.dumps(answer).encode())
    os._exit(0)


def _build_world(confinement: Confinement) -> None:
    confinement.enter_groups()
    # The supervisor may be protected from the kernel's search for a victim; a build is the first to go.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
        stream.write("500")
    flags = _linux.CLONE_NEWNS | _linux.CLONE_NEWIPC | _linux.CLONE_NEWUTS
    _linux.unshare(flags if confinement.network else flags | _linux.CLONE_NEWNET)
    _linux.set_hostname(HOSTNAME)
    if not confinement.network:
        _linux.loopback_up()
    root = confinement.root
    # pivot_root wants a mount point; no set-uid file and no device node works below it.
    _linux.bind(root, root, flags=_SAFE)
    with _beneath.opened(_beneath.open_top(root)) as top:
        for path in ("dev", "proc", OUT):
            os.close(_beneath.open_directory(top, path))  # a link here would lead the mounts astray
        _mount_dev(root + "/dev", confinement.shared_memory)
        _linux.mount("proc", root + "/proc", "proc", _SAFE | _linux.MS_NOEXEC)
        _mount_offers(top, root, confinement)
        os.fchdir(top)
    _linux.pivot_root(".", ".")
    _linux.umount(".", _linux.MNT_DETACH)  # the old root, which the new one was stacked upon
    os.chdir("/")
    _mask_proc()


def _mount_dev(path: str, shared_memory: int) -> None:
    sources = {name: os.open(f"/dev/{name}", os.O_PATH | os.O_CLOEXEC) for name in _DEVICES}
    _linux.mount("tmpfs", path, "tmpfs", _linux.MS_NOSUID | _linux.MS_NOEXEC, "size=1m,nr_inodes=4096,mode=755")
    for name, source in sources.items():
        os.close(os.open(f"{path}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        _linux.bind(f"/proc/self/fd/{source}", f"{path}/{name}")
        os.close(source)
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"{path}/{name}")
    os.mkdir(f"{path}/pts")
    flags = _linux.MS_NOSUID | _linux.MS_NOEXEC
    _linux.mount("devpts", f"{path}/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=620,gid=5")
    os.mkdir(f"{path}/shm")
    size = f"size={shared_memory}," if shared_memory else ""
    _linux.mount("tmpfs", f"{path}/shm", "tmpfs", _SAFE, f"{size}mode=1777")


def _mount_offers(top: int, root: str, confinement: Confinement) -> None:
    """Cover /portbuild by a small read-only file system with what is offered, and the reply directory."""
    base = f"{root}/{PORTBUILD}"
    with _beneath.opened(_beneath.open_directory(top, OUT)) as out:
        _linux.mount("tmpfs", base, "tmpfs", _SAFE, "size=1m,nr_inodes=1024,mode=755")
        os.mkdir(f"{root}/{OUT}")
        _linux.bind(f"/proc/self/fd/{out}", f"{root}/{OUT}", flags=_SAFE)
    for name, source, elsewhere in confinement.offers:
        if elsewhere:
            os.close(_beneath.open_directory(top, elsewhere))  # a link here would lead the mount astray
            _linux.bind(source, f"{root}/{elsewhere}", flags=_SAFE | _linux.MS_RDONLY)
            continue
        target = f"{base}/{name}"
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        _linux.bind(source, target, flags=_SAFE | _linux.MS_RDONLY)
    _linux.mount(None, base, None, _linux.MS_REMOUNT | _linux.MS_BIND | _linux.MS_RDONLY | _SAFE)


def _mask_proc() -> None:
    for name in _PROC_HIDDEN_FILES:
        if os.path.exists(f"/proc/{name}"):
            _linux.bind("/dev/null", f"/proc/{name}")
    for name in _PROC_HIDDEN_DIRECTORIES:
        if os.path.isdir(f"/proc/{name}"):
            _linux.mount("tmpfs", f"/proc/{name}", "tmpfs", _SAFE | _linux.MS_RDONLY, "size=4k,mode=555")
    for name in _PROC_READ_ONLY:
        if os.path.isdir(f"/proc/{name}"):
            _linux.bind(f"/proc/{name}", f"/proc/{name}", flags=_SAFE | _linux.MS_NOEXEC | _linux.MS_RDONLY)


def _run_command(confinement: Confinement, output: int) -> dict[str, t.Any]:
    failed_read, failed_write = os.pipe()
    child = os.fork()
    if child == 0:
        _become_command(confinement, output, failed_write)
    os.close(failed_write)
    os.close(output)  # or the supervisor would never see the end of it
    # Nothing can be gained by taking this process over: it has no capability and shows nothing of itself.
    _linux.keep_capabilities(())
    _linux.set_undumpable()
    problem = os.read(failed_read, 4096)  # closed by a successful exec
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    if problem:
        return {"problem": problem.decode("utf-8", "replace")}
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    return {"exit": os.WEXITSTATUS(status)}


def _become_command(confinement: Confinement, output: int, failed: int) -> t.NoReturn:
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _close_others(failed)
        _limit_resources(confinement.resources)
        os.umask(0o022)
        user = confinement.user
        if user.uid == 0:
            os.setgroups(user.groups)
            _linux.keep_capabilities(ROOT_CAPABILITIES)
        else:
            _linux.keep_capabilities(("SETUID", "SETGID"), bounding=())
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)  # drops the two capabilities
            _linux.set_no_new_privs()
        os.chdir(confinement.cwd)
        os.execve(confinement.argv[0], confinement.argv, confinement.environment)
    except BaseException as error:
        os.write(failed, (str(error) or type(error).__name__).encode("utf-8", "replace"))
    os._exit(127)


def _close_others(kept: int) -> None:
    os.set_inheritable(kept, False)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX") if kept > 4096 else 4096)


def _limit_resources(limits: t.Mapping[str, int]) -> None:
    for name, value in limits.items():
        number = getattr(resource, name)
        _soft, hard = resource.getrlimit(number)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)  # raising it back may be forbidden
        resource.setrlimit(number, (value, value))
