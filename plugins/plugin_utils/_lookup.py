# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What our lookups share."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ._settings import PREFIX


def own_variables(templar: t.Any, variables: c.Mapping[str, t.Any] | None) -> dict[str, t.Any]:
    """Return our variables with their values: Ansible hands lookups the templates, and takes those for values."""
    return {name: templar.template(value) for name, value in (variables or {}).items() if str(name).startswith(PREFIX)}
