# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the project for AWX: awx/X.yml for each playbook, and awx/templates.yml with job templates and their surveys.

Run it after a change of plugins/plugin_utils/_settings.py or of a playbook, with the collection importable; a unit test
compares the two. What a question is called, takes and defaults to is the settings' table's to say; here stands only
what is asked.
"""

from __future__ import annotations

import pathlib
import re
import typing as t

import yaml

from ansible_collections.portbuild.cluster.plugins.plugin_utils._settings import (
    Bool,
    Int,
    PREFIX,
    Setting,
    SETTINGS,
    Words,
)

LICENCE = "\n".join(pathlib.Path(__file__).read_text(encoding="utf-8").splitlines()[:3])
HEADER = f"""\
---
{LICENCE}

# Made by tests/awx_templates.py.
"""
ABOUT = """\
# Variables as the roles of infra.aap_configuration read them, and as apply.yml does. What begins with farm_ stands in
# farm.yml.

"""

TEXT_LENGTH = 1024
AREA_LENGTH = 65536
#: AWX gives no more forks than its administrator allows; each is made only for a machine to talk to.
FORKS = 50


class Template(t.NamedTuple):
    """A job template. C(asks) are settings; the survey requires those in C(needs), beside what the role requires."""

    playbook: str
    role: str
    title: str
    asks: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    at_once: bool = False  # whether several may run at the same time
    forks: int = 0


TEMPLATES = (
    Template(
        "dispatch",
        "dispatch",
        "Build one package",
        ("package", "machine", "trybroken", "noclean", "keep_workdir", "want_distfiles", "fetch_original"),
        at_once=True,
    ),
    Template("bulk", "bulk", "Build many packages", ("targets", "rebuild", "cascade", "retry_alone"), at_once=True),
    Template("stop", "control", "Stop the bulk build", at_once=True),
    Template("retry", "control", "Try a package of the bulk build again", ("package",), ("package",), at_once=True),
    Template("why", "control", "Say why a package is where it is", ("package",), ("package",), at_once=True),
    Template("status", "status", "Tell how the cluster stands", ("ask_machines",), at_once=True, forks=FORKS),
    Template("doctor", "doctor", "Examine the installation", at_once=True, forks=FORKS),
    Template("checkmachines", "checkmachines", "Check the machines", ("machines",), forks=FORKS),
    Template("cleanup", "cleanup", "Clean up what nobody owns", ("machines",), forks=FORKS),
    Template("drain", "control", "Take a machine out of service", ("machine", "reason"), ("machine",), at_once=True),
    Template("undrain", "control", "Bring a machine back into service", ("machine",), ("machine",), at_once=True),
    Template("hold", "control", "Hold a package", ("package", "reason"), ("package",), at_once=True),
    Template("unhold", "control", "Release a package", ("package",), ("package",), at_once=True),
    Template("setup", "setup", "Prepare the build machines", ("machines",), forks=FORKS),
    Template("bindist", "bindist", "Make the bindist of a branch", ("bindist_machine", "bindist_rebuild")),
    Template("index", "index", "Make the INDEX of a branch", ("index_rebuild", "index_duds")),
)


class Schedule(t.NamedTuple):
    """When a job template is started by itself."""

    playbook: str
    name: str
    rule: str


SCHEDULES = (
    Schedule("checkmachines", "every two minutes", "DTSTART:20260101T000000Z RRULE:FREQ=MINUTELY;INTERVAL=2"),
    Schedule("cleanup", "every night", "DTSTART:20260101T033000Z RRULE:FREQ=DAILY;INTERVAL=1"),
)


def plain(text: str) -> str:
    """Return a sentence of the documentation without its markup."""
    return re.sub(r"\b[A-Z]\(([^()]*)\)", r"\1", text)


def word(value: t.Any) -> str:
    """Return a value as a person writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def question(setting: Setting, *, required: bool) -> dict[str, t.Any]:
    """Return what a survey asks about the setting.

    A default in a survey becomes an extra variable, which beats everything. So where portbuild.conf may have something
    to say about the setting the survey tells the default, and gives none.
    """
    default = None if required else setting.written
    description = " ".join(map(plain, setting.description))
    if default is not None and setting.conf_names:
        description += f" If nothing is chosen: what portbuild.conf or the inventory says, else {word(default)}."
        default = None
    asked: dict[str, t.Any] = {
        "question_name": setting.field.replace("_", " ").capitalize(),
        "question_description": description,
        "variable": setting.name,
        "required": required,
        **_form(setting, required=required),
    }
    if default is not None:
        asked["default"] = default if isinstance(setting.kind, Int) else word(default)
    return asked


def _form(setting: Setting, *, required: bool) -> dict[str, t.Any]:
    """Return the type of the question, and within what bounds AWX accepts an answer."""
    kind = setting.kind
    if isinstance(kind, Bool):
        return {"type": "multiplechoice", "choices": ["true", "false"]}
    if kind.choices:
        return {"type": "multiplechoice", "choices": list(kind.choices)}
    if isinstance(kind, Int):
        return {"type": "integer", "min": kind.least, "max": kind.most}
    if isinstance(kind, Words):
        return {"type": "textarea", "min": int(required), "max": AREA_LENGTH}
    if kind.ansible != "str":
        raise ValueError(f"{setting.name}: AWX has no question for a {kind.ansible}.")
    return {"type": "password" if setting.secret else "text", "min": int(required), "max": TEXT_LENGTH}


def survey(template: Template) -> dict[str, t.Any]:
    """Return the survey of the job template; an empty one has no questions."""
    if not template.asks:
        return {}
    settings = [SETTINGS[PREFIX + name] for name in template.asks]
    needs = {*template.needs, *(setting.field for setting in settings if template.role in setting.required)}
    return {
        "name": template.title,
        "description": "",
        "spec": [question(setting, required=setting.field in needs) for setting in settings],
    }


def title(template: Template) -> str:
    """Return what the job template is called in AWX."""
    return f"{{{{ farm_name }}}}: {template.title}"


def job_template(template: Template) -> dict[str, t.Any]:
    """Return the job template as awx.awx.job_template takes it."""
    asks = survey(template)
    return {
        "name": title(template),
        "description": f"portbuild.cluster.{template.playbook}",
        "organization": "{{ farm_organization }}",
        "job_type": "run",
        "inventory": "{{ farm_inventory }}",
        "project": "{{ farm_project }}",
        "playbook": f"{template.playbook}.yml",
        "credentials": "{{ farm_credentials }}",
        "execution_environment": "{{ farm_execution_environment }}",
        # The state is on the disk of these, and nowhere else.
        "instance_groups": "{{ farm_instance_groups }}",
        "prevent_instance_group_fallback": "{{ farm_instance_groups | length > 0 }}",
        "forks": template.forks,
        "timeout": 0,  # builds have limits of their own
        "ask_job_type_on_launch": True,  # "check" says what would be done
        "ask_inventory_on_launch": True,  # one inventory for each arch and branch
        "allow_simultaneous": template.at_once,
        "survey_enabled": bool(asks),
        "survey_spec": asks,
    }


def schedule(found: Schedule) -> dict[str, t.Any]:
    """Return the schedule as awx.awx.schedule takes it."""
    template = next(template for template in TEMPLATES if template.playbook == found.playbook)
    return {
        "name": f"{title(template)}, {found.name}",
        "unified_job_template": title(template),
        "organization": "{{ farm_organization }}",
        "rrule": found.rule,
        "enabled": True,
    }


def data() -> dict[str, t.Any]:
    """Return all that stands in awx/templates.yml."""
    return {
        "controller_templates": [job_template(template) for template in TEMPLATES],
        "controller_schedules": [schedule(found) for found in SCHEDULES],
    }


class _Dumper(yaml.SafeDumper):
    """Sequences stand indented below their key, as yamllint and people like it; nothing is an alias."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: t.Any) -> bool:  # noqa: ARG002
        return True


def files() -> dict[str, str]:
    """Return the text of each file in awx/ that is made."""
    made = {"templates.yml": HEADER + ABOUT + yaml.dump(data(), Dumper=_Dumper, sort_keys=False, width=118)}
    for template in TEMPLATES:
        made[f"{template.playbook}.yml"] = (
            f"{HEADER}\n- name: {template.title}\n"
            # AWX lists the playbooks in which it finds this word, without a collection in front of it.
            f"  import_playbook: portbuild.cluster.{template.playbook}  # noqa: fqcn[action-core]\n"
        )
    return made


def main() -> None:
    """Write the files."""
    project = pathlib.Path(__file__).resolve().parents[1] / "awx"
    for name, text in files().items():
        project.joinpath(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
