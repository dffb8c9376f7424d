#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_status
short_description: Tell how the cluster stands
version_added: 1.0.0
description:
  - Tells which machines there are and how they stand, what runs on them, what is left there, and which packages are on hold.
  - With O(ask), asks the machine that it runs for what it does, for 10 seconds at most.
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
  ask:
    description: Whether to ask the machine, instead of telling of the cluster. Without C(portbuild_ask_machines) it is not asked.
    type: bool
    default: false
  told:
    description: The RV(told) of the machines that were asked.
    type: list
    elements: dict
    default: []
seealso:
  - plugin: portbuild.cluster.queue
    plugin_type: lookup
  - module: portbuild.cluster.machine_info
"""

EXAMPLES = r"""
---
- name: See what the controller knows
  portbuild.cluster.cluster_status:
  register: cluster

- name: Show it
  ansible.builtin.debug:
    var: cluster.lines
"""

RETURN = r"""
told:
  description: What the machine said of its jobs and its load, or C(problem), why it said nothing.
  returned: with O(ask)
  type: dict
  sample: {machine: a1, jobs: [], chroots: [], load: [0.12, 0.3, 0.28]}
machines:
  description:
    - The machines, best first. C(state) is V(free), V(full), V(offline), V(unusable), or V(absent) for one that never entered
      the queue; C(since), C(by) and C(reason) tell of one that is offline.
  returned: without O(ask)
  type: list
  elements: dict
  sample:
    - machine: a1
      state: free
      jobs: 1
      foreign: 0
      maxjobs: 4
      load: 0.12 0.30 0.28
      since: 0
      by: ""
      reason: ""
running:
  description: The jobs that have a slot, longest first. Times are seconds; C(usual) is none for a package without history.
  returned: without O(ask)
  type: list
  elements: dict
  sample:
    - package: hello
      branch: bookworm
      machine: a1
      token: 17
      state: claimed
      elapsed: 32.5
      usual: 40.1
      phase: build
      last_line: checking for gcc... gcc
      owner: process 4711 on controller
      alive: true
bulk:
  description: How the bulk build that runs is doing, for people; empty when none runs.
  returned: without O(ask)
  type: str
  sample: "run 3: 12 queued, 4 running, 30 built; about 5 min 10 s to go."
waiting:
  description: The packages that wait, and why.
  returned: without O(ask)
  type: list
  elements: dict
  sample: []
left:
  description: What is left on machines of jobs that have no slot any more.
  returned: without O(ask)
  type: list
  elements: dict
  sample: []
holds:
  description: The packages on hold.
  returned: without O(ask)
  type: list
  elements: dict
  sample:
    - package: hello
      reason: too new
      by: ada
      since: 1763797000.0
problems:
  description: What could not be found out.
  returned: without O(ask)
  type: list
  elements: str
  sample: []
lines:
  description: The same for a person.
  returned: without O(ask)
  type: list
  elements: str
  sample:
    - machine  state  jobs  load
    - a1       free   1/4   0.12 0.30 0.28
"""
