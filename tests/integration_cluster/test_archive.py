# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources of the archive itself."""

from __future__ import annotations

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm


@pytest.mark.network
def test_a_source_of_the_archive_is_fetched_with_the_lists_of_the_base(idle: Farm) -> None:
    ended = idle.dispatch("hello", check="off").ok()
    assert "hello 2." in ended.output
    fetch, _mark, _rest = idle.log("hello").partition("<phase 2: ")
    assert "<phase 1: fetch (step fetch," in fetch
    assert "InRelease" not in fetch  # what apt-get update speaks of
    assert any(path.name.startswith("hello_2.") and path.suffix == ".deb" for path in idle.packages.iterdir())
    idle.dispatch("hello=9.9", check="off").fails("hello")
    assert "The archive has no source package hello 9.9." in idle.log("hello")
