#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: doctor
short_description: Say what is wrong with an installation, and what to do about it
version_added: 1.0.0
description:
  - Examines the build machine that it runs for, or the controller, and returns a finding for each thing that was looked at.
  - A machine that cannot be reached, a setting that does not exist, a directory that is missing are findings, never failures.
  - Runs on the controller.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
attributes:
  check_mode:
    support: full
    description: Changes nothing anyway.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  examine:
    description: What is looked at.
    type: str
    required: true
    choices: [machine, controller]
  findings:
    description: With O(examine=controller), what was found on the machines, to be reported too.
    type: list
    elements: dict
    default: []
  missing:
    description: With O(examine=controller), the machines that were not examined though they should have been.
    type: list
    elements: str
    default: []
seealso:
  - module: portbuild.cluster.machine_info
"""

EXAMPLES = r"""
---
- name: Look at the controller
  portbuild.cluster.doctor:
    examine: controller
  register: examined

- name: Say what was found
  ansible.builtin.debug:
    var: examined.lines
"""

RETURN = r"""
problems:
  description: How many of the findings are problems.
  returned: always
  type: int
  sample: 0
findings:
  description: What was found.
  returned: always
  type: list
  elements: dict
  contains:
    subject:
      description: V(controller), or the name of a machine.
      type: str
      sample: a1
    level:
      description: V(ok), V(note) or V(PROBLEM).
      type: str
      sample: PROBLEM
    text:
      description: What was found.
      type: str
      sample: Its clock is +7200 s off the controller's.
    remedy:
      description: What to do about it, if that is not in the text.
      type: str
      sample: Set it, for example by NTP.
lines:
  description: The same for a person, problems first; what several machines share is one line.
  returned: always
  type: list
  elements: str
  sample: ["ok       controller: Python 3.13.1."]
msg:
  description: How much there is of each level.
  returned: always
  type: str
  sample: No problem, 0 notes, 21 in order.
"""
