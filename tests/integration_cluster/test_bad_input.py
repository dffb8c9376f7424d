# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people type and what stands in their files: nonsense is refused before anything is claimed or written."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import at_once, start, with_host_variables
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm
from ansible_collections.portbuild.cluster.tests.integration_cluster._snapshots import differences, look

LONG = "x" * 300

#: Variables of a dispatch (package pb-null, unless they say otherwise), and what is said about them.
NONSENSE: dict[str, tuple[dict[str, t.Any], tuple[str, ...]]] = {
    "empty": ({"package": ""}, ("package",)),
    "dots": ({"package": "../x"}, ("'../x'",)),
    "option": ({"package": "-rf"}, ("'-rf'", "must begin with a letter or a digit")),
    "spaces": ({"package": "pb null"}, ("'pb null'",)),
    "newline": ({"package": "pb-null\npb-hello"}, ("pb-null",)),
    "long": ({"package": LONG}, ("has 300 characters, at most 200 are allowed",)),
    "foreign": ({"package": "pb-nüll"}, ("malformed",)),
    "lookalike": ({"package": "pb-nul\N{CYRILLIC SMALL LETTER ER}"}, ("malformed",)),
    "separator": ({"package": "bookworm/pb-null"}, ("'bookworm/pb-null'",)),
    "list": ({"package": ["pb-null"]}, ("package",)),
    "version": ({"package": "pb-null=../1"}, ("'../1'",)),
    "no version": ({"package": "pb-null="}, ("version is empty",)),
    "not Debian": ({"package": "PB_Null"}, ("cannot be the name of a Debian source package",)),
    "branch": ({"branch": "../bookworm"}, ("portbuild_branch", "'../bookworm'")),
    "arch": ({"arch": "-rf"}, ("portbuild_arch", "'-rf'")),
    "root": ({"root": "somewhere"}, ("portbuild_root", "an absolute path")),
    "misspelt": ({"timout": "1h"}, ("There is no setting portbuild_timout. Did you mean portbuild_timeout?",)),
    "stranger": ({"zzz": "1"}, ("There is no setting portbuild_zzz.",)),
    "values": (
        {"timeout": "soon", "memory_limit": "lots"},
        ("portbuild_timeout is 'soon'", "portbuild_memory_limit is 'lots'"),
    ),
    "switch": ({"plistcheck": "maybe"}, ("portbuild_plistcheck", "'maybe' is not a valid boolean")),
    "negative": ({"disk_limit": -1}, ("portbuild_disk_limit is -1",)),
    "for one package": ({"package_settings": {"pb-null": {"timout": 1}}}, ("timout", "did you mean timeout?")),
}


@pytest.fixture(scope="module")
def refusals(farm: Farm) -> tuple[dict[str, Ended], list[str]]:
    """How the dispatches of all nonsense ended, and what has changed on controller and machines."""
    farm.assert_idle()
    before = look(farm)
    ended: dict[str, Ended] = {}

    def dispatch(name: str) -> None:
        variables, _answers = NONSENSE[name]
        ended[name] = start(farm, **{"package": "pb-null", **variables}).end()

    at_once(4, [functools.partial(dispatch, name) for name in NONSENSE])
    return ended, differences(before, look(farm))


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_with_a_clear_message(refusals: tuple[dict[str, Ended], list[str]], name: str) -> None:
    ended = refusals[0][name]
    _variables, answers = NONSENSE[name]
    ended.fails(*answers)
    assert "Traceback" not in ended.output
    assert "Unexpected failure" not in ended.output


def test_nothing_was_claimed_or_written(refusals: tuple[dict[str, Ended], list[str]], idle: Farm) -> None:
    assert refusals[1] == []
    assert not pathlib.Path("somewhere").exists()


def test_a_misspelt_variable_of_a_machine(idle: Farm) -> None:
    """That machine gets no job, which is told; the others go on."""
    arguments = with_host_variables(idle, {"client1": {"portbuild_scrachdir": "/srv/portbuild"}})
    ended = start(idle, *arguments, package="pb-null", check="off").end().ok()
    said = flat(ended)
    assert "client1 gets no jobs: There is no setting portbuild_scrachdir. Did you mean portbuild_scratchdir?" in said
    assert "pb-null 1.0 was built on client2" in said


@contextlib.contextmanager
def instead(path: pathlib.Path, content: bytes) -> t.Iterator[pathlib.Path]:
    """Let the file hold something else for a while, or be there."""
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    try:
        yield path
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


CONF = b"""# what an administrator wrote
silence_timeout=30m
rm -rf /srv/portbuild
timeout=$(cat /etc/timeout)
check="off
"""


def test_a_malformed_portbuild_conf(idle: Farm) -> None:
    with instead(idle.root / idle.arch / "portbuild.conf", CONF) as conf:
        ended = start(idle, package="pb-null").end()
        ended.fails(f"portbuild_timeout could not be read: {conf}:4: A command substitution $(...) is not run.")
        ended.fails(f'portbuild_check could not be read: {conf}:5: A quote (") is not closed.')
        # With these two given, the rest goes on, and is told all the same.
        ended = start(idle, package="pb-null", timeout="1h", check="off").end().ok()
        said = flat(ended)
        assert f"{conf}:3: 'rm' is not an assignment. Only assignments are read; nothing is run." in said
        assert f"{conf}:4: A command substitution" in said
        assert f"{conf}:5: A quote" in said


def test_a_malformed_mlist(idle: Farm) -> None:
    text = b"# best first\nclient3\n../x\n-rf\nclient1 client2\nclient3\nnobody\n\xff\xfe\nclient1\n"
    with instead(idle.root / idle.arch / "mlist", text) as mlist:
        ended = start(idle, package="pb-null", check="off").end().ok()
        said = flat(ended)
        assert "pb-null 1.0 was built on client3" in said
        for line, words in (
            (3, "'../x' is malformed"),
            (4, "'-rf' is malformed"),
            (5, "malformed"),
            (6, "already"),
            (8, "malformed"),
        ):
            assert f"{mlist}:{line}: " in said
            assert words in said.partition(f"{mlist}:{line}: ")[2].partition(str(mlist))[0]
    with instead(idle.root / idle.arch / "mlist", b"# nobody\n"):
        start(idle, package="pb-null").end().fails("None of the candidate machines is in the queue")


def test_a_malformed_file_of_a_machine(idle: Farm) -> None:
    with instead(idle.root / idle.arch / "portbuild.client1", b"maxjobs=`nproc`\n") as conf:
        arguments = with_host_variables(idle, {"client1": {"portbuild_maxjobs": ""}})  # so that the file counts
        said = flat(start(idle, *arguments, package="pb-null", check="off").end().ok())
        assert f"{conf}:1: A command substitution (`...`) is not run." in said
        assert "client1 gets no jobs: portbuild_maxjobs could not be read" in said
        assert "pb-null 1.0 was built on client2" in said


@pytest.mark.parametrize("text", [b"many\n", b"", b"1" * 400], ids=lambda text: repr(text[:8]))
def test_a_malformed_counter(idle: Farm, text: bytes) -> None:
    """That machine gets no job, and its file stays as somebody left it; the others go on."""
    with instead(idle.queue / "client1", text) as counter:
        ended = start(idle, package="pb-null", check="off").end().ok()
        assert f"client1 gets no jobs: The counter file {counter} is malformed" in flat(ended)
        assert "pb-null 1.0 was built on client2" in ended.output
        assert counter.read_bytes() == text


def test_the_next_dispatch_finds_everything_as_it_was(idle: Farm) -> None:
    ended = start(idle, package="pb-null", check="off").end().ok()
    assert "pb-null 1.0 was built on client1" in ended.output
    assert "WARNING" not in ended.output


def flat(ended: Ended) -> str:
    return " ".join(ended.output.replace("\\n", " ").split())
