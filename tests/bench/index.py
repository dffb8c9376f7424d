# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What it costs to learn what a tree can build: catalogue and graph of a whole tree, each in a process of its own.

    python tests/bench/index.py [BINDIST]

Run it where C(ansible_collections.portbuild.cluster) can be imported. The INDEX is made up, with the shape of the real
one. Debian's lists come from the bindist, a tarball beside its C(bindist.json); by default from the one that the cluster
tests have kept in C(.cache/bindist). Exit status 1 when the INDEX takes more than it may,
2 when there is no such bindist.
"""

from __future__ import annotations

import json
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time
import typing as t

from ansible_collections.portbuild.cluster.plugins.plugin_utils._graph import Graph
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import CatalogueInputs, get_system

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = 36_000
SECONDS, MEGABYTES = 3.0, 500  # of the INDEX, with its graph
HANDFUL = 30  # targets


# -- an INDEX ----------------------------------------------------------------------------------------------------------


def make_index(path: pathlib.Path, seed: int = 1) -> None:
    """Write an INDEX in which, as in the real one, a list has all that those in it need: a few lists are very long."""
    chance = random.Random(seed)
    names = ["pkg-2.8.4", *(f"name{number:05d}-{chance.randint(0, 20)}.{number % 97}" for number in range(1, PACKAGES))]
    whole: list[frozenset[str]] = [frozenset()]
    with path.open("w", encoding="utf-8") as stream:
        for number, name in enumerate(names):
            port = "ports-mgmt/pkg" if not number else f"category{number % 60}/name{number:05d}"
            run = everything(chance, number, whole, names, 2.1)
            build = everything(chance, number, whole, names, 2.6)
            if number:
                whole.append(run)
            words = (" ".join(sorted(build)), " ".join(sorted(run)))
            stream.write(
                f"{name}|/usr/ports/{port}|/usr/local|What {name} is for, in a line|/usr/ports/{port}/pkg-descr|"
                f"ports@FreeBSD.org|{port.partition('/')[0]} devel|{words[0]}|{words[1]}|https://example.org/{name}|||\n"
            )


def everything(
    chance: random.Random, number: int, whole: t.Sequence[frozenset[str]], names: t.Sequence[str], shape: float
) -> frozenset[str]:
    """Return some packages of those before this one, rather the first, and all that they need."""
    if not number:
        return frozenset()
    direct = [int(number * chance.random() ** 6) for _unused in range(min(60, int(chance.paretovariate(shape) * 2.0)))]
    return frozenset().union(*(whole[one] for one in direct), (names[one] for one in direct))


# -- cases -------------------------------------------------------------------------------------------------------------


def measure(case: str, where: str, cache: str) -> dict[str, float]:
    """Do what the case is about, and return what it took."""
    if case == "INDEX":
        system, inputs = "ports", CatalogueInputs(targets=["all"], index=where, cache_directory="")
    else:
        facts = json.loads(pathlib.Path(where).with_suffix(".json").read_text(encoding="utf-8"))
        targets = handful(where, facts["sha256"], cache) if case == "handful" else ["all"] if case == "all" else []
        given = {"bindist": where, "bindist_sha256": facts["sha256"], "cache_directory": cache}
        system, inputs = "debian", CatalogueInputs(targets=targets, **given)
    begin, spent = time.perf_counter(), time.process_time()
    catalogue = get_system(system).catalogue(inputs)
    read = time.perf_counter()
    graph = Graph((recipe.name, (*recipe.needs, *recipe.missing)) for recipe in catalogue.recipes.values())
    return {
        "packages": len(graph),
        "edges": graph.edges,
        "broken": len(catalogue.broken_edges),
        "catalogue": read - begin,
        "graph": time.perf_counter() - read,
        "cpu": time.process_time() - spent,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def handful(bindist: str, sha256: str, cache: str) -> list[str]:
    """Return the names of some sources of the archive, always the same of the same archive."""
    from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import (
        _debian_archive,
    )  # needs python-debian
    from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems._catalogue_targets import Complaints

    archive = _debian_archive.open_archive(bindist, sha256, cache, Complaints())
    names = sorted(archive.names())
    archive.close()
    return random.Random(1).sample(names, min(HANDFUL, len(names)))


def fresh(case: str, where: pathlib.Path, cache: str) -> dict[str, float]:
    """Measure in a new process."""
    command = [sys.executable, __file__, "--measure", case, str(where), cache]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def show(title: str, found: dict[str, float]) -> None:
    """Print a line of the table."""
    print(
        f"{title:44}{found['packages']:>9.0f}{found['edges']:>9.0f}{found['broken']:>8.0f}{found['catalogue']:>9.2f} s"
        f"{found['graph']:>8.2f} s{found['cpu']:>8.2f} s{found['megabytes']:>8.0f} MB",
        flush=True,
    )


def find_bindist() -> pathlib.Path | None:
    """Return a bindist of Debian's that this checkout has made."""
    found = sorted((CHECKOUT / ".cache" / "bindist").glob("*/bindist.json"))
    paths = [path.with_suffix(".tar") for path in found if "suite" in json.loads(path.read_text(encoding="utf-8"))]
    return next(filter(pathlib.Path.is_file, paths), None)


def main() -> int:
    """Measure all cases and print the table."""
    if sys.argv[1:2] == ["--measure"]:
        json.dump(measure(*sys.argv[2:5]), sys.stdout)
        return 0
    bindist = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else find_bindist()
    if bindist is not None and not bindist.with_suffix(".json").is_file():
        print(f"{bindist} is no bindist: there is no {bindist.with_suffix('.json')}.", file=sys.stderr)
        return 2
    columns = f"{'':44}{'packages':>9}{'edges':>9}{'broken':>8}{'catalogue':>11}{'graph':>10}{'CPU':>10}{'peak':>11}"
    with tempfile.TemporaryDirectory(prefix="bench-index-") as directory:
        index = pathlib.Path(directory) / "INDEX"
        make_index(index)
        print(f"An INDEX of {PACKAGES} lines and {index.stat().st_size / 1e6:.0f} MB.\n{columns}", flush=True)
        tree = fresh("INDEX", index, "")
        show("INDEX: all", tree)
        if bindist is not None:
            show("Debian: the bindist's lists, the first time", fresh("lists", bindist, directory))
            show(f"Debian: {HANDFUL} sources of the archive", fresh("handful", bindist, directory))
            show("Debian: all of the archive", fresh("all", bindist, directory))
    if bindist is None:
        print("Nothing of Debian: there is no bindist with its lists. The cluster tests leave one; else name one.")
    if tree["cpu"] > SECONDS or tree["megabytes"] > MEGABYTES:
        print(f"Above the budget of {SECONDS:g} s and {MEGABYTES} MB for the INDEX.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
