#!/bin/sh
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# One rule of the Makefile that builds packages by ssh and scp alone: take a machine that nobody uses, bring it what we
# have built of what the package needs, build there, bring the results home. Nothing of it survives a failure.
# usage: plain.sh DIRECTORY JOBS PACKAGE NEEDED...
#   DIRECTORY/machines/NAME  a file for each machine, locked while it is used; make starts no more rules than there are
#   DIRECTORY/ssh_config     how ssh gets to them
#   DIRECTORY/results/NAME   what has been built of a package
#   DIRECTORY/times          lines "PACKAGE SECONDS"
set -eu

directory=$1 jobs=$2 package=$3
shift 3
began=$(date +%s.%N)
while :; do
    for lock in "$directory"/machines/*; do
        exec 9> "$lock"
        if flock -n 9; then break 2; fi
    done
    sleep 0.1 # a rule that has just ended still holds it
done
machine=${lock##*/}
job=/srv/plain/jobs/$package

ssh -F "$directory/ssh_config" "$machine" "mkdir -p $job/debs"
for needed; do
    shift
    set -- "$@" "$directory/results/$needed"/*.deb
done
[ $# = 0 ] || scp -q -F "$directory/ssh_config" "$@" "$machine:$job/debs"
ssh -F "$directory/ssh_config" "$machine" "sh /srv/plain/build.sh $jobs $package"
mkdir "$directory/results/$package"
scp -q -F "$directory/ssh_config" "$machine:$job/results/*" "$directory/results/$package"
ssh -F "$directory/ssh_config" "$machine" "rm -rf $job"
echo "$package $(date +%s.%N) $began" | awk '{ printf "%s %.1f\n", $1, $2 - $3 }' >> "$directory/times"
