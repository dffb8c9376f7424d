#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: notify
short_description: Tell people and hooks what happened
version_added: 1.0.0
description:
  - Makes a message of each event that somebody wants to hear about (C(portbuild_mail_to), C(portbuild_mail_events)) and sends it by SMTP.
  - A mail server that is down delays nothing and loses nothing; messages are spooled and tried again with the next one.
  - A problem of a package whose cause is the same is told once in C(portbuild_mail_repeat).
  - Runs C(portbuild_hook) for each event, and returns what the tasks of C(portbuild_hook_tasks) are to be told.
  - Without an event, sends what waits in the spool.
  - Runs on the controller.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
  - portbuild.cluster.lease
attributes:
  check_mode:
    support: full
    description: Sends nothing and runs no hook.
  diff_mode:
    support: none
  idempotent:
    support: full
    description: The same event of the same build is told once.
options:
  lease:
    description: The lease of the package that the events are about, as returned by M(portbuild.cluster.claim_machine).
    required: false
  events:
    description: The events, as returned by M(portbuild.cluster.record_result).
    type: list
    elements: dict
    default: []
  blocks:
    description: How many packages cannot be built if the one that the events are about fails, where that is known.
    type: int
  blocked:
    description: The names of some of them.
    type: list
    elements: str
    default: []
seealso:
  - module: portbuild.cluster.record_result
"""

EXAMPLES = r"""
---
- name: Notify
  portbuild.cluster.notify:
    lease: "{{ claim.lease }}"
    events: "{{ record.events }}"

- name: Send what waits
  portbuild.cluster.notify:
"""

RETURN = r"""
sent:
  description: The messages that the mail server accepted, by event.
  returned: always
  type: list
  elements: str
  sample:
    - failure
spooled:
  description: The messages that wait for the mail server, by event.
  returned: always
  type: list
  elements: str
  sample: []
repeated:
  description: The events that were counted and not told, since the same was told lately.
  returned: always
  type: list
  elements: str
  sample: []
problems:
  description: What went wrong, a sentence each.
  returned: always
  type: list
  elements: str
  sample: []
untold:
  description: The events of which somebody will never hear, since they could not even be spooled.
  returned: always
  type: list
  elements: str
  sample: []
tasks:
  description: The task file of C(portbuild_hook_tasks), empty if there is none.
  returned: always
  type: str
  sample: ""
events:
  description: The events that the tasks in it are to be told of, each as hooks get it.
  returned: always
  type: list
  elements: dict
  sample: []
"""
