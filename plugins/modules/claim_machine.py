#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: claim_machine
short_description: Claim the least loaded build machine for a package
version_added: 1.0.0
description:
  - Checks the package and the settings, then takes a slot on the build machine with the fewest jobs; among equals on the one that stands highest in mlist.
  - Runs on the controller and never connects to a build machine.
  - While all machines are busy it waits. A release in the same queue wakes it at once; at the latest it tries again after C(portbuild_retry_interval) seconds.
  - A package whose dispatch died is adopted on the machine where it was; one whose dispatch lives is an error that says who has it.
  - All settings come from the C(portbuild_) variables.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
  - portbuild.cluster.lease.attempts
attributes:
  check_mode:
    support: full
    description: Returns the machine that would be chosen now, and claims nothing.
  diff_mode:
    support: none
  idempotent:
    support: none
    description: Every call claims anew; a second call by the same owner is refused.
options:
  package:
    description:
      - The package to build, C(NAME), or C(NAME=VERSION) where the package system offers versions.
    type: str
    required: true
seealso:
  - module: portbuild.cluster.claim_chroot
  - module: portbuild.cluster.release_machine
"""

EXAMPLES = r"""
---
- name: Claim a machine for hello
  portbuild.cluster.claim_machine:
    package: hello
  register: claim
"""

RETURN = r"""
lease:
  description: The lease, to be handed to the steps that follow. Absent when there is nothing to do.
  returned: when a machine was claimed
  type: dict
  sample:
    arch: debian-amd64
    branch: bookworm
    package: hello
    machine: a1
    queue: 3f0c9b1e5d7a4c62
    token: 17
adopted:
  description: Whether the job belonged to a dispatch that died.
  returned: when a machine was claimed
  type: bool
  sample: false
recorded:
  description: Whether the result of the adopted job had been recorded already, so that only cleaning is left.
  returned: when a machine was claimed
  type: bool
  sample: false
waited:
  description: Seconds spent waiting for a machine.
  returned: when a machine was claimed
  type: float
  sample: 0.0
not_candidates:
  description: Machines that were not considered, with the reason for each.
  returned: always
  type: dict
  sample:
    a9: It stands in mlist but not in the inventory group build_machines.
outcome:
  description: What the dispatch came to, when it ends here because the package is a dud, or because somebody has put it on hold.
  returned: when nothing was claimed
  type: dict
  sample:
    outcome: dud
    msg: hello is a dud (marked BROKEN). Set portbuild_trybroken to try it all the same.
"""
