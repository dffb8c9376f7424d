# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Accounts on both sides: one that setup makes on a client, an ordinary user on the controller."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile
import typing as t

import pytest
import yaml

from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.integration_cluster._another import another
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import CHECKOUT, Farm, Running, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._snapshots import differences, look

#: How the new account becomes root, and what its inventory says: ansible-core has no plugin for doas.
BECOME: dict[str, dict[str, t.Any]] = {
    "sudo": {},
    "doas": {"ansible_become_exe": "doas", "ansible_become_flags": "-n", "portbuild_sudo_cmd": "doas"},
}
SSHD_CONFIG = "/etc/portbuild-test/sshd_config"


@pytest.fixture
def open_client(farm: Farm) -> t.Iterator[Client]:
    """The client that the controller reaches as root, letting in whoever has a key, as a real machine does.

    Afterwards it is set up again for the account that it belongs to.
    """
    client = farm.cluster["client1"]
    own = client.run(["cat", SSHD_CONFIG]).stdout
    lines = [line for line in own.splitlines() if not line.startswith("AllowUsers")]
    configure_sshd(client, "\n".join(lines).replace("AuthorizedKeysFile ", "AuthorizedKeysFile .ssh/authorized_keys "))
    yield client
    configure_sshd(client, own)
    farm.play("setup", "--limit", client.name).ok()


def configure_sshd(client: Client, text: str) -> None:
    client.run(["tee", SSHD_CONFIG], stdin=text)
    client.kill_sshd()
    client.start_sshd()
    wait_for(lambda: subprocess.run(client.ssh("true"), capture_output=True, check=False).returncode == 0, "sshd")


@pytest.mark.parametrize("command", sorted(BECOME))
def test_setup_makes_an_account_that_dispatches(
    idle: Farm, open_client: Client, controller_root: pathlib.Path, command: str
) -> None:
    new_user = f"pb{command}"
    new = another(idle, controller_root / f"account-{command}" / "root")
    machine = {
        "ansible_user": new_user,
        "ansible_become": True,
        "ansible_become_method": "sudo",
        "portbuild_create_client_user": True,
        "portbuild_bootstrap_user": "root",
        "portbuild_authorized_key": idle.cluster.private_key.with_suffix(".pub").read_text(encoding="ascii").strip(),
        "portbuild_sudo_rule": True,
        **BECOME[command],
    }
    inventory = new.root.parent / "inventory.json"
    inventory.write_text(json.dumps({"build_machines": {"hosts": {"client1": machine}}}), encoding="utf-8")
    arguments = ["-i", str(idle.cluster.inventory), "-i", str(inventory)]
    only = [*arguments, "--limit", "client1"]

    before = look(new)
    ended = new.play("setup", "--check", *only).ok()
    assert f"client1 would be prepared next, by {new_user}" in ended.output
    assert differences(before, look(new)) == []

    new.play("setup", *only).ok()
    assert open_client.run([command, "-n", "id", "-u"], user=new_user).stdout == "0\n"
    assert open_client.run(["stat", "-c", "%U", f"{open_client.scratch}/incoming"]).stdout == f"{new_user}\n"
    modes = open_client.run(["stat", "-c", "%a %U", f"/home/{new_user}/.ssh", f"/home/{new_user}/.ssh/authorized_keys"])
    assert modes.stdout.splitlines() == [f"700 {new_user}", f"600 {new_user}"]

    assert "changed=0 " in new.play("setup", *only).ok().output

    ended = new.dispatch("pb-null", *arguments).ok()
    assert "pb-null 1.0 was built on client1" in ended.output
    assert (new.packages / "pb-null_1.0_all.deb").exists()


def test_an_ordinary_inventory_needs_the_original_settings_only(idle: Farm, controller_root: pathlib.Path) -> None:
    inventory = yaml.safe_load(idle.cluster.inventory.read_text(encoding="utf-8"))
    hosts: dict[str, dict[str, t.Any]] = inventory["all"]["children"]["build_machines"]["hosts"]
    for variables in hosts.values():
        variables["portbuild_client_user"] = variables.pop("ansible_user")
        variables["portbuild_sudo_cmd"] = "sudo" if variables.pop("ansible_become") else ""
        variables.pop("ansible_become_method", None)
    machine = next(name for name, variables in hosts.items() if variables["portbuild_sudo_cmd"])
    path = controller_root / "original-settings.json"
    path.write_text(json.dumps(inventory), encoding="utf-8")
    arguments = ["-i", str(path)]

    assert "changed=0 " in idle.play("setup", *arguments, "--limit", machine).ok().output
    idle.adhoc(machine, "-m", "portbuild.cluster.machine_info", *arguments).ok()
    for name, variables in hosts.items():
        variables["portbuild_maxjobs"] = int(name == machine)
    path.write_text(json.dumps(inventory), encoding="utf-8")
    ended = idle.dispatch("pb-null", *arguments, check="off").ok()
    assert f"pb-null 1.0 was built on {machine}" in ended.output
    idle.play("setup").ok()  # with the number of jobs that the machines had before


class OrdinaryFarm(Farm):
    """A controller whose commands an unprivileged user runs, from directories that are this user's own."""

    ACCOUNT = "nobody"
    #: What ends with the command: its ssh masters, and the mounts that let the user reach the tests' Python.
    FENCE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

    def __init__(self, farm: Farm, home: pathlib.Path) -> None:
        self.home = home
        shutil.copyfile(farm.cluster.private_key, home / "key")
        (home / "key").chmod(0o600)
        super().__init__(another(farm, home / "root").cluster, home / "root")
        self.variables["ansible_ssh_private_key_file"] = str(home / "key")
        self.variables["ansible_control_path_dir"] = str(home)
        account = pwd.getpwnam(self.ACCOUNT)
        for path in (home, home / "key", *(path for path in home.rglob("*") if path.is_dir())):
            os.chown(path, account.pw_uid, account.pw_gid)
        self.uid = account.pw_uid

    def environment(self) -> dict[str, str]:
        own = {
            "HOME": str(self.home),
            "ANSIBLE_HOME": f"{self.home}/.ansible",
            "ANSIBLE_LOCAL_TEMP": f"{self.home}/tmp",
        }
        return {**super().environment(), **own}

    def _start(self, argv: list[str]) -> Running:
        become = ["setpriv", f"--reuid={self.ACCOUNT}", "--regid=nogroup", "--clear-groups", "--no-new-privs", "--"]
        needed = [sys.base_prefix, str(CHECKOUT), str(self.cluster.directory)]
        return super()._start([*self.FENCE, "sh", "-euc", REACH, "sh", *needed, "--", *become, *argv])


#: Make what is needed reachable for everybody, here only: a checkout or a Python may stand below somebody's closed home.
REACH = """
needed=
while [ "$1" != -- ]; do needed="$needed $1"; shift; done
shift
mount --make-rprivate /
for path in $needed; do
    top=/$(echo "$path" | cut -d/ -f2)
    [ -z "$(find "$top" -maxdepth 0 -perm -o=x)" ] || continue
    hold=$(mktemp -d)
    mount --rbind "$top" "$hold"
    mount -t tmpfs -o mode=755 tmpfs "$top"
    for other in $needed; do
        case $other in "$top"/*) mkdir -p "$other"; mount --rbind "$hold${other#"$top"}" "$other" ;; esac
    done
    umount -l "$hold"
    rmdir "$hold"
done
"$@"
"""


@pytest.fixture
def ordinary(farm: Farm) -> t.Iterator[OrdinaryFarm]:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else; the other tests run as this ordinary user already")
    with tempfile.TemporaryDirectory(prefix="portbuild-home-") as home:
        yield OrdinaryFarm(farm, pathlib.Path(home))


@pytest.mark.core_matrix
def test_an_ordinary_user_is_controller(idle: Farm, ordinary: OrdinaryFarm) -> None:
    ordinary.play("setup").ok()
    ended = ordinary.dispatch("pb-null").ok()
    assert "pb-null 1.0 was built on client1" in ended.output
    result = ordinary.packages / "pb-null_1.0_all.deb"
    assert result.stat().st_uid == ordinary.uid
    ordinary.assert_idle()
