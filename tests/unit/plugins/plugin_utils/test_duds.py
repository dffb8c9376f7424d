# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._duds import read_duds


def test_names_with_and_without_reasons(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "duds"
    path.write_text("# comment\nfoo\nbar|marked BROKEN: does not link\nbaz no licence # why\n\n../etc\n-rf x\n")
    assert read_duds(str(path)) == {
        "foo": "listed in duds",
        "bar": "marked BROKEN: does not link",
        "baz": "no licence",
    }


def test_no_file_means_no_duds(tmp_path: pathlib.Path) -> None:
    assert read_duds(str(tmp_path / "duds")) == {}


@given(st.binary(max_size=300))
def test_rubbish_hides_no_dud(tmp_path_factory, rubbish: bytes) -> None:
    path = tmp_path_factory.mktemp("duds") / "duds"
    path.write_bytes(rubbish + b"\nfoo|why\n")
    assert read_duds(str(path))["foo"]
