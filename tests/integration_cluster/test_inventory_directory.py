# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An original directory (mlist, portbuild.conf, portbuild.MACHINE) is all the inventory that a controller needs."""

from __future__ import annotations

import json
import pathlib
import re
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._another import another
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm, SOURCES

CONF = """\
#!/bin/sh
# How things are at this site. The old scripts read this file too.
base=/srv
scratchdir=${{base}}/portbuild      # the same on all machines
client_user=pbclient
sudo_cmd="sudo -n"
system=debian
maxjobs=2
chroot_backend=directory
sourcedir="{sources}"
min_free=100M
machine_min_free='200M'
"""
CONF_OF_CLIENT1 = """\
client_user=root
sudo_cmd=""
maxjobs=1
chroot_backend=auto
"""
ANSIBLE_CFG = """\
[defaults]
inventory = {inventory}
remote_port = {cluster.port}
private_key_file = {cluster.private_key}
interpreter_python = /usr/bin/python3
home = {home}
local_tmp = {home}/tmp

[ssh_connection]
ssh_common_args = -F /dev/null -o IdentitiesOnly=yes -o UserKnownHostsFile={cluster.known_hosts}
control_path_dir = {cluster.control_path_dir}
"""


class DirectoryFarm(Farm):
    """A controller that is told nothing but where its directory is."""

    def __init__(self, farm: Farm, root: pathlib.Path) -> None:
        super().__init__(another(farm, root).cluster, root)
        self.variables = {"portbuild_branch": self.branch}
        self.config = root.parent / "ansible.cfg"
        directory = root / self.arch
        (directory / "mlist").write_text("client3\n# client9 is being repaired\nclient1\n\nclient2\n", encoding="ascii")
        (directory / "portbuild.conf").write_text(CONF.format(sources=SOURCES), encoding="utf-8")
        (directory / "portbuild.client1").write_text(CONF_OF_CLIENT1, encoding="ascii")
        (directory / "portbuild.client2").write_text("chroot_backend=tmpfs\n", encoding="ascii")
        (directory / "portbuild.client3").write_text("maxjobs=3\n", encoding="ascii")
        addresses = {client.name: client.address for client in self.cluster.clients}
        source = {
            "plugin": "portbuild.cluster.portbuild",
            "root": "root",
            "arch": self.arch,
            "compose": {"ansible_host": f"{addresses}[inventory_hostname]"},  # the names are in nobody's DNS
        }
        inventory = root.parent / "portbuild.yml"
        inventory.write_text(json.dumps(source), encoding="utf-8")
        home = self.cluster.directory / "ansible"
        text = ANSIBLE_CFG.format(inventory=inventory, cluster=self.cluster, home=home)
        self.config.write_text(text, encoding="utf-8")

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "ANSIBLE_CONFIG": str(self.config)}

    def prefer(self, *machines: str) -> None:
        (self.root / self.arch / "mlist").write_text("".join(f"{name}\n" for name in machines), encoding="ascii")


@pytest.fixture(scope="module")
def directory_farm(farm: Farm, controller_root: pathlib.Path) -> DirectoryFarm:
    new = DirectoryFarm(farm, controller_root / "directory" / "root")
    ended = new.play("setup").ok()
    # The same accounts, backends and directories as in the inventory of the test bed: there is nothing to do.
    told = section(ended, "Prepare the machine")
    assert sorted(re.findall(r"^(\w+): \[(\w+)\]", told, re.MULTILINE)) == [
        ("ok", client.name) for client in farm.cluster.clients
    ]
    return new


def section(ended: Ended, task: str) -> str:
    """Return what was printed of the task."""
    return ended.output.partition(f": {task}]")[2].partition("\nTASK")[0]


def built_on(ended: Ended) -> str:
    found = re.search(r"pb-null 1\.0 was built on (\w+)", ended.ok().output)
    assert found, ended.output
    return found[1]


@pytest.mark.core_matrix
def test_the_best_machine_of_mlist_builds(idle: Farm, directory_farm: DirectoryFarm) -> None:
    assert built_on(directory_farm.dispatch("pb-null")) == "client3"
    directory_farm.prefer("client2", "client3", "client1")
    assert built_on(directory_farm.dispatch("pb-null")) == "client2"
    directory_farm.prefer("client1")
    ended = directory_farm.dispatch("pb-null")
    assert built_on(ended) == "client1"
    logins = {client.name: login(client.run(["cat", "/var/log/sshd.log"]).stdout) for client in idle.cluster.clients}
    assert logins == {"client1": {"root"}, "client2": {"pbclient"}, "client3": {"pbclient"}}
    directory_farm.assert_idle()


def login(log: str) -> set[str]:
    """Return who was let in, apart from accounts that other tests made."""
    return set(re.findall(r"Accepted publickey for (root|pbclient) ", log))


def test_machines_answer_ad_hoc(directory_farm: DirectoryFarm) -> None:
    directory_farm.prefer("client3", "client1", "client2")
    ended = directory_farm.adhoc("build_machines", "-m", "portbuild.cluster.machine_info", "-f", "1").ok()
    assert re.findall(r"^(\w+) \| SUCCESS", ended.output, re.MULTILINE) == ["client3", "client1", "client2"]
    for client, backend, maxjobs in (
        ("client1", "overlay|directory", 1),
        ("client2", "tmpfs", 2),
        ("client3", "directory", 3),
    ):
        told = facts(ended, client)
        assert told["fit"] is True
        assert told["unfit"] == []
        assert told["maxjobs"] == maxjobs
        assert re.fullmatch(backend, told["backend"]["chosen"])
        assert told["summary"][0] == f"{client} is fit."
        assert f"0 of {maxjobs} jobs" in " ".join(told["summary"])
        assert len(told["load"]) == 3
        assert told["cores"] > 0
        assert abs(told["clock_offset"]) < 5
        assert bindist_sha256(directory_farm) in [base["sha256"] for base in told["bases"]]


def facts(ended: Ended, host: str) -> t.Any:
    text = ended.output.partition(f"{host} | SUCCESS => ")[2]
    return json.JSONDecoder().raw_decode(text)[0]


def bindist_sha256(farm: Farm) -> str:
    text = (farm.branch_directory / "tarballs" / "bindist.json").read_text(encoding="utf-8")
    return str(json.loads(text)["sha256"])


def test_the_lookup_shows_the_queue(directory_farm: DirectoryFarm) -> None:
    show = "{{ query('portbuild.cluster.queue') | items2dict(key_name='machine', value_name='maxjobs') }}"
    ended = directory_farm.adhoc("localhost", "-m", "ansible.builtin.debug", "-a", json.dumps({"msg": show})).ok()
    assert facts(ended, "localhost")["msg"] == {"client1": 1, "client2": 2, "client3": 3}
    one = "{{ (lookup('portbuild.cluster.queue', 'client2')).state }}"
    ended = directory_farm.adhoc("localhost", "-m", "ansible.builtin.debug", "-a", json.dumps({"msg": one})).ok()
    assert facts(ended, "localhost")["msg"] == "free"
