# shellcheck shell=sh
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The build of one Debian source package: /bin/sh build.sh STEP [ITEM], run by the supervisor in the chroot.
#
# Exit status 0: done. 75: the archive or the way to it is at fault, not the package. Anything else: the package is.
#
# What to build comes from the environment (see _debian.py):
#   PB_PACKAGE         source package
#   PB_VERSION         the version asked for, or empty
#   PB_ORIGIN          archive | dsc | tree: where the source comes from
#   PB_INPUT           for dsc and tree: the .dsc or the tarball in inputs/
#   PB_BUILD           what dpkg-buildpackage is to build: any, all, or any,all
#   PB_VERSION_SUFFIX  makes a binary-only changelog entry, so that a rebuild upgrades the archive's version
#   PB_CHECK           on: check each binary package; first: only the first
#   PB_IGNORE          extended regular expressions, one a line, of paths that always change
#   PB_BUILD_USER      who builds
#   PB_MAXJOBS         how many jobs share the machine: make jobs are counted from it, unless DEB_BUILD_OPTIONS says
#   DEB_BUILD_OPTIONS, DEB_BUILD_PROFILES  as dpkg-buildpackage takes them; in network steps http_proxy, https_proxy

set -eu
umask 022
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true APT_LISTCHANGES_FRONTEND=none

pb=/portbuild
out=$pb/out
state=/var/lib/portbuild # root's: a build cannot change what it says
work=/build/work
source=$work/$PB_PACKAGE
results=/build/results
distfiles=/build/distfiles
archives=/var/cache/apt/archives
tab=$(printf '\t')

say() { printf '%s\n' "portbuild: $*"; }
fail() { say "$*"; exit 1; }
soft() { say "$*" >&2; exit 75; } # what it is called in may keep its output to itself

# --- apt ------------------------------------------------------------------------------------------------------------

# Ask the archive for what is new, once in the life of this tree. The base brings its lists along.
update_lists() {
    [ ! -e "$state/updated" ] || return 0
    apt-get -q -o APT::Update::Error-Mode=any update || soft 'The lists of the archive could not be updated.'
    : > "$state/updated"
}

# Offer the flat repository in a directory before the archive's packages: offer NAME DIRECTORY PRIORITY
# Its line comes first: packages of the same version, relations and size are one for apt, whatever their content, and the
# file is taken from the source that it has read first.
offer() {
    [ -s "$2/Packages" ] && [ ! -e "$state/$1.list" ] || return 0
    printf 'deb [trusted=yes] file:%s ./\n' "$2" > "$state/$1.list"
    cat "$state/$1.list" /etc/apt/sources.list > "$state/sources.list"
    cat "$state/sources.list" > /etc/apt/sources.list
    printf 'Package: *\nPin: release o=%s\nPin-Priority: %s\n' "$1" "$3" > "/etc/apt/preferences.d/$1"
    # Without making apt's cache, which would hold nothing else: the next command makes one of all lists.
    apt-get -qq --no-list-cleanup -o pkgCacheFile::Generate=false -o Dir::Etc::SourceParts=- \
        -o "Dir::Etc::SourceList=$state/$1.list" update || soft "The index of $2 cannot be read."
}

offer_ours() { offer portbuild "$pb/repo" 1001; }

# Append to the list of wanted files what apt would download: plan APT-GET-ARGUMENT...
# A line of the list: URI, file name, SHA-256.
plan() {
    apt-get -qq -o Acquire::ForceHash=SHA256 --allow-downgrades --print-uris "$@" > "$state/uris" 2> "$state/errors" || {
        cat "$state/uris" "$state/errors"
        return 1
    }
    sed -n "s/^'\([^']*\)' \([^ ]*\) [0-9]* SHA256:\([0-9a-f]*\)\$/\1 \2 \3/p" "$state/uris" >> "$state/wanted"
    # A line that is not understood must not be lost: the installation would miss it without a network.
    ! grep "^'" "$state/uris" | grep -v ' SHA256:[0-9a-f]*$' || soft 'apt does not tell the SHA-256 of these files.'
}

# Plan with the lists that the base brought along; ask the archive for newer ones only where they do not do, as that
# takes longer than the rest: resolve FUNCTION, which calls plan.
resolve() {
    : > "$state/wanted"
    "$1" > "$state/said" || renew "$1"
}

# Plan with the archive's newest lists; fails where these were used already: renew FUNCTION
renew() {
    if [ -e "$state/updated" ]; then
        cat "$state/said"
        return 1
    fi
    update_lists
    : > "$state/wanted"
    "$1"
}

# Which of our packages are wanted: tell the supervisor, which puts them into repo/.
ask_for_ours() {
    sed -n "s|^file:$pb/repo/.* \([0-9a-f]*\)\$|\1|p" "$state/wanted" | sort -u > "$state/ours"
    [ -s "$state/ours" ] || return 0
    awk 'FILENAME != ARGV[2] { wanted[$1] = 1; next }
         $1 == "Filename:" { name = $2; sub(/^\.\//, "", name) }
         $1 == "SHA256:" { sum = $2 }
         $0 == "" { if (sum in wanted) print name, sum; name = sum = "" }
         END { if (sum in wanted) print name, sum }' "$state/ours" "$pb/repo/Packages" > "$out/needs"
    say "$(grep -c . "$out/needs") of our own packages are wanted."
}

# Get the archive's files that this machine does not have yet; each is named by its SHA-256, which apt has verified.
# download FUNCTION COMMAND: what planned them. What the lists of the base name may have vanished from the archive; then it
# plans anew with the newest. COMMAND says that with these there is no way.
download() {
    sort -u "$state/wanted" | grep -v '^file:' > "$state/fetch" || return 0
    rm -rf "$out/archives" # may be what a build left there
    install -d "$out/archives"
    install -d -o _apt "$out/archives/new"
    while read -r uri _ sum; do
        [ -e "$pb/archives/$sum" ] || printf '%s\n' "$uri" "$out/archives/new/$sum" "SHA256:$sum"
    done < "$state/fetch" > "$state/arguments"
    if [ -s "$state/arguments" ]; then
        say "$(grep -c '^SHA256:' "$state/arguments") files to download."
        xargs -n 300 /usr/lib/apt/apt-helper -q download-file < "$state/arguments" || {
            [ ! -e "$state/updated" ] || soft 'A file of the archive could not be downloaded.'
            if renew "$1"; then download "$@"; else "$2"; fi
            return
        }
        mv "$out/archives/new/"* "$out/archives/"
        sed -n 's/^SHA256:\(.*\)/\1 \1/p' "$state/arguments" > "$out/archives.list"
    fi
    rmdir "$out/archives/new"
}

# Where a file of the archive is: the machine's cache, or where the download left it.
located() {
    if [ -e "$pb/archives/$1" ]; then echo "$pb/archives/$1"; else echo "$out/archives/$1"; fi
}

# Let apt find what was downloaded.
link_archives() {
    [ -e "$state/fetch" ] || return 0
    while read -r _ name sum; do
        ln -sfn "$(located "$sum")" "$archives/$name"
    done < "$state/fetch"
}

# Everything is there: a download would be a mistake, and without a network a slow one.
offline() {
    apt-get -q -y --allow-downgrades -o Acquire::Retries=0 "$@"
}

# Installed packages that a package of ours replaces: build dependencies of every build, by Policy.
replaced() {
    [ -s "$pb/repo/Packages" ] || return 0
    sed -n 's/^Package: //p' "$pb/repo/Packages" | sort -u > "$state/names"
    dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' | sed -n 's/^ii *//p' | sort -u | comm -12 - "$state/names"
}

# --- fetch ----------------------------------------------------------------------------------------------------------

plan_source() { plan --only-source source -- "$PB_PACKAGE${PB_VERSION:+=$PB_VERSION}"; }
vanished() { soft 'What the lists of the base name is not in the archive any more.'; }

# The source, downloaded along the archive's chain of signatures.
step_fetch() {
    install -d -o "$PB_BUILD_USER" "$distfiles"
    offer_ours # before apt makes its cache: once is enough
    resolve plan_source || fail "The archive has no source package $PB_PACKAGE${PB_VERSION:+ $PB_VERSION}."
    download plan_source vanished
    while read -r _ name sum; do
        cp "$(located "$sum")" "$distfiles/$name"
    done < "$state/fetch"
    rm "$state/fetch" # for apt these are no archives
    chown -R "$PB_BUILD_USER" "$distfiles"
}

# The source of the package, unpacked for the build user. dpkg-source compares the files with the checksums in the .dsc.
step_unpack() {
    mkdir -p "$work" "$distfiles" "$results"
    case $PB_ORIGIN in
        archive)
            dsc=$(find "$distfiles" -maxdepth 1 -name '*.dsc')
            dpkg-source -x "$dsc" "$source"
            ;;
        dsc)
            find "$pb/inputs" -maxdepth 1 -type f -exec cp -t "$distfiles" {} +
            dpkg-source -x "$distfiles/$PB_INPUT" "$source"
            ;;
        tree)
            mkdir "$source"
            tar -xf "$pb/inputs/$PB_INPUT" -C "$source" --no-same-owner
            ;;
    esac
    cd "$source"
    name=$(dpkg-parsechangelog -S Source)
    [ "$name" = "$PB_PACKAGE" ] || fail "The source calls itself $name, not $PB_PACKAGE."
    version=$(dpkg-parsechangelog -S Version)
    [ -z "$PB_VERSION" ] || [ "$version" = "$PB_VERSION" ] || fail "The source has version $version, not $PB_VERSION."
    say "Source package $name, version $version."
    {
        printf 'version %s\n' "$version"
        sed -n 's/^Maintainer:[[:space:]]*/maintainer /p' debian/control | head -n 1
    } > "$out/about"
}

# --- depends --------------------------------------------------------------------------------------------------------

# What of the build dependencies counts: dpkg-checkbuilddeps's option, or apt-get's.
parts() {
    case $1:$PB_BUILD in
        dpkg:any) echo -B ;;
        dpkg:all) echo -A ;;
        apt:any) echo --arch-only ;;
        apt:all) echo --indep-only ;;
    esac
}

plan_depends() {
    if [ -s "$state/replaced" ]; then
        # shellcheck disable=SC2046 # names of packages have no spaces
        plan --only-upgrade install -- $(cat "$state/replaced") || return 1
    fi
    # shellcheck disable=SC2046 # one option or none
    plan $(parts apt) build-dep -- "$source"
}

unsatisfied() { fail 'The build dependencies cannot be satisfied.'; }

step_depends_download() {
    offer_ours
    replaced > "$state/replaced"
    cd "$source"
    # shellcheck disable=SC2046 # one option or none
    if [ ! -s "$state/replaced" ] && dpkg-checkbuilddeps $(parts dpkg) 2> /dev/null; then
        say 'All build dependencies are in the base.'
        return
    fi
    resolve plan_depends || unsatisfied
    : > "$state/depends"
    download plan_depends unsatisfied
    ask_for_ours
}

step_depends_install() {
    [ -e "$state/depends" ] || return 0
    link_archives
    if [ -s "$state/replaced" ]; then
        # shellcheck disable=SC2046
        offline --only-upgrade install -- $(cat "$state/replaced")
    fi
    # shellcheck disable=SC2046
    offline $(parts apt) build-dep -- "$source"
}

# --- build ----------------------------------------------------------------------------------------------------------

step_build() {
    cd "$source"
    if [ "$PB_BUILD" = any ] && ! grep -i '^Architecture:' debian/control | grep -qvi '^Architecture: *all *$'; then
        fail 'All its packages are architecture-independent, and this arch does not build such (portbuild_build_indep).'
    fi
    [ -z "$PB_VERSION_SUFFIX" ] || add_suffix
    case $DEB_BUILD_OPTIONS in
        *parallel=*) ;;
        *) DEB_BUILD_OPTIONS="parallel=$(make_jobs)${DEB_BUILD_OPTIONS:+ $DEB_BUILD_OPTIONS}" ;;
    esac
    export DEB_BUILD_OPTIONS
    dpkg-buildpackage -us -uc "--build=$PB_BUILD"
    gather
}

# This job's share of the machine.
make_jobs() {
    jobs=$(($(nproc) / PB_MAXJOBS))
    if [ "$jobs" -gt 1 ]; then echo "$jobs"; else echo 1; fi
}

# A binary-only entry: dpkg takes the version from it, and the source's version from the one below. It has the time of
# that one, so that two builds of the same source are the same.
add_suffix() {
    version=$(dpkg-parsechangelog -S Version)$PB_VERSION_SUFFIX
    distribution=$(dpkg-parsechangelog -S Distribution)
    date=$(dpkg-parsechangelog -S Date)
    {
        printf '%s (%s) %s; urgency=low, binary-only=yes\n\n' "$PB_PACKAGE" "$version" "$distribution"
        printf '  * Binary-only rebuild; no source changes.\n\n'
        printf ' -- portbuild <portbuild@localhost>  %s\n\n' "$date"
        cat debian/changelog
    } > "$work/changelog"
    cat "$work/changelog" > debian/changelog
    rm "$work/changelog"
}

# Lines "SHA-256 size name" of a .changes file.
listed() {
    awk '/^[^ ]/ { inside = ($1 == "Checksums-Sha256:"); next } inside && NF == 3 { print $1, $2, $3 }' "$1"
}

# Move what the .changes file lists to where it is collected.
gather() {
    for changes in "$work"/*.changes; do
        [ -f "$changes" ] || fail 'The build made no .changes file.'
        listed "$changes" | while read -r _ _ name; do
            mv "$work/$name" "$results/"
        done
        mv "$changes" "$results/"
    done
    ls -l "$results"
}

# --- check ----------------------------------------------------------------------------------------------------------

# What the .deb says of itself: field ITEM NAME
field() { dpkg-deb -f "$pb/staged/$1" "$2"; }

# Only the first package of the build, where the branch is satisfied with that.
is_checked() {
    [ "$PB_CHECK" = first ] || return 0
    first=$(find "$pb/staged" -maxdepth 1 -name '*.deb' ! -name '*-dbgsym_*' | sort | head -n 1)
    [ "$first" = "$pb/staged/$1" ]
}

is_debug() {
    case $1 in
        *-dbgsym_* | *-dbg_*) return 0 ;;
    esac
    [ "$(field "$1" Section)" = debug ]
}

# What it needs to be installed.
depends_of() {
    first=$(field "$1" Pre-Depends)
    second=$(field "$1" Depends)
    printf '%s' "$first${first:+${second:+, }}$second" | tr '\n' ' '
}

# The installed packages satisfy a list of relations.
is_satisfied() {
    printf 'Source: x\nBuild-Depends: x\n\nPackage: x\nArchitecture: any\n' > "$state/control"
    dpkg-checkbuilddeps -I -d "$1" -c '' "$state/control" 2> /dev/null
}

# Offer the other results of this build, before any older ones of them.
offer_siblings() {
    names=$(find "$pb/staged" -maxdepth 1 -name '*.deb' -exec sh -c 'dpkg-deb -f "$1" Package' - {} \;)
    for name in $names; do
        case " $(printf '%s' "$1" | tr -cs 'a-z0-9+.-' ' ') " in
            *" $name "*) ;;
            *) continue ;;
        esac
        install -d "$state/siblings"
        ln -sf "$pb"/staged/*.deb "$state/siblings/"
        (cd "$state/siblings" && dpkg-scanpackages -m . 2> /dev/null > Packages)
        printf 'Origin: portbuild-siblings\nDate: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n %s %s Packages\n' \
            "$(sha256sum < "$state/siblings/Packages" | cut -d ' ' -f 1)" \
            "$(stat -c %s "$state/siblings/Packages")" > "$state/siblings/Release"
        offer portbuild-siblings "$state/siblings" 1002
        return
    done
}

report() { printf '%s\t%s\n' "$1" "$2" >> "$out/leftovers"; }

# The relations are what a hostile package says: never an option.
plan_relations() { plan satisfy -- "$(cat "$state/relations")"; }

uninstallable() {
    report uninstallable "$(tr -s '\n' ' ' < "$state/errors" | cut -c 1-500)"
    : > "$state/uninstallable"
}

step_check_download() {
    is_checked "$1" || return 0
    ! is_debug "$1" || return 0
    relations=$(depends_of "$1")
    if [ -z "$relations" ] || is_satisfied "$relations"; then
        return
    fi
    printf '%s' "$relations" > "$state/relations"
    offer_ours
    offer_siblings "$relations"
    if ! resolve plan_relations; then
        uninstallable
        return
    fi
    download plan_relations uninstallable
    ask_for_ours
}

step_check_run() {
    if ! is_checked "$1"; then
        say "$1 is not checked: only the first package is."
        return
    fi
    if is_debug "$1"; then
        check_debug "$1"
        return
    fi
    if [ -e "$state/uninstallable" ]; then
        say "$1 cannot be installed: its dependencies cannot be satisfied."
        return
    fi
    if [ -e "$state/relations" ]; then
        link_archives
        offline satisfy -- "$(cat "$state/relations")"
    fi
    name=$(field "$1" Package)
    essential=$(field "$1" Essential)
    before=$(dpkg-query -W -f '${db:Status-Abbrev}' -- "$name" 2> /dev/null || :)
    snapshot "$state/before"
    if dpkg --no-act --install "$pb/staged/$1" > /dev/null 2>&1; then
        dpkg --install "$pb/staged/$1"
    else
        offline install -- "$pb/staged/$1" # something conflicts with it: apt finds out what has to go
    fi
    snapshot "$state/installed"
    compare "$state/before" "$state/installed" privileged
    case $essential:$before in
        yes:* | *:ii*)
            say "$1 belongs to the base or to its own dependencies: checked by upgrading only."
            return
            ;;
    esac
    dpkg --purge -- "$name"
    snapshot "$state/after"
    compare "$state/before" "$state/after" leftovers
}

# Installing debugging symbols tells nothing: look where the files are.
check_debug() {
    dpkg-deb --fsys-tarfile "$pb/staged/$1" | tar -t | sed -n 's|^\./|/|p' | grep -v '/$' |
        grep -Ev '^/usr/(lib/debug|share/doc|src|share/lintian)/' |
        while read -r path; do report extra "$path"; done
}

# Lines "path TAB properties" of everything on the file system. Of directories and links the times do not count, nor of
# configuration and state, which maintainer scripts rewrite: there the content counts.
snapshot() {
    {
        find / -xdev \
            \( -path /proc -o -path /sys -o -path /dev -o -path "$pb" -o -path /build -o -path "$state" \
            -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/cache/apt \) -prune \
            -o -type d -printf '%p\t%y %m %U:%G\0' \
            -o -type l -printf '%p\t%y %m %U:%G %l\0' \
            -o \( -path '/etc/*' -o -path '/var/*' \) -printf '%p\t%y %m %U:%G %s\0' \
            -o -printf '%p\t%y %m %U:%G %s %T@\0'
        find /etc /var -xdev \
            \( -path "$state" -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/cache/apt \) -prune \
            -o -type f -size -4096k -print0 | xargs -0r sha256sum -z | sed -z "s|^\([0-9a-f]*\)  \(.*\)|\2${tab}\1|"
    } | tr '\n\0' '?\n' > "$1"
}

# compare OLD NEW leftovers: what is there that was not, is gone, or has changed.
# compare OLD NEW privileged: what has come or changed and is set-uid, set-gid or writable for all.
compare() {
    printf '%s\n' "$PB_IGNORE" > "$state/ignore"
    awk -F '\t' -v what="$3" '
        FILENAME == ARGV[1] { if ($0 != "" && $0 !~ /^#/) ignore[++ignored] = "^(" $0 ")$"; next }
        FILENAME == ARGV[2] { old[$1] = old[$1] " " $2; next }
        { new[$1] = new[$1] " " $2 }
        END {
            for (path in new) {
                if (path in old && old[path] == new[path]) continue
                if (what == "leftovers") tell(path in old ? "changed" : "extra", path)
                else judge(path, new[path])
            }
            if (what == "leftovers") for (path in old) if (!(path in new)) tell("missing", path)
        }
        function tell(kind, path,    i) {
            for (i = 1; i <= ignored; i++) if (path ~ ignore[i]) return
            print kind "\t" path
        }
        function judge(path, properties,    part, mode, special) {
            split(properties, part, " ")
            if (part[1] == "l") return
            mode = sprintf("%04d", part[2])
            special = substr(mode, length(mode) - 3, 1)
            if (part[1] == "f" && special >= 4) print "setuid\t" path
            if (part[1] == "f" && special % 4 >= 2) print "setgid\t" path
            if (substr(mode, length(mode)) % 4 >= 2 && special % 2 == 0) print "world_writable\t" path
        }' "$state/ignore" "$1" "$2" | sort > "$state/found"
    cat "$state/found"
    cat "$state/found" >> "$out/leftovers"
}

# --- package --------------------------------------------------------------------------------------------------------

# The results are the files that the build listed, and belong to this source. Nothing has run here since the build.
step_package() {
    cd "$results"
    rm -f ../listed ../names
    count=0
    for changes in *.changes; do
        [ -f "$changes" ] || fail 'The build made no .changes file.'
        name=$(sed -n 's/^Source: *\([^ ]*\).*/\1/p' "$changes")
        [ "$name" = "$PB_PACKAGE" ] || fail "$changes is for $name, not for $PB_PACKAGE."
        listed "$changes" > ../listed
        [ -s ../listed ] || fail "$changes lists no files."
        sed 's/^\([0-9a-f]*\) [0-9]* /\1  /' ../listed | sha256sum --check --strict --quiet ||
            fail "$changes does not match its files."
        cut -d ' ' -f 3 ../listed >> ../names
    done
    for file in *; do
        case $file in
            *.changes) ;;
            *) grep -qxF -e "$file" ../names || fail "$file is among the results, but no .changes file lists it." ;;
        esac
    done
    for deb in *.deb *.udeb; do
        [ -f "$deb" ] || continue
        count=$((count + 1))
        # shellcheck disable=SC2016 # it is dpkg's variable
        name=$(dpkg-deb -W --showformat='${source:Package}' "$deb")
        [ "$name" = "$PB_PACKAGE" ] || fail "$deb belongs to the source package $name, not to $PB_PACKAGE."
    done
    [ "$count" -gt 0 ] || fail 'The build made no package.'
    say "$count packages."
}

# --------------------------------------------------------------------------------------------------------------------

step=$1
shift
[ "$(id -u)" != 0 ] || install -d "$state"
case $step in
    fetch) step_fetch ;;
    unpack) step_unpack ;;
    depends-download) step_depends_download ;;
    depends-install) step_depends_install ;;
    build) step_build ;;
    check-download) step_check_download "$@" ;;
    check-run) step_check_run "$@" ;;
    package) step_package ;;
    *) fail "There is no step $step." ;;
esac
