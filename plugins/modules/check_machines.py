#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: check_machines
short_description: Take a machine that is not fit out of the queue, bring back one that is again
version_added: 1.0.0
description:
  - Looks at the build machine that it runs for as M(portbuild.cluster.machine_info) does, within C(portbuild_check_timeout),
    and notes its load averages in C(<root>/<arch>/loads/<machine>).
  - A machine that cannot be reached or is unfit goes offline, with reason and time, and gets no more jobs.
  - Jobs there whose dispatch is dead as well are given up after the longer of C(portbuild_reconnect_timeout) and
    C(portbuild_lease_ttl). A dispatch that lives does that by itself.
  - A machine that was taken offline so and is fit again is cleaned of what its crash left, looked at once more, and enters
    the queue with its true number of jobs. If C(portbuild_canary) is set, it is to build that package first.
  - One that is lost again and again waits longer each time before it comes back, 2 minutes to 6 hours; a day without
    a loss is forgiveness.
  - What an administrator took out of the queue stays there.
  - People and hooks hear of a machine that goes offline, once for all its jobs, and of one that is back; see
    M(portbuild.cluster.notify).
  - Runs on the controller.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
attributes:
  check_mode:
    support: full
    description: Looks, and says what it would do.
  diff_mode:
    support: none
  idempotent:
    support: full
    description: A second look at a machine that is as it was changes nothing but the note of its load.
options:
  rounds:
    description:
      - Instead of looking at a machine, runs the playbook that the task is part of again and again, with the command line that
        it was started with, a round every C(portbuild_interval), until it is stopped. Does nothing if that is V(0).
    type: bool
    default: false
  canary_since:
    description: Lets the machine in if it has built C(portbuild_canary) since this time, in seconds since 1970.
    type: float
    default: 0
seealso:
  - module: portbuild.cluster.control
  - module: portbuild.cluster.machine_info
"""

EXAMPLES = r"""
---
- name: Look after the machine
  portbuild.cluster.check_machines:
"""

RETURN = r"""
machine:
  description: The machine.
  returned: when a machine was checked
  type: str
  sample: a1
state:
  description:
    - How it stands now. V(free) or V(full) in the queue; V(offline); V(waiting) because it was lost too often;
      V(proving) until it has built the canary; V(returned) to the queue just now; V(returning) in check mode; V(unusable) for
      a counter file that is none; V(absent) if it never entered; V(busy) if somebody else checks it at this moment.
  returned: when a machine was checked
  type: str
  sample: free
msg:
  description: The same in a sentence, with the reason.
  returned: when a machine was checked
  type: str
  sample: a1 is fit.
load:
  description: Its load averages of 1, 5 and 15 minutes, if it answered.
  returned: when a machine was checked
  type: list
  elements: float
  sample: [0.12, 0.3, 0.28]
checked:
  description: When the check began, in seconds since 1970.
  returned: when a machine was checked
  type: float
  sample: 1763797000.25
canary:
  description: The package that the machine is to build before it comes back, if any.
  returned: when a machine was checked
  type: str
  sample: ""
cleaned:
  description: What was done about what its crash had left.
  returned: when a machine was checked
  type: list
  elements: dict
  sample: []
told:
  description: The task file of C(portbuild_hook_tasks), and the events that it is to be told of.
  returned: when a machine was checked
  type: dict
  contains:
    tasks:
      description: The file, empty if there is nothing to tell.
      type: str
    events:
      description: The events.
      type: list
      elements: dict
  sample:
    tasks: ""
    events: []
given_up:
  description: Jobs that were treated as lost.
  returned: when the machine is offline
  type: list
  elements: str
  sample: []
"""
