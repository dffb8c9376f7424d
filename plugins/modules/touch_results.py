#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: touch_results
short_description: Set the times of the results by the controller's clock
version_added: 1.0.0
description:
  - Sets the modification time of each file that arrived to the controller's time, so that times compare on one clock.
  - M(portbuild.cluster.fetch_results) has set them before the files got their names; this step is the one that a reader
    of the play sees, and it repairs what a crash in between left.
  - Runs on the controller.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
  - portbuild.cluster.lease
attributes:
  check_mode:
    support: full
    description: Says which files would be touched.
  diff_mode:
    support: none
  idempotent:
    support: full
    description: Files touched for this lease are not touched again.
options:
  files:
    description: The files, as returned by M(portbuild.cluster.fetch_results).
    type: list
    elements: dict
    required: true
seealso:
  - module: portbuild.cluster.fetch_results
"""

EXAMPLES = r"""
---
- name: Touch the results
  portbuild.cluster.touch_results:
    lease: "{{ claim.lease }}"
    files: "{{ results.files }}"
"""

RETURN = r"""
touched:
  description: Paths of the files whose times were changed.
  returned: always
  type: list
  elements: str
  sample: []
"""
