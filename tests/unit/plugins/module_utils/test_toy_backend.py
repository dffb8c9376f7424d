# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backend of the guide in docs/chroot-backends.md passes the tests of the others."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import _backends, _backends_freebsd, _backends_linux
from ansible_collections.portbuild.cluster.plugins.module_utils._names import BACKENDS
from ansible_collections.portbuild.cluster.tests.guides import add_backend, CHECKOUT, copy_collection, DOCS

TESTS = ("tests/__init__.py", "tests/conftest.py", "tests/tools", "tests/unit/plugins/module_utils/test_backends.py")


@pytest.mark.root
def test_the_backend_of_the_guide(tmp_path: pathlib.Path):
    pytest.importorskip("ansible")  # where there is none, no argument specs can be made
    collection = copy_collection(tmp_path)
    add_backend(collection, DOCS / "chroot-backends.md", "copy")
    for name in TESTS:
        source, target = CHECKOUT / name, collection / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "--import-mode=importlib", "-k", "TestEachBackend", TESTS[-1]],
        cwd=collection,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "copy" in done.stdout


def test_all_lists_of_backends_agree():
    drivers = {driver.name for driver in (*_backends_freebsd.DRIVERS, *_backends_linux.DRIVERS)}
    assert drivers | set(_backends.BACKENDS) == set(BACKENDS)
