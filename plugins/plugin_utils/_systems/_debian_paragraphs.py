# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Paragraphs of Debian's control files (deb822), read for a few of their fields: tens of thousands of them in seconds."""

from __future__ import annotations

import collections.abc as c
import functools
import re

_PARAGRAPH = 1 << 23  # bytes; the largest of Debian has a tenth of it
_COMMENTS = re.compile(rb"^#.*\n?", re.MULTILINE)
_EMPTY = re.compile(rb"^[ \t\r]+$", re.MULTILINE)


def cleaned(text: str) -> bytes:
    """Return a control file that a person wrote as a program writes one: without comments and odd ends of lines."""
    data = text.encode("utf-8", "replace").replace(b"\r\n", b"\n")
    return _EMPTY.sub(b"", _COMMENTS.sub(b"", data))


def paragraphs(chunks: c.Iterable[bytes]) -> c.Iterator[bytes]:
    """Yield the paragraphs of a text that comes in pieces; one that is larger than any real one is left out."""
    rest = b""
    too_large = False
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n\n")
        for paragraph in whole:
            if not too_large and paragraph.strip():
                yield paragraph
            too_large = False
        if len(rest) > _PARAGRAPH:
            too_large, rest = True, rest[-1:]  # perhaps one half of the empty line
    if not too_large and rest.strip():
        yield rest


@functools.cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[bytes]:
    choice = "|".join(map(re.escape, names))
    return re.compile(rf"^({choice}):[ \t]*(.*(?:\n[ \t].*)*)".encode(), re.MULTILINE | re.IGNORECASE)


def fields(paragraph: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """Return these fields of a paragraph, with names in lower case; of a field that stands there twice the last."""
    return {
        name.decode("ascii").lower(): value.decode("utf-8", "replace").strip()
        for name, value in _pattern(names).findall(paragraph)
    }
