# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller needs is said in one place, meta/ee-requirements.txt and meta/runtime.yml; all others agree."""

from __future__ import annotations

import pathlib
import re
import typing as t

import yaml

COLLECTION = pathlib.Path(__file__).resolve().parents[3]


def text(name: str) -> str:
    return (COLLECTION / name).read_text(encoding="utf-8")


def load(name: str) -> t.Any:
    return yaml.safe_load(text(name))


def requirements(name: str) -> dict[str, str]:
    """Return the least version of each library in a file of requirements."""
    lines = [line for line in text(name).splitlines() if line and not line.startswith(("#", "-r"))]
    return {re.split(r"\s*>=\s*", line)[0]: re.split(r"\s*>=\s*", line)[1] for line in lines}


LIBRARIES = requirements("meta/ee-requirements.txt")
CORE = load("meta/runtime.yml")["requires_ansible"].removeprefix(">=")


def short(version: str) -> str:
    return version.removesuffix(".0")


def test_requirements_txt_is_that_list_and_ansible_core() -> None:
    assert "-r meta/ee-requirements.txt" in text("requirements.txt").splitlines()
    assert requirements("requirements.txt") == {"ansible-core": CORE}


def test_the_readme_installs_that() -> None:
    readme = " ".join(text("README.md").split())
    (command,) = re.findall(r"\$ pip install '(ansible-core>=[0-9.]+)' ([a-z -]+?) ```", readme)
    assert command[0] == f"ansible-core>={short(CORE)}"
    assert sorted(command[1].split()) == sorted(LIBRARIES)
    assert f"ansible-core {short(CORE)} or newer" in readme
    for library, version in LIBRARIES.items():
        assert library in readme
        told = re.findall(rf"{library} ([0-9.]+) or newer", readme)
        assert {short(found) for found in told} <= {short(version)}


def test_modules_name_the_same_versions() -> None:
    for path in (COLLECTION / "plugins" / "modules").glob("*.py"):
        said = re.findall(r"^  - ([a-z-]+) >= ([0-9.]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        for library, version in said:
            assert short(version) == short({**LIBRARIES, "ansible-core": CORE}[library]), path.name


def test_the_execution_environment_has_it_all() -> None:
    about = load("meta/execution-environment.yml")["dependencies"]
    assert about == {"python": "meta/ee-requirements.txt", "system": "meta/ee-bindep.txt"}
    dependencies = load("execution-environment.yml")["dependencies"]
    assert dependencies["ansible_core"] == {"package_pip": f"ansible-core>={CORE}"}
    assert dependencies["ansible_runner"] == {"package_pip": f"ansible-runner>={LIBRARIES['ansible-runner']}"}
    galaxy = load("galaxy.yml")
    assert [entry["name"] for entry in dependencies["galaxy"]["collections"]] == [
        f"{galaxy['namespace']}.{galaxy['name']}"
    ]
