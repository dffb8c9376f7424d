# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The artifact, installed into an empty path, with nothing left of it but what a collection must work with.

C(make release) says which artifact with PORTBUILD_TEST_ARTIFACT; else it is made of this checkout.
"""

from __future__ import annotations

import os
import pathlib
import sys
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster import _farm
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm
from ansible_collections.portbuild.cluster.tests.tools import artifact, sanity

TOOLS = pathlib.Path(sys.executable).parent
GIVEN = os.environ.get("PORTBUILD_TEST_ARTIFACT")
pytestmark = pytest.mark.slow


def variables(home: pathlib.Path) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {**mine, "ANSIBLE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The installed collection."""
    top = tmp_path_factory.mktemp("artifact")
    home = variables(top / "home")
    if GIVEN:
        made = pathlib.Path(GIVEN)
    else:
        (top / "made").mkdir()
        made = artifact.build(sanity.copy_collection(top / "source"), top / "made", TOOLS, home)
    return artifact.install(made, top / "installed", TOOLS, home)


def test_ansible_reads_all_of_it(installed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    plugins = len(list(installed.glob("plugins/modules/[!_]*.py")))
    assert artifact.look(installed, TOOLS, variables(tmp_path)) > plugins


def test_it_builds_a_package(
    installed: pathlib.Path, farm: Farm, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(_farm, "COLLECTIONS", installed.parents[2])
    # What the checkout has on PYTHONPATH would be found before what is installed.
    environment = farm.environment

    def without_the_checkout() -> dict[str, str]:
        return {name: value for name, value in environment().items() if name != "PYTHONPATH"}

    monkeypatch.setattr(farm, "environment", without_the_checkout)
    where: t.Any = farm.adhoc(
        "localhost", "-m", "ansible.builtin.debug", "-a", "msg={{ lookup('portbuild.cluster.queue') }}"
    )
    assert "client1" in where.ok().output
    assert str(installed) in farm.play("dispatch", "-vvv", package="pb-null").ok().output
    assert farm.builds("pb-null")[-1]["outcome"] == "success"
    farm.assert_idle()
