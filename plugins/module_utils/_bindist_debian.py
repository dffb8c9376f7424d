# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The base tarball of a Debian branch, made by mmdebstrap from the machine's own archive lists.

Only entries of Debian's own archive are taken, and each is written anew with Debian's archive keyring as its only
trust: whatever the guess below says, nothing that Debian did not sign gets into a base. The host's credentials,
hooks, pins and third-party archives stay where they are.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import time
import typing as t
from urllib.parse import urlsplit

from ._bindist import BindistError, Made, publish, work_directory

# The suffix .gpg exists on every release; .pgp only since trixie.
KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")
COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware")
POCKETS = ("", "-updates", "-security", "/updates")  # backports and proposed updates are nobody's default
ROLLING = ("sid", "unstable", "testing", "experimental", "rc-buggy")
REMOTE = ("http", "https", "tor+http", "tor+https", "mirror+http", "mirror+https", "mirror")
RECIPE = 1  # raise it when the same parameters give another tarball
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")

# What every base must have, whatever its variant: sources are unpacked by dpkg-dev, and a build as an ordinary user
# needs fakeroot wherever Rules-Requires-Root is not "no".
INCLUDE = ("dpkg-dev", "fakeroot")

CUSTOMIZE = r"""#!/bin/sh
# Run by mmdebstrap with the tree's path: at the start with the word setup, and when all is installed.
set -eu
root=$1
if [ "${2-}" = setup ]; then
    # No service ever starts, not even while the base is made: hence before anything is there.
    install -d "$root/usr/sbin"
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod 0755 "$root/usr/sbin/policy-rc.d"
    exit
fi

if ! chroot "$root" id "$PB_BUILD_USER" > /dev/null 2>&1; then
    chroot "$root" groupadd -g "$PB_BUILD_UID" "$PB_BUILD_USER"
    chroot "$root" useradd -m -u "$PB_BUILD_UID" -g "$PB_BUILD_UID" -s /bin/sh "$PB_BUILD_USER"
fi
chroot "$root" install -d -o "$PB_BUILD_USER" -g "$(chroot "$root" id -g "$PB_BUILD_USER")" /build

cat > "$root/etc/apt/apt.conf.d/90portbuild" <<'END'
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::Assume-Yes "true";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "60";
Acquire::https::Timeout "60";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-hidpi::DefaultEnabled "false";
Dpkg::Use-Pty "false";
END
# A chroot that loses its power is thrown away: syncing each unpacked file costs time and saves nothing.
echo force-unsafe-io > "$root/etc/dpkg/dpkg.cfg.d/90portbuild"
echo 'LANG=C.UTF-8' > "$root/etc/default/locale"

# What came from the machine that made the base, or would be the same on all machines and must not be.
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
rm -f "$root/etc/resolv.conf"
: > "$root/etc/resolv.conf"
echo portbuild > "$root/etc/hostname"
printf '127.0.0.1 localhost portbuild\n::1 localhost ip6-localhost\n' > "$root/etc/hosts"
rm -rf "$root"/var/log/apt/* "$root/var/log/dpkg.log" "$root/var/log/bootstrap.log" "$root/var/log/alternatives.log"
rm -rf "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old
"""


class Runner(t.Protocol):
    """What C(AnsibleModule.run_command) offers."""

    def __call__(
        self, args: list[str], *, data: str | None = None, environ_update: dict[str, str] | None = None
    ) -> tuple[int, str, str]: ...


class Entry(t.NamedTuple):
    """One archive line of the host: a URI with one suite."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str
    trusted: bool
    where: str


class Skipped(t.NamedTuple):
    """An archive of the host that was not taken, and why."""

    entry: Entry
    reason: str


# --- reading the host's lists -------------------------------------------------------------------------------------


def _truth(value: str) -> bool:
    return value.strip().lower() in ("yes", "true", "1", "on", "enable", "with", "always")


def parse_one_line(text: str, where: str) -> list[Entry]:
    """Return the C(deb) entries of a file in the one-line format; what is malformed is no entry."""
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        match = re.fullmatch(r"deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)((?:\s+\S+)*)", line)
        if not match:
            continue
        options = dict(part.split("=", 1) for part in (match[1] or "").split() if "=" in part)
        entries.append(
            Entry(
                uri=match[2],
                suite=match[3],
                components=tuple((match[4] or "").split()),
                signed_by=options.get("signed-by", ""),
                trusted=_truth(options.get("trusted", "no")) or _truth(options.get("allow-insecure", "no")),
                where=f"{where}:{number}",
            )
        )
    return entries


def parse_deb822(text: str, where: str) -> list[Entry]:
    """Return the C(deb) entries of a file in the deb822 format; what is malformed is no entry."""
    entries = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]  # before stanzas: a comment ends none
    for number, stanza in enumerate(re.split(r"\n\s*\n", "\n".join(lines)), 1):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t") and name:
                fields[name] += "\n" + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or not _truth(fields.get("enabled", "yes")):
            continue
        trusted = _truth(fields.get("trusted", "no")) or _truth(fields.get("allow-insecure", "no"))
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                entries.append(
                    Entry(
                        uri=uri,
                        suite=suite,
                        components=tuple(fields.get("components", "").split()),
                        signed_by=fields.get("signed-by", ""),
                        trusted=trusted,
                        where=f"{where}, stanza {number}",
                    )
                )
    return entries


def read_entries(etc_apt: str = "/etc/apt") -> list[Entry]:
    """Return all C(deb) entries of the host, in apt's order."""
    entries = []
    parts = sorted(glob.glob(os.path.join(glob.escape(etc_apt), "sources.list.d", "*")))
    for path in [os.path.join(etc_apt, "sources.list"), *parts]:
        parse = {".list": parse_one_line, ".sources": parse_deb822}.get(os.path.splitext(path)[1])
        if parse is None or not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as stream:
            entries += parse(stream.read(), path)
    return entries


def release_fields(entry: Entry, lists: str = "/var/lib/apt/lists") -> dict[str, str]:
    """Return Origin, Codename and the like of the archive as apt last saw it, empty when it never did."""
    parts = urlsplit(entry.uri)
    place = parts.netloc + parts.path.rstrip("/")
    name = re.sub(r"[\\|{}\[\]<>\"^~_=!@#$%&*]", lambda match: f"%{ord(match[0]):02x}", place)
    stem = os.path.join(lists, f"{name}/dists/{entry.suite}".replace("/", "_"))
    fields: dict[str, str] = {}
    for path in (f"{stem}_InRelease", f"{stem}_Release"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream.read(1 << 16).splitlines():
                match = re.fullmatch(r"(Origin|Label|Suite|Codename): *(.*)", line)
                if match:
                    fields.setdefault(match[1].lower(), match[2].strip())
            break
    return fields


# --- choosing -----------------------------------------------------------------------------------------------------


def refusal(entry: Entry, release: t.Mapping[str, str]) -> str:
    """Return why this entry is not Debian's own archive, or not one that a base may name; empty when it is."""
    parts = urlsplit(entry.uri)
    if parts.scheme not in REMOTE:
        return f"a chroot cannot reach {parts.scheme or 'this'} addresses"
    if "@" in parts.netloc:
        return "its address carries credentials, which are never copied"
    if entry.suite.endswith("/"):
        return "it is a flat repository"
    if entry.trusted:
        return "it is trusted without a signature"
    if not set(entry.components) & set(COMPONENTS):
        return "it has none of Debian's components"
    if release:
        origin = release.get("origin", "")
        return "" if origin == "Debian" else f"its origin is {origin or 'unnamed'}, not Debian"
    if entry.signed_by:
        ours = all(os.path.basename(word).startswith("debian-archive-") for word in entry.signed_by.split())
        return "" if ours else "it is signed by another keyring than Debian's"
    if re.search(r"/debian(-security|-debug)?/?$", parts.path):
        return ""
    return "nothing says that it is Debian's archive"


class Archive(t.NamedTuple):
    """What of the host's lists a base of this suite is made from."""

    suite: str
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]


def choose_archive(
    entries: t.Sequence[Entry],
    releases: t.Callable[[Entry], t.Mapping[str, str]],
    *,
    suite: str = "",
    default_suite: str = "",
    mirror: str = "",
) -> Archive:
    """Return Debian's own entries for the suite.

    A suite that was asked for and that the host does not use is taken from the same mirrors. A mirror stands in for
    the host's own, but for the security archive, which it does not have.
    """
    skipped, ours = [], []
    for entry in entries:
        release = releases(entry)
        reason = refusal(entry, release)
        if reason:
            skipped.append(Skipped(entry, reason))
        else:
            ours.append((entry, release.get("codename", "")))
    wanted = suite or default_suite or next((entry.suite for entry, codename in ours), "")
    if wanted and not WORD.fullmatch(wanted):
        raise BindistError(f"The suite {wanted!r} is malformed.", remedy="Give a code name such as bookworm.")
    if mirror:
        security = [entry for entry, codename in ours if _is_security(entry)]
        own = Entry(mirror, wanted, COMPONENTS[:1], "", False, "the mirror asked for")
        reason = refusal(own._replace(signed_by=KEYRINGS[0]), {})
        if reason or re.search(r"\s", mirror):
            raise BindistError(f"The mirror {mirror!r} cannot be used: {reason or 'it is malformed'}.")
        return Archive(wanted, tuple(_derived([own, *security], wanted)), tuple(skipped))
    names = {wanted + pocket for pocket in POCKETS}
    chosen = [entry for entry, codename in ours if entry.suite in names or codename in names]
    if not any(entry.suite == wanted or codename == wanted for entry, codename in ours) and ours and suite:
        chosen = _derived([entry for entry, codename in ours], suite)
    if not chosen:
        raise BindistError(
            f"This machine's apt lists have no entry of Debian's own archive for {wanted or 'any suite'}.",
            remedy="Add one to /etc/apt/sources.list.d, signed by Debian's archive keyring.",
            details={"left_out": [{"where": item.entry.where, "reason": item.reason} for item in skipped]},
        )
    return Archive(wanted, tuple(dict.fromkeys(chosen)), tuple(skipped))


def _is_security(entry: Entry) -> bool:
    return re.search(r"(-security|/updates)$", entry.suite) is not None


def _derived(ours: t.Sequence[Entry], suite: str) -> list[Entry]:
    security = [entry for entry in ours if _is_security(entry)]
    main = [entry for entry in ours if entry not in security][:1]
    pockets = [""] if suite in ROLLING else ["", "-updates"]
    derived = [entry._replace(suite=suite + pocket) for entry in main for pocket in pockets]
    if suite not in ROLLING:
        derived += [entry._replace(suite=f"{suite}-security") for entry in security[:1]]
    return derived


def sources_list(entries: t.Sequence[Entry], keyring: str, components: t.Sequence[str] = ()) -> str:
    """Return the base's sources.list: packages and sources, trusted by Debian's keyring alone."""
    lines = []
    for entry in entries:
        names = [name for name in components or entry.components if name in COMPONENTS]
        for kind in ("deb", "deb-src"):
            lines.append(f"{kind} [signed-by={keyring}] {entry.uri} {entry.suite} {' '.join(names)}\n")
    return "".join(dict.fromkeys(lines))


def host_suite(path: str = "/etc/os-release") -> str:
    """Return the code name of the Debian that this machine runs, empty where it runs something else."""
    values = {}
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, found, value = line.partition("=")
            if found:
                values[name.strip()] = value.strip().strip("\"'")
    return values.get("VERSION_CODENAME", "") if values.get("ID") == "debian" else ""


# --- making -------------------------------------------------------------------------------------------------------


class Wish(t.NamedTuple):
    """What a caller asks for."""

    path: str
    suite: str = ""
    architecture: str = ""
    components: t.Sequence[str] = ()
    include: t.Sequence[str] = ()
    variant: str = "buildd"
    mirror: str = ""
    build_user: str = "builder"
    build_uid: int = 1500
    proxy: str = ""


class Recipe(t.NamedTuple):
    """All that decides what the tarball holds, but for the archive's state."""

    suite: str
    architecture: str
    variant: str
    include: tuple[str, ...]
    sources: str
    keyring: str
    build_user: str
    build_uid: int
    skipped: tuple[Skipped, ...]

    def digest(self) -> str:
        """Return what two equal recipes share."""
        facts = [RECIPE, CUSTOMIZE, *self[:-1]]
        return hashlib.sha256(json.dumps(facts).encode("utf-8")).hexdigest()


def plan_bindist(wish: Wish, run: Runner, *, etc_apt: str = "/etc/apt", lists: str = "/var/lib/apt/lists") -> Recipe:
    """Return the recipe, or raise BindistError saying what this machine lacks."""
    keyring = next((path for path in KEYRINGS if os.path.exists(path)), "")
    if not keyring:
        raise BindistError(
            f"Debian's archive keyring ({KEYRINGS[0]}) is missing.", remedy="Install debian-archive-keyring."
        )
    for name in (*wish.include, wish.build_user, *([wish.architecture] if wish.architecture else [])):
        if not WORD.fullmatch(name):
            raise BindistError(f"{name!r} cannot be the name of a package, a user or an architecture.")
    architecture = wish.architecture or run(["dpkg", "--print-architecture"])[1].strip()
    if not architecture:
        raise BindistError("dpkg does not tell this machine's architecture.", remedy="Is this a Debian system?")
    archive = choose_archive(
        read_entries(etc_apt),
        lambda entry: release_fields(entry, lists),
        suite=wish.suite,
        default_suite=host_suite(),
        mirror=wish.mirror,
    )
    include = [*INCLUDE, *wish.include]
    if any("https" in urlsplit(entry.uri).scheme for entry in archive.entries):
        include.append("ca-certificates")
    return Recipe(
        suite=archive.suite,
        architecture=architecture,
        variant=wish.variant,
        include=tuple(sorted(set(include))),
        sources=sources_list(archive.entries, keyring, wish.components),
        keyring=keyring,
        build_user=wish.build_user,
        build_uid=wish.build_uid,
        skipped=archive.skipped,
    )


def make_bindist(wish: Wish, recipe: Recipe, run: Runner, *, now: t.Callable[[], float] = time.time) -> Made:
    """Make the tarball: complete under its final name, or not at all."""
    if shutil.which("mmdebstrap") is None:
        raise BindistError("mmdebstrap is missing.", remedy="Install the package mmdebstrap on this machine.")
    with work_directory(wish.path, now()) as work:
        tarball = os.path.join(work, "base.tar")
        hook = os.path.join(work, "customize")
        with open(hook, "w", encoding="utf-8") as stream:
            stream.write(CUSTOMIZE)
        environment = _environment(wish, recipe, work)
        _run(run, _mmdebstrap(recipe, hook, tarball), data=recipe.sources, environ_update=environment)
        # Level 1: half the time of the default for a tenth more bytes; -n: no time and no name of the making.
        _run(run, ["gzip", "-1", "-n", tarball])
        facts = {
            "suite": recipe.suite,
            "architecture": recipe.architecture,
            "sources": recipe.sources.splitlines(),
        }
        return publish(f"{tarball}.gz", wish.path, recipe, facts, now())


def _mmdebstrap(recipe: Recipe, hook: str, tarball: str) -> list[str]:
    return [
        "mmdebstrap",
        "--mode=root",
        f"--variant={recipe.variant}",
        "--format=tar",
        f"--architectures={recipe.architecture}",
        f"--include={','.join(recipe.include)}",
        f"--keyring={recipe.keyring}",
        "--skip=cleanup/apt/lists",  # so that apt-get update in a chroot asks for what has changed only
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "3"',
        "--skip=chroot/policy-rc.d",  # its own, which it would remove at the end
        f'--setup-hook=sh {shlex.quote(hook)} "$1" setup',
        f'--customize-hook=sh {shlex.quote(hook)} "$1"',
        "--",
        recipe.suite,
        tarball,
        "-",
    ]


def _environment(wish: Wish, recipe: Recipe, work: str) -> dict[str, str]:
    environment = {
        "LC_ALL": "C.UTF-8",
        "TMPDIR": work,  # the tree of half a gigabyte belongs where the tarball goes, not into a small /tmp
        "PB_BUILD_USER": recipe.build_user,
        "PB_BUILD_UID": str(recipe.build_uid),
    }
    if wish.proxy:
        environment.update(http_proxy=wish.proxy, https_proxy=wish.proxy)
    return environment


def _run(run: Runner, argv: list[str], **options: t.Any) -> None:
    code, output, errors = run(argv, **options)
    if code != 0:
        lines = [line for line in (errors or output).splitlines() if line.strip()]
        telling = [line for line in lines if line.startswith("E: ")] or lines[-1:] or ["it said nothing"]
        raise BindistError(
            f"{argv[0]} failed with exit status {code}: {telling[0][:300]}",
            remedy="Its last lines are in the details.",
            details={"cmd": argv, "rc": code, "stdout": output[-4000:], "stderr": errors[-8000:]},
        )
