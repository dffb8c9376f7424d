# shellcheck shell=sh
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What the scripts of the cases have in common.

# A C program that does nothing wrong, in the file of this name.
good_c() { printf '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n' > "${1:-main.c}"; }

# A Makefile of old: all, check, install.
good_makefile() {
    cat > Makefile << 'END'
all: hello
hello: main.o
	$(CC) $(LDFLAGS) -o $@ $^
main.o: main.c
	$(CC) $(CFLAGS) -c -o $@ main.c
install: all
	install -D hello $(DESTDIR)/usr/bin/hello
clean:
	rm -f hello *.o
END
}

# The files of a Debian source package around what is here.
debian() {
    mkdir -p debian/source
    printf '3.0 (native)\n' > debian/source/format
    printf 'hello (1.0) unstable; urgency=low\n\n  * First.\n\n -- A Builder <builder@example.org>  %s\n' \
        'Sun, 01 Nov 2026 12:00:00 +0000' > debian/changelog
    cat > debian/control << 'END'
Source: hello
Section: misc
Priority: optional
Maintainer: A Builder <builder@example.org>
Build-Depends: debhelper-compat (= 13)
Rules-Requires-Root: no
Standards-Version: 4.6.2

Package: hello
Architecture: any
Depends: ${shlibs:Depends}, ${misc:Depends}
Description: greets
 It greets.
END
    printf '#!/usr/bin/make -f\n%%:\n\tdh $@\n' > debian/rules
    chmod +x debian/rules
}

build_debian() { dpkg-buildpackage -us -uc -b "$@"; }

# A port with these lines in its Makefile, and its build by the double of bsd.port.mk (tests/ports).
port() {
    mkdir -p /build/ports/devel/hello /build/distfiles /build/packages
    cp -r /build/double/. /build/ports/
    {
        printf 'PORTNAME= hello\nPORTVERSION= 1.0\nCATEGORIES= devel\nCOMMENT= Greets\n'
        cat
        printf '.include "../../Mk/bsd.port.mk"\n'
    } > /build/ports/devel/hello/Makefile
    bmake -C /build/ports/devel/hello PORTSDIR=/build/ports DISTDIR=/build/distfiles PACKAGES=/build/packages \
        WRKDIRPREFIX=/build/wrk PKG=/build/ports/ports-mgmt/pkg/files/pkg "${1:-package}"
}
