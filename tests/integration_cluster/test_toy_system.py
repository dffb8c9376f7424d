# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A package system and a chroot backend added from outside, as the guides say: their files are taken from the guides."""

from __future__ import annotations

import io
import pathlib
import tarfile

import pytest

from ansible_collections.portbuild.cluster.tests.cluster import Cluster
from ansible_collections.portbuild.cluster.tests.guides import add_backend, copy_collection, DOCS, files
from ansible_collections.portbuild.cluster.tests.integration_cluster._another import copy_bindist
from ansible_collections.portbuild.cluster.tests.integration_cluster._farm import Farm

SYSTEM, BACKEND = DOCS / "package-systems.md", DOCS / "chroot-backends.md"


class FarmOfAnotherCollection(Farm):
    """A controller with a collection of its own."""

    collections: pathlib.Path

    def environment(self) -> dict[str, str]:
        path = str(self.collections)
        return {**super().environment(), "ANSIBLE_COLLECTIONS_PATH": path, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def plain(farm: Farm, cluster: Cluster, controller_root: pathlib.Path) -> FarmOfAnotherCollection:
    """A controller of the guide's package system, with its recipes."""
    top = controller_root / "plain"
    recipes = {name: text for name, text in files(SYSTEM).items() if name.startswith("recipes/")}
    for name, text in recipes.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    variables = {"portbuild_system": "plain", "portbuild_sourcedir": str(top / "recipes")}
    plain = FarmOfAnotherCollection(cluster, top / "root", arch="plain-amd64", variables=variables)
    plain.collections = top / "collections"
    add_backend(copy_collection(plain.collections, SYSTEM), BACKEND, "copy")
    copy_bindist(farm, plain)
    plain.play("setup", timeout=600).ok()
    return plain


def members(package: pathlib.Path) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(package.read_bytes())) as tar:
        return {name: file.read() for name in tar.getnames() if (file := tar.extractfile(name))}


def test_a_system_of_the_guide_builds_in_bulk(plain: FarmOfAnotherCollection) -> None:
    done = plain.play("bulk", targets=["all"]).ok().output

    assert "2 built, 0 stayed as they are" in done
    assert sorted(path.name for path in plain.packages.iterdir()) == ["banner-1.2.tar.gz", "poster-3.tar.gz"]
    poster = members(plain.packages / "poster-3.tar.gz")
    assert poster == {"./usr/local/share/poster": b"*** Hello, world (banner 1.2) ***\n"}
    assert [build["version"] for build in plain.builds("banner")] == ["1.2"]
    assert "0 built, 2 stayed as they are" in plain.play("bulk", targets=["poster"]).ok().output
    plain.play("bulk", targets=["postre"]).fails("Did you mean poster?")


def test_a_backend_of_the_guide_has_the_chroot_of_a_dispatch(plain: FarmOfAnotherCollection) -> None:
    plain.dispatch("banner=1.2", chroot_backend="copy").ok()

    assert "backend: copy" in plain.log("banner")
    plain.assert_idle()


@pytest.mark.slow
def test_what_the_script_reports_is_an_error_of_the_packing_list(plain: FarmOfAnotherCollection) -> None:
    recipe = pathlib.Path(plain.variables["portbuild_sourcedir"]) / "rude"
    recipe.mkdir()
    recipe.joinpath("build.sh").write_text(
        'mkdir "$DESTDIR/etc"; echo mine > "$DESTDIR/etc/passwd"\n', encoding="utf-8"
    )

    plain.dispatch("rude", plistcheck=True).fails("The packing list is wrong: 1 differences.")
    assert plain.failed("rude")


def test_other_arches_have_no_such_system(plain: FarmOfAnotherCollection, farm: Farm) -> None:
    farm.dispatch("banner", system="plain").fails("portbuild_system", "debian, ports")
