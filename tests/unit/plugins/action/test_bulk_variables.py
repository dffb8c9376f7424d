# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a bulk build hands on to its dispatches as extra variables."""

from __future__ import annotations

import types
import typing as t

from ansible_collections.portbuild.cluster.plugins.action.bulk import ActionModule


def test_settings_of_the_play_are_handed_on_and_nothing_else() -> None:
    context: t.Any = types.SimpleNamespace(
        variables={"ansible_user": "root", "portbuild_check": "off", "portbuild_branch": "bookworm"}
    )
    inventory = {"localhost": {"portbuild_branch": "bookworm"}}
    task_vars = {"inventory_hostname": "localhost", "hostvars": inventory}
    # ansible_user is there with --user; handed on, it would be the login on every machine.
    assert ActionModule._set_by_play(context, task_vars) == {"portbuild_check": "off"}
