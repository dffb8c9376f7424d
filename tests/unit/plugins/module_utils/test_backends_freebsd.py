# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""FreeBSD's backends, and what recovers chroots after a crash, on the double of a host."""

from __future__ import annotations

import os
import pathlib
import stat
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import (
    _backends,
    _backends_freebsd,
    _chroots,
    _remains,
    _trees,
)
from ansible_collections.portbuild.cluster.plugins.module_utils._backends_common import Backend, BackendFailed
from ansible_collections.portbuild.cluster.plugins.module_utils._backends_freebsd import DRIVERS, PREFERENCE
from ansible_collections.portbuild.cluster.plugins.module_utils._chroots import KEPT
from ansible_collections.portbuild.cluster.plugins.module_utils._cleanup import Bounds, carry_out, plan
from ansible_collections.portbuild.cluster.plugins.module_utils._freebsd_remains import RemainsStuck
from ansible_collections.portbuild.cluster.plugins.module_utils._trees import UnsafePath
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._freebsd_host import Host
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._shed import BASE, HELLO, Shed

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not hasattr(os, "setns"), reason="the double needs Python 3.12 and Linux"),
]

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in DRIVERS}
DATASET = f"zroot/data/portbuild/base-{BASE}"


@pytest.fixture(name="host")
def _host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Host]:
    host = Host(tmp_path, monkeypatch)
    # Like this the store takes FreeBSD's drivers.
    for module in (_backends, _chroots, _remains):
        monkeypatch.setattr(module, "BACKENDS", BACKENDS)
    (host.state / "zfs").write_text('{"zroot": "", "zroot/data": "", "zroot/other": ""}', encoding="utf-8")
    yield host
    host.close()


@pytest.fixture(name="shed")
def _shed(tmp_path: pathlib.Path, host: Host) -> t.Iterator[Shed]:
    shed = Shed(tmp_path / "scratch")
    (shed.scratch / "bases" / BASE / "dir").mkdir()
    yield shed
    shed.close()


def paths(shed: Shed, backend: str) -> tuple[str, str]:
    """Claim, and return the paths of chroot and base."""
    return shed.claim(backend=backend).path, str(shed.scratch / "bases" / BASE)


def dataset(chroot: str, name: str = "root") -> str:
    return f"zroot/data/portbuild/chroot-{os.stat(chroot).st_ino:x}-{name}"


class TestZfs:
    def test_the_commands_are_these(self, shed: Shed, host: Host):
        chroot, base = paths(shed, "zfs")
        legacy, filling = ["-o", "mountpoint=legacy", "-o", "atime=off"], f"{chroot}/fs/filling"
        root, mine = f"{chroot}/fs/root", dataset(chroot)
        changes = [call for call in host.calls("zfs", "mount", "umount") if call[1] not in ("list", "get", "-p")]
        assert changes == [
            ["zfs", "create", *legacy, "zroot/data/portbuild"],
            ["zfs", "create", *legacy, DATASET],
            ["mount", "-t", "zfs", DATASET, filling],
            ["umount", "-f", filling],
            ["zfs", "snapshot", f"{DATASET}@clean"],
            ["zfs", "clone", *legacy, "-o", "sync=disabled", f"{DATASET}@clean", mine],
            ["zfs", "snapshot", f"{mine}@clean"],
        ]
        host.forget_calls()
        assert BACKENDS["zfs"].mount(chroot, base) == root
        changes = [call for call in host.calls("zfs", "mount", "umount") if call[1] not in ("list", "get", "-p")]
        assert changes == [["zfs", "rollback", "-r", f"{mine}@clean"], ["mount", "-t", "zfs", mine, root]]
        assert [mount[:3] for mount in host.mounts] == [[mine, root, "zfs"]]

    def test_a_used_root_is_unmounted_and_reset(self, shed: Shed, host: Host):
        chroot, base = paths(shed, "zfs")
        BACKENDS["zfs"].mount(chroot, base)
        BACKENDS["zfs"].mount(chroot, base)
        assert len(host.mounts) == 1
        assert ["zfs", "rollback", "-r", f"{dataset(chroot)}@clean"] in host.calls("zfs")

    def test_a_clone_of_another_base_is_made_anew(self, shed: Shed, host: Host):
        chroot, base = paths(shed, "zfs")
        other = shed.scratch / "bases" / ("0" * 64)
        other.mkdir()
        BACKENDS["zfs"].mount(chroot, base)
        BACKENDS["zfs"].unmount(chroot)
        BACKENDS["zfs"].create(chroot, str(other))
        assert host.datasets[dataset(chroot)].endswith(f"base-{'0' * 64}@clean")

    def test_a_second_root_is_dropped(self, shed: Shed, host: Host):
        chroot, base = paths(shed, "zfs")
        BACKENDS["zfs"].mount(chroot, base)
        fresh = BACKENDS["zfs"].mount(chroot, base, name="fresh")
        assert fresh == f"{chroot}/fs/root.fresh"
        assert dataset(chroot, "fresh") in host.datasets
        BACKENDS["zfs"].drop(chroot, "fresh")
        assert dataset(chroot, "fresh") not in host.datasets
        assert not os.path.exists(fresh)
        assert len(host.mounts) == 1

    def test_a_base_that_was_cut_short_is_done_over(self, shed: Shed, host: Host):
        (host.state / "zfs").write_text(
            f'{{"zroot": "", "zroot/data": "", "zroot/data/portbuild": "", "{DATASET}": ""}}', encoding="utf-8"
        )
        paths(shed, "zfs")
        assert ["zfs", "destroy", "-r", DATASET] in host.calls("zfs")
        assert f"{DATASET}@clean" in host.datasets

    def test_the_configuration_says_where(self, shed: Shed, host: Host):
        (shed.scratch / "portbuild.conf").write_text("zfs_dataset=zroot/other\n", encoding="utf-8")
        chroot, _base = paths(shed, "zfs")
        assert f"zroot/other/base-{BASE}@clean" in host.datasets
        assert not any(name.startswith("zroot/data/portbuild") for name in host.datasets)
        (shed.scratch / "portbuild.conf").write_text("zfs_dataset=zroot@other\n", encoding="utf-8")
        with pytest.raises(BackendFailed, match="cannot be the name"):
            BACKENDS["zfs"].create(chroot, _base)

    def test_usage_and_entering(self, shed: Shed):
        chroot, base = paths(shed, "zfs")
        root = BACKENDS["zfs"].mount(chroot, base)
        assert BACKENDS["zfs"].usage(chroot) >= 4096
        assert BACKENDS["zfs"].watched(chroot, root) == (root, "")
        assert BACKENDS["zfs"].enter(chroot) == (
            f"lockf -k -t 0 {chroot}/lock sh -c 'mount -t zfs {dataset(chroot)} {root} && chroot {root} /bin/sh; umount {root}'"
        )

    def test_whether_it_works_is_found_out_by_trying(self, shed: Shed, host: Host, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(_backends_freebsd, "_only_root", str)
        assert BACKENDS["zfs"].probe(str(shed.scratch)) == ""
        assert not any("probe" in name for name in host.datasets)
        host.behave(fails={"zfs": "clone"})
        assert "this was made to fail" in BACKENDS["zfs"].probe(str(shed.scratch))
        assert not any("probe" in name for name in host.datasets)
        host.behave(zfs=False)
        host.forget_calls()
        assert "the kernel has no ZFS" in BACKENDS["zfs"].probe(str(shed.scratch))
        assert host.calls("zfs") == []  # it would load the module


class TestTmpfs:
    def test_the_base_is_copied_into_memory(self, shed: Shed, host: Host):
        chroot, base = paths(shed, "tmpfs")
        os.chmod(base, 0o711)
        host.forget_calls()
        root = BACKENDS["tmpfs"].mount(chroot, base, size=1 << 20)
        assert host.calls("mount") == [
            ["mount", "-p"],
            ["mount", "-t", "tmpfs", "-o", "mode=0755,size=1048576", "tmpfs", root],
        ]
        assert sorted(os.listdir(root)) == ["dir", "file"]
        assert stat.S_IMODE(os.stat(root).st_mode) == 0o711
        assert BACKENDS["tmpfs"].watched(chroot, root) == (chroot, root)
        BACKENDS["tmpfs"].preserve(chroot)
        assert sorted(os.listdir(f"{chroot}/fs/tree")) == ["dir", "file"]
        BACKENDS["tmpfs"].drop(chroot, "root")
        assert (host.mounts, os.path.exists(root)) == ([], False)

    def test_memory_that_cannot_hold_the_base_is_told(self, shed: Shed):
        chroot, base = paths(shed, "tmpfs")
        (shed.scratch / "bases" / f"{BASE}.json").write_text('{"bytes": 5000000}', encoding="utf-8")
        with pytest.raises(BackendFailed, match="the base alone has 5000000"):
            BACKENDS["tmpfs"].mount(chroot, base, size=4_000_000)


class TestDirectory:
    def test_the_base_is_copied_with_its_links(self, shed: Shed, host: Host):
        base = shed.scratch / "bases" / BASE
        os.link(base / "file", base / "hard")
        chroot, _base = paths(shed, "directory")
        root = BACKENDS["directory"].mount(chroot, str(base))
        assert os.stat(f"{root}/hard").st_nlink == 2
        (pathlib.Path(root) / "new").touch()
        assert BACKENDS["directory"].mount(chroot, str(base)) == root
        assert sorted(os.listdir(root)) == ["dir", "file", "hard"]
        BACKENDS["directory"].drop(chroot, "root")
        assert not os.path.exists(root)
        assert host.mounts == []

    def test_a_copy_that_fails_is_told(self, shed: Shed, tmp_path: pathlib.Path):
        chroot, _base = paths(shed, "directory")
        with pytest.raises(Exception, match="Copying"):
            BACKENDS["directory"].mount(chroot, str(tmp_path / "missing"), name="other")


def test_zfs_is_preferred_and_memory_never_taken_unasked():
    assert PREFERENCE == ("zfs", "directory")
    assert sorted(BACKENDS) == ["directory", "tmpfs", "zfs"]


# -- recovery -----------------------------------------------------------------------------------------------------------


def crash(shed: Shed, host: Host, chroot: str) -> None:
    """Leave what a supervisor and a keeper leave that were killed at once."""
    root = f"{chroot}/fs/root"
    for path in ("dev", "usr/ports"):
        os.makedirs(f"{root}/{path}", exist_ok=True)
        _backends_freebsd.check_run(
            ["mount", "-t", "nullfs", "-o", "ro", str(shed.scratch), f"{root}/{path}"], "double"
        )
    status = os.stat(chroot)
    name = f"name=portbuild_{status.st_dev:x}_{status.st_ino:x}_1_1"
    _backends_freebsd.check_run(["jail", "-c", name, f"path={root}", "persist"], "double")


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_cleaning_recovers_jails_mounts_and_datasets(shed: Shed, host: Host, backend: str):
    chroot, base = paths(shed, backend)
    BACKENDS[backend].mount(chroot, base)
    crash(shed, host, chroot)
    shed.ended()
    assert (len(host.jails), len(host.mounts) >= 2) == (1, True)
    assert shed.store.clean(HELLO, queue="q", token=1)
    assert (host.jails, host.mounts) == ({}, [])
    assert not any("chroot-" in name for name in host.datasets)
    assert not os.path.exists(chroot)
    assert len(shed.trash()) == 1


def test_cleaning_does_not_touch_what_cannot_be_unmounted(shed: Shed, host: Host):
    chroot, base = paths(shed, "directory")
    BACKENDS["directory"].mount(chroot, base)
    crash(shed, host, chroot)
    host.behave(fails={"umount": "-f"})
    with pytest.raises(RemainsStuck, match="cannot be unmounted"):
        shed.store.clean(HELLO, queue="q", token=1)
    assert os.path.exists(f"{chroot}/fs/root/file")
    with pytest.raises(UnsafePath, match="is mounted in"):
        _trees.move_out(str(shed.scratch), os.path.relpath(chroot, shed.scratch), "trash")


def test_a_kept_chroot_keeps_its_dataset_and_nothing_mounted(shed: Shed, host: Host):
    chroot, base = paths(shed, "zfs")
    BACKENDS["zfs"].mount(chroot, base)
    crash(shed, host, chroot)
    mine = dataset(chroot)
    kept = shed.store.hold(HELLO, queue="q", token=1, state=KEPT)
    assert (host.jails, host.mounts) == ({}, [])
    assert mine in host.datasets
    assert mine in BACKENDS["zfs"].enter(kept.path)
    shed.store.discard(kept)
    assert mine not in host.datasets


def test_cleanup_finds_what_belongs_to_nobody(shed: Shed, host: Host):
    chroot, _base = paths(shed, "zfs")
    other = shed.claim(HELLO._replace(package="alive"), backend="directory")
    shed.start(HELLO._replace(package="alive"))
    for path in (chroot, other.path):
        os.makedirs(f"{path}/fs/root", exist_ok=True)
        crash(shed, host, path)
    (host.state / "zfs").write_text(
        (host.state / "zfs").read_text(encoding="utf-8")[:-1]
        + f', "zroot/data/portbuild/chroot-1-root": "", "zroot/data/portbuild/base-{"1" * 64}": ""'
        + ', "zroot/data/portbuild/precious": "", "zroot/data/portbuild/base-camp": ""}',
        encoding="utf-8",
    )
    bounds = Bounds(bases=frozenset({BASE}))
    goers = plan(shed.store, None, bounds, 2.0)
    names = [goer.path(str(shed.scratch)) for goer in goers]
    assert names == [
        f"{chroot}/fs/root",
        f"{chroot}/fs/root/usr/ports",
        f"{chroot}/fs/root/dev",
        "zroot/data/portbuild/chroot-1-root",
        f"zroot/data/portbuild/base-{'1' * 64}",
    ]
    assert (len(host.jails), len(host.mounts)) == (2, 4)
    assert carry_out(shed.store, goers) == []
    assert list(host.jails) and all(other.path in jail["path"] for jail in host.jails.values())
    assert all(other.path in mount[1] for mount in host.mounts)
    assert {"zroot/data/portbuild/precious", "zroot/data/portbuild/base-camp", dataset(chroot)} <= set(host.datasets)
    assert plan(shed.store, None, bounds, 2.0) == []


def test_nothing_else_on_the_host_is_touched(shed: Shed, host: Host, tmp_path: pathlib.Path):
    _chroot, _base = paths(shed, "directory")
    elsewhere = tmp_path / "scratch2"
    (elsewhere / "chroots").mkdir(parents=True)
    (shed.scratch / "cache").mkdir(exist_ok=True)
    for point in (elsewhere / "chroots", shed.scratch / "cache"):
        _backends_freebsd.check_run(["mount", "-t", "nullfs", "-o", "ro", "/tmp", str(point)], "double")
    _backends_freebsd.check_run(["jail", "-c", "name=www", f"path={elsewhere}", "persist"], "double")
    before = (host.jails, host.mounts)
    assert plan(shed.store, None, Bounds(bases=frozenset({BASE})), 2.0) == []
    shed.store.clean(HELLO, queue="q", token=1)
    assert (host.jails, host.mounts) == before


# -- removal ------------------------------------------------------------------------------------------------------------


def test_flags_are_cleared_where_they_are_in_the_way(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """A double of lchflags(2): files whose name begins with schg are immutable until it is called for them."""
    tree = tmp_path / "tree" / "lib"
    tree.mkdir(parents=True)
    (tree / "schg").touch()
    (tree / "plain").touch()
    flagged, cleared = {"schg"}, []
    unlink = os.unlink

    def refusing(path: str, *, dir_fd: int | None = None) -> None:
        if path in flagged:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, dir_fd=dir_fd)

    def lchflags(path: str, flags: int) -> None:
        if path == ".":
            raise OSError(45, "Operation not supported")
        cleared.append((path, flags, os.path.exists(path)))
        flagged.discard(path)

    monkeypatch.setattr(os, "lchflags", lchflags, raising=False)
    monkeypatch.setattr(os, "unlink", refusing)
    before = os.getcwd()
    with _trees.opened(os.open(tmp_path, os.O_RDONLY)) as directory:
        _trees.remove_entry(directory, "tree")
    assert cleared == [("schg", 0, True)]
    assert not (tmp_path / "tree").exists()
    assert os.getcwd() == before
