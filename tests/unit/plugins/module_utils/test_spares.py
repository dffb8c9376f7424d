# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trees that were used and are as new again."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import time
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import _spares
from ansible_collections.portbuild.cluster.plugins.module_utils._backends import BACKENDS, copy_tree
from ansible_collections.portbuild.cluster.plugins.module_utils._trash import empty_trash
from ansible_collections.portbuild.cluster.tests.unit.plugins.module_utils._shed import BASE, HELLO, Shed

pytestmark = [pytest.mark.root, pytest.mark.skipif(not _spares.usable_here(), reason="Linux")]


@pytest.fixture
def shed(tmp_path: pathlib.Path) -> t.Iterator[Shed]:
    shed = Shed(tmp_path)
    base = tmp_path / "bases" / BASE
    for directory in ("etc", "usr/bin", "usr/share/doc", "empty", "tmp", "od d\n\udcff"):
        (base / directory).mkdir(parents=True)
        for number in range(8):
            (base / directory / f"file{number}").write_text(
                f"{directory} {number}", encoding="utf-8", errors="surrogateescape"
            )
    shutil.rmtree(base / "empty")
    (base / "empty").mkdir()
    os.chmod(base / "tmp", 0o1777)
    os.link(base / "etc" / "file1", base / "usr" / "bin" / "hard")
    (base / "link").symlink_to("usr/bin")
    os.chmod(base / "usr" / "bin" / "file0", 0o4755)
    os.chown(base / "usr" / "bin" / "file1", 5, 6)
    os.setxattr(base / "usr" / "bin" / "file2", "user.test", b"value")
    yield shed
    shed.close()


def picture(tree: pathlib.Path) -> dict[str, t.Any]:
    """Return everything that can be seen of a tree."""
    found = {}
    for top, directories, files in os.walk(tree):
        for name in [".", *directories, *files]:
            path = os.path.join(top, name)
            status = os.lstat(path)
            content: t.Any = None
            if stat.S_ISREG(status.st_mode):
                content = pathlib.Path(path).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            attributes = [
                (key, os.getxattr(path, key, follow_symlinks=False))
                for key in os.listxattr(path, follow_symlinks=False)
            ]
            times = status.st_mtime_ns
            links = status.st_nlink if not stat.S_ISDIR(status.st_mode) else 0
            found[os.path.relpath(path, tree)] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                links,
                times,
                content,
                attributes,
            )
    return found


def use(shed: Shed, action: t.Callable[[pathlib.Path], object], token: int = 1) -> pathlib.Path:
    """Claim, do something in the tree as a build does, clean, and return the next chroot's tree."""
    chroot = shed.claim(token=token)
    action(pathlib.Path(chroot.path) / "fs" / "root")
    shed.store.clean(HELLO, queue="q", token=token)
    deadline = time.monotonic() + 20  # what the killed ones had started may still be dying, with the lock
    while shed.trash() and time.monotonic() < deadline:
        empty_trash(str(shed.scratch), background=False)
    assert shed.trash() == []
    return pathlib.Path(shed.claim(token=token + 1).path) / "fs" / "root"


def spares(shed: Shed) -> list[str]:
    try:
        return os.listdir(shed.scratch / "spares" / BASE)
    except FileNotFoundError:
        return []


def sneak(root: pathlib.Path) -> None:
    """Change a file without a trace in size, mtime and inode: as hostile as a build can be."""
    path = root / "etc" / "file3"
    before = path.stat()
    with open(path, "r+b") as stream:
        stream.write(b"E")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def map_in(root: pathlib.Path) -> None:
    import mmap

    with open(root / "etc" / "file3", "r+b") as stream, mmap.mmap(stream.fileno(), 0) as memory:
        memory[0:1] = b"E"


def swap(root: pathlib.Path) -> None:
    os.rename(root / "etc" / "file3", root / "x")
    os.rename(root / "etc" / "file4", root / "etc" / "file3")
    os.rename(root / "x", root / "etc" / "file4")


def odd_names(root: pathlib.Path) -> None:
    (root / "od d\n\udcff" / "file0").unlink()
    (root / "a\nb").touch()
    (root / "-rf").mkdir()


def attributes(root: pathlib.Path) -> None:
    for path in (root / "etc", root / "etc" / "file5"):
        os.setxattr(path, "user.evil", b"1")


# Shell commands run in the tree, or a function.
CHANGES: dict[str, str | t.Callable[[pathlib.Path], None]] = {
    "nothing": "true",
    "new files": "mkdir -p usr/new/deep; cp -a etc usr/new",
    "sneak": sneak,
    "mmap": map_in,
    "swap": swap,
    "swap directories": "mv etc x; mv tmp etc; mv x tmp",
    "remove a file": "rm etc/file1",
    "remove a directory": "rm -r usr/share",
    "directory to link": "rmdir empty 2>/dev/null || rm -r empty; ln -s / empty",
    "directory to file": "rm -r empty; touch empty",
    "file to directory": "rm etc/file2; mkdir etc/file2",
    "link elsewhere": "ln -sfn /etc link",
    "modes and owners": "chmod 777 etc; chown 9:9 tmp; chmod 4777 etc/file5",
    "top": "chmod 777 .; chown 3:3 .",
    "attributes": attributes,
    "hard link to a file": "ln etc/file6 usr/again",
    "odd names": odd_names,
    "devices": "mkfifo fifo; mknod null c 1 3",
}


def apply(change: str, root: pathlib.Path) -> None:
    what = CHANGES[change]
    if callable(what):
        what(root)
    else:
        subprocess.run(["sh", "-e", "-c", what], cwd=root, check=True)


@pytest.mark.parametrize("change", CHANGES)
def test_a_used_tree_is_as_the_base_again(shed: Shed, change: str):
    want = picture(shed.scratch / "bases" / BASE)
    chroot = shed.claim(token=1)
    root = pathlib.Path(chroot.path) / "fs" / "root"
    assert picture(root) == want
    inode = root.stat().st_ino
    shed.store.clean(HELLO, queue="q", token=1)
    empty_trash(str(shed.scratch), background=False)
    assert len(spares(shed)) == 1
    again = use(shed, lambda root: apply(change, root), token=2)
    assert picture(again) == want
    assert again.stat().st_ino == inode  # restored, not copied
    assert picture(shed.scratch / "bases" / BASE) == want


def test_a_tree_that_was_changed_too_much_is_replaced(shed: Shed):
    def ruin(root: pathlib.Path) -> None:
        for name in ("etc", "usr", "tmp"):
            shutil.rmtree(root / name)

    want = picture(shed.scratch / "bases" / BASE)
    assert picture(use(shed, ruin)) == want
    assert spares(shed) == []


def test_flags_on_a_directory_are_not_inherited(shed: Shed):
    def mark(root: pathlib.Path) -> None:
        if subprocess.run(["chattr", "+i", str(root / "empty")], capture_output=True, check=False).returncode:
            pytest.skip("no flags here")

    want = picture(shed.scratch / "bases" / BASE)
    again = use(shed, mark)
    assert picture(again) == want
    (again / "empty" / "file").touch()


def test_any_random_destruction_is_repaired(shed: Shed):
    want = picture(shed.scratch / "bases" / BASE)
    for seed in range(25):
        chance = random.Random(seed)

        def destroy(root: pathlib.Path, chance: random.Random = chance) -> None:
            for _step in range(chance.randrange(1, 12)):
                paths = sorted(path for path in root.rglob("*"))
                path = chance.choice(paths)
                if path.is_symlink() or not path.exists():
                    continue
                action = chance.randrange(5)
                if action == 0:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                elif action == 1:
                    os.rename(path, root / f"moved{chance.randrange(9999)}")
                elif action == 2:
                    os.chmod(path, chance.randrange(0o10000))
                elif action == 3 and path.is_file():
                    path.write_bytes(b"x" * chance.randrange(5000))
                elif action == 4 and path.is_dir():
                    (path / "new").mkdir(exist_ok=True)

        root = use(shed, destroy, token=2 * seed + 1)
        assert picture(root) == want, seed
        shed.store.clean(HELLO, queue="q", token=2 * seed + 2)
        empty_trash(str(shed.scratch), background=False)


def test_a_killed_restoration_is_never_taken_for_a_spare(shed: Shed):
    want = picture(shed.scratch / "bases" / BASE)
    for attempt in range(20):
        chroot = shed.claim(token=attempt)
        root = pathlib.Path(chroot.path) / "fs" / "root"
        assert picture(root) == want
        (root / "etc" / "file1").write_text("dirty", encoding="utf-8")
        shed.store.clean(HELLO, queue="q", token=attempt)
        pid = os.fork()
        if pid == 0:
            empty_trash(str(shed.scratch), background=False)
            os._exit(0)
        time.sleep(0.003 * attempt)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    # The tar of the last one killed may still be at work, which keeps the lock or fills what is being removed.
    deadline = time.monotonic() + 30
    while shed.trash() and time.monotonic() < deadline:
        empty_trash(str(shed.scratch), background=False)
        time.sleep(0.05)
    assert shed.trash() == []


def test_a_spare_is_taken_once(shed: Shed):
    base = str(shed.scratch / "bases" / BASE)
    _spares.provide(str(shed.scratch), base, copy_tree)
    _spares.provide(str(shed.scratch), base, copy_tree)
    assert len(spares(shed)) == 1
    for name, expected in (("a", True), ("b", False)):
        (shed.scratch / name).mkdir()
        assert _spares.take(str(shed.scratch / name), base, "root", "stamps") is expected
    assert sorted(os.listdir(shed.scratch / "a")) == ["root", "stamps"]
    assert os.listdir(shed.scratch / "b") == []


def test_there_are_never_too_many(shed: Shed):
    for number in range(_spares.MOST + 2):
        shed.claim(HELLO._replace(package=f"p{number}"), token=number)
    for number in range(_spares.MOST + 2):
        shed.store.clean(HELLO._replace(package=f"p{number}"), queue="q", token=number)
    empty_trash(str(shed.scratch), background=False)
    assert len(spares(shed)) == _spares.MOST
    assert shed.trash() == []


def test_an_additional_root_comes_back_too(shed: Shed):
    chroot, base = shed.claim().path, str(shed.scratch / "bases" / BASE)
    backend = BACKENDS["directory"]
    backend._fill(os.path.join(chroot, "fs"), base, "check")  # type: ignore[attr-defined]
    backend.drop(chroot, "check")
    assert len(spares(shed)) == 1
    assert sorted(os.listdir(os.path.join(chroot, "fs"))) == ["base", "root", "stamps"]
