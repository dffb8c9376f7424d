# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A test double of a build machine: its Python, which lets the real one work and then lies about what it said.

It is copied to /srv/liar/NAME/python3 on a client, and Ansible is told that this is the client's Python. What it
lies about is NAME, one of LIES.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t

REAL = "/usr/bin/python3"
Reply = dict[str, t.Any]
Change = t.Callable[[Reply], t.Any]


def of_build(change: Change) -> Change:
    """Lie about a build that has ended."""
    return lambda reply: change(reply) if "needs" in reply and reply["state"] == "ended" else None


def of_package(change: Change) -> Change:
    """Lie about the package in the manifest of a build that has ended."""

    def lie(reply: Reply) -> None:
        for entry in reply["status"]["manifest"]:
            if entry["kind"] == "package":
                change(entry)

    return of_build(lie)


def of_chroot(change: Change) -> Change:
    """Lie about a chroot that was claimed."""
    return lambda reply: change(reply) if "backend" in reply and "clock" in reply else None


def replace_by_link(entry: Reply) -> None:
    """Put a link where the package is."""
    package = entry["name"].partition("_")[0]
    path = f"/srv/portbuild/chroots/debian-amd64/bookworm/{package}/{entry['path']}"
    os.unlink(path)
    os.symlink("/etc/shadow", path)


def without_package(reply: Reply) -> None:
    """Say that nothing else was made."""
    reply["status"]["manifest"] = [entry for entry in reply["status"]["manifest"] if entry["kind"] != "package"]


def many(reply: Reply) -> None:
    """Say that there is no end of it: ten megabytes."""
    reply["status"]["manifest"] *= 10000


def read_token() -> int:
    """Return the token of somebody else's build, which the test has put beside this file."""
    with open(os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "token"), encoding="ascii") as stream:
        return int(stream.read())


#: Where sftp's quotes end, a line that begins with an exclamation mark is a command for the controller's shell.
ESCAPE = "/tmp/x\\'\"\n!touch escaped\n#"
FACTS = {"portbuild_noclean": True, "portbuild_keep_workdir": "always", "portbuild_scratchdir": "/srv/escaped"}

#: What each changes in a reply, or says in its place.
LIES: dict[str, Change | str] = {
    "dots": of_package(lambda entry: entry.update(path="../../../../../../etc/passwd")),
    "absolute": of_package(lambda entry: entry.update(path="/etc/passwd")),
    "name": of_package(lambda entry: entry.update(name="../../../escaped_1.0_all.deb")),
    "link": of_package(replace_by_link),
    "missing": of_package(lambda entry: entry.update(path="results/package/nothing.deb")),
    "larger": of_package(lambda entry: entry.update(size=entry["size"] + 1)),
    "smaller": of_package(lambda entry: entry.update(size=entry["size"] - 1)),
    "checksum": of_package(lambda entry: entry.update(sha256="0" * 64)),
    "many": of_build(many),
    "unmade": of_build(without_package),
    "word": of_build(lambda reply: reply.update(status="ended")),
    "needs": of_build(lambda reply: reply.update(state="waiting", needs=[{"name": "shadow", "sha256": "0" * 64}])),
    "base": of_chroot(lambda reply: reply.pop("base")),
    "token": of_chroot(lambda reply: reply.update(build_token=read_token())),
    "failed": of_build(lambda reply: reply["status"].update(reason="failed")),
    "incoming": lambda reply: reply.update(incoming=ESCAPE, path=ESCAPE) if "needs" in reply else None,
    "facts": lambda reply: reply.update(ansible_facts=FACTS),
    "prose": "Everything went well.\n",
    "half": '{"changed": true, "state": "ended", "status": {"state": "ended", "manifest": [',
}


def main() -> None:
    """Be the interpreter."""
    lie = LIES[os.path.basename(os.path.dirname(os.path.abspath(sys.argv[0])))]
    done = subprocess.run([REAL, *sys.argv[1:]], stdout=subprocess.PIPE, check=False)
    text = done.stdout.decode()
    try:
        reply = json.loads(text)
    except ValueError:
        reply = None
    if isinstance(reply, dict) and isinstance(lie, str):
        text = lie
    elif isinstance(reply, dict) and not isinstance(lie, str):
        lie(reply)
        text = json.dumps(reply)
    sys.stdout.write(text)
    sys.stdout.flush()
    os._exit(done.returncode)


if __name__ == "__main__":
    main()
