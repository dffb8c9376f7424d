#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: clean_chroot
short_description: Clean the chroot of a job, or hold it
version_added: 1.0.0
description:
  - Ends what still runs in the chroot of the job and throws the chroot away. Its path is free at once; the files are removed in the background.
  - A chroot with results that have not been recorded is not cleaned but held as C(uncollected), so that they can be collected later.
  - With O(keep) the chroot is left for debugging instead; it moves to C(kept/) in the scratch directory, out of the way of the package's next build.
  - A token older than that of the chroot is refused, and so is the chroot of another controller's queue.
  - Nothing outside the scratch directory is ever removed, no symbolic link is followed and no mount is crossed.
  - When used as a step of a dispatch, O(scratchdir) and O(keep) come from the C(portbuild_) variables.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
  - portbuild.cluster.lease
  - portbuild.cluster.lease.scratchdir
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  recorded:
    description: Whether all that is needed of the build is at home and recorded.
    type: bool
    default: false
  keep:
    description: Whether to leave the chroot for debugging. Has no effect on one in which nothing was started.
    type: bool
    default: false
  keep_max:
    description: How many chroots that were left for debugging the machine keeps. The oldest go first.
    type: int
    default: 5
seealso:
  - module: portbuild.cluster.claim_chroot
  - module: portbuild.cluster.cleanup
"""

EXAMPLES = r"""
---
- name: Clean the chroot
  portbuild.cluster.clean_chroot:
    lease: "{{ claim.lease }}"
    recorded: "{{ record.recorded | default(false) }}"
  delegate_to: "{{ claim.lease.machine }}"
"""

RETURN = r"""
cleaned:
  description: Whether nothing of the job is left on the machine.
  returned: success
  type: bool
  sample: true
held:
  description: As what the chroot is held, V(uncollected) or V(kept); empty if it is not.
  returned: success
  type: str
  sample: ''
chroot:
  description: Where the held chroot is.
  returned: when a chroot is held
  type: str
  sample: /var/portbuild/kept/debian-amd64/bookworm/hello/17-2f0c
enter:
  description: The shell command by which root looks into the chroot.
  returned: when a chroot is kept
  type: str
  sample: flock -n /var/portbuild/kept/debian-amd64/bookworm/hello/17-2f0c/lock unshare --mount sh -c '…'
why:
  description: Why the chroot was not cleaned, in a sentence.
  returned: success
  type: str
  sample: ''
reason:
  description: Why the chroot could not be cleaned, in a word for programs; see M(portbuild.cluster.claim_chroot).
  returned: failure
  type: str
  sample: stale
infrastructure:
  description: Whether the machine is to blame.
  returned: failure
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._modules import carry_out
from ..module_utils._step_clean_chroot import CLEAN_CHROOT


def main() -> None:
    module = AnsibleModule(argument_spec=CLEAN_CHROOT.arguments, supports_check_mode=True)
    carry_out(module, CLEAN_CHROOT, module.params)


if __name__ == "__main__":
    main()
