# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The execution environment: ansible-builder accepts its definition, and finds in the collection what it needs."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import typing as t

from .project import CACHE, CHECKOUT, COLLECTIONS, say

DEFINITION = CHECKOUT / "execution-environment.yml"
#: What ansible-builder is to find, in files of the collection.
NEEDS = {
    "--write-pip": CHECKOUT / "meta" / "ee-requirements.txt",
    "--write-bindep": CHECKOUT / "meta" / "ee-bindep.txt",
}


def entries(path: pathlib.Path) -> list[str]:
    """Return the lines of a list of requirements, without comments."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return sorted(filter(None, (line.partition("#")[0].strip() for line in lines)))


def check(tools: pathlib.Path, variables: t.Mapping[str, str]) -> int:
    """Make the build context, and look into the collection as its build does; return an exit status."""
    builder = str(tools / "ansible-builder")
    top = CACHE / "execution-environment"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(parents=True)
    written = {option: top / path.name for option, path in NEEDS.items()}
    options = [word for option, path in written.items() for word in (option, str(path))]
    create = [builder, "create", "--file", str(DEFINITION), "--context", str(top / "context")]
    introspect = [builder, "introspect", *options, str(COLLECTIONS)]
    for argv in (create, introspect):
        done = subprocess.run(argv, cwd=top, env=variables, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            return done.returncode
    different = [path for option, path in NEEDS.items() if entries(path) != entries(written[option])]
    for path in different:
        say(f"ansible-builder does not find what {path} says.")
    return int(bool(different))
