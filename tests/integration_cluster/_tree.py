# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trees of tiny source packages that need each other, for bulk builds, and what a bulk build came to."""

from __future__ import annotations

import json
import pathlib
import typing as t

from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm, Running, SOURCES
from ansible_collections.portbuild.cluster.tests.integration_cluster._sources import make_source

#: A build of these takes a second; nothing of it is checked in a fresh chroot.
QUICK: dict[str, t.Any] = {"check": "off", "progress_interval": "2s"}


def make_tree(
    directory: pathlib.Path,
    needs: t.Mapping[str, str],
    commands: t.Mapping[str, t.Sequence[str]] | None = None,
    gates: t.Collection[str] = (),
) -> pathlib.Path:
    """Write a source package for each name, which needs the others named.

    C(commands) begin the builds of some; those with C(gates) wait at them.
    """
    for name, needed in needs.items():
        text = control(name, needed.split())
        make_source(directory, name, commands=(commands or {}).get(name, ()), gate=name in gates, control=text)
    return directory


def control(name: str, needs: t.Sequence[str]) -> str:
    """Return debian/control of a tiny package that needs these to be built."""
    text = (SOURCES / "pb-null" / "debian" / "control").read_text(encoding="utf-8").replace("pb-null", name)
    wanted = f"Build-Depends: {', '.join(needs)}\n" if needs else ""
    return text.replace("Standards-Version:", f"{wanted}Standards-Version:", 1)


def start_bulk(farm: Farm, tree: pathlib.Path, *arguments: str, **variables: t.Any) -> Running:
    """Start a bulk build of the tree."""
    wanted = {"targets": ["all"], "sourcedir": str(tree), **QUICK, **variables}
    return farm.start("bulk", *arguments, **wanted)


def bulk(farm: Farm, tree: pathlib.Path, *arguments: str, timeout: float = 600.0, **variables: t.Any) -> Ended:
    """Run a bulk build of the tree to its end."""
    return start_bulk(farm, tree, *arguments, **variables).end(timeout)


def summary(farm: Farm) -> dict[str, t.Any]:
    """Return what the last bulk build came to."""
    text = (farm.branch_directory / "bulk" / "summary.json").read_text(encoding="utf-8")
    found: dict[str, t.Any] = json.loads(text)
    return found


def times_built(farm: Farm, names: t.Iterable[str]) -> dict[str, int]:
    """Return how often each package has been built successfully."""
    return {name: sum(build["outcome"] == "success" for build in farm.builds(name)) for name in names}


def assert_nothing_runs(farm: Farm) -> None:
    """Fail unless every process of the controller's bulk builds has gone, and all that they kept while they ran."""
    mine = str(farm.root).encode()
    left = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = entry.joinpath("cmdline").read_bytes()
        except OSError:
            continue
        if b"portbuild.cluster.dispatch" in words and mine in words:
            left.append(words.replace(b"\0", b" "))
    assert left == []
    assert not list(farm.branch_directory.glob("bulk/runs.*/*"))
