# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What there is to say about a build machine: its means, its chroots, and what makes it unfit."""

from __future__ import annotations

import os
import platform
import pwd
import re
import sys
import time
import typing as t

from ._backends import BACKENDS, BackendUnusable, choose
from ._bases import all_bases, all_trees, Extracted
from ._cgroups import control_kind
from ._chroots import Chroot, ChrootStore, KEPT
from ._errors import PortbuildError
from ._isolation import check_base
from ._node import read_conf
from ._process import boot_id, LINUX, run
from ._progress import LOG
from ._trash import trash

MIN_FREE = 1 << 30
MIN_INODES = 50000  # one base has 13,000 files
MIN_MEMORY = 256 << 20
OLDEST_PYTHON = (3, 9)
_TAIL = 8192  # bytes at the end of a log in which its last line is looked for
_LINE = 400


class Wishes(t.NamedTuple):
    """What the controller expects of the machine; without it, what setup wrote down is taken, else defaults."""

    scratch: str
    maxjobs: int | None = None
    client_user: str | None = None
    backend: str | None = None
    bases: tuple[str, ...] = ()
    trees: tuple[str, ...] = ()
    min_free: int = MIN_FREE
    last_lines: bool = False  # whether builds that run are to be told with the last line of their logs


def size_text(number: float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def age_text(seconds: float) -> str:
    """Return a length of time as a person reads it."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def memory() -> dict[str, int]:
    """Return total and available bytes of memory; 0 where the system does not say."""
    if LINUX:
        values = {}
        with open("/proc/meminfo", encoding="ascii") as stream:
            for line in stream:
                name, _colon, rest = line.partition(":")
                values[name] = int(rest.split()[0]) * 1024
        return {"total": values.get("MemTotal", 0), "available": values.get("MemAvailable", 0)}
    names = ["hw.physmem", "hw.pagesize", "vm.stats.vm.v_free_count", "vm.stats.vm.v_inactive_count"]
    try:
        total, page, free, inactive = (int(word) for word in run(["sysctl", "-n", *names], timeout=10).stdout.split())
    except ValueError:
        return {"total": 0, "available": 0}
    return {"total": total, "available": (free + inactive) * page}


def space(path: str) -> dict[str, int]:
    """Return free and total bytes and free inodes of the file system, as far as it exists."""
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return {
        "total": found.f_blocks * found.f_frsize,
        "free": found.f_bavail * found.f_frsize,
        # File systems that make inodes as needed say 0 of 0.
        "free_inodes": found.f_favail if found.f_files else -1,
    }


def survey(wishes: Wishes, *, now: t.Callable[[], float] = time.time) -> dict[str, t.Any]:
    """Return everything that is to be said about this machine. Changes nothing but the notes on what backends work."""
    conf = read_conf(wishes.scratch)
    wanted = wishes._replace(
        maxjobs=_number(conf.get("maxjobs")) if wishes.maxjobs is None else wishes.maxjobs,
        client_user=wishes.client_user or conf.get("client_user") or "",
        backend=wishes.backend or conf.get("chroot_backend") or "auto",
    )
    moment = now()
    chroots, strays = ChrootStore(wishes.scratch).survey()
    system = os.uname()
    facts: dict[str, t.Any] = {
        "hostname": system.nodename,
        "system": f"{system.sysname} {system.release} {system.machine}",
        "python": platform.python_version(),
        "uid": os.geteuid(),
        "boot_id": boot_id(),
        "clock": {"seconds": moment, "utc": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))},
        "load": [round(value, 2) for value in os.getloadavg()],
        "cores": os.cpu_count() or 1,
        "memory": memory(),
        "scratch": {"path": wishes.scratch, **space(wishes.scratch)},
        "trash": len(trash(wishes.scratch)),
        "maxjobs": wanted.maxjobs,
        "jobs": [_describe_job(chroot, moment, wishes) for chroot in chroots if chroot.holds_slot],
        "chroots": [_describe(chroot, moment) for chroot in chroots if not chroot.holds_slot],
        "strays": [{"path": stray.path, "why": stray.why, "running": stray.running} for stray in strays],
        "bases": [_describe_base(base) for base in all_bases(wishes.scratch)],
        "trees": [tree._asdict() for tree in all_trees(wishes.scratch)],
        "backend": _backend(wishes.scratch, str(wanted.backend)),
        "memory_control": control_kind() if LINUX else "none",
    }
    facts["problems"] = problems(facts, wanted)
    facts["unfit"] = [sentence for sentences in facts["problems"].values() for sentence in sentences]
    facts["fit"] = not facts["unfit"]
    facts["summary"] = summary(facts)
    return facts


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _describe_base(base: Extracted) -> dict[str, t.Any]:
    problem = ""
    try:
        check_base(base.path)
    except (OSError, PortbuildError) as error:
        problem = str(error)
    return {**base._asdict(), "problem": problem}


def _describe(chroot: Chroot, moment: float) -> dict[str, t.Any]:
    told = chroot.describe(moment)
    if chroot.marker.state == KEPT:
        told["enter"] = BACKENDS[chroot.marker.backend].enter(chroot.path)
    return told


def _describe_job(chroot: Chroot, moment: float, wishes: Wishes) -> dict[str, t.Any]:
    told = chroot.describe(moment)
    if wishes.last_lines and chroot.running:
        told["last_line"] = last_line(os.path.join(chroot.path, LOG))
    return told


def last_line(path: str) -> str:
    """Return the last line of a log that says anything, as far as it fits."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _TAIL))
        lines = re.split(r"[\r\n]+", stream.read(_TAIL).decode("utf-8", "replace"))
    return next((line.strip()[:_LINE] for line in reversed(lines) if line.strip()), "")


def _backend(scratch: str, wanted: str) -> dict[str, t.Any]:
    """Return the chosen backend, "" if none can be, and why not each other."""
    if not os.path.isdir(scratch):
        return {"chosen": "", "wanted": wanted, "others": {}, "problem": f"{scratch} does not exist."}
    try:
        chosen, others = choose(scratch, wanted)
    except BackendUnusable as error:
        return {"chosen": "", "wanted": wanted, "others": error.details.get("backends", {}), "problem": str(error)}
    return {"chosen": chosen, "wanted": wanted, "others": others, "problem": ""}


def problems(facts: dict[str, t.Any], wanted: Wishes) -> dict[str, list[str]]:
    """Return what keeps the machine from building, in sentences, by what they are about."""
    found: dict[str, list[str]] = {}
    for about, sentence in _problems(facts, wanted):
        found.setdefault(about, []).append(sentence)
    return found


def _problems(facts: dict[str, t.Any], wanted: Wishes) -> t.Iterator[tuple[str, str]]:
    scratch = facts["scratch"]
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield "python", f"Python is {facts['python']}, at least {'.'.join(map(str, OLDEST_PYTHON))} is needed."
    if not os.path.isdir(scratch["path"]):
        yield "backend", f"The scratch directory {scratch['path']} does not exist: run the setup playbook."
    elif facts["backend"]["problem"]:
        yield "backend", facts["backend"]["problem"]
    if scratch["free"] < wanted.min_free:
        needed = size_text(wanted.min_free)
        yield "disk", f"Only {size_text(scratch['free'])} are free in {scratch['path']}, at least {needed} are needed."
    if 0 <= scratch["free_inodes"] < MIN_INODES:
        yield (
            "disk",
            f"Only {scratch['free_inodes']} inodes are free in {scratch['path']}, at least {MIN_INODES} are needed.",
        )
    if 0 < facts["memory"]["total"] < MIN_MEMORY:
        yield (
            "memory",
            f"The machine has {size_text(facts['memory']['total'])} of memory, at least {size_text(MIN_MEMORY)} are needed.",
        )
    for sentence in _unfit_bases(facts["bases"], wanted.bases):
        yield "bindist", sentence
    for missing in sorted(set(wanted.trees) - {tree["sha256"] for tree in facts["trees"]}):
        yield "tree", f"The current tree {missing} is not on the machine: run the setup playbook."
    if wanted.client_user and not _account(wanted.client_user):
        yield (
            "account",
            f"There is no account {wanted.client_user}: create it, or set portbuild_create_client_user for setup.",
        )


def _unfit_bases(bases: list[dict[str, t.Any]], wanted: t.Collection[str]) -> t.Iterator[str]:
    problems_of = {base["sha256"]: base["problem"] for base in bases}
    for missing in sorted(set(wanted) - set(problems_of)):
        yield f"The current bindist {missing} is not on the machine: run the setup playbook."
    if not problems_of and not wanted:
        yield "No bindist is on the machine: run the setup playbook."
    # Where nobody says which one is current, one that can be used will do.
    concerned = [problems_of[sha256] for sha256 in problems_of if sha256 in wanted or not wanted]
    if wanted or all(concerned):
        yield from filter(None, concerned)


def _account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def summary(facts: dict[str, t.Any]) -> list[str]:
    """Return the same for a person to read from top to bottom."""
    return list(_summary(facts))


def _summary(facts: dict[str, t.Any]) -> t.Iterator[str]:
    scratch, backend = facts["scratch"], facts["backend"]
    yield f"{facts['hostname']} is {'fit' if facts['fit'] else 'NOT FIT'}. {' '.join(facts['unfit'])}".rstrip()
    load = " ".join(f"{value:.2f}" for value in facts["load"])
    available, total = (size_text(facts["memory"][name]) for name in ("available", "total"))
    yield f"Load {load} on {facts['cores']} cores; {available} of {total} memory available."
    yield f"{size_text(scratch['free'])} of {size_text(scratch['total'])} free in {scratch['path']}."
    others = "; ".join(f"{name}: {why}" for name, why in sorted(backend["others"].items()) if why)
    yield f"Chroot backend {backend['chosen'] or 'none'}" + (f" ({others})." if others else ".")
    yield f"Memory limits by {facts['memory_control']}."
    limit = "" if facts["maxjobs"] is None else f" of {facts['maxjobs']}"
    yield f"{len(facts['jobs'])}{limit} jobs, {len(facts['chroots'])} other chroots."
    for chroot in (*facts["jobs"], *facts["chroots"]):
        what = "running " + chroot["phase"] if chroot["running"] else chroot["state"]
        name = "/".join(chroot[part] for part in ("arch", "branch", "package"))
        why = f" ({chroot['reason']})" if chroot["reason"] else ""
        yield f"  {name}: {what.strip()}{why} for {age_text(chroot['age'])}, token {chroot['token']} of queue {chroot['queue']}."
        if "enter" in chroot:
            yield f"    Enter it as root: {chroot['enter']}"
    for stray in facts["strays"]:
        yield f"  {stray['path']}: {stray['why']}"
    for base in facts["bases"]:
        yield f"Bindist {base['sha256']}, {size_text(base['bytes'])}."
    for tree in facts["trees"]:
        yield f"Tree {tree['sha256']}, {size_text(tree['bytes'])}."
