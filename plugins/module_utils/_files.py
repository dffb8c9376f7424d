# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Files that are whole or absent, whatever dies in between."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import typing as t

from ._errors import PortbuildError

CHUNK = 1 << 20


class BadFile(PortbuildError):
    """A state file that cannot be read as what it should be."""


class NewerFile(PortbuildError):
    """A state file that a later version of the collection has written. Whoever cannot read it leaves it alone."""


def refuse_newer(value: t.Mapping[str, t.Any], known: int, path: str) -> None:
    """Raise NewerFile if the schema of what was read is one that only a later version knows.

    What has no schema, or none that is a number, is the business of who reads it.
    """
    schema = value.get("schema")
    if isinstance(schema, int) and schema > known:
        raise NewerFile(
            f"{path} was written by a later version of portbuild.cluster: "
            f"its schema is {schema}, this version knows {known}.",
            remedy="Use that version on every controller that has to do with it.",
        )


def temporary_name(path: str) -> str:
    """Return a name in the same directory that no reader takes for the real one."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name[:180]}.{secrets.token_hex(6)}.tmp")


def sync_directory(path: str) -> None:
    """Make renames in the directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: str, data: bytes | str, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace the file by one with this content.

    With C(durable) the content is on the disk before the rename. Without it a crash of the process is still safe;
    only a power failure may lose it: right for state that means nothing after a reboot.
    """
    if isinstance(data, str):
        data = data.encode("utf-8")
    temporary = temporary_name(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), mode)  # whatever the umask
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(os.path.dirname(path) or ".")


def write_json(path: str, value: t.Any, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace the file by this value as JSON, one object, readable by a person."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True) + "\n", mode=mode, durable=durable)


def read_json(path: str, *, limit: int = 1 << 24) -> dict[str, t.Any]:
    """Return the JSON object in the file.

    Raises FileNotFoundError when there is none, BadFile when it holds anything but one JSON object of at most
    C(limit) bytes.
    """
    with open(path, "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise BadFile(f"{path} is larger than {limit} bytes.")
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path} does not hold JSON: {error}.") from None
    if not isinstance(value, dict):
        raise BadFile(f"{path} holds a JSON {type(value).__name__} where an object is expected.")
    return value


def sha256_file(path: str) -> str:
    """Return the file's SHA-256 in lower-case hexadecimal, with flat memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
