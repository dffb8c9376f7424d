# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How Sphinx makes HTML of what tests/tools/docs.py has put together."""

# Sphinx wants these names.
# pylint: disable=invalid-name,redefined-builtin

from __future__ import annotations

project = "portbuild.cluster"
copyright = "2026 The portbuild.cluster authors"  # noqa: A001
extensions = ["myst_parser", "sphinx.ext.intersphinx", "sphinx_antsibull_ext"]
exclude_patterns = ["LICENSES"]
html_theme = "furo"
html_title = "portbuild.cluster"
html_show_sourcelink = False
smartquotes = False
highlight_language = "text"
myst_heading_anchors = 3
# What the reference names of ansible-core, without asking its site: the inventory is made along with the rest.
intersphinx_mapping = {"ansible": ("https://docs.ansible.com/ansible/latest/", "ansible.inv")}
nitpicky = True
