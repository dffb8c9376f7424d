#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: client_step
version_added: 1.0.0
author:
  - The portbuild.cluster authors (@portbuild)
short_description: Carry out the client half of any step of a dispatch
description:
  - What the actions of a dispatch run on the build machine. That it is the same module for all of them saves packing
    each of them anew, which costs the controller more than anything else in a dispatch.
  - To run a single step by hand, use the module of that name; it does the same.
extends_documentation_fragment:
  - portbuild.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  step:
    description:
      - The step.
    type: str
    required: true
    choices: [build_package, claim_chroot, clean_chroot, fetch_results]
  arguments:
    description:
      - The options of the module of that name.
    type: dict
    required: true
seealso:
  - module: portbuild.cluster.build_package
  - module: portbuild.cluster.claim_chroot
  - module: portbuild.cluster.clean_chroot
  - module: portbuild.cluster.fetch_results
"""

EXAMPLES = r"""
---
- name: Clean a chroot as the action of that name does
  portbuild.cluster.client_step:
    step: clean_chroot
    arguments:
      lease: "{{ claim.lease }}"
      recorded: true
  delegate_to: "{{ claim.lease.machine }}"
  become: true
"""

RETURN = r"""
reason:
  description: Why the step failed, in a word for programs. Everything else is what the module of the step returns.
  returned: failure
  type: str
  sample: machine_full
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ..module_utils._modules import carry_out, ClientStep
from ..module_utils._step_build_package import BUILD_PACKAGE, FETCH_RESULTS
from ..module_utils._step_claim_chroot import CLAIM_CHROOT
from ..module_utils._step_clean_chroot import CLEAN_CHROOT

STEPS: dict[str, ClientStep] = {
    "build_package": BUILD_PACKAGE,
    "claim_chroot": CLAIM_CHROOT,
    "clean_chroot": CLEAN_CHROOT,
    "fetch_results": FETCH_RESULTS,
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "required": True, "choices": sorted(STEPS)},
            "arguments": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    step = STEPS[module.params["step"]]
    checked = ArgumentSpecValidator(step.arguments).validate(module.params["arguments"])
    if checked.error_messages:
        module.fail_json(msg=f"{module.params['step']}: {'; '.join(checked.error_messages)}.")
    carry_out(module, step, checked.validated_parameters)


if __name__ == "__main__":
    main()
