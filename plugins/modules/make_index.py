#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: make_index
short_description: Look whether a branch has the INDEX that is wanted
version_added: 1.0.0
description:
  - Says whether the INDEX of the branch was made from the tree, the base and the settings of now, or has to be made.
  - With C(portbuild_index_file) that file becomes the branch's INDEX, after it was read; what is odd in it is told with
    the number of the line.
  - The role P(portbuild.cluster.index#role) then has P(portbuild.cluster.dispatch#role) make it on a build machine, as
    the package RV(job).
  - Runs on the controller and takes everything from the C(portbuild_) variables.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options: {}
seealso:
  - module: portbuild.cluster.make_tree
"""

EXAMPLES = r"""
---
- name: Look at the INDEX
  portbuild.cluster.make_index:
  register: index

- name: Make it
  ansible.builtin.include_role:
    name: portbuild.cluster.dispatch
  vars:
    portbuild_package: "{{ index.job }}"
  when: index.needed
"""

RETURN = r"""
needed:
  description: Whether it has to be made.
  returned: success
  type: bool
  sample: true
job:
  description: The package to dispatch so that it is made.
  returned: success
  type: str
  sample: INDEX
path:
  description: Where it is, or will be.
  returned: success
  type: str
  sample: /srv/portbuild/amd64/15/INDEX
msg:
  description: The same for people.
  returned: success
  type: str
  sample: /srv/portbuild/amd64/15/INDEX is to be made.
"""
