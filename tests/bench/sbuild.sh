#!/bin/sh
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Build packages with sbuild in unshare mode, one by one, each with the results of those before it to build with, as an
# ordinary user who exists here only. Runs as root in mount and PID namespaces of its own, in a directory that the caller
# removes. Of each package it says when it ended: "=== PACKAGE built|failed SECONDS".
# usage: sbuild.sh DIRECTORY TARBALL SUITE JOBS PACKAGE...
set -eu

directory=$1 tarball=$2 suite=$3 jobs=$4
shift 4
id=61234
mount --make-rprivate /
for file in passwd group subuid subgid; do
    cp "/etc/$file" "$directory/$file" 2> /dev/null || : > "$directory/$file"
    touch "/etc/$file"
done
echo "pbbench:x:$id:$id::$directory/home:/bin/sh" >> "$directory/passwd"
echo "pbbench:x:$id:" >> "$directory/group"
echo "pbbench:6123456:65536" | tee -a "$directory/subuid" >> "$directory/subgid"
for file in passwd group subuid subgid; do
    mount --bind "$directory/$file" "/etc/$file"
done
mkdir -m 755 "$directory/home"
mkdir -m 1777 "$directory/tmp"
chown "$id:$id" "$directory/home"
chmod 755 "$directory"
mount --bind "$directory/tmp" /tmp
cd "$directory/home"
status=0
for package; do
    began=$(date +%s)
    result=built
    setpriv --reuid="$id" --regid="$id" --clear-groups -- \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$directory/home" USER=pbbench LOGNAME=pbbench LC_ALL=C.UTF-8 \
        DEB_BUILD_OPTIONS="parallel=$jobs" \
        sbuild --chroot-mode=unshare --chroot="$tarball" --dist="$suite" --batch --verbose --no-source \
        --no-run-lintian --no-run-autopkgtest --no-run-piuparts --extra-package="$directory/home" "$package" ||
        result=failed status=1
    echo "=== $package $result $(($(date +%s) - began))"
done
exit "$status"
