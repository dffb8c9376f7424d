#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cleanup
short_description: Remove from a build machine what nobody owns
version_added: 1.0.0
description:
  - Throws away chroots that no lease owns; on FreeBSD, jails, mounts and ZFS file systems that belong to none; directories
    that are no chroots; chroots that were left for debugging, when they are too many or too old; files in the caches,
    transfers, bindists, trees and supervisors' programs that were not used for long; what makes the caches too large; and what an interrupted removal left.
  - A chroot that no lease owns but that holds the results of a build that ended stays for O(keep_days) and is reported in RV(uncollected).
  - So does one in which a build runs, for the next dispatch to attach to; after that time the build is ended.
  - Chroots of other controllers' queues are left alone.
  - When used by the playbook, all options come from the queue and from the C(portbuild_) variables.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
  - portbuild.cluster.lease.scratchdir
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  queue:
    description:
      - The identity of the queue directory that O(owned) is of.
      - Without it no chroot is removed for want of a lease.
    type: str
  token:
    description: The newest token of the queue when O(owned) was listed. Chroots with a newer one were claimed since, and are left alone.
    type: int
    default: 0
  owned:
    description: The jobs of the queue that have a lease on this machine, held leases included.
    type: list
    elements: dict
    default: []
    suboptions:
      arch:
        description: The target architecture.
        type: str
        required: true
      branch:
        description: The branch.
        type: str
        required: true
      package:
        description: The name of the package.
        type: str
        required: true
  bases:
    description: The SHA-256 of each bindist that is current; they stay, used or not.
    type: list
    elements: str
    default: []
  trees:
    description: The SHA-256 of each tree that is current; they stay, used or not.
    type: list
    elements: str
    default: []
  keep_max:
    description: How many chroots that were left for debugging are kept. The oldest go first.
    type: int
    default: 5
  keep_days:
    description: For how many days a chroot that was left for debugging, or that nobody collects, is kept.
    type: float
    default: 7
  cache_days:
    description: For how many days an unused file stays in the caches.
    type: float
    default: 30
  cache_max:
    description:
      - How many bytes the files in the caches may have together. Those that were not used for longest go first; what a job
        is using stays. V(0) sets no bound.
    type: int
    default: 0
  base_days:
    description: For how many days an unused bindist or tree, or a program of another version of this collection, stays.
    type: float
    default: 30
seealso:
  - module: portbuild.cluster.clean_chroot
  - module: portbuild.cluster.machine_info
"""

EXAMPLES = r"""
---
- name: Remove what nobody has used for long, whatever the leases
  portbuild.cluster.cleanup:
    cache_days: 10
"""

RETURN = r"""
removed:
  description: What was thrown away, and why.
  returned: success
  type: list
  elements: dict
  sample:
    - path: /var/portbuild/chroots/debian-amd64/bookworm/hello
      why: "No lease owns it: it is claimed."
uncollected:
  description: Chroots that no lease owns but that hold results.
  returned: success
  type: list
  elements: dict
  sample: []
problems:
  description: What could not be thrown away, and why.
  returned: success
  type: list
  elements: dict
  sample: []
told:
  description: The task file of C(portbuild_hook_tasks), and the events of builds brought home that it is to be told of.
  returned: when used by the playbook
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
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._chroots import ChrootStore
from ..module_utils._cleanup import Bounds, carry_out, DAY, Owned, plan, uncollected
from ..module_utils._modules import failing_properly, SCRATCH_ARGUMENT
from ..module_utils._names import check_sha256, Job
from ..module_utils._trash import empty_trash

_NAME: dict[str, t.Any] = {"type": "str", "required": True}

ARGUMENTS: dict[str, t.Any] = {
    "scratchdir": SCRATCH_ARGUMENT,
    "queue": {"type": "str"},
    "token": {"type": "int", "default": 0, "no_log": False},
    "owned": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"arch": _NAME, "branch": _NAME, "package": _NAME},
    },
    "bases": {"type": "list", "elements": "str", "default": []},
    "trees": {"type": "list", "elements": "str", "default": []},
    "keep_max": {"type": "int", "default": 5},
    "keep_days": {"type": "float", "default": 7},
    "cache_days": {"type": "float", "default": 30},
    "cache_max": {"type": "int", "default": 0},
    "base_days": {"type": "float", "default": 30},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    with failing_properly(module):
        store, now = ChrootStore(params["scratchdir"]), time.time()
        jobs = frozenset(Job.checked(**job) for job in params["owned"])
        owned = Owned(params["queue"], params["token"], jobs) if params["queue"] else None
        current: dict[str, t.Any] = {
            kind: frozenset(check_sha256(sha256) for sha256 in params[kind]) for kind in ("bases", "trees")
        }
        bounds = Bounds(**{name: params[name] for name in Bounds._fields if name not in current}, **current)
        goers = plan(store, owned, bounds, now)
        staying = uncollected(store.all(), owned, oldest=now - bounds.keep_days * DAY)
        problems = [] if module.check_mode else carry_out(store, goers)
        if not module.check_mode:
            empty_trash(store.scratch, background=False)
        failed = {goer.relative for goer, _why in problems}
        module.exit_json(
            changed=len(goers) > len(problems),
            removed=[
                {"path": goer.path(store.scratch), "why": goer.why} for goer in goers if goer.relative not in failed
            ],
            uncollected=[chroot.describe(now) for chroot in staying],
            problems=[{"path": goer.path(store.scratch), "why": why} for goer, why in problems],
        )


if __name__ == "__main__":
    main()
