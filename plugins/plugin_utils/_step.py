# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The adapter between a step's action and Ansible.

Every controller half of a step is an action with the same face: validate the arguments, do one thing, return facts.
What they share stands here: the settings that hold for the job, remote executions that turn a lost connection into
an ordinary failure, and the watch that renews the lease and ends the step when its ansible-playbook is gone.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import multiprocessing
import os
import re
import signal
import threading
import time
import typing as t

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.helpers import load_list_of_tasks
from ansible.playbook.play import Play
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import become_loader
from ansible.utils.display import Display
from ansible.vars.manager import VariableManager

from ..module_utils._errors import PortbuildError
from ._candidates import find_candidates, inventory_machines, variables_of
from ._context import StepContext
from ._hook import BadHook
from ._inventory import connection_variables
from ._owner import Owner
from ._queue import Candidate, Lease, Queue
from ._replies import check_reply, clean_reply
from ._settings import given_client_user, refuse_unknown, resolve, Settings
from ._telling import check_telling
from ._text import one_line

COLLECTION = "portbuild.cluster"
CLIENT_STEPS = ("build_package", "claim_chroot", "clean_chroot", "fetch_results")
RENEW_INTERVAL = 30.0  # seconds between renewals of a lease
PARENT_INTERVAL = 1.0  # seconds between looks at whether ansible-playbook still lives

RECONNECT_INTERVAL = 2.0  # seconds between attempts to reach a machine again

T = t.TypeVar("T")

display = Display()


class BadArguments(PortbuildError):
    """Arguments that the step does not take."""


class StepFailed(PortbuildError):
    """A step that ends the attempt.

    C(reason) is a word for programs. With C(infrastructure) the machine or the network is to blame, not the package.
    """

    def __init__(self, message: str, *, reason: str, infrastructure: bool, remedy: str = "", **details: t.Any) -> None:
        super().__init__(
            message, remedy=remedy, details={"reason": reason, "infrastructure": infrastructure, **details}
        )


class MachineUnreachable(StepFailed):
    """The connection to the build machine failed, or it did not answer in time."""

    def __init__(self, machine: str, why: str) -> None:
        super().__init__(
            f"Machine {machine} cannot be reached: {' '.join(why.split())[:500]}",
            reason="unreachable",
            infrastructure=True,
            unreachable_machine=True,
        )


class TransferFailed(StepFailed):
    """The machine can be reached, but the file cannot be copied."""

    def __init__(self, machine: str, source: str, why: str) -> None:
        super().__init__(
            f"{source} could not be copied from or to machine {machine}: {' '.join(why.split())[-500:]}",
            reason="transfer",
            infrastructure=True,
        )


# What sftp's batch language takes for a plain name: its quotes are not the shell's, and a line beginning with "!" is
# a command for the controller's shell.
_REMOTE_PATH = re.compile(r"(/[A-Za-z0-9._+@~%=:,-]+)+")


def check_remote(path: str) -> str:
    """Return the path on a machine if it can be given to a file transfer as it is, or raise BadArguments."""
    if not _REMOTE_PATH.fullmatch(path):
        raise BadArguments(
            f"{path!r} cannot be the path of a file on a build machine.",
            remedy="Expected is an absolute path of letters, digits and . _ + @ ~ % = : , - (see portbuild_scratchdir).",
        )
    return path


class _DeadlineExceeded(BaseException):
    """Raised by the alarm; no handler of ordinary exceptions on the way may swallow it."""


@contextlib.contextmanager
def deadline(seconds: float) -> c.Iterator[None]:
    """Interrupt the block after so many seconds: a frozen client keeps its connection open for ever."""

    def on_alarm(_signal: int, _frame: t.Any) -> t.NoReturn:
        raise _DeadlineExceeded

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main_process() -> int:
    """Return the pid of the main ansible-playbook, also when it has died."""
    parent = multiprocessing.parent_process()
    return os.getppid() if parent is None or parent.pid is None else parent.pid


@contextlib.contextmanager
def not_as_orphan() -> c.Iterator[None]:
    """End this worker when its ansible-playbook has died.

    On SIGKILL of ansible-playbook its workers live on as orphans, each in a session of its own: without this they
    would go on to publish, clean and release beside the dispatch that adopts their job, or claim for nobody.
    """
    parent = main_process()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(PARENT_INTERVAL):
            if os.getppid() != parent:
                end_orphan()

    if os.getppid() != parent:
        end_orphan()
    thread = threading.Thread(target=watch, name="parent", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Watch:
    """Renews a lease while a step works."""

    def __init__(self, queue: Queue, lease: Lease) -> None:
        self._queue = queue
        self._lease = lease
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self.lost: PortbuildError | None = None

    def __enter__(self) -> t.Self:
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._done.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what made the lease invalid, if anything did."""
        if self.lost is not None:
            raise self.lost

    def _run(self) -> None:
        while not self._done.wait(RENEW_INTERVAL):
            try:
                self._queue.renew(self._lease)
            except PortbuildError as error:
                self.lost = error
            except OSError:
                pass  # a full disk: the next renewal may succeed, and the lease lasts for many of them


def check_tasks(path: str, loader: DataLoader) -> None:
    """Raise BadHook for a file of tasks that Ansible does not take: an unknown module in it ends ansible-playbook."""
    try:
        tasks = loader.load_from_file(path)
        if not isinstance(tasks, list):
            raise BadHook(f"portbuild_hook_tasks, {path}, is no list of tasks.")
        with contextlib.suppress(AnsibleFileNotFound):  # what it imports is looked for from where it is included
            load_list_of_tasks(tasks, Play(), variable_manager=VariableManager(loader=loader), loader=loader)
    except AnsibleError as error:
        raise BadHook(f"portbuild_hook_tasks, {path}, cannot be read: {error}") from None


def end_orphan() -> t.NoReturn:
    """End this worker with all its children, at once and without clean-up: the job's next owner does that."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class StepAction(ActionBase):
    """An action that is one step. Subclasses give ARGUMENTS and step().

    With PASSES_OPTIONS other arguments are options of the module of the same name; they take precedence over what the
    step makes of the portbuild_ variables, and the module validates them.
    """

    ARGUMENTS: t.ClassVar[dict[str, t.Any]] = {}
    PASSES_OPTIONS: t.ClassVar[bool] = False
    options: c.Mapping[str, t.Any] = {}
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        try:
            with not_as_orphan():
                result.update(self.step(self._arguments(), task_vars or {}))
        except PortbuildError as error:
            result.update(error.details)
            result.update(failed=True, msg=str(error))
        except OSError as error:
            remedy = "See that it is there, and may be read and written by the user that runs this."
            result.update(failed=True, reason="controller", msg=f"The controller failed: {error}. {remedy}")
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _arguments(self) -> dict[str, t.Any]:
        """Return the checked arguments; keep those that are the module's."""
        given = dict(self._task.args)
        if self.PASSES_OPTIONS:
            self.options = {name: given.pop(name) for name in list(given) if name not in self.ARGUMENTS}
        checked = ArgumentSpecValidator(self.ARGUMENTS).validate(given)
        if checked.error_messages:
            raise BadArguments(f"{self._task.action}: {'; '.join(checked.error_messages)}.")
        return t.cast("dict[str, t.Any]", checked.validated_parameters)

    def step(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Do the step and return its facts; raise PortbuildError when it cannot be done."""
        raise NotImplementedError

    # -- variables ---------------------------------------------------------------------------------------------

    def portbuild_variables(self, variables: c.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """Return those of the variables that settings are made of, templated."""
        names = [name for name in variables if name.startswith("portbuild_") or name == "ansible_user"]
        return {name: self._templar.template(variables[name]) for name in names}

    def context(
        self, task_vars: c.Mapping[str, t.Any], *, machine: str | None = None, package: str | None = None
    ) -> StepContext:
        """Return the context of the job, as seen from the machine where one is given."""
        variables = self.portbuild_variables(task_vars)
        own: dict[str, t.Any] = {}
        if machine is not None:
            delegated = task_vars.get("ansible_delegated_vars", {}).get(machine)
            own = self.portbuild_variables(delegated or variables_of(task_vars, machine))
        refuse_unknown({**variables, **own})
        context = StepContext(variables, own, package=package, machine=machine)
        if machine is not None and self._requires_connection:
            client_user = given_client_user(variables, context.config, machine, own)
            self.log_in(task_vars, machine, client_user, context.settings.sudo_cmd)
        return context

    def check_telling(self, settings: Settings) -> None:
        """Raise PortbuildError for hooks and templates that cannot be used: what is included later must not end a play."""
        check_telling(settings)
        if settings.hook_tasks:
            self.check_tasks(settings.hook_tasks)

    def check_tasks(self, path: str) -> None:
        """Raise BadHook for a file of tasks that Ansible does not take."""
        check_tasks(path, self._loader)

    def log_in(self, task_vars: c.Mapping[str, t.Any], machine: str, client_user: str, sudo_cmd: str) -> None:
        """Log in as client_user, and become root by sudo_cmd, where Ansible's own variables do not say how.

        The inventory plugin makes those variables of an original directory; any other inventory may have the settings
        alone. They cannot be made variables of a task: one that is not set must stay so, for what the command line says.
        """
        # Of a delegated task, Ansible has put the user of its own default among the delegated host's variables.
        known = variables_of(task_vars, machine) if self._task.delegate_to else task_vars
        wanted = connection_variables(client_user, sudo_cmd)
        if client_user and not any(known.get(name) for name in ("ansible_user", "ansible_ssh_user")):
            with contextlib.suppress(KeyError):  # a connection without a login
                self._connection.set_option("remote_user", client_user)
            self._play_context.remote_user = client_user
        if sudo_cmd and known.get("ansible_become") is None and self._connection.become is None:
            become = become_loader.get(wanted["ansible_become_method"])
            own = ("become_user", "become_exe", "become_flags")
            become.set_options(direct={name: wanted[f"ansible_{name}"] for name in own})
            self._connection.set_become_plugin(become)
            self._play_context.become = True

    @property
    def owner(self) -> Owner:
        """The main ansible-playbook, which owns what this worker claims."""
        return Owner.of(main_process())

    def candidates(
        self, context: StepContext, task_vars: c.Mapping[str, t.Any]
    ) -> tuple[list[Candidate], dict[str, str]]:
        """Return the machines that stand in mlist and inventory alike, best first, and why others do not count."""
        listed = context.config.machines if context.config.has_mlist else None

        def maxjobs(machine: str) -> int:
            for problem in context.config.for_machine(machine).problems:
                display.warning(str(problem))
            try:
                return self.maxjobs(context, task_vars, machine)
            except PortbuildError as error:
                display.warning(f"{machine} gets no jobs: {error}")
                raise

        return find_candidates(listed, inventory_machines(task_vars), maxjobs)

    def maxjobs(self, context: StepContext, task_vars: c.Mapping[str, t.Any], machine: str) -> int:
        """Return how many jobs the machine may run."""
        return self.machine_settings(context, task_vars, machine).maxjobs

    def machine_settings(self, context: StepContext, task_vars: c.Mapping[str, t.Any], machine: str) -> Settings:
        """Return the settings of the machine, as far as the queue needs them: there may be many machines to template."""
        variables = variables_of(task_vars, machine)
        refuse_unknown(variables)
        own = {name: variables[name] for name in ("portbuild_maxjobs", "portbuild_tags") if name in variables}
        own = {**context.variables, **own}
        return resolve(context.variables, context.config, machine=machine, machine_variables=own)

    @property
    def check_mode(self) -> bool:
        """Whether nothing may be changed."""
        return bool(self._task.check_mode)

    # -- the client --------------------------------------------------------------------------------------------

    def remote(
        self,
        module: str,
        arguments: dict[str, t.Any],
        task_vars: dict[str, t.Any],
        *,
        machine: str,
        limit: float = 120.0,
        tolerate: bool = False,
    ) -> dict[str, t.Any]:
        """Run the client half on the machine and return its result.

        Raises MachineUnreachable when the connection fails or C(limit) seconds pass, StepFailed when the module
        fails (unless C(tolerate)).
        """
        own = self.options if f"{COLLECTION}.{module}" == self._task.resolved_action else {}
        name, given = _module_call(module, {**arguments, **own})
        try:
            with deadline(limit):
                result: dict[str, t.Any] = self._execute_module(
                    module_name=name, module_args=given, task_vars=task_vars
                )
        except AnsibleConnectionFailure as error:
            raise MachineUnreachable(machine, str(error)) from None
        except _DeadlineExceeded:
            self.drop_connection()
            raise MachineUnreachable(machine, f"no answer to {module} within {limit:.0f} s") from None
        except AnsibleError as error:  # such as a password that sudo asks for
            raise StepFailed(
                f"{module} on {machine}: {one_line(str(error), 1000)}", reason="client", infrastructure=True
            ) from None
        clean_reply(result)
        if result.get("unreachable"):
            raise MachineUnreachable(machine, str(result.get("msg")))
        if result.get("failed") and not tolerate:
            raise _module_failure(module, machine, result)
        if not result.get("failed"):
            check_reply(module, machine, result)
        return result

    def persistently(self, execute: c.Callable[[], T], watch: Watch, *, patience: float) -> T:
        """Return what the remote execution returns, trying again for C(patience) seconds when the connection fails."""
        failing_since: float | None = None
        while True:
            watch.check()
            try:
                return execute()
            except MachineUnreachable as error:
                now = time.monotonic()
                if failing_since is None:
                    failing_since = now
                    # No warning: those of a task are shown when it ends, and that may take hours.
                    display.display(f"{error} Trying again for {patience:.0f} s: what runs there goes on.")
                if now - failing_since >= patience:
                    raise
                self.drop_connection()
                time.sleep(RECONNECT_INTERVAL)

    def drop_connection(self) -> None:
        """End the persistent ssh connection, so that the next execution opens a new one."""
        reset = getattr(self._connection, "reset", None)
        if reset is not None:
            with contextlib.suppress(Exception), deadline(10):
                reset()

    def temporary_directory(self, machine: str) -> str:
        """Return a directory on the machine that the login account may write into; it is removed with the step."""
        try:
            if self._connection._shell.tmpdir is None:
                with deadline(120.0):
                    self._make_tmp_path()
        except AnsibleConnectionFailure as error:
            raise MachineUnreachable(machine, str(error)) from None
        except _DeadlineExceeded:
            self.drop_connection()
            raise MachineUnreachable(machine, "no temporary directory was made within 120 s") from None
        except AnsibleError as error:
            raise TransferFailed(machine, "the temporary directory", str(error)) from None
        path = str(self._connection._shell.tmpdir).rstrip("/")
        # The machine has named it, and it goes to the connection plugin, which may hand it to a shell.
        if not re.fullmatch(r"(/[A-Za-z0-9_.@+-]+)+", path) or ".." in path.split("/"):
            raise TransferFailed(machine, "the temporary directory", f"the machine calls it {path!r:.200}")
        return path

    def send(self, local: str, remote: str, *, machine: str, limit: float = 7200.0) -> None:
        """Copy a file to the machine as client_user, without become."""
        self._transfer(self._connection.put_file, local, check_remote(remote), machine, limit)

    def receive(self, remote: str, local: str, *, machine: str, limit: float = 7200.0) -> None:
        """Copy a file from the machine as client_user, without become: no file is held in memory."""
        self._transfer(self._connection.fetch_file, check_remote(remote), local, machine, limit)

    def _transfer(
        self, transfer: c.Callable[[str, str], t.Any], source: str, target: str, machine: str, limit: float
    ) -> None:
        try:
            with deadline(limit):
                transfer(source, target)
        except _DeadlineExceeded:
            self.drop_connection()
            raise MachineUnreachable(machine, f"copying {source} took more than {limit:.0f} s") from None
        except AnsibleConnectionFailure as error:
            raise MachineUnreachable(machine, str(error)) from None
        except AnsibleError as error:
            raise TransferFailed(machine, source, str(error)) from None


def _module_call(module: str, arguments: dict[str, t.Any]) -> tuple[str, dict[str, t.Any]]:
    """Return the Ansible module that does the client half, and its arguments.

    Ansible packs a module once per playbook run, for a third of a second of processor time: so the steps that every
    dispatch takes are one module.
    """
    if module in CLIENT_STEPS:
        return f"{COLLECTION}.client_step", {"step": module, "arguments": arguments}
    return f"{COLLECTION}.{module}", arguments


_NO_DETAILS = ("failed", "msg", "changed", "exception", "message", "remedy", "module_stderr", "module_stdout")


def _module_failure(module: str, machine: str, result: dict[str, t.Any]) -> StepFailed:
    """Return the exception for a failed module: one of ours says who is to blame, anything else is the machine's fault."""
    message = str(result.get("msg") or "no message").strip()
    said = [result.get(key) for key in ("module_stderr", "module_stdout")]
    extra = one_line(" ".join(text[-500:] for text in said if isinstance(text, str)), 1000)
    if "reason" not in result and extra:
        message = f"{message} It said: {extra}"
    known = {key: value for key, value in result.items() if key not in _NO_DETAILS}
    known.setdefault("reason", "client")
    known.setdefault("infrastructure", True)
    reason, infrastructure = str(known.pop("reason")), bool(known.pop("infrastructure"))
    return StepFailed(f"{module} on {machine}: {message}", reason=reason, infrastructure=infrastructure, **known)


LEASE_ARGUMENT: dict[str, t.Any] = {
    "type": "dict",
    "required": True,
    "options": {
        "arch": {"type": "str", "required": True},
        "branch": {"type": "str", "required": True},
        "package": {"type": "str", "required": True},
        "machine": {"type": "str", "required": True},
        "queue": {"type": "str", "required": True},
        "token": {"type": "int", "required": True},
    },
}
