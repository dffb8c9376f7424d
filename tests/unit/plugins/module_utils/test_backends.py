# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backends on real mounts."""

from __future__ import annotations

import json
import os
import pathlib
import re
import stat
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils import (
    _backends,
    _backends_common,
    _backends_linux,
    _linux,
)
from ansible_collections.portbuild.cluster.plugins.module_utils._backends import BACKENDS, BackendUnusable, choose
from ansible_collections.portbuild.cluster.plugins.module_utils._process import in_child, run
from ansible_collections.portbuild.cluster.plugins.module_utils._trees import mount_points

ALL = sorted(BACKENDS)


@pytest.fixture
def scratch(tmp_path: pathlib.Path) -> pathlib.Path:
    base = tmp_path / "bases" / "b"
    (base / "dir").mkdir(parents=True)
    (base / "file").write_text("base", encoding="utf-8")
    (base / "dir" / "inside").write_text("base", encoding="utf-8")
    os.link(base / "file", base / "hard")
    (base / "link").symlink_to("file")
    os.chmod(base, 0o755)
    if os.geteuid() == 0:
        os.chown(base / "dir", 12, 34)
    os.chmod(base / "file", 0o4711)
    chroot = tmp_path / "chroots" / "with,comma:and space"
    chroot.mkdir(parents=True)
    return tmp_path


def inside(scratch: pathlib.Path, function: t.Callable[[str, str], t.Any]) -> t.Any:
    """Call the function with the chroot and the base in a mount namespace, and return what it returns."""

    def separated() -> str:
        _linux.unshare(_linux.CLONE_NEWNS)
        _linux.make_private()
        return json.dumps(function(chroot_of(scratch), str(scratch / "bases" / "b")))

    answer = in_child(separated)
    try:
        return json.loads(answer)
    except ValueError:
        pytest.fail(answer)


def chroot_of(scratch: pathlib.Path) -> str:
    return str(scratch / "chroots" / "with,comma:and space")


def read(*path: str) -> str:
    with open(os.path.join(*path), encoding="utf-8") as stream:
        return stream.read()


def write(text: str, *path: str) -> None:
    with open(os.path.join(*path), "w", encoding="utf-8") as stream:
        stream.write(text)


def leave_traces(root: str) -> None:
    os.unlink(os.path.join(root, "link"))
    write("changed", root, "file")
    write("x" * 2_000_000, root, "new")
    os.rename(os.path.join(root, "dir"), os.path.join(root, "renamed"))


@pytest.mark.root
@pytest.mark.parametrize("name", ALL)
class TestEachBackend:
    def test_it_works_here(self, scratch: pathlib.Path, name: str):
        assert BACKENDS[name].probe(str(scratch)) == ""
        assert sorted(os.listdir(scratch)) == ["bases", "chroots"]

    def test_a_root_is_the_base_and_changes_do_not_reach_it(self, scratch: pathlib.Path, name: str):
        def use(chroot: str, base: str) -> list[t.Any]:
            BACKENDS[name].create(chroot, base)
            root = BACKENDS[name].mount(chroot, base, size=64 << 20)
            found = os.stat(os.path.join(root, "file"))
            directory = os.stat(os.path.join(root, "dir"))
            seen = [
                root in mount_points(),
                stat.S_IMODE(os.stat(root).st_mode),
                stat.S_IMODE(found.st_mode),
                found.st_nlink,
                [directory.st_uid, directory.st_gid],
                os.readlink(os.path.join(root, "link")),
            ]
            leave_traces(root)
            return seen

        assert inside(scratch, use) == [True, 0o755, 0o4711, 2, [12, 34], "file"]
        base = scratch / "bases" / "b"
        assert sorted(os.listdir(base)) == ["dir", "file", "hard", "link"]
        assert (base / "file").read_text(encoding="utf-8") == "base"

    def test_a_second_root_is_fresh_and_can_be_dropped(self, scratch: pathlib.Path, name: str):
        def use(chroot: str, base: str) -> list[t.Any]:
            BACKENDS[name].create(chroot, base)
            first = BACKENDS[name].mount(chroot, base)
            leave_traces(first)
            second = BACKENDS[name].mount(chroot, base, name="check")
            seen: list[t.Any] = [read(second, "file"), sorted(os.listdir(second))]
            leave_traces(second)
            BACKENDS[name].drop(chroot, "check")
            third = BACKENDS[name].mount(chroot, base, name="check")
            seen += [read(third, "file"), third == second, read(first, "file")]
            BACKENDS[name].drop(chroot, "check")
            return [*seen, [entry for entry in os.listdir(os.path.join(chroot, "fs")) if "check" in entry]]

        everything = ["dir", "file", "hard", "link"]
        assert inside(scratch, use) == ["base", everything, "base", True, "changed", []]

    def test_what_was_used_is_never_used_again(self, scratch: pathlib.Path, name: str):
        """A supervisor that was killed leaves a used root; the next one must not build in it."""

        def use(chroot: str, base: str) -> list[str]:
            BACKENDS[name].create(chroot, base)
            root = BACKENDS[name].mount(chroot, base)
            before = sorted(os.listdir(root))
            leave_traces(root)
            return before

        assert inside(scratch, use) == inside(scratch, use) == ["dir", "file", "hard", "link"]

    def test_usage_is_what_the_job_added(self, scratch: pathlib.Path, name: str):
        (scratch / "bases" / "b" / "ballast").write_bytes(os.urandom(5_000_000))
        os.sync()

        def use(chroot: str, base: str) -> list[int]:
            backend = BACKENDS[name]
            backend.create(chroot, base)
            root = backend.mount(chroot, base, size=64 << 20)
            before = backend.usage(chroot)
            with open(os.path.join(root, "new"), "wb") as stream:
                stream.write(os.urandom(3_000_000))
                stream.flush()
                os.fsync(stream.fileno())
            os.mkdir(os.path.join(chroot, "inputs"))
            write("x" * 1_000_000, chroot, "inputs", "not counted")
            return [before, backend.usage(chroot)]

        before, after = inside(scratch, use)
        assert before < 200_000
        assert 2_900_000 < after - before < 3_200_000

    def test_only_root_gets_to_the_trees_by_a_path(self, scratch: pathlib.Path, name: str):
        inside(scratch, BACKENDS[name].create)
        assert stat.S_IMODE(os.stat(os.path.join(chroot_of(scratch), "fs")).st_mode) == 0o700

    def test_the_command_to_enter_works(self, scratch: pathlib.Path, name: str):
        scratch_ = scratch / "kept"  # the real ones have no spaces
        scratch_.mkdir()
        (scratch / "bases" / "b" / "bin").mkdir()

        def use(_chroot: str, base: str) -> None:
            backend = BACKENDS[name]
            backend.create(str(scratch_), base)
            root = backend.mount(str(scratch_), base)
            write("left", root, "evidence")
            backend.preserve(str(scratch_))

        inside(scratch, use)
        entering = BACKENDS[name].enter(str(scratch_))
        command = re.sub("exec .*chroot root /bin/sh", "cat root/evidence root/dir/inside", entering)
        done = run(["sh", "-c", command])
        assert (done.rc, done.stdout, done.stderr) == (0, "leftbase", "")
        assert run(["sh", "-c", command]).stdout == "leftbase"  # and again


@pytest.mark.root
def test_a_killed_copy_is_done_over(scratch: pathlib.Path):
    chroot, base = chroot_of(scratch), str(scratch / "bases" / "b")
    fs = _backends_common.prepare(chroot, base)
    os.mkdir(os.path.join(fs, ".root.1234"))
    write("half", fs, ".root.1234", "file")
    BACKENDS["directory"].create(chroot, base)
    assert read(fs, "root", "file") == "base"
    assert sorted(os.listdir(fs)) == ["base", "root", "stamps"]


@pytest.mark.root
def test_memory_is_limited(scratch: pathlib.Path):
    def fill(chroot: str, base: str) -> str:
        root = BACKENDS["tmpfs"].mount(chroot, base, size=1 << 20)
        try:
            write("x" * 3_000_000, root, "big")
        except OSError as error:
            return os.strerror(error.errno or 0)
        return "no limit"

    assert inside(scratch, fill) == "No space left on device"


@pytest.mark.root
def test_a_scratch_directory_on_an_overlay_falls_back(scratch: pathlib.Path):
    """As in a container: the kernel refuses a layer on an overlay; that is found out by trying."""

    def nested(_chroot: str, base: str) -> list[t.Any]:
        upper = str(scratch / "outer")
        for name in ("lower", "upper", "work", "merged"):
            os.makedirs(os.path.join(upper, name))
        os.chdir(upper)
        _linux.mount("overlay", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work")
        os.makedirs("merged/scratch/bases")
        run(["cp", "-a", base, "merged/scratch/bases/b"])
        there = os.path.join(upper, "merged", "scratch")
        chosen, others = choose(there)
        os.makedirs(os.path.join(there, "chroot"))
        backend = BACKENDS[chosen]
        backend.create(os.path.join(there, "chroot"), os.path.join(there, "bases", "b"))
        root = backend.mount(os.path.join(there, "chroot"), os.path.join(there, "bases", "b"))
        return [chosen, others["overlay"], read(root, "file"), BACKENDS["tmpfs"].probe(there)]

    chosen, why, text, memory = inside(scratch, nested)
    assert (chosen, text) == ("directory", "base")
    assert "refuses a writable layer" in why
    assert memory == ""


@pytest.mark.root
def test_noexec_is_told(scratch: pathlib.Path):
    def attempt(chroot: str, _base: str) -> str:
        _linux.mount("tmpfs", chroot, "tmpfs", _linux.MS_NOEXEC)
        return BACKENDS["directory"].probe(chroot)

    assert "noexec" in inside(scratch, attempt)


class TestChoice:
    @pytest.fixture(autouse=True)
    def answers(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        answers = {"overlay": "", "directory": "", "tmpfs": ""}
        monkeypatch.setattr(_backends, "probe_all", lambda scratch: answers)
        return answers

    def test_the_best_is_taken_and_the_others_say_why_not(self):
        name, others = choose("/scratch")
        assert name == "overlay"
        assert others == {
            "directory": "usable, but overlay is preferred",
            "tmpfs": "usable, but takes memory: only when asked for",
        }

    def test_memory_is_never_taken_unasked(self, answers: dict[str, str]):
        answers["overlay"] = answers["directory"] = "broken"
        with pytest.raises(BackendUnusable, match="broken"):
            choose("/scratch")
        assert choose("/scratch", "tmpfs")[0] == "tmpfs"

    def test_what_is_asked_for_is_taken_or_refused(self, answers: dict[str, str]):
        assert choose("/scratch", "directory")[0] == "directory"
        answers["overlay"] = "the kernel has no overlay file system"
        with pytest.raises(BackendUnusable, match="the kernel has no overlay") as caught:
            choose("/scratch", "overlay")
        assert caught.value.details["backends"] == answers

    def test_an_unknown_one_is_refused(self):
        with pytest.raises(BackendUnusable, match="zfs"):
            choose("/scratch", "zfs")


@pytest.mark.root
def test_answers_are_kept_for_this_boot_only(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []

    def probe(_self: t.Any, scratch: str) -> str:
        calls.append(scratch)
        return ""

    monkeypatch.setattr(_backends_linux.Overlay, "probe", probe)
    _backends.probe_all(str(tmp_path))
    _backends.probe_all(str(tmp_path))
    assert len(calls) == 1
    monkeypatch.setattr(_backends, "boot_id", lambda: "another")
    _backends.probe_all(str(tmp_path))
    assert len(calls) == 2
    (tmp_path / ".backends.json").write_text("[garbage", encoding="utf-8")
    assert set(_backends.probe_all(str(tmp_path))) == set(BACKENDS)


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "a b", "a.b", "-x"])
def test_names_of_roots_are_checked(name: str):
    with pytest.raises(ValueError, match="name of a root"):
        _backends_common.part_name(name, "upper")
