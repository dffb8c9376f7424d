# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# For GNU make and BSD make. Each target is one call of a script; needs git, make and Python 3.11 or newer with venv,
# on Debian 12 or newer, as root or as a user with sudo that asks for no password.

.PHONY: help demo test test-long lint format docs cluster cluster-stop bench bench-bulk bench-dispatch bench-schedule \
    bench-index bench-classify soak clean check-freebsd release

help:
	@echo 'make demo            build real packages in bulk on a cluster of two machines, and show what came of it'
	@echo 'make test            unit tests on two Pythons, then everything against a cluster of three machines'
	@echo 'make test-long       the tests that take minutes each, and the unit tests on the other Pythons'
	@echo 'make lint            the quality gates'
	@echo 'make format          format the Python files'
	@echo 'make docs            the guides and the reference in HTML, in .cache/docs/html'
	@echo 'make cluster         start three build machines on loopback addresses and print their inventory'
	@echo 'make cluster-stop    stop them, leaving nothing behind'
	@echo 'make bench           all benchmarks'
	@echo 'make bench-bulk      real packages in bulk, by sbuild one by one, and by make and ssh (PORTBUILD_BENCH_PACKAGES=N)'
	@echo 'make bench-dispatch  what one dispatch costs'
	@echo 'make bench-schedule  what the order of a schedule is worth, and what a decision costs'
	@echo 'make bench-index     what it costs to learn what a whole tree can build'
	@echo 'make bench-classify  how often the class of a failure is told rightly, and what it costs'
	@echo 'make soak            break a cluster at random for PORTBUILD_SOAK_MINUTES, at least 200 times, and look what is left'
	@echo 'make check-freebsd   the acceptance on a FreeBSD host: HOST=NAME [INVENTORY=PATH ...], see docs/freebsd.md'
	@echo 'make release         changelog, artifact, and its test: everything but the upload, see docs/releasing.md'
	@echo 'make clean           stop the cluster and remove everything that these targets made'

demo test test-long lint format docs cluster cluster-stop bench bench-bulk bench-dispatch bench-schedule bench-index \
    bench-classify soak release clean:
	@sh tests/tools/make.sh $@

# BSD make hands variables of its command line to other makes, not to scripts.
check-freebsd:
	@CHECK_HOST='$(HOST)' CHECK_INVENTORY='$(INVENTORY)' CHECK_TREE='$(TREE)' CHECK_PKG='$(PKG)' \
	    CHECK_BINDIST='$(BINDIST)' CHECK_MIRROR='$(MIRROR)' CHECK_BACKEND='$(BACKEND)' CHECK_SCRATCH='$(SCRATCH)' \
	    sh tests/tools/make.sh $@
