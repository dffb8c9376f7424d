# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The targets of a bulk build, as a person gives them: words, and files of words."""

from __future__ import annotations

import collections.abc as c
import re
import typing as t

from ..module_utils._errors import PortbuildError

_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._,~@=:/-]*")
_LONGEST = 300


class NoTargets(PortbuildError):
    """There is nothing to build."""


class Targets(t.NamedTuple):
    """The targets, each once, in the order in which they were given; and by what was given, what is wrong with it."""

    words: tuple[str, ...]
    problems: dict[str, str]


def read_targets(given: c.Iterable[str]) -> Targets:
    """Return the targets with those of all files (C(@PATH)): one a line, C(#) begins a comment.

    A malformed line costs only itself. Raises NoTargets for a file that cannot be read, and when nothing is left.
    """
    words: dict[str, None] = {}
    problems: dict[str, str] = {}
    for where, word in _all(given):
        if len(word) > _LONGEST or not _TARGET.fullmatch(word):
            problems[f"{where}{word!r:.100}"] = f"{where}{word!r:.100} is no target: expected is the name of a package."
        else:
            words[word] = None
    if not words:
        said = " ".join(problems.values())
        raise NoTargets(
            f"There is nothing to build. {said}".strip(), remedy="Set portbuild_targets, for example to all."
        )
    return Targets(tuple(words), problems)


def _all(given: c.Iterable[str]) -> c.Iterator[tuple[str, str]]:
    for word in given:
        if not word.startswith("@"):
            yield "", word
            continue
        path = word[1:]
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                lines = stream.read().splitlines()
        except OSError as error:
            raise NoTargets(f"The file of targets {path} cannot be read: {error.strerror}.") from None
        for number, line in enumerate(lines, start=1):
            text = line.partition("#")[0].strip()
            if text:
                yield f"{path}, line {number}: ", text
