# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-test on each ansible-core that the machine's Pythons allow, from PyPI alone.

Its sanity tests are all run. Its units and integration are for what it takes to show that the collection is one that
ansible-test can test: our own runs of pytest need processes, mounts and build machines that it does not provide.

ansible-test --venv bootstraps pip in its environments with a get-pip script from a server that may be out of reach, but
takes one from its cache if it is there. The stand-in written here installs pip from a wheel that pip itself fetched.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

from . import venvs
from .project import CACHE, CHECKOUT, environment, say, ToolError
from .pythons import Python

STAND_IN = """\
# Put here by tests/tools/sanity.py: does what get-pip would, with a wheel of the same pip.
import sys

sys.path.insert(0, {wheel!r})
from pip._internal.cli.main import main

sys.exit(main(["install", "--no-deps", "--no-index", "--quiet", {wheel!r}]))
"""


def copy_collection(top: pathlib.Path) -> pathlib.Path:
    """Copy what git knows or would add into a git tree where ansible-test expects a collection."""
    target = top / "ansible_collections" / "portbuild" / "cluster"
    if target.exists():
        shutil.rmtree(target)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        source = CHECKOUT / name
        if source.is_symlink() or source.is_file():  # git still lists what has just been removed
            destination = target / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, destination, follow_symlinks=False)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=target, check=True)
    return target


def pip_version(python: pathlib.Path) -> str:
    """Return the version of pip that this ansible-test wants to bootstrap."""
    ask = "import ansible_test, pathlib; print(pathlib.Path(next(iter(ansible_test.__path__))))"
    package = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    source = pathlib.Path(package, "_internal", "python_requirements.py").read_text(encoding="utf-8")
    match = re.search(r"\bpip='([0-9.]+)'", source)
    if not match:
        raise ToolError("Cannot tell which pip this ansible-test wants.")
    return match.group(1)


def prepare_pip(python: pathlib.Path, home: pathlib.Path) -> None:
    """Put the stand-in for get-pip where this ansible-test looks for it."""
    version = pip_version(python)
    wheels = CACHE / "wheels"
    wheel = wheels / f"pip-{version}-py3-none-any.whl"
    if not wheel.exists():
        download = [str(python), "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
        subprocess.run([*download, f"pip=={version}"], check=True)
    script = home / ".ansible" / "test" / "cache" / f"get_pip_{version.replace('.', '_')}.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(STAND_IN.format(wheel=str(wheel)), encoding="utf-8")


#: What ansible-test's units run: plugins that a controller loads.
UNITS = ("tests/unit/plugins/inventory/", "tests/unit/plugins/lookup/")


def sanity(python: Python) -> int:
    """Run the sanity tests on this Python's ansible-core; return an exit status."""
    return ansible_test(python, "sanity")


def units_and_integration(python: Python) -> int:
    """Run some unit tests and the integration targets on this Python's ansible-core; return an exit status."""
    return ansible_test(python, "units", *UNITS) or ansible_test(python, "integration")


def ansible_test(python: Python, kind: str, *what: str) -> int:
    """Run one kind of tests, of a copy of the collection; return an exit status."""
    inside = venvs.ensure(python)
    top = CACHE / "sanity" / python.core
    collection = copy_collection(top)
    home = top / "home"  # for ansible-test's cache and environments: nothing in the caller's own
    prepare_pip(inside, home)
    variables = environment(inside)
    for name in ("PYTHONPATH", "ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_HOME", "LC_ALL"):
        variables.pop(name)
    variables.update(HOME=str(home), PIP_QUIET="1", PIP_PROGRESS_BAR="off", PIP_NO_WARN_SCRIPT_LOCATION="1")
    argv = [str(inside.parent / "ansible-test"), kind, "--venv", "--python", python.name, "--color", "no", *what]
    say(f"ansible-test {kind} with core {python.core}, Python {python.name}")
    done = subprocess.run(argv, cwd=collection, env=variables, stdin=subprocess.DEVNULL, check=False)
    return done.returncode
