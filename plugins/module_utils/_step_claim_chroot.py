# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The client half of claim_chroot: make the job's chroot, or find it again."""

from __future__ import annotations

import errno
import os
import time
import typing as t

from ._backends import choose
from ._bases import BaseMissing, note_use, TREES
from ._chroots import Chroot, ChrootStore
from ._machine import memory
from ._modules import ClientStep, LEASE_ARGUMENT, lease_job, SCRATCH_ARGUMENT
from ._names import BACKENDS, check_sha256, Job
from ._trash import empty_trash

_NAME: dict[str, t.Any] = {"type": "str", "required": True}

_ARGUMENTS: dict[str, t.Any] = {
    "lease": LEASE_ARGUMENT,
    "scratchdir": SCRATCH_ARGUMENT,
    "maxjobs": {"type": "int", "default": 1},
    "backend": {"type": "str", "choices": ["auto", *BACKENDS], "default": "auto"},
    "base": {"type": "str", "required": True},
    "tree": {"type": "str"},
    "client_user": {"type": "str", "default": "root"},
    "min_free": {"type": "int", "default": 0},
    "orphans": {"type": "list", "elements": "dict", "options": {"arch": _NAME, "branch": _NAME, "package": _NAME}},
    "recorded": {"type": "int", "default": 0},
}

_TOLD_OF_STATUS = ("state", "phase", "step", "reason", "infrastructure", "detail", "exit", "signal", "seconds", "token")


def _told(chroot: Chroot) -> dict[str, t.Any]:
    """Return what the step returns of the chroot."""
    return {
        "chroot": chroot.path,
        "backend": chroot.marker.backend,
        "base": chroot.marker.base,
        "tree": chroot.marker.tree,
        "state": chroot.marker.state,
        "running": chroot.running,
        "build_token": chroot.marker.build_token,
        "memory": memory()["total"],
        "clock": time.time(),
        "status": {key: chroot.status[key] for key in _TOLD_OF_STATUS if key in chroot.status},
    }


def _check_space(scratch: str, wanted: int) -> None:
    """Raise the error that a full disk would, before it is one."""
    if not os.path.isdir(scratch):
        raise BaseMissing(f"The scratch directory {scratch} does not exist.", remedy="Run the setup playbook.")
    found = os.statvfs(scratch)
    if found.f_bavail * found.f_frsize < wanted:
        raise OSError(
            errno.ENOSPC, f"{found.f_bavail * found.f_frsize} bytes are free in {scratch}, at least {wanted} are needed"
        )


def _claim(params: dict[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    scratch, lease, job = params["scratchdir"], params["lease"], lease_job(params["lease"])
    store = ChrootStore(scratch)
    _check_space(scratch, params["min_free"])
    backend = choose(scratch, params["backend"])[0]
    orphans = None if params["orphans"] is None else [Job.checked(**orphan) for orphan in params["orphans"]]
    wanted: dict[str, t.Any] = {
        **{name: lease[name] for name in ("queue", "token")},
        **{name: params[name] for name in ("maxjobs", "base", "recorded")},
        "tree": check_sha256(params["tree"]) if params["tree"] else "",
        "backend": backend,
        "orphans": orphans,
    }
    before = store.would_claim(job, **wanted)
    if check_mode:
        new = {
            "chroot": store.path(job),
            "state": "claimed",
            **{key: wanted[key] for key in ("backend", "base", "tree")},
        }
        return {"changed": before is None, **(_told(before) if before else {**new, "running": False, "status": {}})}
    chroot = store.claim(job, client_user=params["client_user"], **wanted)
    note_use(scratch, params["base"])
    if wanted["tree"]:
        note_use(scratch, wanted["tree"], kind=TREES)
    empty_trash(scratch)
    return {"changed": before is None or before.marker != chroot.marker, **_told(chroot)}


CLAIM_CHROOT = ClientStep(_ARGUMENTS, _claim)
