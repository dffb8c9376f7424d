#!/bin/sh
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What every target of the Makefile calls: finds a Python for the tools and hands over to them.
set -eu

cd "$(dirname "$0")/../.."

if [ "$(uname -s)" != Linux ] && [ "${1-}" != check-freebsd ]; then
    echo "make $*: this is $(uname -s). The test bed needs Linux (Debian 12 or newer)." >&2
    exit 2
fi

# A name on PATH may be a shim that only says which versions there are, so each is tried.
for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3 /usr/local/bin/python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-4]*/bin/python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        PYTHONPATH=tests exec "$python" -B -m tools "$@"
    fi
done
echo "make $*: no Python 3.11 or newer is on PATH, in /usr/bin, in /usr/local/bin or below pyenv's versions." >&2
exit 2
