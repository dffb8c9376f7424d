#!/usr/bin/python
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: make_bindist
short_description: Make the tarball of a clean system
version_added: 1.0.0
description:
  - Makes the bindist of a branch on the build machine it runs on, of the machine's own kind.
  - On Debian it is made with C(mmdebstrap), from the apt lists and the keyring of the machine, so that it works behind a mirror.
    Only Debian's own archive is taken, and each entry is trusted by Debian's archive keyring alone. Credentials, hooks, pins
    and the archives of others are never copied; RV(left_out) says what was left out and why.
  - On FreeBSD it is C(base.txz) of a release, fetched with the base system's own tools and checked against the release's C(MANIFEST),
    with an account to build as and without file flags.
  - Anywhere it may be made of a tarball that is given, to which the account and a few directories are added.
  - A Debian tarball holds what every build needs, an account to build as, a C(policy-rc.d) that forbids starting services, the
    archive's lists for packages and sources, and nothing that tells which machine made it.
  - The tarball appears under its name when it is complete. A file of the same name with C(.json) appended remembers what
    it was made from.
  - As a step of P(portbuild.cluster.bindist#role) it needs no options, as they come from the C(portbuild_)
    variables; the tarball is then brought to the controller.
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
    description: A tarball that was made from the same parameters is left alone, unless O(force=true).
options:
  path:
    description:
      - Where the tarball is to be. It is compressed by gzip, whatever the name.
    type: path
    required: true
  tarball:
    description:
      - A tarball on the machine, of a system of the machine's own kind, to make it of. Nothing is fetched then.
    type: path
  release:
    description:
      - The FreeBSD release, such as V(14.3-RELEASE). By default the one that the machine runs, without its patch level.
    type: str
  suite:
    description:
      - The Debian suite, such as V(bookworm). By default the one that the machine runs.
      - A suite that the machine does not use is taken from the same mirror.
    type: str
  architecture:
    description:
      - Debian's name of the architecture. By default the machine's own.
    type: str
  components:
    description:
      - Components of the archive. By default the ones that the machine uses.
    type: list
    elements: str
    choices: [main, contrib, non-free, non-free-firmware]
    default: []
  mirror:
    description:
      - On Debian, the address of the archive to take instead of the machine's own. The security archive is still the machine's own.
      - On FreeBSD, the address that C(/releases/MACHINE/ARCH/RELEASE/base.txz) is appended to, V(https://download.freebsd.org) by default.
    type: str
  variant:
    description:
      - How much is in it. V(buildd) has everything that is build-essential; with V(minbase) each build installs that first.
    type: str
    choices: [buildd, minbase]
    default: buildd
  include:
    description:
      - More packages.
    type: list
    elements: str
    default: []
  build_user:
    description:
      - The account to build as.
    type: str
    default: builder
  build_uid:
    description:
      - Its number, and that of its group.
    type: int
    default: 1500
  proxy:
    description:
      - The HTTP proxy to download through. It does not get into the tarball.
    type: str
  force:
    description:
      - Make it anew even if it is there.
    type: bool
    default: false
seealso:
  - module: portbuild.cluster.prepare_machine
"""

EXAMPLES = r"""
- name: Make the bindist of bookworm
  portbuild.cluster.make_bindist:
    path: /var/portbuild/bindist/bookworm.tar.gz
    suite: bookworm
  become: true
"""

RETURN = r"""
path:
  description: Where the tarball is.
  returned: success
  type: str
  sample: /var/portbuild/bindist/bookworm.tar.gz
sha256:
  description: Its SHA-256. In check mode empty if it would be made.
  returned: success
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
size:
  description: Its size in bytes. In check mode 0 if it would be made.
  returned: success
  type: int
  sample: 203639240
made:
  description: When it was made, in seconds since 1970.
  returned: success
  type: float
  sample: 1760000000.0
release:
  description: The FreeBSD release that was asked for; empty for a tarball.
  returned: on FreeBSD, and with O(tarball)
  type: str
  sample: 14.3-RELEASE
osrelease:
  description: What the base says it is. Only when it was made now.
  returned: on FreeBSD, and with O(tarball)
  type: str
  sample: 14.3-RELEASE
osreldate:
  description: Its C(__FreeBSD_version); 0 where it is not FreeBSD's. Only when it was made now.
  returned: on FreeBSD, and with O(tarball)
  type: int
  sample: 1403000
origin:
  description: Where the system in it comes from.
  returned: on FreeBSD, and with O(tarball)
  type: str
  sample: https://download.freebsd.org/releases/amd64/amd64/14.3-RELEASE/base.txz
suite:
  description: The suite it was made from.
  returned: on Debian, without O(tarball)
  type: str
  sample: bookworm
architecture:
  description: Debian's name of its architecture.
  returned: on Debian, without O(tarball)
  type: str
  sample: amd64
sources:
  description: The lines of its C(sources.list).
  returned: on Debian, without O(tarball)
  type: list
  elements: str
  sample:
    - deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian bookworm main
left_out:
  description: Archives of the machine that were left out.
  returned: on Debian, without O(tarball)
  type: list
  elements: dict
  contains:
    where:
      description: The file, and the line or the stanza in it.
      type: str
      sample: /etc/apt/sources.list.d/vendor.list:1
    reason:
      description: Why.
      type: str
      sample: its origin is Vendor, not Debian
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _bindist_debian, _bindist_freebsd
from ..module_utils._bindist import find_bindist, Made
from ..module_utils._errors import PortbuildError
from ..module_utils._process import LINUX

ARGUMENTS: dict[str, t.Any] = {
    "path": {"type": "path", "required": True},
    "tarball": {"type": "path"},
    "release": {"type": "str"},
    "suite": {"type": "str"},
    "architecture": {"type": "str"},
    "components": {
        "type": "list",
        "elements": "str",
        "choices": ["main", "contrib", "non-free", "non-free-firmware"],
        "default": [],
    },
    "mirror": {"type": "str"},
    "variant": {"type": "str", "choices": ["buildd", "minbase"], "default": "buildd"},
    "include": {"type": "list", "elements": "str", "default": []},
    "build_user": {"type": "str", "default": "builder"},
    "build_uid": {"type": "int", "default": 1500},
    "proxy": {"type": "str"},
    "force": {"type": "bool", "default": False},
}


def debian(module: AnsibleModule, given: dict[str, t.Any]) -> dict[str, t.Any]:
    """Make it with mmdebstrap."""
    wish = _bindist_debian.Wish(**{name: given[name] for name in given if name in _bindist_debian.Wish._fields})
    recipe = _bindist_debian.plan_bindist(wish, module.run_command)
    made = None if module.params["force"] else find_bindist(wish.path, recipe)
    changed = made is None
    if made is None and not module.check_mode:
        made = _bindist_debian.make_bindist(wish, recipe, module.run_command)
    return {
        "changed": changed,
        "suite": recipe.suite,
        "architecture": recipe.architecture,
        "sources": recipe.sources.splitlines(),
        "left_out": [{"where": item.entry.where, "reason": item.reason} for item in recipe.skipped],
        **(made or Made(wish.path, "", 0, 0.0))._asdict(),
    }


def freebsd(module: AnsibleModule, given: dict[str, t.Any]) -> dict[str, t.Any]:
    """Make it of base.txz, or of a tarball that is given."""
    wish = _bindist_freebsd.Wish(**{name: given[name] for name in given if name in _bindist_freebsd.Wish._fields})
    recipe = _bindist_freebsd.plan_bindist(wish)
    made = None if module.params["force"] else find_bindist(wish.path, recipe)
    changed, release = made is None, None
    if made is None and not module.check_mode:
        made, release = _bindist_freebsd.make_bindist(wish, recipe)
    return {
        "changed": changed,
        "release": recipe.release,
        "origin": recipe.origin,
        **_bindist_freebsd.facts_of(release),
        **(made or Made(wish.path, "", 0, 0.0))._asdict(),
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = {name: value for name, value in module.params.items() if value is not None}
    make = debian if LINUX and "tarball" not in given else freebsd
    try:
        result = make(module, given)
    except PortbuildError as error:
        module.fail_json(msg=str(error), reason="bindist", infrastructure=True, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
