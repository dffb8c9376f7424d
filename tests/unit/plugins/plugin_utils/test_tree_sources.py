# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trees from directories, tarballs and git: real ones, small."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import tarfile
import typing as t

import pytest

from ansible_collections.portbuild.cluster.plugins.module_utils._files import NewerFile, sha256_file
from ansible_collections.portbuild.cluster.plugins.plugin_utils._layout import Layout
from ansible_collections.portbuild.cluster.plugins.plugin_utils._port_tree import NoTree, read_tree
from ansible_collections.portbuild.cluster.plugins.plugin_utils._tree_sources import (
    choose_ref,
    find_source,
    make_tree,
    without_password,
)

ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 40


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    return Layout(str(tmp_path / "root"), "amd64", "14")


@pytest.fixture
def ports(tmp_path: pathlib.Path) -> pathlib.Path:
    """A tree that is in use."""
    path = tmp_path / "ports"
    for name in ("Mk/bsd.port.mk", "devel/gmake/Makefile", "devel/gmake/work/x", "devel/gmake/work-py311/x"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name, encoding="utf-8")
    (path / "devel" / "gmake" / "files").mkdir()
    (path / "devel" / "gmake" / "files" / "work").mkdir()
    (path / "devel" / "gmake" / "tool").write_text("#!/bin/sh\n", encoding="utf-8")
    (path / "devel" / "gmake" / "tool").chmod(0o4711)
    (path / "distfiles").mkdir()
    (path / "distfiles" / "huge").write_bytes(b"x" * 4096)
    (path / "link").symlink_to("devel")
    return path


def git(path: pathlib.Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(path), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(ports: pathlib.Path) -> pathlib.Path:
    git(ports, "init", "-q")
    git(ports, "add", "Mk", "devel/gmake/Makefile")
    git(ports, "commit", "-q", "-m", "one")
    git(ports, "tag", "-a", "-m", "first", "r1")
    return ports


def made(layout: Layout, source: t.Any, revision: str = "", *, really: bool = True) -> t.Any:
    return make_tree(layout, find_source(str(source), revision), really=really)


def members(layout: Layout) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(layout.tree) as tarball:
        return {member.name: member for member in tarball}


class TestDirectory:
    def test_made_once_and_again_after_a_change(self, layout: Layout, ports: pathlib.Path) -> None:
        told = made(layout, ports, really=False)
        assert (told.changed, told.tree, os.path.exists(layout.tarballs)) == (True, None, False)
        first = made(layout, ports)
        assert (first.changed, first.before) == (True, {})
        assert first.after["source"] == str(ports)
        assert set(os.listdir(layout.tarballs)) == {"tree.tar", "tree.json", ".tree.lock"}
        for really in (True, False):
            again = made(layout, ports, really=really)
            assert (again.changed, again.tree) == (False, first.tree)
        (ports / "devel" / "gmake" / "Makefile").write_text("more", encoding="utf-8")
        assert made(layout, ports, really=False).changed
        assert read_tree(layout) == first.tree
        assert made(layout, ports).tree.sha256 != first.tree.sha256

    def test_what_is_in_it(self, layout: Layout, ports: pathlib.Path) -> None:
        made(layout, ports)
        found = members(layout)
        gmake = "devel/gmake"
        assert set(found) == {
            *("Mk", "Mk/bsd.port.mk", "devel", gmake, f"{gmake}/Makefile", f"{gmake}/tool", "link"),
            *(f"{gmake}/files", f"{gmake}/files/work"),
        }
        assert found["link"].linkname == "devel"
        assert {(entry.uid, entry.gid, entry.mtime) for entry in found.values()} == {(0, 0, 1_000_000_000)}
        assert (found[f"{gmake}/tool"].mode, found[f"{gmake}/Makefile"].mode) == (0o755, 0o644)

    def test_the_same_contents_are_not_a_new_tree(self, layout: Layout, ports: pathlib.Path) -> None:
        first = made(layout, ports)
        os.utime(ports / "Mk" / "bsd.port.mk", (5, 5))
        assert made(layout, ports, really=False).changed  # it cannot know without packing
        second = made(layout, ports)
        assert (second.changed, second.tree.sha256) == (False, first.tree.sha256)
        assert not made(layout, ports, really=False).changed

    def test_what_cannot_be_packed(self, layout: Layout, ports: pathlib.Path) -> None:
        os.mkfifo(ports / "Mk" / "fifo")
        with pytest.raises(NoTree, match="Mk/fifo is neither"):
            made(layout, ports)
        (ports / "Mk" / "fifo").unlink()
        (ports / "Mk" / "bsd.port.mk").unlink()
        with pytest.raises(NoTree, match="no ports tree"):
            made(layout, ports)
        assert os.listdir(layout.tarballs) == [".tree.lock"]

    def test_what_is_not_there(self, layout: Layout) -> None:
        with pytest.raises(NoTree, match="does not exist"):
            made(layout, "/nonexistent/ports")

    def test_a_revision_is_for_git(self, layout: Layout, ports: pathlib.Path) -> None:
        with pytest.raises(NoTree, match="no git checkout"):
            made(layout, ports, "main")

    def test_what_a_killed_making_left_is_swept(self, layout: Layout, ports: pathlib.Path) -> None:
        os.makedirs(layout.tarballs)
        left = pathlib.Path(layout.tarballs, ".tree.tar.0123456789ab.tmp")
        left.write_bytes(b"half")
        made(layout, ports)
        assert not left.exists()

    def test_what_a_later_version_has_made_is_not_replaced(self, layout: Layout, ports: pathlib.Path) -> None:
        made(layout, ports)
        facts = pathlib.Path(layout.tree_facts)
        facts.write_text(json.dumps({**json.loads(facts.read_text(encoding="utf-8")), "schema": 2}), encoding="utf-8")
        before = facts.read_bytes(), sha256_file(layout.tree)
        (ports / "devel" / "gmake" / "Makefile").write_text("other", encoding="utf-8")
        for really in (False, True):
            with pytest.raises(NewerFile, match="was written by a later version"):
                made(layout, ports, really=really)
        assert (facts.read_bytes(), sha256_file(layout.tree)) == before


class TestTarball:
    def pack(self, ports: pathlib.Path, name: str, arcname: str = "ports") -> pathlib.Path:
        path = ports.parent / name
        with tarfile.open(path, "w:xz") as tarball:
            tarball.add(ports, arcname)
        return path

    @pytest.mark.parametrize("arcname", ["ports", ".", ""])
    def test_taken_as_it_is(self, layout: Layout, ports: pathlib.Path, arcname: str) -> None:
        path = self.pack(ports, "ports.txz", arcname)
        first = made(layout, path)
        assert pathlib.Path(layout.tree).read_bytes() == path.read_bytes()
        assert first.changed
        assert not made(layout, path).changed
        os.utime(path, (5, 5))
        assert not made(layout, path).changed

    @pytest.mark.parametrize("arcname", ["a/b", "ports/..", "/ports"])
    def test_what_holds_no_tree_is_refused(self, layout: Layout, ports: pathlib.Path, arcname: str) -> None:
        path = ports.parent / "bad.tar"
        with tarfile.open(path, "w") as tarball:
            member = tarfile.TarInfo(f"{arcname}/Mk/bsd.port.mk")
            tarball.addfile(member)
        with pytest.raises(NoTree):
            made(layout, path)
        assert not os.path.exists(layout.tree)

    def test_two_directories_at_the_top_are_no_tree(self, layout: Layout, ports: pathlib.Path) -> None:
        path = ports.parent / "bad.tar"
        with tarfile.open(path, "w") as tarball:
            tarball.add(ports, "ports")
            tarball.add(ports / "Mk", "other")
        with pytest.raises(NoTree, match="no ports tree"):
            made(layout, path)

    def test_what_is_no_tarball(self, layout: Layout, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "notes"
        path.write_text("hello", encoding="utf-8")
        with pytest.raises(NoTree, match="cannot be read as a tarball"):
            made(layout, path)


class TestGit:
    def test_of_a_checkout_what_is_committed(self, layout: Layout, checkout: pathlib.Path) -> None:
        commit = git(checkout, "rev-parse", "HEAD")
        first = made(layout, checkout)
        assert (first.changed, first.after) == (True, {"source": str(checkout), "revision": commit})
        assert set(members(layout)) == {"Mk", "Mk/bsd.port.mk", "devel", "devel/gmake", "devel/gmake/Makefile"}
        assert {entry.mode for entry in members(layout).values()} == {0o755, 0o644}
        (checkout / "devel" / "gmake" / "Makefile").write_text("more", encoding="utf-8")
        assert not made(layout, checkout).changed
        git(checkout, "commit", "-q", "-a", "-m", "two")
        assert made(layout, checkout).changed
        back = made(layout, checkout, "r1")
        assert (back.changed, back.tree.sha256, back.after["revision"]) == (True, first.tree.sha256, commit)

    @pytest.mark.parametrize("revision", ["", "main", "r1"])
    def test_of_a_repository_elsewhere(self, layout: Layout, checkout: pathlib.Path, revision: str) -> None:
        address = f"file://{checkout}"
        commit = git(checkout, "rev-parse", "HEAD")
        told = made(layout, address, revision, really=False)
        assert (told.changed, os.path.exists(layout.tarballs)) == (True, False)
        first = made(layout, address, revision)
        assert (first.changed, first.after) == (True, {"source": address, "revision": commit})
        assert not made(layout, address, revision).changed
        (checkout / "devel" / "gmake" / "Makefile").write_text("more", encoding="utf-8")
        git(checkout, "commit", "-q", "-a", "-m", "two")
        assert made(layout, address, revision).changed == (revision != "r1")
        assert not made(layout, address, git(checkout, "rev-parse", "HEAD") if revision != "r1" else commit).changed

    def test_a_bare_repository(self, layout: Layout, checkout: pathlib.Path, tmp_path: pathlib.Path) -> None:
        git(tmp_path, "clone", "-q", "--bare", str(checkout), "bare.git")
        assert made(layout, tmp_path / "bare.git").changed

    @pytest.mark.parametrize("revision", ["nonsense", "0" * 40])
    def test_what_is_not_in_it(self, layout: Layout, checkout: pathlib.Path, revision: str) -> None:
        for source in (checkout, f"file://{checkout}"):
            with pytest.raises(NoTree):
                made(layout, source, revision)
        assert not os.path.exists(layout.tree)

    def test_without_git(self, layout: Layout, checkout: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(NoTree, match="Install git"):
            made(layout, checkout)

    def test_tarballs_are_not_fetched(self, layout: Layout) -> None:
        with pytest.raises(NoTree, match="only git"):
            made(layout, "https://host.example/ports.tar.xz")

    def test_of_equal_names_tags_come_first(self) -> None:
        listing = f"{ONE}\trefs/heads/x\n{TWO}\trefs/tags/x\n{THREE}\trefs/tags/x^{{}}\n"
        assert choose_ref(listing, "x") == THREE
        assert choose_ref(f"{ONE}\tHEAD\n{TWO}\trefs/heads/HEAD\n", "HEAD") == ONE
        assert choose_ref(f"{ONE}\trefs/heads/a/x\nnonsense\n", "x") == ""

    @pytest.mark.parametrize(
        ("address", "shown"),
        [
            ("https://user:secret@host.example/ports.git", "https://host.example/ports.git"),
            ("https://token@host.example/ports.git", "https://host.example/ports.git"),
            ("ssh://git@host.example/ports.git", "ssh://git@host.example/ports.git"),
            ("git@host.example:ports.git", "git@host.example:ports.git"),
        ],
    )
    def test_no_password_is_written_down(self, address: str, shown: str) -> None:
        assert without_password(address) == shown
        assert find_source(address).name == shown
