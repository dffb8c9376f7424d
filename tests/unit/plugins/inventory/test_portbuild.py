# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An original directory as an inventory, as ansible-inventory itself sees it."""

from __future__ import annotations

import collections.abc as c
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
from ansible.plugins.become.sudo import BecomeModule

from ansible_collections.portbuild.cluster.plugins.plugin_utils import _inventory
from ansible_collections.portbuild.cluster.plugins.plugin_utils._inventory import connection_variables

COLLECTIONS = pathlib.Path(_inventory.__file__).parents[5]

CONF = """\
scratchpart=/x
scratchdir=${scratchpart}/tmp   # where chroots are
client_user=root
sudo_cmd=
maxjobs=3
mailto=ports@example.org
"""


class Read(t.NamedTuple):
    """What came of a directory."""

    source: pathlib.Path
    hosts: list[str]
    groups: dict[str, t.Any]
    variables: dict[str, dict[str, t.Any]]
    warnings: list[str]


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ansible-core with this collection."""
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_NOCOLOR": "1",
        "COLUMNS": "9999",
    }
    argv = [sys.executable, "-m", f"ansible.cli.{command}", *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def read(tmp_path: pathlib.Path) -> c.Callable[..., Read]:
    def read_it(more: str = "", **files: str) -> Read:
        directory = tmp_path / "root" / "amd64"
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in {"mlist": "b10\nb1\nb2\n", "conf": CONF, **files}.items():
            (directory / ("mlist" if name == "mlist" else f"portbuild.{name}")).write_text(text, encoding="utf-8")
        source = tmp_path / "portbuild.yml"
        source.write_text(f"plugin: portbuild.cluster.portbuild\nroot: root\narch: amd64\n{more}")
        result = run("inventory", "-i", str(source), "--list")
        found = json.loads(result.stdout)
        warnings = [
            line.removeprefix("[WARNING]: ") for line in result.stderr.splitlines() if line.startswith("[WARNING]: ")
        ]
        variables = found.pop("_meta")["hostvars"]
        return Read(source, found.get("build_machines", {}).get("hosts", []), found, variables, warnings)

    return read_it


def test_order_and_settings(read: c.Callable[..., Read]) -> None:
    found = read(b1="client_user=ports\nsudo_cmd=sudo\nmaxjobs=1\n", more="branch: 14\n")
    assert found.hosts == ["b10", "b1", "b2"]
    assert found.warnings == []
    b10, b1 = found.variables["b10"], found.variables["b1"]
    assert (b10["ansible_user"], b10["ansible_become"], b10["portbuild_maxjobs"]) == ("root", False, 3)
    assert "ansible_become_method" not in b10
    assert (b1["ansible_user"], b1["ansible_become"], b1["portbuild_maxjobs"]) == ("ports", True, 1)
    assert (b1["ansible_become_method"], b1["ansible_become_exe"]) == ("ansible.builtin.sudo", "sudo")
    assert b1["portbuild_scratchdir"] == "/x/tmp"
    assert b1["portbuild_mail_to"] == ["ports@example.org"]
    assert (b1["portbuild_arch"], b1["portbuild_branch"]) == ("amd64", "14")
    assert b1["portbuild_root"].endswith("/root")


def test_problems_are_warnings_with_their_place(read: c.Callable[..., Read]) -> None:
    found = read(
        mlist="b1\nb1\nb 3\n-x\nb2\n",
        conf=CONF + "max_jobs=2\nreboot\n",
        b1="maxjobs=many\n",
        b2="client_user=ports\n",
    )
    assert found.hosts == ["b1", "b2"]
    places = [warning.partition(": ")[0].rpartition("/")[2] for warning in found.warnings]
    assert places == ["mlist:2", "mlist:3", "mlist:4", "portbuild.conf:8", "portbuild.conf", "portbuild.b1:1", "amd64"]
    assert "portbuild_maxjobs" not in found.variables["b1"]


def test_nothing_is_run_or_templated(read: c.Callable[..., Read], tmp_path: pathlib.Path) -> None:
    trap = tmp_path / "ran"
    text = f"{{{{ lookup('pipe', 'touch {trap}') }}}}"
    found = read(conf=f'scratchdir="/{text}"\nmaxjobs=$(touch {trap})\ntouch {trap}\n')
    assert found.variables["b1"]["portbuild_scratchdir"] == {"__ansible_unsafe": f"/{text}"}
    shown = run(
        "adhoc", "-i", str(found.source), "localhost", "-m", "debug", "-a", "msg={{ hostvars.b1.portbuild_scratchdir }}"
    )
    assert "lookup('pipe'" in shown.stdout
    assert not trap.exists()


def test_constructed(read: c.Callable[..., Read]) -> None:
    found = read(
        more="compose:\n  ansible_host: inventory_hostname ~ '.example.org'\nkeyed_groups:\n  - key: inventory_hostname[:2]\n"
    )
    assert found.variables["b1"]["ansible_host"] == {"__ansible_unsafe": "b1.example.org"}
    assert found.groups["_b1"]["hosts"] == ["b10", "b1"]


@pytest.mark.parametrize(
    ("sudo_cmd", "exe", "flags"),
    [
        ("sudo", "sudo", "-H -n"),
        ("sudo -n", "sudo", "-H -n"),
        ("/usr/local/bin/sudo -Hn", "/usr/local/bin/sudo", "-Hn"),
        ("doas", "doas", "-n"),
        ("/usr/bin/doas -n", "/usr/bin/doas", "-n"),
    ],
)
def test_become(sudo_cmd: str, exe: str, flags: str) -> None:
    found = connection_variables("ports", sudo_cmd)
    assert (found["ansible_become"], found["ansible_become_exe"], found["ansible_become_flags"]) == (True, exe, flags)


def test_the_sudo_plugin_makes_a_command_for_doas() -> None:
    """ansible-core has no become plugin for doas: this is what makes ours hold."""
    plugin = BecomeModule()
    plugin._options = {"become_pass": None, "sudo_chdir": None}
    for name, value in connection_variables("ports", "doas").items():
        plugin._options[name.removeprefix("ansible_")] = value

    class Shell:
        ECHO = "echo"
        COMMAND_SEP = ";"
        SHELL_FAMILY = "sh"
        executable = "/bin/sh"

    assert plugin.build_become_command("true", Shell()).split()[:5] == ["doas", "-n", "-u", "root", "/bin/sh"]


def test_no_directory(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "portbuild.yaml"
    source.write_text("plugin: portbuild.cluster.portbuild\nroot: /nowhere\narch: amd64\n")
    result = run("inventory", "-i", str(source), "--list")
    assert "There is no /nowhere/amd64/mlist." in result.stderr
