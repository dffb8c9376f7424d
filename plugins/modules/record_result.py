#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: record_result
short_description: Record what a build came to
version_added: 1.0.0
description:
  - Writes history, failure record and the set of files of the package in one transaction, and keeps the directories C(logs/) and C(errors/) true.
  - C(logs/PACKAGE.log) is always the last build's; C(errors/PACKAGE.log) exists exactly while the last build failed.
  - The same build is recorded once, however often the step is repeated.
  - Runs on the controller.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
  - portbuild.cluster.lease
  - portbuild.cluster.lease.attempts
attributes:
  check_mode:
    support: full
    description: Records nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    description: A build that is recorded already is not recorded again.
options:
  status:
    description: The status of the build, as returned by M(portbuild.cluster.build_package). Without it the build must have been recorded before.
    type: dict
  files:
    description: The files that arrived, as returned by M(portbuild.cluster.fetch_results).
    type: list
    elements: dict
    default: []
seealso:
  - module: portbuild.cluster.fetch_results
  - module: portbuild.cluster.notify
"""

EXAMPLES = r"""
---
- name: Record the result
  portbuild.cluster.record_result:
    lease: "{{ claim.lease }}"
    status: "{{ build.status }}"
    files: "{{ results.files }}"
"""

RETURN = r"""
recorded:
  description: Whether the record is committed. Only then may the chroot be cleaned.
  returned: always
  type: bool
  sample: true
outcome:
  description: V(built), V(failed) or V(infrastructure).
  returned: when recorded
  type: str
  sample: built
reason:
  description: The supervisor's reason.
  returned: when recorded
  type: str
  sample: success
failure_class:
  description:
    - Why it failed, in a word, such as V(missing_header); see C(docs/failure-classes.md).
    - Empty for a build that succeeded, and for a failure of the infrastructure.
  returned: when recorded
  type: str
  sample: missing_header
further:
  description: Other classes that lines of the log stand for, the most telling first.
  returned: when recorded
  type: list
  elements: str
  sample: [linker]
line_number:
  description: Number of the line of the log that tells the class, V(0) if there is none.
  returned: when recorded
  type: int
  sample: 120
line:
  description: The line, without colours and cut off if it is long.
  returned: when recorded
  type: str
  sample: "main.c:1:10: fatal error: nowhere.h: No such file or directory"
version:
  description: The version that was built, empty when it is not known.
  returned: when recorded
  type: str
  sample: 2.10-3
seconds:
  description: How long the build took, in seconds.
  returned: when recorded
  type: float
  sample: 17.2
log:
  description: Path of the log on the controller.
  returned: when recorded
  type: str
  sample: /var/portbuild/debian-amd64/bookworm/logs/hello.log
stale:
  description:
    - Whether the build was begun for an earlier dispatch, which asked for another version, source or options.
      Then the package is still to be built.
  returned: when recorded
  type: bool
  sample: false
events:
  description: What there is to tell, for M(portbuild.cluster.notify).
  returned: when recorded
  type: list
  elements: dict
  sample:
    - event: builds_again
"""
