# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is wrong with an installation, and what to do about it. Looks only; changes nothing."""

from __future__ import annotations

import collections.abc as c
import contextlib
import os
import re
import time
import typing as t

from ..module_utils._errors import PortbuildError
from ._bindist import read_bindist
from ._candidates import find_candidates
from ._conf import ArchConfig, Problem
from ._context import StepContext
from ._holds import read_holds
from ._layout import Layout
from ._port_tree import read_tree
from ._queue import MachineState
from ._settings import SETTINGS, unknown, unknown_in_conf
from ._space import free_bytes, human_size
from ._telling import check_telling
from ._text import number_of, one_line

Facts = c.Mapping[str, t.Any]
Level = t.Literal["ok", "note", "PROBLEM"]

CONTROLLER = "controller"
MOST_NAMED = 6  # machines that one line names
_LINE = 600
_SETUP = "Run the setup playbook."
_SEVERITY: dict[Level, int] = {"PROBLEM": 0, "note": 1, "ok": 2}


class Finding(t.NamedTuple):
    """One line of the report."""

    subject: str  # the controller or a machine
    level: Level
    text: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the finding as the step's result has it."""
        return self._asdict()


def finding(value: Facts) -> Finding:
    """Return the finding that to_dict() described."""
    level: Level = "PROBLEM" if value["level"] == "PROBLEM" else "note" if value["level"] == "note" else "ok"
    return Finding(str(value["subject"]), level, str(value["text"]), str(value["remedy"]))


def report(findings: c.Iterable[Finding]) -> list[str]:
    """Return the lines for a person, what matters most first. What several machines share is one line."""
    shared: dict[tuple[Level, str, str], list[str]] = {}
    for found in findings:
        subjects = shared.setdefault((found.level, found.text, found.remedy), [])
        if found.subject not in subjects:
            subjects.append(found.subject)
    lines = sorted(shared.items(), key=lambda item: _SEVERITY[item[0][0]])
    return [_line(_named(subjects), *what) for what, subjects in lines]


def _named(subjects: c.Sequence[str]) -> str:
    more = len(subjects) - MOST_NAMED
    return ", ".join(subjects[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _line(subjects: str, level: Level, text: str, remedy: str) -> str:
    return " ".join([level.ljust(8), f"{subjects}:", one_line(text, _LINE), one_line(remedy, _LINE)]).rstrip()


def summary(findings: c.Sequence[Finding]) -> str:
    """Return the last line."""
    count = {level: sum(found.level == level for found in findings) for level in _SEVERITY}
    problems = "No problem" if not count["PROBLEM"] else f"{count['PROBLEM']} problem" + "s" * (count["PROBLEM"] > 1)
    return f"{problems}, {count['note']} note{'s' * (count['note'] != 1)}, {count['ok']} in order."


# -- versions ----------------------------------------------------------------------------------------------------------


class Program(t.NamedTuple):
    """Something that the controller needs: which version is there (empty: none), and which is the oldest that does."""

    name: str
    version: str
    oldest: str
    needed: bool = True


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with."""
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(number) for number in match[0].split(".")) if match else ()


def versions(programs: c.Iterable[Program]) -> t.Iterator[Finding]:
    """Say of each program whether it is there and new enough."""
    for program in programs:
        good = bool(program.version) and numbers(program.version) >= numbers(program.oldest)
        said = f"{program.name} {program.version}" if program.version else f"{program.name} is not installed"
        if good:
            yield Finding(CONTROLLER, "ok", f"{said}.")
        else:
            level: Level = "PROBLEM" if program.needed else "note"
            remedy = f"Install {program.name} {program.oldest} or newer for the Python that runs Ansible."
            yield Finding(CONTROLLER, level, f"{said}; at least {program.oldest} is needed.", remedy)


# -- settings ----------------------------------------------------------------------------------------------------------


def variables(subject: str, names: c.Iterable[str]) -> t.Iterator[Finding]:
    """Name the portbuild_ variables that no setting is called, with the nearest that is."""
    for problem in unknown(names):
        yield Finding(subject, "PROBLEM", problem.message, "Correct it where the inventory or the command line has it.")


def bad_settings(subject: str, error: PortbuildError) -> t.Iterator[Finding]:
    """Name each value that cannot be used."""
    for problem in error.details.get("problems") or [str(error)]:
        yield Finding(subject, "PROBLEM", str(problem), "Correct the value.")


def defaults(error: PortbuildError) -> dict[str, t.Any]:
    """Return the defaults of the settings whose values cannot be used, so that one hides no others."""
    named = [str(problem).partition(" ")[0] for problem in error.details.get("problems") or ()]
    return {name: SETTINGS[name].written for name in named if name in SETTINGS}


def conf_files(config: ArchConfig, machines: c.Iterable[str]) -> t.Iterator[Finding]:
    """Say what is wrong with portbuild.conf, the files of the machines, and mlist."""
    odd: list[Problem] = list(unknown_in_conf(config.conf))
    for machine in machines:
        odd += unknown_in_conf(config.for_machine(machine), of_machine=True)
    for problem in config.problems:  # of the machines' files that were read too
        yield Finding(CONTROLLER, "PROBLEM", str(problem), "Correct the line; until then it does not count.")
    for problem in odd:
        yield Finding(CONTROLLER, "note", str(problem))
    if not config.problems and not odd:
        yield Finding(CONTROLLER, "ok", f"The configuration in {config.directory} is understood.")


# -- the controller ----------------------------------------------------------------------------------------------------


def directories(layout: Layout) -> t.Iterator[Finding]:
    """Say which directories are missing or cannot be used."""
    bad: set[str] = set()
    for path in dict.fromkeys((layout.root, *layout.directories)):
        if not os.path.isdir(path):
            what = "is not a directory" if os.path.lexists(path) else "does not exist"
            if os.path.dirname(path) not in bad:
                yield Finding(CONTROLLER, "PROBLEM", f"{path} {what}.", _SETUP)
            bad.add(path)
        elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            remedy = f"Give it to the user that dispatches (uid {os.geteuid()} now), or to a group of that user."
            yield Finding(CONTROLLER, "PROBLEM", f"{path} cannot be read and written.", remedy)
            bad.add(path)
    if not bad:
        yield Finding(CONTROLLER, "ok", f"The directories below {layout.root} are there and can be written.")


def space(layout: Layout, min_free: int) -> Finding:
    """Say how much room there is for results."""
    free = free_bytes(layout.branch_directory)
    if free < min_free:
        text = f"Only {human_size(free)} are free for {layout.branch_directory}; below {human_size(min_free)} nothing is claimed."
        return Finding(CONTROLLER, "PROBLEM", text, "Make room there, or lower portbuild_min_free.")
    return Finding(CONTROLLER, "ok", f"{human_size(free)} are free for {layout.branch_directory}.")


def branch(context: StepContext) -> t.Iterator[Finding]:
    """Say whether the branch has what builds begin with, and whether its records can be read."""
    layout = context.layout
    wanted: list[tuple[str, c.Callable[[], t.Any]]] = [("bindist", lambda: read_bindist(layout))]
    if context.system.needs_tree:
        wanted.append(("tree", lambda: read_tree(layout)))
    wanted.append(("record of builds", context.store.failures))
    wanted.append(("queue", context.queue.machines))
    for what, read in wanted:
        try:
            read()
        except (PortbuildError, OSError) as error:
            yield Finding(CONTROLLER, "PROBLEM", f"The {what} of {context.settings.branch} cannot be used: {error}")
        else:
            yield Finding(CONTROLLER, "ok", f"The {what} of {context.settings.branch} is there.")
    if context.system.needs_tree and not os.path.exists(layout.index):
        yield Finding(CONTROLLER, "PROBLEM", f"There is no {layout.index}.", "Run the index playbook.")
    problems: list[str] = []
    for package, held in sorted(read_holds(layout, problems).items()):
        yield Finding(CONTROLLER, "note", held.sentence(package), "The unhold playbook releases it.")
    for problem in problems:
        yield Finding(CONTROLLER, "PROBLEM", problem)
    try:
        check_telling(context.settings)
    except PortbuildError as error:
        yield Finding(CONTROLLER, "PROBLEM", error.message, error.remedy)
    waiting = 0
    with contextlib.suppress(OSError):
        waiting = sum(name.endswith(".json") for name in os.listdir(layout.spool))
    if waiting:
        yield Finding(CONTROLLER, "note", f"{waiting} messages wait for the mail server.", "See portbuild_mail_host.")


def machines(
    context: StepContext, inventory: c.Sequence[str], maxjobs: c.Callable[[str], int], forks: int
) -> t.Iterator[Finding]:
    """Say which machines get no jobs, and why."""
    config = context.config
    if not inventory:
        yield Finding(
            CONTROLLER,
            "PROBLEM",
            "The inventory group build_machines has no machine.",
            "Name the machines there, best first.",
        )
    _candidates, others = find_candidates(config.machines if config.has_mlist else None, inventory, maxjobs)
    for name, why in others.items():
        yield Finding(name, "note", f"It gets no jobs. {why}")
    states: dict[str, MachineState] = {}
    with contextlib.suppress(PortbuildError, OSError):  # has been said
        states = {state.name: state for state in context.queue.machines()}
    for name in inventory:
        yield from _queued(name, states.get(name))
    if len(inventory) > forks:
        yield Finding(
            CONTROLLER,
            "note",
            f"Ansible works on {forks} of {len(inventory)} machines at a time: those that do not answer delay the others.",
            "Set forks in ansible.cfg, or give --forks.",
        )


def _queued(name: str, state: MachineState | None) -> t.Iterator[Finding]:
    if state is None:
        yield Finding(name, "PROBLEM", "It is not in the queue.", "Run the setup playbook for it.")
        return
    if state.offline is not None:
        since, by = number_of(state.offline.get("since")), one_line(state.offline.get("by"), 100) or "somebody"
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(since))
        text = f"It is offline since {when} UTC, by {by}: {one_line(state.offline.get('reason'), 300) or 'no reason given'}"
        yield Finding(name, "note", text, "The undrain playbook brings it back.")
    for problem in state.problems:
        yield Finding(name, "PROBLEM", problem, "The undrain playbook makes it anew.")


# -- a machine ---------------------------------------------------------------------------------------------------------


def unreachable(machine: str, why: str, user: str) -> Finding:
    """Say that the machine does not answer."""
    remedy = (
        f"Try: ansible {machine} -m ping. It must accept ssh from here as {user or 'its ansible_user'} without a prompt "
        "(key, host key, port); see ansible_host, ansible_port and ansible_user."
    )
    return Finding(machine, "PROBLEM", why, remedy)


def unable(machine: str, why: str) -> Finding:
    """Say that the machine answers, but does not do what it is to do."""
    remedy = (
        "It needs Python 3.9 or newer (see ansible_python_interpreter), and its login must become root by "
        "portbuild_sudo_cmd without a prompt (try: sudo -n true)."
    )
    return Finding(machine, "PROBLEM", why, remedy)


def machine_facts(machine: str, facts: Facts, *, max_clock_offset: float) -> t.Iterator[Finding]:
    """Say what there is to say about a machine that answers. Nothing of what it says is relied upon."""
    if facts.get("uid") != 0:
        yield Finding(
            machine,
            "PROBLEM",
            f"Modules run there as uid {one_line(str(facts.get('uid')), 20)}, not as root.",
            "Set portbuild_sudo_cmd (or ansible_become) for it, and let its login become root without a password.",
        )
    told = facts.get("problems")
    problems: Facts = told if isinstance(told, dict) else {}
    good = {
        "python": f"{_text(facts.get('system'))}, Python {_text(facts.get('python'))}.",
        "disk": f"{_size(facts, 'scratch', 'free')} free of {_size(facts, 'scratch', 'total')} in its scratch directory.",
        "memory": f"{_size(facts, 'memory', 'available')} of {_size(facts, 'memory', 'total')} of memory available.",
        "backend": f"Chroots by {_text(_part(facts, 'backend', 'chosen'))}, memory limits by {_text(facts.get('memory_control'))}.",
        "bindist": "It has the current bindist.",
    }
    for about in (*good, *(other for other in problems if other not in good)):
        sentences = problems.get(about)
        if isinstance(sentences, list) and sentences:
            for sentence in sentences:
                yield Finding(machine, "PROBLEM", _text(sentence))
        elif about in good:
            yield Finding(machine, "ok", good[about])
    offset = facts.get("clock_offset")
    if isinstance(offset, (int, float)) and abs(offset) <= max_clock_offset:
        yield Finding(machine, "ok", f"Its clock is {offset:+.1f} s off the controller's.")
    else:
        yield Finding(
            machine, "PROBLEM", f"Its clock is {offset!r:.20} s off the controller's.", "Set it, for example by NTP."
        )


def _part(facts: Facts, name: str, part: str) -> t.Any:
    value = facts.get(name)
    return value.get(part) if isinstance(value, dict) else None


def _size(facts: Facts, name: str, part: str) -> str:
    return human_size(number_of(_part(facts, name, part)))


def _text(value: t.Any) -> str:
    return one_line(value, 300) or "?"
