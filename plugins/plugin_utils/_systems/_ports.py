# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The package system C(ports): the FreeBSD ports tree, built by its own make.

What is built is told by the branch's INDEX: a package is known by its name without version, its dependencies by
their names with versions, each of which must have been built before. The INDEX itself is made by a build too.
"""

from __future__ import annotations

import os
import typing as t

from ...module_utils._errors import PortbuildError
from ...module_utils._files import sha256_file
from ...module_utils._names import BadName, check_package, check_version
from .._index import Entry, IndexFile, ORIGIN, PKG_ORIGIN
from . import (
    BuildInputs,
    BuildPlan,
    Catalogue,
    CatalogueInputs,
    InputFile,
    make_step,
    MissingDependencies,
    PackageFile,
    PackageSystem,
    read_data,
    read_patterns,
)
from ._ports_catalogue import flavored, read_catalogue

INDEX_JOB = "INDEX"
INDEX_RESULTS = ("INDEX", "duds", "made-from")
MAKE_CONF = "make.conf"
_NAMED = 100  # missing packages that a message names
# What the tree calls PKG_SUFX.
_SUFFIXES = (".pkg", ".tzst", ".txz", ".tbz", ".tgz", ".tar")
_FETCHING = ("http_proxy", "https_proxy", "ftp_proxy", "HTTP_PROXY", "FTP_PROXY")


class UnknownPackage(PortbuildError):
    """The INDEX of the branch does not have what was asked for."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy, details={"reason": "unknown_package", "infrastructure": False})


def ignored_paths() -> list[str]:
    """Return the regular expressions of the paths that a check of any package ignores."""
    return read_patterns("ports-ignore.txt")


class Ports(PackageSystem):
    """The driver."""

    name = "ports"
    package_suffixes = _SUFFIXES
    needs_tree = True
    index_job = INDEX_JOB

    def check_name(self, name: t.Any) -> str:
        """Return the name of a package without its version, or raise BadName."""
        return check_package(name)

    def parse_request(self, text: t.Any) -> tuple[str, str]:
        """Return name and version of C(name), C(name=version), C(name-version) or C(category/port[@flavor]).

        The last two are returned as they are: only the INDEX knows what they are called.
        """
        if not isinstance(text, str):
            raise BadName(f"The package must be a string, got {type(text).__name__}.")
        if "/" in text:
            if len(text) > 200 or not ORIGIN.fullmatch(text):
                raise BadName(f"{text!r:.100} is no port.", remedy="Write category/port or category/port@flavor.")
            return text, ""
        name, equals, version = text.partition("=")
        check_package(name)
        if equals:
            check_version(version)
        return name, version

    def resolve(self, text: t.Any, index: str) -> tuple[str, str]:
        """Return the name without version, and the version, of what the INDEX has under this name."""
        asked, version = self.parse_request(text)
        if asked == INDEX_JOB:
            return asked, ""
        with IndexFile(index) as file:
            entry = _find(file, asked)
            _check_version(entry, version)
            if "/" in asked:
                first = file.by_base(entry.base)
                if first is not None and first.origin != entry.origin:
                    raise UnknownPackage(
                        f"{asked} makes a package {entry.base}, but so does {first.origin}, which stands first in {index}.",
                        remedy="One of the two must get another name.",
                    )
        return entry.base, entry.version

    def check_ready(self, package: str, index: str, packages: t.Callable[[], t.Sequence[PackageFile]]) -> None:
        """Raise MissingDependencies, with all that are missing, unless the package can be built."""
        if package != INDEX_JOB:
            with IndexFile(index) as file:
                _needed(_find(file, package), _pkg(file), packages())

    def result_suffixes(self, package: str) -> tuple[str, ...]:
        """Return how the names of the package's result files may end."""
        return INDEX_RESULTS if package == INDEX_JOB else self.package_suffixes

    def prepare(self, inputs: BuildInputs) -> BuildPlan:
        """Return the plan of a build."""
        if inputs.job.package == INDEX_JOB:
            return _index_plan(inputs)
        with IndexFile(inputs.index) as file:
            entry, pkg = _find(file, self.check_name(inputs.job.package)), _pkg(file)
            _check_version(entry, inputs.version)
            warnings = [f"{inputs.index}: {problem}" for problem in file.problems]
        needed = _needed(entry, pkg, inputs.packages)
        return BuildPlan(
            script=read_data("ports.sh"),
            steps=_steps(inputs, fetch_depends=bool(entry.fetch)),
            environment=_environment(inputs, entry, needed.get(pkg.name)),
            inputs=[
                *(InputFile(*file, place="repo") for file in needed.values()),
                *_make_conf(inputs),
            ],
            repo_index={
                "fetch.list": _names(entry.fetch, needed),
                "depends.list": _names(entry.dependencies, needed),
                "run.list": _names(entry.run, needed),
            },
            collect=_collect("/build/wanted"),
            origin=entry.origin,
            header=[("port directory", f"/usr/ports/{entry.origin}"), ("maintained by", entry.maintainer)],
            warnings=warnings,
        )

    def catalogue(self, inputs: CatalogueInputs) -> Catalogue:
        """Return what the branch's INDEX has of the targets, and what they need."""
        return read_catalogue(inputs)

    def version_of(self, files: t.Sequence[str]) -> str:  # noqa: ARG002
        """Return nothing: the port itself tells its version before it is built."""
        return ""


# -- what the INDEX says -----------------------------------------------------------------------------------------------


def _find(file: IndexFile, asked: str) -> Entry:
    """Return the entry that is meant: by name without version, by whole name, or by port."""
    if "/" in asked:
        return _find_port(file, asked)
    entry = file.by_base(asked) or file.by_name(asked)
    if entry is None:
        raise _unknown(file, asked)
    return entry


def _find_port(file: IndexFile, asked: str) -> Entry:
    origin, _at, flavor = asked.partition("@")
    entries = file.by_origin(origin)
    if not entries:
        raise _unknown(file, asked)
    if flavor:
        fitting = flavored(entries, flavor)
        if not fitting:
            names = ", ".join(entry.base for entry in entries[:20])
            raise UnknownPackage(f"{file.path} has no flavor {flavor!r} of {origin}; it makes {names}.")
        return fitting[0]
    return entries[0]  # the default flavor is the first


def _unknown(file: IndexFile, asked: str) -> UnknownPackage:
    near = file.nearest(asked)
    hint = f"Did you mean {' or '.join(near)}?" if near else ""
    return UnknownPackage(f"There is no package {asked} in {file.path}.", remedy=hint)


def _check_version(entry: Entry, version: str) -> None:
    if version and version != entry.version:
        raise UnknownPackage(
            f"{entry.base} has version {entry.version} in this branch, not {version}.",
            remedy="A tree has one version of each package: update the tree, or ask for no version.",
        )


def _pkg(file: IndexFile) -> Entry:
    """Return pkg's own entry."""
    entries = file.by_origin(PKG_ORIGIN)
    if not entries:
        raise UnknownPackage(
            f"{file.path} does not have {PKG_ORIGIN}, which every build needs.",
            remedy="Make the INDEX of a whole tree.",
        )
    return entries[0]


def _needed(entry: Entry, pkg: Entry, packages: t.Sequence[PackageFile]) -> dict[str, PackageFile]:
    """Return the file of each package that must be there, by its whole name, or raise MissingDependencies."""
    names = list(entry.dependencies)
    if entry.origin != PKG_ORIGIN:
        names.insert(0, pkg.name)
    built = {stem: file for file in packages if (stem := _stem(file.name))}
    missing = [name for name in dict.fromkeys(names) if name not in built]
    if missing:
        others: dict[str, str] = {}
        for stem in built:
            others[stem.rpartition("-")[0]] = stem
        shown = [_with_other(name, others) for name in missing[:_NAMED]]
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        what = "a package that is not built" if len(missing) == 1 else f"{len(missing)} packages that are not built"
        raise MissingDependencies(
            f"{entry.name} needs {what}: {', '.join(shown)}{more}.",
            remedy="Build what is missing first.",
            missing=missing,
        )
    return {name: built[name] for name in names}


def _with_other(name: str, others: t.Mapping[str, str]) -> str:
    other = others.get(name.rpartition("-")[0])
    return f"{name} (there is {other})" if other else name


def _stem(name: str) -> str:
    """Return the file's name without the suffix of a package; empty for another file."""
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return ""


def _names(names: t.Iterable[str], needed: t.Mapping[str, PackageFile]) -> str:
    return "".join(f"{needed[name].name}\n" for name in names)


# -- the plan ----------------------------------------------------------------------------------------------------------


def _environment(inputs: BuildInputs, entry: Entry, pkg: PackageFile | None) -> dict[str, str]:
    for pattern in inputs.check_ignore:
        if "\n" in pattern or "\0" in pattern:
            raise BadName(f"The pattern {pattern!r} has more than one line.")
    return {
        **_make_environment(inputs),
        **({"TRYBROKEN": "yes"} if inputs.trybroken else {}),
        "PB_PACKAGE": inputs.job.package,
        "PB_PKGNAME": entry.name,
        "PB_PORT": entry.origin,
        "PB_FLAVOR": entry.flavor,
        "PB_PKG": pkg.name if pkg else "",
        "PB_CHECK": inputs.check,
        "PB_IGNORE": "\n".join([*ignored_paths(), *inputs.check_ignore]),
        "PB_FETCH_ORIGINAL": _flag(inputs.fetch_original),
        "PB_WANT_DISTFILES": _flag(inputs.want_distfiles),
    }


def _make_environment(inputs: BuildInputs) -> dict[str, str]:
    """Return what every make of a port is told, as the original did, and how it may use the machine."""
    environment = {
        "BATCH": "yes",
        "PACKAGE_BUILDING": "yes",
        "USE_PACKAGE_DEPENDS_ONLY": "yes",
        "PORTSDIR": "/usr/ports",
        "WRKDIRPREFIX": "/build/work",
        "DISTDIR": "/build/distfiles",
        "PACKAGES": "/build/packages",
        "PB_MAKE_JOBS": str(inputs.make_jobs),
        "PB_MAXJOBS": str(max(1, inputs.max_jobs)),
    }
    if inputs.no_restricted:
        environment["NO_RESTRICTED"] = "yes"
    if os.path.isfile(inputs.make_conf):
        environment["__MAKE_CONF"] = "/portbuild/inputs/make.conf"
    return environment


def _make_conf(inputs: BuildInputs) -> list[InputFile]:
    path = inputs.make_conf
    return [InputFile(MAKE_CONF, path, os.path.getsize(path), sha256_file(path))] if os.path.isfile(path) else []


def _steps(inputs: BuildInputs, *, fetch_depends: bool) -> list[dict[str, t.Any]]:
    """Return the steps of ports.sh. Only fetching has the network."""
    user = inputs.build_user
    steps = [
        make_step("fetch", "fetch", user, network=_proxies(inputs)),
        make_step("depends", "depends", "root"),
        make_step("build", "build", user),
        make_step("build-as-root", "build", "root"),
    ]
    if fetch_depends:
        steps.insert(0, make_step("fetch-depends", "depends", "root"))
    if inputs.check != "off":
        steps.append(make_step("check", "check", "root") | {"root": "fresh", "each": "*", "group": "check"})
    return steps


def _proxies(inputs: BuildInputs) -> dict[str, str]:
    return dict.fromkeys(_FETCHING, inputs.proxy) if inputs.proxy else {}


def _collect(distfiles: str) -> dict[str, dict[str, t.Any]]:
    return {
        "packages": {"dir": "/build/results", "kinds": {}},
        "distfiles": {"dir": distfiles},
        "workdir": {"dir": "/build/work"},
    }


def _index_plan(inputs: BuildInputs) -> BuildPlan:
    environment = {
        **_make_environment(inputs),
        "PB_PACKAGE": INDEX_JOB,
        "PB_MADE_FROM": inputs.made_from,
        "PB_DUDS": _flag(inputs.duds),
    }
    return BuildPlan(
        script=read_data("ports.sh"),
        steps=[make_step("index", "build", inputs.build_user)],
        environment=environment,
        inputs=_make_conf(inputs),
        collect={"packages": {"dir": "/build/results", "kinds": {}}},
        origin="/usr/ports",
        header=[("port directory", "/usr/ports")],
    )


def _flag(value: bool) -> str:
    return "1" if value else "0"


SYSTEM = Ports()
