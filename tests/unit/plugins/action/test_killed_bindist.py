# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a bindist leaves on the controller when its dispatch is killed while it comes home."""

from __future__ import annotations

import hashlib
import os
import pathlib
import types
import typing as t

from ansible_collections.portbuild.cluster.plugins.action.make_bindist import ActionModule
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import resolve
from ansible_collections.portbuild.cluster.tests.unit.plugins.plugin_utils._branch import JOB, make_layout

CONTENT = b"base system"


def make(layout: Layout, receive: t.Callable[[str], object]) -> dict[str, t.Any]:
    """Run the controller's half, with a machine whose tarball comes home by this function."""
    about = {"root": layout.root, "arch": layout.arch, "branch": layout.branch, "system": "debian"}
    settings = resolve({f"portbuild_{name}": value for name, value in about.items()}, None)
    made = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}
    action: t.Any = ActionModule.__new__(ActionModule)
    action._task = types.SimpleNamespace(delegate_to="a1", check_mode=False)
    action.context = lambda *_unused, **_options: types.SimpleNamespace(settings=settings, layout=layout)
    action.remote = lambda *_unused, **_options: made
    action.receive = lambda _remote, local, **_options: receive(local)
    result: dict[str, t.Any] = action.step({}, {})
    return result


def files(layout: Layout) -> list[str]:
    return sorted(path.name for path in pathlib.Path(layout.tarballs).rglob("*") if path.is_file())


def test_what_a_killed_transfer_left_goes_with_the_next(tmp_path: pathlib.Path) -> None:
    layout = make_layout(tmp_path)
    assert layout.arch == JOB.arch

    def die(local: str) -> None:
        pathlib.Path(local).write_bytes(CONTENT[:4])
        os._exit(0)  # as good as a kill

    child = os.fork()
    if child == 0:
        make(layout, die)
    os.waitpid(child, 0)
    assert len(files(layout)) == 1
    make(layout, lambda local: pathlib.Path(local).write_bytes(CONTENT))
    assert files(layout) == ["bindist.json", "bindist.tar"]
