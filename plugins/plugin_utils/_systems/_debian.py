# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The package system C(debian): source packages of Debian and of local directories, built by dpkg-buildpackage."""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from ...module_utils._errors import PortbuildError
from ...module_utils._names import BadName, check_package, check_version
from . import (
    BadSource,
    BuildInputs,
    BuildPlan,
    Catalogue,
    CatalogueInputs,
    InputFile,
    make_step,
    PackageSystem,
    read_data,
    read_patterns,
)
from ._debian_catalogue import read_catalogue
from ._debian_repo import release, RepositoryIndex
from ._debian_sources import describe, dsc_files, find_source, LocalSource, NAME, pack_tree, VERSION

try:
    from debian import deb822
except ImportError:
    deb822 = None  # type: ignore[assignment]

REPOSITORY = "portbuild"  # the origin that the pin in debian.sh matches
SUFFIX = re.compile(r"[A-Za-z0-9+.~]+")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+=,_-]*")


class MissingLibrary(PortbuildError):
    """The controller lacks a Python library."""


class BadRequest(PortbuildError):
    """A setting that cannot be used."""


def ignored_paths() -> list[str]:
    """Return the regular expressions of the paths that a check of any package ignores."""
    return read_patterns("debian-ignore.txt")


class Debian(PackageSystem):
    """The driver."""

    name = "debian"
    package_suffixes = (".deb", ".udeb", ".ddeb")
    libraries: t.ClassVar[t.Mapping[str, str]] = {"python-debian": "0.1.49"}

    def check_name(self, name: t.Any) -> str:
        """Return the name of a source package, or raise BadName."""
        check_package(name)
        if not NAME.fullmatch(name):
            raise BadName(
                f"{name!r} cannot be the name of a Debian source package.",
                remedy="At least two characters: lower-case letters, digits and + - .",
            )
        return str(name)

    def parse_request(self, text: t.Any) -> tuple[str, str]:
        """Return name and version of C(name) or C(name=version)."""
        if not isinstance(text, str):
            raise BadName(f"The package must be a string, got {type(text).__name__}.")
        name, equals, version = text.partition("=")
        self.check_name(name)
        if equals:
            check_version(version)
            if not VERSION.fullmatch(version):
                raise BadName(f"{version!r} cannot be the version of a Debian source package.")
        return name, version

    def prepare(self, inputs: BuildInputs) -> BuildPlan:
        """Return the plan of a build."""
        _check_library()
        name = self.check_name(inputs.job.package)
        source = find_source(inputs.source_directory, name, inputs.version) if inputs.source_directory else None
        files = _input_files(source, inputs.work_directory)
        cache = os.path.join(inputs.cache_directory, "control.sqlite") if inputs.cache_directory else ""
        packages, problems = RepositoryIndex(cache).packages(inputs.packages)
        return BuildPlan(
            script=read_data("debian.sh"),
            steps=_steps(inputs, archive=source is None),
            environment=_environment(inputs, source, files),
            inputs=files,
            repo_index={"Packages": packages, "Release": release(packages, REPOSITORY)} if packages else {},
            offered={file.sha256: file for file in inputs.packages if file.name.endswith(".deb")} if packages else {},
            collect=_collect(),
            origin=source.path if source else "the archive",
            warnings=problems,
        )

    def catalogue(self, inputs: CatalogueInputs) -> Catalogue:
        """Return what there is of the targets, and what of the local sources they need."""
        _check_library()
        return read_catalogue(inputs, self.parse_request)

    def version_of(self, files: t.Sequence[str]) -> str:
        """Return the version in the first C(.changes): the whole one, with the epoch that no file name has."""
        for path in files:
            if path.endswith(".changes"):
                with contextlib.suppress(BadSource):
                    version = describe(path).get("version", "").split(" ")[0]
                    return version if VERSION.fullmatch(version) else ""
        return ""


def _check_library() -> None:
    if deb822 is None:
        raise MissingLibrary("The Python library python-debian is missing.", remedy="Install it, for example with pip.")


def _input_files(source: LocalSource | None, work_directory: str) -> list[InputFile]:
    if source is None:
        return []
    return dsc_files(source.path) if source.kind == "dsc" else [pack_tree(source, work_directory)]


def _environment(inputs: BuildInputs, source: LocalSource | None, files: t.Sequence[InputFile]) -> dict[str, str]:
    for word in (*inputs.build_options, *inputs.build_profiles):
        if not WORD.fullmatch(word):
            raise BadRequest(
                f"The build option or profile {word!r} is malformed.", remedy="Give words such as nocheck."
            )
    if inputs.version_suffix and not SUFFIX.fullmatch(inputs.version_suffix):
        raise BadRequest(
            f"The version suffix {inputs.version_suffix!r} is malformed.",
            remedy="It consists of letters, digits and + . ~, for example +b1.",
        )
    for pattern in inputs.check_ignore:
        if "\n" in pattern or "\0" in pattern:
            raise BadRequest(f"The pattern {pattern!r} has more than one line.")
    options = [*inputs.build_options]
    if inputs.make_jobs and not any(option.startswith("parallel=") for option in options):
        options.insert(0, f"parallel={inputs.make_jobs}")
    return {
        "DEB_BUILD_OPTIONS": " ".join(options),
        "DEB_BUILD_PROFILES": " ".join(inputs.build_profiles),
        "PB_PACKAGE": inputs.job.package,
        "PB_VERSION": inputs.version,
        "PB_ORIGIN": source.kind if source else "archive",
        "PB_INPUT": files[0].name if files else "",
        "PB_BUILD": "any,all" if inputs.build_indep else "any",
        "PB_VERSION_SUFFIX": inputs.version_suffix,
        "PB_CHECK": inputs.check,
        "PB_IGNORE": "\n".join([*ignored_paths(), *inputs.check_ignore]),
        "PB_BUILD_USER": inputs.build_user,
        "PB_MAXJOBS": str(max(1, inputs.max_jobs)),
    }


def _steps(inputs: BuildInputs, *, archive: bool) -> list[dict[str, t.Any]]:
    """Return the steps of debian.sh. Only downloads have the network, and they run nothing that a package brought."""
    user = inputs.build_user
    proxy = {"http_proxy": inputs.proxy, "https_proxy": inputs.proxy} if inputs.proxy else {}
    steps = [
        make_step("unpack", "fetch", user),
        make_step("depends-download", "depends", "root", network=proxy),
        make_step("depends-install", "depends", "root"),
        make_step("build", "build", user),
    ]
    if archive:
        steps.insert(0, make_step("fetch", "fetch", "root", network=proxy))
    if inputs.check != "off":
        each = {"root": "fresh", "each": "*.deb", "group": "check"}
        steps.append(make_step("check-download", "check", "root", network=proxy) | each)
        steps.append(make_step("check-run", "check", "root") | each)
    steps.append(make_step("package", "package", user))
    return steps


def _collect() -> dict[str, dict[str, t.Any]]:
    kinds = {
        ".deb": "package",
        ".udeb": "package",
        ".ddeb": "package",
        ".changes": "changes",
        ".buildinfo": "buildinfo",
    }
    return {
        "packages": {"dir": "/build/results", "kinds": kinds},
        "distfiles": {"dir": "/build/distfiles"},
        "workdir": {"dir": "/build/work"},
    }


SYSTEM = Debian()
