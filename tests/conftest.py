# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for all tests. Runs on the oldest supported client Python too, where only unit tests are collected."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.tools.leftovers import Snapshot

if t.TYPE_CHECKING:
    from ansible_collections.portbuild.cluster.tests.cluster import Cluster

    NewCluster = t.Callable[..., Cluster]

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
#: Clusters of test runs live here, on a real file system, in a directory for each worker (pytest-xdist) of a run.
CLUSTERS = pathlib.Path(os.environ.get("PORTBUILD_TEST_CLUSTERS") or CHECKOUT / ".cache" / "clusters")
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if not WORKER:
    os.environ["PORTBUILD_TEST_RUN"] = str(os.getpid())  # for the workers, which inherit it
RUNS = f"pytest-{os.environ['PORTBUILD_TEST_RUN']}-"
RUN = CLUSTERS / f"{RUNS}{WORKER or 'main'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the cluster is marked so, and does not run where there can be none."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")
        if os.geteuid() != 0 and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


class Leftovers:
    """After the last test no mount, process, cgroup or account is there that was not there before the first.

    Not a fixture: with several workers (pytest-xdist) only the process that started them sees the end of them all.
    """

    def __init__(self) -> None:
        self.before = Snapshot.take(CLUSTERS / RUNS)
        self.problems: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compare, and fail the run."""
        self.problems = Snapshot.take(CLUSTERS / RUNS).compared_to(self.before)
        if self.problems:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say why the run failed."""
        if self.problems:
            terminalreporter.section("left behind by the tests", red=True)
            for problem in self.problems:
                terminalreporter.line(problem)


def pytest_configure(config: pytest.Config) -> None:
    """Look at the host before the first test. Workers leave that to the process that started them."""
    if not WORKER:
        config.pluginmanager.register(Leftovers())


@pytest.fixture(scope="session")
def new_cluster() -> t.Iterator[NewCluster]:
    """Start a cluster: call it with a name that no other cluster of this test run has, and Cluster.start's options."""
    from ansible_collections.portbuild.cluster.tests.cluster import Cluster

    remove_stale_runs()
    with contextlib.ExitStack() as stack:
        yield lambda name, **options: stack.enter_context(Cluster.start(RUN / name, **options))
    with contextlib.suppress(FileNotFoundError):
        RUN.rmdir()


@pytest.fixture(scope="session")
def cluster(new_cluster: NewCluster) -> Cluster:
    """Three clients that differ in rank, maxjobs, login and backend (see tests/cluster), shared by all tests."""
    return new_cluster("three")


def remove_stale_runs() -> None:
    """Remove what killed test runs left: their clients have ended by themselves, their files are still there."""
    from ansible_collections.portbuild.cluster.tests.cluster import Cluster, ClusterError

    for run in CLUSTERS.glob("pytest-*"):
        try:
            for directory in run.iterdir():
                stale = Cluster.load(directory)
                if stale is not None:
                    stale.stop_if_abandoned()
        except ClusterError:
            continue  # another test run is using it
        if not os.path.exists(f"/proc/{run.name.split('-')[1]}"):
            shutil.rmtree(run, ignore_errors=True)
