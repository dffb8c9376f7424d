# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection awx.awx, for tests, from PyPI: the package C(ansible) holds it. Nothing else of that is unpacked."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

from .project import CACHE, ToolError

PACKAGE = "ansible==11.13.0"
SHA256 = "7f1c9c6a6026ff214d9240647e4d2b019b2a9d4c7a2bc733932bcf92af80ab04"
PREFIX = "ansible_collections/awx/awx/"
VERSION = "24.6.1"


def ensure(python: str = sys.executable) -> pathlib.Path:
    """Return the directory in which Ansible finds awx.awx; fetch it once, checked by its sum."""
    directory = CACHE / f"awx-{VERSION}"
    if directory.exists():
        return directory
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".awx-") as temporary:
        top = pathlib.Path(temporary)
        pinned = top / "requirements.txt"
        pinned.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="ascii")
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(top)]
        argv = [python, "-m", "pip", "--disable-pip-version-check", "download", *options, "--requirement", str(pinned)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ToolError(f"{PACKAGE} cannot be fetched from PyPI:\n{done.stdout}{done.stderr}".rstrip())
        (wheel,) = top.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            wanted = [name for name in archive.namelist() if name.startswith((f"{PREFIX}plugins/", f"{PREFIX}meta/"))]
            archive.extractall(top / "found", [*wanted, f"{PREFIX}MANIFEST.json"])
        try:
            (top / "found").rename(directory)
        except OSError:  # another test run was faster
            if not directory.exists():
                raise
            shutil.rmtree(top / "found")
    return directory
