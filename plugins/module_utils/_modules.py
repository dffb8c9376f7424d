# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the client halves of the steps share: the lease argument, and how a failure becomes a result."""

from __future__ import annotations

import contextlib
import errno
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ._backends import BackendUnusable
from ._bases import BadBase, BaseMissing, TreeMissing
from ._beneath import UnsafeFile
from ._chroots import BadMarker, ChrootBusy, ChrootMissing, ForeignChroot, MachineFull, StaleToken
from ._errors import PortbuildError
from ._files import NewerFile
from ._isolation import BaseRefused
from ._names import BadName, Job
from ._tarballs import BadTarball
from ._trees import UnsafePath

LEASE_ARGUMENT: dict[str, t.Any] = {
    "type": "dict",
    "required": True,
    "options": {
        "arch": {"type": "str", "required": True},
        "branch": {"type": "str", "required": True},
        "package": {"type": "str", "required": True},
        "machine": {"type": "str"},
        "queue": {"type": "str", "required": True},
        "token": {"type": "int", "required": True, "no_log": False},
    },
}

SCRATCH_ARGUMENT: dict[str, t.Any] = {"type": "path", "default": "/var/portbuild"}

# The word for programs, and whether the machine is to blame, so that the job is tried elsewhere.
_REASONS: tuple[tuple[type[PortbuildError], str, bool], ...] = (
    (MachineFull, "machine_full", True),
    (StaleToken, "stale", False),
    (ForeignChroot, "foreign_chroot", True),
    (ChrootMissing, "chroot_missing", True),
    (ChrootBusy, "chroot_busy", True),
    (BadMarker, "bad_marker", True),
    (NewerFile, "newer_file", True),
    (BaseMissing, "base_missing", True),
    (TreeMissing, "tree_missing", True),
    (BadBase, "bad_base", True),
    (BadTarball, "bad_tarball", False),
    (BaseRefused, "bad_base", True),
    (BackendUnusable, "backend", True),
    (UnsafePath, "unsafe_path", True),
    (UnsafeFile, "unsafe_path", True),
    (BadName, "name", False),
)


def lease_job(lease: dict[str, t.Any]) -> Job:
    """Return the job of the lease, checked."""
    return Job.checked(lease["arch"], lease["branch"], lease["package"])


class ClientStep(t.NamedTuple):
    """The client half of a step: what it takes, and what it does with that. The flag says that it only looks."""

    arguments: dict[str, t.Any]
    do: t.Callable[[dict[str, t.Any], bool], dict[str, t.Any]]


def carry_out(module: AnsibleModule, step: ClientStep, params: dict[str, t.Any]) -> None:
    """Do the step, and end the module with its result."""
    with failing_properly(module):
        module.exit_json(**step.do(params, module.check_mode))


@contextlib.contextmanager
def failing_properly(module: AnsibleModule) -> t.Iterator[None]:
    """Turn foreseen failures in the block into the module's failure, with a reason that programs understand."""
    try:
        yield
    except PortbuildError as error:
        found = next(((reason, blame) for kind, reason, blame in _REASONS if isinstance(error, kind)), ("client", True))
        answer: dict[str, t.Any] = {"reason": found[0], "infrastructure": found[1], **error.details}
        module.fail_json(msg=str(error), **answer)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        module.fail_json(
            msg=f"The machine failed: {error}.", reason="machine_disk_full" if full else "client", infrastructure=True
        )
