# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation in HTML: the guides, the playbooks, and the reference of everything else, from PyPI alone."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import typing as t
import zlib

from . import testing, venvs
from .project import CACHE, CHECKOUT, environment, link_collection, say

COLLECTION = "portbuild.cluster"
DOCS = CACHE / "docs"
SOURCE, HTML = DOCS / "source", DOCS / "html"
#: What people read at GitHub too, in its places: the pages name each other by relative paths.
PAGES = ("README.md", "docs", "LICENSES")
REFERENCE = "reference"
#: What the reference names of ansible-core's documentation: pages by their labels, and its plugins.
CORE_PAGES = {
    "action_plugins": ("plugins/action.html", "Action plugins"),
    "ansible_configuration_settings": ("reference_appendices/config.html", "Ansible Configuration Settings"),
    "common_return_values": ("reference_appendices/common_return_values.html", "Return Values"),
}
_CORE = re.compile(r"ansible_collections\.ansible\.builtin\.(\w+)_(module|lookup|become|inventory|filter|test)\b")


def docs() -> int:
    """Make the HTML; a warning is an error."""
    link_collection()
    python = venvs.ensure(testing.newest(), "docs")
    variables = environment(python)
    shutil.rmtree(DOCS, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    shutil.copy(CHECKOUT / "tests" / "docs" / "conf.py", SOURCE)
    for name in PAGES:
        copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
        copy(CHECKOUT / name, SOURCE / name)
    reference = SOURCE / REFERENCE
    reference.mkdir()
    antsibull = ["collection", "--use-current", "--squash-hierarchy", "--fail-on-error", "--dest-dir", str(reference)]
    sphinx = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html", str(SOURCE), str(HTML)]
    for program, arguments in (("antsibull-docs", [*antsibull, COLLECTION]), ("sphinx-build", sphinx)):
        if program == "sphinx-build":
            write_pages()
        done = subprocess.run([str(python.parent / program), *arguments], cwd=DOCS, env=variables, check=False)
        if done.returncode != 0:
            return done.returncode
    say(f"{HTML.relative_to(CHECKOUT)}/index.html")
    return 0


def write_pages() -> None:
    """Write what stands nowhere: the page of all playbooks, the contents, and where ansible-core's own pages are."""
    (SOURCE / "playbooks.md").write_text(playbooks(CHECKOUT / "playbooks"), encoding="utf-8")
    guides = re.findall(r"\]\(([\w-]+)\.md\)", (CHECKOUT / "docs" / "index.md").read_text(encoding="utf-8"))
    (SOURCE / "index.md").write_text(contents(dict.fromkeys(guides)), encoding="utf-8")
    texts = (path.read_text(encoding="utf-8") for path in (SOURCE / REFERENCE).glob("*.rst"))
    (SOURCE / "ansible.inv").write_bytes(
        inventory({match.groups() for text in texts for match in _CORE.finditer(text)})
    )


def contents(guides: t.Iterable[str]) -> str:
    """Return the first page."""
    entries = ["README", "docs/index", *(f"docs/{name}" for name in guides), "playbooks", f"{REFERENCE}/index"]
    return "\n".join(["# portbuild.cluster", "", "```{toctree}", ":maxdepth: 1", "", *entries, "```", ""])


def playbooks(directory: pathlib.Path) -> str:
    """Return the page of all playbooks: what the comment at the top of each says, and the role behind it."""
    parts = ["# Playbooks", "", "Each is a few lines over a role, whose page lists the settings.", ""]
    for path in sorted(directory.glob("*.yml")):
        text = path.read_text(encoding="utf-8")
        about = re.findall(r"^# (?! |Copyright|GNU|SPDX)(.+)$", text, re.MULTILINE)
        examples = re.findall(r"^# {5}(.+)$", text, re.MULTILINE)
        roles = dict.fromkeys(re.findall(rf"name: {re.escape(COLLECTION)}\.(\w+)$", text, re.MULTILINE))
        links = [f"{{ansplugin}}`{COLLECTION}.{role} <{COLLECTION}.{role}#role>`" for role in roles]
        parts += [f"## {COLLECTION}.{path.stem}", "", " ".join(about), "", "```console"]
        parts += [f"$ {line}" for line in examples]
        parts += ["```", "", f"Role: {', '.join(links)}", ""]
    return "\n".join(parts)


def inventory(plugins: t.Iterable[tuple[str | t.Any, ...]]) -> bytes:
    """Return an inventory for intersphinx of these plugins of ansible-core, by name and kind, and of its pages."""
    lines = [
        f"{label} std:label -1 {page}#{label.replace('_', '-')} {title}\n"
        for label, (page, title) in CORE_PAGES.items()
    ]
    lines += [
        f"ansible_collections.ansible.builtin.{name}_{kind} std:label -1 "
        f"collections/ansible/builtin/{name}_{kind}.html ansible.builtin.{name}\n"
        for name, kind in sorted(plugins)
    ]
    head = "# Sphinx inventory version 2\n# Project: ansible\n# Version: \n# The remainder of this file is compressed using zlib.\n"
    return head.encode() + zlib.compress("".join(lines).encode())
