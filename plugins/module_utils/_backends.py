# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The chroot backends of this operating system, and which of them is used. See C(_backends_common) for what they are."""

from __future__ import annotations

import contextlib
import os

from ._backends_common import Backend, base_bytes, copy_tree
from ._errors import PortbuildError
from ._files import BadFile, read_json, write_json
from ._process import boot_id, LINUX

if LINUX:
    from ._backends_linux import DRIVERS, PREFERENCE
else:
    from ._backends_freebsd import DRIVERS, PREFERENCE

__all__ = ["BACKENDS", "Backend", "BackendUnusable", "base_bytes", "choose", "copy_tree", "probe_all"]

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in DRIVERS}


class BackendUnusable(PortbuildError):
    """The wanted backend cannot be used on this machine."""


def probe_all(scratch: str) -> dict[str, str]:
    """Return for each backend why it cannot be used here, "" if it can.

    The answers are kept until the next boot, for another boot may bring another kernel or other file systems.
    """
    path = os.path.join(scratch, ".backends.json")
    system = os.uname()
    key = f"{boot_id()} {system.sysname} {system.release} {os.stat(scratch).st_dev}"
    with contextlib.suppress(FileNotFoundError, BadFile):
        known = read_json(path)
        answers = known.get("answers")
        if known.get("key") == key and isinstance(answers, dict) and set(answers) == set(BACKENDS):
            return {name: str(answers[name]) for name in BACKENDS}
    answers = {name: backend.probe(scratch) for name, backend in BACKENDS.items()}
    with contextlib.suppress(OSError):  # not ours to write to: then it is tried anew each time
        write_json(path, {"key": key, "answers": answers}, durable=False)
    return answers


def choose(scratch: str, wanted: str = "auto") -> tuple[str, dict[str, str]]:
    """Return the backend to use, and for each other one why not.

    Raises BackendUnusable when the wanted one, or for C(auto) each that is safe to take unasked, cannot be used.
    """
    answers = probe_all(scratch)
    if wanted != "auto" and wanted not in BACKENDS:
        raise BackendUnusable(
            f"There is no chroot backend {wanted!r}.", remedy=f"Choose one of auto, {', '.join(sorted(BACKENDS))}."
        )
    candidates = PREFERENCE if wanted == "auto" else (wanted,)
    chosen = next((name for name in candidates if not answers[name]), None)
    if chosen is None:
        reasons = "; ".join(f"{name}: {answers[name]}" for name in candidates)
        raise BackendUnusable(
            f"The chroot backend {wanted!r} cannot be used in {scratch}: {reasons}.",
            remedy="Put the scratch directory on another file system, or set another portbuild_chroot_backend.",
            details={"backends": answers},
        )
    return chosen, {name: why or _why_not(name, chosen) for name, why in answers.items() if name != chosen}


def _why_not(name: str, chosen: str) -> str:
    if name not in PREFERENCE:
        return "usable, but takes memory: only when asked for"
    return (
        f"usable, but {chosen} is preferred"
        if chosen in PREFERENCE and PREFERENCE.index(chosen) < PREFERENCE.index(name)
        else "usable, but not asked for"
    )
