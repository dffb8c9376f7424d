# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Further controllers for the same clients, each with a root directory of its own."""

from __future__ import annotations

import pathlib
import shutil
import typing as t

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm


def another(farm: Farm, root: pathlib.Path, **variables: t.Any) -> Farm:
    """Return a controller that has the branch's bindist. Keyword arguments are portbuild_ variables without prefix."""
    new = Farm(farm.cluster, root, variables={f"portbuild_{name}": value for name, value in variables.items()})
    copy_bindist(farm, new)
    return new


def copy_bindist(farm: Farm, new: Farm) -> None:
    """Give the branch of a controller the bindist of another's."""
    for path in (farm.branch_directory / "tarballs").iterdir():
        if path.is_dir():  # the one in which a tarball arrived
            continue
        copy = new.branch_directory / "tarballs" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            copy.hardlink_to(path)  # 200 MB that nothing changes in place
        except OSError:
            shutil.copy2(path, copy)
