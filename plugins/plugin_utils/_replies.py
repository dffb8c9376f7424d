# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a build machine may answer when a module runs there: facts of the kinds that the controller reckons with. Pure."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ..module_utils._errors import PortbuildError

Kind = t.Any  # a type, a tuple of types, or a list of one type: a list of such elements

_NUMBER = (int, float)

# By module, what the controller uses of its reply without looking twice.
EXPECTED: dict[str, dict[str, Kind]] = {
    "build_package": {"state": str, "status": dict, "needs": [dict], "problems": [str]},
    "claim_chroot": {"backend": str, "base": str, "tree": str},
    "cleanup": {"changed": bool, "removed": [dict]},
    "fetch_results": {"status": dict},
    "machine_info": {"clock": dict, "unfit": [str], "jobs": [dict], "chroots": [dict]},
    "prepare_machine": {"changed": bool, "needs_base": bool, "needs_tree": bool},
}
OPTIONAL: dict[str, dict[str, Kind]] = {
    "claim_chroot": {"build_token": (int, type(None)), "clock": _NUMBER, "memory": int, "status": dict},
    "make_bindist": {"sha256": str, "size": int},
    "clean_chroot": {"cleaned": bool, "held": str, "why": str},
}
_WORDS = {str: "a string", dict: "an object", bool: "true or false", int: "a whole number", list: "a list"}


class BadReply(PortbuildError):
    """A build machine answered something that its modules do not say."""

    def __init__(self, module: str, machine: str, what: str, *, spoiled: bool = False) -> None:
        super().__init__(
            f"{module} on {machine}: {what}",
            remedy="Is something else in the place of the machine's Python, or does it print of its own?",
            details={"reason": "client", "infrastructure": True, **({"spoiled": True} if spoiled else {})},
        )


def clean_reply(reply: dict[str, t.Any]) -> None:
    """Remove what is not for the machine to say: C(ansible_facts) would set variables of the controller."""
    for name in [name for name in reply if name.startswith(("ansible_", "_ansible_")) or name == "invocation"]:
        del reply[name]


def check_reply(module: str, machine: str, reply: c.Mapping[str, t.Any]) -> None:
    """Raise BadReply unless everything that the controller relies upon is in the module's reply."""
    for name, kind in EXPECTED.get(module, {}).items():
        if name not in reply:
            raise BadReply(module, machine, f"The reply lacks {name!r}.")
        _check(module, machine, name, reply[name], kind)
    for name, kind in OPTIONAL.get(module, {}).items():
        if name in reply:
            _check(module, machine, name, reply[name], kind)


def _check(module: str, machine: str, name: str, value: t.Any, kind: Kind) -> None:
    wanted = list if isinstance(kind, list) else kind
    good = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    if good and isinstance(kind, list):
        good = all(isinstance(element, kind[0]) for element in value)
    if not good:
        word = _WORDS.get(wanted, "a number") + (f", each element {_WORDS[kind[0]]}" if isinstance(kind, list) else "")
        raise BadReply(module, machine, f"In the reply {name!r} is {_shown(value)}, where {word} is expected.")


def _shown(value: t.Any) -> str:
    text = ascii(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
