#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_info
short_description: Tell how a build machine is, and what makes it unfit
version_added: 1.0.0
description:
  - Load averages, cores, memory, free space, jobs and chroots with owner and age, bindists, chroot backends, clock,
    and what makes the machine unfit to build, if anything.
  - Needs no argument. What is not given is taken from the C(portbuild_) variables or, without a controller, from what
    the setup playbook wrote down on the machine.
  - Needs root on the machine to say everything.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
  - portbuild.cluster.lease.scratchdir
attributes:
  check_mode:
    support: full
    description: Changes nothing anyway.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  maxjobs:
    description: How many jobs the machine may run at once.
    type: int
  client_user:
    description: The account that the controller logs in as.
    type: str
  backend:
    description: The chroot backend that is wanted.
    type: str
    choices: [auto, overlay, zfs, tmpfs, directory]
  bases:
    description: The SHA-256 of each bindist that must be on the machine.
    type: list
    elements: str
    default: []
  trees:
    description: The SHA-256 of the tarball of each tree that must be on the machine.
    type: list
    elements: str
    default: []
  min_free:
    description: With less free space than this many bytes in O(scratchdir) the machine is unfit.
    type: int
    default: 1073741824
  last_lines:
    description: Whether jobs whose builds run are told with C(last_line), the last line of their logs.
    type: bool
    default: false
seealso:
  - module: portbuild.cluster.cleanup
"""

EXAMPLES = r"""
---
# ansible build_machines -m portbuild.cluster.machine_info

- name: Look at the machine
  portbuild.cluster.machine_info:
  register: machine

- name: Say what is wrong with it
  ansible.builtin.debug:
    var: machine.unfit
"""

RETURN = r"""
summary:
  description: The facts as lines for a person.
  returned: success
  type: list
  elements: str
  sample:
    - a1 is fit.
    - Load 0.12 0.30 0.28 on 8 cores; 14.1 GiB of 15.6 GiB memory available.
fit:
  description: Whether the machine can build.
  returned: success
  type: bool
  sample: true
unfit:
  description: What keeps the machine from building, a sentence each.
  returned: success
  type: list
  elements: str
  sample: []
problems:
  description: The sentences of RV(unfit) that the machine knows itself, by what they are about.
  returned: success
  type: dict
  sample: {}
uid:
  description: The user id that the module ran as; V(0) is needed to see, and to do, everything.
  returned: success
  type: int
  sample: 0
hostname:
  description: What the machine calls itself.
  returned: success
  type: str
  sample: a1
system:
  description: Operating system, release and hardware.
  returned: success
  type: str
  sample: Linux 6.1.0-18-amd64 x86_64
python:
  description: The version of the Python that runs modules.
  returned: success
  type: str
  sample: 3.11.2
boot_id:
  description: What identifies this boot of the machine.
  returned: success
  type: str
  sample: 3e3acd3a-d0b9-41eb-a3a6-272b64173c07
clock:
  description: The machine's clock, in seconds since 1970 and as UTC.
  returned: success
  type: dict
  sample: {seconds: 1763797000.25, utc: '2025-11-22 07:36:40'}
clock_offset:
  description: How many seconds the machine's clock is ahead of the controller's; C(0) if the time that the question took explains it.
  returned: when run by the controller
  type: float
  sample: 0.0
load:
  description: The load averages of 1, 5 and 15 minutes.
  returned: success
  type: list
  elements: float
  sample: [0.12, 0.3, 0.28]
cores:
  description: How many processors there are.
  returned: success
  type: int
  sample: 8
memory:
  description: Bytes of memory in all and available.
  returned: success
  type: dict
  sample: {total: 16777216000, available: 15032385536}
scratch:
  description: The scratch directory, with total and free bytes and free inodes (V(-1) where they are made as needed).
  returned: success
  type: dict
  sample: {path: /var/portbuild, total: 270582939648, free: 85899345920, free_inodes: 16336521}
trash:
  description: How many removals have not been finished.
  returned: success
  type: int
  sample: 0
maxjobs:
  description: How many jobs the machine may run, V(none) if that is not known.
  returned: success
  type: int
  sample: 2
jobs:
  description: The chroots that hold a slot.
  returned: success
  type: list
  elements: dict
  sample:
    - arch: debian-amd64
      branch: bookworm
      package: hello
      state: started
      running: true
      phase: build
      token: 17
      queue: 3f0c9b1e5d7a4c62
      age: 12
chroots:
  description: All other chroots. Those that were left for debugging say by which command to enter them.
  returned: success
  type: list
  elements: dict
  sample: []
strays:
  description: What stands where chroots should be, and is none.
  returned: success
  type: list
  elements: dict
  sample: []
bases:
  description: The bindists on the machine, by the SHA-256 of their tarballs.
  returned: success
  type: list
  elements: dict
  sample:
    - sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
      path: /var/portbuild/bases/2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
      bytes: 467353600
      problem: ""
      installed: 1763797000.0
trees:
  description: The trees on the machine, by the SHA-256 of their tarballs.
  returned: success
  type: list
  elements: dict
  sample: []
backend:
  description: Which chroot backend is taken, why not each other, and why none if there is none.
  returned: success
  type: dict
  sample:
    chosen: overlay
    wanted: auto
    others:
      directory: usable, but overlay is preferred
      tmpfs: 'usable, but takes memory: only when asked for'
    problem: ''
memory_control:
  description: What limits the memory of builds, V(cgroup2), V(cgroup1) or V(none).
  returned: success
  type: str
  sample: cgroup2
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._machine import MIN_FREE, survey, Wishes
from ..module_utils._modules import failing_properly, SCRATCH_ARGUMENT
from ..module_utils._names import BACKENDS, check_sha256

ARGUMENTS: dict[str, t.Any] = {
    "scratchdir": SCRATCH_ARGUMENT,
    "maxjobs": {"type": "int"},
    "client_user": {"type": "str"},
    "backend": {"type": "str", "choices": ["auto", *BACKENDS]},
    "bases": {"type": "list", "elements": "str", "default": []},
    "trees": {"type": "list", "elements": "str", "default": []},
    "min_free": {"type": "int", "default": MIN_FREE},
    "last_lines": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    with failing_properly(module):
        wishes = Wishes(
            scratch=params["scratchdir"],
            maxjobs=params["maxjobs"],
            client_user=params["client_user"],
            backend=params["backend"],
            bases=tuple(check_sha256(base) for base in params["bases"]),
            trees=tuple(check_sha256(tree) for tree in params["trees"]),
            min_free=params["min_free"],
            last_lines=params["last_lines"],
        )
        module.exit_json(changed=False, **survey(wishes))


if __name__ == "__main__":
    main()
