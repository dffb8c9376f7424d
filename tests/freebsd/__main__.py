# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""make check-freebsd HOST=...: the acceptance on a FreeBSD host that the person names."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import sys
import tarfile
import tempfile
import typing as t

from ansible_collections.portbuild.cluster.tests.freebsd._acceptance import Acceptance, Site
from ansible_collections.portbuild.cluster.tests.freebsd._report import Failed, Report, say
from ansible_collections.portbuild.cluster.tests.freebsd._tree import make_little, PARTS, take_parts, Version

CACHE = pathlib.Path(__file__).resolve().parents[2] / ".cache"
USAGE = """\
make check-freebsd HOST=NAME [INVENTORY=PATH] [TREE=DIRECTORY] [PKG=host|port] [BINDIST=TARBALL] [MIRROR=URL]
                   [BACKEND=directory|tmpfs] [SCRATCH=DIRECTORY]
docs/freebsd.md says what each is for."""


def wanted(environment: t.Mapping[str, str]) -> dict[str, str]:
    """Return what the person asked for, or raise Failed."""
    names = ("HOST", "INVENTORY", "TREE", "PKG", "BINDIST", "MIRROR", "BACKEND", "SCRATCH")
    found = {name: environment.get(f"CHECK_{name}", "") for name in names}
    if not found["HOST"]:
        raise Failed(f"HOST is missing: the name of a FreeBSD host in the inventory.\n{USAGE}")
    if found["PKG"] not in ("", "host", "port"):
        raise Failed(f"PKG is {found['PKG']!r}; expected host or port.\n{USAGE}")
    if found["TREE"] and not pathlib.Path(found["TREE"], "Mk", "bsd.port.mk").is_file():
        raise Failed(f"TREE is {found['TREE']!r}, which is no directory of the controller with a ports tree in it.")
    return found


def fetch_parts(acceptance: Acceptance, tree: pathlib.Path) -> None:
    """Bring what is needed of the host's own ports tree."""
    temporary = acceptance.temporary
    names = " ".join(shlex.quote(name) for name in PARTS)
    acceptance.shell(f"cd /usr/ports && tar -czf {temporary}/ports.tgz $(ls -d {names} 2> /dev/null)")
    local = acceptance.bring(f"{temporary}/ports.tgz", acceptance.site.root / "ports.tgz")
    with tarfile.open(local) as tarball:
        tarball.extractall(tree, filter="data")


def fetch_pkg(acceptance: Acceptance) -> Version:
    """Have the host make a package of its own pkg, and bring it."""
    temporary = acceptance.temporary
    version = acceptance.shell(f"pkg create -o {temporary} pkg > /dev/null && pkg query %v pkg").splitlines()[-1]
    name = acceptance.shell(f"cd {temporary} && ls pkg-*.*").split()[-1]
    acceptance.bring(f"{temporary}/{name}", acceptance.site.root / f"pkg-{version}.pkg")
    return Version.parse(version)


def tree_maker(source: str, pkg: str) -> t.Callable[[Acceptance], str]:
    """Return what makes the tree: from the host's /usr/ports, or from a directory of the controller."""

    def make(acceptance: Acceptance) -> str:
        tree = acceptance.site.root / "tree"
        tree.mkdir()
        if source:
            take_parts(pathlib.Path(source), tree)
        else:
            fetch_parts(acceptance, tree)
        make_little(tree, fetch_pkg(acceptance) if pkg == "host" else None)
        return str(tree)

    return make


def inventory(host: str, given: str, directory: pathlib.Path) -> tuple[str, ...]:
    """Return the options that name the inventory: the person's, and the host as a build machine."""
    more = directory / "check.yml"
    more.write_text(f"---\nbuild_machines:\n  hosts:\n    {host}:\n", encoding="utf-8")
    mine = ["-i", str(pathlib.Path(given).resolve())] if given else []
    if not given and not os.environ.get("ANSIBLE_INVENTORY") and pathlib.Path("/etc/ansible/hosts").exists():
        mine = ["-i", "/etc/ansible/hosts"]
    return (*mine, "-i", str(more))


def main() -> int:
    """Run the acceptance; 0 when every check came out well."""
    try:
        asked = wanted(os.environ)
    except Failed as error:
        print(error, file=sys.stderr)
        return 2
    CACHE.mkdir(exist_ok=True)
    root = pathlib.Path(tempfile.mkdtemp(prefix="check-freebsd.", dir=CACHE))
    variables = {
        "portbuild_chroot_backend": asked["BACKEND"] or "directory",
        **({"portbuild_bindist_tarball": asked["BINDIST"]} if asked["BINDIST"] else {}),
        **({"portbuild_bindist_mirror": asked["MIRROR"]} if asked["MIRROR"] else {}),
    }
    site = Site(
        host=asked["HOST"],
        root=root,
        ansible=pathlib.Path(sys.executable).parent,
        environment=dict(os.environ),
        inventory=inventory(asked["HOST"], asked["INVENTORY"], root),
        scratch=asked["SCRATCH"] or "/var/portbuild-check",
        variables=variables,
    )
    pkg: t.Literal["host", "port"] = "port" if asked["PKG"] == "port" else "host"
    say(f"Acceptance on {site.host}, in {site.scratch} there and {root} here")
    status = Acceptance(site, Report(), make_tree=tree_maker(asked["TREE"], pkg), pkg=pkg).run()
    if status == 0:
        shutil.rmtree(root)
    else:
        say(f"What the commands said is in {root}/*.out, the logs of the builds in {root}/root.")
    return status


if __name__ == "__main__":
    sys.exit(main())
