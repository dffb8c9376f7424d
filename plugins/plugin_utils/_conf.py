# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The original's configuration files: portbuild.conf, portbuild.<machine> and mlist.

The original sourced the first two into a shell. Here they are read, never run: assignments with quotes, references
to earlier variables, comments and continued lines mean what they mean to sh(1); a line with anything else is skipped
and becomes a problem with its place, and the rest of the file counts.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import os
import re
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import write_atomic
from ..module_utils._names import BadName, check_arch, check_machine

MAX_FILE = 1 << 16  # bytes of a file; the largest ever used was well below a tenth of it
MAX_VALUE = 1 << 14  # characters of a value: references to references grow without bound otherwise
MAX_DEPTH = 16  # of defaults within defaults
CONF = "portbuild.conf"
PREFIX = "portbuild."
MLIST = "mlist"


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in a configuration that is not as it should be, and where.

    C(names) are the variables that the skipped text would have assigned: whoever needs one of them must not go on
    with an earlier value or a default as if nothing had happened.
    """

    where: str
    message: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


@dataclasses.dataclass(frozen=True)
class Value:
    """The value of a variable, and where it was assigned."""

    text: str
    where: str


@dataclasses.dataclass(frozen=True)
class Conf:
    """What one file says.

    C(broken) holds, by name, what kept the last assignment of a variable from being read.
    """

    values: c.Mapping[str, Value]
    broken: c.Mapping[str, Problem]
    problems: tuple[Problem, ...]
    used: frozenset[str] = frozenset()  # variables that others refer to: an unknown one of them is no typing error

    @property
    def texts(self) -> dict[str, str]:
        """The variables as a shell would have them."""
        return {name: value.text for name, value in self.values.items()}


NOTHING = Conf({}, {}, ())


class UnreadableConf(PortbuildError):
    """A configuration file that exists and cannot be read."""


class SystemMismatch(PortbuildError):
    """An arch directory that serves another package system."""


class _Bad(Exception):
    """The line cannot be read; the message says why."""


_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DECLARATION = re.compile(r"(?:export|readonly)(?=[ \t\n;]|\\\n|$)")
_BLANKS = re.compile(r"(?:[ \t]|\\\n)+")
_PLAIN = re.compile(r"[^ \t\n;'\"$`\\&|<>()}\x00-\x1f\x7f]+")
_RAW_WORD = re.compile(r"[^ \t\n;&|<>()]+|.")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_OPERATOR = re.compile(r":?[-+]")
_ASSIGNED = re.compile(r"(?<![\w$.{/-])([A-Za-z_][A-Za-z0-9_]*)=")
_HERE_DOCUMENT = re.compile(r"<<-?[ \t]*(['\"\\]?)(\w+)\1")
_COMMAND_START = re.compile(r"[;\n]|&&|\|\|?|\b(?:then|do|else|elif)\b")
_COMMENT = re.compile(r"(?:^|(?<=[ \t;]))#.*")
_BLOCKS = {"if": "fi", "for": "done", "while": "done", "until": "done", "case": "esac", "{": "}"}


class _Parser:
    """Reads assignments one logical line at a time: a line counts as a whole or not at all."""

    def __init__(self, text: str, where: str, variables: c.Mapping[str, str]) -> None:
        self.text = text
        self.where = where
        self.variables = dict(variables)
        self.position = 0
        self.values: dict[str, Value] = {}
        self.broken: dict[str, Problem] = {}
        self.problems: list[Problem] = []
        self.used: set[str] = set()
        self._pending: dict[str, str] = {}
        self._open_ended = False  # something that never ends was met: ends of later ones are not searched for
        self._counted = (0, 1)  # a position and the number of its line

    def parse(self) -> Conf:
        while self.position < len(self.text):
            self._logical_line()
        return Conf(self.values, self.broken, tuple(self.problems), frozenset(self.used))

    def _logical_line(self) -> None:
        start = self.position
        self._pending = {}
        try:
            self._commands()
        except _Bad as bad:
            where = self._place(start)
            end, self.position = self._after_skipped(start)
            names = dict.fromkeys(_ASSIGNED.findall(self.text[start:end]))
            problem = Problem(where, f"{bad} The line is skipped.", tuple(names))
            self.problems.append(problem)
            self.broken.update(dict.fromkeys(names, problem))
            return
        where = self._place(start) if self._pending else ""
        for name, text in self._pending.items():
            self.variables[name] = text
            self.values[name] = Value(text, where)
            self.broken.pop(name, None)

    def _place(self, position: int) -> str:
        """Return file:line of the first thing at or after the position that is not blank."""
        while position < len(self.text) and self.text[position] in " \t":
            position += 1
        before, line = self._counted
        line += self.text.count("\n", before, position)
        self._counted = (position, line)
        return f"{self.where}:{line}"

    # -- grammar -----------------------------------------------------------------------------------------------

    def _commands(self) -> None:
        while True:
            self._skip_blanks()
            character = self._peek()
            if character in ("", "\n"):
                self.position += 1
                return
            if character == "#":
                self._skip_comment()
            elif character == ";":
                self.position += 1
            else:
                self._command()

    def _command(self) -> None:
        declaration = _DECLARATION.match(self.text, self.position)
        if declaration:
            self.position = declaration.end()
        while True:
            self._skip_blanks()
            if self._peek() in ("", "\n", ";", "#"):
                return
            assignment = _ASSIGNMENT.match(self.text, self.position)
            if assignment:
                self.position = assignment.end()
                self._pending[assignment[1]] = self._value()
            elif declaration and (name := _NAME.match(self.text, self.position)):
                self.position = name.end()
            else:
                word = t.cast("re.Match[str]", _RAW_WORD.match(self.text, self.position))[0]
                raise _Bad(f"{word[:40]!r} is not an assignment. Only assignments are read; nothing is run.")

    def _value(self) -> str:
        if self._peek() == "~":
            raise _Bad("A value that begins with ~ must be quoted, or the directory written in full.")
        value = self._word(" \t\n;", 0)
        if self._peek() not in ("", " ", "\t", "\n", ";"):
            raise _Bad(f"{self._peek()!r} must be quoted in a value. Nothing is run.")
        return value

    def _word(self, end: str, depth: int, *, wanted: bool = True) -> str:
        """Read up to an unquoted character of C(end). What is not wanted is read all the same, without look-ups."""
        pieces: list[str] = []
        length = 0
        while (character := self._peek()) and character not in end:
            if plain := _PLAIN.match(self.text, self.position):
                piece = plain[0]
                self.position = plain.end()
            elif character == "'":
                piece = self._single_quoted()
            elif character == '"':
                piece = self._double_quoted(depth, wanted)
            elif character == "$":
                piece = self._reference(depth, wanted)
            elif character == "\\":
                piece = self._escaped("")
            elif character == "}":
                piece = character
                self.position += 1
            elif character == "`":
                raise _Bad("A command substitution (`...`) is not run.")
            elif end == "}" and character in " \t\n;|&<>()":  # within braces they are ordinary characters
                piece = character
                self.position += 1
            elif _CONTROL.match(character):
                raise _Bad(f"The control character {character!r} is not allowed.")
            else:
                break
            pieces.append(piece)
            length += len(piece)
            if length > MAX_VALUE:
                raise _Bad(f"A value is longer than {MAX_VALUE} characters.")
        return "".join(pieces)

    def _single_quoted(self) -> str:
        end = self.text.find("'", self.position + 1)
        if end < 0:
            raise _Bad("A quote (') is not closed.")
        piece = self.text[self.position + 1 : end]
        self._refuse_control(piece)
        self.position = end + 1
        return piece

    def _double_quoted(self, depth: int, wanted: bool) -> str:
        self.position += 1
        pieces: list[str] = []
        while (character := self._peek()) != '"':
            if character == "":
                raise _Bad('A quote (") is not closed.')
            if character == "$":
                pieces.append(self._reference(depth, wanted, quoted=True))
            elif character == "\\":
                pieces.append(self._escaped('$`"\\\n'))
            elif character == "`":
                raise _Bad("A command substitution (`...`) is not run.")
            else:
                end = self.position + 1
                while end < len(self.text) and self.text[end] not in '"$\\`':
                    end += 1
                pieces.append(self.text[self.position : end])
                self._refuse_control(pieces[-1])
                self.position = end
        self.position += 1
        return "".join(pieces)

    def _escaped(self, special: str) -> str:
        """Read a backslash and what follows; within double quotes it is special only before some characters."""
        following = self.text[self.position + 1 : self.position + 2]
        self.position += 1 + len(following)
        if following == "\n":
            return ""
        if not following:
            raise _Bad("The file ends after a backslash.")
        self._refuse_control(following)
        return following if not special or following in special else f"\\{following}"

    def _reference(self, depth: int, wanted: bool, *, quoted: bool = False) -> str:
        self.position += 1
        if name := _NAME.match(self.text, self.position):
            self.position = name.end()
            return self._look_up(name[0]) if wanted else ""
        character = self._peek()
        if character == "{":
            return self._braced(depth, wanted)
        if character == "(":
            raise _Bad("A command substitution $(...) is not run.")
        if character and (character in "@*#?-$!0123456789" or (not quoted and character in "'\"")):
            raise _Bad(f"${character} is not understood here.")
        return "$"

    def _braced(self, depth: int, wanted: bool) -> str:
        self.position += 1
        name = _NAME.match(self.text, self.position)
        if not name:
            raise _Bad("After ${ the name of a variable is expected.")
        self.position = name.end()
        if self._peek() == "}":
            self.position += 1
            return self._look_up(name[0]) if wanted else ""
        operator = _OPERATOR.match(self.text, self.position)
        if not operator:
            raise _Bad(
                f"${{{name[0]}...}}: only ${{name}}, ${{name:-default}} and ${{name:+alternative}} are understood."
            )
        if depth >= MAX_DEPTH:
            raise _Bad(f"References are nested more than {MAX_DEPTH} deep.")
        self.position = operator.end()
        present = self._get(name[0])
        given = bool(present) if operator[0][0] == ":" else present is not None
        use_word = given if operator[0][-1] == "+" else not given
        word = self._word("}", depth + 1, wanted=wanted and use_word)
        if self._peek() != "}":
            raise _Bad(f"${{{name[0]}{operator[0]} is not closed by a brace.")
        self.position += 1
        if use_word:
            return word
        return "" if operator[0][-1] == "+" else present or ""

    def _look_up(self, name: str) -> str:
        value = self._get(name)
        if value is None:
            raise _Bad(f"${name} is not set.")
        return value

    def _get(self, name: str) -> str | None:
        self.used.add(name)
        return self._pending.get(name, self.variables.get(name))

    def _refuse_control(self, piece: str) -> None:
        if bad := _CONTROL.search(piece):
            raise _Bad(f"The control character {bad[0]!r} is not allowed.")

    def _peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def _skip_blanks(self) -> None:
        if blanks := _BLANKS.match(self.text, self.position):
            self.position = blanks.end()

    def _skip_comment(self) -> None:
        end = self.text.find("\n", self.position)
        self.position = len(self.text) if end < 0 else end

    # -- what is skipped -----------------------------------------------------------------------------------------

    def _after_skipped(self, start: int) -> tuple[int, int]:
        """Return where the command ends that cannot be read, and where to go on.

        What a shell would not have run as lines of their own must not be read as such: the rest of a string or of a
        here-document, and the body of a compound command, whose condition nobody evaluates.
        """
        end = self._end_of_block(start, self._end_of_line(start))
        here = _HERE_DOCUMENT.search(self.text, start, end)
        if here and not self._open_ended:
            closing = re.compile(rf"^\t*{re.escape(here[2])}$\n?", re.MULTILINE).search(self.text, end)
            if closing:
                return end, closing.end()
            self._open_ended = True
        return end, end

    def _end_of_line(self, start: int) -> int:
        """Return the position after the newline that no quote, backslash or command substitution hides."""
        if not self._open_ended:
            end = _end_of_quoted_line(self.text, start)
            if end is not None:
                return end
            self._open_ended = True
        end = self.text.find("\n", start)
        return len(self.text) if end < 0 else end + 1

    def _end_of_block(self, start: int, end: int) -> int:
        """Return the position after the line that closes the compound command beginning here, if one does."""
        closers: list[str] = []
        position, line_end = start, end
        while True:
            _follow_blocks(self.text[position:line_end], closers)
            if not closers:
                return line_end
            if line_end >= len(self.text) or self._open_ended:
                self._open_ended = True
                return end
            position, line_end = line_end, self._end_of_line(line_end)


def _end_of_quoted_line(text: str, position: int) -> int | None:
    """Return the position after the first newline outside quotes, or None when the file ends within one."""
    quote = ""  # what closes the innermost: ' " ` or )
    stack: list[str] = []
    while position < len(text):
        character = text[position]
        if quote == "'":
            if character == "'":
                quote = stack.pop()
        elif character == "\\":
            position += 1
        elif character == quote:
            quote = stack.pop()
        elif character == "'" and quote != '"':
            stack.append(quote)
            quote = "'"
        elif character in '"`':
            stack.append(quote)
            quote = character
        elif text.startswith("$(", position):
            stack.append(quote)
            quote = ")"
            position += 1
        elif character == "#" and quote in ("", ")") and text[position - 1 : position] in ("", " ", "\t", "\n", ";"):
            newline = text.find("\n", position)
            if newline < 0:
                break
            position = newline - 1
        elif character == "\n" and not quote:
            return position + 1
        position += 1
    return None if quote else len(text)


def _follow_blocks(line: str, closers: list[str]) -> None:
    """Bring the stack of compound commands that are open up to the end of the line."""
    for command in _COMMAND_START.split(_COMMENT.sub("", line)):
        words = command.split()
        if not words:
            continue
        if closers and words[0] == closers[-1]:
            closers.pop()
        elif words[0] in _BLOCKS:
            closers.append(_BLOCKS[words[0]])
        elif len(words) > 1 and words[-1] == "{" and words[-2].endswith("()"):
            closers.append("}")


def parse_conf(text: str, where: str, variables: c.Mapping[str, str] | None = None) -> Conf:
    """Return what the text assigns. C(variables) are those it may refer to, as if assigned before.

    Never raises for what the text says.
    """
    if len(text) > MAX_FILE:
        return Conf({}, {}, (Problem(where, f"The file is larger than {MAX_FILE} bytes and is not read."),))
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    return _Parser(text, where, variables or {}).parse()


def read_mlist(text: str, where: str = MLIST) -> tuple[list[str], list[Problem]]:
    """Return the machines, best first, and what is wrong with the list."""
    machines: dict[str, int] = {}
    problems: list[Problem] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        name = re.sub(r"(?:^|(?<=\s))#.*", "", line).strip()
        if not name:
            continue
        try:
            _check_listed(name)
        except BadName as error:
            problems.append(Problem(f"{where}:{number}", f"{error} The line is skipped."))
            continue
        if name in machines:
            problems.append(
                Problem(f"{where}:{number}", f"{name} stands in line {machines[name]} already; that one counts.")
            )
            continue
        machines[name] = number
    return list(machines), problems


def _check_listed(name: str) -> None:
    if re.fullmatch(r"\S+\s+\d+", name):
        machine, number = name.split()
        raise BadName(
            f"{name!r} is not the name of a machine.",
            remedy=f"One name per line: maxjobs={number} belongs in {PREFIX}{machine}.",
        )
    if PREFIX + check_machine(name) == CONF:
        raise BadName(f"A machine cannot be called {name!r}: {CONF} is the file of the whole arch.")


class ArchConfig:
    """The configuration of an arch directory. The files of machines are read when they are asked for."""

    def __init__(self, directory: str, arch: str, conf: Conf, mlist: str | None) -> None:
        self.directory = directory
        self.arch = arch
        self.conf = conf
        self.mlist = os.path.join(directory, MLIST)
        self.has_mlist = mlist is not None
        machines, problems = read_mlist(mlist or "", self.mlist)
        self.machines = tuple(machines)  # best first
        self._problems = tuple(problems)
        self._machine_confs: dict[str, Conf] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with portbuild.conf and mlist, and with the files of machines that were read so far."""
        own = (problem for conf in self._machine_confs.values() for problem in conf.problems)
        return (*self._problems, *self.conf.problems, *own)

    def for_machine(self, machine: str) -> Conf:
        """Return what portbuild.<machine> says; it may refer to the variables of portbuild.conf, as if read after it."""
        if machine not in self._machine_confs:
            path = os.path.join(self.directory, PREFIX + check_machine(machine))
            known = {**self.conf.texts, "host": machine}
            self._machine_confs[machine] = NOTHING if PREFIX + machine == CONF else _load_conf(path, known)
        return self._machine_confs[machine]


def load_directory(root: str, arch: str) -> ArchConfig:
    """Return the configuration of C(<root>/<arch>).

    Files that do not exist say nothing; one that cannot be read raises UnreadableConf.
    """
    directory = os.path.join(root, check_arch(arch))
    conf = _load_conf(os.path.join(directory, CONF), {"pb": root, "arch": arch})
    return ArchConfig(directory, arch, conf, _read(os.path.join(directory, MLIST)))


def record_system(root: str, arch: str, system: str, *, check_mode: bool = False) -> bool:
    """Record the package system that the arch directory serves, and return whether that changes the file.

    An arch directory serves one system for ever: packages, names and bases of two do not mix.
    """
    path = os.path.join(root, check_arch(arch), CONF)
    recorded = _load_conf(path, {"pb": root, "arch": arch}).values.get("system")
    if recorded is not None and recorded.text:
        check_system(system, recorded)
        return False
    if not check_mode:
        text = _read(path) or ""
        separator = "" if not text or text.endswith("\n") else "\n"
        write_atomic(path, f"{text}{separator}system={system}\n")
    return True


def check_system(system: str, recorded: Value) -> None:
    """Raise SystemMismatch unless the arch serves this package system."""
    if system != recorded.text:
        raise SystemMismatch(
            f"portbuild_system is {system!r}, but this arch serves {recorded.text!r} ({recorded.where}).",
            remedy=f"Use an arch of another name, such as {system}-amd64.",
        )


def _load_conf(path: str, variables: c.Mapping[str, str]) -> Conf:
    text = _read(path)
    return NOTHING if text is None else parse_conf(text, path, variables)


def _read(path: str) -> str | None:
    """Return the text of the file, or None when there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read(MAX_FILE + 1).decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UnreadableConf(f"{path} cannot be read: {error.strerror}.") from None
