#!/bin/sh
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Stands for ssh, sftp or scp, which it writes down in the file that PORTBUILD_BENCH_CALLS names before it becomes it.
# It is called through links named ssh, sftp and scp.
set -eu

program=${0##*/}
kind='command'
case $program in
    ssh) for argument; do [ "$argument" != -O ] || kind=control; done ;;
    *) kind=transfer ;;
esac
echo "$kind" >> "$PORTBUILD_BENCH_CALLS"
PATH=/usr/local/bin:/usr/bin:/bin
exec "$program" "$@"
