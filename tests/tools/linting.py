# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The quality gates: all of them, each shown by name, then a table of what they said."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import time
import typing as t

from . import builder, docs, host, sanity, testing, venvs
from .project import CACHE, CHECKOUT, environment, link_collection, say, ToolError
from .pythons import Python

#: antsibull-nox's sessions; formatters only looks here, "make format" lets it write.
SESSIONS = (
    "formatters",
    "codeqa",
    "yamllint",
    "typing",
    "antsibull-nox-config",
    "docs-check",
    "license-check",
    "extra-checks",
    "build-import-check",
)


def run(argv: t.Sequence[str], variables: t.Mapping[str, str]) -> int:
    """Run a gate's command in the checkout."""
    return subprocess.run(argv, cwd=CHECKOUT, env=variables, stdin=subprocess.DEVNULL, check=False).returncode


def shell_scripts() -> list[str]:
    """Return the shell scripts of the project."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in filter(None, names) if is_shell_script(CHECKOUT / name)]


def is_shell_script(path: pathlib.Path) -> bool:
    """Say whether the file is a script for sh or bash."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as stream:
        first = stream.readline(80)
    return first.startswith(b"#!") and first.split(b"#!")[1].split()[0].endswith((b"/sh", b"/bash"))


def gates() -> dict[str, t.Callable[[], int]]:
    """Return what runs each gate, in order."""
    pythons = testing.usable_pythons()
    controllers = [python for python in pythons if python.core]
    lint = venvs.ensure(controllers[-1], "lint")
    tools = lint.parent
    variables = {**environment(lint), "NO_COLOR": "1", "TERM": "dumb"}
    found: dict[str, t.Callable[[], int]] = {
        "shellcheck": lambda: run(["shellcheck", "--severity=warning", *shell_scripts()], variables),
        "bmake": lambda: run(["bmake", "-n", "help"], variables),
        "changelog": lambda: run([str(tools / "antsibull-changelog"), "lint"], variables),
        "ansible-lint": lambda: run([str(tools / "ansible-lint"), "--offline", "--strict"], variables),
        "execution-environment": lambda: builder.check(tools, variables),
    }
    found.update({session: functools.partial(nox, lint, session, variables) for session in SESSIONS})
    found["docs"] = docs.docs
    # The sanity tests import on the controller's Python; the clients' older ones get at least to read everything.
    found.update({f"compile-{python.name}": functools.partial(read_all, python) for python in pythons})
    found.update({f"sanity-{python.core}": functools.partial(sanity.sanity, python) for python in controllers})
    kinds = sanity.units_and_integration
    at_ends = (controllers[0], controllers[-1])
    found.update({f"ansible-test-{python.core}": functools.partial(kinds, python) for python in at_ends})
    return found


def read_all(python: Python) -> int:
    """Have the Python read what is to run on it."""
    parts = ["plugins"] if python.core else ["plugins/modules", "plugins/module_utils"]
    variables = {**environment(), "PYTHONPYCACHEPREFIX": str(CACHE / "bytecode")}
    return run([str(python.executable), "-m", "compileall", "-q", *parts], variables)


def nox(lint: pathlib.Path, session: str, variables: t.Mapping[str, str], *, look_only: bool = True) -> int:
    """Run a session of antsibull-nox, which makes its environments once."""
    argv = [str(lint), "-m", "nox", "--reuse-existing-virtualenvs", "--no-error-on-missing-interpreters", "-e", session]
    # In CI, the formatters say what they would change.
    return run(argv, {**variables, "CI": "true"} if look_only else {**variables, "CI": ""})


def lint(only: t.Collection[str] = ()) -> int:
    """Run the gates, or those that are named, all of them even if one fails; return an exit status."""
    host.require(host.FOR_LINT, root=False)
    link_collection()
    table = []
    failed = False
    everything = gates()
    unknown = set(only) - set(everything)
    if unknown:
        raise ToolError(f"There is no gate {', '.join(sorted(unknown))}. There are: {', '.join(everything)}.")
    for name, gate in everything.items():
        if only and name not in only:
            continue
        say(f"\n>>> {name}")
        begun = time.monotonic()
        bad = gate() != 0
        failed = failed or bad
        table.append(f"{'FAILED' if bad else 'ok':8} {time.monotonic() - begun:6.0f} s  {name}")
    say("\n" + "\n".join(table))
    return int(failed)


def reformat() -> int:
    """Let the formatters write."""
    python = venvs.ensure(testing.newest(), "lint")
    return nox(python, "formatters", environment(python), look_only=False)
