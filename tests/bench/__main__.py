# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All benchmarks, one after the other: what C(make bench) calls."""

from __future__ import annotations

import subprocess
import sys

from . import schedule

BENCHMARKS = ("bench_queue", "dispatch", "index", "classify", "bulk")


def main() -> int:
    """Run them all, even if one fails; 0 when none did."""
    failed = []
    recorded = schedule.is_there(schedule.place())
    if not recorded:
        print(f"Without bench-schedule: there is no recorded build in {schedule.place()}.", flush=True)
    for name in (*BENCHMARKS, "schedule") if recorded else BENCHMARKS:
        print(f"\n>>> {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
