# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.portbuild.cluster.plugins.action.doctor import _programs


@pytest.mark.parametrize(("system", "needed"), [("debian", True), ("ports", False), ("", False)])
def test_a_library_is_needed_where_its_system_is_used(system: str, needed: bool) -> None:
    (library,) = [program for program in _programs(system) if program.name == "python-debian"]
    assert (library.needed, library.oldest) == (needed, "0.1.49")
