#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: notify
short_description: Tell people what happened
version_added: 1.0.0
description:
  - Makes a message of each event that somebody wants to hear about (C(portbuild_mail_to), C(portbuild_mail_events)) and sends it by SMTP.
  - A mail server that is down delays nothing and loses nothing; messages are spooled and tried again with the next one.
  - Runs on the controller.
author:
  - The portbuild.cluster authors (@portbuild)
extends_documentation_fragment:
  - portbuild.cluster.attributes
  - portbuild.cluster.lease
attributes:
  check_mode:
    support: full
    description: Says which messages would be sent.
  diff_mode:
    support: none
  idempotent:
    support: full
    description: The same event of the same build is told once.
options:
  events:
    description: The events, as returned by M(portbuild.cluster.record_result).
    type: list
    elements: dict
    required: true
seealso:
  - module: portbuild.cluster.record_result
"""

EXAMPLES = r"""
---
- name: Notify
  portbuild.cluster.notify:
    lease: "{{ claim.lease }}"
    events: "{{ record.events }}"
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
"""
