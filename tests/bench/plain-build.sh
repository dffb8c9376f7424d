#!/bin/sh
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What plain.sh runs on the machine, as root: a package of the archive, in an overlay over the base, with the packages in
# debs/ before the archive's. A machine builds one package at a time, so its downloads are kept in one directory.
# usage: build.sh JOBS PACKAGE           build it, with so many make jobs
#        build.sh download PACKAGE...    only download all that these take, and keep nothing of it
#   /srv/plain/base is the base system
set -eu

if [ -z "${PLAIN-}" ]; then
    PLAIN=1 exec unshare --mount --pid --ipc --fork --kill-child sh "$0" "$@"
fi
jobs=$1 package=$2
shift
job=/srv/plain/jobs/$package
root=$job/root
mount --make-rprivate /
mkdir -p "$root" "$job/upper" "$job/work" "$job/results" "$job/debs" /srv/plain/archives/partial
mount -t overlay overlay -o "lowerdir=/srv/plain/base,upperdir=$job/upper,workdir=$job/work" "$root"
mount -t proc proc "$root/proc"
for node in null zero full random urandom; do
    [ -e "$root/dev/$node" ] || : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
[ "$jobs" = download ] || mount --bind /srv/plain/archives "$root/var/cache/apt/archives"

if [ -n "$(ls "$job/debs")" ]; then
    mkdir "$root/debs"
    mount --bind "$job/debs" "$root/debs"
    chroot "$root" sh -c 'cd /debs && dpkg-scanpackages . > Packages'
    printf 'Origin: plain\nDate: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n %s %s Packages\n' \
        "$(sha256sum "$job/debs/Packages" | cut -d ' ' -f 1)" "$(stat -c %s "$job/debs/Packages")" > "$job/debs/Release"
    sed -i '1i deb [trusted=yes] file:/debs ./' "$root/etc/apt/sources.list"
    printf 'Package: *\nPin: release o=plain\nPin-Priority: 1001\n' > "$root/etc/apt/preferences.d/plain"
fi
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
builder() { chroot "$root" setpriv --reuid=builder --regid=builder --init-groups sh -c "cd /build && $1"; }
chroot "$root" apt-get -q update
if [ "$jobs" = download ]; then
    chroot "$root" apt-get -q -y --download-only build-dep "$@"
    chroot "$root" sh -c 'cd /var/tmp && apt-get -q --download-only --only-source source "$@"' sh "$@"
    exit
fi
builder "HOME=/build apt-get -q --only-source source $package"
source=$(find "$root/build" -mindepth 1 -maxdepth 1 -type d)
source=${source##*/}
chroot "$root" apt-get -q -y --allow-downgrades build-dep "/build/$source"
builder "cd $source && HOME=/build DEB_BUILD_OPTIONS=parallel=$jobs dpkg-buildpackage -us -uc -b"
find "$root/build" -maxdepth 1 -type f \( -name '*.deb' -o -name '*.changes' -o -name '*.buildinfo' \) \
    -exec cp -t "$job/results" {} +
