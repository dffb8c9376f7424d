# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The test bed itself: clients are machines of their own, can be hurt, and leave nothing."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Client, ClientSpec, Cluster, ClusterError
from ansible_collections.portbuild.cluster.tests.tools.leftovers import Snapshot

LONELY = (ClientSpec("lonely", login="pbclient", scratch_size=50 << 20),)


@pytest.fixture(scope="module")
def lonely(new_cluster: t.Callable[..., Cluster]) -> t.Iterator[Client]:
    """A client that a test may do anything to."""
    with new_cluster("bed", clients=LONELY) as cluster:
        yield cluster["lonely"]


def over_ssh(client: Client, *argv: str, seconds: int = 10) -> str:
    """Return what the command prints, or how ssh ended."""
    command = ["timeout", str(seconds), *client.ssh(*argv)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"status {done.returncode}"


@pytest.mark.core_matrix
def test_each_client_is_a_machine_of_its_own(cluster: Cluster) -> None:
    seen = {over_ssh(client, "hostname; cat /proc/sys/kernel/random/boot_id") for client in cluster.clients}
    assert len(seen) == len(cluster.clients)
    for client in cluster.clients:
        assert over_ssh(client, "hostname; sudo -n id -u; id -un").split() == [client.name, "0", client.spec.login]
        assert client.run(["findmnt", "-n", "-o", "FSTYPE", "-T", "/srv"]).stdout.strip() not in ("tmpfs", "overlay")


def test_ansible_reaches_them_in_order(cluster: Cluster) -> None:
    listing = ["ansible", "build_machines", "-m", "ansible.builtin.ping", "-o", "--forks", "1"]
    done = subprocess.run(
        listing, env={**os.environ, **cluster.environment()}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["client1", "client2", "client3"]


def test_accounts_and_files_stay_inside(lonely: Client) -> None:
    lonely.run(["useradd", "visitor"])
    lonely.run(["touch", "/tmp/inside", "/root/inside", "/run/inside"])
    assert "visitor" not in pathlib.Path("/etc/passwd").read_text(encoding="utf-8")
    assert not any(pathlib.Path(place, "inside").exists() for place in ("/tmp", "/run"))


def test_power_fails_and_returns(lonely: Client) -> None:
    boot_id = over_ssh(lonely, "cat /proc/sys/kernel/random/boot_id; touch kept /tmp/lost")
    lonely.spawn(["sleep", "1000"])
    lonely.kill()
    assert lonely.processes() == []
    assert over_ssh(lonely, "true") == "status 255"
    with pytest.raises(ClusterError, match="lonely is down"):
        lonely.run(["true"])
    lonely.boot()
    assert over_ssh(lonely, "cat /proc/sys/kernel/random/boot_id") != boot_id
    assert over_ssh(lonely, "ls kept") == "kept"
    assert over_ssh(lonely, "ls /tmp") == ""
    assert not any("sleep" in process.argv for process in lonely.processes())


def test_sshd_goes_and_what_runs_stays(lonely: Client) -> None:
    with subprocess.Popen(
        lonely.ssh("setsid sleep 1000"), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as login:
        wait_for(lambda: sleepers(lonely) == 1)
        lonely.kill_sshd()
        assert login.wait(timeout=10) == 255
    assert over_ssh(lonely, "true") == "status 255"
    assert sleepers(lonely) == 1
    lonely.start_sshd()
    assert over_ssh(lonely, "pkill sleep; hostname") == "lonely"


def test_a_frozen_client_hangs(lonely: Client) -> None:
    lonely.freeze()
    assert over_ssh(lonely, "true", seconds=2) == "status 124"
    lonely.thaw()
    assert over_ssh(lonely, "hostname") == "lonely"


def test_mounts_in_other_namespaces_are_seen(lonely: Client) -> None:
    script = "mkdir -p /srv/m && mount -t tmpfs none /srv/m && sleep 1000"
    lonely.spawn(["unshare", "--mount", "sh", "-c", script])
    wait_for(lambda: [mount.point for mount in lonely.mounts("/srv")] == ["/srv/m"])
    lonely.run(["pkill", "sleep"])
    wait_for(lambda: lonely.mounts("/srv") == [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_owner_takes_its_clients_along(tmp_path: pathlib.Path, number: int) -> None:
    directory = tmp_path / "killed"
    before = Snapshot.take(directory)
    owner = f"""
        import time
        from ansible_collections.portbuild.cluster.tests.cluster import ClientSpec, Cluster

        Cluster.start({str(directory)!r}, [ClientSpec("orphan")])
        print("started", flush=True)
        time.sleep(100)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(owner)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "started\n"
        with pytest.raises(ClusterError, match="A running process holds"):
            Cluster.start(directory)
        process.send_signal(number)
    cluster = Cluster.load(directory)
    assert cluster
    wait_for(lambda: not cluster.running())
    with Cluster.start(directory, [ClientSpec("successor")]) as successor:
        assert over_ssh(successor.clients[0], "hostname") == "successor"
    assert Snapshot.take(directory).compared_to(before) == []
    assert not directory.exists()


def sleepers(client: Client) -> int:
    """Return how many processes sleep."""
    return sum(process.argv[:1] == ["sleep"] for process in client.processes())


def wait_for(condition: t.Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
