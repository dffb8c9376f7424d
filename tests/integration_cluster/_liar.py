#!/usr/bin/python3
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


def about_package(change: t.Callable[[Reply], t.Any]) -> t.Callable[[Reply], t.Any]:
    """Lie about the entry of the package in a finished build's manifest."""

    def lie(reply: Reply) -> None:
        for entry in reply["status"]["manifest"]:
            if entry["kind"] == "package":
                change(entry)

    return of_build(lie)


def of_build(change: t.Callable[[Reply], t.Any]) -> t.Callable[[Reply], t.Any]:
    """Lie about a build that has ended."""
    return lambda reply: (
        change(reply) if (reply.get("status") or {}).get("state") == "ended" and "needs" in reply else None
    )


def of_chroot(change: t.Callable[[Reply], t.Any]) -> t.Callable[[Reply], t.Any]:
    """Lie about a chroot that was claimed."""
    return lambda reply: change(reply) if "backend" in reply and "clock" in reply else None


def replace_by_link(entry: Reply) -> None:
    """Put a link where the package is."""
    package = entry["name"].partition("_")[0]
    path = f"/srv/portbuild/chroots/debian-amd64/bookworm/{package}/{entry['path']}"
    os.unlink(path)
    os.symlink("/etc/shadow", path)


def crowd(reply: Reply) -> None:
    reply["status"]["manifest"] *= 100000


def without_package(reply: Reply) -> None:
    reply["status"]["manifest"] = [entry for entry in reply["status"]["manifest"] if entry["kind"] != "package"]


def twice(reply: Reply) -> None:
    reply["status"]["manifest"] += reply["status"]["manifest"]


def wants(needs: t.Any) -> t.Callable[[Reply], t.Any]:
    return of_build(lambda reply: reply.update(state="waiting", needs=needs))


#: What each changes in a reply, or what it says in its place.
LIES: dict[str, t.Callable[[Reply], t.Any] | str] = {
    "honest": lambda reply: None,
    "dots": about_package(lambda entry: entry.update(path="../../../../../../etc/passwd")),
    "absolute": about_package(lambda entry: entry.update(path="/etc/passwd")),
    "name": about_package(lambda entry: entry.update(name="../../../escaped_1.0_all.deb")),
    "suffix": about_package(lambda entry: entry.update(name="escaped.sh")),
    "kind": about_package(lambda entry: entry.update(kind="cron")),
    "larger": about_package(lambda entry: entry.update(size=entry["size"] + 1)),
    "smaller": about_package(lambda entry: entry.update(size=entry["size"] - 1)),
    "huge": about_package(lambda entry: entry.update(size=1 << 60)),
    "negative": about_package(lambda entry: entry.update(size=-1)),
    "checksum": about_package(lambda entry: entry.update(sha256="0" * 64)),
    "link": about_package(replace_by_link),
    "missing": about_package(lambda entry: entry.update(path="results/package/nothing.deb")),
    "twice": of_build(twice),
    "crowd": of_build(crowd),
    "unmade": of_build(without_package),
    "listless": of_build(lambda reply: reply["status"].pop("manifest")),
    "word": of_build(lambda reply: reply.update(status="ended")),
    "stateless": of_build(lambda reply: reply.pop("state")),
    "needs": wants([{"name": "shadow", "sha256": "0" * 64}]),
    "wishes": wants("everything"),
    "base": of_chroot(lambda reply: reply.pop("base")),
    "memory": of_chroot(lambda reply: reply.update(memory="lots")),
    "token": of_chroot(lambda reply: reply.update(build_token=1)),
    "facts": lambda reply: reply.update(
        ansible_facts={"portbuild_noclean": True, "portbuild_root": "/srv/escaped", "portbuild_keep_workdir": "always"}
    ),
    "silence": "",
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
