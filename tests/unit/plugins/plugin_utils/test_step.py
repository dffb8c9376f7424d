# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every step's action shares. What needs a playbook around it is in the cluster tests."""

from __future__ import annotations

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._step import BadArguments, check_remote


@pytest.mark.parametrize("path", ["/var/portbuild/incoming/" + "0" * 64 + ".17.part", "/a/b+c~1,2@x%3a=:_-.deb"])
def test_plain_paths_are_given_to_a_transfer(path: str) -> None:
    assert check_remote(path) == path


@pytest.mark.parametrize(
    "path", ["", "a/b", "/a b", "/a\n!touch x", "/a'b", '/a"b', "/a\\b", "/a//b", "/a/", "/a$b", "/a*"]
)
def test_what_sftp_would_interpret_is_not(path: str) -> None:
    with pytest.raises(BadArguments, match="cannot be the path of a file on a build machine"):
        check_remote(path)
