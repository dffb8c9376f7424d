# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs as AWX runs them: the layout of its private data directory, its environment, its events, its way to cancel.

There is no container around them, so that what a cancelled job leaves behind is seen; in AWX the container ends with it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import shlex
import shutil
import sys
import threading
import typing as t

import ansible_runner
import yaml

from ansible_collections.portbuild.cluster.tests.awx_surveys import extra_variables
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import COLLECTIONS, Farm, wait_for
from ansible_collections.portbuild.cluster.tests.tools.leftovers import our_processes

PROJECT = pathlib.Path(__file__).resolve().parents[2] / "awx"
SURVEYS = {
    entry["playbook"]: entry["survey_spec"]
    for entry in yaml.safe_load((PROJECT / "templates.yml").read_text(encoding="utf-8"))["controller_templates"]
}
_IDS = itertools.count(1)


class _Unsafe(yaml.SafeDumper):
    """AWX marks each text of its extra variables as unsafe: nobody's answer is a template."""


_Unsafe.add_representer(str, lambda dumper, text: dumper.represent_scalar("!unsafe", text, style="'"))


class Job:
    """A job of a template of ours, started with answers to its survey."""

    def __init__(
        self, farm: Farm, top: pathlib.Path, playbook: str, *arguments: str, by_file: bool = False, **answers: t.Any
    ) -> None:
        self.id = next(_IDS)
        self.directory = top / f"awx_{self.id}"
        self.events: list[dict[str, t.Any]] = []
        self.key = farm.cluster.private_key
        self._cancelled = threading.Event()
        given = {f"portbuild_{name}": value for name, value in answers.items()}
        variables = extra_variables(SURVEYS[playbook], given)
        self._lay_out(farm, variables, [*arguments, *(["--private-key", str(self.key)] if by_file else [])])
        self._thread, self.runner = ansible_runner.run_async(
            private_data_dir=str(self.directory),
            ident=str(self.id),
            playbook=playbook,
            inventory=str(self.directory / "inventory" / "hosts"),
            ssh_key=None if by_file else self.key.read_text(encoding="ascii"),
            fact_cache_type="",
            suppress_env_files=True,
            event_handler=self._hear,
            cancel_callback=self._cancelled.is_set,
        )

    def _lay_out(self, farm: Farm, variables: dict[str, t.Any], arguments: list[str]) -> None:
        """Write what AWX writes before it starts a job."""
        for name in ("env", "inventory", "cp"):
            (self.directory / name).mkdir(mode=0o700, parents=True)
        shutil.copytree(PROJECT, self.directory / "project")
        about = {"job_id": self.id, "job_template_name": "Farm", "user_id": 1, "user_name": "alice"}
        meta = {f"{prefix}_{name}": value for prefix in ("awx", "tower") for name, value in about.items()}
        self._write("env/extravars", yaml.dump({**variables, **meta}, Dumper=_Unsafe))
        self._write("env/cmdline", shlex.join(["-u", "root", *arguments]))
        settings = {"job_timeout": 0, "suppress_ansible_output": True, "suppress_output_file": True}
        self._write("env/settings", json.dumps(settings))
        self._write("env/envvars", json.dumps(self._environment(farm)))
        script = f"#! /usr/bin/env python3\n# -*- coding: utf-8 -*-\nprint({json.dumps(_inventory(farm))!r})\n"
        self._write("inventory/hosts", script, mode=0o700)

    def _environment(self, farm: Farm) -> dict[str, str]:
        path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return {
            "PATH": path,
            "ANSIBLE_HOME": str(farm.cluster.directory / "ansible"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(
                [f"{self.directory}/requirements_collections", str(COLLECTIONS)]
            ),
            "ANSIBLE_FORCE_COLOR": "True",
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_PARAMIKO_RECORD_HOST_KEYS": "False",
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.directory / "cp"),
            "AWX_HOST": "https://awx.example.org",
            "AWX_PRIVATE_DATA_DIR": str(self.directory),
            "INVENTORY_ID": "1",
            "JOB_ID": str(self.id),
            "MAX_EVENT_RES": "700000",
            "PROJECT_REVISION": "0" * 40,
        }

    def _write(self, name: str, text: str, mode: int = 0o600) -> None:
        path = self.directory / name
        path.touch(mode=mode)
        path.write_text(text, encoding="utf-8")

    def _hear(self, event: dict[str, t.Any]) -> bool:
        self.events.append(event)
        return True  # so that there is a file of each

    # -- what becomes of it ----------------------------------------------------------------------------------------

    def output(self) -> str:
        """Return what AWX shows."""
        return "\n".join(str(event.get("stdout") or "") for event in self.events)

    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self, timeout: float = 180.0) -> str:
        """Return how it ended, in the words of AWX."""
        self._thread.join(timeout)
        assert not self.running(), f"The job did not end in {timeout:.0f} s:\n{self.output()}"
        return str(self.runner.status)

    def ok(self) -> Job:
        """Return itself, or fail with all that AWX shows of it."""
        assert self.end() == "successful", self.output()
        return self

    def cancel(self) -> None:
        """Cancel it as AWX does: ansible-runner is told, and kills the process group with SIGKILL."""
        self._cancelled.set()
        assert self.end(60) == "canceled", self.output()

    def results(self, key: str) -> list[t.Any]:
        """Return what tasks have registered under the key."""
        found = [(event.get("event_data") or {}).get("res") for event in self.events]
        return [result[key] for result in found if isinstance(result, dict) and key in result]

    def files(self) -> list[pathlib.Path]:
        """Return the files of its events."""
        return sorted((self.directory / "artifacts" / str(self.id) / "job_events").iterdir())

    def processes(self) -> list[str]:
        """Return what runs of it: everything below it inherits its environment."""
        return sorted(our_processes(str(self.directory)))

    def assert_nothing_orphaned(self, timeout: float) -> None:
        """Fail unless all of its processes end by themselves."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.processes(), "the end of all processes", timeout, 0.2)
        left = self.processes()
        assert not left, left


def _inventory(farm: Farm) -> dict[str, t.Any]:
    """Return the inventory as AWX's script prints it; what says how to log in comes from the machine credential."""
    group = yaml.safe_load(farm.cluster.inventory.read_text(encoding="utf-8"))["all"]["children"]["build_machines"]
    common = dict(group["vars"])
    del common["ansible_ssh_private_key_file"]
    common["ansible_ssh_common_args"] = common["ansible_ssh_common_args"].replace("-o IdentitiesOnly=yes ", "")
    hosts = {
        name: {**variables, "remote_tower_enabled": "true", "remote_tower_id": number}
        for number, (name, variables) in enumerate(group["hosts"].items(), start=1)
    }
    return {
        "all": {"children": ["build_machines"], "vars": farm.variables},
        "build_machines": {"hosts": list(hosts), "vars": common},
        "_meta": {"hostvars": hosts},
    }
