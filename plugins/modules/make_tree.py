#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: make_tree
short_description: Make the tarball of the tree that a branch is built from
version_added: 1.0.0
description:
  - Makes the tarball of the branch's tree of recipes, such as the FreeBSD ports tree, from C(portbuild_tree), a directory, a tarball or git.
    M(portbuild.cluster.prepare_machine) then gives each machine one copy, which all its chroots share.
  - Nothing is packed while the source is at the state that the present tree was made from, and what comes out with the same contents
    is not sent to the machines again.
  - Of a git checkout only what is committed is taken. Of a directory C(distfiles), C(packages), the data of version control and
    work directories are left out. A tarball is taken as it is, once the list of its members was read; one directory at its top
    is taken for the tree.
  - The package systems that build from no tree leave it alone. So does everybody while V(portbuild_tree) is not set, if there is a tree.
  - Runs on the controller; all that it needs comes from the C(portbuild_) variables.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
attributes:
  check_mode:
    support: full
    description: Says whether it would be made. A git repository elsewhere is asked for its state.
  diff_mode:
    support: full
    description: Shows source and revision.
  idempotent:
    support: full
requirements:
  - git, on the controller, for a tree that comes from git
seealso:
  - module: portbuild.cluster.prepare_machine
"""

EXAMPLES = r"""
---
- name: Make the tree
  portbuild.cluster.make_tree:
  vars:
    portbuild_tree: https://git.freebsd.org/ports.git
    portbuild_tree_revision: 2025Q4
"""

RETURN = r"""
path:
  description: Where the tarball is on the controller; empty for a package system without a tree.
  returned: success
  type: str
  sample: /srv/portbuild/amd64/14/tarballs/tree.tar
sha256:
  description: Its SHA-256; empty in check mode if it would be made.
  returned: success
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
source:
  description: Where it comes from, without any password.
  returned: when V(portbuild_tree) is set
  type: str
  sample: https://git.freebsd.org/ports.git
revision:
  description: The commit, or what stands for the state of a directory or a tarball.
  returned: when V(portbuild_tree) is set
  type: str
  sample: 5f0f3b2f0c1e0cc9e9ae1d9f1ac3d0a3a0bd1a55
msg:
  description: The same in a sentence.
  returned: success
  type: str
  sample: The tree of 14 is https://git.freebsd.org/ports.git, 5f0f3b2f0c1e0cc9e9ae1d9f1ac3d0a3a0bd1a55.
"""
