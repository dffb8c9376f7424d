#!/bin/sh
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Install all packages of a directory in a clean chroot. Runs in mount and PID namespaces of its own, so that nothing
# is left mounted or running whatever happens.
# usage: install.sh CHROOT BINDIST PACKAGES
set -eu

chroot=$1 bindist=$2 packages=$3
mount --make-rprivate /
mkdir -p "$chroot"
tar -C "$chroot" -xpf "$bindist" --numeric-owner
mount -t proc proc "$chroot/proc"
for node in null zero full random urandom; do
    [ -e "$chroot/dev/$node" ] || : > "$chroot/dev/$node"
    mount --bind "/dev/$node" "$chroot/dev/$node"
done
cp -L /etc/resolv.conf "$chroot/etc/resolv.conf"
mkdir "$chroot/packages"
cp "$packages"/*.deb "$chroot/packages/"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$chroot" apt-get -q update
chroot "$chroot" sh -c 'apt-get -q -y --no-install-recommends install /packages/*.deb'
for file in "$packages"/*.deb; do
    name=$(dpkg-deb -f "$file" Package)
    # shellcheck disable=SC2016  # the variables are dpkg-query's
    chroot "$chroot" dpkg-query -W -f 'installed: ${Package} ${Version} ${db:Status-Status}\n' "$name"
done
