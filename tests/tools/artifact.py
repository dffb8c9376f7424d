# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The artifact of the collection: what C(ansible-galaxy collection build) makes, and whether that is all one needs."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import tarfile
import typing as t

from .project import ToolError

#: What stands at the top of an artifact; all else is a slip in galaxy.yml's build_ignore.
HOLDS = frozenset(
    "CHANGELOG.md FILES.json LICENSES MANIFEST.json README.md REUSE.toml awx changelogs docs execution-environment.yml "
    "meta playbooks plugins requirements.txt roles".split()
)
#: What a collection must work with alone.
NEEDS = frozenset({"meta", "playbooks", "plugins", "roles"})
#: The warning about what was removed.
EXPECTED = "does not have a MANIFEST.json file"
KINDS = ("module", "lookup", "inventory", "role")


def run(argv: t.Sequence[str], variables: t.Mapping[str, str], cwd: pathlib.Path) -> str:
    """Run a command and return what it prints; raise ToolError with all of it if it fails or warns."""
    done = subprocess.run(
        argv, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if EXPECTED not in line]
    if done.returncode != 0 or any(line.startswith(("[WARNING]", "[ERROR]")) for line in lines):
        raise ToolError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def build(
    source: pathlib.Path, target: pathlib.Path, tools: pathlib.Path, variables: t.Mapping[str, str]
) -> pathlib.Path:
    """Build the collection that is in the source directory; return its artifact, whose content was looked at."""
    argv = [str(tools / "ansible-galaxy"), "collection", "build", "--force", "--output-path", str(target), str(source)]
    run(argv, variables, target)
    (artifact,) = target.glob("portbuild-cluster-*.tar.gz")
    with tarfile.open(artifact) as archive:
        names = archive.getnames()
    strange = sorted({name.split("/")[0] for name in names} - HOLDS)
    strange += [name for name in names if name.endswith((".pyc", "~", ".orig")) or "__pycache__" in name]
    if strange:
        raise ToolError(
            f"{artifact} holds what it should not: {', '.join(strange[:20])}. See build_ignore in galaxy.yml."
        )
    return artifact


def install(
    artifact: pathlib.Path, target: pathlib.Path, tools: pathlib.Path, variables: t.Mapping[str, str]
) -> pathlib.Path:
    """Install the artifact into an empty path, and remove all that it must not need; return where it is."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    galaxy = [str(tools / "ansible-galaxy"), "collection", "install", "--offline", "--no-deps"]
    run([*galaxy, "--collections-path", str(target), str(artifact)], _alone(variables, target), target)
    collection = target / "ansible_collections" / "portbuild" / "cluster"
    for path in collection.iterdir():
        if path.name not in NEEDS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return collection


def _alone(variables: t.Mapping[str, str], target: pathlib.Path) -> dict[str, str]:
    """Return the environment in which Ansible finds no collection elsewhere, the checkout's least of all."""
    return {
        **{name: value for name, value in variables.items() if name != "PYTHONPATH"},
        "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "False",
        "ANSIBLE_COLLECTIONS_PATH": str(target),
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
    }


def look(collection: pathlib.Path, tools: pathlib.Path, variables: t.Mapping[str, str]) -> int:
    """Have Ansible read each plugin's documentation and each playbook; return how many of both there were."""
    top = collection.parents[2]
    alone = _alone(variables, top)
    count = 0
    for kind in KINDS:
        about = [str(tools / "ansible-doc"), "--type", kind, "--json"]
        names = sorted(json.loads(run([*about, "--list", "portbuild.cluster"], alone, top)))
        found = json.loads(run([*about, *names], alone, top)) if names else {}
        if sorted(found) != names or not names:
            raise ToolError(f"ansible-doc knows the {kind}s {names}, and tells of {sorted(found)}.")
        count += len(names)
    files = sorted(collection.joinpath("plugins", "modules").glob("[!_]*.py"))
    modules = json.loads(run([str(tools / "ansible-doc"), "--json", "--list", "portbuild.cluster"], alone, top))
    if {f"portbuild.cluster.{path.stem}" for path in files} != set(modules):
        raise ToolError("ansible-doc does not list all modules.")
    for path in sorted(collection.joinpath("playbooks").glob("*.yml")):
        check = [str(tools / "ansible-playbook"), "--inventory", "localhost,", "--syntax-check"]
        group = ["-e", "portbuild_machines=localhost"]
        run([*check, *group, f"portbuild.cluster.{path.stem}"], alone, top)
        count += 1
    return count
