#!/bin/sh
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Install packages of a directory in a clean chroot, from nothing but the archive and that directory, whose packages go
# before the archive's. Prints a line "PACKAGE VERSION ARCHITECTURE STATUS" for everything that is installed in the end.
# Runs in mount and PID namespaces of its own, so that nothing is left mounted or running whatever happens.
# usage: install.sh CHROOT BINDIST PACKAGES FILE...
set -eu

chroot=$1 bindist=$2 packages=$3
shift 3
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

# What is installed needs others of ours: apt finds them here, even where the archive has the same version. This source
# comes first, because packages of the same version, relations and size are one for apt.
chroot "$chroot" sh -c 'cd /packages && dpkg-scanpackages --multiversion . > Packages 2> said || { cat said; exit 1; }'
printf 'Origin: portbuild\nDate: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n %s %s Packages\n' \
    "$(sha256sum "$chroot/packages/Packages" | cut -d ' ' -f 1)" "$(stat -c %s "$chroot/packages/Packages")" \
    > "$chroot/packages/Release"
sed -i '1i deb [trusted=yes] file:/packages ./' "$chroot/etc/apt/sources.list"
printf 'Package: *\nPin: release o=portbuild\nPin-Priority: 1001\n' > "$chroot/etc/apt/preferences.d/ours"

export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$chroot" apt-get -q -o APT::Update::Error-Mode=any update
for file; do
    set -- "$@" "/packages/$file"
    shift
done
chroot "$chroot" apt-get -q -y --no-install-recommends --allow-downgrades install "$@"
[ -z "$(chroot "$chroot" dpkg --audit)" ]
echo '=== installed'
# shellcheck disable=SC2016  # the variables are dpkg-query's
chroot "$chroot" dpkg-query -W -f '${Package} ${Version} ${Architecture} ${db:Status-Status}\n'
