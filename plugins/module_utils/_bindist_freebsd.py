# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The base tarball of a FreeBSD branch: C(base.txz) of a release, fetched with the tools of the base system.

What the tarball must be stands in the release's C(MANIFEST): taken from the package freebsd-release-manifests where
that is installed, else from where C(base.txz) itself comes from, which is as trustworthy as that and its TLS.

A base may also be made of a tarball that is given, here and on Linux.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import typing as t

from . import _beneath
from ._bases import extract_base
from ._bindist import BindistError, Made, publish, work_directory
from ._files import sha256_file
from ._freebsd import parse_release, Release
from ._isolation import find_user
from ._process import check_run, CommandError, Completed, LINUX, run

MIRROR = "https://download.freebsd.org"
MANIFESTS = "/usr/local/share/freebsd/MANIFESTS"
BASE = "base.txz"
RECIPE = 1  # raise it when the same parameters give another tarball
_FETCH_TIMEOUT = 3600.0
_PACK_TIMEOUT = 3600.0
_RELEASE = re.compile(r"([0-9]{1,3}\.[0-9]{1,3})-(RELEASE|BETA[0-9]*|RC[0-9]*|ALPHA[0-9]*|PRERELEASE|STABLE|CURRENT)")
_PATCH = re.compile(r"-p[0-9]+$")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_DIRECTORIES = ("build", "portbuild", "usr/ports")

Check = t.Callable[..., Completed]  # check_run, or what stands for it in a test


class Wish(t.NamedTuple):
    """What a caller asks for."""

    path: str
    tarball: str = ""
    release: str = ""
    mirror: str = ""
    build_user: str = "builder"
    build_uid: int = 1500
    proxy: str = ""


class Recipe(t.NamedTuple):
    """All that decides what the tarball holds."""

    origin: str  # the address of base.txz, or the path of the tarball
    sha256: str  # of that
    release: str  # what was asked for; empty for a tarball
    build_user: str
    build_uid: int

    def digest(self) -> str:
        """Return what two equal recipes share; where the same bytes come from makes no difference."""
        facts = [RECIPE, *self[1:]]
        return hashlib.sha256(json.dumps(facts).encode("utf-8")).hexdigest()


# -- pure ------------------------------------------------------------------------------------------------------------


def release_name(text: str) -> str:
    """Return the name of a release as it stands in addresses: without the patch level; raises BindistError."""
    name = _PATCH.sub("", text.strip())
    if re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}", name):
        name += "-RELEASE"
    if not _RELEASE.fullmatch(name):
        raise BindistError(
            f"{text!r:.80} is not the name of a FreeBSD release.",
            remedy="Give one such as 14.3-RELEASE in portbuild_bindist_release.",
        )
    return name


def site(mirror: str, machine: str, processor: str, release: str) -> str:
    """Return the address of the directory in which the files of the release are."""
    for word in (machine, processor):
        if not re.fullmatch(r"[a-z0-9_]{1,32}", word):
            raise BindistError(f"{word!r:.80} cannot be the name of a FreeBSD architecture.")
    name = release_name(release)
    kind = "snapshots" if re.search(r"-(ALPHA|PRERELEASE|STABLE|CURRENT)", name) else "releases"
    return f"{(mirror or MIRROR).rstrip('/')}/{kind}/{machine}/{processor}/{name}"


def parse_manifest(text: str, name: str = BASE) -> str:
    """Return the SHA-256 that a release's MANIFEST states for the file, or raise BindistError."""
    for line in text.splitlines():
        fields = line.split("\t")
        if fields[0].strip() == name and len(fields) > 1 and re.fullmatch(r"[0-9a-f]{64}", fields[1].strip()):
            return fields[1].strip()
    raise BindistError(
        f"The release's MANIFEST states no SHA-256 of {name}.",
        remedy="See what portbuild_bindist_mirror serves, or give a tarball in portbuild_bindist_tarball.",
    )


def fetch_argv(address: str, target: str) -> list[str]:
    """Return the command that fetches a file; a stalled server counts as failed after a minute."""
    return ["fetch", "-q", "-T", "60", "-o", target, "--", address]


def account_argv(root: str, user: str, uid: int) -> list[str]:
    """Return the command that makes the account to build as, with a group of its own."""
    return ["pw", "-R", root, "useradd", "-n", user, "-m", "-u", str(uid), "-s", "/bin/sh"]


def pack_argv(root: str, target: str, *, gnu: bool) -> list[str]:
    """Return the command that packs the base; everything of bsdtar's that GNU tar must be asked for."""
    more = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls"] if gnu else ["--numeric-owner"]
    return ["tar", "-C", root, *more, "-cf", target, "."]


# -- looking ---------------------------------------------------------------------------------------------------------


def read_release(root: str) -> Release | None:
    """Return what the base in the directory says of itself, None if it is not FreeBSD's or does not say."""
    with _beneath.opened(_beneath.open_top(root)) as top:
        return parse_release(_read(top, "bin/freebsd-version"), _read(top, "usr/include/sys/param.h"))


def facts_of(release: Release | None) -> dict[str, t.Any]:
    """Return what the record of the tarball says of the release."""
    return {"osrelease": release.name if release else "", "osreldate": release.number if release else 0}


def _read(top: int, path: str) -> str:
    """Return the content of a file of the base, empty if there is none, or none that is in the base."""
    try:
        return _beneath.read_text(top, path) or ""
    except _beneath.UnsafeFile:
        return ""


def _read_manifest(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return ""


def _environment(proxy: str) -> dict[str, str]:
    environment = dict(os.environ)
    if proxy:
        environment.update(http_proxy=proxy, https_proxy=proxy, HTTP_PROXY=proxy, HTTPS_PROXY=proxy)
    return environment


def _fetch(address: str, target: str, proxy: str, check: Check) -> None:
    try:
        check(fetch_argv(address, target), f"Fetching {address}", env=_environment(proxy), timeout=_FETCH_TIMEOUT)
    except CommandError as error:
        raise BindistError(
            error.message,
            remedy="Can the machine reach it? There are portbuild_bindist_mirror and portbuild_http_proxy, or give a "
            "tarball in portbuild_bindist_tarball.",
            details=error.details,
        ) from None


def plan_bindist(wish: Wish, *, check: Check = check_run, manifests: str = MANIFESTS) -> Recipe:
    """Return the recipe, or raise BindistError saying what is missing. Changes nothing on the machine."""
    if not _ACCOUNT.fullmatch(wish.build_user):
        raise BindistError(f"{wish.build_user!r:.80} cannot be the name of an account.")
    if wish.tarball:
        if not os.path.isfile(wish.tarball):
            raise BindistError(
                f"There is no tarball {wish.tarball}, neither on the controller nor on this machine.",
                remedy="See portbuild_bindist_tarball.",
            )
        return Recipe(wish.tarball, sha256_file(wish.tarball), "", wish.build_user, wish.build_uid)

    def ask(*argv: str) -> str:
        return check(list(argv), f"Asking {argv[0]}", timeout=30).stdout.strip()

    release = release_name(wish.release or ask("freebsd-version", "-u"))
    machine, processor = ask("uname", "-m"), ask("uname", "-p")
    where = site(wish.mirror, machine, processor, release)
    known = _read_manifest(os.path.join(manifests, f"{machine}-{processor}-{release}"))
    if not known:
        address = f"{where}/MANIFEST"
        try:
            options: dict[str, t.Any] = {"env": _environment(wish.proxy), "timeout": 300}
            known = check(fetch_argv(address, "-"), f"Fetching {address}", **options).stdout
        except CommandError as error:
            raise BindistError(
                error.message,
                remedy=f"Is there a release {release} for {machine}/{processor}, and can the machine reach it? There are "
                "portbuild_bindist_release, portbuild_bindist_mirror and portbuild_http_proxy.",
                details=error.details,
            ) from None
    return Recipe(f"{where}/{BASE}", parse_manifest(known), release, wish.build_user, wish.build_uid)


# -- making ----------------------------------------------------------------------------------------------------------


def make_bindist(
    wish: Wish, recipe: Recipe, *, check: Check = check_run, now: t.Callable[[], float] = time.time
) -> tuple[Made, Release | None]:
    """Make the tarball: complete under its final name, or not at all."""
    with work_directory(wish.path, now()) as work:
        source = wish.tarball or os.path.join(work, BASE)
        if not wish.tarball:
            _fetch(recipe.origin, source, wish.proxy, check)
        found = sha256_file(source)
        if found != recipe.sha256:
            raise BindistError(
                f"{recipe.origin} has the SHA-256 {found}, expected {recipe.sha256}.",
                remedy="It was damaged, or changed: try again, or use another portbuild_bindist_mirror.",
            )
        root = os.path.join(work, "root")
        os.mkdir(root, 0o755)
        try:
            extract_base(source, root)
            release = customize(root, recipe, check)
            tarball = os.path.join(work, "base.tar")
            check(pack_argv(root, tarball, gnu=LINUX), "Packing the base", timeout=_PACK_TIMEOUT)
            # Level 1: half the time of the default for a tenth more bytes; -n: no time and no name of the making.
            check(["gzip", "-1", "-n", tarball], "Compressing the base", timeout=_PACK_TIMEOUT)
            facts = {"origin": recipe.origin, **facts_of(release)}
            return publish(f"{tarball}.gz", wish.path, recipe, facts, now()), release
        finally:
            if not LINUX:  # or what it flags immutable outlives even root's removal
                run(["chflags", "-R", "0", root], timeout=_PACK_TIMEOUT)
            shutil.rmtree(root, ignore_errors=True)


def customize(root: str, recipe: Recipe, check: Check = check_run) -> Release | None:
    """Make a base what builds need; return what it says of itself. resolv.conf and hosts come with each build."""
    release = read_release(root)
    if not LINUX:
        if release is None:
            raise BindistError(
                f"{recipe.origin} holds no FreeBSD base: bin/freebsd-version and usr/include/sys/param.h do not tell "
                "its release.",
                remedy="Use base.txz of a release, or what make distributeworld packs.",
            )
        # A stock base flags a few files immutable: that protects nothing here, and makes removing a chroot take twice.
        check(["chflags", "-R", "0", root], "Clearing file flags", timeout=_PACK_TIMEOUT)
    with _beneath.opened(_beneath.open_top(root)) as top:
        if recipe.build_user != "root" and not _has_account(top, recipe.build_user):
            if LINUX:
                _add_account(top, recipe.build_user, recipe.build_uid)
            else:
                argv = account_argv(root, recipe.build_user, recipe.build_uid)
                check(argv, f"Adding {recipe.build_user} to the base", timeout=60)
        user = find_user(root, recipe.build_user)
        for path in _DIRECTORIES:
            os.close(_beneath.open_directory(top, path, create=True))
        with _beneath.opened(_beneath.open_directory(top, _DIRECTORIES[0])) as build:
            os.fchown(build, user.uid, user.gid)
    return release


def _has_account(top: int, name: str) -> bool:
    return any(line.split(":", 1)[0] == name for line in _read(top, "etc/passwd").splitlines())


def _add_account(top: int, name: str, uid: int) -> None:
    """Add an account to a Linux base. Nothing of the base is run for it: it need not be this machine's kind."""
    for path, line in (
        ("etc/passwd", f"{name}:x:{uid}:{uid}::/home/{name}:/bin/sh"),
        ("etc/group", f"{name}:x:{uid}:"),
    ):
        text = _read(top, path)
        _beneath.replace_text(top, path, text + ("" if not text or text.endswith("\n") else "\n") + line + "\n")
    with _beneath.opened(_beneath.open_directory(top, f"home/{name}", create=True)) as home:
        os.fchown(home, uid, uid)
