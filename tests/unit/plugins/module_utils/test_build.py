# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Installing the supervisor's program from whatever the module came in."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import _build
from ansible_collections.portbuild.cluster.plugins.module_utils._build import (
    install_supervisor,
    start_supervisor,
    SupervisorError,
)
from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job

PACKAGE = "ansible_collections/portbuild/cluster/plugins/module_utils"


def test_the_program_is_complete(tmp_path: pathlib.Path) -> None:
    """It imports everything it has, isolated from what else is on the machine."""
    program = pathlib.Path(install_supervisor(str(tmp_path)))
    names = sorted(path.stem for path in (program.parent / "portbuild_supervisor").glob("_[a-z]*.py"))
    script = f"import sys; sys.path.insert(0, {str(program.parent)!r})\n"
    script += "".join(f"import portbuild_supervisor.{name}\n" for name in names)
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True, timeout=60)
    assert "_supervisor" in names and "_isolation_linux" in names and "_build" not in names


def test_it_is_installed_once_and_repaired(tmp_path: pathlib.Path) -> None:
    program = install_supervisor(str(tmp_path))
    before = os.stat(program)
    assert install_supervisor(str(tmp_path)) == program
    assert os.stat(program).st_ino == before.st_ino
    broken = pathlib.Path(program).parent / "portbuild_supervisor" / "_supervisor.py"
    broken.write_text("")  # as a power failure may leave it
    assert install_supervisor(str(tmp_path)) == program
    assert broken.read_text()
    assert {path.name for path in (tmp_path / "lib").iterdir()} == {pathlib.Path(program).parent.name, ".lock"}


def test_another_version_stands_beside_it(tmp_path: pathlib.Path) -> None:
    files = {"portbuild-supervisor": b"1", "portbuild_supervisor/__init__.py": b""}
    first = install_supervisor(str(tmp_path), files)
    second = install_supervisor(str(tmp_path), {**files, "portbuild-supervisor": b"2"})
    assert first != second and os.path.exists(first) and os.path.exists(second)


def test_it_is_read_from_a_zip_file(tmp_path: pathlib.Path) -> None:
    """That is how Ansible sends modules."""
    archive = tmp_path / "payload.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
        directory = ""
        for part in PACKAGE.split("/"):
            directory += f"{part}/"
            stream.writestr(f"{directory}__init__.py", "")
        for path in pathlib.Path(_build.__file__).parent.glob("_*.py"):
            if path.name != "__init__.py":
                stream.write(path, f"{PACKAGE}/{path.name}")
    script = f"""
import sys
sys.path.insert(0, {str(archive)!r})
from ansible_collections.portbuild.cluster.plugins.module_utils._build import install_supervisor
sys.stdout.write(install_supervisor({str(tmp_path / "zip")!r}))
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert os.path.basename(os.path.dirname(done.stdout)) == os.path.basename(
        os.path.dirname(install_supervisor(str(tmp_path / "directory")))
    )


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("raise SystemExit(1)", "without a word"),
        ("import os; os.write(int(__import__('sys').argv[3]), b'no room')", "no room"),
    ],
)
def test_what_goes_wrong_at_the_start_is_told_at_once(tmp_path: pathlib.Path, program: str, complaint: str) -> None:
    path = tmp_path / "program"
    path.write_text(program)
    with pytest.raises(SupervisorError, match=complaint):
        start_supervisor(str(path), Job("a", "b", "c"), str(tmp_path))


def test_a_chroot_without_a_request_is_an_error_at_the_start(tmp_path: pathlib.Path) -> None:
    with pytest.raises(SupervisorError, match=r"build\.json"):
        start_supervisor(install_supervisor(str(tmp_path)), Job("a", "b", "c"), str(tmp_path))
