#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: prepare_machine
short_description: Make a build machine ready for its first job
version_added: 1.0.0
description:
  - Makes the directories under the scratch directory with the right owners and modes, writes the per-node configuration, and extracts the bindist
    and the tree, each once.
  - Their tarballs must be in C(incoming/) of the scratch directory, named by their SHA-256 and C(.part).
    RV(needs_base) and RV(needs_tree) say whether they are needed; they are removed when they were extracted.
  - A tree's tarball is refused when one of its members leads out of it, is written through a symbolic link, or is a device.
  - When used as a step of setup, all options come from the C(portbuild_) variables, and the tarballs are brought.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  scratchdir:
    description: The directory on the build machine under which bases, chroots and caches stand. It belongs to root, and is all on one file system.
    type: path
    default: /var/portbuild
  client_user:
    description: The account that the controller logs in as. It must exist.
    type: str
    default: root
  node:
    description: What the per-node configuration says beside the other options; on Linux it is of no consequence.
    type: dict
    default: {}
    suboptions:
      zfs_dataset:
        description: The ZFS file system below which the V(zfs) backend makes bases and chroots.
        type: str
      devfs_ruleset:
        description: The devfs(8) ruleset of a jail.
        type: int
      mount_fdescfs:
        description: Whether a jail has fdescfs(4).
        type: bool
      mount_procfs:
        description: Whether a jail has procfs(4).
        type: bool
  maxjobs:
    description: How many jobs the machine may run at once.
    type: int
    default: 1
  backend:
    description: How chroots are made. One that cannot be used is an error.
    type: str
    choices: [auto, overlay, zfs, tmpfs, directory]
    default: auto
  base:
    description: The SHA-256 of the bindist to have.
    type: str
  tree:
    description: The SHA-256 of the tarball of the tree to have, for a package system that builds from one.
    type: str
seealso:
  - module: portbuild.cluster.machine_info
"""

EXAMPLES = r"""
---
- name: Make the machine ready
  portbuild.cluster.prepare_machine:
"""

RETURN = r"""
needs_base:
  description: Whether the bindist is neither on the machine nor in C(incoming/).
  returned: success
  type: bool
  sample: false
base_installed:
  description: Whether the bindist was extracted now.
  returned: success
  type: bool
  sample: true
needs_tree:
  description: Whether the tree is neither on the machine nor in C(incoming/).
  returned: success
  type: bool
  sample: false
tree_installed:
  description: Whether the tree was extracted now.
  returned: success
  type: bool
  sample: true
backend:
  description: The chroot backend that jobs will use.
  returned: when the scratch directory exists
  type: str
  sample: overlay
backends:
  description: Why each other backend is not used.
  returned: when the scratch directory exists
  type: dict
  sample: {directory: 'usable, but overlay is preferred'}
reason:
  description:
    - Why the machine could not be made ready, in a word for programs.
    - One of V(unsafe_path), V(backend), V(bad_base), V(bad_tarball), V(no_account), V(machine_disk_full), V(name) or V(client).
  returned: failure
  type: str
  sample: backend
infrastructure:
  description: Whether the machine is to blame.
  returned: failure
  type: bool
  sample: true
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._modules import failing_properly, SCRATCH_ARGUMENT
from ..module_utils._names import BACKENDS, check_sha256
from ..module_utils._prepare import Plan, prepare

ARGUMENTS: dict[str, t.Any] = {
    "scratchdir": SCRATCH_ARGUMENT,
    "client_user": {"type": "str", "default": "root"},
    "node": {
        "type": "dict",
        "default": {},
        "options": {
            "zfs_dataset": {"type": "str"},
            "devfs_ruleset": {"type": "int"},
            "mount_fdescfs": {"type": "bool"},
            "mount_procfs": {"type": "bool"},
        },
    },
    "maxjobs": {"type": "int", "default": 1},
    "backend": {"type": "str", "choices": ["auto", *BACKENDS], "default": "auto"},
    "base": {"type": "str"},
    "tree": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    with failing_properly(module):
        plan = Plan(
            scratch=params["scratchdir"],
            client_user=params["client_user"],
            node=tuple((name, value) for name, value in params["node"].items() if value is not None),
            maxjobs=params["maxjobs"],
            backend=params["backend"],
            base=check_sha256(params["base"]) if params["base"] else "",
            tree=check_sha256(params["tree"]) if params["tree"] else "",
        )
        result = prepare(plan, really=not module.check_mode)
        difference = result.pop("diff")
        if module._diff:  # there is no public name for whether a diff is wanted
            result["diff"] = difference
        module.exit_json(**result)


if __name__ == "__main__":
    main()
