# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""FreeBSD's commands word by word, and how what they print is read."""

from __future__ import annotations

import subprocess
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.portbuild.cluster.plugins.module_utils import _freebsd
from ansible_collections.portbuild.cluster.plugins.module_utils._freebsd import Dataset, Jail, Mount, Process, Release

SHA256 = "ab" * 32
LINES = st.lists(st.text(alphabet=st.characters(exclude_characters="\x00")), max_size=8).map("\n".join)
_PIECES = (
    r"""devfs /dev name=a jid=1 path=/x path=' PID JID RSS 7 -1 rw 0 \040 \9 " zroot zroot/x legacy 0x { sec = 5 ,"""
)
NEARLY = st.lists(st.sampled_from([*_PIECES.split(), "\t", " ", "\n", "\u0663"]), max_size=40).map("".join)


class TestMounts:
    def test_the_commands(self):
        assert _freebsd.mount_devfs("/c/dev", 4) == ["mount", "-t", "devfs", "-o", "ruleset=4", "devfs", "/c/dev"]
        assert _freebsd.mount_nullfs("/tree", "/c/usr/ports") == [
            *("mount", "-t", "nullfs", "-o", "ro", "/tree", "/c/usr/ports")
        ]
        assert _freebsd.mount_tmpfs("/c") == ["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/c"]
        assert _freebsd.mount_tmpfs("/c", 512 << 20) == [
            *("mount", "-t", "tmpfs", "-o", "mode=0755,size=536870912", "tmpfs", "/c")
        ]
        assert _freebsd.mount_fdescfs("/c/dev/fd") == ["mount", "-t", "fdescfs", "fdesc", "/c/dev/fd"]
        assert _freebsd.mount_procfs("/c/proc") == ["mount", "-t", "procfs", "proc", "/c/proc"]
        assert _freebsd.mount_dataset("z/c", "/c") == ["mount", "-t", "zfs", "z/c", "/c"]
        assert _freebsd.unmount("/c/dev", "/c") == ["umount", "-f", "/c/dev", "/c"]
        assert _freebsd.list_mounts() == ["mount", "-p"]

    def test_the_list_is_read_whatever_stands_between_the_fields(self):
        text = (
            "/dev/ada0p2\t\t/\t\t\tufs\trw\t\t1 1\n"
            "devfs\t\t\t/dev\t\t\tdevfs\trw\t\t0 0\n"
            "/var/portbuild/trees/0123456789abcdef /var/portbuild/chroots/a/b/c/fs/root/usr/ports nullfs\tro\t\t0 0\n"
            "zroot/a\\040b\t\t/mnt/a\\040b\tzfs\trw,noatime,nfsv4acls\t0 0\n"
        )
        assert _freebsd.parse_mounts(text) == [
            Mount("/dev/ada0p2", "/", "ufs", ("rw",)),
            Mount("devfs", "/dev", "devfs", ("rw",)),
            Mount(
                "/var/portbuild/trees/0123456789abcdef",
                "/var/portbuild/chroots/a/b/c/fs/root/usr/ports",
                "nullfs",
                ("ro",),
            ),
            Mount("zroot/a b", "/mnt/a b", "zfs", ("rw", "noatime", "nfsv4acls")),
        ]

    def test_a_blank_that_is_not_escaped_hides_no_mount_point(self):
        (found,) = _freebsd.parse_mounts("//u@s/a share\t/mnt/my disk\tsmbfs\trw\t0 0\n")
        assert (found.point, found.kind) == ("/mnt/my disk", "smbfs")

    @given(st.one_of(LINES, NEARLY))
    def test_nothing_makes_it_fail(self, text: str):
        for mount in _freebsd.parse_mounts(text):
            assert mount.kind

    @given(
        st.lists(
            st.text(
                alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\\\x7f\x85\xa0"),
                min_size=1,
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_what_was_written_is_read(self, names: list[str]):
        lines = [f"src\t\t\t/{name}\t\tufs\trw\t0 0" for name in names]
        assert [mount.point for mount in _freebsd.parse_mounts("\n".join(lines))] == [f"/{name}" for name in names]


class TestJails:
    def test_the_commands(self):
        base = ["jail", "-c", "name=n", "path=/c", "host.hostname=portbuild"]
        rest = ["enforce_statfs=2", "allow.chflags=1"]
        assert _freebsd.create_jail("n", "/c", network=False) == [
            *base, "ip4.addr=127.0.0.1", "ip6=disable", *rest, "persist"
        ]  # fmt: skip
        assert _freebsd.create_jail("n", "/c", network=True, release=Release("15.1-RELEASE", 1501000)) == [
            *(*base, "ip4=inherit", "ip6=inherit", *rest, "osrelease=15.1-RELEASE", "osreldate=1501000", "persist")
        ]
        assert _freebsd.remove_jail("n") == ["jail", "-r", "n"]
        assert _freebsd.kill_in_jail("n") == ["jexec", "n", "/bin/kill", "-9", "-1"]
        assert _freebsd.list_jails() == ["jls", "-n", "name", "jid", "path"]

    def test_a_command_in_a_jail(self):
        resources = {"RLIMIT_CORE": 0, "RLIMIT_NPROC": 50, "RLIMIT_DATA": 1 << 30}
        argv = _freebsd.run_in_jail(
            "n", ["/bin/sh", "x"], user="builder", cwd="/build", environment={"A": "b c"}, resources=resources
        )
        assert argv == [
            *("jexec", "-U", "builder", "n", "/usr/bin/env", "-i", "A=b c", "/bin/sh", "-c"),
            (
                "umask 022; ulimit -c 0 2>/dev/null || :; ulimit -d 1048576 2>/dev/null || :;"
                ' ulimit -u 50 2>/dev/null || :; cd "$0" && exec "$@"'
            ),
            *("/build", "/bin/sh", "x"),
        ]
        argv = _freebsd.run_in_jail("n", ["true"], user="root", cwd="/", environment={}, resources={})
        assert argv[:4] == ["jexec", "n", "/usr/bin/env", "-i"]

    def test_the_shell_in_it_works(self, tmp_path: t.Any):
        argv = _freebsd.run_in_jail(
            "n",
            ["/bin/sh", "-c", 'pwd; ulimit -c; echo "$A"; echo "$1"', "sh", "a b"],
            user="root",
            cwd=str(tmp_path),
            environment={"A": "$(reboot) '"},
            resources={"RLIMIT_CORE": 0},
        )
        done = subprocess.run(argv[2:], capture_output=True, text=True, check=True)
        assert done.stdout == f"{tmp_path}\n0\n$(reboot) '\na b\n"

    def test_names_tell_the_chroot(self):
        name = _freebsd.jail_name(0xAB, 0x12, 7, 3)
        assert name == "portbuild_ab_12_7_3"
        assert name.startswith(_freebsd.chroot_jails(0xAB, 0x12))
        assert not name.startswith(_freebsd.chroot_jails(0xAB, 0x1))
        assert _freebsd.chroot_jails(-1, 1) == "portbuild_ffffffffffffffff_1_"  # st_dev may have any sign

    def test_the_list_is_read(self):
        text = 'name=portbuild_1_2_3_4 jid=12 path=/c\nname=www jid=1 path="/jails/my www"\nname=broken path=/x\n'
        assert _freebsd.parse_jails(text) == [
            Jail("portbuild_1_2_3_4", 12, "/c"),
            Jail("www", 1, "/jails/my www"),
        ]

    @given(st.one_of(LINES, NEARLY))
    def test_nothing_makes_it_fail(self, text: str):
        _freebsd.parse_jails(text)


class TestProcesses:
    def test_the_list_is_read(self):
        assert _freebsd.list_processes() == ["ps", "-ax", "-o", "pid,jid,state,rss"]
        text = "  PID JID STAT    RSS\n    1   0 ILs   1200\n 4711  12 S+J  20480\n 4712  12 ZJ       0\n4 5 S\n"
        assert _freebsd.parse_processes(text) == [
            Process(1, 0, 1200 << 10),
            Process(4711, 12, 20480 << 10),
        ]

    def test_the_start_of_one(self):
        assert _freebsd.ask_start(12) == ["ps", "-o", "state=", "-o", "lstart=", "-p", "12"]
        assert _freebsd.parse_start("SsJ  Sat Nov 22 07:36:40 2025\n") == "Sat Nov 22 07:36:40 2025"
        for text in ("", "\n", "Z    Sat Nov 22 07:36:40 2025", "S"):
            assert _freebsd.parse_start(text) is None

    @given(st.one_of(LINES, NEARLY))
    def test_nothing_makes_it_fail(self, text: str):
        _freebsd.parse_processes(text)
        _freebsd.parse_start(text)


class TestTheSystem:
    def test_the_commands(self):
        assert _freebsd.ask_system("kern.osreldate") == ["sysctl", "-n", "kern.osreldate"]
        assert _freebsd.ask_boot_id() == ["sysctl", "-i", "-n", "-x", "kern.boot_id"]
        assert _freebsd.protect(12) == ["protect", "-p", "12"]

    def test_values_are_read(self):
        assert _freebsd.parse_number("1501000\n") == 1501000
        assert _freebsd.parse_boot_time("{ sec = 1763797000, usec = 12 } Sat Nov 22 07:36:40 2025\n") == 1763797000
        assert _freebsd.parse_boot_id("Format: Length:16 Dump:0x" + "0A" * 16 + "\n") == "0a" * 16
        for text in ("", "sysctl: unknown oid", "0x123", "{ }"):
            assert (_freebsd.parse_number(text), _freebsd.parse_boot_time(text), _freebsd.parse_boot_id(text)) == (
                None,
                None,
                "",
            )

    def test_the_release_of_a_base(self):
        script = '#!/bin/sh\nset -e\n\nUSERLAND_VERSION="14.2-RELEASE-p1"\n'
        header = " * #define __FreeBSD_version in a comment\n#undef __FreeBSD_version\n#define __FreeBSD_version 1402000\t/* x */\n"
        assert _freebsd.parse_release(script, header) == Release("14.2-RELEASE-p1", 1402000)
        assert _freebsd.parse_release(script, "") is None
        assert _freebsd.parse_release('USERLAND_VERSION="$(reboot)"\n', header) is None

    @given(st.one_of(LINES, NEARLY), st.one_of(LINES, NEARLY))
    def test_nothing_makes_it_fail(self, first: str, second: str):
        release = _freebsd.parse_release(first, second)
        assert release is None or release.number > 0
        _freebsd.parse_number(first)
        _freebsd.parse_boot_time(first)
        _freebsd.parse_boot_id(first)


class TestZfs:
    def test_the_commands(self):
        assert _freebsd.zfs_loaded() == ["kldstat", "-q", "-m", "zfs"]
        listing = ["zfs", "list", "-H", "-t", "filesystem", "-o", "name,mountpoint"]
        assert _freebsd.list_datasets("/scratch") == [*listing, "/scratch"]
        assert _freebsd.list_datasets("z/p", depth=1) == [*listing, "-d", "1", "z/p"]
        assert _freebsd.get_property("used", "z/p") == ["zfs", "get", "-H", "-p", "-o", "value", "used", "z/p"]
        legacy = ["-o", "mountpoint=legacy", "-o", "atime=off"]
        assert _freebsd.create_dataset("z/b") == ["zfs", "create", *legacy, "z/b"]
        assert _freebsd.snapshot("z/b") == ["zfs", "snapshot", "z/b@clean"]
        assert _freebsd.clone("z/b", "z/c") == ["zfs", "clone", *legacy, "-o", "sync=disabled", "z/b@clean", "z/c"]
        assert _freebsd.rollback("z/c") == ["zfs", "rollback", "-r", "z/c@clean"]
        assert _freebsd.destroy("z/c") == ["zfs", "destroy", "-r", "z/c"]

    def test_names(self):
        assert _freebsd.base_dataset("z/p", SHA256) == f"z/p/base-{SHA256}"
        name = _freebsd.chroot_dataset("z/p", 0x1F, "root")
        assert name == "z/p/chroot-1f-root"
        assert _freebsd.parse_chroot_dataset(name) == 0x1F
        assert _freebsd.parse_chroot_dataset("z/p/chroot-home") is None

    @pytest.mark.parametrize("name", ["", "/z", "-z", "z/../x", "z/", "z x", "z@s", "z;reboot", "z\n"])
    def test_what_is_no_name(self, name: str):
        assert not _freebsd.is_dataset(name)

    def test_the_list_is_read(self):
        text = "zroot\t/zroot\nzroot/p\tlegacy\nno tab\n-x\t/\n"
        assert _freebsd.parse_datasets(text) == [Dataset("zroot", "/zroot"), Dataset("zroot/p", "legacy")]

    @given(st.one_of(LINES, NEARLY))
    def test_nothing_makes_it_fail(self, text: str):
        for dataset in _freebsd.parse_datasets(text):
            assert _freebsd.is_dataset(dataset.name)
            _freebsd.parse_chroot_dataset(dataset.name)
