# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""C(make release): everything but the upload. Nothing in the checkout changes unless all of it went well."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

from . import artifact, host, testing, venvs
from .project import CACHE, CHECKOUT, environment, link_collection, say, ToolError

RELEASE = CACHE / "release"
INSTALLED = "tests/integration_cluster/test_installed.py"


def git(*argv: str, cwd: pathlib.Path = CHECKOUT) -> str:
    """Return what git prints."""
    done = subprocess.run(
        ["git", *argv], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ToolError(f"git {' '.join(argv)} says:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def version(top: pathlib.Path) -> str:
    """Return the version, which stands in galaxy.yml and nowhere else."""
    found: list[str] = re.findall(
        r"^version: *(\S+)$", top.joinpath("galaxy.yml").read_text(encoding="utf-8"), re.MULTILINE
    )
    if len(found) != 1 or not re.fullmatch(r"\d+\.\d+\.\d+(?:-[0-9a-z.]+)?", found[0]):
        raise ToolError("galaxy.yml has no version of the form 1.2.3.")
    return found[0]


def is_released(top: pathlib.Path, number: str) -> bool:
    """Say whether the changelog has the version already."""
    text = top.joinpath("changelogs", "changelog.yaml").read_text(encoding="utf-8")
    return re.search(rf"^  {re.escape(number)}:$", text, re.MULTILINE) is not None


def check_sample(top: pathlib.Path, number: str) -> None:
    """Fail unless the state files of the version are kept: no later version can take them."""
    if not top.joinpath("tests", "upgrade", f"{number}.txt").is_file():
        raise ToolError(f"There are no state files of {number} for later versions: run python -m upgrade.")


def write_changelog(clone: pathlib.Path, number: str, tools: pathlib.Path) -> bool:
    """Make the changelog of fragments, and commit it; return whether there was anything to do."""
    fragments = sorted(path.name for path in clone.joinpath("changelogs", "fragments").glob("*.yml"))
    if is_released(clone, number):
        if fragments:
            raise ToolError(
                f"{number} is released already, but there are fragments: {', '.join(fragments)}. Raise it in galaxy.yml."
            )
        return False
    if not fragments:
        raise ToolError(f"There is nothing to say of {number}: changelogs/fragments is empty.")
    variables = environment(tools / "python")
    changelog = str(tools / "antsibull-changelog")
    artifact.run([changelog, "lint"], variables, clone)
    artifact.run([changelog, "release"], variables, clone)
    if not is_released(clone, number):
        raise ToolError(f"antsibull-changelog has not put {number} into changelogs/changelog.yaml.")
    git("add", "--all", cwd=clone)
    git("commit", "--quiet", f"--message=Release {number}", cwd=clone)
    return True


def release() -> int:
    """Make the changelog, build, install, try it; then, and only then, take the changelog over into the checkout."""
    host.require({**host.FOR_CLUSTER, "git": "git"})
    link_collection()
    if changed := git("status", "--porcelain").splitlines():
        raise ToolError("The checkout is not clean:\n" + "\n".join(changed[:20]))
    number = version(CHECKOUT)
    check_sample(CHECKOUT, number)
    newest = testing.newest()
    python, lint = venvs.ensure(newest), venvs.ensure(newest, "lint")
    shutil.rmtree(RELEASE, ignore_errors=True)
    # Where antsibull-changelog and Ansible look for a collection.
    clone = RELEASE / "ansible_collections" / "portbuild" / "cluster"
    git("clone", "--quiet", "--no-hardlinks", str(CHECKOUT), str(clone))
    for name in ("user.name", "user.email"):
        git("config", name, git("log", "-1", f"--format=%{'an' if name == 'user.name' else 'ae'}").strip(), cwd=clone)
    say(f"{number}: the changelog")
    written = write_changelog(clone, number, lint.parent)
    say(f"{number}: the artifact")
    variables = environment(python)
    made = artifact.build(clone, RELEASE, python.parent, variables)
    if made.name != f"portbuild-cluster-{number}.tar.gz":
        raise ToolError(f"The artifact is called {made.name}.")
    say(f"{number}: installed into an empty path, and tried")
    variables["PORTBUILD_TEST_ARTIFACT"] = str(made)
    argv = [str(python), "-m", "pytest", "--quiet", "--timeout", "900", INSTALLED]
    if subprocess.run(argv, cwd=CHECKOUT, env=variables, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        raise ToolError(f"{made} does not pass its test; nothing has changed here.")
    if written:
        git("pull", "--quiet", "--ff-only", str(clone), "HEAD")
        say("Committed here: the changelog.")
    say(f"\nReady: {made}\nWhat is left:\n  git tag {number} && git push origin HEAD {number}")
    say(f"  ansible-galaxy collection publish {made}")
    return 0
