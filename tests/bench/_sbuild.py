# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same packages by sbuild, which benchmarks compare with."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.portbuild.cluster.tests.tools.host import as_root

SCRIPT = pathlib.Path(__file__).with_name("sbuild.sh")
ENDED = re.compile(r"^=== (\S+) (built|failed) ([0-9]+)$", re.MULTILINE)


class Built(t.NamedTuple):
    """What sbuild came to."""

    seconds: float
    #: Seconds, by package.
    packages: dict[str, float]
    failed: list[str]
    log: str

    def why(self) -> str:
        """Return the end of what it said."""
        return "\n".join(self.log.splitlines()[-15:])


def sbuild(
    bindist: pathlib.Path, branch: str, packages: t.Sequence[str], *, jobs: int = 1, timeout: float = 1800.0
) -> Built:
    """Build the packages one by one as an ordinary user from the same base, which is copied before the clock starts.

    The user, and its range of user ids, exist in a mount namespace only; processes end with their PID namespace.
    """
    home = pathlib.Path(tempfile.mkdtemp(prefix="portbuild-bench-", dir="/var/tmp"))
    try:
        tarball = home / "bindist.tar.gz"
        shutil.copyfile(bindist, tarball)
        os.sync()  # what is still to be written would be written on sbuild's time
        script = as_root(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", str(SCRIPT)])
        began = time.monotonic()
        done = subprocess.run(
            [*script, str(home), str(tarball), branch, str(jobs), *packages],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )
        seconds = time.monotonic() - began
    finally:
        subprocess.run(as_root(["rm", "-rf", "--one-file-system", "--", str(home)]), check=True)
    ended = {name: (result, float(took)) for name, result, took in ENDED.findall(done.stdout)}
    built = {name: took for name, (result, took) in ended.items() if result == "built"}
    return Built(seconds, built, [name for name in packages if name not in built], done.stdout)
