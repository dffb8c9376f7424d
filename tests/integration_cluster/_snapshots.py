# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in the files of the controller and of the clients, to be compared before and after."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import typing as t

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm

Tree = dict[str, list[t.Any]]
#: On the clients: accounts and sudo rules, home directories, scratch directories.
PLACES = ("/etc", "/home", "/root", "/srv")
#: Base systems and their tarballs have hundreds of megabytes, which are told apart by size and time.
LARGE = 4 << 20

_LOOK = """
import hashlib, json, os, stat, sys
large, found = int(sys.argv[1]), {}
for top in sys.argv[2:]:
    for directory, directories, files in os.walk(top):
        # Ansible's own, in the login account's home, made by the first connection whatever it is for.
        directories[:] = [name for name in directories if name != ".ansible"]
        inside_base = "/bases/" in directory + "/"
        for path in [directory, *(os.path.join(directory, name) for name in files + directories)]:
            status = os.lstat(path)
            entry = [stat.filemode(status.st_mode), status.st_uid, status.st_gid]
            if stat.S_ISLNK(status.st_mode):
                entry.append(os.readlink(path))
            elif stat.S_ISREG(status.st_mode):
                entry.append(status.st_size)
                if inside_base or status.st_size > large:
                    entry.append(status.st_mtime_ns)
                else:
                    with open(path, "rb") as stream:
                        entry.append(hashlib.sha256(stream.read()).hexdigest())
            found[path] = entry
json.dump(found, sys.stdout)
"""


def look(farm: Farm, root: pathlib.Path | None = None) -> dict[str, Tree]:
    """Return every file of the controller's root and of the clients' places, with owner, mode and content."""
    arguments = [str(LARGE), str(root or farm.root)]
    mine = subprocess.run([sys.executable, "-c", _LOOK, *arguments], capture_output=True, check=True, text=True)
    found = {"controller": json.loads(mine.stdout)}
    for client in farm.cluster.clients:
        found[client.name] = json.loads(client.run(["python3", "-", str(LARGE), *PLACES], stdin=_LOOK).stdout)
    return found


def differences(before: dict[str, Tree], after: dict[str, Tree]) -> list[str]:
    """Say what is there in one and not, or not so, in the other."""
    return [
        f"{place}: {path}: {before[place].get(path)} became {after[place].get(path)}"
        for place in before
        for path in sorted({*before[place], *after[place]})
        if before[place].get(path) != after[place].get(path)
    ]
