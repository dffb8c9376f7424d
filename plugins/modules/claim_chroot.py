#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: claim_chroot
short_description: Claim a clean chroot for a package on a build machine
version_added: 1.0.0
description:
  - Makes the directory of the job on the build machine, in one step, marks it with the job and the token of its lease, and prepares it to be built in.
  - Asked again for the same job it returns the same chroot, marked with the newer token. A build that runs in it is left alone;
    results of a build that ended are kept, so that they can be collected; what is left of an attempt that came to nothing is thrown away,
    and so is what was recorded before.
  - A token older than that of the marker is refused, and so is the chroot of another controller's queue.
  - Counts the chroots of all architectures on the machine, and refuses to make more than O(maxjobs).
  - When used as a step of a dispatch, O(lease) is all that is to be given; the other options come from the C(portbuild_) variables.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
  - portbuild.cluster.lease
  - portbuild.cluster.lease.scratchdir
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  maxjobs:
    description: How many jobs the machine may run at once.
    type: int
    default: 1
  backend:
    description:
      - How chroots are made.
      - V(auto) takes the best one that works on the machine, which is found out by trying.
        It never takes V(tmpfs), which needs memory for all that a build writes.
    type: str
    choices: [auto, overlay, zfs, tmpfs, directory]
    default: auto
  base:
    description: The SHA-256 of the bindist to make the chroot from.
    type: str
    required: true
  tree:
    description:
      - The SHA-256 of the tarball of the tree to build from, for a package system that builds from one.
      - A machine that does not have it is refused, as is one without the bindist.
    type: str
  client_user:
    description: The account that collects the results.
    type: str
    default: root
  min_free:
    description: With less free space than this many bytes in O(scratchdir) nothing is claimed.
    type: int
    default: 0
  orphans:
    description:
      - Jobs of the same queue that hold no slot any more. They count against O(maxjobs) only while something of them runs.
      - Without this list, a chroot of the same queue in which nothing runs counts for the first minute.
    type: list
    elements: dict
    suboptions:
      arch:
        description: The target architecture.
        type: str
        required: true
      branch:
        description: The branch.
        type: str
        required: true
      package:
        description: The name of the package.
        type: str
        required: true
  recorded:
    description:
      - The newest build of the job that has been recorded. Nobody wants the results of that and earlier ones any more,
        so what is left of them is thrown away, even if it runs.
    type: int
    default: 0
seealso:
  - module: portbuild.cluster.claim_machine
  - module: portbuild.cluster.clean_chroot
"""

EXAMPLES = r"""
---
- name: Claim a chroot on the machine of the lease
  portbuild.cluster.claim_chroot:
    lease: "{{ claim.lease }}"
  delegate_to: "{{ claim.lease.machine }}"
  register: chroot
"""

RETURN = r"""
chroot:
  description: The directory of the chroot on the build machine.
  returned: success
  type: str
  sample: /var/portbuild/chroots/debian-amd64/bookworm/hello
backend:
  description: How the chroot is made.
  returned: success
  type: str
  sample: overlay
base:
  description: The SHA-256 of the bindist the chroot is made from.
  returned: success
  type: str
  sample: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
tree:
  description: The SHA-256 of the tree that is built from, empty for a package system without one.
  returned: success
  type: str
  sample: ''
state:
  description: Whether the chroot is V(claimed), with nothing started in it, or a build of the job was V(started) in it.
  returned: success
  type: str
  sample: claimed
running:
  description: Whether a build of the job runs in it.
  returned: success
  type: bool
  sample: false
build_token:
  description: The token under which the build in it was started, V(none) if none was.
  returned: success
  type: int
  sample: 17
memory:
  description: How much memory the machine has, in bytes; 0 where it does not say.
  returned: success
  type: int
  sample: 25276063744
clock:
  description: The machine's clock, in seconds since 1970.
  returned: success
  type: float
  sample: 1760000000.0
status:
  description: Of a build in it, how far it is or how it ended; empty if none was started.
  returned: success
  type: dict
  sample: {state: running, phase: build, reason: null, seconds: 12.5}
jobs:
  description: What the machine is busy with.
  returned: when the machine is full
  type: list
  elements: dict
  sample: [{arch: debian-amd64, branch: bookworm, package: dash, state: started, running: true, token: 16}]
reason:
  description:
    - Why the chroot could not be claimed, in a word for programs; V(machine_full), V(stale), V(foreign_chroot), V(base_missing), V(bad_base),
      V(tree_missing), V(backend),
      V(chroot_busy), V(bad_marker), V(machine_disk_full), V(unsafe_path), V(name) or V(client).
  returned: failure
  type: str
  sample: machine_full
infrastructure:
  description: Whether the machine is to blame, so that the job should be tried on another one.
  returned: failure
  type: bool
  sample: true
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._modules import carry_out
from ..module_utils._step_claim_chroot import CLAIM_CHROOT


def main() -> None:
    module = AnsibleModule(argument_spec=CLAIM_CHROOT.arguments, supports_check_mode=True)
    carry_out(module, CLAIM_CHROOT, module.params)


if __name__ == "__main__":
    main()
