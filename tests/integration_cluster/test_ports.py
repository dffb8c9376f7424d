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
import json
import pathlib
import shutil
import tarfile
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._files import sha256_file
from ansible_collections.portbuild.cluster.plugins.plugin_utils._bindist import publish_bindist
from ansible_collections.portbuild.cluster.plugins.plugin_utils._index import read_index
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._port_tree import publish_tree
from ansible_collections.portbuild.cluster.tests.cluster import Cluster
from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import dispatch_all, Order, Result
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import CHECKOUT, Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster.conftest import BINDIST_AGE, BINDISTS

DOUBLE = CHECKOUT / "tests" / "ports"
MAIL = {"mail_host": "127.0.0.1", "mail_port": 9, "mail_to": ["ports@example.org"]}
#: What is asked for: by the package's name the machine, how it is called, and the switches.
WISHES: dict[str, tuple[str, str, dict[str, t.Any]]] = {
    "pkg": ("client1", "ports-mgmt/pkg", {}),
    "pb-trivial": ("client1", "pb-trivial-1.0_2", {"want_distfiles": True, "check": "off"}),
    "py312-pb": ("client3", "devel/py-pb@py312", {"check": "off"}),
    "py311-pb": ("client3", "py311-pb=3.0", {"check": "off"}),
    "pb-plist": ("client2", "pb-plist", MAIL),
    "pb-setuid": ("client2", "pb-setuid", {"plistcheck": True, **MAIL}),
    "pb-fails": ("client3", "pb-fails", {"keep_workdir": "failed", **MAIL}),
    "pb-depends": ("client1", "pb-depends", {}),
    "pb-broken": ("client3", "pb-broken", {"trybroken": True, "check": "off", **MAIL}),
    "pb-brokenfails": ("client3", "pb-brokenfails", {"trybroken": True, **MAIL}),
    "pb-root": ("client2", "pb-root", {"check": "off"}),
    "pb-unreachable": ("client2", "pb-unreachable", {"infra_retries": 0, "attempts": 1}),
}
#: In the order of their dependencies; of a stage all are built at once.
STAGES = (("pkg",), tuple(WISHES)[1:7], tuple(WISHES)[7:])


def make_base(farm: Farm) -> pathlib.Path:
    """Return the double's base: Debian with bmake, made by the playbook once a day; make and pkg are put into it."""
    cached = BINDISTS / "double" / "bindist.tar"
    if not cached.exists() or time.time() - cached.stat().st_mtime > BINDIST_AGE:
        debian = Farm(farm.cluster, farm.root.parent / "debian", arch="debian-double")
        debian.play("bindist", timeout=900, bindist_variant="minbase", bindist_extra_packages=["bmake"]).ok()
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_suffix(".new")
        with gzip.open(debian.branch_directory / "tarballs" / "bindist.tar") as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        temporary.rename(cached)
        shutil.rmtree(debian.root)
    base = farm.root / "base.tar"
    shutil.copyfile(cached, base)
    with tarfile.open(base, "a") as tar:
        state = tarfile.TarInfo("./var/db")  # FreeBSD's base has it
        state.type, state.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(state)
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


@pytest.fixture(scope="module")
def built(indexed: Farm) -> dict[str, Result]:
    """All of them."""
    index = indexed.branch_directory / "INDEX"
    text = index.read_text(encoding="utf-8")
    # Of one port the INDEX does not tell the flavor, as one from elsewhere may not.
    assert text.count("/devel/py-pb@py311|") == 1
    index.write_text(text.replace("/devel/py-pb@py311|", "/devel/py-pb|"), encoding="utf-8")
    results = {}
    for stage in STAGES:
        wishes = [WISHES[package] for package in stage]
        done = dispatch_all(indexed, [Order(indexed.cluster[client], asked, more) for client, asked, more in wishes])
        results.update({package: done[WISHES[package][1]] for package in stage})
    return results


def mail_about(farm: Farm, package: str) -> list[str]:
    """Return the events of the messages that wait for the mail server."""
    spool = farm.branch_directory / ".spool"
    messages = [json.loads(path.read_text(encoding="utf-8")) for path in spool.glob("*.json")]
    return [message["event"] for message in messages if message["package"] == package]


def home(farm: Farm, package: str) -> list[str]:
    return sorted(path.name for path in farm.packages.glob(f"{package}-*"))


# -- the INDEX ---------------------------------------------------------------------------------------------------------


def test_the_index_and_the_duds_are_made_on_a_client(indexed: Farm) -> None:
    index = read_index(str(indexed.branch_directory / "INDEX"))
    assert index.problems == []
    assert len(index.entries) == len(list(DOUBLE.glob("tree/*/*/Makefile"))) + 1  # one has two flavors
    assert index.by_base["pb-depends"].dependencies == ("pb-trivial-1.0_2", "py312-pb-3.0")
    assert sorted((indexed.branch_directory / "duds").read_text(encoding="utf-8").splitlines()) == [
        "pb-brokenfails|is marked as broken: does not build with anything",
        "pb-broken|is marked as broken: does not build with anything",
        "pb-ignore|is only for another system",
        "pb-restricted|is restricted: not to be distributed",
    ]
    assert [build["outcome"] for build in indexed.builds("INDEX")] == ["success"]
    assert not list(indexed.packages.glob("*INDEX*"))
    assert "build of /usr/ports ended at" in indexed.log("INDEX")


def test_nothing_is_made_anew_from_the_same(indexed: Farm) -> None:
    before = (indexed.branch_directory / "INDEX").stat()
    again = indexed.play("index", no_restricted=True).ok()
    assert "changed=0" in again.output
    assert "was made from what there is now" in again.output
    after = (indexed.branch_directory / "INDEX").stat()
    assert (after.st_ino, after.st_mtime) == (before.st_ino, before.st_mtime)
    assert len(indexed.builds("INDEX")) == 1


def test_an_index_that_is_given_is_accepted_after_reading(indexed: Farm, tmp_path: pathlib.Path) -> None:
    given = tmp_path / "INDEX-15"
    given.write_text("no INDEX\n", encoding="utf-8")
    other: dict[str, t.Any] = {"branch": "given", "index_file": str(given)}
    indexed.play("index", **other).fails("describes no package", "line 1: It has 1 fields instead of 13")
    lines = (indexed.branch_directory / "INDEX").read_text(encoding="utf-8")
    given.write_text(lines + "broken|line\n", encoding="utf-8")
    first = indexed.play("index", **other).ok()
    assert "INDEX, line 15: It has 2 fields instead of 13. It is left out." in " ".join(first.output.split())
    assert "changed=1" in first.output
    assert "changed=0" in indexed.play("index", **other).ok().output
    assert (indexed.root / indexed.arch / "given" / "INDEX").read_bytes() == given.read_bytes()


# -- before anything is claimed ----------------------------------------------------------------------------------------


def test_nonsense_is_refused_before_anything_is_claimed(indexed: Farm, built: dict[str, Result]) -> None:
    indexed.dispatch("pb-trivail").fails("There is no package pb-trivail in", "Did you mean pb-trivial")
    indexed.dispatch("pb-ignore").fails("pb-ignore is a dud (is only for another system) and was not tried.")
    indexed.packages.joinpath("pb-trivial-1.0_2.pkg").rename(indexed.packages / "aside")
    try:
        indexed.dispatch("devel/pb-depends").fails(
            "pb-depends-0.1 needs a package that is not built: pb-trivial-1.0_2", "Build what is missing first."
        )
    finally:
        indexed.packages.joinpath("aside").rename(indexed.packages / "pb-trivial-1.0_2.pkg")
    indexed.assert_idle()


# -- builds ------------------------------------------------------------------------------------------------------------


def test_packages_come_home(built: dict[str, Result], indexed: Farm) -> None:
    for package in ("pkg", "pb-trivial", "py312-pb", "py311-pb", "pb-depends", "pb-root"):
        built[package].ended.ok()
        (name,) = home(indexed, package)
        assert name == f"{package}-{indexed.builds(package)[-1]['version']}.pkg"
        assert built[package].left == []
    indexed.assert_idle()


def test_the_log_has_the_frame_of_the_original(built: dict[str, Result], indexed: Farm) -> None:
    lines = indexed.log("pb-trivial").splitlines()
    assert lines[:7] == [
        "building for: ports-double 15",
        "package: pb-trivial",
        "machine: client1",
        "directory: /srv/portbuild/chroots/ports-double/15/pb-trivial",
        "arguments: WANT_DISTFILES",
        "port directory: /usr/ports/devel/pb-trivial",
        "maintained by: trivial@example.org",
    ]
    assert any(line.startswith("build started at ") for line in lines)
    ruler = "=" * 20
    assert f"{ruler}<phase 1: fetch (step fetch, user builder, network yes)>{ruler}" in lines
    assert f"{ruler}<phase 3: build (step build, user builder, network no)>{ruler}" in lines
    assert lines[-2].startswith("build of /usr/ports/devel/pb-trivial ended at ")


def test_dependencies_are_our_own_packages(built: dict[str, Result], indexed: Farm) -> None:
    log = indexed.log("pb-depends")
    fetch_depends, rest = log.split("<phase 2: fetch")
    assert "Installing pkg-2.8.4..." in fetch_depends and "Installing pb-trivial-1.0_2..." in fetch_depends
    assert "Installing py312-pb-3.0..." not in fetch_depends
    assert "portbuild: adding py312-pb-3.0" in rest
    assert "pb-trivial-1.0_2\npy312-pb-3.0\n" in rest, "the port reads what its dependencies have installed"


def test_distfiles_come_home_and_from_the_cache(built: dict[str, Result], indexed: Farm) -> None:
    distfile = DOUBLE / "tree" / "devel" / "pb-trivial" / "dist" / "pb-trivial-1.0.txt"
    copy = indexed.branch_directory / "distfiles" / "pb%2fpb-trivial-1.0.txt"
    assert copy.read_bytes() == distfile.read_bytes()
    assert "=> Attempting to fetch file://" in indexed.log("pb-trivial")
    client = indexed.cluster["client1"]
    for fetch_original in (False, True):
        wanted = {"check": "off", "fetch_original": fetch_original}
        result = dispatch_all(indexed, [Order(client, "pb-trivial", wanted)])["pb-trivial"]
        result.ended.ok()
        log = indexed.log("pb-trivial")
        assert "=> SHA256 Checksum OK for pb/pb-trivial-1.0.txt." in log
        assert ("=> Attempting to fetch" in log) == fetch_original


def test_a_failure_names_its_target_and_keeps_its_workdir(built: dict[str, Result], indexed: Farm) -> None:
    built["pb-fails"].ended.fails("pb-fails 1.0 failed on client3", "failed in build")
    assert "portbuild: It failed in build." in indexed.log("pb-fails")
    assert home(indexed, "pb-fails") == []
    assert indexed.failed("pb-fails")
    assert mail_about(indexed, "pb-fails") == ["failure"]
    with tarfile.open(indexed.branch_directory / "workdirs" / "pb-fails.tar.gz") as tar:
        assert any(name.endswith("/devel/pb-fails/work/.configure_done.pb-fails._usr_local") for name in tar.getnames())


def test_the_packing_list_is_checked(built: dict[str, Result], indexed: Farm) -> None:
    built["pb-plist"].ended.ok()
    lines = indexed.log("pb-plist").splitlines()
    for line in (
        "extra\t/usr/local/share/pb plist",
        "extra\t/usr/local/share/pb plist/left behind",
        "extra\t/usr/local/share/pb-link",
        "changed\t/etc/profile",
    ):
        assert line in lines
    assert mail_about(indexed, "pb-plist") == ["plist"]
    for package in ("pkg", "pb-depends", "pb-setuid"):
        assert not [
            line for line in indexed.log(package).splitlines() if line.startswith(("extra", "missing", "changed"))
        ]
    client = indexed.cluster["client2"]
    result = dispatch_all(indexed, [Order(client, "pb-plist", {"plistcheck": True, **MAIL})])["pb-plist"]
    result.ended.fails("pb-plist 1.0 failed on client2", "failed in check", "The packing list is wrong: 4 differences.")
    assert indexed.failed("pb-plist")


def test_privileges_are_listed_and_are_no_errors(built: dict[str, Result], indexed: Farm) -> None:
    built["pb-setuid"].ended.ok()
    lines = indexed.log("pb-setuid").splitlines()
    for line in (
        "setuid\t/usr/local/bin/pb-setuid",
        "setgid\t/usr/local/bin/pb-setgid",
        "world_writable\t/usr/local/pb-open",
    ):
        assert line in lines
    assert mail_about(indexed, "pb-setuid") == []


def test_broken_and_built_is_told_apart_from_broken_and_failed(built: dict[str, Result], indexed: Farm) -> None:
    ended = built["pb-broken"].ended.ok()
    assert "though it is marked as broken" in ended.output
    assert mail_about(indexed, "pb-broken") == ["broken_built"]
    assert "even though it is marked BROKEN" in indexed.log("pb-broken")
    built["pb-brokenfails"].ended.fails("pb-brokenfails 1.0 failed", "It is marked as broken, so nobody is told.")
    assert mail_about(indexed, "pb-brokenfails") == []
    assert [build["broken"] for build in indexed.builds("pb-brokenfails")] == [1]


def test_root_builds_only_what_needs_it(built: dict[str, Result], indexed: Farm) -> None:
    before, after = indexed.log("pb-root").split("(step build-as-root, user root, network no)")
    assert "has to be built by root" in before and "Building for" not in before
    assert "===>  Building for pb-root-1.0" in after
    assert "===>  Building" not in indexed.log("py311-pb").split("(step build-as-root")[1]


def test_the_network_is_not_the_ports_fault(built: dict[str, Result], indexed: Farm) -> None:
    built["pb-unreachable"].ended.fails("pb-unreachable was not built on client2", "fetch_infrastructure in fetch")
    (build,) = indexed.builds("pb-unreachable")
    assert build["infrastructure"] == 1
    assert not indexed.failed("pb-unreachable")
