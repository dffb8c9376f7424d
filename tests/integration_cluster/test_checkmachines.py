# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook checkmachines: bad machines go offline and come back, and what a person said is not undone."""

from __future__ import annotations

import json
import pathlib
import re
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._snapshots import differences, look
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import make_source, wait_for_gates

RUNNING = "check-running"


@pytest.fixture
def checked(idle: Farm) -> t.Iterator[Farm]:
    """The controller, with nothing remembered of earlier outages, and all machines in the queue again afterwards."""
    forget(idle)
    yield idle
    forget(idle)
    for client in idle.cluster.clients:
        client.boot()
        if offline(idle, client):
            idle.play("undrain", machine=client.name).ok()


def forget(farm: Farm) -> None:
    """Let the machines have a clean record."""
    for path in (farm.root / farm.arch / "loads").glob(".checks/*.json"):
        path.unlink()


def check(farm: Farm, *arguments: str, **variables: t.Any) -> Ended:
    return farm.play("checkmachines", *arguments, **variables).ok()


def offline(farm: Farm, client: Client) -> dict[str, t.Any]:
    """Return why the machine is offline."""
    path = farm.queue / ".offline" / client.name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def load(farm: Farm, client: Client) -> str:
    return (farm.root / farm.arch / "loads" / client.name).read_text(encoding="utf-8")


def changes(ended: Ended) -> int:
    return sum(int(number) for number in re.findall(r" changed=(\d+) ", ended.output))


def test_a_machine_is_lost_in_mid_build_and_comes_back(checked: Farm, tmp_path: pathlib.Path) -> None:
    farm, (client1, client2, client3) = checked, checked.cluster.clients
    make_source(tmp_path, RUNNING, gate=True)
    dispatch = farm.start("dispatch", package=RUNNING, sourcedir=str(tmp_path))
    wait_for_gates(farm.cluster, 1, [dispatch])
    assert farm.counters() == {"client1": None, "client2": 0, "client3": 0}
    assert changes(check(farm)) == 0
    assert all(
        re.fullmatch(r"\d+\.\d\d(, \d+\.\d\d){2}\n", load(farm, client)) for client in (client1, client2, client3)
    )

    dispatch.kill()
    client1.kill()
    before = look_at_files(farm)
    assert "client1 would go offline" in check(farm, "--check").output
    assert look_at_files(farm) == before
    ended = check(farm)
    assert "client1 goes offline. Machine client1 cannot be reached" in ended.output
    assert "client2 is fit" in ended.output
    assert offline(farm, client1)["by"] == "checkmachines"
    assert "cannot be reached" in offline(farm, client1)["reason"]
    assert changes(check(farm)) == 0
    farm.dispatch("pb-null").ok()
    assert [build["machine"] for build in farm.builds("pb-null")][-1] == "client2"
    assert farm.leases() == [f"client1:bookworm:{RUNNING}"]
    check(farm, reconnect_timeout="0s", lease_ttl="60s")
    assert farm.leases() == [f"client1:bookworm:{RUNNING}"]  # its time of grace is not over
    path = farm.queue / ".offline" / "client1"
    path.write_text(json.dumps({**offline(farm, client1), "since": 1.0}), encoding="utf-8")
    assert f"Given up there: {farm.arch}/bookworm/{RUNNING}." in check(farm).output
    assert farm.leases() == [f"held/client1:bookworm:{RUNNING}"]

    client1.boot()
    assert farm.chroots(client1) != []
    assert "it would be cleaned and brought back" in check(farm, "--check").output
    assert farm.chroots(client1) != []
    assert "client1 is back, with 0 jobs" in check(farm).output
    farm.assert_idle()
    assert changes(check(farm)) == 0


def look_at_files(farm: Farm) -> list[str]:
    return sorted(str(path) for path in (farm.root / farm.arch / "queue").rglob("*"))


def test_a_machine_that_was_drained_stays_so(checked: Farm) -> None:
    farm, client = checked, checked.cluster["client2"]
    before = look(farm)
    assert "would be offline" in farm.play("drain", "--check", machine="client2", reason="new disks").ok().output
    assert differences(before, look(farm)) == []
    farm.play("drain", machine="client2", reason="new disks").ok()
    assert changes(farm.play("drain", machine="client2", reason="new disks").ok()) == 0
    assert "client2 is fit, but was taken out of the queue by hand" in check(farm).output
    client.kill()
    assert changes(check(farm)) == 0
    client.boot()
    check(farm)
    record = offline(farm, client)
    assert (record["reason"], farm.counters()["client2"]) == ("new disks", None)
    assert record["by"] not in ("", "checkmachines")
    farm.play("undrain", machine="client2").ok()
    assert changes(farm.play("undrain", machine="client2").ok()) == 0
    assert farm.counters()["client2"] == 0


def test_what_makes_machines_unfit(checked: Farm) -> None:
    """A wrong clock, no Python, and a full scratch disk, all at once."""
    farm, (client1, client2, client3) = checked, checked.cluster.clients
    client1.run(["mkdir", "-p", "/srv/double"])
    # Namespaced clients share the clock: a double of it, around the client's Python, is two hours ahead.
    double = "import time\nreal = time.time\ntime.time = lambda: real() + 7200\n"
    client1.run(["tee", "/srv/double/sitecustomize.py"], stdin=double)
    client1.run(["tee", "/srv/double/python"], stdin='#!/bin/sh\nPYTHONPATH=/srv/double exec /usr/bin/python3 "$@"\n')
    client1.run(["chmod", "755", "/srv/double/python"])
    fill = "mkdir -p /srv/aside && mount --bind /srv/portbuild /srv/aside && mount -t tmpfs -o size=1m,mode=755 full /srv/portbuild"
    client3.run(["sh", "-c", f"{fill} && cp /srv/aside/portbuild.conf /srv/portbuild && mkdir /srv/portbuild/bases"])
    client3.run(["mount", "--bind", "/srv/aside/bases", "/srv/portbuild/bases"])
    client3.run(["sh", "-c", "cat /dev/zero >/srv/portbuild/filler || :"])
    unfit = farm.root.parent / "unfit.yml"
    interpreters = {"client1": "/srv/double/python", "client2": "/nonexistent/python", "client3": "/usr/bin/python3"}
    unfit.write_text(
        json.dumps({"ansible_python_interpreter": f"{{{{ {json.dumps(interpreters)}[inventory_hostname] }}}}"}),
        encoding="utf-8",
    )
    try:
        check(farm, "-e", f"@{unfit}")
        assert "Its clock is +7200 s off the controller's" in offline(farm, client1)["reason"]
        assert "It answers, but cannot run what it is to run" in offline(farm, client2)["reason"]
        assert re.search(r"Only \S+ \S+ are free in /srv/portbuild|No space left", offline(farm, client3)["reason"])
        assert set(farm.counters().values()) == {None}
        farm.dispatch("pb-null", claim_timeout="1s").fails(
            "client1 is offline", "client2 is offline", "client3 is offline"
        )
    finally:
        unfit.unlink()
        client3.run(["sh", "-c", "umount /srv/portbuild/bases /srv/portbuild /srv/aside && rmdir /srv/aside"])
        client1.run(["rm", "-r", "/srv/double"])
    check(farm)
    farm.assert_idle()


def test_a_machine_freezes_and_delays_nobody(checked: Farm) -> None:
    farm, client = checked, checked.cluster["client3"]
    client.freeze()
    try:
        ended = check(farm, check_timeout="12s")  # the others may need some of it on a busy host
    finally:
        client.thaw()
    assert ended.seconds < 60
    assert "client1 is fit" in ended.output
    assert "client2 is fit" in ended.output
    assert "client3 goes offline" in ended.output
    assert "client3 is back" in check(farm).output


def test_two_checks_at_once(checked: Farm) -> None:
    farm, client = checked, checked.cluster["client1"]
    client.kill()
    for state in ("goes offline", "is back"):
        rounds = [farm.start("checkmachines") for _number in range(2)]
        outputs = [ended.end().ok().output for ended in rounds]
        assert sum(f"client1 {state}" in output for output in outputs) == 1, outputs
        client.boot()
    assert farm.counters() == {"client1": 0, "client2": 0, "client3": 0}
    history = json.loads((farm.root / farm.arch / "loads" / ".checks" / "client1.json").read_text(encoding="utf-8"))
    assert history["outages"] == 1


def test_a_machine_proves_itself(checked: Farm) -> None:
    farm, client = checked, checked.cluster["client1"]
    client.kill()
    check(farm)
    client.boot()
    ended = check(farm, canary="pb-fails")
    assert "it is to build pb-fails" in ended.output
    assert "client1 stays offline. It could not build pb-fails" in ended.output
    assert "could not build pb-fails" in offline(farm, client)["reason"]
    assert "client1 answers again, but was lost 2 times lately" in check(farm, canary="pb-null").output
    forget(farm)
    ended = check(farm, canary="pb-null")
    assert "client1 is back, with 0 jobs" in ended.output
    assert farm.builds("pb-null")[-1]["machine"] == "client1"
    farm.assert_idle()


def test_it_goes_on_in_rounds(checked: Farm) -> None:
    running = checked.start("checkmachines", interval="1s")
    try:
        wait_for(lambda: running.output().count("client1 is fit") >= 2, "the second round", 180)
    finally:
        running.kill()


def test_a_package_is_held(checked: Farm) -> None:
    checked.play("hold", package="pb-null", reason="its tests eat the disk").ok()
    try:
        checked.dispatch("pb-null").fails("pb-null is held by", "its tests eat the disk", "unhold playbook")
    finally:
        checked.play("unhold", package="pb-null").ok()
    assert changes(checked.play("unhold", package="pb-null").ok()) == 0
