# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import pathlib
import re
import shutil
import subprocess
import typing as t

import pytest

pytest.importorskip("debian")

from ansible_collections.portbuild.cluster.plugins.module_utils._names import BadName, Job
from ansible_collections.portbuild.cluster.plugins.plugin_utils import _systems
from ansible_collections.portbuild.cluster.plugins.plugin_utils._systems import _debian, BuildInputs, get_system

SYSTEMS = pathlib.Path(_systems.__file__).parent
SOURCES = pathlib.Path(__file__).resolve().parents[3] / "sources"
SCRIPT = SYSTEMS / "debian.sh"


def inputs(tmp_path: pathlib.Path, package: str = "pb-hello", **more: t.Any) -> BuildInputs:
    return BuildInputs(job=Job("amd64", "bookworm", package), work_directory=str(tmp_path), **more)


def test_systems() -> None:
    assert "debian" in _systems.system_names()
    assert get_system("debian").name == "debian"
    for name in ("", "nosuch", "../x", "debian_repo", None):
        with pytest.raises(_systems.UnknownSystem, match=r"Use one of: .*debian"):
            get_system(name)


@pytest.mark.parametrize(
    "text", ["", "a", "Hello", "hello_x", "-rf", "../x", "a b", "x" * 300, "h\u00e9", "a\n", None, 3]
)
def test_names_that_debian_does_not_know(text: t.Any) -> None:
    with pytest.raises(BadName):
        get_system("debian").check_name(text)
    with pytest.raises(BadName):
        get_system("debian").parse_request(text)


@pytest.mark.parametrize("text", ["hello=", "hello=-1", "hello=1 2", "hello=$(id)", "hello=a1"])
def test_versions_that_are_none(text: str) -> None:
    with pytest.raises(BadName):
        get_system("debian").parse_request(text)


def test_requests() -> None:
    assert get_system("debian").parse_request("hello") == ("hello", "")
    assert get_system("debian").parse_request("libfoo++=2:1.0~rc1+b1-3") == ("libfoo++", "2:1.0~rc1+b1-3")


def test_plan_for_the_archive(tmp_path: pathlib.Path) -> None:
    plan = get_system("debian").prepare(inputs(tmp_path, proxy="http://proxy.example:3128", build_profiles=("nodoc",)))
    assert [step["name"] for step in plan.steps] == [
        "fetch",
        "unpack",
        "depends-download",
        "depends-install",
        "build",
        "check-download",
        "check-run",
        "package",
    ]
    for step in plan.steps:
        assert step["network"] == (step["name"] in ("fetch", "depends-download", "check-download"))
        assert bool(step["environment"]) == step["network"], "a build sees no proxy"
    assert "proxy" not in " ".join(plan.environment.values())
    assert plan.environment["PB_ORIGIN"] == "archive"
    assert plan.environment["DEB_BUILD_PROFILES"] == "nodoc"
    assert "parallel" not in plan.environment["DEB_BUILD_OPTIONS"]
    assert (plan.inputs, plan.repo_index, plan.offered) == ([], {}, {})


def test_every_step_of_a_plan_is_in_the_script(tmp_path: pathlib.Path) -> None:
    plan = get_system("debian").prepare(inputs(tmp_path))
    for step in plan.steps:
        assert re.search(rf"^    {step['name']}\) step_", plan.script, re.MULTILINE)
    used = set(re.findall(r"\b(PB_[A-Z_]+)", plan.script))
    assert used == {name for name in plan.environment if name.startswith("PB_")}


def test_plan_for_a_local_source(tmp_path: pathlib.Path) -> None:
    plan = get_system("debian").prepare(
        inputs(tmp_path, source_directory=str(SOURCES), check="off", make_jobs=3, build_options=("nocheck",))
    )
    assert plan.steps[0]["name"] == "unpack"
    assert not [step for step in plan.steps if step["phase"] == "check"]
    assert plan.environment["DEB_BUILD_OPTIONS"] == "parallel=3 nocheck"
    (file,) = plan.inputs
    assert plan.environment["PB_INPUT"] == file.name == "pb-hello_1.0.tar"
    assert hashlib.sha256(pathlib.Path(file.path).read_bytes()).hexdigest() == file.sha256


@pytest.mark.parametrize(
    "more",
    [
        {"build_options": ("a b",)},
        {"build_options": ("$(id)",)},
        {"build_profiles": ("-x",)},
        {"version_suffix": "+b1)"},
        {"version_suffix": "-1"},
        {"check_ignore": ("a\nb",)},
    ],
)
def test_settings_that_cannot_be_used(tmp_path: pathlib.Path, more: dict[str, t.Any]) -> None:
    with pytest.raises(_debian.BadRequest):
        get_system("debian").prepare(inputs(tmp_path, **more))


def test_version_of_results(tmp_path: pathlib.Path) -> None:
    changes = tmp_path / "demo_1.0-1_amd64.changes"
    changes.write_text("Format: 1.8\nSource: demo\nVersion: 2:1.0-1+b1\nDescription:\n demo - x\n")
    system = get_system("debian")
    assert system.version_of(["/x/demo_1.0-1_all.deb", str(changes)]) == "2:1.0-1+b1"
    assert system.version_of(["/x/demo_1.0-1_all.deb"]) == ""
    changes.write_text("Version: $(id)\n")
    assert system.version_of([str(changes)]) == ""


def test_ignored_paths_are_expressions() -> None:
    ignored = re.compile("|".join(f"(?:{pattern})" for pattern in _debian.ignored_paths()))
    for path in ("/var/log/dpkg.log", "/var/log/apt/history.log", "/etc/ld.so.cache", "/tmp/x", "/etc/passwd-"):
        assert ignored.fullmatch(path), path
    for path in ("/etc/passwd", "/usr/bin/x", "/var/lib/x", "/usr/share/doc/x", "/etc/ld_so_cache", "/home/tmp/x"):
        assert not ignored.fullmatch(path), path


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_the_script_is_clean_posix_shell() -> None:
    found = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stdout


def shell(tmp_path: pathlib.Path, commands: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run commands with the script's functions."""
    functions = SCRIPT.read_text().partition("\nstep=$1\n")[0]
    functions = functions.replace("/var/lib/portbuild", str(tmp_path)).replace("pb=/portbuild", f"pb={tmp_path}")
    known = {"PATH": "/usr/bin:/bin", "PB_PACKAGE": "demo", "PB_IGNORE": "", "PB_MAXJOBS": "1", **environment}
    command = ["sh", "-c", f"{functions}\n{commands}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=known)


OLD_LISTS = """
plan() {
    [ ! -e "$state/updated" ] || { echo unmet | tee "$state/errors"; return 1; }
    echo "http://archive/old.deb old.deb 0123" >> "$state/wanted"
}
update_lists() { : > "$state/updated"; }
xargs() { cat > /dev/null; return 123; } # what the lists name has vanished
install() { for directory; do :; done; mkdir -p "$directory"; }
offer_ours() { :; }
offer_siblings() { :; }
is_checked() { :; }
is_debug() { return 1; }
depends_of() { echo nowhere; }
source=$state
"""


@pytest.mark.parametrize(
    ("step", "status", "said"),
    [
        ("depends_download", 1, "The build dependencies cannot be satisfied."),
        ("check_download x.deb", 0, ""),
    ],
)
def test_what_the_newest_lists_do_not_allow_either_is_the_packages_fault(
    tmp_path: pathlib.Path, step: str, status: int, said: str
) -> None:
    (tmp_path / "out").mkdir()
    done = shell(tmp_path, f"{OLD_LISTS}\nstep_{step}")
    assert (done.returncode, said in done.stdout, "unmet" in done.stdout) == (status, True, True), done
    leftovers = tmp_path / "out" / "leftovers"
    assert (leftovers.exists() and leftovers.read_text()) == (status == 0 and "uninstallable\tunmet \n")


def test_comparison_of_two_snapshots(tmp_path: pathlib.Path) -> None:
    (tmp_path / "out").mkdir()
    old = ["/etc\td 755 0:0", "/etc/gone\tf 644 0:0 1", "/etc/x\tf 644 0:0 1", "/etc/x\taaaa", "/tmp/a\tf 644 0:0 1"]
    new = [
        "/etc\td 755 0:0",
        "/etc/x\tf 644 0:0 1",
        "/etc/x\tbbbb",
        "/a b\tf 4755 0:0 1",
        "/w\td 777 0:0",
        "/t\td 1777 0:0",
    ]
    new += ["/g\tf 2755 0:0 1 2", "/l\tl 777 0:0 x", "/s\td 2775 0:0", "/v/ignored\tf 644 0:0 1"]
    (tmp_path / "old").write_text("\n".join(old) + "\n")
    (tmp_path / "new").write_text("\n".join(new) + "\n")
    where = f"{tmp_path}/old {tmp_path}/new"
    done = shell(tmp_path, f"compare {where} leftovers; compare {where} privileged", PB_IGNORE="# x\n/tmp/.*\n/v(/.*)?")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "leftovers").read_text().splitlines() == [
        "changed\t/etc/x",
        "extra\t/a b",
        "extra\t/g",
        "extra\t/l",
        "extra\t/s",
        "extra\t/t",
        "extra\t/w",
        "missing\t/etc/gone",
        "setgid\t/g",
        "setuid\t/a b",
        "world_writable\t/w",
    ]


def test_needs_are_found_by_checksum(tmp_path: pathlib.Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "Packages").write_text(
        "Package: a\nFilename: ./a+x_1%3a1_all.deb\nSize: 1\nSHA256: aa11\n\n"
        "Package: b\nFilename: ./b_1_all.deb\nSize: 1\nSHA256: bb22\n\n"
        "Package: c\nFilename: ./c_1_all.deb\nSize: 1\nSHA256: cc33\n"
    )
    (tmp_path / "wanted").write_text(
        f"file:{tmp_path}/repo/./a%2bx.deb a+x.deb aa11\nhttp://x/d.deb d.deb dd44\nfile:{tmp_path}/repo/./c.deb c.deb cc33\n"
    )
    done = shell(tmp_path, "ask_for_ours")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "needs").read_text() == "a+x_1%3a1_all.deb aa11\nc_1_all.deb cc33\n"


def test_files_that_a_changes_file_lists(tmp_path: pathlib.Path) -> None:
    changes = tmp_path / "x.changes"
    changes.write_text(
        "Source: x\nChecksums-Sha1:\n aaa 1 no.deb\nChecksums-Sha256:\n bbb 2 yes.deb\nFiles:\n c 3 m o no.deb\n"
    )
    assert shell(tmp_path, f"listed {changes}").stdout == "bbb 2 yes.deb\n"


# What apt would do: the lists of the base name demo 1, the newest ones demo 2; the archive has what $ARCHIVE names.
APT = r"""
export PATH=$pb/bin:$PATH
distfiles=$pb/distfiles PB_BUILD_USER=$(id -un)
install() {
    for last; do :; done
    mkdir -p "$last"
}
chown() { :; }
plan() {
    echo "plan $*" >> "$pb/calls"
    version=1
    [ ! -e "$state/updated" ] || version=2
    case $4 in
        demo | demo=$version) echo "http://x/demo_$version.dsc demo_$version.dsc sum$version" > "$state/wanted" ;;
        *) echo 'apt knows no such version'; return 1 ;;
    esac
}
update_lists() {
    echo update >> "$pb/calls"
    [ "$REACHABLE" = yes ] || soft 'The lists of the archive could not be updated.'
    : > "$state/updated"
}
xargs() {
    while read -r uri && read -r path && read -r _; do
        case " $ARCHIVE " in
            *" ${uri##*/} "*) echo "$uri" > "$path" ;;
            *) return 1 ;;
        esac
    done
}
step_fetch
"""


@pytest.mark.parametrize(
    ("archive", "reachable", "version", "updates", "status", "result"),
    [
        pytest.param("demo_1.dsc demo_2.dsc", "yes", "", 0, 0, "demo_1.dsc", id="the lists of the base do"),
        pytest.param("demo_1.dsc", "no", "", 0, 0, "demo_1.dsc", id="nothing else is asked"),
        pytest.param("demo_2.dsc", "yes", "", 1, 0, "demo_2.dsc", id="the file has vanished"),
        pytest.param("demo_2.dsc", "yes", "2", 1, 0, "demo_2.dsc", id="the version is newer than the lists"),
        pytest.param("demo_2.dsc", "yes", "1", 1, 75, "not in the archive any more", id="the version has vanished"),
        pytest.param("", "yes", "", 1, 75, "could not be downloaded", id="the archive is not whole"),
        pytest.param("", "no", "", 1, 75, "lists of the archive", id="the archive is away"),
        pytest.param("demo_1.dsc", "yes", "3", 1, 1, "has no source package demo 3", id="there is no such version"),
    ],
)
def test_a_source_is_fetched_with_the_lists_of_the_base(
    archive: str, reachable: str, version: str, updates: int, status: int, result: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "archives").mkdir()
    done = shell(tmp_path, APT, ARCHIVE=archive, REACHABLE=reachable, PB_VERSION=version)
    assert (done.returncode, (tmp_path / "calls").read_text().split().count("update")) == (status, updates), done
    if status == 0:
        assert [path.name for path in (tmp_path / "distfiles").iterdir()] == [result]
    else:
        assert result in done.stdout + done.stderr


def test_a_source_that_the_machine_has_is_not_downloaded(tmp_path: pathlib.Path) -> None:
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "sum1").write_text("cached")
    done = shell(tmp_path, APT, ARCHIVE="", REACHABLE="no", PB_VERSION="")
    assert done.returncode == 0, done
    assert (tmp_path / "distfiles" / "demo_1.dsc").read_text() == "cached"


def test_make_jobs_are_the_jobs_share(tmp_path: pathlib.Path) -> None:
    assert shell(tmp_path, "make_jobs", PB_MAXJOBS="1000").stdout == "1\n"
    assert int(shell(tmp_path, "make_jobs").stdout) >= 1


@pytest.mark.parametrize("name", sorted(path.name for path in SOURCES.iterdir() if path.is_dir()))
def test_the_test_sources_are_sources(name: str, tmp_path: pathlib.Path) -> None:
    plan = get_system("debian").prepare(inputs(tmp_path, name, source_directory=str(SOURCES)))
    assert len(plan.inputs) == 1
    assert sum(path.is_file() for path in (SOURCES / name / "debian").rglob("*")) <= 8
