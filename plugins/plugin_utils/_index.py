# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The INDEX of a ports tree: a line of 13 fields for each package, with the names of all that it needs.

C(IndexFile) finds single entries in the file as it lies there, C(read_index) reads all of it. Either takes the real
world as it is: what is wrong with a line is a warning with its number, and costs at most that line.
"""

from __future__ import annotations

import collections.abc as c
import difflib
import mmap
import os
import re
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._names import BadName, check_package

FIELDS = 13
MAX_WARNINGS = 1000  # that are kept; the rest is counted
_SHOWN = 5  # names in one message

# category/port[@flavor]; the category of a local port may be anything that a directory can be called.
ORIGIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._+-]*/[A-Za-z0-9_][A-Za-z0-9._+-]*)(?:@([A-Za-z0-9_]+))?")
PKG_ORIGIN = "ports-mgmt/pkg"


class NoIndex(PortbuildError):
    """The branch has no INDEX that can be read."""


class BadLine(PortbuildError):
    """A line that describes no package."""


class Problem(t.NamedTuple):
    """What is wrong with a line; the number is 0 where it is not known."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


class Entry(t.NamedTuple):
    """A package. C(build) to C(fetch) are package names, with all that those need in turn."""

    name: str
    path: str
    prefix: str
    comment: str
    descr: str
    maintainer: str
    categories: str
    build: tuple[str, ...]
    run: tuple[str, ...]
    www: str
    extract: tuple[str, ...]
    patch: tuple[str, ...]
    fetch: tuple[str, ...]
    line: int = 0

    @property
    def base(self) -> str:
        """The name without the version."""
        return self.name.rpartition("-")[0]

    @property
    def version(self) -> str:
        """The version."""
        return self.name.rpartition("-")[2]

    @property
    def origin(self) -> str:
        """The port: category/port, without flavor."""
        return "/".join(self.path.rsplit("/", 2)[1:]).partition("@")[0]

    @property
    def flavor(self) -> str:
        """The flavor, where the path tells it."""
        return self.path.rpartition("/")[2].partition("@")[2]

    @property
    def dependencies(self) -> tuple[str, ...]:
        """All packages that must be there to fetch, to build and to check this one, each once."""
        return tuple(dict.fromkeys((*self.fetch, *self.extract, *self.patch, *self.build, *self.run)))


def split_name(name: str) -> tuple[str, str]:
    """Return name and version of a PKGNAME, or raise BadName: a version has a digit first and no dash."""
    base, dash, version = check_package(name).rpartition("-")
    if not dash or not base or not re.match(r"[0-9A-Za-z]", version):
        raise BadName(f"{name!r:.100} is no package name with a version, such as foo-1.2_1.")
    return base, version


# -- one line ----------------------------------------------------------------------------------------------------------


def parse_line(
    data: bytes,
    number: int = 0,
    *,
    split: c.Callable[[str], tuple[str, ...]] = lambda text: tuple(text.split()),
) -> tuple[Entry, str]:
    """Return the entry of a line, and what is odd about it (empty when nothing is); raise BadLine if it is none."""
    odd = ""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text, odd = data.decode("utf-8", "replace"), "it is not UTF-8"
    text = text.removesuffix("\r")
    fields = text.split("|")
    count = len(fields)
    if count > FIELDS:
        # A bar can only be in the comment: all that follows it has a form of its own.
        surplus = count - FIELDS
        fields[3 : 4 + surplus] = ["|".join(fields[3 : 4 + surplus])]
        odd = f"it has {count} fields instead of {FIELDS}; taken for bars in the comment"
    elif count < FIELDS:
        raise BadLine(f"It has {count} fields instead of {FIELDS}.")
    name, path = fields[0].strip(), fields[1].strip().rstrip("/")
    try:
        split_name(name)
    except BadName as error:
        raise BadLine(error.message) from None
    if not path.startswith("/") or not ORIGIN.fullmatch("/".join(path.rsplit("/", 2)[1:])):
        raise BadLine(f"{path!r:.100} is no directory of a port, such as /usr/ports/devel/foo.")
    entry = Entry(
        name,
        path,
        fields[2],
        fields[3],
        fields[4],
        fields[5].strip(),
        fields[6],
        split(fields[7]),
        split(fields[8]),
        fields[9],
        split(fields[10]),
        split(fields[11]),
        split(fields[12]),
        number,
    )
    return entry, odd


# -- all of it ---------------------------------------------------------------------------------------------------------


class Index:
    """A whole INDEX: the entries in their order, and by name and by name without version, the first of each."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.by_name: dict[str, Entry] = {}
        self.by_base: dict[str, Entry] = {}
        self.problems: list[Problem] = []
        self.problem_count = 0

    def complain(self, line: int, message: str) -> None:
        """Note a problem."""
        self.problem_count += 1
        if len(self.problems) < MAX_WARNINGS:
            self.problems.append(Problem(line, message))


class _Splitter:
    """Splits lists of names. The same lists and the same names come again and again: each is held once."""

    def __init__(self) -> None:
        self._lists: dict[str, tuple[str, ...]] = {"": ()}
        self._names: dict[str, str] = {}

    @property
    def names(self) -> c.Set[str]:
        """All names that there were."""
        return self._names.keys()

    def __call__(self, text: str) -> tuple[str, ...]:
        found = self._lists.get(text)
        if found is None:
            names = text.split()
            found = self._lists[text] = tuple(map(self._names.setdefault, names, names))
        return found


def read_index(path: str) -> Index:
    """Return the whole INDEX, or raise NoIndex."""
    try:
        with open(path, "rb") as stream:
            return parse_index(stream)
    except OSError as error:
        raise _no_index(path, error) from None


def parse_index(lines: c.Iterable[bytes]) -> Index:
    """Return the whole INDEX; never raises for what stands in it."""
    index = Index()
    split = _Splitter()
    for number, line in enumerate(lines, start=1):
        line = line.rstrip(b"\n")
        if not line.strip():
            continue
        try:
            entry, odd = parse_line(line, number, split=split)
        except BadLine as error:
            index.complain(number, f"{error.message} It is left out.")
            continue
        if odd:
            index.complain(number, f"{entry.name}: {odd}.")
        _add(index, entry)
    _check_dependencies(index, split.names - index.by_name.keys())
    return index


def _add(index: Index, entry: Entry) -> None:
    same = index.by_name.get(entry.name)
    if same is not None:
        index.complain(entry.line, f"{entry.name} stands in line {same.line} already; that one counts.")
        return
    index.entries.append(entry)
    index.by_name[entry.name] = entry
    other = index.by_base.setdefault(entry.base, entry)
    if other is not entry:
        index.complain(
            entry.line, f"{entry.name} and {other.name} in line {other.line} are one package; that one counts."
        )


def _check_dependencies(index: Index, unknown: c.Set[str]) -> None:
    for entry in index.entries if unknown else ():
        missing = [name for name in entry.dependencies if name in unknown]
        if missing:
            index.complain(entry.line, f"{entry.name} needs {some(missing)}, which is not in the INDEX.")


def some(names: c.Sequence[str]) -> str:
    """Return the names, or the first of them and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# -- one entry ---------------------------------------------------------------------------------------------------------


class IndexFile:
    """Finds single entries in an INDEX without reading all of it: a dispatch needs two of tens of thousands."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []
        try:
            with open(path, "rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                self._data: mmap.mmap | bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            raise _no_index(path, error) from None

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go."""
        if isinstance(self._data, mmap.mmap):
            self._data.close()

    def by_base(self, base: str) -> Entry | None:
        """Return the first entry of the package, whatever its version."""
        found = self._beginning_with(f"{base}-".encode(), lambda entry: entry.base == base)
        return next(found, None)

    def by_name(self, name: str) -> Entry | None:
        """Return the first entry of this name and version."""
        return next(self._beginning_with(f"{name}|".encode(), lambda entry: entry.name == name), None)

    def by_origin(self, origin: str) -> list[Entry]:
        """Return the entries of a port: of all its flavors, where it has some."""
        found: dict[str, Entry] = {}
        for mark in (b"|", b"@", b"/|"):
            for entry in self._containing(f"/{origin}".encode() + mark, lambda entry: entry.origin == origin):
                found.setdefault(entry.name, entry)
        return list(found.values())

    def nearest(self, text: str, count: int = 3) -> list[str]:
        """Return the names (or ports, where the text has a slash) that look most like the text."""
        pattern = rb"^[^|\n]+\|[^|\n]*/([^/|\n]+/[^/|\n]+)\|" if "/" in text else rb"^([^|\n]+)-[^-|\n]*\|"
        names = {name.decode("utf-8", "replace") for name in re.findall(pattern, self._data, re.MULTILINE)}
        return difflib.get_close_matches(text, sorted(names), count)

    def _beginning_with(self, start: bytes, fits: c.Callable[[Entry], bool]) -> c.Iterator[Entry]:
        position = 0 if self._data[: len(start)] == start else self._after(start, 0)
        while position >= 0:
            yield from self._at(position, fits)
            position = self._after(start, position)

    def _after(self, start: bytes, position: int) -> int:
        found = self._data.find(b"\n" + start, position)
        return found + 1 if found >= 0 else -1

    def _containing(self, text: bytes, fits: c.Callable[[Entry], bool]) -> c.Iterator[Entry]:
        position = self._data.find(text)
        while position >= 0:
            begin = self._data.rfind(b"\n", 0, position) + 1
            if self._data.find(b"|", begin, position + 1) > begin:  # not the name itself
                yield from self._at(begin, fits)
            position = self._data.find(text, position + 1)

    def _at(self, begin: int, fits: c.Callable[[Entry], bool]) -> c.Iterator[Entry]:
        end = self._data.find(b"\n", begin)
        try:
            entry, odd = parse_line(self._data[begin : end if end >= 0 else len(self._data)])
        except BadLine as error:
            self.problems.append(Problem(0, error.message))
            return
        if fits(entry):
            if odd:
                self.problems.append(Problem(self._line(begin), f"{entry.name}: {odd}."))
            yield entry

    def _line(self, position: int) -> int:
        """Return the number of the line that begins at the position; only counted when there is something to say."""
        return self._data[:position].count(b"\n") + 1


def _no_index(path: str, error: OSError) -> NoIndex:
    return NoIndex(
        f"The INDEX {path} cannot be read: {error.strerror}.",
        remedy="Make it with the playbook portbuild.cluster.index.",
    )
