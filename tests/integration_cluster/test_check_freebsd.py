# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The acceptance of make check-freebsd, on a Linux client and over the test double of a ports tree.

What it says of FreeBSD is nothing; what is seen is that its checks check, that it prints what it should, and that it
leaves nothing behind. On the way setup makes a real tree from a directory, and a bindist is made of a tarball given.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Client, Cluster
from ansible_collections.portbuild.cluster.tests.freebsd._acceptance import Acceptance, Site
from ansible_collections.portbuild.cluster.tests.freebsd._report import Report
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import CHECKOUT, COLLECTIONS, Farm

DOUBLE = CHECKOUT / "tests" / "ports"

STAGE = (
    "do-stage= mkdir -p ${STAGEDIR}${PREFIX}/bin && echo ${PKGNAME} > ${STAGEDIR}${PREFIX}/bin/${PKGBASE} && "
    "chmod 755 ${STAGEDIR}${PREFIX}/bin/${PKGBASE}\n"
)
#: The double knows another syntax than the real tree: the acceptance's ports that it does not have, in that.
PORTS = {
    "pb-slow": 'PB_SLOW?= 60\ndo-build= for second in $$(seq ${PB_SLOW}); do echo "second $$second"; sleep 1; done\n',
    "pb-sleep": "do-build= { echo sleeping; sleep 7531; }\n",
    "pb-depends": "BUILD_DEPENDS= /usr/local/bin/pb-trivial:devel/pb-trivial\n"
    "do-configure= grep pb-trivial-1.0 /usr/local/bin/pb-trivial\n",
}


def make_tree(acceptance: Acceptance) -> str:
    """Put a copy of the double, with the acceptance's ports, where portbuild_tree can name it."""
    tree = acceptance.site.root / "tree"
    shutil.copytree(DOUBLE / "tree", tree, symlinks=True)
    for name, rest in PORTS.items():
        port = tree / "devel" / name
        port.mkdir(exist_ok=True)
        head = f"PORTNAME= {name}\nPORTVERSION= 1.0\nCOMMENT= For the acceptance\n"
        tail = '\n.include "${PORTSDIR}/Mk/bsd.port.mk"\n'
        (port / "Makefile").write_text(head + rest + STAGE + tail, encoding="utf-8")
    return str(tree)


@pytest.fixture
def client(cluster: Cluster) -> Client:
    """An ordinary user with sudo logs in there."""
    return cluster["client2"]


@pytest.fixture
def site(cluster: Cluster, client: Client, controller_root: pathlib.Path) -> t.Iterator[Site]:
    from ansible_collections.portbuild.cluster.tests.integration_cluster.test_ports import make_base

    root = controller_root / "acceptance"
    root.mkdir()
    farm = Farm(cluster, root / "base")
    base = make_base(farm)
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    settings = {"PATH": path, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}
    yield Site(
        host=client.name,
        root=root,
        ansible=pathlib.Path(sys.executable).parent,
        environment={**os.environ, **cluster.environment(), **settings},
        scratch=f"{client.scratch}/check",
        variables={
            "portbuild_bindist_tarball": str(base),
            "portbuild_chroot_backend": "directory",
            "portbuild_machine_min_free": "200M",
            "portbuild_min_free": "100M",
        },
        limit=25,
        slow=20,
        patience=600,
    )
    shutil.rmtree(root)


@pytest.mark.slow
def test_all_of_it(site: Site, client: Client) -> None:
    lines: list[str] = []
    status = Acceptance(site, Report(say=lines.append), make_tree=make_tree, pkg="port").run()
    said = "\n".join(lines)
    print(said)
    assert status == 0, said
    assert lines[-1].startswith("16 checks: 16 ok, 0 failed, 0 skipped; ")
    assert len(lines) == 17
    assert client.run(["sh", "-c", f"ls -d {site.scratch} /tmp/portbuild-check.* 2> /dev/null || :"]).stdout == ""
