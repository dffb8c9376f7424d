# shellcheck shell=sh
# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The build of one port: /bin/sh build.sh STEP [ITEM], run by the supervisor in the chroot.
#
# Exit status 0: done. 75: the network is at fault, not the port. Anything else: the port is.
#
# What to build comes from the environment (see _ports.py), beside what ports read themselves (BATCH, PORTSDIR, ...):
#   PB_PACKAGE         the package's name without version
#   PB_PKGNAME         with the version that the INDEX says
#   PB_PORT            category/port
#   PB_FLAVOR          the flavor, where the INDEX tells it
#   PB_PKG             the file name of pkg's own package in repo/; empty where that is what is built
#   PB_CHECK           on: check each package; first: only the port's main one
#   PB_IGNORE          extended regular expressions, one a line, of paths that always change
#   PB_MAKE_JOBS       how many make jobs; 0: the machine's cores divided by PB_MAXJOBS
#   PB_MAXJOBS         how many jobs share the machine
#   PB_FETCH_ORIGINAL  1: fetch from the upstream sites only, and everything anew
#   PB_WANT_DISTFILES  1: leave the distfiles where they are brought home from
#   PB_DUDS            1: make the list of duds along with the INDEX
#   PB_MADE_FROM       what the INDEX is made from, for the controller to remember
# In network steps http_proxy, https_proxy. repo/ holds the packages that this one needs, and lists of their files.

set -eu
umask 022
export ASSUME_ALWAYS_YES=yes

pb=/portbuild
out=$pb/out
state=/var/lib/portbuild # root's: a build cannot change what it says
ports=/usr/ports
distfiles=/build/distfiles
wanted=/build/wanted # distfiles that are brought home
packages=/build/packages
results=/build/results
facts=/build/facts
tab=$(printf '\t')

say() { printf '%s\n' "portbuild: $*"; }
fail() { say "$*"; exit 1; }
soft() { say "$*"; exit 75; }

# --- make -----------------------------------------------------------------------------------------------------------

# make in the port's directory, for its flavor.
port_make() {
    make -C "$ports/$PB_PORT" ${flavor:+"FLAVOR=$flavor"} "$@"
}

# This job's share of the machine.
make_jobs() {
    if [ "$PB_MAKE_JOBS" -gt 0 ]; then
        echo "$PB_MAKE_JOBS"
        return
    fi
    cores=$(sysctl -n hw.ncpu 2> /dev/null || nproc)
    jobs=$((cores / PB_MAXJOBS))
    if [ "$jobs" -gt 1 ]; then echo "$jobs"; else echo 1; fi
}

# What the port says of itself, a line each: one call of make, as each takes about a second.
ask_port() {
    port_make -V PKGNAME -V MAINTAINER -V NEED_ROOT -V IGNORE -V BROKEN -V DISTINFO_FILE -V FLAVORS > "$facts"
}

fact() {
    case $1 in
        pkgname) sed -n 1p "$facts" ;;
        maintainer) sed -n 2p "$facts" ;;
        need_root) sed -n 3p "$facts" ;;
        ignore) sed -n 4p "$facts" ;;
        broken) sed -n 5p "$facts" ;;
        distinfo) sed -n 6p "$facts" ;;
        flavors) sed -n 7p "$facts" ;;
    esac
}

# Find out which flavor makes this package, where the INDEX does not tell.
find_flavor() {
    flavor=$PB_FLAVOR
    ask_port || fail "make failed in $PB_PORT."
    if [ "$(fact pkgname)" != "$PB_PKGNAME" ] && [ -z "$flavor" ]; then
        default=$(fact pkgname)
        for flavor in $(fact flavors); do
            ask_port || fail "make failed in $PB_PORT for the flavor $flavor."
            [ "$(fact pkgname)" != "$PB_PKGNAME" ] || break
        done
        [ "$(fact pkgname)" = "$PB_PKGNAME" ] ||
            fail "$PB_PORT makes $default, the INDEX says $PB_PKGNAME: the INDEX is to be made anew."
    fi
    [ "$(fact pkgname)" = "$PB_PKGNAME" ] ||
        fail "$PB_PORT makes $(fact pkgname), the INDEX says $PB_PKGNAME: the INDEX is to be made anew."
    printf '%s\n' "$flavor" > "$facts.flavor"
}

# --- fetch ----------------------------------------------------------------------------------------------------------

# Lines "SHA-256 name" of the port's distfiles.
distinfo() {
    [ ! -f "$(fact distinfo)" ] ||
        sed -n 's/^SHA256 (\([^/].*\)) = \([0-9a-f]\{64\}\)[[:space:]]*$/\2 \1/p' "$(fact distinfo)" | grep -v '\.\./' || :
}

# Let make find what this machine has; checksum compares it all the same.
link_cached() {
    distinfo | while read -r sum name; do
        [ -e "$pb/archives/$sum" ] || continue
        case $name in
            */*) mkdir -p "$distfiles/${name%/*}" ;;
        esac
        ln -sf "$pb/archives/$sum" "$distfiles/$name"
    done
}

# Tell the supervisor what is new, so that it enters the machine's cache.
report_fetched() {
    distinfo | while read -r sum name; do
        if [ -f "$distfiles/$name" ] && [ ! -L "$distfiles/$name" ]; then
            printf '%s %s\n' "$distfiles/$name" "$sum"
        fi
    done > "$out/archives.list"
}

# Lay out copies to be brought home, under names without a slash.
lay_out_distfiles() {
    mkdir -p "$wanted"
    distinfo | while read -r _ name; do
        [ ! -f "$distfiles/$name" ] || cp "$distfiles/$name" "$wanted/$(printf '%s' "$name" | sed 's|/|%2f|g')"
    done
}

# Whose fault is it? Where any site has answered, the port's; where none could be reached, the network's.
judge_fetch() {
    # Not what the address or the file is called.
    sed -e 's|[a-z]*://[^ ]*||g' -e '/Attempting to fetch/d' -e '/seem to exist/d' "$1" > "$1.said"
    set -- "$1.said"
    if grep -Eqi 'checksum mismatch|size mismatch|no checksum|not found|forbidden|unavailable|gone|requested range' "$1"; then
        fail 'The distfiles could not be fetched as the port describes them.'
    fi
    if grep -Eqi 'resolv|unreachable|no route|refused|timed out|assign requested|reset by peer|no address' "$1"; then
        soft 'The sites of the distfiles could not be reached.'
    fi
    fail 'The distfiles could not be fetched.'
}

step_fetch() {
    mkdir -p "$distfiles" "$packages" "$results"
    find_flavor
    {
        printf 'version %s\n' "${PB_PKGNAME##*-}"
        printf 'maintainer %s\n' "$(fact maintainer)"
        [ -z "$(fact broken)" ] || printf 'broken %s\n' "$(fact broken)"
    } > "$out/about"
    [ -z "$(fact ignore)" ] || fail "===>  $PB_PKGNAME $(fact ignore)."
    set -- checksum
    if [ "$PB_FETCH_ORIGINAL" = 1 ]; then
        set -- "$@" MASTER_SITE_OVERRIDE= MASTER_SITE_BACKUP=
    else
        link_cached
    fi
    # The status of a pipe is that of tee.
    { port_make -DNO_DEPENDS "$@" 2>&1 || echo $? > /build/fetch.failed; } | tee /build/fetch.log
    [ ! -e /build/fetch.failed ] || judge_fetch /build/fetch.log
    report_fetched
    [ "$PB_WANT_DISTFILES" != 1 ] || lay_out_distfiles
}

# --- depends --------------------------------------------------------------------------------------------------------

# Install our own packages whose files the list names. pkg adds what each needs from the same directory, so most are
# there before it is their turn.
add_packages() {
    [ -s "$1" ] || return 0
    pkg query '%n-%v' > "$state/installed" || :
    while read -r file; do
        name=${file%.*}
        grep -qxF -e "$name" "$state/installed" && continue
        say "adding $name"
        pkg add "$pb/repo/$file" < /dev/null || fail "The dependency $name cannot be installed."
        pkg query '%n-%v' > "$state/installed"
    done < "$1"
}

# pkg is not in the base, and what is called so there would fetch it from the network.
add_pkg() {
    if [ -n "$PB_PKG" ] && [ ! -e "$state/pkg" ]; then
        pkg add "$pb/repo/$PB_PKG" || fail "pkg itself cannot be installed from $PB_PKG."
        : > "$state/pkg"
    fi
}

# Let programs find the branch's settings that do not get them from the environment.
set_make_conf() {
    [ ! -f "$pb/inputs/make.conf" ] || cp "$pb/inputs/make.conf" /etc/make.conf
}

step_fetch_depends() {
    add_pkg
    add_packages "$pb/repo/fetch.list"
}

step_depends() {
    set_make_conf
    add_pkg
    add_packages "$pb/repo/depends.list"
    # Said by the port before anything of it has run.
    [ -z "$(fact need_root)" ] || : > "$state/need_root"
}

# --- build ----------------------------------------------------------------------------------------------------------

# Say which target is the one that failed: the first without a cookie.
tell_target() {
    work=$(port_make -V WRKDIR 2> /dev/null) || return 0
    for target in extract patch configure build stage package; do
        set -- "$work/.${target}_done"*
        [ -e "$1" ] || { say "It failed in $target."; return; }
    done
}

build_port() {
    flavor=$(cat "$facts.flavor")
    MAKE_JOBS_NUMBER=$(make_jobs)
    export MAKE_JOBS_NUMBER
    port_make package || {
        tell_target
        exit 1
    }
    for file in "$packages"/All/*; do
        if [ -f "$file" ] && [ ! -L "$file" ]; then
            cp "$file" "$results/" # what make leaves there may be a second name of a file in the work directory
        fi
    done
    set -- "$results/$PB_PKGNAME".*
    [ -f "$1" ] || fail "The build made no package $PB_PKGNAME."
    ls -l "$results"
}

step_build() {
    if [ -e "$state/need_root" ]; then
        say "$PB_PORT has to be built by root."
    else
        build_port
    fi
}

step_build_as_root() {
    [ ! -e "$state/need_root" ] || build_port
}

# --- check ----------------------------------------------------------------------------------------------------------

is_main() {
    case $1 in
        "$PB_PKGNAME".*) return 0 ;;
    esac
    return 1
}

step_check() {
    if [ "$PB_CHECK" = first ] && ! is_main "$1"; then
        say "$1 is not checked: only the main package is."
        return
    fi
    add_pkg
    add_packages "$pb/repo/run.list"
    if [ -n "$PB_PKG" ]; then pkg query '%n' | sort > "$state/names"; else : > "$state/names"; fi
    snapshot "$state/before"
    pkg add "$pb/staged/$1" || fail "$1 cannot be installed."
    snapshot "$state/installed"
    compare "$state/before" "$state/installed" privileged
    # With it, what else of this build it has brought along.
    pkg query '%n' | sort | comm -13 "$state/names" - > "$state/added"
    # shellcheck disable=SC2046 # names of packages have no spaces
    pkg delete -f -y $(cat "$state/added") || fail "$1 cannot be deinstalled."
    snapshot "$state/after"
    compare "$state/before" "$state/after" leftovers
}

# Lines "path TAB mode owner size time target" of all these: stat(1) of FreeBSD and of GNU have nothing in common.
describe() {
    if stat --version > /dev/null 2>&1; then
        stat --printf '%n\t%A %u:%g %s %Y %N\n' -- "$@"
    else
        stat -f "%N$tab%Sp %u:%g %z %Fm %Y" -- "$@"
    fi
}

# Lines "SHA-256 path".
digest() {
    if command -v sha256sum > /dev/null; then sha256sum -- "$@"; else sha256 -r -- "$@"; fi
}

# Everything on the file system: "path TAB properties". Of directories and links neither size nor time count, nor time
# of configuration and state, which is rewritten by those who share it: there the content counts.
snapshot() {
    {
        find / -xdev \
            \( -path /proc -o -path /sys -o -path /dev -o -path "$pb" -o -path /build -o -path "$state" \
            -o -path "$ports" -o -path /var/db/pkg -o -path /var/cache/pkg \) -prune -o \
            -exec /bin/sh "$0" describe {} + |
            awk -F '\t' '{
                count = split($2, part, " ")
                text = part[1] " " part[2]
                if (part[1] ~ /^l/) for (i = 5; i <= count; i++) text = text " " part[i]
                else if (part[1] !~ /^d/) {
                    text = text " " part[3]
                    if ($1 !~ /^\/(etc|var|usr\/local\/etc)\//) text = text " " part[4]
                }
                print $1 "\t" text
            }'
        find /etc /var /usr/local/etc -xdev \( -path "$state" -o -path /var/db/pkg -o -path /var/cache/pkg \) -prune -o \
            -type f -exec /bin/sh "$0" digest {} + 2> /dev/null | sed "s|^\([0-9a-f]*\) [ *]*\(.*\)|\2$tab\1|"
    } > "$1"
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
        function judge(path, properties,    part, mode) {
            split(properties, part, " ")
            mode = part[1]
            if (mode ~ /^l/) return
            if (mode ~ /^-..[sS]/) print "setuid\t" path
            if (mode ~ /^-.....[sS]/) print "setgid\t" path
            if (mode ~ /^........w[^tT]/) print "world_writable\t" path
        }' "$state/ignore" "$1" "$2" | sort > "$state/found"
    if [ "$3" = leftovers ]; then
        list extra 'extra files and directories in / (not present before this port was installed but present after it was deinstalled)'
        list missing 'files present before this port was installed but missing after it was deinstalled'
        list changed 'filesystem changes from before port installation to after deinstallation'
    else
        list setuid 'set-uid files'
        list setgid 'set-gid files'
        list world_writable 'files and directories that everybody can write to'
    fi
    cat "$state/found" >> "$out/leftovers"
}

# Print what was found of one kind, if there is any: list KIND TITLE
list() {
    grep -q "^$1$tab" "$state/found" || return 0
    say "list of $2:"
    grep "^$1$tab" "$state/found"
}

# --- index ----------------------------------------------------------------------------------------------------------

# What make index does, but for its last step, which is a program in perl, and the base has no perl. It says which port
# it is at: a whole tree takes longer than a build may be silent.
step_index() {
    mkdir -p /build/index "$results"
    jobs=$(make_jobs)
    make -C "$ports" -j "$jobs" describe INDEX_TMPDIR=/build/index INDEXFILE=INDEX BUILDING_INDEX=1 \
        ECHO_MSG='echo 1>&2' > /build/described || fail 'make describe failed.'
    find /build/index -name 'INDEX.desc.*' -exec cat {} + >> /build/described
    make_index /build/described | sort -t '|' -k 2,2 > "$results/INDEX"
    [ -s "$results/INDEX" ] || fail 'make describe told of no port.'
    say "$(grep -c . "$results/INDEX") packages."
    printf '%s\n' "$PB_MADE_FROM" > "$results/made-from"
    [ "$PB_DUDS" != 1 ] || list_duds
}

# Print the INDEX of what make describe has told: package names for directories, each with all that it needs to run, and
# the fields in another order. There they are
#   name|path|prefix|comment|descr|maintainer|categories|extract|patch|fetch|build|run|www
make_index() {
    awk -F '|' '
        NF < 13 || $2 !~ /^\// { next } # what make says beside
        $1 in text {
            print "portbuild: " $2 " makes " $1 " too, as " path[$1] " does, which counts." > "/dev/stderr"
            next
        }
        {
            names[++count] = $1
            by[$2] = $1
            path[$1] = $2
            bare = $2
            sub(/@.*/, "", bare)
            if (!(bare in by)) by[bare] = $1 # the first flavor is the default
            text[$1] = $1
            for (i = 2; i <= 7; i++) text[$1] = text[$1] "|" $i
            for (i = 8; i <= 12; i++) needs[$1, i] = $i
            www[$1] = $13
        }
        END {
            for (i = 1; i <= count; i++) {
                name = names[i]
                print text[name] "|" all(name, 11) "|" runs(name) "|" www[name] "|" all(name, 8) "|" all(name, 9) "|" all(name, 10)
            }
        }
        # What the package needs for this, and what that needs to run, once each.
        function all(name, field,    part, total, i, other, have, found) {
            split("", have)
            have[name] = 1
            found = ""
            total = split(needs[name, field], part, " ")
            for (i = 1; i <= total; i++) {
                other = named(part[i], name)
                if (other != "") found = united(found, other " " runs(other), have)
            }
            return found
        }
        function runs(name) {
            if (!(name in run)) {
                run[name] = "" # where a circle ends
                run[name] = all(name, 12)
            }
            return run[name]
        }
        function united(found, more, have,    part, total, i) {
            total = split(more, part, " ")
            for (i = 1; i <= total; i++)
                if (!(part[i] in have)) {
                    have[part[i]] = 1
                    found = found (found == "" ? "" : " ") part[i]
                }
            return found
        }
        function named(directory, name) {
            while (sub(/\/[^\/]*[^\/.][^\/]*\/\.\.\//, "/", directory)) continue
            if (directory in by) return by[directory]
            print "portbuild: " name " needs " directory ", which makes no package." > "/dev/stderr"
            return ""
        }' "$1"
}

# The same as make ignorelist, with the reasons.
list_duds() {
    : > /build/duds
    cut -d '|' -f 2 "$results/INDEX" | sort -u | xargs -n 50 -P "$jobs" /bin/sh "$0" duds
    sort -u /build/duds > "$results/duds"
    say "$(grep -c . "$results/duds" || :) duds."
}

# Append the duds among these ports, each a path that may end in @flavor; of one that does not, all flavors count.
step_duds() {
    for path in "$@"; do
        flavor=
        case $path in
            *@*) flavor=${path##*@} ;;
        esac
        PB_PORT=$(printf '%s\n' "${path%@*}" | sed 's|.*/\([^/]*/[^/]*\)$|\1|')
        flavors=$(judge_port) || say "$path cannot be asked whether it is a dud."
        [ -z "$flavor" ] || continue
        for flavor in $flavors; do
            judge_port > /dev/null || say "$path@$flavor cannot be asked whether it is a dud."
        done
    done
    say "duds: looked at $# ports, the last is $path"
}

# Append a dud, and print the flavors of the port.
judge_port() {
    port_make -V PKGBASE -V IGNORE -V FLAVORS | {
        read -r base
        read -r ignore
        read -r flavors || :
        [ -n "$base" ] || exit 1
        # One short write: others append too.
        [ -z "$ignore" ] || printf '%s|%.1000s\n' "$base" "$ignore" >> /build/duds
        printf '%s\n' "$flavors"
    }
}

# --------------------------------------------------------------------------------------------------------------------

step=$1
shift
flavor=${PB_FLAVOR:-}
[ "$(id -u)" != 0 ] || mkdir -p "$state"
case $step in
    fetch-depends) step_fetch_depends ;;
    fetch) step_fetch ;;
    depends) step_depends ;;
    build) step_build ;;
    build-as-root) step_build_as_root ;;
    check) step_check "$@" ;;
    index) step_index ;;
    duds) step_duds "$@" ;;
    describe | digest) "$step" "$@" ;;
    *) fail "There is no step $step." ;;
esac
