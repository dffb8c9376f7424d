# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Where a tree comes from (a directory, a tarball, git), and how it becomes the branch's tarball.

A source first tells its state, which is cheap and changes nothing: the commit, or a digest of names, sizes and times.
Only when that is not the state of the present tree is anything packed. The same contents give the same tarball,
whoever packs it and when: what is unchanged does not travel to the machines again.
"""

from __future__ import annotations

import abc
import collections.abc as c
import contextlib
import gzip
import hashlib
import os
import re
import shutil
import stat
import tarfile
import time
import typing as t
from urllib.parse import urlsplit, urlunsplit

from ..module_utils._errors import PortbuildError
from ..module_utils._files import NewerFile, sha256_file, sync_directory, temporary_name
from ..module_utils._lock import Lock
from ..module_utils._process import check_run, CommandError
from ..module_utils._tarballs import BadTarball, check_members
from ._layout import Layout
from ._port_tree import NoTree, publish_tree, read_tree
from ._published import Published

LANDMARK = "Mk/bsd.port.mk"  # what every ports tree has
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_EPOCH = 1_000_000_000  # the time of everything in a tarball made from a directory
_ASK_TIMEOUT = 300.0
_PACK_TIMEOUT = 7200.0
# What a tree that is in use gathers, and nobody wants to send around.
_LEFT_OUT_AT_TOP = frozenset(("distfiles", "packages", ".git", ".svn", ".hg"))
_WORK = re.compile(r"work(-.*)?")  # CATEGORY/PORT/work


class State(t.NamedTuple):
    """What a source is at. Equal keys mean equal contents; C(revision) is for people."""

    key: str
    revision: str


class Source(abc.ABC):
    """Where a tree comes from."""

    name: str  # for people, without any password

    @abc.abstractmethod
    def state(self) -> State:
        """Return what it is at; changes nothing."""

    @abc.abstractmethod
    def pack(self, target: str, cache: str) -> State:
        """Write the tarball and return what it holds. C(cache) is a directory that may be kept for the next time."""


def find_source(text: str, revision: str = "") -> Source:
    """Return the source that the settings name, or raise NoTree."""
    if not text.startswith("/"):
        return GitRepository(text, revision)
    if os.path.exists(os.path.join(text, ".git")) or _is_bare(text):
        return GitCheckout(text, revision)
    if revision:
        raise NoTree(
            f"portbuild_tree_revision is {revision!r}, but {text} is no git checkout.",
            remedy="Leave it out, or name a checkout or the address of a repository in portbuild_tree.",
        )
    if os.path.isdir(text):
        return Directory(text)
    if os.path.isfile(text):
        return Tarball(text)
    raise NoTree(
        f"portbuild_tree is {text!r}, which does not exist on the controller.",
        remedy="Give a directory, a tarball or a git checkout, or the address of a git repository.",
    )


def _is_bare(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "HEAD")) and all(
        os.path.isdir(os.path.join(path, name)) for name in ("objects", "refs")
    )


def without_password(address: str) -> str:
    """Return the address without what only the one who uses it may know."""
    parts = urlsplit(address) if "://" in address else None
    if parts is None or "@" not in parts.netloc:
        return address
    user, _at, host = parts.netloc.rpartition("@")
    # A name alone may be a token (https), or must be said (ssh).
    kept = f"{user.partition(':')[0]}@{host}" if parts.scheme == "ssh" else host
    return urlunsplit(parts._replace(netloc=kept))


# -- a directory and a tarball ---------------------------------------------------------------------------------------


def _walk(top: str, relative: str = "", depth: int = 1) -> c.Iterator[tuple[str, os.stat_result]]:
    """Yield what belongs to the tree in the directory, sorted, directories before their contents."""
    with os.scandir(os.path.join(top, relative)) as entries:
        found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in found:
        status = entry.stat(follow_symlinks=False)
        is_directory = stat.S_ISDIR(status.st_mode)
        if depth == 1 and entry.name in _LEFT_OUT_AT_TOP:
            continue
        if depth == 3 and is_directory and _WORK.fullmatch(entry.name):
            continue
        path = f"{relative}/{entry.name}" if relative else entry.name
        yield path, status
        if is_directory:
            yield from _walk(top, path, depth + 1)


class Directory(Source):
    """A directory of the controller, as it stands there."""

    def __init__(self, path: str) -> None:
        self.name = path

    def state(self) -> State:
        digest = hashlib.sha256()
        for path, status in _walk(self.name):
            line = [os.fsencode(path), f"{status.st_mode:o} {status.st_size} {status.st_mtime_ns}".encode()]
            if stat.S_ISLNK(status.st_mode):
                line.append(os.fsencode(os.readlink(os.path.join(self.name, path))))
            digest.update(b"\0".join(line) + b"\n")
        key = f"state:{digest.hexdigest()}"
        return State(key, key[:18])

    def pack(self, target: str, cache: str) -> State:  # noqa: ARG002
        state = self.state()  # before: what changes while it is packed is seen the next time
        with (
            open(target, "wb") as raw,
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as stream,
            tarfile.open(mode="w|", fileobj=stream, format=tarfile.GNU_FORMAT, errors="surrogateescape") as tarball,
        ):
            for path, status in _walk(self.name):
                self._add(tarball, path, status)
        return state

    def _add(self, tarball: tarfile.TarFile, path: str, status: os.stat_result) -> None:
        whole = os.path.join(self.name, path)
        member = tarfile.TarInfo(path)
        member.mtime = _EPOCH
        member.mode = 0o755 if stat.S_ISDIR(status.st_mode) or status.st_mode & 0o100 else 0o644
        if stat.S_ISDIR(status.st_mode):
            member.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(status.st_mode):
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, os.readlink(whole), 0o777
        elif stat.S_ISREG(status.st_mode):
            member.size = status.st_size
            try:
                with open(whole, "rb") as stream:
                    tarball.addfile(member, stream)
            except OSError as error:
                if error.errno is not None:
                    raise
                raise NoTree(f"{whole} was changed while it was packed.", remedy="Run setup again.") from None
            return
        else:
            raise NoTree(f"{whole} is neither a directory nor a regular file nor a link.", remedy="Remove it.")
        tarball.addfile(member)


class Tarball(Source):
    """A tarball of the controller, taken as it is."""

    def __init__(self, path: str) -> None:
        self.name = path

    def state(self) -> State:
        found = os.stat(self.name)
        key = f"file:{found.st_dev}.{found.st_ino}.{found.st_size}.{found.st_mtime_ns}"
        return State(key, f"of {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(found.st_mtime))}")

    def pack(self, target: str, cache: str) -> State:  # noqa: ARG002
        state = self.state()
        shutil.copyfile(self.name, target)
        return state


# -- git -------------------------------------------------------------------------------------------------------------


def _git(*arguments: str, what: str, timeout: float = _ASK_TIMEOUT) -> str:
    """Run git, which never asks for anything, and return what it prints."""
    environment = {
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "LC_ALL": "C",
    }
    try:
        return check_run(["git", *arguments], what, env=environment, timeout=timeout, limit=1 << 24).stdout
    except CommandError as error:
        if "rc" in error.details:
            raise NoTree(without_passwords(error.message), remedy="Look at portbuild_tree and its revision.") from None
        raise NoTree(
            f"{what} failed: {error.message}",
            remedy="Install git on the controller, or give a directory or a tarball in portbuild_tree.",
        ) from None


def without_passwords(text: str) -> str:
    """Return a message of git's without the user part of the addresses in it."""
    return re.sub(r"(\w+://)[^\s/@]+@", r"\1", text)


def _archive(directory: str, commit: str, target: str) -> None:
    _git(
        *("--git-dir", directory, "-c", "tar.umask=0022", "archive", "--format=tar.gz", "-6", f"--output={target}"),
        commit,
        what=f"Packing {commit}",
        timeout=_PACK_TIMEOUT,
    )


class GitCheckout(Source):
    """A checkout, or a bare repository, on the controller."""

    def __init__(self, path: str, revision: str) -> None:
        self.name = path
        self._wanted = revision or "HEAD"

    def state(self) -> State:
        commit = _git(
            *("-C", self.name, "rev-parse", "--verify", "--end-of-options", f"{self._wanted}^{{commit}}"),
            what=f"Looking for {self._wanted} in {self.name}",
        ).strip()
        return State(f"git:{commit}", commit)

    def pack(self, target: str, cache: str) -> State:  # noqa: ARG002
        state = self.state()
        directory = _git("-C", self.name, "rev-parse", "--absolute-git-dir", what=f"Looking at {self.name}").strip()
        _archive(directory, state.revision, target)
        return state


class GitRepository(Source):
    """A repository somewhere else. Of it only the latest commit is fetched."""

    def __init__(self, address: str, revision: str) -> None:
        if urlsplit(address).path.endswith((".tar", ".tgz", ".txz", ".gz", ".xz", ".bz2", ".zst")):
            raise NoTree(
                f"portbuild_tree is {without_password(address)!r}: only git repositories are fetched.",
                remedy="Download the tarball, and give its path.",
            )
        self.name = without_password(address)
        self._address = address
        self._wanted = revision or "HEAD"

    def state(self) -> State:
        if _COMMIT.fullmatch(self._wanted):
            return State(f"git:{self._wanted}", self._wanted)
        listing = _git("ls-remote", "--", self._address, self._wanted, f"{self._wanted}^{{}}", what=self._asking)
        commit = choose_ref(listing, self._wanted)
        if not commit:
            raise NoTree(
                f"{self.name} has no branch and no tag {self._wanted!r}.", remedy="Look at portbuild_tree_revision."
            )
        return State(f"git:{commit}", commit)

    @property
    def _asking(self) -> str:
        return f"Asking {self.name} for {self._wanted}"

    def pack(self, target: str, cache: str) -> State:
        wanted = self.state().revision
        repository = os.path.join(cache, "tree.git")
        if not os.path.isdir(repository):
            _git("init", "--quiet", "--bare", "--", repository, what=f"Making {repository}")
        arguments = ("--git-dir", repository, "fetch", "--quiet", "--no-tags", "--depth=1", "--", self._address, wanted)
        try:
            _git(*arguments, what=f"Fetching {wanted} from {self.name}", timeout=_PACK_TIMEOUT)
        except NoTree as error:
            if not _COMMIT.fullmatch(self._wanted):
                raise
            raise NoTree(
                error.message,
                remedy="Some servers give out branches and tags only: name one, or make a checkout and give its path.",
            ) from None
        _archive(repository, wanted, target)
        return State(f"git:{wanted}", wanted)


def choose_ref(listing: str, wanted: str) -> str:
    """Return the commit that C(git ls-remote) names for a branch, a tag or HEAD; empty if it names none."""
    refs = {}
    for line in listing.splitlines():
        commit, tab, ref = line.partition("\t")
        if tab and _COMMIT.fullmatch(commit):
            refs[ref] = commit
    names = (wanted, f"refs/tags/{wanted}^{{}}", f"refs/tags/{wanted}", f"refs/heads/{wanted}")
    return next((refs[name] for name in names if name in refs), "")


# -- the branch's tarball --------------------------------------------------------------------------------------------


class Made(t.NamedTuple):
    """What came of it. In check mode C(tree) is what is there now."""

    changed: bool
    tree: Published | None
    before: dict[str, str]
    after: dict[str, str]


def make_tree(
    layout: Layout, source: Source, *, really: bool, landmark: str = LANDMARK, now: c.Callable[[], float] = time.time
) -> Made:
    """Make the branch's tarball unless it is of the source's present state; raises NoTree or NewerFile."""
    before = _present(layout)
    state = source.state()
    if _is_of(before, state):
        return Made(False, before, _told(before), _told(before))
    told = {"source": source.name, "revision": state.revision}
    if not really:
        return Made(True, before, _told(before), told)
    os.makedirs(layout.tarballs, exist_ok=True)
    with Lock(os.path.join(layout.tarballs, ".tree.lock"), timeout=_PACK_TIMEOUT):
        before = _present(layout)
        if _is_of(before, state):  # another process has made it meanwhile
            return Made(False, before, _told(before), _told(before))
        _sweep(layout)
        temporary = temporary_name(layout.tree)
        try:
            state = source.pack(temporary, layout.tarballs)
            _check(temporary, source.name, landmark)
            _to_disk(temporary)
            facts = {"source": source.name, "revision": state.revision, "key": state.key, "made": now()}
            same = before is not None and sha256_file(temporary) == before.sha256
            tree = publish_tree(layout, temporary, facts)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    after = _told(tree)
    return Made(not same, tree, after if same else _told(before), after)


def _present(layout: Layout) -> Published | None:
    """Return the tree that is there, None if there is none that can be used; raises NewerFile."""
    try:
        return read_tree(layout)
    except NewerFile:
        raise
    except PortbuildError:
        return None


def _is_of(tree: Published | None, state: State) -> bool:
    return tree is not None and tree.facts.get("key") == state.key


def _told(tree: Published | None) -> dict[str, str]:
    if tree is None:
        return {}
    return {name: str(tree.facts.get(name, "")) for name in ("source", "revision")}


def _check(path: str, name: str, landmark: str) -> None:
    try:
        seen = check_members(path, {landmark})
    except BadTarball as error:
        raise NoTree(f"The tree from {name} cannot be used: {error.message}", remedy=error.remedy) from None
    if not (landmark in seen.found or (landmark in seen.below and len(seen.top) == 1)):
        raise NoTree(
            f"{name} holds no ports tree: there is no {landmark} in it.",
            remedy="Name the top of a ports tree in portbuild_tree.",
        )


def _sweep(layout: Layout) -> None:
    """Remove what a killed making left; the caller holds the lock."""
    prefix = f".{os.path.basename(layout.tree)}."
    for name in os.listdir(layout.tarballs):
        if name.startswith(prefix) and name.endswith(".tmp"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(layout.tarballs, name))


def _to_disk(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(os.path.dirname(path))
