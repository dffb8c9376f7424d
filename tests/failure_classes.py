# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the table in docs/failure-classes.md from the file of classes: C(python tests/failure_classes.py)."""

from __future__ import annotations

import pathlib
import sys

from ansible_collections.portbuild.cluster.plugins.plugin_utils._class_rules import load_rules

DOCUMENT = pathlib.Path(__file__).resolve().parent.parent / "docs" / "failure-classes.md"
BEGIN, END = "<!-- made by tests/failure_classes.py -->\n", "<!-- to here -->\n"


def table() -> str:
    """Return the table of classes."""
    lines = ["| class | what it means | a line that tells it | formerly |", "|---|---|---|---|"]
    for known in load_rules().classes.values():
        example = f"`` {known.example.strip()} ``".replace("|", "\\|") if known.example else ""
        lines.append(f"| `{known.name}` | {known.meaning} | {example} | {', '.join(known.former)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Put the table where it belongs."""
    text = DOCUMENT.read_text("utf-8")
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
