# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What inner runs are told of the outer one: its configuration, arguments and inventory."""

from __future__ import annotations

import configparser
import os
import pathlib
import typing as t

import pytest
from ansible import constants
from ansible import context as cli
from ansible.module_utils.common.collections import ImmutableDict
from ansible.parsing.dataloader import DataLoader

from ansible_collections.portbuild.cluster.plugins.plugin_utils._outer import (
    configuration,
    environment,
    InventoryWatch,
    NoPrompts,
    playbook_arguments,
    playbook_command,
)


def arguments(monkeypatch: pytest.MonkeyPatch, **options: t.Any) -> list[str]:
    monkeypatch.setattr(cli, "CLIARGS", ImmutableDict(options))
    return playbook_arguments()


def test_all_that_says_how_to_log_in_goes_along_with_absolute_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.chdir(tmp_path)
    found = arguments(
        monkeypatch,
        inventory=("hosts.yml", "a1,a2,"),
        vault_ids=["dev@secret"],
        vault_password_files=["other"],
        remote_user="pbclient",
        private_key_file="key",
        become=True,
        ssh_common_args="-o X=y",
        timeout=20,
    )
    assert found == [
        f"--inventory={tmp_path}/hosts.yml",
        "--inventory=a1,a2,",
        f"--vault-id=dev@{tmp_path}/secret",
        f"--vault-password-file={tmp_path}/other",
        "--user=pbclient",
        f"--private-key={tmp_path}/key",
        "--become",
        "--ssh-common-args=-o X=y",
        "--timeout=20",
    ]


@pytest.mark.parametrize(
    "options",
    [{"ask_pass": True}, {"become_ask_pass": True}, {"ask_vault_pass": True}, {"vault_ids": ["dev@prompt"]}],
    ids=lambda options: next(iter(options)),
)
def test_prompts_are_refused(monkeypatch: pytest.MonkeyPatch, options: dict[str, t.Any]) -> None:
    with pytest.raises(NoPrompts):
        arguments(monkeypatch, **options)


def test_the_configuration_is_kept_and_its_paths_are_found_from_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "ansible.cfg"
    text = (
        "[defaults]\nroles_path = roles:/opt/roles\nlog_path = log\nforks = 50\n[ssh_connection]\npipelining = True\n"
    )
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(constants, "CONFIG_FILE", str(path))
    assert environment()["ANSIBLE_HOST_KEY_CHECKING"] == str(constants.HOST_KEY_CHECKING)
    assert environment()["ANSIBLE_STDOUT_CALLBACK"] == "default"  # whatever ansible-runner has made of ours
    written = configparser.RawConfigParser()
    written.read_string(configuration())
    assert dict(written["defaults"]) == {
        "roles_path": f"{tmp_path}/roles:/opt/roles",
        "log_path": f"{tmp_path}/log",
        "forks": "50",
        "internal_poll_interval": "0.05",
    }
    assert dict(written["ssh_connection"]) == {"pipelining": "True"}


def test_an_inventory_is_read_anew_when_it_has_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    hosts, more = tmp_path / "hosts", tmp_path / "mlist"
    hosts.write_text("[build_machines]\na1 portbuild_maxjobs=1\n", encoding="utf-8")
    monkeypatch.setattr(cli, "CLIARGS", ImmutableDict(inventory=(str(hosts),)))
    watch = InventoryWatch(DataLoader(), [str(more)])
    assert not watch.changed()
    hosts.write_text("[build_machines]\na1 portbuild_maxjobs=4\na2\n", encoding="utf-8")
    assert watch.changed()
    assert not watch.changed()
    found = watch.read()
    assert found["groups"]["build_machines"] == ["a1", "a2"]
    assert found["hostvars"]["a1"]["portbuild_maxjobs"] == 4
    more.touch()
    assert watch.changed()
    (tmp_path / "host_vars").mkdir()
    assert watch.changed()
    (tmp_path / "host_vars" / "a2").write_text("portbuild_maxjobs: 3\n", encoding="utf-8")
    assert watch.changed()
    assert watch.read()["hostvars"]["a2"]["portbuild_maxjobs"] == 3


def test_the_command_is_beside_python() -> None:
    assert os.path.basename(playbook_command()) == "ansible-playbook"
    assert os.path.exists(playbook_command())
