# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The FreeBSD system calls that Python has no names for.

Importing this module is harmless everywhere; calling it elsewhere than on FreeBSD is an error.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os

_P_PID = 0
_PROC_PDEATHSIG_CTL = 11


@functools.cache
def _libc() -> ctypes.CDLL:
    if os.uname().sysname != "FreeBSD":
        raise OSError(errno.ENOSYS, "not a FreeBSD system")
    return ctypes.CDLL(None, use_errno=True)


def set_parent_death_signal(signal: int) -> None:
    """Have this signal sent to this process when its parent dies. Executing a set-uid program forgets it."""
    wanted = ctypes.c_int(signal)
    call = _libc().procctl
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int, ctypes.c_void_p]
    if call(_P_PID, 0, _PROC_PDEATHSIG_CTL, ctypes.byref(wanted)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"parent death signal: {os.strerror(number)}")
