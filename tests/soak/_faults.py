# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can happen to a cluster. Each fault hurts something and says how it is healed, which is done some time later."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import random
import re
import signal
import sqlite3
import typing as t

from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, Running
from ansible_collections.portbuild.cluster.tests.integration_cluster._killing import children, kill

Heal = t.Callable[[], object]


class Hurt(t.NamedTuple):
    """What a fault did, what it keeps from being hurt meanwhile, and how long until it is healed, if it must be.

    What could not be healed says False, and is tried again.
    """

    text: str
    part: str = ""
    seconds: float = 0.0
    heal: Heal | None = None


@dataclasses.dataclass
class Ground:
    """What faults happen to."""

    farm: Farm
    rng: random.Random
    packages: t.Sequence[str]  # that anybody may dispatch
    running: dict[str, Running] = dataclasses.field(default_factory=dict)  # playbooks, by a name for each
    hurt: set[str] = dataclasses.field(default_factory=set)  # parts that wait to be healed

    def whole(self, *parts: str) -> bool:
        """Whether nothing is wrong with these."""
        return self.hurt.isdisjoint(parts)

    def client(self) -> Client | None:
        """Return one of the clients to which nothing has happened that is not healed; one stays whole at all times."""
        clients = [client for client in self.farm.cluster.clients if self.whole(client.name)]
        return self.rng.choice(clients) if len(clients) > 1 else None


# -- the controller's processes ----------------------------------------------------------------------------------------


def kill_bulk(ground: Ground) -> Hurt | None:
    """Kill the bulk build: ansible-playbook, the run's own process, one dispatch, or all at once."""
    running = ground.running.get("bulk")
    if running is None or running.process.poll() is not None:
        return None
    whom = ground.rng.choice(("main", "child", "dispatch", "everything"))
    kill(running, whom)
    return Hurt(f"the bulk build is killed: {whom}")


def kill_a_process(ground: Ground) -> Hurt | None:
    """Kill one process of one playbook, whichever it is: a worker, an ssh, a dispatch, itself."""
    alive = sorted(name for name, running in ground.running.items() if running.process.poll() is None)
    if not alive:
        return None
    name = ground.rng.choice(alive)
    pid = ground.rng.choice(sorted(children(ground.running[name].pid)))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return Hurt(f"process {pid} of {name} is killed")


def end_bulk(ground: Ground) -> Hurt | None:
    """Send the bulk build a signal as a person, or the system that goes down, does."""
    running = ground.running.get("bulk")
    if running is None or running.process.poll() is not None:
        return None
    number = ground.rng.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    running.process.send_signal(number)
    return Hurt(f"the bulk build gets {number.name}")


def run_beside(ground: Ground) -> Hurt | None:
    """Let somebody run another playbook at the same time."""
    playbook = ground.rng.choice(("cleanup", "checkmachines", "dispatch", "status", "doctor"))
    name = f"{playbook} beside"
    if name in ground.running:
        return None
    package = ground.rng.choice(ground.packages) if playbook == "dispatch" else ""
    wanted = {"package": package, "claim_timeout": "20s"} if package else {}
    ground.running[name] = ground.farm.start(playbook, **wanted)
    return Hurt(f"somebody runs {playbook} {package}".rstrip())


# -- the controller's files --------------------------------------------------------------------------------------------


def hold_the_lock(ground: Ground) -> Hurt | None:
    """Hold the queue's lock, as an old script or an administrator's shell does."""
    if not ground.whole("lock"):
        return None
    stream = open(ground.farm.queue / ".lock", "a", encoding="ascii")  # noqa: SIM115  closed when it is healed
    fcntl.flock(stream, fcntl.LOCK_EX)
    return Hurt("the queue is locked", "lock", ground.rng.uniform(1, 6), stream.close)


def lock_the_database(ground: Ground) -> Hurt | None:
    """Hold the branch's database, as a backup does."""
    if not ground.whole("database"):
        return None
    database = sqlite3.connect(ground.farm.branch_directory / "portbuild.sqlite", timeout=5, isolation_level=None)
    try:
        database.execute("begin immediate")
    except sqlite3.OperationalError:
        database.close()
        return None
    return Hurt("the database is locked", "database", ground.rng.uniform(1, 6), database.close)


def fill_the_controller(ground: Ground) -> Hurt | None:
    """Have the controller ask for more free space than there is."""
    if not ground.whole("conf"):
        return None
    path = ground.farm.queue.parent / "portbuild.conf"
    before = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"^min_free=.*$", "min_free=1000T", before, flags=re.MULTILINE), encoding="utf-8")
    return Hurt("the controller's disk is full", "conf", ground.rng.uniform(1, 8), lambda: path.write_text(before))


def save_half_the_inventory(ground: Ground) -> Hurt | None:
    """Save half of the inventory, as an editor or a network file system may."""
    if not ground.whole("inventory"):
        return None
    path = ground.farm.cluster.inventory
    before = path.read_text(encoding="utf-8")
    path.write_text(before[: ground.rng.randrange(len(before))], encoding="utf-8")
    return Hurt(
        "half of the inventory is saved", "inventory", ground.rng.uniform(0.5, 3), lambda: path.write_text(before)
    )


# -- machines ----------------------------------------------------------------------------------------------------------


def reboot(ground: Ground) -> Hurt | None:
    """Cut a machine's power for a while."""
    client = ground.client()
    if client is None:
        return None
    client.kill()
    return Hurt(f"{client.name} loses its power", client.name, ground.rng.uniform(0.5, 8), client.boot)


def freeze(ground: Ground) -> Hurt | None:
    """Freeze a machine, now and then for longer than anybody waits for it."""
    client = ground.client()
    if client is None:
        return None
    client.freeze()
    seconds = ground.rng.choice((ground.rng.uniform(0.5, 4), ground.rng.uniform(20, 40)))
    return Hurt(f"{client.name} freezes for {seconds:.0f} s", client.name, seconds, client.thaw)


def cut_ssh(ground: Ground) -> Hurt | None:
    """Kill a machine's sshd with all its connections."""
    client = ground.client()
    if client is None:
        return None
    client.kill_sshd()
    return Hurt(f"{client.name} has no sshd", client.name, ground.rng.uniform(0, 5), client.start_sshd)


def kill_a_supervisor(ground: Ground) -> Hurt | None:
    """Kill one of the processes that watch builds."""
    client = ground.client()
    found = (
        [process for process in client.processes() if "portbuild-supervisor" in " ".join(process.argv)]
        if client
        else []
    )
    if client is None or not found:
        return None
    process = ground.rng.choice(found)
    client.run(["kill", "-KILL", str(process.pid)], check=False)
    return Hurt(f"a supervisor on {client.name} is killed: {process.argv[-1]}")


def fill_a_disk(ground: Ground) -> Hurt | None:
    """Leave a machine no room for chroots; those that it has are out of sight meanwhile."""
    client = ground.client()
    if client is None:
        return None
    chroots = f"{client.scratch}/chroots"
    client.run(["mount", "-t", "tmpfs", "-o", "size=4m", "full", chroots])
    return Hurt(
        f"{client.name} has no room",
        client.name,
        ground.rng.uniform(1, 8),
        lambda: client.run(["umount", "-l", chroots]),
    )


def drain(ground: Ground) -> Hurt | None:
    """Take a machine out of service, and bring it back."""
    client = ground.client()
    if client is None or not ground.whole("inventory"):
        return None
    done = ground.farm.play("drain", machine=client.name, reason="soak")
    if done.status:
        return Hurt(f"{client.name} cannot be drained now")
    return Hurt(
        f"{client.name} is drained", client.name, ground.rng.uniform(1, 6), lambda: undrain(ground.farm, client)
    )


def undrain(farm: Farm, client: Client) -> bool:
    """Bring the machine back; say whether that worked."""
    return farm.play("undrain", machine=client.name).status == 0


FAULTS: dict[t.Callable[[Ground], Hurt | None], int] = {
    kill_bulk: 2,
    kill_a_process: 4,
    end_bulk: 1,
    run_beside: 3,
    hold_the_lock: 1,
    lock_the_database: 1,
    fill_the_controller: 1,
    save_half_the_inventory: 1,
    reboot: 2,
    freeze: 1,
    cut_ssh: 2,
    kill_a_supervisor: 3,
    fill_a_disk: 1,
    drain: 1,
}
