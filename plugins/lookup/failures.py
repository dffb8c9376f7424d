# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A view of the failure record: packages whose last build failed, since when, and why."""

from __future__ import annotations

DOCUMENTATION = r"""
name: failures
author:
  - The portbuild.cluster authors (@portbuild)
version_added: 1.0.0
short_description: Look at the failure record of a branch
description:
  - Returns for each package of a branch whose last build failed since when and how often it has, the class of the last
    failure with the line of the log that tells it, and when it was built last.
  - Failures of the infrastructure are not in it. A package leaves it when it is built.
  - It only looks. The record is written by M(portbuild.cluster.record_result).
options:
  _terms:
    description:
      - Names of packages, or patterns of names with V(*), V(?) and V([...]).
      - Without any, all failures are returned. The latest failure comes first.
      - A package that does not fail is left out.
    type: list
    elements: str
  root:
    description: The directory that holds the state of all arches on the controller.
    type: path
    required: true
    vars:
      - name: portbuild_root
  arch:
    description: The target architecture.
    type: str
    required: true
    vars:
      - name: portbuild_arch
  branch:
    description: The branch.
    type: str
    required: true
    vars:
      - name: portbuild_branch
notes:
  - A lookup in a task is evaluated anew at every use and in every iteration of a loop, so two uses may differ.
seealso:
  - module: portbuild.cluster.record_result
  - plugin: portbuild.cluster.queue
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Show which packages lack a header
  ansible.builtin.debug:
    msg: "{{ item.package }}: {{ item.line }}"
  loop: "{{ query('portbuild.cluster.failures') | selectattr('failure_class', 'eq', 'missing_header') }}"
  loop_control:
    label: "{{ item.package }}"

- name: Stop when a library of ours does not build
  ansible.builtin.assert:
    that: query('portbuild.cluster.failures', 'libfoo*', arch='amd64', branch='14') | length == 0
"""

RETURN = r"""
_raw:
  description: The failures.
  type: list
  elements: dict
  contains:
    package:
      description: The package.
      type: str
      sample: hello
    first:
      description: When it failed the first time since it was built last, in seconds since 1970.
      type: float
      sample: 1795334400.0
    last:
      description: When it failed the last time.
      type: float
      sample: 1795420800.0
    count:
      description: How often it has failed in a row.
      type: int
      sample: 3
    failure_class:
      description: Why it failed the last time, in a word.
      type: str
      sample: missing_header
    phase:
      description: In which phase.
      type: str
      sample: build
    detail:
      description: What the supervisor said of it.
      type: str
      sample: The step build failed with exit status 2.
    line_number:
      description: Number of the line of the log that tells the class, V(0) if there is none.
      type: int
      sample: 120
    line:
      description: The line.
      type: str
      sample: "main.c:1:10: fatal error: nowhere.h: No such file or directory"
    log:
      description: Path of the log of the last failure.
      type: str
      sample: /var/portbuild/amd64/14/errors/hello.log
    last_success:
      description: When it was built last, none if it never was.
      type: float
      sample: 1795248000.0
    average_seconds:
      description: How long its last successful builds took, none if there is none.
      type: float
      sample: 34.2
"""

import fnmatch
import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..module_utils._errors import PortbuildError
from ..plugin_utils._layout import Layout
from ..plugin_utils._lookup import own_variables
from ..plugin_utils._store import SqliteStore, Store


def describe(store: Store, layout: Layout, patterns: t.Sequence[str]) -> list[dict[str, t.Any]]:
    """Return the failures of the packages that these patterns name, all without any, as documented above."""
    averages = store.durations()
    return [
        {
            "package": failure.package,
            "first": failure.first,
            "last": failure.last,
            "count": failure.times,
            "failure_class": failure.failure_class,
            "phase": failure.phase,
            "detail": failure.detail,
            "line_number": failure.line_number,
            "line": failure.line,
            "log": layout.error(failure.package),
            "last_success": failure.last_success,
            "average_seconds": averages.get(failure.package),
        }
        for failure in store.failures()
        if not patterns or any(fnmatch.fnmatchcase(failure.package, pattern) for pattern in patterns)
    ]


class LookupModule(LookupBase):
    """The lookup portbuild.cluster.failures."""

    def run(
        self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any
    ) -> list[dict[str, t.Any]]:
        self.set_options(var_options=own_variables(self._templar, variables), direct=kwargs)
        try:
            layout = Layout(*(self.get_option(name) for name in ("root", "arch", "branch")))
            return describe(SqliteStore(layout.database), layout, [str(term) for term in terms])
        except PortbuildError as error:
            raise AnsibleLookupError(str(error)) from error
