# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The client half of clean_chroot: throw the job's chroot away, or hold it."""

from __future__ import annotations

import typing as t

from ._backends import BACKENDS
from ._chroots import BadMarker, Chroot, ChrootMissing, ChrootStore, CLAIMED, KEPT, UNCOLLECTED
from ._cleanup import surplus
from ._modules import ClientStep, LEASE_ARGUMENT, lease_job, SCRATCH_ARGUMENT
from ._names import Job
from ._trash import empty_trash

_ARGUMENTS: dict[str, t.Any] = {
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


def _decide(chroot: Chroot | None, *, recorded: bool, keep: bool) -> str:
    """Return as what the chroot is to be held; "": it is to be cleaned."""
    if chroot is None or chroot.marker.state == CLAIMED:
        return ""
    if chroot.ended and not recorded:
        return UNCOLLECTED
    return KEPT if keep else ""


def _find(store: ChrootStore, job: Job, lease: dict[str, t.Any], *, end: bool) -> Chroot | None:
    """Return the job's chroot with nothing running in it any more, or as it is."""
    look = store.end if end else store.get
    try:
        return look(job, queue=lease["queue"], token=lease["token"])
    except (ChrootMissing, BadMarker):
        return None  # one that cannot be read is cleaned, or refused, below


def _clean_or_hold(store: ChrootStore, params: dict[str, t.Any], *, really: bool) -> dict[str, t.Any]:
    """Clean or hold, and return the result of the step."""
    lease, job = params["lease"], lease_job(params["lease"])
    identity = {"queue": lease["queue"], "token": lease["token"]}
    before = _find(store, job, lease, end=False)
    chroot = _find(store, job, lease, end=really)
    held = _decide(chroot, recorded=params["recorded"], keep=params["keep"])
    if chroot is None or not held:
        kept = store.kept(job, **identity) if chroot is None and params["keep"] else None
        if kept is not None:  # done before
            return _told(kept, KEPT, changed=False)
        changed = store.clean(job, **identity) if really else chroot is not None
        return {"changed": changed, "cleaned": True, "held": "", "why": ""}
    if really:
        chroot = store.hold(job, state=held, reason=_WHY[held], **identity)
    return _told(chroot, held, changed=before is None or before.running or before.marker.state != held)


def _told(chroot: Chroot, held: str, *, changed: bool) -> dict[str, t.Any]:
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


def _clean(params: dict[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    store = ChrootStore(params["scratchdir"])
    result = _clean_or_hold(store, params, really=not check_mode)
    if not check_mode:
        for old in surplus(store.all(), keep_max=params["keep_max"]):
            store.discard(old)
        empty_trash(store.scratch)
    return result


CLEAN_CHROOT = ClientStep(_ARGUMENTS, _clean)
