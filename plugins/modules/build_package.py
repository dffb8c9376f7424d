#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: build_package
version_added: 1.0.0
author:
  - The portbuild.cluster authors (@portbuild)
short_description: Build a package in its chroot
description:
  - Starts the build of a job in the chroot that M(portbuild.cluster.claim_chroot) has claimed, or attaches to it, and
    waits for it a while.
  - The build is carried by a supervisor, a process of its own that outlives the connection. It runs the steps of the
    request one after the other, each in namespaces of its own, watches the limits, and lays the results out.
  - Called again for the same job it attaches to the build that runs, returns how a finished one ended, and never
    starts a second one. So does whoever adopted the job with a newer token; an older one is refused.
  - As a step of a role this is an action that sends what the build needs and polls until the build ends. What is
    documented here is what the action asks the build machine for.
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
  request:
    description:
      - What to build and how, with schema 1. See C(docs/architecture.md).
      - Without it the module only attaches, or starts what it was asked for before and lacked files for.
    type: dict
  chroot:
    description:
      - What M(portbuild.cluster.claim_chroot) returned. The action makes the request from it and from the C(portbuild_)
        variables; the build machine itself knows better.
    type: dict
  script:
    description: The build script. Required together with O(request).
    type: str
  wait:
    description:
      - Wait at most this many seconds for the build to end or to need something.
      - With V(0) the module only starts the build, or looks.
    type: float
    default: 50
seealso:
  - module: portbuild.cluster.claim_chroot
  - module: portbuild.cluster.fetch_results
"""

EXAMPLES = r"""
---
- name: Build the package of the lease
  portbuild.cluster.build_package:
    lease: "{{ claim.lease }}"
    chroot: "{{ chroot }}"
  delegate_to: "{{ claim.lease.machine }}"
  register: build
"""

RETURN = r"""
chroot:
  description: The chroot's directory on the build machine.
  returned: success
  type: str
  sample: /var/portbuild/chroots/amd64/bookworm/hello
state:
  description:
    - What the build does. V(waiting) means that it needs the files of RV(needs).
  returned: success
  type: str
  choices: [absent, waiting, running, ended]
  sample: ended
reason:
  description: How the build ended; V(none) while it runs.
  returned: success
  type: str
  sample: success
infrastructure:
  description: Whether not the package but the machine or the network is to blame.
  returned: success
  type: bool
  sample: false
detail:
  description: The end of the build in one line.
  returned: success
  type: str
  sample: The build said nothing for 3600 s.
started:
  description: Whether this call started the build.
  returned: success
  type: bool
  sample: true
attached:
  description: Whether this call found the build started.
  returned: success
  type: bool
  sample: false
needs:
  description:
    - Files that the build needs and that are not on the machine. The controller copies each to C(incoming/) in
      the scratch directory, as the login user, under a name made of its SHA-256 and the job. Then the module is to be called again.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "libfoo1_1.0_amd64.deb", "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]
problems:
  description: What was wrong with files that came.
  returned: success
  type: list
  elements: str
  sample: []
status:
  description: What the supervisor wrote last, empty before the first request.
  returned: success
  type: dict
  sample: {"state": "ended", "reason": "success", "seconds": 27.3, "manifest": []}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._modules import carry_out
from ..module_utils._step_build_package import BUILD_PACKAGE


def main() -> None:
    module = AnsibleModule(
        argument_spec=BUILD_PACKAGE.arguments, required_together=[("request", "script")], supports_check_mode=True
    )
    carry_out(module, BUILD_PACKAGE, module.params)


if __name__ == "__main__":
    main()
