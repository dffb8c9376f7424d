# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.plugin_utils._replies import (
    BadReply,
    check_reply,
    clean_reply,
    EXPECTED,
    OPTIONAL,
)

WAITING: dict[str, t.Any] = {
    "changed": False,
    "state": "waiting",
    "status": {},
    "needs": [{"name": "x", "sha256": "0"}],
    "problems": [],
}
CLAIMED: dict[str, t.Any] = {
    "backend": "overlay",
    "base": "0" * 64,
    "tree": "",
    "build_token": None,
    "memory": 1 << 30,
    "clock": 1.5,
}


def test_a_proper_reply() -> None:
    check_reply("build_package", "m1", WAITING)
    check_reply("claim_chroot", "m1", CLAIMED)
    check_reply("claim_chroot", "m1", {"backend": "overlay", "base": "0", "tree": ""})  # as in check mode
    check_reply("no_such_module", "m1", {})


@pytest.mark.parametrize(
    ("module", "reply", "change", "why"),
    [
        ("build_package", WAITING, {"status": "ended"}, "'status' is 'ended', where an object is expected"),
        ("build_package", WAITING, {"status": None}, "'status' is None"),
        ("build_package", WAITING, {"state": 1}, "'state' is 1, where a string is expected"),
        ("build_package", WAITING, {"needs": {}}, "'needs' is a dict, where a list"),
        ("build_package", WAITING, {"needs": ["x"]}, "each element an object"),
        ("build_package", WAITING, {"problems": [1]}, "each element a string"),
        ("claim_chroot", CLAIMED, {"memory": "lots"}, "'memory' is 'lots', where a whole number"),
        ("claim_chroot", CLAIMED, {"memory": True}, "'memory' is True"),
        ("claim_chroot", CLAIMED, {"build_token": "5"}, "'build_token' is '5'"),
        ("claim_chroot", CLAIMED, {"clock": "noon"}, "'clock' is 'noon', where a number"),
        ("clean_chroot", {}, {"cleaned": "yes"}, "'cleaned' is 'yes', where true or false"),
        ("prepare_machine", {"changed": True}, {"needs_base": 1}, "'needs_base' is 1"),
    ],
)
def test_a_fact_of_another_kind(module: str, reply: dict[str, t.Any], change: dict[str, t.Any], why: str) -> None:
    with pytest.raises(BadReply) as caught:
        check_reply(module, "m1", {**reply, **change})
    assert why in caught.value.message
    assert caught.value.message.startswith(f"{module} on m1: ")
    assert caught.value.details == {"reason": "client", "infrastructure": True}


@pytest.mark.parametrize("name", EXPECTED["build_package"])
def test_a_fact_that_is_missing(name: str) -> None:
    with pytest.raises(BadReply, match=f"lacks '{name}'"):
        check_reply("build_package", "m1", {key: value for key, value in WAITING.items() if key != name})


def test_a_machine_sets_no_variables() -> None:
    reply = {"changed": True, "ansible_facts": {"portbuild_root": "/"}, "_ansible_x": 1, "invocation": {}, "state": "x"}
    clean_reply(reply)
    assert reply == {"changed": True, "state": "x"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("module", sorted({*EXPECTED, *OPTIONAL}))
@given(data=st.data())
def test_replies_of_any_kind(module: str, data: st.DataObject) -> None:
    names = [*EXPECTED.get(module, {}), *OPTIONAL.get(module, {})]
    reply = data.draw(st.dictionaries(st.sampled_from(names), _JSON))
    with contextlib.suppress(BadReply):
        check_reply(module, "m1", reply)
