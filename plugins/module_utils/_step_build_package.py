# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The client halves of build_package and fetch_results: start or attach, wait, and say what there is to fetch."""

from __future__ import annotations

import typing as t

from ._build import Builder
from ._modules import ClientStep, LEASE_ARGUMENT, lease_job, SCRATCH_ARGUMENT


def _builder(params: dict[str, t.Any]) -> Builder:
    lease = params["lease"]
    return Builder(params["scratchdir"], lease_job(lease), queue=lease["queue"], token=lease["token"])


def _build(params: dict[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    builder = _builder(params)
    if check_mode:
        return builder.look(params["request"])
    return builder.run(params["request"], params["script"], params["wait"])


def _results(params: dict[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    builder = _builder(params)
    if check_mode:
        found = builder.look(None)
        return {"changed": False, "chroot": found["chroot"], "status": found["status"]}
    return {"changed": False, **builder.results()}


BUILD_PACKAGE = ClientStep(
    {
        "lease": LEASE_ARGUMENT,
        "scratchdir": SCRATCH_ARGUMENT,
        "chroot": {"type": "dict"},
        "request": {"type": "dict"},
        "script": {"type": "str"},
        "wait": {"type": "float", "default": 50},
    },
    _build,
)

FETCH_RESULTS = ClientStep(
    {"lease": LEASE_ARGUMENT, "scratchdir": SCRATCH_ARGUMENT, "status": {"type": "dict"}},
    _results,
)
