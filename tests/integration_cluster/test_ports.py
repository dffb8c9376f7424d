# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ports driver through the real dispatch path, over the test double of a ports tree in tests/ports.

The double's base is Debian with bmake for make and a shell script for pkg, so what is seen here is the controller's
side, ports.sh and the supervisor; what is FreeBSD's own is seen on a FreeBSD host (make check-freebsd).
"""

from __future__ import annotations

import gzip
import io
import pathlib
import shutil
import tarfile
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._files import sha256_file
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import publish_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._port_tree import publish_tree
from ansible_collections.portbuild.cluster.tests.cluster import Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import dispatch_all, Order, Result
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import CHECKOUT, Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster.conftest import BINDIST_AGE, BINDISTS

DOUBLE = CHECKOUT / "tests" / "ports"
MAIL = {"mail_host": "127.0.0.1", "mail_port": 9, "mail_to": ["ports@example.org"]}
#: The switches of a build that needs them.
WISHES: dict[str, dict[str, t.Any]] = {
    "pb-fails": {"keep_workdir": "failed", **MAIL},
    "pb-plist": MAIL,
    "pb-setuid": {"plistcheck": True, **MAIL},
    "pb-broken": {"trybroken": True, **MAIL},
    "pb-brokenfails": {"trybroken": True, **MAIL},
    "pb-root": {"check": "off"},
    "pb-unreachable": {"infra_retries": 0, "attempts": 1},
}


def make_base(farm: Farm) -> pathlib.Path:
    """Return the double's base: Debian with bmake, made by the playbook once a day; make and pkg are put into it."""
    cached = BINDISTS / "double" / "bindist.tar"
    if not cached.exists() or time.time() - cached.stat().st_mtime > BINDIST_AGE:
        debian = Farm(farm.cluster, farm.root.parent / "debian", arch="debian-double")
        debian.play("bindist", timeout=900, bindist_extra_packages=["bmake"]).ok()
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_suffix(".new")
        with gzip.open(debian.branch_directory / "tarballs" / "bindist.tar") as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        temporary.rename(cached)
        shutil.rmtree(debian.root)
    base = farm.root / "base.tar"
    shutil.copyfile(cached, base)
    with tarfile.open(base, "a") as tar:
        link = tarfile.TarInfo("./usr/local/bin/make")
        link.type, link.linkname = tarfile.SYMTYPE, "/usr/bin/bmake"
        tar.addfile(link)
        script = (DOUBLE / "base" / "pkg").read_bytes()
        pkg = tarfile.TarInfo("./usr/sbin/pkg")
        pkg.mode, pkg.size = 0o755, len(script)
        tar.addfile(pkg, io.BytesIO(script))
    return base


def publish(farm: Farm) -> None:
    """Give the branch its base and its tree."""
    layout = Layout(str(farm.root), farm.arch, farm.branch)
    farm.branch_directory.joinpath("tarballs").mkdir(parents=True)
    base = make_base(farm)
    facts = {"schema": 1, "sha256": sha256_file(str(base)), "size": base.stat().st_size}
    publish_bindist(layout, str(base), facts)
    tree = farm.root / "tree.tar"
    with tarfile.open(tree, "w") as tar:
        tar.add(DOUBLE / "tree", ".")
    publish_tree(layout, str(tree), {"source": "tests/ports", "revision": "", "made": 0})


@pytest.fixture(scope="module")
def ports(cluster: Cluster, controller_root: pathlib.Path) -> Farm:
    """A controller of ports on the same clients."""
    ports = Farm(
        cluster,
        controller_root / "ports" / "root",
        arch="ports-double",
        branch="15",
        variables={"portbuild_system": "ports"},
    )
    publish(ports)
    ports.play("setup", timeout=600).ok()
    return ports


@pytest.fixture(scope="module")
def indexed(ports: Farm) -> Farm:
    """The same, with an INDEX that was made on a client, by a make.conf of the branch."""
    ports.branch_directory.joinpath("make.conf").write_text("PB_FROM_MAKE_CONF= yes\n", encoding="utf-8")
    ports.play("index", no_restricted=True).ok()
    return ports


def build_all(farm: Farm, *packages: str) -> dict[str, Result]:
    """Build these, spread over the machines."""
    clients = [farm.cluster[name] for name in ("client3", "client2", "client3", "client1", "client2", "client3")]
    orders = [
        Order(clients[number % len(clients)], package, WISHES.get(package, {}))
        for number, package in enumerate(packages)
    ]
    return dispatch_all(farm, orders)


@pytest.fixture(scope="module")
def built(indexed: Farm) -> dict[str, Result]:
    """All ports of the double, in the order of their dependencies."""
    results = build_all(indexed, "ports-mgmt/pkg")
    results |= build_all(
        indexed, "devel/py-pb@py312", "pb-trivial-1.0_2", "py311-pb=3.0", "pb-fails", "pb-plist", "pb-setuid"
    )
    results |= build_all(indexed, "pb-broken", "pb-brokenfails", "pb-depends", "pb-root", "pb-unreachable", "pb-ignore")
    return results


def test_index(indexed: Farm) -> None:
    print((indexed.branch_directory / "INDEX").read_text())
    print((indexed.branch_directory / "duds").read_text())


def test_built(built: dict[str, Result], indexed: Farm) -> None:
    for name, result in built.items():
        print(name, result.ended.status, result.ended.seconds)
        print(result.ended.output[-1500:])
    for log in sorted((indexed.branch_directory / "logs").glob("*.log")):
        print("#" * 20, log.name)
        print(log.read_text())
    assert 0
