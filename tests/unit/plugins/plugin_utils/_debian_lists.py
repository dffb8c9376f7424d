# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bindist with lists of an archive, as the tests of Debian's catalogue make it."""

from __future__ import annotations

import hashlib
import io
import pathlib
import tarfile


def source(name: str, version: str = "1.0-1", **fields: str) -> str:
    """Return a paragraph of Sources."""
    usual = {
        "Package": name,
        "Binary": name,
        "Version": version,
        "Architecture": "any",
        "Section": "misc",
        "Checksums_Sha256": f"\n {hashlib.sha256(name.encode()).hexdigest()} 1000 {name}_{version}.dsc\n {'0' * 64} 5 x.tar.xz",
    }
    return paragraph({**usual, **fields})


def binary(name: str, version: str = "1.0-1", **fields: str) -> str:
    """Return a paragraph of Packages."""
    return paragraph({"Package": name, "Version": version, "Architecture": "amd64", "Priority": "optional", **fields})


def paragraph(fields: dict[str, str]) -> str:
    return "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in fields.items())


def bindist(directory: pathlib.Path, **lists: str | list[str]) -> str:
    """Make a bindist with these lists: C(main_Sources), C(main_binary_amd64_Packages)."""
    path = directory / "bindist.tar"
    with tarfile.open(path, "w:gz") as tarball:
        for name, text in {"./etc/passwd": "root:x:0:0", **lists}.items():
            data = ("\n".join(text) if isinstance(text, list) else text).encode()
            kind_of_list = name.replace("_binary_", "_binary-")
            where = name if "/" in name else f"./var/lib/apt/lists/deb.example.org_debian_dists_x_{kind_of_list}"
            member = tarfile.TarInfo(where)
            member.size = len(data)
            tarball.addfile(member, io.BytesIO(data))
    return str(path)
