# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a package waits, is built anew, is skipped or ignored: each reason in a situation that really has it."""

from __future__ import annotations

import os
import pathlib
import re
import shutil

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm, wait_for
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import (
    let_all_end,
    open_gates,
    wait_for_gates,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._tree import bulk, control, make_tree, start_bulk

NEEDS = {
    "pbw-0": "", "pbw-0-after": "pbw-0", "pbw-a": "", "pbw-a-after": "pbw-a", "pbw-c": "", "pbw-d": "", "pbw-e": "",
    "pbw-free": "", "pbw-heavy": "", "pbw-own": "", "pbw-held": "", "pbw-there": "", "pbw-nowhere": "", "pbw-third": "",
}  # fmt: skip
SETTINGS = {
    "pbw-e": {"not_with": ["pbw-d"]},
    "pbw-heavy": {"slots": 2},
    "pbw-own": {"alone": True},
    "pbw-nowhere": {"needs_tags": ["large"]},
    "pbw-third": {"needs_tags": ["third"]},
}
WAITING = {
    "pbw-a-after": "It waits for pbw-a.",
    "pbw-e": "It must not run together with pbw-d.",
    "pbw-free": "It waits for a slot.",
    "pbw-heavy": "It waits for 2 slots on one machine.",
    "pbw-own": "It waits for a machine on which nothing else runs.",
    "pbw-nowhere": "No machine with large takes packages.",
    "pbw-third": "No machine with third takes packages (client3: new disks).",
}
NOT_WAITING = {
    "pbw-0": "pbw-0 is failed. pbw-0 1.0 failed on client",
    "pbw-0-after": "pbw-0-after is skipped. pbw-0 is failed.",
    "pbw-c": "It runs on client",
    "pbw-held": "pbw-held is ignored. pbw-held is held by",
    "pbw-there": "It is there, and nothing that it is made of has changed.",
}


def why(farm: Farm, package: str) -> str:
    return farm.play("why", package=package).ok().output


def waiting(farm: Farm) -> dict[str, str]:
    """Return what the playbook status says of what waits."""
    output = farm.play("status", ask_machines=False).ok().output
    section = output.partition('"Waiting:",')[2].partition('"",')[0]
    return dict(re.findall(r'^ +"(pbw-\S+) +(\S.*?)",?$', section, re.MULTILINE))


def test_each_reason_for_waiting(idle: Farm, tmp_path: pathlib.Path) -> None:
    tree = make_tree(tmp_path / "tree", NEEDS, {"pbw-0": ["exit 1"]}, gates=["pbw-a", "pbw-c", "pbw-d"])
    bulk(idle, tree, targets=["pbw-there"]).ok()
    idle.play("hold", package="pbw-held", reason="it eats disks").ok()
    idle.play("drain", machine="client3", reason="new disks").ok()
    inventory = idle.cluster.inventory
    before = inventory.read_text(encoding="utf-8")
    assert before.count("portbuild_maxjobs: 3\n") == 1
    tagged = re.sub(r"^( *)portbuild_maxjobs: 3$", r"\g<0>\n\1portbuild_tags: [third]", before, flags=re.MULTILINE)
    inventory.write_text(tagged, encoding="utf-8")
    running = start_bulk(idle, tree, package_settings=SETTINGS)
    try:
        wait_for_gates(idle.cluster, 3, [running])
        wait_for(lambda: waiting(idle) == WAITING, f"the reasons of all that waits, as in {WAITING}", 60)
        for package, reason in NOT_WAITING.items():
            assert reason in why(idle, package)
        idle.play("undrain", machine="client3").ok()
        while running.process.poll() is None:
            open_gates(idle.cluster)
        running.end().fails("failed: pbw-0", "given up: pbw-nowhere: No machine has all tags that it needs: large.")
        for package in ("pbw-third", "pbw-own", "pbw-heavy", "pbw-e", "pbw-a-after"):
            assert idle.builds(package)[-1]["outcome"] == "success"
    finally:
        inventory.write_text(before, encoding="utf-8")
        idle.play("undrain", machine="client3")
        idle.play("unhold", package="pbw-held")
        let_all_end(idle.cluster, [running])


@pytest.mark.slow
def test_a_machine_is_set_aside_and_nobody_else_may(idle: Farm, tmp_path: pathlib.Path) -> None:
    """Its disk is full; what only it may build waits, until the run is told to stop."""
    client = idle.cluster["client2"]
    chroots = f"{client.scratch}/chroots"
    tree = make_tree(tmp_path, dict.fromkeys(("pbw-x", "pbw-y", "pbw-z"), ""))
    client.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", chroots])
    others = [f"client{number}" for number in (1, 3)]
    try:
        for machine in others:
            idle.play("drain", machine=machine, reason="moved").ok()
        running = start_bulk(idle, tree)
        try:
            wait_for(lambda: "is tried again" in running.output(), "a package that is let down", 120)
            wait_for(lambda: "It is tried again soon: " in " ".join(waiting(idle).values()), "one that is delayed", 60)
            wait_for(lambda: "client2 is set aside" in running.output(), "the machine to be set aside", 180)
            aside = "client2: it is set aside for a while, after it has let 3 packages in a row down"
            wait_for(lambda: aside in "".join(why(idle, "pbw-x").split("\n")), "the reason", 90)
            assert "client1: moved" in why(idle, "pbw-x")
            idle.play("stop").ok()
            running.end().fails("3 not tried")
        finally:
            let_all_end(idle.cluster, [running])
    finally:
        client.run(["umount", "-l", chroots])
        for machine in others:
            idle.play("undrain", machine=machine)
        idle.play("cleanup")


REBUILT = {
    "pbr-missing": "there is none",
    "pbr-damaged": "a file of it is not as it was built",
    "pbr-version": "its version has changed",
    "pbr-recipe": "its recipe has changed",
    "pbr-options": "its options have changed",
    "pbr-needs": "its recipe has changed, it needs other packages than before",
    "pbr-after": "a package that it needs has been built anew",
}


def reasons(output: str) -> dict[str, str]:
    """Return what a plan says of each package."""
    return dict(re.findall(r'^ *"?(pbr-\S+) +\S+ +\S+(?: \S+)? {2,}(\S.*?)"?,?$', output, re.MULTILINE))


def test_each_reason_for_building_anew(idle: Farm, tmp_path: pathlib.Path) -> None:
    names = {**dict.fromkeys(REBUILT, ""), "pbr-same": "", "pbr-after": "pbr-recipe"}
    tree = make_tree(tmp_path / "tree", names)
    bulk(idle, tree).ok()
    assert reasons(bulk(idle, tree, "--check").ok().output) == {}

    (idle.packages / "pbr-missing_1.0_all.deb").unlink()
    damaged = idle.packages / "pbr-damaged_1.0_all.deb"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    changelog = tree / "pbr-version" / "debian" / "changelog"
    changelog.write_text(changelog.read_text(encoding="utf-8").replace("(1.0)", "(1.1)", 1), encoding="utf-8")
    with (tree / "pbr-recipe" / "debian" / "rules").open("a", encoding="utf-8") as rules:
        rules.write("# changed\n")
    tree.joinpath("pbr-needs", "debian", "control").write_text(control("pbr-needs", ["pbr-same"]), encoding="utf-8")
    options = {"pbr-options": {"build_options": ["nocheck"]}}

    assert reasons(bulk(idle, tree, "--check", package_settings=options).ok().output) == REBUILT
    forced = reasons(bulk(idle, tree, "--check", targets=["pbr-same"], rebuild="targets").ok().output)
    assert forced == {"pbr-same": "it was asked for"}
    bulk(idle, tree, package_settings=options).ok()
    assert "It was to be built because its version has changed." in why(idle, "pbr-version")
    assert reasons(bulk(idle, tree, "--check", package_settings=options).ok().output) == {}


@pytest.mark.slow
def test_a_new_bindist_is_a_reason(idle: Farm, tmp_path: pathlib.Path) -> None:
    tree = make_tree(tmp_path / "tree", {"pbr-base": ""})
    bulk(idle, tree).ok()
    tarballs = idle.branch_directory / "tarballs"
    kept = tmp_path / "kept"
    shutil.copytree(tarballs, kept, copy_function=os.link)
    other = tmp_path / "other.tar"
    shutil.copy2(tarballs / "bindist.tar", other)
    with other.open("ab") as stream:
        stream.write(bytes(10240))  # the same files, with more zeros at the end
    try:
        idle.play("bindist", bindist_tarball=str(other), bindist_rebuild=True).ok()
        assert reasons(bulk(idle, tree, "--check").ok().output) == {"pbr-base": "the bindist has changed"}
    finally:
        shutil.copytree(kept, tarballs, copy_function=shutil.copy2, dirs_exist_ok=True)
    assert reasons(bulk(idle, tree, "--check").ok().output) == {}
