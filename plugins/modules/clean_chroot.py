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

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._backends import BACKENDS
from ..module_utils._chroots import BadMarker, Chroot, ChrootMissing, ChrootStore, CLAIMED, KEPT, UNCOLLECTED
from ..module_utils._cleanup import surplus
from ..module_utils._modules import failing_properly, LEASE_ARGUMENT, lease_job, SCRATCH_ARGUMENT
from ..module_utils._names import Job
from ..module_utils._trash import empty_trash

ARGUMENTS: dict[str, t.Any] = {
    "lease": LEASE_ARGUMENT,
    "recorded": {"type": "bool", "default": False},
    "keep": {"type": "bool", "default": False},
    "keep_max": {"type": "int", "default": 5},
    "scratchdir": SCRATCH_ARGUMENT,
}

_WHY = {
    UNCOLLECTED: "It holds results that have not been recorded yet.",
    KEPT: "It was to be left for debugging.",
}


def decide(chroot: Chroot | None, *, recorded: bool, keep: bool) -> str:
    """Return as what the chroot is to be held; "": it is to be cleaned."""
    if chroot is None or chroot.marker.state == CLAIMED:
        return ""
    if chroot.ended and not recorded:
        return UNCOLLECTED
    return KEPT if keep else ""


def find(store: ChrootStore, job: Job, lease: dict[str, t.Any], *, end: bool) -> Chroot | None:
    """Return the job's chroot with nothing running in it any more, or as it is."""
    look = store.end if end else store.get
    try:
        return look(job, queue=lease["queue"], token=lease["token"])
    except (ChrootMissing, BadMarker):
        return None  # one that cannot be read is cleaned, or refused, below


def clean(store: ChrootStore, params: dict[str, t.Any], *, really: bool) -> dict[str, t.Any]:
    """Clean or hold, and return the result of the step."""
    lease, job = params["lease"], lease_job(params["lease"])
    identity = {"queue": lease["queue"], "token": lease["token"]}
    before = find(store, job, lease, end=False)
    chroot = find(store, job, lease, end=really)
    held = decide(chroot, recorded=params["recorded"], keep=params["keep"])
    if chroot is None or not held:
        kept = store.kept(job, **identity) if chroot is None and params["keep"] else None
        if kept is not None:  # done before
            return told(kept, KEPT, changed=False)
        changed = store.clean(job, **identity) if really else chroot is not None
        return {"changed": changed, "cleaned": True, "held": "", "why": ""}
    if really:
        chroot = store.hold(job, state=held, reason=_WHY[held], **identity)
    return told(chroot, held, changed=before is None or before.running or before.marker.state != held)


def told(chroot: Chroot, held: str, *, changed: bool) -> dict[str, t.Any]:
    """Return the result of the step for a chroot that is held."""
    result: dict[str, t.Any] = {
        "changed": changed,
        "cleaned": False,
        "held": held,
        "why": _WHY[held],
        "chroot": chroot.path,
    }
    if held == KEPT:
        result["enter"] = BACKENDS[chroot.marker.backend].enter(chroot.path)
    return result


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    with failing_properly(module):
        store = ChrootStore(module.params["scratchdir"])
        result = clean(store, module.params, really=not module.check_mode)
        if not module.check_mode:
            for old in surplus(store.all(), keep_max=module.params["keep_max"]):
                store.discard(old)
            empty_trash(store.scratch)
        module.exit_json(**result)


if __name__ == "__main__":
    main()
