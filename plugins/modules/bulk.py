#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bulk
short_description: Build many packages in the best order
version_added: 1.0.0
description:
  - Builds the targets and all that they need, as many at once as the machines take. Each package is dispatched by
    P(portbuild.cluster.dispatch#role), in an C(ansible-playbook) of its own that ansible-runner starts.
  - The package with the longest way to the end of the whole goes first, by the times that earlier builds took; one that
    was never built counts as long.
  - It builds only what must be built, and says why. A failure of the infrastructure does not count against the package,
    which is tried elsewhere. What needs a package that failed is skipped.
  - Interrupted, by whatever, the same bulk build goes on where it was when it is started again. Builds go on meanwhile.
  - Machines may come, go and change C(portbuild_maxjobs) while it runs. C(stop), C(retry) and C(why) of
    M(portbuild.cluster.control) speak with it.
  - Runs on the controller and takes everything from the C(portbuild_) variables. Passwords cannot be prompted for.
  - Fails unless all was built; what the packages that are ignored need to be built, or are needed for, does not count,
    unless they were asked for by name.
author:
  - The portbuild.cluster authors (@portbuild)
requirements:
  - ansible-runner >= 2.4
extends_documentation_fragment:
  - portbuild.cluster.attributes
attributes:
  check_mode:
    support: full
    details:
      - It prints the plan.
  diff_mode:
    support: none
  idempotent:
    support: full
options: {}
seealso:
  - module: portbuild.cluster.control
"""

EXAMPLES = r"""
---
- name: Build all local sources
  portbuild.cluster.bulk:
  vars:
    portbuild_targets: [all]
    portbuild_sourcedir: /srv/sources
  register: bulk

- name: Name those that failed
  ansible.builtin.debug:
    msg: "{{ bulk.summary.failed | map(attribute='package') }}"
"""

RETURN = r"""
told:
  description: The task file of C(portbuild_hook_tasks), and the events that it is to be told of.
  returned: when packages were built, or were to be
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
summary:
  description: What came of it; the same is in C(bulk/summary.json) of the branch.
  returned: when packages were built, or were to be
  type: dict
  contains:
    ok:
      description: Whether all was built.
      type: bool
      sample: true
    built:
      description: The packages that were built.
      type: list
      elements: str
      sample: [libfoo, foo]
    stayed:
      description: The packages that were there and stayed as they are.
      type: list
      elements: str
      sample: [libbar]
    failed:
      description: The packages that failed, those that block the most before the others.
      type: list
      elements: dict
      sample: [{package: bad, reason: "bad failed on a1 after 3.1 s", blocks: 2, machine: a1}]
    skipped:
      description: By package that needs one of these, which, and by way of which others.
      type: dict
      sample: {worse: bad is failed.}
    given_up:
      description: By package that infrastructure has let down too often, how the last time.
      type: dict
      sample: {}
    ignored:
      description: By package that was not to be tried, why.
      type: dict
      sample: {}
    unknown:
      description: By target that is nothing, what is wrong with it.
      type: dict
      sample: {}
    unfinished:
      description: The packages that were not tried because somebody said stop.
      type: list
      elements: str
      sample: []
    seconds:
      description: How long it took.
      type: float
      sample: 243.2
    predicted_seconds:
      description: How long the plan said that it would take.
      type: float
      sample: 230.1
    bound_seconds:
      description: How long it would take at least, whatever the order.
      type: float
      sample: 221.7
    slots:
      description: How many packages could be built at once at the beginning.
      type: int
      sample: 6
    packages:
      description: By package that was built or failed, where, for how long and why.
      type: dict
      sample: {foo: {machine: a1, seconds: 13.1, why: [missing]}}
plan:
  description: By package that would be built, the codes of the reasons.
  returned: in check mode
  type: dict
  sample: {foo: [version], bar: [dependency]}
critical_path:
  description: The longest chain of packages that wait for each other.
  returned: in check mode
  type: list
  elements: str
  sample: [libfoo, foo]
msg:
  description: The last word on it, for people.
  returned: always
  type: str
  sample: 25 built, 0 stayed as they are, 0 failed, 0 skipped, 0 ignored, 0 not tried, 0 could not run.
"""
