# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one may ask of a build beyond the package: packing-list check, kept chroots and files, versions, duds."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import tarfile
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import (
    copy_source,
    dispatch_all,
    Order,
    Result,
    start,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm

#: Mail goes nowhere: it waits in the spool, where it can be read.
MAIL = {"mail_host": "127.0.0.1", "mail_port": 9, "mail_to": ["ports@example.org"]}


class Wish(t.NamedTuple):
    """A build with a switch, on one of the machines."""

    source: str
    client: str
    variables: dict[str, t.Any]


WISHES = {
    "pb-leftover-told": Wish("pb-leftover", "client1", MAIL),
    "pb-leftover-failed": Wish("pb-leftover", "client2", {**MAIL, "plistcheck": True}),
    "pb-setuid-told": Wish("pb-setuid", "client3", {**MAIL, "plistcheck": True}),
    "pb-kept-overlay": Wish("pb-hello", "client1", {"noclean": True, "check": "off"}),
    "pb-kept-tmpfs": Wish("pb-hello", "client2", {"noclean": True, "check": "off"}),
    "pb-kept-directory": Wish("pb-hello", "client3", {"noclean": True, "check": "off"}),
    "pb-work-always": Wish("pb-hello", "client3", {"keep_workdir": "always", "check": "off"}),
    "pb-work-failed": Wish("pb-fails", "client2", {"keep_workdir": "failed"}),
    "pb-work-no": Wish("pb-hello", "client3", {"keep_workdir": "failed", "check": "off"}),
    "pb-dist": Wish("", "client2", {"want_distfiles": True, "check": "off"}),
    "pb-version=1.0": Wish("", "client3", {"check": "off"}),
}


def make_dsc(directory: pathlib.Path, name: str, version: str) -> list[pathlib.Path]:
    """Write a source package with one file, as dpkg-source does, and return its files."""
    source = directory / f".{name}-{version}"
    copy_source("pb-null", source, name)
    changelog = source / name / "debian" / "changelog"
    changelog.write_text(changelog.read_text(encoding="utf-8").replace("(1.0)", f"({version})"), encoding="utf-8")
    archive = directory / f"{name}_{version}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source / name, f"{name}-{version}")
    data = archive.read_bytes()
    sums = [(title, digest(data).hexdigest()) for title, digest in (("Sha256", hashlib.sha256), ("Sha1", hashlib.sha1))]
    lines = [f"Checksums-{title}:\n {value} {len(data)} {archive.name}\n" for title, value in sums]
    dsc = directory / f"{name}_{version}.dsc"
    dsc.write_text(
        f"Format: 3.0 (native)\nSource: {name}\nBinary: {name}\nArchitecture: all\nVersion: {version}\n"
        f"Maintainer: Nobody <nobody@example.org>\n{''.join(lines)}"
        f"Files:\n {hashlib.md5(data).hexdigest()} {len(data)} {archive.name}\n",
        encoding="utf-8",
    )
    return [dsc, archive]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The local source packages."""
    sources = tmp_path_factory.mktemp("switches")
    for package, wish in WISHES.items():
        if wish.source:
            copy_source(wish.source, sources, package)
    make_dsc(sources, "pb-dist", "1.0")
    make_dsc(sources, "pb-version", "1.0")
    make_dsc(sources, "pb-version", "1.1")
    return sources


@pytest.fixture(scope="module")
def results(farm: Farm, sources: pathlib.Path) -> t.Iterator[dict[str, Result]]:
    """All of them; what they leave on the machines on purpose is removed in the end."""
    farm.assert_idle()
    orders = [Order(farm.cluster[wish.client], package, wish.variables) for package, wish in WISHES.items()]
    yield dispatch_all(farm, orders, sourcedir=str(sources))
    farm.play("cleanup", keep_max=0).ok()
    farm.assert_idle()


def mail_about(farm: Farm, package: str) -> dict[str, str]:
    """Return the messages that wait for the mail server, by event."""
    spool = farm.branch_directory / ".spool"
    messages = [json.loads(path.read_text(encoding="utf-8")) for path in spool.glob("*.json")]
    return {message["event"]: message["message"] for message in messages if message["package"] == package}


def home(farm: Farm, package: str) -> list[str]:
    return sorted(path.suffix for path in farm.packages.glob(f"{package}_*"))


# -- the packing list --------------------------------------------------------------------------------------------------


def test_leftovers_are_reported_and_do_no_harm(results: dict[str, Result], farm: Farm) -> None:
    package = "pb-leftover-told"
    results[package].ended.ok()
    assert home(farm, package) == [".buildinfo", ".changes", ".deb"]
    assert not farm.failed(package)
    log = farm.log(package).splitlines()
    assert f"extra\t/var/lib/{package}/left behind" in log
    assert "changed\t/etc/profile" in log
    mail = mail_about(farm, package)
    assert list(mail) == ["plist"]
    text = mail["plist"].replace("=\n", "")  # as mail folds lines
    assert "packing-list errors" in text
    assert f"extra  /var/lib/{package}/left behind" in text
    assert "changed  /etc/profile" in text


def test_with_plistcheck_they_fail_the_build(results: dict[str, Result], farm: Farm) -> None:
    package = "pb-leftover-failed"
    results[package].ended.fails(f"{package} 1.0 failed on client2", "failed in check", "The packing list is wrong: ")
    assert home(farm, package) == []
    assert farm.failed(package)
    assert f"extra\t/var/lib/{package}/left behind" in farm.log(package).splitlines()
    assert list(mail_about(farm, package)) == ["failure"]


def test_privileged_files_are_listed_and_are_no_errors(results: dict[str, Result], farm: Farm) -> None:
    package = "pb-setuid-told"
    results[package].ended.ok()
    log = farm.log(package).splitlines()
    for line in (f"setuid\t/usr/bin/{package}", "setgid\t/usr/bin/pb-setgid", f"world_writable\t/var/lib/{package}"):
        assert line in log
    assert mail_about(farm, package) == {}


# -- what is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", [package for package in WISHES if package.startswith("pb-kept")])
def test_a_kept_chroot_can_be_entered_and_holds_no_slot(results: dict[str, Result], farm: Farm, package: str) -> None:
    client = farm.cluster[WISHES[package].client]
    ended = results[package].ended.ok()
    assert f"Its chroot on {client.name} is left as kept" in ended.output
    assert results[package].left == []
    assert farm.counters()[client.name] == 0
    info = farm.adhoc(client.name, "-m", "portbuild.cluster.machine_info").ok()
    said = json.loads(re.sub(r"^.*? => ", "", info.output, count=1, flags=re.DOTALL))
    assert said["jobs"] == []
    (kept,) = [chroot for chroot in said["chroots"] if chroot["package"] == package]
    assert kept["state"] == "kept"
    look = f"/build/work/{package}/tree/usr/bin/{package}; id -un; mknod /tmp/null c 1 3 || echo refused; echo $$"
    inside = client.run(["sh", "-c", kept["enter"]], stdin=look)
    assert inside.stdout.split() == [package, "root", "refused", "1"]  # no more than a step of root may, and alone
    assert client.mounts(f"{client.scratch}/kept") == []


def test_a_kept_chroot_is_never_used_again(results: dict[str, Result], farm: Farm, sources: pathlib.Path) -> None:
    client = farm.cluster["client1"]
    script = ["sh", "-c", f"find {client.scratch}/kept -name build.json -path '*/pb-kept-overlay/*' | xargs sha256sum"]
    before = client.run(script).stdout
    assert before
    start(farm, package="pb-kept-overlay", sourcedir=str(sources), check="off").end().ok()
    assert [build["outcome"] for build in farm.builds("pb-kept-overlay")[-2:]] == ["success"] * 2
    assert client.run(script).stdout == before
    assert farm.chroots(client) == []


def test_the_work_directory_comes_home(results: dict[str, Result], farm: Farm) -> None:
    workdirs = farm.branch_directory / "workdirs"
    results["pb-work-always"].ended.ok()
    results["pb-work-failed"].ended.fails("pb-work-failed 1.0 failed on client2")
    results["pb-work-no"].ended.ok()
    assert sorted(path.name for path in workdirs.glob("pb-work*")) == ["pb-work-always.tar.gz", "pb-work-failed.tar.gz"]
    for package, built in (("pb-work-always", True), ("pb-work-failed", False)):
        with tarfile.open(workdirs / f"{package}.tar.gz") as tar:
            names = tar.getnames()
        assert f"work/{package}/debian/rules" in names
        assert (f"work/{package}/tree/usr/bin/{package}" in names) == built


def test_source_archives_come_home(results: dict[str, Result], farm: Farm, sources: pathlib.Path) -> None:
    results["pb-dist"].ended.ok()
    for name in ("pb-dist_1.0.dsc", "pb-dist_1.0.tar.gz"):
        assert (farm.branch_directory / "distfiles" / name).read_bytes() == (sources / name).read_bytes()


# -- which version -----------------------------------------------------------------------------------------------------


def test_a_version_can_be_asked_for(results: dict[str, Result], farm: Farm, sources: pathlib.Path) -> None:
    """It is another version of the same package, not another job."""
    results["pb-version=1.0"].ended.ok()
    assert [path.name for path in farm.packages.glob("pb-version_*.deb")] == ["pb-version_1.0_all.deb"]
    start(farm, package="pb-version", sourcedir=str(sources), check="off").end().ok()
    assert [build["version"] for build in farm.builds("pb-version")[-2:]] == ["1.0", "1.1"]
    assert [path.name for path in farm.packages.glob("pb-version_*.deb")] == ["pb-version_1.1_all.deb"]
    assert farm.log("pb-version").count("=== ended: success") == 1


# -- duds --------------------------------------------------------------------------------------------------------------


def test_a_dud_is_built_only_when_asked_for(results: dict[str, Result], farm: Farm) -> None:
    duds = farm.branch_directory / "duds"
    duds.write_text("# what must not be tried\nno-such-package\npb-null|BROKEN: does nothing\n", encoding="utf-8")
    try:
        before = len(farm.builds("pb-null"))
        start(farm, package="pb-null").end().fails("pb-null is a dud (BROKEN: does nothing) and was not tried.")
        assert len(farm.builds("pb-null")) == before
        start(farm, package="pb-null", trybroken=True, check="off", **MAIL).end().ok()
        assert len(farm.builds("pb-null")) == before + 1
        assert "broken_built" in mail_about(farm, "pb-null")
    finally:
        duds.unlink()
