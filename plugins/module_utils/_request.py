# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the controller asks a supervisor to build, checked: the content of C(build.json)."""

from __future__ import annotations

import os
import typing as t

from . import _beneath
from ._errors import PortbuildError
from ._names import check_file_name, check_sha256, Job

SCHEMA = 1
KEEP = ("no", "failed", "always")
COLLECTIONS = ("packages", "distfiles", "workdir")
KINDS = ("package", "changes", "buildinfo", "extra", "distfile")


class BadRequest(PortbuildError):
    """A request that cannot be carried out."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy, details={"reason": "request", "infrastructure": False})


class Step(t.NamedTuple):
    """One call of the build script."""

    name: str
    phase: str
    user: str
    environment: dict[str, str]
    network: bool = False
    fresh: bool = False  # in a fresh root instead of the build's
    each: str = ""  # once per collected file whose name matches
    group: str = ""  # consecutive steps with the same group share one fresh root per file
    optional: bool = False


class Collection(t.NamedTuple):
    """A directory of the chroot whose files are brought out, and what kind of result they are by their suffix."""

    directory: str
    kinds: dict[str, str]


class Limits(t.NamedTuple):
    """What the job may use; 0 is no limit."""

    timeout: float = 0
    silence: float = 0
    disk: int = 0
    memory: int = 0
    log: int = 0
    processes: int = 0
    results: int = 0
    min_free: int = 0  # bytes that must stay free on the machine's disk
    waiting: float = 0  # seconds to wait for the controller to bring what is needed
    cgroups: str = "auto"


class Input(t.NamedTuple):
    """A file from the controller."""

    name: str
    sha256: str
    size: int
    place: str


class Request(t.NamedTuple):
    """A whole build."""

    job: Job
    machine: str
    token: int
    base: str
    backend: str
    client_user: str
    build_user: str
    environment: dict[str, str]
    steps: tuple[Step, ...]
    limits: Limits
    inputs: tuple[Input, ...]
    repo_index: dict[str, str]
    collect: dict[str, Collection]
    keep_workdir: str
    want_distfiles: bool
    plistcheck: bool
    keep_chroot: bool
    tree: str = ""  # the SHA-256 of the tree that is built from
    header: tuple[tuple[str, str], ...] = ()  # lines of the log's header, beside those of the supervisor

    @classmethod
    def from_dict(cls, values: t.Any) -> Request:
        """Check what came as JSON; raises BadRequest or BadName."""
        fields = _Fields(values, "request")
        if fields.number("schema", SCHEMA) != SCHEMA:
            raise BadRequest(
                f"The request has schema {fields.number('schema', SCHEMA)}, this client knows {SCHEMA}.",
                remedy="Use the same version of the collection for all controllers.",
            )
        build_user = fields.text("build_user", "builder")
        request = cls(
            job=Job.checked(values.get("arch"), values.get("branch"), values.get("package")),
            machine=fields.text("machine", os.uname().nodename),
            token=fields.number("token"),
            base=check_sha256(fields.text("base")),
            backend=fields.text("backend"),
            client_user=fields.text("client_user", "root"),
            build_user=build_user,
            environment=fields.strings("environment"),
            steps=tuple(_step(value, build_user) for value in fields.sequence("steps")),
            limits=_limits(fields.mapping("limits")),
            inputs=tuple(_input(value) for value in fields.sequence("inputs")),
            repo_index={check_file_name(name): text for name, text in fields.strings("repo_index").items()},
            collect=_collect(fields.mapping("collect")),
            keep_workdir=fields.choice("keep_workdir", KEEP, "no"),
            want_distfiles=fields.flag("want_distfiles"),
            plistcheck=fields.flag("plistcheck"),
            keep_chroot=fields.flag("keep_chroot"),
            tree=check_sha256(fields.text("tree")) if fields.text("tree", "") else "",
            header=tuple(_header_line(value) for value in fields.sequence("header")),
        )
        if not request.steps:
            raise BadRequest("The request has no steps.")
        return request


class _Fields:
    """Typed access to a JSON object; every complaint names the object and the field."""

    def __init__(self, values: t.Any, where: str) -> None:
        if not isinstance(values, dict):
            raise BadRequest(f"The {where} must be an object, got {type(values).__name__}.")
        self._values: dict[str, t.Any] = values
        self._where = where

    def _typed(self, name: str, kinds: tuple[type, ...], what: str, default: t.Any) -> t.Any:
        value = self._values.get(name)
        if value is None:
            if default is None:
                raise BadRequest(f"The {self._where} lacks {name!r}.")
            return default
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise BadRequest(f"{name!r} of the {self._where} must be {what}, got {value!r:.80}.")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value: str = self._typed(name, (str,), "a string", default)
        if "\0" in value:
            raise BadRequest(f"{name!r} of the {self._where} contains a NUL character.")
        return value

    def flag(self, name: str) -> bool:
        return bool(self._typed(name, (bool,), "true or false", False))

    def number(self, name: str, default: int | None = None) -> int:
        return int(self.seconds(name, default))

    def seconds(self, name: str, default: float | None = None) -> float:
        value = float(self._typed(name, (int, float), "a number", default))
        if not 0 <= value < 1 << 62:  # also not a NaN
            raise BadRequest(f"{name!r} of the {self._where} must be a number from 0, got {value!r}.")
        return value

    def mapping(self, name: str) -> dict[str, t.Any]:
        value: dict[str, t.Any] = self._typed(name, (dict,), "an object", {})
        return value

    def strings(self, name: str) -> dict[str, str]:
        values = self.mapping(name)
        for key, value in values.items():
            if not isinstance(value, str) or "\0" in value or "\0" in key:
                raise BadRequest(f"{key!r} in {name!r} of the {self._where} must be a string, got {value!r:.80}.")
        return values

    def sequence(self, name: str) -> list[t.Any]:
        value: list[t.Any] = self._typed(name, (list, tuple), "a list", [])
        return value

    def choice(self, name: str, choices: t.Sequence[str], default: str | None = None) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise BadRequest(f"{name!r} of the {self._where} must be one of {', '.join(choices)}, got {value!r}.")
        return value


def _header_line(value: t.Any) -> tuple[str, str]:
    pair = value if isinstance(value, (list, tuple)) else ()
    if len(pair) != 2 or not all(isinstance(text, str) and text.isprintable() for text in pair):
        raise BadRequest(f"A line of 'header' must be a name and a value in one line, got {value!r:.80}.")
    return pair[0][:100], pair[1][:2000]


def _step(value: t.Any, build_user: str) -> Step:
    fields = _Fields(value, "step")
    name = check_file_name(fields.text("name"))
    user = fields.choice("user", ("builder", "root", build_user), "builder")
    return Step(
        name=name,
        phase=check_file_name(fields.text("phase", name)),
        user="root" if user == "root" else build_user,
        network=fields.flag("network"),
        fresh=fields.choice("root", ("root", "fresh"), "root") == "fresh",
        each=fields.text("each", ""),
        group=fields.text("group", "") or name,
        optional=fields.flag("optional"),
        environment=fields.strings("environment"),
    )


def _limits(values: dict[str, t.Any]) -> Limits:
    fields = _Fields(values, "limits")
    return Limits(
        timeout=fields.seconds("timeout", 0),
        silence=fields.seconds("silence", 0),
        disk=fields.number("disk", 0),
        memory=fields.number("memory", 0),
        log=fields.number("log", 0),
        processes=fields.number("processes", 0),
        results=fields.number("results", 0),
        min_free=fields.number("min_free", 0),
        waiting=fields.seconds("waiting", 0),
        cgroups=fields.choice("cgroups", ("auto", "off"), "auto"),
    )


def _input(value: t.Any) -> Input:
    fields = _Fields(value, "input")
    return Input(
        name=check_file_name(fields.text("name")),
        sha256=check_sha256(fields.text("sha256")),
        size=fields.number("size", 0),
        place=fields.choice("place", ("inputs", "repo"), "inputs"),
    )


def _collect(values: dict[str, t.Any]) -> dict[str, Collection]:
    found = {}
    for name, value in values.items():
        if name not in COLLECTIONS:
            raise BadRequest(f"'collect' knows {', '.join(COLLECTIONS)}, got {name!r}.")
        fields = _Fields(value, f"collection {name}")
        kinds = fields.strings("kinds")
        for kind in kinds.values():
            if kind not in KINDS:
                raise BadRequest(f"{kind!r} is not a kind of result: {', '.join(KINDS)}.")
        found[name] = Collection(fields.text("dir"), kinds)
        try:
            _beneath.components(found[name].directory)
        except _beneath.UnsafeFile as error:
            raise BadRequest(error.message) from None
    return found
