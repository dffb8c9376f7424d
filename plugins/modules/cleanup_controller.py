#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cleanup_controller
short_description: Remove from the controller what is beyond its age
version_added: 1.0.0
description:
  - Removes compressed logs of earlier builds that are older than C(portbuild_log_days), work directories that are older than
    C(portbuild_workdir_days), and logs that came home of builds that nobody has recorded for a month.
  - Sends the mail that waits in the spool.
  - The log of a package's last build, packages and source archives stay.
  - Runs on the controller.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options: {}
seealso:
  - module: portbuild.cluster.cleanup
"""

EXAMPLES = r"""
---
- name: Remove old logs from the controller
  portbuild.cluster.cleanup_controller:
"""

RETURN = r"""
removed:
  description: What was removed, and why.
  returned: success
  type: list
  elements: dict
  sample:
    - path: /srv/portbuild/debian-amd64/bookworm/logs/old/hello.17.log.gz
      why: This log of an earlier build is 91 days old, 90 are allowed.
sent:
  description: The messages that had waited and that the mail server accepted, by event.
  returned: success
  type: list
  elements: str
  sample: []
problems:
  description: What could not be removed, and why.
  returned: success
  type: list
  elements: str
  sample: []
"""
