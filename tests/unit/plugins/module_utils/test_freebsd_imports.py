# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client's library on a Python that has none of what only Linux has."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import pytest

from ansible_collections.portbuild.cluster.plugins import module_utils

LIBRARY = pathlib.Path(module_utils.__path__[0])
#: All but what imports Ansible, which not every Python that tests run on has.
MODULES = sorted(
    path.stem for path in LIBRARY.glob("_*.py") if not path.stem.startswith(("__init__", "_modules", "_step_"))
)

#: What is not in os, select, signal, resource and socket on FreeBSD: this stands for such a Python.
_PRETEND = r"""
import importlib, json, os, resource, select, signal, socket, sys

for module, names in (
    (os, "setns unshare pidfd_open memfd_create getxattr setxattr listxattr removexattr O_PATH O_TMPFILE O_NOATIME"
         " splice eventfd sched_setaffinity posix_openpt setresuid32 copy_file_range O_LARGEFILE ST_NOEXEC ST_NODEV"),
    (os, " ".join(name for name in dir(os) if name.startswith(("CLONE_", "P_PIDFD", "EFD_", "XATTR_")))),
    (select, " ".join(name for name in dir(select) if name.lower().startswith("epoll"))),
    (signal, "pidfd_send_signal SIGSTKFLT SIGPWR SIGPOLL"),
    (resource, "prlimit RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_SIGPENDING RLIMIT_LOCKS"),
    (socket, " ".join(name for name in dir(socket) if name.startswith(("AF_NETLINK", "AF_PACKET", "SO_PEERCRED")))),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
os.uname = lambda: os.uname_result(("FreeBSD", "host", "15.1-RELEASE", "FreeBSD 15.1-RELEASE", "amd64"))
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(f"library.{name}")
from library import _backends, _isolation, _process, _remains
print(json.dumps([_process.LINUX, sorted(_backends.BACKENDS), list(_backends.PREFERENCE)]))
print(json.dumps(type(_isolation.get_isolation("/s", "/s/chroots/a/b/c", 1)).__name__))
"""

_LINUX_FILES = {"_linux", "_cgroups", "_isolation_linux", "_backends_linux", "_spares", "_bindist_debian"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing needs to be pretended")
def test_everything_can_be_imported(tmp_path: pathlib.Path):
    (tmp_path / "library").symlink_to(LIBRARY)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _PRETEND, str(tmp_path), *MODULES], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    drivers, isolation = map(json.loads, done.stdout.splitlines())
    assert drivers == [False, ["directory", "tmpfs", "zfs"], ["zfs", "directory"]]
    assert isolation == "FreeBSDIsolation"


@pytest.mark.parametrize("module", [name for name in MODULES if name not in _LINUX_FILES])
def test_only_the_files_for_linux_use_what_only_linux_has(module: str):
    text = (LIBRARY / f"{module}.py").read_text(encoding="utf-8")
    assert not re.findall(r"os\.(?:setns|unshare|pidfd_\w+|O_PATH|O_TMPFILE|\w+xattr|memfd\w+)\b|select\.epoll", text)


def test_the_list_of_modules_is_not_empty():
    assert {"_supervisor", "_isolation_freebsd", "_backends_freebsd"} <= set(MODULES)
