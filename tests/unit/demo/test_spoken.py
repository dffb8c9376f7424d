# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the demonstration shows of a bulk: its own lines, whole, as they come."""

from __future__ import annotations

import pytest

pytest.importorskip("yaml")
pytest.importorskip("debian.deb822")

from ansible_collections.portbuild.cluster.tests.demo.__main__ import spoken

OUTPUT = """
PLAY [Build many packages] ***

TASK [portbuild.cluster.bulk : Build all that must be built] ***
2 packages to build.
[0:00:00] b1: a begins
failed: b (blocks 1): why
changed: [localhost]

TASK [portbuild.cluster.bulk : Say how it ended] ***
ok: [localhost]
"""
LINES = ["2 packages to build.", "[0:00:00] b1: a begins", "failed: b (blocks 1): why"]


def test_its_own_lines() -> None:
    assert spoken(OUTPUT) == LINES


@pytest.mark.parametrize("length", range(len(OUTPUT)))
def test_never_half_a_line(length: int) -> None:
    assert spoken(OUTPUT[:length]) in [LINES[:number] for number in range(len(LINES) + 1)]
