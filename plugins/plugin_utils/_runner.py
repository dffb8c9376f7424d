# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Dispatches through ansible-runner: one ansible-playbook and one private directory each, gone when it has ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import shlex
import shutil
import signal
import threading
import time
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import write_atomic
from ._launcher import Ended, Launch, Launcher
from ._temporary import make_directory, remove_dead
from ._text import tail

try:
    from ansible_runner.config.runner import RunnerConfig
    from ansible_runner.runner import Runner
except ImportError:
    Runner = None

PLAYBOOK = "portbuild.cluster.dispatch"
KEPT_LINES = 400  # of what a dispatch that failed has printed
CLAIM_TIMEOUT = 60  # seconds that a dispatch waits for the slot which the schedule counts on


class NoRunner(PortbuildError):
    """ansible-runner is missing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunnerOptions:
    """How dispatches are to be run: all that the outer ansible-playbook was told."""

    command: str
    """The path of ansible-playbook."""
    arguments: tuple[str, ...]
    """Its arguments: inventory, user, keys, vault and so on, as absolute paths."""
    extra_vars: dict[str, t.Any]
    environment: dict[str, str]
    configuration: str
    """The text of ansible.cfg."""
    cwd: str
    directory: str
    """Where private directories are made, in C(runs.UID/), and where what failures printed is kept."""


class RunnerLauncher(Launcher):
    """Runs each dispatch in a thread.

    The processes are in the process group of the caller, which must lead it: close() sends the whole group its signals.
    """

    def __init__(self, options: RunnerOptions) -> None:
        if Runner is None:
            raise NoRunner("The Python library ansible-runner is missing.", remedy="Install it, for example with pip.")
        self._options = options
        runs = os.path.join(options.directory, f"runs.{os.getuid()}")
        os.makedirs(runs, mode=0o700, exist_ok=True)
        remove_dead(runs)
        self._private, self._lock = make_directory(runs, "")
        config = os.path.join(self._private, "ansible.cfg")
        write_atomic(config, options.configuration, mode=0o600, durable=False)
        self._environment = {**options.environment, "ANSIBLE_CONFIG": config}
        self._ended: queue.Queue[Ended] = queue.Queue()
        self._threads: set[threading.Thread] = set()
        self._closing = False

    def start(self, launch: Launch) -> None:
        thread = threading.Thread(target=self._run, args=(launch,), name=launch.package, daemon=True)
        self._threads.add(thread)
        thread.start()

    def ended(self, seconds: float) -> list[Ended]:
        found: list[Ended] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._ended.get(timeout=seconds))
            while True:
                found.append(self._ended.get_nowait())
        self._threads = {thread for thread in self._threads if thread.is_alive()}
        return found

    def close(self, grace: float) -> bool:
        self._closing = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self._threads:
            os.killpg(0, signal.SIGTERM)
        end = time.monotonic() + grace
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        shutil.rmtree(self._private, ignore_errors=True)
        os.close(self._lock)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, launch: Launch) -> None:
        directory = os.path.join(self._private, launch.package)
        outcome: dict[str, t.Any] = {}
        log = ""
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._log(launch.package))  # of an attempt before this one
            outcome = self._play(launch, directory)
            if outcome.get("outcome") != "built" and not self._closing:
                log = self._keep(launch.package, directory)
        except Exception as error:  # a thread that dies in silence would be waited for until the end of time
            outcome = {
                "outcome": "error",
                "reason": "launcher",
                "msg": f"{launch.package} could not be dispatched: {error}",
            }
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            self._ended.put(Ended(launch.package, outcome, log))

    def _play(self, launch: Launch, directory: str) -> dict[str, t.Any]:
        os.makedirs(directory, mode=0o700)
        variables = os.path.join(directory, "variables.json")
        content = json.dumps({**self._options.extra_vars, **_variables(launch)})
        write_atomic(variables, content, mode=0o600, durable=False)
        config = RunnerConfig(
            private_data_dir=directory,
            project_dir=self._options.cwd,
            binary=self._options.command,
            cmdline=shlex.join([*self._options.arguments, "-e", f"@{variables}", PLAYBOOK]),
            envvars=self._environment,
            ident="run",
            quiet=True,
            fact_cache_type="",
        )
        config.prepare()
        config.runner_mode = "subprocess"  # the other mode gives each a terminal and a session of its own
        heard = _Heard()
        Runner(config, event_handler=heard).run()
        return heard.outcome

    def _log(self, package: str) -> str:
        return os.path.join(self._options.directory, f"{package}.log")

    def _keep(self, package: str, directory: str) -> str:
        """Keep the end of what the dispatch has printed; return where."""
        path = self._log(package)
        lines: list[str] = []
        for name in ("stdout", "stderr"):
            with contextlib.suppress(OSError):
                lines += tail(os.path.join(directory, "artifacts", "run", name), KEPT_LINES)
        write_atomic(path, "".join(f"{line}\n" for line in lines))
        return path


def forget_logs(directory: str) -> None:
    """Remove what dispatches of an earlier bulk build have printed."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".log") and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


def _variables(launch: Launch) -> dict[str, t.Any]:
    return {
        "portbuild_package": launch.asked,
        "portbuild_machine": launch.machine,
        "portbuild_make_share": launch.make_share,
        "portbuild_attempts": 1,
        "portbuild_infra_retries": 0,
        "portbuild_claim_timeout": CLAIM_TIMEOUT,
        "__dispatch_earlier": launch.earlier,
        "__dispatch_blocks": {"blocks": launch.blocks, "blocked": list(launch.blocked)},
    }


class _Heard:
    """Listens to a dispatch's events for what it comes to. Keeps none of them."""

    def __init__(self) -> None:
        self.outcome: dict[str, t.Any] = {}

    def __call__(self, event: dict[str, t.Any]) -> bool:
        data = event.get("event_data") or {}
        result = data.get("res")
        if isinstance(result, dict):
            if isinstance(result.get("outcome"), dict) and result["outcome"].get("outcome"):
                self.outcome = result["outcome"]
            elif event.get("event") == "runner_on_failed" and not self.outcome and not data.get("ignore_errors"):
                self.outcome = _failure(result)
        return False  # write no file


def _failure(result: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return as an outcome what a task has failed with, outside of an attempt."""
    return {
        "outcome": "error",
        "reason": str(result.get("reason") or "error"),
        "infrastructure": bool(result.get("infrastructure")),
        "msg": str(result.get("msg") or "A task failed without a message."),
    }
