# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build machines that answer what is not so. The liar is a test double of the machine's Python, see _liar.py."""

from __future__ import annotations

import email
import email.policy
import functools
import hashlib
import json
import pathlib
import typing as t

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Client
from ansible_collections.portbuild.cluster.tests.integration_cluster import _liar
from ansible_collections.portbuild.cluster.tests.integration_cluster._aimed import (
    aimed_at,
    copy_source,
    in_slots,
    start,
    with_host_variables,
)
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Ended, Farm

#: What the dispatch says to each of them.
ANSWERS = {
    "dots": "The path '../../../../../../etc/passwd' is malformed",
    "absolute": "The path '/etc/passwd' is malformed",
    "name": "The file name '../../../escaped_1.0_all.deb' is malformed",
    "link": "is not the file of",
    "missing": "results/package/nothing.deb could not be copied",
    "larger": "were announced",
    "smaller": "were announced",
    "checksum": "0000000000000000000000000000000000000000000000000000000000000000 was announced",
    "many": "at most 5000 are accepted",
    "unmade": "The build machine says that the build succeeded, but names no package",
    "failed": "The build machine says that the build did not succeed, but that it made",
    "word": "In the reply 'status' is 'ended', where an object is expected",
    "needs": "which was not offered to it",
    "base": "The reply lacks 'base'",
    "token": "is not one of debian-amd64/bookworm/",
    "prose": "It said: Everything went well.",
    "half": "Module result deserialization failed",
}


class Told(t.NamedTuple):
    """What came of a dispatch to a liar."""

    package: str
    ended: Ended
    left: list[str]  # what of the job was in the queue afterwards


class Story(t.NamedTuple):
    """All that was told, and what the machines said of the same jobs when they were honest again."""

    told: dict[str, Told]
    honest: dict[str, Ended]
    passwd: str
    packages: set[str]  # the files of the package set before


def interpreter(lie: str) -> str:
    return f"/srv/liar/{lie}/python3"


def hash_of(path: str) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def witness(farm: Farm) -> int:
    """A build that somebody else made: its token."""
    farm.assert_idle()
    farm.dispatch("pb-null", check="off").ok()
    return int(farm.builds("pb-null")[-1]["token"])


@pytest.fixture(scope="module")
def liars(farm: Farm, witness: int) -> t.Iterator[None]:
    """Every machine with the double beside its real Python."""
    double = "#!/usr/bin/python3\n" + pathlib.Path(_liar.__file__).read_text(encoding="utf-8")
    script = 'for lie; do mkdir -p "/srv/liar/$lie" && cp /srv/double "/srv/liar/$lie/python3" && chmod 755 "/srv/liar/$lie/python3"; done'
    for client in farm.cluster.clients:
        client.run(["tee", "/srv/double"], stdin=double)
        client.run(["sh", "-ec", script, "sh", *_liar.LIES])
        client.run(["tee", "/srv/liar/token/token"], stdin=str(witness))
    yield
    for client in farm.cluster.clients:
        client.run(["rm", "-r", "/srv/double", "/srv/liar"])


@pytest.fixture(scope="module")
def story(farm: Farm, liars: None, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """On each slot of each machine one job, which is told several lies and in the end the truth."""
    sources = tmp_path_factory.mktemp("lies")
    story = Story({}, {}, hash_of("/etc/passwd"), {path.name for path in farm.packages.iterdir()})
    # Mail goes nowhere: it waits in the spool, where it can be read.
    mail = {"mail_host": "127.0.0.1", "mail_port": 9, "mail_to": ["ports@example.org"]}
    variables = {"sourcedir": str(sources), "attempts": 1, "check": "off", **mail}

    def dispatch(client: Client, package: str, lies: t.Sequence[str]) -> None:
        for lie in lies:
            arguments = aimed_at(farm, client, ansible_python_interpreter=interpreter(lie))
            ended = start(farm, *arguments, package=package, **variables).end()
            story.told[lie] = Told(package, ended, [name for name in farm.leases() if name.endswith(f":{package}")])
        story.honest[package] = start(farm, *aimed_at(farm, client), package=package, **variables).end()

    slots = [(client, number) for client in farm.cluster.clients for number in range(client.spec.maxjobs)]
    work = []
    for index, (client, number) in enumerate(slots):
        package = copy_source("pb-null", sources, f"pb-told-{client.name}-{number}")
        work.append((client, functools.partial(dispatch, client, package, list(ANSWERS)[index :: len(slots)])))
    in_slots(work)
    return story


@pytest.mark.parametrize("lie", ANSWERS)
def test_a_lie_is_answered_clearly(story: Story, lie: str) -> None:
    package, ended, left = story.told[lie]
    ended.fails(package, ANSWERS[lie])
    assert "Traceback" not in ended.output
    # No slot is claimed; at most it is remembered that something of the job is still there.
    assert all(name.startswith("held/") for name in left)


@pytest.mark.parametrize("lie", ANSWERS)
def test_nothing_is_lost(story: Story, farm: Farm, lie: str) -> None:
    package = story.told[lie].package
    story.honest[package].ok()
    (build,) = farm.builds(package)  # nothing that was false has been recorded
    assert build["outcome"] == "success"
    assert len(list(farm.packages.glob(f"{package}_1.0_*"))) == 3


@pytest.mark.parametrize("lie", ["dots", "checksum", "missing", "unmade"])
def test_people_learn_of_strange_results(story: Story, farm: Farm, lie: str) -> None:
    package = story.told[lie].package
    spool = [json.loads(path.read_text(encoding="utf-8")) for path in (farm.branch_directory / ".spool").glob("*.json")]
    told = [
        email.message_from_string(entry["message"], policy=email.policy.default).get_content()
        for entry in spool
        if (entry["event"], entry["package"]) == ("fetch_problem", package)
    ]
    assert any(ANSWERS[lie] in message for message in told), told


def test_nothing_is_written_where_it_should_not_be(story: Story, idle: Farm) -> None:
    assert hash_of("/etc/passwd") == story.passwd
    assert list(idle.root.parent.rglob("*escaped*")) == []
    written = {path.name for path in idle.packages.iterdir()} - story.packages
    assert {name for name in written if not name.startswith("pb-told-")} <= {".incoming"}
    assert list(idle.packages.rglob(".incoming/*")) == []


def test_a_machine_sets_no_variables(idle: Farm, liars: None, tmp_path: pathlib.Path) -> None:
    client = idle.cluster["client1"]
    package = copy_source("pb-null", tmp_path, "pb-told-facts")
    arguments = aimed_at(idle, client, ansible_python_interpreter=interpreter("facts"))
    start(idle, *arguments, package=package, sourcedir=str(tmp_path), check="off").end().ok()
    kept = client.run(["find", f"{client.scratch}/kept", "-name", package], check=False)
    assert kept.stdout == ""  # not portbuild_noclean
    assert list((idle.branch_directory / "workdirs").glob(f"{package}*")) == []  # nor portbuild_keep_workdir


def test_a_machine_names_no_path(idle: Farm, liars: None, tmp_path: pathlib.Path) -> None:
    """What it says of where files go is not given to sftp."""
    client = idle.cluster["client1"]
    package = copy_source("pb-null", tmp_path, "pb-told-path")
    arguments = aimed_at(idle, client, ansible_python_interpreter=interpreter("incoming"))
    start(idle, *arguments, package=package, sourcedir=str(tmp_path), check="off").end().ok()
    assert list(pathlib.Path.cwd().glob("escaped*")) + list(idle.root.parent.rglob("escaped*")) == []


def test_another_machine_builds_it(idle: Farm, liars: None, tmp_path: pathlib.Path) -> None:
    """The best machine lies about its results: they are given up, and the package is built on the next."""
    package = copy_source("pb-null", tmp_path, "pb-told-elsewhere")
    arguments = with_host_variables(idle, {"client1": {"ansible_python_interpreter": interpreter("checksum")}})
    ended = start(idle, *arguments, package=package, sourcedir=str(tmp_path), check="off").end().ok()
    assert f"{package} 1.0 was built on client2" in ended.output
    (build,) = idle.builds(package)
    assert build["machine"] == "client2"
