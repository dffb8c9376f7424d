# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

testing = pytest.importorskip("ansible.module_utils.testing")

from ansible_collections.portbuild.cluster.plugins.module_utils import _bindist_debian as bindist
from ansible_collections.portbuild.cluster.plugins.module_utils._bindist import BindistError, Made
from ansible_collections.portbuild.cluster.plugins.modules import make_bindist

RECIPE = bindist.Recipe("bookworm", "amd64", "buildd", ("fakeroot",), "deb x\n", "/k.gpg", "builder", 1500, ())


def run(arguments: dict[str, t.Any], capsys: pytest.CaptureFixture[str]) -> dict[str, t.Any]:
    with testing.patch_module_args(arguments), pytest.raises(SystemExit):
        make_bindist.main()
    result: dict[str, t.Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> list[bindist.Wish]:
    """Nothing real is made; what would be is listed."""
    wishes: list[bindist.Wish] = []

    def make(wish: bindist.Wish, _recipe: bindist.Recipe, _run: t.Any) -> Made:
        wishes.append(wish)
        return Made(wish.path, "a" * 64, 3, 1.0)

    monkeypatch.setattr(bindist, "plan_bindist", lambda wish, run: RECIPE)
    monkeypatch.setattr(bindist, "make_bindist", make)
    return wishes


def test_check_mode_makes_nothing(
    making: list[bindist.Wish], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run({"path": str(tmp_path / "x"), "_ansible_check_mode": True}, capsys)
    assert result["changed"] is True
    assert (result["sha256"], result["suite"]) == ("", "bookworm")
    assert making == []


def test_a_base_that_is_there_is_left_alone(
    making: list[bindist.Wish],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = {"path": str(tmp_path / "x"), "include": ["ccache"], "suite": "bookworm"}
    assert run(arguments, capsys)["changed"] is True
    assert making[0].include == ["ccache"]
    monkeypatch.setattr(make_bindist, "find_bindist", lambda path, recipe: Made(path, "b" * 64, 3, 1.0))
    assert run(arguments, capsys)["changed"] is False
    assert run({**arguments, "force": True}, capsys)["sha256"] == "a" * 64


def test_what_cannot_be_made_says_why(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(wish: bindist.Wish, run: t.Any) -> t.NoReturn:
        raise BindistError("No keyring.", remedy="Install it.", details={"rc": 1})

    monkeypatch.setattr(bindist, "plan_bindist", fail)
    result = run({"path": str(tmp_path / "x")}, capsys)
    assert result["failed"] is True
    assert (result["msg"], result["infrastructure"], result["rc"]) == ("No keyring. Install it.", True, 1)
