#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: control
short_description: Enter a machine into the queue, or take it out
version_added: 1.0.0
description:
  - Enters a build machine into the queue directory, takes it offline with a reason, or brings it back.
  - A machine that is offline gets no more jobs. What runs there goes on.
  - Runs on the controller.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
attributes:
  check_mode:
    support: full
    description: Says what would change.
  diff_mode:
    support: none
  idempotent:
    support: full
    description: A machine that is in the wanted state is left alone.
options:
  command:
    description:
      - V(enter) puts a machine into the queue with its true number of jobs; a machine that is offline stays so.
        With a C(portbuild_maxjobs) of 0 it takes the machine out, until it is entered with more.
      - V(drain) takes it offline with a reason.
      - V(undrain) brings it back.
    type: str
    required: true
    choices: [enter, drain, undrain]
  machine:
    description: The build machine. It must be in the queue or in the inventory.
    type: str
    required: true
  reason:
    description: Why the machine is taken offline.
    type: str
    default: ""
seealso:
  - module: portbuild.cluster.claim_machine
"""

EXAMPLES = r"""
---
- name: Take a machine out of service
  portbuild.cluster.control:
    command: drain
    machine: a1
    reason: new disks
"""

RETURN = r"""
state:
  description: V(online) or V(offline).
  returned: always
  type: str
  sample: online
jobs:
  description: How many jobs the machine runs.
  returned: always
  type: int
  sample: 0
"""
