# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pages that stand nowhere, which make docs writes."""

from __future__ import annotations

import pathlib
import zlib

from ansible_collections.portbuild.cluster.tests.guides import CHECKOUT
from ansible_collections.portbuild.cluster.tests.tools import docs


def test_each_playbook_is_on_the_page_with_text_example_and_role() -> None:
    page = docs.playbooks(CHECKOUT / "playbooks")
    sections = page.split("\n## ")[1:]
    names = sorted(path.stem for path in (CHECKOUT / "playbooks").glob("*.yml"))
    assert [section.partition("\n")[0] for section in sections] == [f"portbuild.cluster.{name}" for name in names]
    for section, name in zip(sections, names):
        assert f"$ ansible-playbook portbuild.cluster.{name}" in section
        assert section.splitlines()[2].endswith(".")
        role = name if (CHECKOUT / "roles" / name).is_dir() else "control"
        assert f"<portbuild.cluster.{role}#role>" in section


def test_what_is_no_comment_at_the_top_is_not_on_the_page(tmp_path: pathlib.Path) -> None:
    licence = "SPDX-License" + "-Identifier: x"  # in one word it would be this file's
    text = f"# Copyright x\n# {licence}\n#\n# Does it.\n#\n#     ansible-playbook x\n\n- hosts: all\n"
    (tmp_path / "x.yml").write_text(text, encoding="utf-8")
    lines = docs.playbooks(tmp_path).splitlines()
    assert lines[4:10] == ["## portbuild.cluster.x", "", "Does it.", "", "```console", "$ ansible-playbook x"]


def test_the_inventory_names_pages_of_ansible_core() -> None:
    head, _newline, body = docs.inventory([("sudo", "become")]).partition(b"zlib.\n")
    assert head.startswith(b"# Sphinx inventory version 2\n")
    line = b"ansible_collections.ansible.builtin.sudo_become std:label -1 collections/ansible/builtin/sudo_become.html"
    assert line in zlib.decompress(body)
