# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a client is asked to build, made of the settings and of the package system's plan."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import hashlib
import json
import typing as t

from ._context import lease_job, StepContext
from ._index_files import made_from
from ._port_tree import read_tree
from ._record import is_present, path_of
from ._settings import Settings
from ._systems import BuildInputs, BuildPlan, PackageFile
from ._temporary import own_directory
from ._text import one_line

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class BuildRequest:
    """The request, and the files that the client may ask for, by SHA-256."""

    build: dict[str, t.Any]
    script: str
    offered: dict[str, str]
    warnings: tuple[str, ...]
    asked: str
    """What is asked for, in a word: equal for equal wishes. See asked_for()."""


@contextlib.contextmanager
def make_request(
    context: StepContext, lease: c.Mapping[str, t.Any], chroot: c.Mapping[str, t.Any]
) -> c.Iterator[BuildRequest]:
    """Yield the request for the job of the lease in the chroot that claim_chroot returned.

    Files made for it exist until the end of the block.
    """
    with _work_directory(context.layout.incoming) as work_directory:
        inputs = _inputs(context, lease, work_directory)
        plan = context.system.prepare(inputs)
        yield BuildRequest(
            build=_build(context, lease, chroot, plan),
            script=plan.script,
            offered={
                **{file.sha256: file.path for file in plan.inputs},
                **{file.sha256: file.path for file in plan.offered.values()},
            },
            warnings=tuple(plan.warnings),
            asked=_asked(context, inputs, plan),
        )


def asked_for(context: StepContext, lease: c.Mapping[str, t.Any]) -> str:
    """Return what is asked for now: the version, the source and the options of the build, as a SHA-256.

    A build that was begun for an earlier dispatch answers this one only if that one asked for the same.
    """
    with _work_directory(context.layout.incoming) as work_directory:
        inputs = _inputs(context, lease, work_directory)
        return _asked(context, inputs, context.system.prepare(inputs))


def note_of(asked: str, build_token: int) -> dict[str, t.Any]:
    """Return what is remembered in the lease, under C(asked), of the build that is begun with this token."""
    return {"build": build_token, "digest": asked}


# How and where, but not what. Packages of ours come and go while others are built; where sources are is told by them.
_NOT_ASKED = (
    "job",
    "packages",
    "source_directory",
    "work_directory",
    "cache_directory",
    "make_jobs",
    "max_jobs",
    "proxy",
)


def _asked(context: StepContext, inputs: BuildInputs, plan: BuildPlan) -> str:
    names = [field.name for field in dataclasses.fields(inputs) if field.name not in _NOT_ASKED]
    wish = {name: getattr(inputs, name) for name in names}
    if context.system.needs_tree:
        wish["tree"] = read_tree(context.layout).sha256
    files = sorted((file.name, file.sha256) for file in plan.inputs if file.place != "repo")
    return hashlib.sha256(json.dumps([wish, files], sort_keys=True, default=str).encode()).hexdigest()


def _work_directory(base: str) -> contextlib.AbstractContextManager[str]:
    """Return a directory for files that are made for the request; a build lasts long, and who waits for it may die."""
    return own_directory(base, ".request-")


def _inputs(context: StepContext, lease: c.Mapping[str, t.Any], work_directory: str) -> BuildInputs:
    settings = context.settings
    return BuildInputs(
        job=lease_job(lease),
        version=settings.package_version,
        source_directory=settings.sourcedir,
        packages=our_packages(context),
        index=context.layout.index,
        make_conf=context.layout.make_conf,
        made_from=made_from(context) if lease["package"] == context.system.index_job else "",
        work_directory=work_directory,
        cache_directory=context.layout.incoming,
        build_user=settings.build_user,
        make_jobs=settings.make_jobs,
        max_jobs=max(1, settings.maxjobs // settings.make_share),
        build_options=settings.build_options,
        build_profiles=settings.build_profiles,
        build_indep=settings.build_indep,
        version_suffix=settings.version_suffix,
        check=t.cast("t.Any", settings.check),
        proxy=settings.http_proxy,
        no_restricted=settings.no_restricted,
        fetch_original=settings.fetch_original,
        trybroken=settings.trybroken,
        want_distfiles=settings.want_distfiles,
        duds=settings.index_duds,
    )


def our_packages(context: StepContext) -> list[PackageFile]:
    """Return our packages that a build may use: recorded, and there as recorded."""
    return [
        PackageFile(entry.file.name, path_of(context.layout, entry.file), entry.file.size, entry.file.sha256)
        for entry in context.store.all_package_files()
        if is_present(context.layout, entry.file)
    ]


def _arguments(settings: Settings) -> str:
    """Return the switches that are on, as the original called them."""
    switches = ("noclean", "no_restricted", "plistcheck", "nodummy", "want_distfiles", "fetch_original", "trybroken")
    words = [name.upper() for name in switches if getattr(settings, name)]
    if settings.keep_workdir != "no":
        words.append(f"keep_workdir={settings.keep_workdir}")
    return " ".join(words) or "none"


def _disk_limit(settings: Settings, chroot: c.Mapping[str, t.Any]) -> int:
    """Return how many bytes the job may write; what a tmpfs chroot holds is memory, by default half of the machine's."""
    if chroot["backend"] != "tmpfs":
        return settings.disk_limit
    bounds = (settings.disk_limit, settings.tmpfs_size or int(chroot.get("memory") or 0) // 2)
    return min((bound for bound in bounds if bound), default=0)


def _build(
    context: StepContext, lease: c.Mapping[str, t.Any], chroot: c.Mapping[str, t.Any], plan: BuildPlan
) -> dict[str, t.Any]:
    settings = context.settings
    return {
        "schema": SCHEMA,
        "arch": settings.arch,
        "branch": settings.branch,
        "package": lease["package"],
        "token": lease["token"],
        "machine": lease["machine"],
        "system": settings.system,
        "base": chroot["base"],
        "tree": chroot.get("tree", ""),
        "backend": chroot["backend"],
        "header": [["arguments", _arguments(settings)], *([name, one_line(value, 500)] for name, value in plan.header)],
        "environment": plan.environment,
        "build_user": settings.build_user,
        "client_user": settings.client_user,
        "steps": list(plan.steps),
        "limits": {
            "timeout": settings.timeout,
            "silence": settings.silence_timeout,
            "disk": _disk_limit(settings, chroot),
            "memory": settings.memory_limit,
            "log": settings.log_limit,
            "processes": settings.processes_limit,
            "results": settings.results_limit,
            "min_free": settings.machine_min_free,
        },
        "inputs": [
            {"name": file.name, "sha256": file.sha256, "size": file.size, "place": file.place} for file in plan.inputs
        ],
        "repo_index": plan.repo_index,
        "collect": plan.collect,
        "keep_workdir": settings.keep_workdir,
        "want_distfiles": settings.want_distfiles,
        "plistcheck": settings.plistcheck,
        "keep_chroot": settings.noclean,
    }
