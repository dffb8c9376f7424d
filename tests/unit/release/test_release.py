# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The release: one version in one place, and a changelog that is made of fragments exactly once."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
import yaml

from ansible_collections.portbuild.cluster.tests.tools import release
from ansible_collections.portbuild.cluster.tests.tools.project import ToolError

COLLECTION = pathlib.Path(__file__).resolve().parents[3]
TOOLS = pathlib.Path(sys.executable).parent


def test_the_version_stands_in_one_place() -> None:
    number = release.version(COLLECTION)
    assert yaml.safe_load((COLLECTION / "galaxy.yml").read_text(encoding="utf-8"))["version"] == number
    said = [word for text in (f"version: {number}", f"cluster-{number}", f"cluster {number}") for word in ("-e", text)]
    listing = subprocess.run(
        ["git", "grep", "-lwF", *said, "--", ".", ":!tests"], cwd=COLLECTION, capture_output=True, text=True, check=True
    )
    assert set(listing.stdout.split()) - {"CHANGELOG.md"} == {"galaxy.yml"}


def test_galaxy_yml_is_complete() -> None:
    galaxy = yaml.safe_load((COLLECTION / "galaxy.yml").read_text(encoding="utf-8"))
    for name in ("repository", "documentation", "homepage", "issues"):
        assert galaxy[name].startswith("https://")
    assert galaxy["license"] == ["GPL-3.0-or-later"]
    assert galaxy["dependencies"] == {}
    assert len(galaxy["tags"]) <= 20


@pytest.mark.parametrize("text", ["", "version: 1.0", "version: 1.0.0\nversion: 1.0.1", "version: latest"])
def test_a_version_that_is_none(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "galaxy.yml").write_text(text, encoding="utf-8")
    with pytest.raises(ToolError, match="no version"):
        release.version(tmp_path)


def test_its_state_files_are_kept(tmp_path: pathlib.Path) -> None:
    release.check_sample(COLLECTION, "1.0.0")
    with pytest.raises(ToolError, match=r"no state files of 1\.0\.0 for later versions"):
        release.check_sample(tmp_path, "1.0.0")


@pytest.fixture
def changes(tmp_path: pathlib.Path) -> pathlib.Path:
    """A checkout's changelogs, as far as release looks at them."""
    (tmp_path / "changelogs" / "fragments").mkdir(parents=True)
    (tmp_path / "changelogs" / "changelog.yaml").write_text("ancestor: null\nreleases:\n  1.0.0:\n    changes: {}\n")
    return tmp_path


def test_what_is_released_stays_as_it_is(changes: pathlib.Path) -> None:
    assert release.is_released(changes, "1.0.0")
    assert not release.is_released(changes, "1.0")
    assert not release.is_released(changes, "1x0.0")
    assert release.write_changelog(changes, "1.0.0", TOOLS) is False
    (changes / "changelogs" / "fragments" / "more.yml").touch()
    with pytest.raises(ToolError, match=r"Raise it in galaxy\.yml"):
        release.write_changelog(changes, "1.0.0", TOOLS)


def test_without_changes_there_is_no_release(changes: pathlib.Path) -> None:
    with pytest.raises(ToolError, match=r"nothing to say of 1\.1\.0"):
        release.write_changelog(changes, "1.1.0", TOOLS)
