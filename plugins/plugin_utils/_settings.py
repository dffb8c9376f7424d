# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Every setting: one table, from which the variables, the roles' argument specs and the defaults follow.

A setting C(maxjobs) is the Ansible variable C(portbuild_maxjobs) and the assignment C(maxjobs=) in portbuild.conf.
What counts, from weakest to strongest: the default, portbuild.conf, C(portbuild.<machine>), the Ansible variable (with
Ansible's own order of precedence), C(portbuild_package_settings) for one package.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import difflib
import fnmatch
import functools
import json
import posixpath
import re
import shlex
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._names import (
    BACKENDS,
    BadName,
    check_arch,
    check_branch,
    check_machine,
    check_package,
    check_version,
)
from ._conf import ArchConfig, check_system, Conf, Problem
from ._events import EVENTS
from ._systems import system_names

PREFIX = "portbuild_"
PACKAGE_SETTINGS = PREFIX + "package_settings"
DEFAULT_USER = "root"  # of client_user, where neither it nor ansible_user is set

DISPATCH, BULK, SETUP, BINDIST, CLEANUP, INDEX = "dispatch", "bulk", "setup", "bindist", "cleanup", "index"
CONTROL, CHECKMACHINES, DOCTOR, STATUS = "control", "checkmachines", "doctor", "status"
ROLES = (DISPATCH, BULK, SETUP, BINDIST, CLEANUP, INDEX, CONTROL, CHECKMACHINES, DOCTOR, STATUS)
NEED_WHERE = tuple(role for role in ROLES if role != DOCTOR)  # the doctor says itself what is missing
_TELLING = (DISPATCH, CLEANUP, CHECKMACHINES)  # where something happens that people and hooks hear of
EVENT = PREFIX + "event"  # no setting: what the tasks of portbuild_hook_tasks are told
_ONLY_ONE = ("package", "machine", "make_share")  # what is said of one dispatch; all else holds for those of a bulk too

Scope = t.Literal["controller", "branch", "machine"]


class SettingError(PortbuildError):
    """A setting whose value cannot be used."""


# -- kinds of values -------------------------------------------------------------------------------------------------


class Kind:
    """How a value is written, and what it becomes. C(parse) raises ValueError for anything else."""

    ansible: t.ClassVar[str] = "str"  # the type in an argument spec
    elements: t.ClassVar[str | None] = None
    choices: tuple[str, ...] | None = None
    empty: bool = (
        False  # whether the empty string is a value; otherwise it means "not given", as in an empty survey field
    )
    expected: str = "a string"

    def parse(self, value: t.Any) -> t.Any:
        raise NotImplementedError

    def plain(self, value: t.Any) -> t.Any:
        """Return the checked value in the form in which a person writes it in YAML."""
        self.parse(value)
        return value


class Text(Kind):
    """A single line, optionally of a given form."""

    def __init__(
        self, expected: str = "one line of text", form: str = r"[^\x00-\x1f\x7f]*", *, empty: bool = False
    ) -> None:
        self.expected = expected
        self.empty = empty
        self._form = re.compile(form)

    def parse(self, value: t.Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError
        text = str(value).strip()
        if not self._form.fullmatch(text) and not (self.empty and not text):
            raise ValueError
        return text


class Name(Kind):
    """Something that one of the checks of names accepts."""

    def __init__(self, expected: str, check: c.Callable[[t.Any], str]) -> None:
        self.expected = expected
        self._check = check

    def parse(self, value: t.Any) -> str:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)  # branch: 14
        try:
            return self._check(value)
        except BadName as error:
            raise ValueError(str(error)) from None


class Path(Kind):
    """An absolute path."""

    expected = "an absolute path without .. in it"

    def parse(self, value: t.Any) -> str:
        if not isinstance(value, str) or not value.startswith("/") or re.search(r"[\x00-\x1f\x7f]", value):
            raise ValueError
        if ".." in value.split("/"):
            raise ValueError
        return posixpath.normpath("/" + value.lstrip("/"))


class Choice(Kind):
    """One of some words."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices
        self.expected = "one of " + ", ".join(choices)

    def parse(self, value: t.Any) -> str:
        choices = self.choices or ()
        if isinstance(value, bool):  # YAML reads a bare on, off, yes or no as a boolean
            words = ("on", "yes", "true") if value else ("off", "no", "false")
            value = next((word for word in words if word in choices), None)
        if not isinstance(value, str) or value.strip() not in choices:
            raise ValueError
        return value.strip()

    def plain(self, value: t.Any) -> str:
        return self.parse(value)


class System(Kind):
    """A package system that there is a driver for. Argument specs do not list them: a driver may be added."""

    expected = "the name of a package system: " + ", ".join(system_names())

    def parse(self, value: t.Any) -> str:
        if not isinstance(value, str) or value.strip() not in system_names():
            raise ValueError
        return value.strip()


class Bool(Kind):
    """A switch. The original took any value, even 0, for on; here only these words count."""

    ansible = "bool"
    expected = "a boolean: true or false, yes or no, on or off, 1 or 0"
    _words: t.ClassVar[dict[str, bool]] = {
        **dict.fromkeys(("true", "yes", "on", "1", "y", "t"), True),
        **dict.fromkeys(("false", "no", "off", "0", "n", "f"), False),
    }

    def parse(self, value: t.Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, (str, int)) and (word := str(value).strip().lower()) in self._words:
            return self._words[word]
        raise ValueError

    def plain(self, value: t.Any) -> bool:
        return self.parse(value)


class Int(Kind):
    """A whole number within bounds."""

    ansible = "int"

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.expected = f"a whole number from {least} to {most}"

    def parse(self, value: t.Any) -> int:
        if (
            isinstance(value, bool)
            or not isinstance(value, (str, int))
            or not re.fullmatch(r"\s*[0-9]{1,18}\s*", str(value), re.ASCII)
        ):
            raise ValueError
        if not self.least <= int(value) <= self.most:
            raise ValueError
        return int(value)

    def plain(self, value: t.Any) -> int:
        return self.parse(value)


class _Quantity(Kind):
    """A number of the smallest unit, or numbers with units."""

    units: t.ClassVar[dict[str, int]]
    form: t.ClassVar[re.Pattern[str]]  # of a number with its unit

    def __init__(self, least: str, most: str) -> None:
        self.least, self.most = self.count(least), self.count(most)

    def parse(self, value: t.Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError
        amount = self.count(str(value).strip())
        if not self.least <= amount <= self.most:
            raise ValueError
        return amount

    @classmethod
    @functools.lru_cache(maxsize=256)
    def count(cls, text: str) -> int:
        """Return the number of smallest units."""
        if re.fullmatch(r"[0-9]{1,18}", text):
            return int(text)
        parts = cls.form.findall(text)
        if not parts or cls.form.sub("", text):
            raise ValueError
        return sum(int(number) * cls.units[unit.lower()] for number, unit in parts)


class Duration(_Quantity):
    """A time, in seconds."""

    units: t.ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    form: t.ClassVar = re.compile(r"([0-9]{1,12})\s*([smhdwSMHDW])\s*")

    def __init__(self, least: str, most: str) -> None:
        super().__init__(least, most)
        self.expected = f"a time from {least} to {most}, such as 8h, 90m, 1h30m, or 3600 (seconds)"


class Size(_Quantity):
    """A number of bytes."""

    units: t.ClassVar = {unit: 1024**power for power, unit in enumerate("kmgt", 1)}
    form: t.ClassVar = re.compile(r"^([0-9]{1,12})\s*([kmgtKMGT])(?:i?[bB])?$")

    def __init__(self, least: str = "0", most: str = "1024T") -> None:
        super().__init__(least, most)
        lowest = "" if least == "0" else f" of at least {least}"
        self.expected = f"a size{lowest}, such as 512M, 2G, or 1048576 (bytes)"


class Words(Kind):
    """A list of words; a string is split at commas, blanks and ends of lines."""

    ansible = "list"
    elements = "str"

    def __init__(self, expected: str, form: str) -> None:
        self.expected = expected
        self._form = re.compile(form)

    def parse(self, value: t.Any) -> tuple[str, ...]:
        if isinstance(value, str):
            value = re.sub(r"[,\s]+", " ", value).split()
        if not isinstance(value, (list, tuple)):
            raise ValueError
        words = tuple(str(word).strip() if isinstance(word, (str, int, float)) else "" for word in value)
        if not all(self._form.fullmatch(word) for word in words):
            raise ValueError
        return words

    def plain(self, value: t.Any) -> list[str]:
        return list(self.parse(value))


class SudoCommand(Kind):
    """How a login that is not root becomes root. Nothing but sudo and doas, and never with a prompt."""

    expected = "empty (the login is root), or sudo or doas, optionally with a path and flags"
    empty = True

    def parse(self, value: t.Any) -> str:
        if not isinstance(value, str) or re.search(r"[^A-Za-z0-9 _./=:@+-]", value):
            raise ValueError
        words = shlex.split(value)
        if words and posixpath.basename(words[0]) not in ("sudo", "doas"):
            raise ValueError
        return " ".join(words)


def _mapping(value: t.Any) -> c.Mapping[t.Any, t.Any]:
    """Return the dictionary, or what a text holds in JSON: C(-e name=value) and surveys know nothing but text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except RecursionError:
            raise ValueError("It is nested too deep.") from None
    if not isinstance(value, c.Mapping):
        raise ValueError
    return value


class Recipients(Kind):
    """By event, who hears about it."""

    ansible = "dict"
    expected = f"a dictionary of lists of mail addresses, by event ({', '.join(EVENTS)})"

    def __init__(self, addresses: Words) -> None:
        self._addresses = addresses

    def parse(self, value: t.Any) -> dict[str, tuple[str, ...]]:
        by_event = _mapping(value)
        if not set(by_event) <= set(EVENTS):
            raise ValueError
        return {str(event): self._addresses.parse(whom) for event, whom in by_event.items()}


class PackageSettings(Kind):
    """By package or pattern, settings that differ for it. Each setting is checked when it is used."""

    ansible = "dict"
    expected = "a dictionary of packages (or patterns such as lib*), each with a dictionary of settings"

    def parse(self, value: t.Any) -> dict[str, dict[str, t.Any]]:
        parsed: dict[str, dict[str, t.Any]] = {}
        for package, settings in _mapping(value).items():
            if not isinstance(settings, c.Mapping):
                raise ValueError(f"for {package}, a dictionary of settings is expected")
            parsed[str(package)] = {str(key).removeprefix(PREFIX): setting for key, setting in settings.items()}
            for key in parsed[str(package)]:
                if key not in PER_PACKAGE:
                    near = difflib.get_close_matches(key, PER_PACKAGE, 1) or [", ".join(PER_PACKAGE)]
                    raise ValueError(f"for {package}, {key!r} cannot be set for one package; did you mean {near[0]}?")
        return parsed


# category/port or category/port@flavor
_PORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*/[A-Za-z0-9_][A-Za-z0-9._+-]*(?:@[A-Za-z0-9_]+)?")


def _request(value: t.Any) -> str:
    """Return the package as asked for: a name, name=version, or a port."""
    if not isinstance(value, str):
        return check_package(value)
    if _PORT.fullmatch(value):
        return value
    name, separator, version = value.partition("=")
    check_package(name)
    if separator:
        check_version(version)
    return value


# -- the table -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of one setting."""

    name: str  # with the prefix
    field: str  # without
    kind: Kind
    written: t.Any  # the default as one writes it; None when there is none
    default: t.Any  # the default, parsed
    scope: Scope
    per_package: bool
    conf_names: tuple[str, ...]
    roles: tuple[str, ...]
    required: tuple[str, ...]  # the roles that cannot do without
    description: tuple[str, ...]
    secret: bool


def _setting(
    kind: Kind,
    written: t.Any,
    *description: str,
    roles: tuple[str, ...] = (DISPATCH,),
    required: tuple[str, ...] = (),
    scope: Scope = "branch",
    per_package: bool = False,
    conf: tuple[str, ...] | None = None,
    secret: bool = False,
) -> t.Any:
    """Return the field of a setting. C(conf) are its names in portbuild.conf: by default, its own."""
    default = "" if written is None else kind.parse(written)
    metadata = {
        "kind": kind,
        "written": written,
        "default": default,
        "scope": scope,
        "per_package": per_package,
        "conf_names": conf,
        "roles": roles,
        "required": required,
        "description": description,
        "secret": secret,
    }
    return dataclasses.field(metadata=metadata)  # pylint: disable=invalid-field-call  # for the dataclass below


def _switch(*description: str, per_package: bool = False, original: str = "") -> t.Any:
    """Return the field of one of the original's switches, which were environment variables in capitals."""
    text = (*description, f"The original's C({original}).") if original else description
    return _setting(
        Bool(), False, *text, per_package=per_package, conf=(original.lower(), original) if original else None
    )


_ADDRESS_FORM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}(?:@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?)?"
_ADDRESSES = Words("mail addresses", _ADDRESS_FORM)
_ADDRESS = Text("a mail address", _ADDRESS_FORM)
_ACCOUNT = Text("the name of an account", r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_HOST = Text("a host name or address", r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_URL = Text("a URL that begins with http:// or https://", r"https?://[^\s\"'\\<>`$\x00-\x1f\x7f]+")
# What git clones from (other transports run commands), or a path.
_TREE = Text(
    "an absolute path, or the address of a git repository (https://, http://, git://, ssh://, file:// or HOST:PATH)",
    r"(?:(?:https?|git|ssh|file)://[^\s\x00-\x1f\x7f]+|[A-Za-z0-9_][A-Za-z0-9_.@-]*:[^\s:\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*"
    r"|/[^\x00-\x1f\x7f]+)",
)
_REVISION = Text("the name of a branch or tag, or a commit", r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*")
_OPTION_WORDS = Words("words without blanks", r"[A-Za-z0-9!][A-Za-z0-9+._=,:/-]*")
_TARGETS = Words("names of packages or targets", r"[A-Za-z0-9@/][A-Za-z0-9+._,~@=:/-]*")
_TAGS = Words("words", r"[A-Za-z0-9][A-Za-z0-9+._-]*")
_DEB_NAMES = Words("names of Debian packages", r"[a-z0-9][a-z0-9+.:-]*")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that hold for a job on a machine: what C(resolve) returns.

    Times are whole seconds, sizes bytes, lists tuples; a string without a value is empty.
    """

    # where and what
    root: str = _setting(
        Path(),
        None,
        "The directory on the controller under which packages, logs and state stand, in C(ARCH/BRANCH).",
        "The original's C(pb).",
        roles=ROLES,
        required=NEED_WHERE,
        scope="controller",
        conf=(),
    )
    arch: str = _setting(
        Name("the name of an architecture, such as amd64", check_arch),
        None,
        "The target architecture, such as V(amd64). Its directory holds the machines, their queue and all its branches.",
        "An architecture serves one package system; for a second, use another name, such as V(debian-amd64).",
        roles=ROLES,
        required=NEED_WHERE,
        scope="controller",
        conf=(),
    )
    branch: str = _setting(
        Name("the name of a branch, such as bookworm or 14", check_branch),
        None,
        "The release line that packages are built for, such as V(bookworm) or V(14).",
        roles=ROLES,
        required=(DISPATCH, BULK, SETUP, BINDIST, INDEX, CONTROL, CHECKMACHINES, STATUS),
        scope="controller",
        conf=(),
    )
    system: str = _setting(
        System(),
        "ports",
        "The package system: V(ports) for the FreeBSD ports collection, V(debian) for Debian source packages, or another "
        "one that there is a driver for.",
        "It is recorded in C(portbuild.conf) of the architecture by the first setup; another one is refused from then on.",
        roles=(DISPATCH, SETUP, BINDIST, INDEX),
        scope="controller",
    )
    package: str = _setting(
        Name("a package name, name=version, or category/port", _request),
        None,
        "The package that is meant: its name, or C(name=version) for a certain version of it.",
        "Of a FreeBSD port it is the name without version, with the flavor's prefix, such as V(py311-foo). "
        "The whole name with version, C(category/port) and C(category/port@flavor) are understood too.",
        "Identity, logs and packages go by the name alone.",
        "Held and released it is whatever its version.",
        roles=(DISPATCH, CONTROL),
        required=(DISPATCH,),
        scope="controller",
        conf=(),
    )
    package_settings: dict[str, dict[str, t.Any]] = _setting(
        PackageSettings(),
        {},
        "Settings that differ for some packages. Keys are package names, or shell patterns such as V(lib*); values are "
        "dictionaries of settings, with or without the prefix C(portbuild_).",
        "All entries that match a package count, in the order in which they stand; the one with its exact name comes last.",
        "They take precedence over the variables of the same names.",
        scope="controller",
        conf=(),
    )
    machines: str = _setting(
        Text("a host pattern", r"[^\x00-\x1f\x7f]+"),
        "build_machines",
        "The host pattern that tells which build machines a playbook works on.",
        roles=(SETUP, BINDIST, CLEANUP, CHECKMACHINES, DOCTOR, STATUS),
        scope="controller",
        conf=(),
    )

    command: str = _setting(
        Choice("drain", "undrain", "hold", "unhold", "stop", "retry", "why"),
        None,
        "What is to be done. V(drain) takes a machine out of service, V(hold) a package; what is being built goes on. "
        "V(undrain) and V(unhold) bring them back. What fits a package does the same for a machine, and the other way round.",
        "V(stop) ends a bulk build when what runs has ended, V(retry) has it try a package again that failed, V(why) tells "
        "why a package waits, is built, was skipped or ignored.",
        roles=(CONTROL,),
        required=(CONTROL,),
        scope="controller",
        conf=(),
    )
    reason: str = _setting(
        Text(),
        None,
        "Why a machine is drained or a package is held: it is shown to whoever wonders.",
        roles=(CONTROL,),
        scope="controller",
        conf=(),
    )

    # the machine
    maxjobs: int = _setting(
        Int(0, 1000),
        1,
        "How many jobs the machine may run at once. With V(0) it gets none.",
        "The original's C(maxjobs).",
        roles=(DISPATCH, SETUP),
        scope="machine",
    )
    client_user: str = _setting(
        _ACCOUNT,
        None,
        "The account on the build machine that the controller logs in as. It owns what the controller copies.",
        "When it is not set, C(ansible_user) of the machine counts, else C(root).",
        "The original's C(client_user). Where C(ansible_user) is not set, it is what Ansible logs in as.",
        roles=(DISPATCH, SETUP, CLEANUP, CHECKMACHINES),
        scope="machine",
    )
    sudo_cmd: str = _setting(
        SudoCommand(),
        "",
        "How O(portbuild_client_user) becomes root on the build machine: empty if it is root, else V(sudo) or V(doas). "
        "It must never ask for a password.",
        "The original's C(sudo_cmd). Where C(ansible_become) is not set, it is how Ansible becomes root.",
        roles=(SETUP,),
        scope="machine",
    )
    scratchdir: str = _setting(
        Path(),
        "/var/portbuild",
        "The directory on the build machine under which bases, chroots and caches stand. It belongs to root.",
        "The original's C(scratchdir).",
        roles=ROLES,
        scope="machine",
    )
    machine_min_free: int = _setting(
        Size(),
        "1G",
        "A machine with less free space than this in O(portbuild_scratchdir) takes no more jobs, and a build that "
        "leaves less is ended without being blamed for it.",
        roles=(DISPATCH, SETUP),
        scope="machine",
    )
    chroot_backend: str = _setting(
        Choice("auto", *BACKENDS),
        "auto",
        "How chroots are made on the machine. V(auto) takes the best that works there, which is found out by trying.",
        "V(overlay) is for Linux, V(zfs) for FreeBSD.",
        roles=(DISPATCH, SETUP),
        scope="machine",
    )
    tmpfs_size: int = _setting(
        Size(),
        "0",
        "With the V(tmpfs) backend, how large a chroot may grow. V(0) leaves it to the kernel: half of the memory.",
        "The original's C(md_size).",
        scope="machine",
        per_package=True,
        conf=("tmpfs_size", "md_size"),
    )
    zfs_dataset: str = _setting(
        Text(
            "the name of a ZFS file system, such as zroot/portbuild", r"[A-Za-z0-9][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)*"
        ),
        None,
        "On FreeBSD, with the V(zfs) backend: the file system below which bases and chroots are made. It is made if its "
        "parent exists. By default it is C(portbuild), below the one that O(portbuild_scratchdir) is on. "
        "A change takes effect with the next setup.",
        roles=(SETUP,),
        scope="machine",
    )
    devfs_ruleset: int = _setting(
        Int(1, 65535),
        4,
        "On FreeBSD, the devfs(8) ruleset that says which devices a build sees. V(4) is the system's own for jails. "
        "A change takes effect with the next setup.",
        roles=(SETUP,),
        scope="machine",
    )
    mount_fdescfs: bool = _setting(
        Bool(),
        False,
        "On FreeBSD, whether builds have fdescfs(4) on C(/dev/fd). A change takes effect with the next setup.",
        roles=(SETUP,),
        scope="machine",
    )
    mount_procfs: bool = _setting(
        Bool(),
        False,
        "On FreeBSD, whether builds have procfs(4) on C(/proc). A change takes effect with the next setup.",
        roles=(SETUP,),
        scope="machine",
    )
    keep_max: int = _setting(
        Int(0, 10000),
        5,
        "How many chroots that were left for debugging a machine keeps. The oldest go first.",
        roles=(DISPATCH, SETUP, CLEANUP, CHECKMACHINES),
        scope="machine",
    )
    keep_days: int = _setting(
        Int(0, 3650),
        7,
        "For how many days a chroot that was left for debugging is kept.",
        roles=(DISPATCH, SETUP, CLEANUP, CHECKMACHINES),
        scope="machine",
    )

    cache_days: int = _setting(
        Int(0, 3650),
        30,
        "For how many days a file that no build uses stays in the caches of a machine.",
        roles=(CLEANUP, CHECKMACHINES),
        scope="machine",
    )
    cache_max: int = _setting(
        Size(),
        "20G",
        "How large the caches of a machine may be. A size such as V(20G), or bytes; V(0) sets no bound. "
        "What was not used for longest goes first.",
        roles=(CLEANUP, CHECKMACHINES),
        scope="machine",
    )
    log_days: int = _setting(
        Int(0, 3650),
        90,
        "For how many days the compressed logs of earlier builds are kept on the controller. V(0) keeps them for ever. "
        "The log of a package's last build always stays.",
        roles=(CLEANUP,),
        scope="controller",
    )
    workdir_days: int = _setting(
        Int(0, 3650),
        30,
        "For how many days work directories that were brought to the controller are kept. V(0) keeps them for ever.",
        roles=(CLEANUP,),
        scope="controller",
    )

    # limits
    timeout: int = _setting(
        Duration("1s", "30d"),
        "8h",
        "After this time a build is ended, with all its processes. A time such as V(8h) or V(90m), or seconds.",
        "The original's C(PDISPATCH_TIMEOUT).",
        scope="machine",
        per_package=True,
    )
    silence_timeout: int = _setting(
        Duration("1s", "30d"),
        "1h",
        "A build that writes nothing to its log for this time is ended. A time such as V(1h) or V(90m), or seconds.",
        "The original's C(CLIENT_BUILD_TIMEOUT).",
        scope="machine",
        per_package=True,
    )
    memory_limit: int = _setting(
        Size(),
        "0",
        "How much memory a build may use, all its processes together. A size such as V(4G), or bytes; V(0) sets no limit.",
        scope="machine",
        per_package=True,
    )
    disk_limit: int = _setting(
        Size(),
        "32G",
        "How much a build may write to its chroot. A size such as V(8G), or bytes; V(0) sets no limit.",
        scope="machine",
        per_package=True,
    )
    log_limit: int = _setting(
        Size("64K"),
        "128M",
        "A build whose log grows beyond this is ended. A size such as V(128M), or bytes.",
        per_package=True,
    )
    results_limit: int = _setting(
        Size("1M"),
        "16G",
        "How large the results of a build may be, all files together. A size such as V(16G), or bytes.",
        per_package=True,
    )
    processes_limit: int = _setting(
        Int(0, 1000000),
        8192,
        "How many processes and threads a build may have at once. V(0) sets no limit.",
        scope="machine",
        per_package=True,
    )
    min_free: int = _setting(
        Size(),
        "1G",
        "With less free space than this under O(portbuild_root) no new job is claimed.",
        "A size such as V(1G), or bytes.",
        scope="controller",
    )

    # how to build
    plistcheck: bool = _switch(
        "Whether errors in the packing list fail the build. They are reported in any case.",
        per_package=True,
        original="PLISTCHECK",
    )
    check: str = _setting(
        Choice("on", "off", "first"),
        "on",
        "Whether each package is installed into a clean chroot, removed, and what it left behind looked for. "
        "V(first) does so with the first binary package of a source package only.",
        per_package=True,
    )
    noclean: bool = _switch(
        "Whether the chroot is left on the machine for debugging. It is not used again and holds no slot; "
        "O(portbuild_keep_max) and O(portbuild_keep_days) bound how many are kept and for how long.",
        per_package=True,
        original="NOCLEAN",
    )
    no_restricted: bool = _switch(
        "Whether ports marked RESTRICTED are treated as if they were marked IGNORE: not built, and listed as duds.",
        original="NO_RESTRICTED",
    )
    nodummy: bool = _switch(
        "Accepted, and without effect: it was about stand-ins for packages that no longer exist.",
        original="NODUMMY",
    )
    want_distfiles: bool = _switch(
        "Whether the source archives are brought to the controller. A port's from a subdirectory comes as C(DIRECTORY%2fNAME).",
        per_package=True,
        original="WANT_DISTFILES",
    )
    fetch_original: bool = _switch(
        "Whether sources are fetched anew, from the upstream sites instead of caches and mirrors.",
        per_package=True,
        original="FETCH_ORIGINAL",
    )
    trybroken: bool = _switch(
        "Whether packages that are marked as broken are tried all the same.",
        per_package=True,
        original="TRYBROKEN",
    )
    keep_workdir: str = _setting(
        Choice("no", "failed", "always"),
        "no",
        "Whether the work directory is brought to the controller as a tarball: never, after a failure, or after every build.",
        per_package=True,
    )
    make_jobs: int = _setting(
        Int(0, 4096),
        0,
        "How many make jobs a build runs in parallel. V(0) means the machine's cores divided by O(portbuild_maxjobs).",
        scope="machine",
        per_package=True,
    )
    build_options: tuple[str, ...] = _setting(
        _OPTION_WORDS,
        [],
        "Options of the build, such as V(nocheck). On Debian they go into C(DEB_BUILD_OPTIONS).",
        per_package=True,
    )
    build_profiles: tuple[str, ...] = _setting(
        _OPTION_WORDS,
        [],
        "Build profiles, such as V(nodoc). On Debian they go into C(DEB_BUILD_PROFILES).",
        per_package=True,
    )
    build_indep: bool = _setting(
        Bool(),
        True,
        "Whether this architecture builds the packages that are the same on all of them (Debian's C(all)).",
        per_package=True,
    )
    build_user: str = _setting(
        _ACCOUNT,
        "builder",
        "The account in the chroot that builds. V(root) builds as root.",
        per_package=True,
    )
    sourcedir: str = _setting(
        Path(),
        None,
        "A directory on the controller with local source packages, C(.dsc) files or unpacked. What stands there "
        "is taken before the archive's.",
    )
    version_suffix: str = _setting(
        Text("letters, digits, +, ~ and . that can end a version", r"[A-Za-z0-9+~.]*", empty=True),
        "",
        "A suffix such as V(+b1) for the version of what is built, so that a rebuild upgrades the archive's package.",
        per_package=True,
    )
    http_proxy: str = _setting(
        _URL,
        None,
        "The proxy that machines and chroots fetch through.",
        "The original's C(http_proxy).",
        roles=(DISPATCH, SETUP, BINDIST),
        scope="machine",
    )
    compress_logs: bool = _setting(
        Bool(),
        False,
        "Whether the logs on the controller are compressed.",
    )

    # dispatching
    retry_interval: int = _setting(
        Duration("1s", "1h"),
        "15s",
        "While all machines are busy, how long to wait at most before trying again; a slot that is released is "
        "noticed at once. Also how long a machine on which an attempt failed for reasons of the infrastructure is passed "
        "over by the same dispatch, though no other has room; twice as long after each further failure, up to 10 minutes.",
        scope="controller",
    )
    claim_timeout: int = _setting(
        Duration("0s", "365d"),
        "0",
        "How long to wait for a free machine before giving up. V(0) waits as long as it takes.",
        scope="controller",
    )
    attempts: int = _setting(
        Int(1, 30),
        6,
        "How many times a package is tried in one dispatch, on whatever machines, before it is given up.",
        scope="controller",
    )
    infra_retries: int = _setting(
        Int(0, 20),
        3,
        "How many times a build that failed for a reason of infrastructure is repeated elsewhere, uncounted.",
        scope="controller",
    )
    reconnect_timeout: int = _setting(
        Duration("0s", "7d"),
        "10m",
        "How long a machine that cannot be reached while it builds is tried again before the package goes elsewhere.",
        roles=(DISPATCH, CHECKMACHINES),
        scope="machine",
    )
    lease_ttl: int = _setting(
        Duration("60s", "1d"),
        "10m",
        "An owner of a job that cannot be judged by its process is taken for dead when it has not renewed its lease "
        "for this time.",
        roles=(DISPATCH, CLEANUP, CHECKMACHINES),
        scope="controller",
    )
    poll_interval: int = _setting(
        Duration("1s", "60s"),
        "25s",
        "How long one request waits on the machine for the build to end before it is asked again.",
        scope="machine",
    )

    machine: str = _setting(
        Name("the name of a build machine", check_machine),
        None,
        "The build machine that is meant: a dispatch goes there or nowhere, drain and undrain are about it.",
        roles=(DISPATCH, CONTROL),
        scope="controller",
        conf=(),
    )
    make_share: int = _setting(
        Int(1, 1000),
        1,
        "How many slots' worth of make jobs the build gets, where O(portbuild_make_jobs) does not say how many.",
        scope="controller",
        conf=(),
    )

    # bulk
    targets: tuple[str, ...] = _setting(
        _TARGETS,
        [],
        "What to build, with all that it needs: V(all), names of packages, C(name=version), C(category/port), "
        "C(category/port@flavor), C(CATEGORY-all) for a whole category, and C(@FILE) for a file on the controller with one "
        "of these a line.",
        "On Debian V(all) are the local source packages in O(portbuild_sourcedir), and without that the whole archive; any "
        "other name is that of a local source package, else of one of the archive.",
        roles=(BULK,),
        required=(BULK,),
        scope="controller",
        conf=(),
    )
    rebuild: str = _setting(
        Choice("changed", "missing", "targets", "all"),
        "changed",
        "What is built anew though it is there: what has C(changed), or needs something that has; only what is V(missing) or "
        "damaged; the V(targets) themselves too; or V(all).",
        roles=(BULK,),
        scope="controller",
    )
    cascade: str = _setting(
        Choice("content", "always"),
        "content",
        "Whether a package is built anew when one that it needs has been: only if that came out with another V(content), or "
        "V(always).",
        roles=(BULK,),
        scope="controller",
    )
    retry_alone: bool = _setting(
        Bool(),
        False,
        "Whether packages that failed are tried once more at the end, each alone on its machine.",
        roles=(BULK,),
        scope="controller",
    )
    make_slots: int = _setting(
        Int(1, 1000),
        1,
        "How many slots' worth of make jobs a package on the critical path may get while slots would idle.",
        roles=(BULK,),
        scope="controller",
    )
    slots: int = _setting(
        Int(1, 1000),
        1,
        "How many slots of a machine the package takes in a bulk build; a whole machine if it has fewer. For everybody "
        "else it is one job.",
        roles=(BULK,),
        per_package=True,
    )
    alone: bool = _setting(
        Bool(),
        False,
        "Whether the package has a machine to itself in a bulk build.",
        roles=(BULK,),
        per_package=True,
    )
    needs_tags: tuple[str, ...] = _setting(
        _TAGS,
        [],
        "Tags (O(portbuild_tags)) that a machine must have to get the package in a bulk build.",
        roles=(BULK,),
        per_package=True,
    )
    not_with: tuple[str, ...] = _setting(
        _TARGETS,
        [],
        "Names of packages that must not be built, wherever, while this one is in a bulk build.",
        roles=(BULK,),
        per_package=True,
    )
    tags: tuple[str, ...] = _setting(
        _TAGS,
        [],
        "Tags of the machine, words of your own, for O(portbuild_needs_tags) of packages.",
        roles=(BULK,),
        scope="machine",
    )
    progress_interval: int = _setting(
        Duration("1s", "1d"),
        "30s",
        "How often a bulk build says how far it is.",
        roles=(BULK,),
        scope="controller",
    )
    plan_lines: int = _setting(
        Int(0, 1000000),
        100,
        "How many packages a plan names at most, beside the counts.",
        roles=(BULK,),
        scope="controller",
    )

    # checking machines
    interval: int = _setting(
        Duration("0s", "1d"),
        "0",
        "How long checkmachines waits between two rounds. With V(0) it makes one round and ends, which is what a timer wants; "
        "else it goes on until it is stopped.",
        roles=(CHECKMACHINES,),
        scope="controller",
    )
    check_timeout: int = _setting(
        Duration("1s", "10m"),
        "30s",
        "How long a machine may take to answer a check. One that does not is taken offline.",
        roles=(CHECKMACHINES, DOCTOR),
        scope="machine",
    )
    max_clock_offset: int = _setting(
        Duration("1s", "1d"),
        "60s",
        "How far the clock of a machine may be off the controller's before the machine counts as unfit: beyond it make "
        "believes that files come from the future.",
        roles=(CHECKMACHINES, DOCTOR),
        scope="machine",
    )
    ask_machines: bool = _setting(
        Bool(),
        True,
        "Whether status asks each machine what it is doing. Otherwise it tells what the controller knows, at once.",
        roles=(STATUS,),
        scope="controller",
        conf=(),
    )
    canary: str = _setting(
        Name("a package name, name=version, or category/port", _request),
        None,
        "A small package that is known to build. A machine that checkmachines brings back must build it first.",
        roles=(CHECKMACHINES,),
        scope="controller",
    )

    # mail
    mail_host: str = _setting(
        _HOST,
        None,
        "The mail server. Without one no mail is sent.",
        scope="controller",
        roles=_TELLING,
    )
    mail_port: int = _setting(
        Int(1, 65535),
        25,
        "The port of the mail server.",
        scope="controller",
        roles=_TELLING,
    )
    mail_tls: str = _setting(
        Choice("none", "starttls"),
        "none",
        "How the connection to the mail server is encrypted.",
        scope="controller",
        roles=_TELLING,
    )
    mail_username: str = _setting(
        Text("one line of text", r"[^\x00-\x1f\x7f]+"),
        None,
        "The account on the mail server, where it wants one.",
        scope="controller",
        conf=(),
        roles=_TELLING,
    )
    mail_password: str = _setting(
        Text("one line of text", r"[^\x00-\x1f\x7f]+"),
        None,
        "The password of O(portbuild_mail_username).",
        scope="controller",
        conf=(),
        secret=True,
        roles=_TELLING,
    )
    mail_from: str = _setting(
        _ADDRESS,
        None,
        "The sender of the mail. Without one it is C(portbuild) at the host name of the controller.",
        scope="controller",
        roles=_TELLING,
    )
    mail_to: tuple[str, ...] = _setting(
        _ADDRESSES,
        [],
        "Who gets the mail about every event that O(portbuild_mail_events) does not name.",
        "The original's C(mailto).",
        conf=("mail_to", "mailto"),
        roles=_TELLING,
    )
    mail_events: dict[str, tuple[str, ...]] = _setting(
        Recipients(_ADDRESSES),
        {},
        "By event, the list of addresses that get its mail: V(failure) of a package that is not marked as broken, "
        "V(fetch_problem) for something strange while results come home, V(plist) for errors in a packing list, "
        "V(broken_built) for a package marked as broken that builds, V(builds_again) for one that had failed before, "
        "V(machine_lost) for a machine that C(checkmachines) takes out of the queue, V(machine_back) for one that is back, "
        "V(bulk_ended) for a bulk build that has come to its end.",
        "An empty list switches the event off.",
        conf=(),
        roles=_TELLING,
    )
    mail_maintainers: bool = _setting(
        Bool(),
        False,
        "Whether the maintainer of a package gets the mail about it too. Failures of infrastructure never go there.",
        roles=_TELLING,
    )

    mail_repeat: int = _setting(
        Duration("0s", "365d"),
        "1d",
        "For how long a problem of a package is not told again when its cause is the same: the same class of failure and "
        "reason; for strange results, the same machine and the same words but for numbers. The next message says how often it has come meanwhile.",
        "A package that was built in between has a new problem. With V(0) each is told.",
        roles=_TELLING,
    )
    mail_templates: str = _setting(
        Path(),
        None,
        "A directory on the controller with templates (Jinja2) of messages, each C(EVENT.j2), that are used in place of "
        "those that are shipped. The first line is the subject.",
        roles=_TELLING,
    )
    hook: str = _setting(
        Path(),
        None,
        "An executable on the controller that is run for each event, whether anybody gets mail about it or not. "
        "Its argument is the name of the event, its standard input the event as one JSON object.",
        "What it ends with is no failure of anything, but a warning.",
        roles=_TELLING,
    )
    hook_timeout: int = _setting(
        Duration("1s", "1h"),
        "30s",
        "How long O(portbuild_hook) may take before it is killed. A dispatch holds its slot meanwhile.",
        roles=_TELLING,
    )
    hook_tasks: str = _setting(
        Path(),
        None,
        "A file of tasks on the controller that is included for each event, with the event in the variable "
        "C(portbuild_event). The tasks run on the controller; when one of them fails, nothing else does.",
        roles=_TELLING,
    )

    # setup
    create_client_user: bool = _setting(
        Bool(),
        False,
        "Whether setup creates O(portbuild_client_user) on the machine.",
        roles=(SETUP,),
        scope="machine",
        conf=(),
    )
    authorized_key: str = _setting(
        Text("a public key as it stands in authorized_keys", r"[^\x00-\x1f\x7f]+"),
        None,
        "The public ssh key that setup lets log in as O(portbuild_client_user). Without one, none is added.",
        roles=(SETUP,),
        scope="machine",
        conf=(),
    )
    sudo_rule: bool = _setting(
        Bool(),
        False,
        "Whether setup writes the rule that lets O(portbuild_client_user) become root with O(portbuild_sudo_cmd) "
        "without a password.",
        roles=(SETUP,),
        scope="machine",
        conf=(),
    )
    bootstrap_user: str = _setting(
        _ACCOUNT,
        "root",
        "The account that setup logs in as while O(portbuild_client_user) is still to be created.",
        roles=(SETUP,),
        scope="machine",
        conf=(),
    )

    # tree
    tree: str = _setting(
        _TREE,
        None,
        "Where the tree of recipes comes from, for a package system that builds from one: a directory or a tarball on "
        "the controller, or git, by the path of a checkout on the controller or by the address of a repository.",
        "Of a checkout only what is committed is taken. Of a directory C(distfiles), C(packages) and work directories "
        "are left out.",
        "Without it the tree stays as it is. It is made anew only when its revision, or what stands there, has changed.",
        roles=(SETUP,),
        conf=(),
    )
    tree_revision: str = _setting(
        _REVISION,
        None,
        "The branch, tag or commit to take from git. Without it it is what the checkout is at, or the repository's "
        "default branch.",
        roles=(SETUP,),
        conf=(),
    )

    # bindist
    bindist_machine: str = _setting(
        Name("the name of a build machine", check_machine),
        None,
        "The build machine that makes the base. Without one it is the first that is fit.",
        roles=(BINDIST,),
        scope="controller",
        conf=(),
    )
    bindist_mirror: str = _setting(
        _URL,
        None,
        "The mirror that the base is made from. On Debian, an archive; without one, the lists and keyrings of Debian's own "
        "archive that the machine is configured with are used.",
        "On FreeBSD, the address to which C(/releases/MACHINE/ARCH/RELEASE/base.txz) is appended; without one it is "
        "V(https://download.freebsd.org).",
        roles=(BINDIST,),
        conf=(),
    )
    bindist_release: str = _setting(
        Text("the name of a FreeBSD release, such as 14.3-RELEASE", r"[0-9]+\.[0-9]+(?:-[A-Z]+[0-9]*)?(?:-p[0-9]+)?"),
        None,
        "The FreeBSD release of the base. Without one it is the release that the machine runs.",
        roles=(BINDIST,),
        conf=(),
    )
    bindist_tarball: str = _setting(
        Path(),
        None,
        "A tarball of a base system to make the base of, on the controller or, if there is none of that name, on the "
        "machine. The account to build as is added if it has none of that name; nothing is fetched.",
        roles=(BINDIST,),
        conf=(),
    )
    bindist_suite: str = _setting(
        Text("the name of a suite, such as bookworm", r"[A-Za-z0-9][A-Za-z0-9._/+-]*"),
        None,
        "The Debian suite of the base. Without one it is O(portbuild_branch).",
        roles=(BINDIST,),
        conf=(),
    )
    bindist_components: tuple[str, ...] = _setting(
        Words("names of components, such as main", r"[a-z0-9][a-z0-9./-]*"),
        ["main"],
        "The components of O(portbuild_bindist_mirror).",
        roles=(BINDIST,),
        conf=(),
    )
    bindist_variant: str = _setting(
        Choice("buildd", "minbase"),
        "buildd",
        "The set of packages in the base: V(buildd) holds what every build needs, V(minbase) does not.",
        roles=(BINDIST,),
        conf=(),
    )
    bindist_extra_packages: tuple[str, ...] = _setting(
        _DEB_NAMES,
        [],
        "More packages in the base, on top of O(portbuild_bindist_variant).",
        roles=(BINDIST,),
        conf=(),
    )
    bindist_rebuild: bool = _setting(
        Bool(),
        False,
        "Whether a base is made anew though the branch has one.",
        roles=(BINDIST,),
        scope="controller",
        conf=(),
    )

    # index
    index_file: str = _setting(
        Path(),
        None,
        "An INDEX on the controller that is to be the branch's. Without one it is made from the tree, on a build machine.",
        roles=(INDEX,),
        scope="controller",
        conf=(),
    )
    index_rebuild: bool = _setting(
        Bool(),
        False,
        "Whether the INDEX is made anew though the branch has one that was made from the same tree, base and settings.",
        roles=(INDEX,),
        scope="controller",
        conf=(),
    )
    index_duds: bool = _setting(
        Bool(),
        True,
        "Whether the list of duds, the ports that are marked BROKEN, IGNORE and so on, is made along with the INDEX. "
        "It takes as long again, and replaces the branch's list.",
        roles=(INDEX,),
    )

    @property
    def package_name(self) -> str:
        """The name in O(portbuild_package), without a version."""
        return self.package.partition("=")[0]

    @property
    def package_version(self) -> str:
        """The version in O(portbuild_package), or empty."""
        return self.package.partition("=")[2]


def _table() -> dict[str, Setting]:
    table = {}
    for field in dataclasses.fields(Settings):
        about = dict(field.metadata)
        if DISPATCH in about["roles"] and BULK not in about["roles"] and field.name not in _ONLY_ONE:
            about["roles"] = (*about["roles"], BULK)
        if about["conf_names"] is None:
            about["conf_names"] = (field.name,)
        table[PREFIX + field.name] = Setting(name=PREFIX + field.name, field=field.name, **about)
    return table


SETTINGS: dict[str, Setting] = _table()
PER_PACKAGE: tuple[str, ...] = tuple(setting.field for setting in SETTINGS.values() if setting.per_package)
CONF_NAMES: dict[str, Setting] = {name: setting for setting in SETTINGS.values() for name in setting.conf_names}

# Of the original's own files: names, paths and hosts that others refer to, and what is decided elsewhere here.
ORIGINAL_NAMES = frozenset(
    (
        "arch",
        "branches",
        "ccache_dir",
        "ccache_dir_nfs",
        "disconnected",
        "distfiledir",
        "domain",
        "ftpsite",
        "host",
        "master",
        "md_fstype",
        "packagedir",
        "pb",
        "pkg_sufx",
        "rsync_gzip",
        "scratchpart",
        "squid_dir",
        "use_jail",
        "use_md_swap",
        "use_zfs",
        "user",
        "zfs_fs",
    )
)


# -- resolving -------------------------------------------------------------------------------------------------------


def resolve(
    variables: c.Mapping[str, t.Any],
    conf: ArchConfig | None,
    machine: str | None = None,
    package: str | None = None,
    machine_variables: c.Mapping[str, t.Any] | None = None,
) -> Settings:
    """Return the settings that hold, for the machine and the package where they are given.

    C(variables) are templated Ansible variables; others than portbuild_ ones are ignored, but for C(ansible_user).
    C(machine_variables) are the machine's, where they are not the same: only the settings that a machine may have of
    its own are taken from there. Raises SettingError, which names every value that cannot be used, and SystemMismatch.
    """
    files = _conf_files(conf, machine)
    own = variables if machine_variables is None else machine_variables
    problems: list[str] = []
    found: dict[str, t.Any] = {}
    for name, setting in SETTINGS.items():
        variable = own.get(name) if setting.scope == "machine" else None
        try:
            found[setting.field] = _resolve_one(setting, variables.get(name) if variable is None else variable, files)
        except SettingError as error:
            problems.append(str(error))
    package = package or str(found.get("package") or "").partition("=")[0]
    if package:
        _resolve_for_package(package, found, problems)
    if problems:
        raise SettingError(" ".join(problems), details={"problems": problems})
    if found["client_user"] == "":
        found["client_user"] = str(own.get("ansible_user") or DEFAULT_USER)
    _check_recorded_system(found["system"], files)
    return Settings(**found)


def for_package(settings: Settings, package: str) -> Settings:
    """Return the settings that hold for the package, or raise SettingError."""
    if not settings.package_settings:
        return settings
    found: dict[str, t.Any] = {"package_settings": settings.package_settings}
    problems: list[str] = []
    _resolve_for_package(package, found, problems)
    if problems:
        raise SettingError(" ".join(problems), details={"problems": problems})
    return dataclasses.replace(settings, **found)


def given_client_user(
    variables: c.Mapping[str, t.Any],
    conf: ArchConfig | None,
    machine: str,
    machine_variables: c.Mapping[str, t.Any],
) -> str:
    """Return portbuild_client_user of the machine as it is set somewhere, empty where only its default holds."""
    setting = SETTINGS[PREFIX + "client_user"]
    own = machine_variables.get(setting.name)
    return str(_resolve_one(setting, variables.get(setting.name) if own is None else own, _conf_files(conf, machine)))


def _conf_files(conf: ArchConfig | None, machine: str | None) -> tuple[Conf, ...]:
    """Return the files that count, strongest first."""
    if conf is None:
        return ()
    return (conf.conf,) if machine is None else (conf.for_machine(machine), conf.conf)


def _check_recorded_system(system: str, files: tuple[Conf, ...]) -> None:
    recorded = files[-1].values.get("system") if files else None
    if recorded is not None and recorded.text:
        check_system(system, recorded)


def _resolve_one(setting: Setting, variable: t.Any, files: tuple[Conf, ...]) -> t.Any:
    if _is_given(setting.kind, variable):
        return _parse(setting, variable, "")
    for file in files if setting.scope == "machine" else files[-1:]:
        for name in setting.conf_names:
            if name in file.broken:
                raise SettingError(f"{setting.name} could not be read: {file.broken[name]}")
            value = file.values.get(name)
            if value is not None and _is_given(setting.kind, value.text):
                return _parse(setting, value.text, f" ({name}= in {value.where})")
    return setting.default


def _is_given(kind: Kind, value: t.Any) -> bool:
    return value is not None and (kind.empty or not isinstance(value, str) or bool(value.strip()))


def _parse(setting: Setting, value: t.Any, origin: str) -> t.Any:
    try:
        return setting.kind.parse(value)
    except ValueError as error:
        shown = "given" if setting.secret else f"{value!r:.80}"
        reason = f" {error}" if str(error) else ""
        raise SettingError(f"{setting.name} is {shown}{origin}; expected {setting.kind.expected}.{reason}") from None


def _resolve_for_package(package: str, found: dict[str, t.Any], problems: list[str]) -> None:
    """Put the settings of the package over the others."""
    entries: dict[str, dict[str, t.Any]] = found.get("package_settings") or {}
    if not entries:
        return
    matching = [name for name in entries if name != package and fnmatch.fnmatchcase(package, name)]
    for name in (*matching, *([package] if package in entries else [])):
        for field, value in entries[name].items():
            setting = SETTINGS[PREFIX + field]
            if not _is_given(setting.kind, value):
                continue
            try:
                found[field] = _parse(setting, value, f" (for {name} in {PACKAGE_SETTINGS})")
            except SettingError as error:
                problems.append(str(error))


# -- what nobody knows -----------------------------------------------------------------------------------------------


def unknown(names: c.Iterable[str]) -> list[Problem]:
    """Return a problem for each portbuild_ variable that no setting is called, with the nearest that is."""
    strangers = sorted(name for name in names if name.startswith(PREFIX) and name not in (*SETTINGS, EVENT))
    return [Problem("", _stranger(name), (name,)) for name in strangers]


def refuse_unknown(names: c.Iterable[str]) -> None:
    """Raise SettingError if there are such variables."""
    strangers = unknown(names)
    if strangers:
        raise SettingError(" ".join(stranger.message for stranger in strangers))


def _stranger(name: str) -> str:
    near = _nearest(name.removeprefix(PREFIX), [setting.field for setting in SETTINGS.values()])
    return f"There is no setting {name}." + (f" Did you mean {PREFIX}{near}?" if near else "")


def unknown_in_conf(conf: Conf, *, of_machine: bool = False) -> list[Problem]:
    """Return a problem, at most one per file, for assignments that mean nothing here.

    They are no errors: original files hold settings that we do not know, and variables of their own.
    """
    said: dict[str, str] = {}
    for name in conf.values:
        setting = CONF_NAMES.get(name)
        if setting is None and name not in ORIGINAL_NAMES and name not in conf.used:
            near = _nearest(name, CONF_NAMES)
            said[name] = f"{name} (did you mean {near}?)" if near else name
        elif setting is not None and of_machine and setting.scope != "machine":
            said[name] = f"{name} (a machine has none of its own)"
    if not said:
        return []
    file = conf.values[next(iter(said))].where.rpartition(":")[0]
    return [Problem(file, f"Without effect: {', '.join(said.values())}.", tuple(said))]


def _nearest(name: str, known: c.Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), "")
