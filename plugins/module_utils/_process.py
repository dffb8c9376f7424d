# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Processes: running a command, doing something in a child or in the background, and telling processes apart."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import select
import signal
import time
import typing as t

from . import _linux
from ._errors import PortbuildError

_CHUNK = 1 << 16

LINUX: bool = os.uname().sysname == "Linux"  # mypy takes what it knows of sys.platform too far


class CommandError(PortbuildError):
    """A command that could not be started, did not end in time, or failed."""


class Completed(t.NamedTuple):
    """How a command ended: C(rc) is the exit status, or minus the number of the signal that ended it."""

    rc: int
    stdout: str
    stderr: str


def _exec(
    argv: t.Sequence[str],
    env: t.Mapping[str, str] | None,
    cwd: str | None,
    stdio: tuple[int, int, int],
    report: int,
    parent: int,
) -> t.NoReturn:
    """Become the command (in the child); what prevents it is written to the report pipe."""
    try:
        os.setsid()  # a group of its own, so that a time limit ends what the command started too
        # A copy that outlives its killed caller would write into what the next attempt makes in its place.
        die_with_parent(parent)
        for wanted, descriptor in enumerate(stdio):
            os.dup2(descriptor, wanted)
        if cwd is not None:
            os.chdir(cwd)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would pass that on
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(argv[0], list(argv), dict(os.environ if env is None else env))
    except BaseException as error:
        os.write(report, str(error).encode("utf-8", "replace")[:_CHUNK])
    os._exit(127)


def die_with_parent(parent: int) -> None:
    """Have this process, a child of C(parent), killed with it; end at once if that is dead already.

    FreeBSD has had the call since 11.2. Where it fails a process may outlive its parent for a while, and is found by
    its jail or its mounts.
    """
    if LINUX:
        _linux.set_parent_death_signal(signal.SIGKILL)
    else:
        from . import _freebsd_calls  # pylint: disable=import-outside-toplevel  # modules come as source: each costs

        with contextlib.suppress(OSError, AttributeError):
            _freebsd_calls.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(127)


def _above_stdio(pair: tuple[int, int]) -> tuple[int, int]:
    """Return the same two descriptors numbered above 2: a module may have been started with stdin closed."""
    moved = []
    for descriptor in pair:
        if descriptor <= 2:
            copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(descriptor)
            descriptor = copy
        moved.append(descriptor)
    return moved[0], moved[1]


def _pump(outputs: dict[int, bytearray], stdin: int, data: bytes, deadline: float | None, limit: int) -> bool:
    """Feed stdin and read the outputs until all are closed. False: the deadline passed."""
    view = memoryview(data)
    poll = select.poll()
    for descriptor in outputs:
        poll.register(descriptor, select.POLLIN)
    os.set_blocking(stdin, False)
    poll.register(stdin, select.POLLOUT)
    left = {*outputs, stdin}
    while left:
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            return False
        for descriptor, _event in poll.poll(None if remaining is None else remaining * 1000 + 1):
            if descriptor == stdin:
                with contextlib.suppress(BlockingIOError):
                    try:
                        view = view[os.write(stdin, view[:_CHUNK]) :] if view else view
                    except BrokenPipeError:  # it does not want to read more
                        view = view[:0]
                    if not view:
                        poll.unregister(stdin)
                        os.close(stdin)
                        left.discard(stdin)
                continue
            chunk = os.read(descriptor, _CHUNK)
            if chunk:
                room = limit - len(outputs[descriptor])
                outputs[descriptor] += chunk[: max(room, 0)]  # what is beyond the limit is read and dropped
            else:
                poll.unregister(descriptor)
                left.discard(descriptor)
    return True


def _wait(pid: int, deadline: float | None) -> int | None:
    """Return the wait status of the child, None if the deadline passes first."""
    if deadline is None:
        return os.waitpid(pid, 0)[1]
    pause = 0.0005
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() >= deadline:
            return None
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def exit_code(status: int) -> int:
    """Return the exit status in a wait status, or minus the number of the signal."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def run(
    argv: t.Sequence[str],
    *,
    input: bytes | str | None = None,  # noqa: A002  # the word that everybody knows from the standard library
    env: t.Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    limit: int = 1 << 20,
) -> Completed:
    """Run the command to its end.

    At most C(limit) bytes of each of its outputs are kept. When C(timeout) seconds pass, the command and what it
    started in its process group are killed. Raises CommandError if it cannot be started or does not end in time.
    """
    data = input.encode("utf-8") if isinstance(input, str) else input or b""
    deadline = None if timeout is None else time.monotonic() + timeout
    pipes = [_above_stdio(os.pipe()) for _pipe in range(4)]
    (stdin_read, stdin_write), (out_read, out_write), (err_read, err_write), (report_read, report_write) = pipes
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _exec(argv, env, cwd, (stdin_read, out_write, err_write), report_write, parent)
    for descriptor in (stdin_read, out_write, err_write, report_write):
        os.close(descriptor)
    outputs = {out_read: bytearray(), err_read: bytearray()}
    finished = False
    status: int | None = None
    try:
        problem = os.read(report_read, _CHUNK)  # closed by a successful exec
        finished = _pump(outputs, stdin_write, data, deadline, limit)
        status = _wait(pid, deadline) if finished else None
    finally:
        if status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for descriptor in (out_read, err_read, report_read):
            os.close(descriptor)
        if not finished:
            with contextlib.suppress(OSError):
                os.close(stdin_write)
    stdout, stderr = (bytes(output).decode("utf-8", "replace") for output in outputs.values())
    details = {"cmd": list(argv), "stdout": stdout, "stderr": stderr}
    if problem:
        raise CommandError(f"Cannot run {argv[0]!r}: {problem.decode('utf-8', 'replace')}.", details=details)
    if status is None:
        raise CommandError(f"{argv[0]!r} did not end within {timeout:g} s and was killed.", details=details)
    return Completed(exit_code(status), stdout, stderr)


def check_run(argv: t.Sequence[str], what: str, **options: t.Any) -> Completed:
    """Run the command, raise CommandError saying what was tried unless it exits with 0."""
    done = run(argv, **options)
    if done.rc != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no output")[-2000:]
        raise CommandError(
            f"{what} failed: {argv[0]!r} ended with status {done.rc}: {said}",
            details={"cmd": list(argv), "rc": done.rc, "stdout": done.stdout, "stderr": done.stderr},
        )
    return done


def in_child(function: t.Callable[[], str], *, timeout: float = 30.0) -> str:
    """Return what the function returns in a forked child: whatever it does to its process ends with it.

    An exception is returned as its text, so C("") can stand for success.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            answer = function()
        except BaseException as error:
            answer = str(error) or type(error).__name__
        with contextlib.suppress(OSError):
            os.write(write, b"=" + answer.encode("utf-8", "replace")[:60000])
        os._exit(0)
    os.close(write)
    chunks = []
    deadline = time.monotonic() + timeout
    try:
        while select.select([read], [], [], max(deadline - time.monotonic(), 0))[0]:
            chunk = os.read(read, _CHUNK)
            if not chunk:
                break
            chunks.append(chunk)
        else:
            return f"no answer within {timeout:g} s"
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    answer = b"".join(chunks).decode("utf-8", "replace")
    return answer[1:] if answer else f"the trial process ended with status {exit_code(status)}"


def detach(function: t.Callable[[], None], *, nice: int = 10) -> None:
    """Do something in the background, in a session of its own, holding none of our descriptors.

    The descriptors matter most: a background process that keeps the caller's standard output open keeps the
    connection of the controller waiting.
    """
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.closerange(3, _open_files_limit())
        os.chdir("/")
        os.nice(nice)
        function()
    finally:
        os._exit(0)


def _open_files_limit() -> int:
    try:
        if LINUX:  # FreeBSD without fdescfs shows no more than 0, 1 and 2
            return max(int(name) for name in os.listdir("/dev/fd")) + 1
    except (OSError, ValueError):
        pass
    return min(os.sysconf("SC_OPEN_MAX"), 65536)


def boot_id() -> str:
    """Return what identifies this boot of the system: another value means that no process from before is left."""
    if LINUX:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    return _freebsd_boot_id()


@functools.cache
def _freebsd_boot_id() -> str:
    """Return the kernel's random number or, before FreeBSD 14, the time of the boot, which a stepped clock changes."""
    from . import _freebsd  # pylint: disable=import-outside-toplevel

    number = _freebsd.parse_boot_id(run(_freebsd.ask_boot_id(), timeout=10).stdout)
    if number:
        return number
    text = check_run(_freebsd.ask_system("kern.boottime"), "Asking for the boot time", timeout=10).stdout
    seconds = _freebsd.parse_boot_time(text)
    if seconds is None:
        raise CommandError(f"sysctl kern.boottime says {text!r:.200}, which is no time.")
    return f"boottime-{seconds}"


def process_start_time(pid: int) -> str | None:
    """Return when the process started, in a form that only means something compared with itself; None: no such process.

    With the pid it identifies a process for as long as the system is up.
    """
    if pid <= 0:
        return None
    if not LINUX:
        from . import _freebsd  # pylint: disable=import-outside-toplevel

        env = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # the same whoever asks
        return _freebsd.parse_start(run(_freebsd.ask_start(pid), env=env, timeout=10).stdout)
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            text = stream.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, field 2, is in parentheses and may hold anything, parentheses and spaces included.
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):  # ended; only its parent has not asked yet
        return None
    return fields[19].decode("ascii")
