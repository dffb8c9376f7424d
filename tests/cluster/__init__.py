# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster of build machines on one machine, for tests, demonstrations and anybody's laptop.

Each client is a real sshd on its own loopback address, in PID, mount, UTS, IPC and cgroup namespaces of its own. All
state is in one directory; stopping the cluster leaves no process, mount or file. See README.md here.
"""

from __future__ import annotations

from ._cluster import Client, ClientSpec, Cluster, ClusterError, THREE_CLIENTS

__all__ = ["THREE_CLIENTS", "Client", "ClientSpec", "Cluster", "ClusterError"]
