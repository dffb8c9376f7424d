# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The plan of a bulk build: what is built and why, what is not, and how long it will take."""

from __future__ import annotations

import collections
import collections.abc as c
import dataclasses
import functools
import hashlib
import json
import os
import typing as t

from ..module_utils._files import sha256_file
from ._bindist import read_bindist
from ._context import StepContext
from ._duds import read_duds
from ._graph import Graph
from ._journal import Journal
from ._layout import Layout
from ._port_tree import read_tree
from ._rebuild import Cascade, cascades, describe, Files, Ingredients, Mode, Present, reasons
from ._record import is_present
from ._schedule import Limits, Options, Schedule
from ._settings import for_package, Settings
from ._simulator import Simulator
from ._store import BuiltPackage, StoredFile
from ._systems import Catalogue, CatalogueInputs, Recipe
from ._targets import Targets
from ._text import duration, table


class Slots(t.NamedTuple):
    """A machine of a bulk build. The order of machines is their rank."""

    name: str
    maxjobs: int
    tags: tuple[str, ...] = ()


@dataclasses.dataclass
class Plan:
    """What a bulk build is to do.

    C(why): by package, the codes of the reasons for building it. C(new): those that nobody knows how long they take.
    C(named): the targets that were asked for one by one. C(left_out): those of C(ignored) that somebody does not want
    to be built, such as duds; the others cannot be.
    """

    graph: Graph
    recipes: dict[str, Recipe]
    targets: frozenset[str]
    named: frozenset[str]
    why: dict[str, tuple[str, ...]]
    ignored: dict[str, str]
    left_out: frozenset[str]
    unknown: dict[str, str]
    seconds: list[float]
    new: frozenset[str]
    limits: dict[str, Limits]
    problems: tuple[str, ...]
    stock: Stock
    wishes: Wishes
    versions: dict[str, str]

    @property
    def current(self) -> list[str]:
        """The packages that are there and stay as they are."""
        return [name for name in self.graph.names if name not in self.why and name not in self.ignored]

    def schedule(self, options: Options) -> Schedule:
        """Return a schedule that begins at the beginning."""
        return Schedule(
            self.graph, self.seconds, limits=self.limits, ignored=self.ignored, fetched=self.current, options=options
        )


class Prediction(t.NamedTuple):
    """How long a plan will take, in seconds: as simulated, and below which nobody can do it; and the longest chain."""

    slots: int
    makespan: float
    bound: float
    work: float
    path: list[str]


class Stock:
    """The packages that are there, and what each is made of."""

    def __init__(self, layout: Layout, packages: c.Mapping[str, BuiltPackage], journal: Journal) -> None:
        self._layout = layout
        made_of = journal.made_of()
        self._present: dict[str, Present] = {}
        for name, package in packages.items():
            identity, ingredients = made_of.get(name, (None, {}))
            known = Ingredients.from_dict(ingredients) if identity == package.identity else None
            self._present[name] = self._look(package, known)

    def get(self, name: str) -> Present | None:
        """Return the package as it is there."""
        return self._present.get(name)

    def content(self, name: str) -> str:
        """Return the digest of the package's files; empty when it is not there."""
        present = self._present.get(name)
        return present.content if present else ""

    def put(self, name: str, package: BuiltPackage, made_of: Ingredients | None) -> None:
        """Note that the package has been built."""
        self._present[name] = self._look(package, made_of)

    def _look(self, package: BuiltPackage, made_of: Ingredients | None) -> Present:
        states = {self._state(file) for file in package.files}
        files: Files = "missing" if "missing" in states else "damaged" if "damaged" in states else "there"
        return Present(package.identity, package.version, package.succeeded, files, content_of(package.files), made_of)

    def _state(self, file: StoredFile) -> Files:
        if is_present(self._layout, file):
            return "there"
        return "damaged" if os.path.exists(os.path.join(self._layout.packages, file.name)) else "missing"


def content_of(files: c.Iterable[StoredFile]) -> str:
    """Return the digest of what a package installs: of its package files, whatever else belongs to it."""
    lines = sorted(f"{file.name} {file.sha256}\n" for file in files if file.kind == "package")
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else ""


# -- making it ---------------------------------------------------------------------------------------------------------


def make_plan(context: StepContext, targets: Targets, journal: Journal, held: c.Mapping[str, str]) -> Plan:
    """Return the plan for these targets. C(held) are packages that must not be built now, and why."""
    settings, layout, store = context.settings, context.layout, context.store
    catalogue = read_catalogue(context, targets.words)
    stock = Stock(layout, store.packages(), journal)
    recipes = catalogue.recipes
    graph = Graph((name, (*recipe.needs, *recipe.missing)) for name, recipe in recipes.items())
    ignored = {name: recipe.ignored for name, recipe in recipes.items() if recipe.ignored}
    ignored.update({name: held[name] for name in held if name in recipes})
    left_out = frozenset(ignored)
    ignored = {**graph.reasons, **ignored}
    wishes = Wishes(context, recipes)
    own: dict[str, tuple[str, ...]] = {}
    for number in graph.order:
        name = graph.names[number]
        if name not in ignored:
            own[name] = wishes.reasons(name, stock, forced=_is_forced(settings, catalogue, name))
    needs = {name: recipe.needs for name, recipe in recipes.items()}
    durations = store.durations()
    limits = {name: limit for name in recipes if (limit := _limits(wishes.settings(name))) != Limits()}
    return Plan(
        graph=graph,
        recipes=recipes,
        targets=frozenset(catalogue.targets),
        named=_named(targets.words, recipes),
        why=cascades(own, needs, t.cast(Mode, settings.rebuild)),
        ignored=ignored,
        left_out=left_out,
        unknown={**targets.problems, **catalogue.unknown},
        seconds=graph.seconds(durations),
        new=frozenset(recipes.keys() - durations.keys()),
        limits=limits,
        problems=catalogue.problems,
        stock=stock,
        wishes=wishes,
        versions=_versions(targets.words, catalogue),
    )


def read_catalogue(context: StepContext, targets: c.Sequence[str]) -> Catalogue:
    """Return all that the targets stand for and need."""
    settings, layout, system = context.settings, context.layout, context.system
    bindist = read_bindist(layout)
    return system.catalogue(
        CatalogueInputs(
            targets=targets,
            index=layout.index,
            duds=read_duds(layout.duds),
            tree=layout.tree if system.needs_tree else "",
            tree_sha256=read_tree(layout).sha256 if system.needs_tree else "",
            bindist=layout.bindist,
            bindist_sha256=bindist.sha256,
            source_directory=settings.sourcedir,
            cache_directory=layout.cache,
            build_options=settings.build_options,
            build_profiles=settings.build_profiles,
            build_indep=settings.build_indep,
            no_restricted=settings.no_restricted,
            trybroken=settings.trybroken,
            package_profiles=lambda name: for_package(settings, name).build_profiles,
            package_options=lambda name: for_package(settings, name).build_options,
        )
    )


def _versions(words: c.Iterable[str], catalogue: Catalogue) -> dict[str, str]:
    """Return the versions that targets ask for."""
    asked = (word.partition("=") for word in words if "=" in word)
    return {name: version for name, _equals, version in asked if name in catalogue.recipes}


def _named(words: c.Iterable[str], recipes: c.Mapping[str, Recipe]) -> frozenset[str]:
    asked = {word.partition("=")[0] for word in words}
    return frozenset(name for name, recipe in recipes.items() if name in asked or not asked.isdisjoint(recipe.aliases))


class Wishes:
    """What is wanted of each package now."""

    def __init__(self, context: StepContext, recipes: c.Mapping[str, Recipe]) -> None:
        self._settings = context.settings
        self._recipes = recipes
        self._bindist = read_bindist(context.layout).sha256
        make_conf = context.layout.make_conf
        self._make_conf = sha256_file(make_conf) if os.path.isfile(make_conf) else ""

    def settings(self, name: str) -> Settings:
        """Return the settings of the package."""
        return for_package(self._settings, name)

    def ingredients(self, name: str, stock: Stock) -> Ingredients:
        """Return what the package would be made of now."""
        recipe = self._recipes[name]
        return Ingredients(
            version=recipe.version,
            recipe=recipe.digest,
            options=self._options(self.settings(name)),
            bindist=self._bindist,
            needs={needed: stock.content(needed) for needed in recipe.needs},
        )

    def reasons(self, name: str, stock: Stock, *, forced: bool = False) -> tuple[str, ...]:
        """Return the reasons for building the package, as far as what it needs is there."""
        wanted = self.ingredients(name, stock)
        others = {needed: present for needed in wanted.needs if (present := stock.get(needed)) is not None}
        return reasons(
            wanted,
            stock.get(name),
            others,
            forced=forced,
            mode=t.cast(Mode, self._settings.rebuild),
            cascade=t.cast(Cascade, self._settings.cascade),
        )

    def _options(self, settings: Settings) -> str:
        """Return the digest of the settings that change what comes out."""
        return _options_digest(
            settings.build_options,
            settings.build_profiles,
            settings.build_indep,
            settings.version_suffix,
            self._make_conf,
        )


@functools.lru_cache(maxsize=1024)
def _options_digest(*options: t.Any) -> str:
    return hashlib.sha256(json.dumps(options).encode()).hexdigest()


def _is_forced(settings: Settings, catalogue: Catalogue, name: str) -> bool:
    return settings.rebuild == "all" or (settings.rebuild == "targets" and name in catalogue.targets)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.slots, settings.alone, frozenset(settings.needs_tags), frozenset(settings.not_with))


# -- telling it --------------------------------------------------------------------------------------------------------


def predict(plan: Plan, machines: c.Sequence[Slots], options: Options) -> Prediction:
    """Return how long the plan will take on these machines, if each package takes as long as it did."""
    schedule = plan.schedule(dataclasses.replace(options, retry_alone=False))
    for rank, machine in enumerate(machines):
        schedule.machine_came(machine.name, machine.maxjobs, rank, machine.tags)
    number = plan.graph.number
    simulation = Simulator(schedule, lambda dispatch: plan.seconds[number[dispatch.package]]).run()
    part = plan.graph.part(plan.why)
    seconds = [plan.seconds[number[name]] for name in part.names]
    slots = sum(machine.maxjobs for machine in machines)
    _longest, path = part.critical_path(seconds)
    work = sum(seconds[n] for n in part.buildable())
    return Prediction(slots, simulation.makespan, part.lower_bound(seconds, max(1, slots)), work, path)


def plan_lines(plan: Plan, prediction: Prediction, machines: c.Sequence[Slots], most: int) -> list[str]:
    """Return the plan for a person."""
    built = sorted(plan.why, key=lambda name: (name not in plan.targets, name))
    rows = [
        (name, plan.recipes[name].version, predicted_time(plan, name), describe(plan.why[name]))
        for name in built[:most]
    ]
    others = f"{len(plan.current)} stay as they are, {len(plan.ignored)} ignored, {len(plan.unknown)} unknown"
    lines = [f"{_count(len(plan.why), 'package')} to build, {others}."]
    lines += table(("package", "version", "takes", "because"), rows)
    lines += [f"and {len(built) - most} more."] if len(built) > most else []
    codes = collections.Counter(code for why in plan.why.values() for code in why)
    lines += [f"{count} because {describe([code])}." for code, count in codes.most_common()] if len(built) > 1 else []
    lines += _left_out(plan, most)
    where = ", ".join(f"{machine.name} ({machine.maxjobs})" for machine in machines) or "none"
    lines.append(f"Machines and their slots: {where}.")
    unknown = len(plan.new & plan.why.keys())
    if unknown:
        lines.append(f"How long {unknown} of them take is not known: each counts as long as the longest but a few.")
    if plan.why and unknown < len(plan.why):
        lines.append(
            f"Predicted: {duration(prediction.makespan)} on {_count(prediction.slots, 'slot')}; "
            f"nobody can do it in less than {duration(prediction.bound)} ({duration(prediction.work)} of work)."
        )
    lines += [f"Longest chain: {_chain(prediction.path)}."] if plan.why else []
    return lines


def predicted_time(plan: Plan, name: str) -> str:
    """Return how long the package is expected to take."""
    return "?" if name in plan.new else duration(plan.seconds[plan.graph.number[name]])


def _left_out(plan: Plan, most: int) -> list[str]:
    """Return what is not built, and why."""
    lines = [f"unknown: {message}" for message in list(plan.unknown.values())[:most]]
    lines += [f"ignored: {name}: {reason}" for name, reason in sorted(plan.ignored.items())[:most]]
    hidden = max(0, len(plan.unknown) - most) + max(0, len(plan.ignored) - most)
    return lines + ([f"and {hidden} more that are ignored or unknown."] if hidden else [])


def _chain(path: c.Sequence[str], most: int = 12) -> str:
    if len(path) <= most:
        return " > ".join(path)
    return f"{' > '.join(path[: most // 2])} > … ({len(path) - most} more) > {' > '.join(path[-(most // 2) :])}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
