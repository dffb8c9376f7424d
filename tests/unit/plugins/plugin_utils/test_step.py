# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every step's action shares. What needs a playbook around it is in the cluster tests."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import types
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils import _step
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import BadArguments, check_remote, StepAction


@pytest.mark.parametrize("path", ["/var/portbuild/incoming/" + "0" * 64 + ".17.part", "/a/b+c~1,2@x%3a=:_-.deb"])
def test_plain_paths_are_given_to_a_transfer(path: str) -> None:
    assert check_remote(path) == path


@pytest.mark.parametrize(
    "path", ["", "a/b", "/a b", "/a\n!touch x", "/a'b", '/a"b', "/a\\b", "/a//b", "/a/", "/a$b", "/a*"]
)
def test_what_sftp_would_interpret_is_not(path: str) -> None:
    with pytest.raises(BadArguments, match="cannot be the path of a file on a build machine"):
        check_remote(path)


TASKS = {
    "- ansible.builtin.debug:\n": "",
    "- debug:\n  when: portbuild_event.event == 'failure'\n": "",
    "- ansible.builtin.include_tasks: '{{ portbuild_event.event }}.yml'\n": "",
    "- ansible.builtin.import_tasks: beside.yml\n": "",  # looked for from the role that includes it
    "- nonsense: {\n": "cannot be read",
    "": "is no list of tasks",
    "a: b\n": "is no list of tasks",
    "- 17\n": "cannot be read",
    "- no_such_module:\n": "no_such_module",
    "- debug:\n  whenn: x\n": "whenn",
    "- block:\n  - no_such_module:\n": "no_such_module",
}
CHECK_TASKS = """
import sys
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader()
from ansible.parsing.dataloader import DataLoader
from ansible_collections.portbuild.cluster.plugins.plugin_utils._hook import BadHook
from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import check_tasks
for path in sys.argv[1:]:
    try:
        check_tasks(path, DataLoader())
    except BadHook as error:
        print(path, " ".join(str(error).split()))
"""


def test_tasks_of_a_hook_that_would_end_the_whole_playbook(tmp_path: pathlib.Path) -> None:
    """In a process of its own: it has Ansible load plugins as ansible-playbook does."""
    paths = [tmp_path / f"{number}.yml" for number in range(len(TASKS))]
    for path, tasks in zip(paths, TASKS):
        path.write_text(tasks, encoding="utf-8")
    command = [sys.executable, "-c", CHECK_TASKS, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    for path, problem in zip(paths, TASKS.values()):
        found = said.get(str(path), "")
        assert bool(found) == bool(problem) and problem in found, (path.read_text(encoding="utf-8"), found)


class Connection:
    """What a connection is told."""

    def __init__(self) -> None:
        self.options: dict[str, str] = {}
        self.become: t.Any = None

    def set_option(self, name: str, value: str) -> None:
        self.options[name] = value

    def set_become_plugin(self, plugin: t.Any) -> None:
        self.become = plugin


class Become:
    """What a become plugin is told."""

    def __init__(self, name: str) -> None:
        self.options = {"method": name}

    def set_options(self, direct: dict[str, str]) -> None:
        self.options.update(direct)


@pytest.fixture(autouse=True)
def become_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_step, "become_loader", types.SimpleNamespace(get=Become))


def log_in(known: dict[str, t.Any], client_user: str, sudo_cmd: str, *, delegated: bool = False) -> Connection:
    """Return the connection of a step on a machine with these host variables."""
    connection = Connection()
    step: t.Any = StepAction.__new__(StepAction)
    step._connection = connection
    step._play_context = types.SimpleNamespace(remote_user=None, become=False)
    step._task = types.SimpleNamespace(delegate_to="a1" if delegated else None)
    task_vars = {"hostvars": {"a1": known}, "ansible_delegated_vars": {"a1": {**known, "ansible_user": "whoever"}}}
    step.log_in(task_vars if delegated else {**known, **task_vars}, "a1", client_user, sudo_cmd)
    return connection


@pytest.mark.parametrize("delegated", [False, True])
def test_an_ordinary_inventory_gives_the_login(delegated: bool) -> None:
    connection = log_in({}, "pbclient", "doas", delegated=delegated)
    assert connection.options == {"remote_user": "pbclient"}
    assert connection.become.options == {
        "method": "ansible.builtin.sudo",
        "become_exe": "doas",
        "become_user": "root",
        "become_flags": "-n",
    }


@pytest.mark.parametrize("delegated", [False, True])
def test_what_ansible_is_told_in_its_own_words_counts(delegated: bool) -> None:
    connection = log_in({"ansible_user": "other", "ansible_become": False}, "pbclient", "sudo", delegated=delegated)
    assert (connection.options, connection.become) == ({}, None)
    assert log_in({"ansible_ssh_user": "other"}, "pbclient", "", delegated=delegated).options == {}
    connection = log_in({}, "", "", delegated=delegated)  # what the command line says stays
    assert (connection.options, connection.become) == ({}, None)
