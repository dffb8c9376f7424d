#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: control
short_description: Enter a machine into the queue, take it out, hold a package, speak with a bulk build
version_added: 1.0.0
description:
  - Enters a build machine into the queue directory, takes it offline with a reason, or brings it back.
  - A machine that is offline gets no more jobs. What runs there goes on.
  - Holds a package of the branch with a reason, so that no dispatch tries it, or releases it.
  - Stops a bulk build that runs, has it try a package again, or asks it why a package is where it is.
  - Who says so is remembered, AWX's user where there is one.
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
    description: A machine or package that is in the wanted state is left alone.
options:
  command:
    description:
      - V(enter) puts a machine into the queue with its true number of jobs; a machine that is offline stays so.
        With a C(portbuild_maxjobs) of 0 it takes the machine out, until it is entered with more.
      - V(drain) takes it offline with a reason.
      - V(undrain) brings it back.
      - V(hold) keeps a package from being tried, V(unhold) releases it.
      - V(drain) of a package is the same as V(hold), V(hold) of a machine the same as V(drain), and so on.
      - V(stop) has the bulk build of the branch start nothing any more; it ends when what runs has ended.
      - V(retry) has it try a package again that failed or was given up; what was skipped for it comes back.
      - V(why) asks why a package waits, is built anew, was skipped or ignored; the last bulk build is asked if none runs.
    type: str
    required: true
    choices: [enter, drain, undrain, hold, unhold, stop, retry, why]
  machine:
    description: The build machine. It must be in the queue or in the inventory. Either this or O(package) is needed, but for V(stop).
    type: str
    default: ""
  package:
    description: The package, by any name that a dispatch understands.
    type: str
    default: ""
  reason:
    description: Why the machine is taken offline, or the package held.
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

- name: Do not try a package for a while
  portbuild.cluster.control:
    command: hold
    package: hello
    reason: its new version deletes home directories
"""

RETURN = r"""
state:
  description: V(online) or V(offline) of a machine, V(held) or V(free) of a package; empty where it was about a bulk build.
  returned: always
  type: str
  sample: online
jobs:
  description: How many jobs the machine runs.
  returned: always
  type: int
  sample: 0
msg:
  description: The same in a sentence.
  returned: always
  type: str
  sample: Machine a1 is offline; what runs there goes on (1 job).
"""
