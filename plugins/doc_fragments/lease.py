# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that the steps of a dispatch share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  lease:
    description:
      - The lease that the step acts under, as returned by M(portbuild.cluster.claim_machine).
      - A step whose token is older than the job's is refused.
    type: dict
    required: true
    suboptions:
      arch:
        description: The target architecture.
        type: str
        required: true
      branch:
        description: The branch.
        type: str
        required: true
      package:
        description: The name of the package.
        type: str
        required: true
      machine:
        description: The name of the build machine. Not used on the machine itself.
        type: str
      queue:
        description: The identity of the queue directory that the lease is from.
        type: str
        required: true
      token:
        description: The token of the lease.
        type: int
        required: true
"""

    ATTEMPTS = r"""
options:
  attempts:
    description:
      - What earlier attempts of this dispatch came to, as returned by M(portbuild.cluster.release_machine).
    type: list
    elements: dict
    default: []
"""

    SCRATCHDIR = r"""
options:
  scratchdir:
    description: The directory on the build machine under which bases, chroots and caches stand.
    type: path
    default: /var/portbuild
"""
