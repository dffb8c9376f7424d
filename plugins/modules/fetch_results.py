#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fetch_results
version_added: 1.0.0
author:
  - The portbuild.cluster authors (@portbuild)
short_description: Bring the log and the results of a build home
description:
  - Tells which files a build left on the build machine, each with its size and SHA-256, and checks that they are there.
  - As a step of a role this is an action that copies them to the controller, as the login user and without become, under
    temporary names, compares size and SHA-256, and renames them into place. What is documented here is what the action
    asks the build machine for.
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
  status:
    description:
      - How the build ended, as M(portbuild.cluster.build_package) returned it. The build machine is asked for it
        otherwise.
      - It is used by the action, the build machine itself knows better.
    type: dict
seealso:
  - module: portbuild.cluster.build_package
  - module: portbuild.cluster.record_result
"""

EXAMPLES = r"""
---
- name: Bring the results home
  portbuild.cluster.fetch_results:
    lease: "{{ claim.lease }}"
    status: "{{ build.status }}"
  delegate_to: "{{ claim.lease.machine }}"
  register: results
"""

RETURN = r"""
files:
  description: What is at home now, as M(portbuild.cluster.touch_results) and M(portbuild.cluster.record_result) take it.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: package
      name: hello_2.10-3_amd64.deb
      size: 53072
      sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
      version: ''
chroot:
  description: The chroot's directory on the build machine, which the paths in the manifest are relative to.
  returned: to the controller's half of the step only
  type: str
  sample: /var/portbuild/chroots/amd64/bookworm/hello
status:
  description:
    - How the build ended, with the list C(manifest) of what it left. In check mode it is empty if there is no build.
    - A build that made a file which another package owns has failed, with the reason V(conflict), whatever its machine says.
  returned: success
  type: dict
  sample:
    state: ended
    reason: success
    manifest:
      - name: hello.log
        kind: log
        path: log
        size: 4711
        sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._modules import carry_out
from ..module_utils._step_build_package import FETCH_RESULTS


def main() -> None:
    module = AnsibleModule(argument_spec=FETCH_RESULTS.arguments, supports_check_mode=True)
    carry_out(module, FETCH_RESULTS, module.params)


if __name__ == "__main__":
    main()
