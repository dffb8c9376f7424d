# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The per-node configuration: what setup wrote down about this machine, C(portbuild.conf) in the scratch directory."""

from __future__ import annotations

import os
import shlex
import typing as t

CONF = "portbuild.conf"


def read_conf(scratch: str) -> dict[str, str]:
    """Return the assignments that setup wrote on this machine; nothing is executed."""
    values = {}
    try:
        with open(os.path.join(scratch, CONF), encoding="utf-8", errors="replace") as stream:
            for line in stream:
                name, equals, value = line.strip().partition("=")
                if equals and name.isidentifier():
                    words = shlex.split(value, comments=True)
                    values[name] = words[0] if words else ""
    except (OSError, ValueError):
        pass
    return values


def render_conf(values: t.Mapping[str, t.Any]) -> str:
    """Return the content of the per-node configuration."""
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in sorted(values.items())]
    return "\n".join(
        ["# Written by portbuild.cluster.prepare_machine: changes are lost at the next setup.", *lines, ""]
    )
