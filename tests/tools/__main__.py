# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carry out a target of the Makefile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import typing as t

from . import docs, host, linting, release, testing, venvs
from .project import CACHE, CHECKOUT, CLUSTER, environment, link_collection, say, ToolError, VENVS


def in_environment(*argv: str, programs: t.Mapping[str, str], root: bool = True) -> int:
    """Run a script or module of the checkout on the newest ansible-core."""
    host.require(programs, root=root)
    link_collection()
    python = venvs.ensure(testing.newest())
    done = subprocess.run([str(python), *argv], cwd=CHECKOUT, env=environment(python), check=False)
    return done.returncode


def cluster() -> int:
    """Start the cluster."""
    return in_environment("-m", "cluster", "start", str(CLUSTER), programs=host.FOR_CLUSTER)


def cluster_stop() -> int:
    """Stop the cluster."""
    return in_environment("-m", "cluster", "stop", str(CLUSTER), programs=host.FOR_CLUSTER)


def clean() -> int:
    """Stop the cluster and remove everything that the targets made."""
    if CACHE.exists():
        cluster_stop()
    for directory in (CACHE, VENVS, CHECKOUT / ".nox", CHECKOUT / ".ansible", CHECKOUT / ".hypothesis"):
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            continue
        except PermissionError:  # what builds left there belongs to root
            subprocess.run(host.as_root(["rm", "-rf", "--one-file-system", "--", str(directory)]), check=True)
    return 0


TARGETS: dict[str, t.Callable[[], int]] = {
    "demo": lambda: in_environment("-m", "demo", programs=host.FOR_CLUSTER),
    "test": testing.test,
    "test-long": lambda: testing.test(long=True),
    "lint": lambda: linting.lint(sys.argv[2:]),
    "format": linting.reformat,
    "docs": docs.docs,
    "cluster": cluster,
    "cluster-stop": cluster_stop,
    "bench": lambda: in_environment("-m", "bench", programs=host.FOR_BENCH),
    "bench-bulk": lambda: in_environment("-m", "bench.bulk", *sys.argv[2:], programs=host.FOR_BENCH),
    "bench-dispatch": lambda: in_environment("-m", "bench.dispatch", programs=host.FOR_BENCH),
    "bench-classify": lambda: in_environment("-m", "bench.classify", *sys.argv[2:], programs={}, root=False),
    "bench-schedule": lambda: in_environment("-m", "bench.schedule", *sys.argv[2:], programs={}, root=False),
    "bench-index": lambda: in_environment("-m", "bench.index", *sys.argv[2:], programs={}, root=False),
    "soak": lambda: in_environment("-m", "soak", programs=host.FOR_CLUSTER),
    "check-freebsd": lambda: in_environment("-m", "freebsd", programs=host.FOR_CHECK, root=False),
    "release": release.release,
    "clean": clean,
}


def main() -> int:
    """Carry out the target; say in one line why it cannot be."""
    target = sys.argv[1] if len(sys.argv) > 1 else ""
    if target not in TARGETS:
        say(f"There is no target {target!r}; 'make help' lists them.")
        return 2
    os.umask(0o022)  # what clients' users are to read is made here
    try:
        return TARGETS[target]()
    except ToolError as error:
        print(f"make {target}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
