# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Package systems: what is built, with which script, and what comes out of it.

A system is a driver: one module here named after it (C(_debian.py) is C(debian)), whose C(SYSTEM) is an instance of
PackageSystem. Nothing else has to know its name.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib
import os
import re
import typing as t

from ...module_utils._errors import PortbuildError
from ...module_utils._names import Job

DEPENDS = "depends"  # the phase that installs what a build needs, and the class of failures for the lack of it


class UnknownSystem(PortbuildError):
    """There is no such package system."""


class BadSource(PortbuildError):
    """A source that cannot be built as it is."""


class PackageFile(t.NamedTuple):
    """A package of ours that a build may use: a file that the store has recorded."""

    name: str
    path: str
    size: int
    sha256: str


class MissingDependencies(PortbuildError):
    """Packages of ours that a build needs have not been built."""

    def __init__(self, message: str, *, remedy: str = "", missing: t.Sequence[str] = ()) -> None:
        blame = {"reason": DEPENDS, "infrastructure": False, "missing": list(missing)}
        super().__init__(message, remedy=remedy, details=blame)


class InputFile(t.NamedTuple):
    """A file that must be on the build machine before the build starts: in the chroot's inputs/ or repo/."""

    name: str
    path: str
    size: int
    sha256: str
    place: t.Literal["inputs", "repo"] = "inputs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """All that a driver may look at to plan a build."""

    job: Job
    version: str = ""
    """The version asked for; empty takes the newest."""
    source_directory: str = ""
    """The directory of local sources, looked at first; empty when there is none."""
    packages: t.Sequence[PackageFile] = ()
    """What has been built before."""
    work_directory: str
    """Where the driver may leave files that are to be sent; the caller removes it."""
    index: str = ""
    """The branch's INDEX, where the system has one."""
    make_conf: str = ""
    """The branch's make.conf; it need not be there."""
    made_from: str = ""
    """What an INDEX made now is made from, in a word."""
    cache_directory: str = ""
    """Where the driver may remember what it has read of the packages; empty remembers nothing."""
    build_user: str = "builder"
    make_jobs: int = 0
    """How many make jobs; 0 divides the machine's cores by max_jobs."""
    max_jobs: int = 1
    build_options: t.Sequence[str] = ()
    build_profiles: t.Sequence[str] = ()
    build_indep: bool = True
    """Whether this arch builds the architecture-independent packages."""
    version_suffix: str = ""
    check: t.Literal["off", "first", "on"] = "on"
    check_ignore: t.Sequence[str] = ()
    """More regular expressions of paths that a check ignores."""
    proxy: str = ""
    no_restricted: bool = False
    fetch_original: bool = False
    trybroken: bool = False
    want_distfiles: bool = False
    duds: bool = True
    """Whether the duds are to be found out along with the INDEX."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """The build as the supervisor is asked to run it."""

    script: str
    steps: t.Sequence[dict[str, t.Any]]
    environment: dict[str, str]
    inputs: t.Sequence[InputFile] = ()
    repo_index: dict[str, str] = dataclasses.field(default_factory=dict)
    offered: dict[str, PackageFile] = dataclasses.field(default_factory=dict)
    """By SHA-256: what the build may ask for while it runs."""
    collect: dict[str, dict[str, t.Any]] = dataclasses.field(default_factory=dict)
    origin: str = ""
    """For people: where the source comes from."""
    header: t.Sequence[tuple[str, str]] = ()
    """For people: lines of the log's header."""
    warnings: t.Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a bulk build has to know of a package."""

    name: str
    """The job's package name."""
    version: str = ""
    """What would be built; empty when not known."""
    digest: str = ""
    """SHA-256 of what the recipe consists of: while it is equal nothing has changed; empty when not known."""
    needs: tuple[str, ...] = ()
    """The packages of the catalogue that must be there before, sorted."""
    missing: tuple[str, ...] = ()
    """What it needs that nobody has, as written for people."""
    ignored: str = ""
    """Why it must not be tried; empty when it may."""
    aliases: tuple[str, ...] = ()
    """Other names that a target may use."""
    categories: tuple[str, ...] = ()
    origin: str = ""
    """For people: where the recipe comes from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CatalogueInputs:
    """All that a driver may look at to tell what can be built."""

    targets: t.Sequence[str]
    """C(all), NAME, NAME=VERSION, CATEGORY-all, or what else the system calls a package; no files of names."""
    index: str = ""
    """The branch's INDEX, where the system has one."""
    duds: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Packages that must not be tried, with the reason of each."""
    tree: str = ""
    """The tree's tarball; empty where the system has none."""
    tree_sha256: str = ""
    bindist: str = ""
    """The bindist's tarball."""
    bindist_sha256: str = ""
    source_directory: str = ""
    """The directory of local sources, looked at first; empty when there is none."""
    cache_directory: str
    """Where the driver remembers what takes long to read; it may be removed at any time. Empty remembers nothing."""
    build_options: t.Sequence[str] = ()
    build_profiles: t.Sequence[str] = ()
    build_indep: bool = True
    """Whether this arch builds the architecture-independent packages."""
    no_restricted: bool = False
    trybroken: bool = False
    package_profiles: t.Callable[[str], t.Sequence[str]] | None = None
    """The build profiles of a package, where they may differ from the branch's."""
    package_options: t.Callable[[str], t.Sequence[str]] | None = None
    """The build options of a package, where they may differ from the branch's."""

    def profiles_of(self, package: str) -> t.Sequence[str]:
        """Return the build profiles of the package."""
        return self.package_profiles(package) if self.package_profiles else self.build_profiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What can be built of what was asked for."""

    recipes: dict[str, Recipe]
    """The targets and all that they need, by name."""
    targets: tuple[str, ...]
    """The names of the recipes that the targets stand for, sorted."""
    unknown: dict[str, str] = dataclasses.field(default_factory=dict)
    """Targets that are nothing, with a message each."""
    problems: tuple[str, ...] = ()
    """For people: what is odd, a line each, not more than a person reads."""
    broken_edges: tuple[tuple[str, str], ...] = ()
    """Package and what it needs, where that would be a cycle and is taken from the archive instead, sorted."""


class PackageSystem(abc.ABC):
    """A driver."""

    name: t.ClassVar[str]
    package_suffixes: t.ClassVar[tuple[str, ...]]
    """How the names of result files end that are packages."""
    needs_tree: t.ClassVar[bool] = False
    """Whether it builds from a tree of recipes, which every machine must have."""
    index_job: t.ClassVar[str] = ""
    """The package whose build makes the branch's INDEX; empty for a system without one."""
    libraries: t.ClassVar[t.Mapping[str, str]] = {}
    """The Python distributions that it needs on the controller, each with the oldest version that will do."""

    @abc.abstractmethod
    def check_name(self, name: t.Any) -> str:
        """Return the name of a package as this system allows it, or raise BadName."""

    @abc.abstractmethod
    def parse_request(self, text: t.Any) -> tuple[str, str]:
        """Return name and version (empty for any) of what a person asked for, or raise BadName."""

    def resolve(self, text: t.Any, index: str) -> tuple[str, str]:  # noqa: ARG002
        """Return name and version of what a person asked for, as the branch's INDEX at this path knows it."""
        return self.parse_request(text)

    def check_ready(self, package: str, index: str, packages: t.Callable[[], t.Sequence[PackageFile]]) -> None:
        """Raise MissingDependencies when the package cannot be built with the packages there are."""

    def result_suffixes(self, package: str) -> tuple[str, ...]:  # noqa: ARG002
        """Return how the names of the package's result files may end."""
        return self.package_suffixes

    @abc.abstractmethod
    def prepare(self, inputs: BuildInputs) -> BuildPlan:
        """Return the plan of a build; raises BadSource for a local source that cannot be built."""

    @abc.abstractmethod
    def catalogue(self, inputs: CatalogueInputs) -> Catalogue:
        """Return what can be built of the targets, and what that needs; for a bulk build."""

    @abc.abstractmethod
    def version_of(self, files: t.Sequence[str]) -> str:
        """Return the version that was built, as these result files (paths) tell it; empty when they do not."""


def system_names() -> list[str]:
    """Return the names of all package systems."""
    found = (re.fullmatch(r"_([a-z][a-z0-9]*)\.py", entry) for entry in os.listdir(os.path.dirname(__file__)))
    return sorted(match[1] for match in found if match)


def get_system(name: t.Any) -> PackageSystem:
    """Return the driver of this name."""
    if name not in system_names():
        raise UnknownSystem(f"There is no package system {name!r}.", remedy=f"Use one of: {', '.join(system_names())}.")
    system: PackageSystem = importlib.import_module(f"{__name__}._{name}").SYSTEM
    return system


# -- what drivers share ------------------------------------------------------------------------------------------------


@functools.cache
def read_data(name: str) -> str:
    """Return the content of a file that lies beside the drivers."""
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as stream:
        return stream.read()


def read_patterns(name: str) -> list[str]:
    """Return the lines of such a file, without comments and empty ones."""
    return [line for line in read_data(name).splitlines() if line and not line.startswith("#")]


def make_step(name: str, phase: str, user: str, *, network: t.Mapping[str, str] | None = None) -> dict[str, t.Any]:
    """Return a step in the build's own root, as the supervisor takes it.

    It has the network if C(network) is given, even empty: the environment that only such a step gets.
    """
    return {
        "name": name,
        "phase": phase,
        "user": user,
        "network": network is not None,
        "environment": dict(network or {}),
        "root": "root",
        "each": "",
        "group": "",
    }
