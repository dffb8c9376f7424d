# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import pathlib

import pytest

from ansible_collections.portbuild.cluster.plugins.plugin_utils._space import (
    check_space,
    ControllerDiskFull,
    free_bytes,
    full_disk_is_named,
    human_size,
)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (1 << 60, "1048576.0 TiB")],
)
def test_human_size(size: int, text: str) -> None:
    assert human_size(size) == text


def test_free_bytes_of_what_is_not_there_yet(tmp_path: pathlib.Path) -> None:
    assert free_bytes(str(tmp_path / "not" / "yet")) > 0
    assert free_bytes("not-yet-here") > 0


def test_check_space(tmp_path: pathlib.Path) -> None:
    assert check_space(str(tmp_path), needed=1, min_free=1) > 2
    with pytest.raises(
        ControllerDiskFull, match=r"1\.0 KiB are to be written and 1048576\.0 TiB must stay free"
    ) as caught:
        check_space(str(tmp_path), needed=1024, min_free=1 << 60)
    assert caught.value.details["path"] == str(tmp_path)
    assert "stay on the build machine" in caught.value.remedy
    with pytest.raises(
        ControllerDiskFull, match=r" free, 1048576\.0 TiB must stay free \(portbuild_min_free\)\. Lower it"
    ) as caught:
        check_space(str(tmp_path), min_free=1 << 60, remedy="Lower it.")
    assert caught.value.details["needed"] == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path: pathlib.Path, code: int) -> None:
    with pytest.raises(ControllerDiskFull), full_disk_is_named(str(tmp_path)):
        raise OSError(code, os.strerror(code))


def test_other_errors_pass(tmp_path: pathlib.Path) -> None:
    with pytest.raises(PermissionError), full_disk_is_named(str(tmp_path)):
        raise PermissionError(errno.EACCES, "no")
