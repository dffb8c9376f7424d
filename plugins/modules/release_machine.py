#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_machine
short_description: Give back the slot that a lease holds
version_added: 1.0.0
description:
  - Returns the slot on the build machine, and says what the attempt came to.
  - Only the lease's own token releases it; a stale owner is refused.
  - When the chroot could not be cleaned the machine is released all the same, and the lease is kept aside without a slot,
    so that the next dispatch of the package, M(portbuild.cluster.cleanup) or C(checkmachines) finds it.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
  - portbuild.cluster.lease
  - portbuild.cluster.lease.attempts
attributes:
  check_mode:
    support: full
    description: Says what would be released.
  diff_mode:
    support: none
  idempotent:
    support: full
    description: A lease that is released already is not released again.
options:
  record:
    description: What M(portbuild.cluster.record_result) returned, if it was reached.
    type: dict
    default: {}
  failure:
    description: The result of the step that failed, if one did.
    type: dict
    default: {}
  clean:
    description: What M(portbuild.cluster.clean_chroot) returned.
    type: dict
    default: {}
seealso:
  - module: portbuild.cluster.claim_machine
"""

EXAMPLES = r"""
---
- name: Release the machine
  portbuild.cluster.release_machine:
    lease: "{{ claim.lease }}"
"""

RETURN = r"""
outcome:
  description: What the attempt came to.
  returned: always
  type: dict
  contains:
    outcome:
      description:
        - One of V(built), V(failed), V(infrastructure), V(error), V(stale), V(predicted).
        - V(stale) is a build that was begun for an earlier dispatch, which asked for something else.
      type: str
    reason:
      description: The supervisor's reason, or the step's.
      type: str
    msg:
      description: A sentence for a person.
      type: str
    again:
      description: Whether the package should be tried once more.
      type: bool
  sample:
    outcome: built
    reason: success
    msg: hello 2.10-3 was built on a1 in 17.2 s.
    again: false
held:
  description: V(uncollected), V(kept) or V(lost) when the chroot is still on the client, else empty.
  returned: always
  type: str
  sample: ""
attempts:
  description: O(attempts) with this one added.
  returned: always
  type: list
  elements: dict
  sample:
    - machine: a1
      outcome: built
      reason: success
"""
