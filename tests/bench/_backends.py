# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs inside a client: what it costs there to populate a chroot and to clean it, by backend. Prints JSON."""

from __future__ import annotations

import json
import os
import sys
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.module_utils import _linux, _spares
from ansible_collections.portbuild.cluster.plugins.module_utils._backends import BACKENDS, copy_tree
from ansible_collections.portbuild.cluster.plugins.module_utils._bases import find_base
from ansible_collections.portbuild.cluster.plugins.module_utils._chroots import ChrootStore
from ansible_collections.portbuild.cluster.plugins.module_utils._names import Job
from ansible_collections.portbuild.cluster.plugins.module_utils._trash import empty_trash

QUEUE = "bench"
WRITTEN = 1000  # files of 4 KiB: about what a small build leaves


def timed(work: t.Callable[[], object]) -> tuple[float, float]:
    """Return how long it took, and the processor time of this process and its children."""
    before, began = os.times(), time.monotonic()
    work()
    after = os.times()
    return time.monotonic() - began, sum(after[:4]) - sum(before[:4])


def build(chroot: str, backend: str, base: str) -> tuple[float, float]:
    """Mount the root in a namespace of its own and write into it as a build does; return what mounting took."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _linux.unshare(_linux.CLONE_NEWNS)
            _linux.make_private()
            roots: list[str] = []
            spent = timed(lambda: roots.append(BACKENDS[backend].mount(chroot, base)))
            for number in range(WRITTEN):
                with open(f"{roots[0]}/tmp/file{number}", "wb") as stream:
                    stream.write(bytes(4096))
            os.write(writer, json.dumps(spent).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="ascii") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        raise SystemExit(f"{backend}: the root cannot be mounted, or not be written to.")
    wall, cpu = json.loads(text)
    return wall, cpu


def measure(scratch: str, backend: str, base: str) -> dict[str, tuple[float, float]]:
    """Return wall and processor time of each part."""
    store, job = ChrootStore(scratch), Job("debian-amd64", "bench", "bench")
    claim = timed(
        lambda: store.claim(
            job, queue=QUEUE, token=1, maxjobs=99, backend=backend, base=base, client_user="root", orphans=[]
        )
    )
    mount = build(store.path(job), backend, find_base(scratch, base))
    clean = timed(lambda: store.clean(job, queue=QUEUE, token=1))
    remove = timed(lambda: empty_trash(scratch, background=False))
    return {"populate": (claim[0] + mount[0], claim[1] + mount[1]), "clean": clean, "remove": remove}


def main() -> None:
    """Measure every backend that works here, as often as asked."""
    scratch, base, repetitions = sys.argv[1], sys.argv[2], int(sys.argv[3])
    results: dict[str, list[dict[str, tuple[float, float]]]] = {}
    directory = find_base(scratch, base)
    for name in sorted(BACKENDS):
        if BACKENDS[name].probe(scratch):
            continue
        if name == "directory":
            _spares.remove_spares(scratch, base)
            results["directory, copied"] = [measure(scratch, name, base)]
            _spares.provide(scratch, directory, copy_tree)
        label = f"{name}, restored" if name == "directory" else name
        results[label] = [measure(scratch, name, base) for _number in range(repetitions)]
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
