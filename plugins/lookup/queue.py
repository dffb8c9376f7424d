# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A view of the queue: machines, who holds their slots, and what is left on them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: queue
author:
  - The portbuild.cluster authors (@portbuild)
version_added: 1.0.0
short_description: Look at the queue of build machines
description:
  - Returns for each machine in the queue directory of an arch how many jobs it runs, whether it takes more, and who
    holds its slots.
  - It only looks. Machines are claimed with M(portbuild.cluster.claim_machine).
options:
  _terms:
    description:
      - Names of machines. Without any, all machines in the queue are returned, sorted by name.
      - A machine that is not in the queue is an error.
    type: list
    elements: str
  root:
    description: The directory that holds the state of all arches on the controller.
    type: path
    required: true
    vars:
      - name: portbuild_root
  arch:
    description: The target architecture.
    type: str
    required: true
    vars:
      - name: portbuild_arch
notes:
  - A lookup in a task is evaluated anew at every use and in every iteration of a loop, so two uses may differ.
seealso:
  - module: portbuild.cluster.claim_machine
  - module: portbuild.cluster.machine_info
"""

EXAMPLES = r"""
- name: Show which machines have room
  ansible.builtin.debug:
    msg: "{{ query('portbuild.cluster.queue') | selectattr('state', 'eq', 'free') | map(attribute='machine') }}"

- name: Show who builds on one machine
  ansible.builtin.debug:
    msg: "{{ item.package }} of {{ item.branch }}, for {{ item.age | int }} seconds"
  loop: "{{ lookup('portbuild.cluster.queue', 'builder1.example.org', arch='amd64').leases }}"
"""

RETURN = r"""
_raw:
  description: The machines.
  type: list
  elements: dict
  contains:
    machine:
      description: Its name.
      type: str
      sample: builder1.example.org
    state:
      description:
        - V(free) if it takes another job, V(full) if it has as many as it may have.
        - V(offline) if it was taken out of the queue, by C(drain), because it was unreachable, or by removing its
          counter file by hand.
        - V(unusable) if its counter file does not hold a number.
      type: str
      sample: free
    jobs:
      description: How many jobs run there, RV(_raw[].ours) and RV(_raw[].foreign) together.
      type: int
      sample: 2
    ours:
      description: How many jobs were claimed by this collection.
      type: int
      sample: 2
    foreign:
      description: How many jobs others, such as old scripts, count there.
      type: int
      sample: 0
    maxjobs:
      description: How many jobs it may run at once, V(0) if that was not said yet.
      type: int
      sample: 3
    counter:
      description: What its counter file says, none if there is no such file.
      type: int
      sample: 2
    offline:
      description: Why (C(reason)), since when (C(since), seconds since 1970) and by whom (C(by)) it was taken offline.
      type: dict
      sample: {"reason": "new disk", "since": 1795334400.0, "by": "admin"}
    problems:
      description: What must be put right by hand.
      type: list
      elements: str
      sample: []
    leases:
      description: The jobs that hold a slot.
      type: list
      elements: dict
      contains: &lease
        branch:
          description: The branch.
          type: str
          sample: bookworm
        package:
          description: The package.
          type: str
          sample: hello
        token:
          description: The number of the claim.
          type: int
          sample: 17
        owner:
          description: The process that claimed it.
          type: str
          sample: process 4711 on controller
        alive:
          description: Whether this process lives.
          type: bool
          sample: true
        age:
          description: Seconds since the claim.
          type: float
          sample: 32.5
        state:
          description:
            - V(claimed) for a job with a slot.
            - V(uncollected), V(kept), V(lost) or V(orphan) for what holds none.
          type: str
          sample: claimed
        reason:
          description: Why it is held.
          type: str
          sample: ""
    held:
      description: What is left on the machine of jobs that hold no slot any more.
      type: list
      elements: dict
      contains: *lease
"""

import time
import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..module_utils._errors import PortbuildError
from ..module_utils._names import check_arch
from ..plugin_utils._lookup import own_variables
from ..plugin_utils._queue import Lease, MachineState, Queue
from ..plugin_utils._queue_files import FileQueue


def describe_lease(queue: Queue, lease: Lease, now: float) -> dict[str, t.Any]:
    """Return the lease for a reader."""
    return {
        "branch": lease.job.branch,
        "package": lease.job.package,
        "token": lease.token,
        "owner": str(lease.owner or "unknown"),
        "alive": queue.judge(lease) == "alive",
        "age": max(0.0, now - lease.claimed),
        "state": lease.state,
        "reason": lease.reason,
    }


def describe(queue: Queue, names: t.Sequence[str], now: float) -> list[dict[str, t.Any]]:
    """Return the machines of these names, all without any, as documented above."""
    machines = {machine.name: machine for machine in queue.machines()}
    unknown = [name for name in names if name not in machines]
    if unknown:
        raise PortbuildError(
            f"Not in the queue: {', '.join(unknown)}.",
            remedy=f"It has {', '.join(machines) or 'no machines'}; the setup playbook enters them.",
        )
    leases, held = queue.leases(), queue.held()

    def of(machine: MachineState, all_leases: list[Lease]) -> list[dict[str, t.Any]]:
        return [describe_lease(queue, lease, now) for lease in all_leases if lease.machine == machine.name]

    return [
        {
            "machine": machine.name,
            "state": machine.state,
            "jobs": machine.jobs,
            "ours": machine.ours,
            "foreign": machine.foreign,
            "maxjobs": machine.maxjobs,
            "counter": machine.counter,
            "offline": machine.offline,
            "problems": machine.problems,
            "leases": of(machine, leases),
            "held": of(machine, held),
        }
        for machine in (machines[name] for name in names or machines)
    ]


class LookupModule(LookupBase):
    """The lookup portbuild.cluster.queue."""

    def run(
        self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any
    ) -> list[dict[str, t.Any]]:
        self.set_options(var_options=own_variables(self._templar, variables), direct=kwargs)
        try:
            arch = check_arch(self.get_option("arch"))
            queue = FileQueue(f"{self.get_option('root')}/{arch}/queue", arch=arch)
            return describe(queue, [str(term) for term in terms], time.time())
        except PortbuildError as error:
            raise AnsibleLookupError(str(error)) from error
