# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""awx/apply.yml with the real modules of awx.awx, against a double of AWX's API."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
import yaml

from ansible_collections.portbuild.cluster.tests.awx_surveys import extra_variables, is_listed
from ansible_collections.portbuild.cluster.tests.tools import awx_collection
from ansible_collections.portbuild.cluster.tests.unit.awx._awx import Awx, serve

PROJECT = pathlib.Path(__file__).resolve().parents[3] / "awx"
DATA = yaml.safe_load((PROJECT / "templates.yml").read_text(encoding="utf-8"))


def apply(address: str, directory: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the playbook as its first lines say."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "CONTROLLER_"))},
        "ANSIBLE_COLLECTIONS_PATH": str(awx_collection.ensure()),
        "ANSIBLE_HOME": str(directory),
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_NOCOLOR": "True",
        "CONTROLLER_HOST": address,
        "CONTROLLER_OAUTH_TOKEN": "token",
    }
    variables = {
        "farm_machines": {"a2": {"portbuild_maxjobs": 4}, "a1": None},
        "farm_instance_groups": ["builders"],
        "ansible_python_interpreter": sys.executable,
    }
    playbook = pathlib.Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [playbook, PROJECT / "apply.yml", "-e", json.dumps(variables), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_modules_of_awx_take_what_the_project_says(tmp_path: pathlib.Path) -> None:
    listed = [path.name for path in PROJECT.glob("*.yml") if is_listed(path.read_text(encoding="utf-8"))]
    awx = Awx(listed, organizations=["Default"], credentials=["Farm"], instance_groups=["builders"])
    server = serve(awx)
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        done = apply(address, tmp_path)
        assert (done.returncode, awx.refused) == (0, []), done.stdout + done.stderr
        assert "[WARNING]" not in done.stderr, done.stderr
        found = looked_at(awx)
        again = apply(address, tmp_path)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "changed=0" in again.stdout, again.stdout
        assert looked_at(awx) == found
    finally:
        server.shutdown()
        server.server_close()

    templates = awx.named("job_templates")
    assert len(templates) == len(DATA["controller_templates"])
    for entry in DATA["controller_templates"]:
        item = templates[entry["name"].replace("{{ farm_name }}", "Farm")]
        for name in ("playbook", "job_type", "forks", "allow_simultaneous", "survey_enabled", "ask_job_type_on_launch"):
            assert item[name] == entry[name]
        assert item["prevent_instance_group_fallback"] is True
        assert awx.surveys.get(item["id"], {}) == entry["survey_spec"]
        assert awx.names_related(item, "credentials") == ["Farm"]
        assert awx.names_related(item, "instance_groups") == ["builders"]
    checks = templates["Farm: Check the machines"]
    assert extra_variables(awx.surveys[checks["id"]], {}) == {"portbuild_machines": "build_machines"}
    schedules = awx.named("schedules")
    assert schedules["Farm: Check the machines, every two minutes"]["unified_job_template"] == checks["id"]
    hosts = awx.named("hosts")
    assert json.loads(hosts["a2"]["variables"]) == {"portbuild_maxjobs": 4}
    assert sorted(awx.names_related(awx.named("groups")["build_machines"], "hosts")) == ["a1", "a2"]
    assert json.loads(awx.named("inventories")["Farm"]["variables"])["portbuild_root"] == "/srv/portbuild"


def looked_at(awx: Awx) -> t.Any:
    """Return all that is kept, as it is now."""
    return json.loads(json.dumps([awx.items, awx.surveys, sorted(awx.related.items(), key=repr)]))
