# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Telling people and hooks what happened, as the settings of the branch say."""

from __future__ import annotations

import collections.abc as c
import os
import time
import typing as t

from ..module_utils._errors import PortbuildError
from ._context import StepContext
from ._events import Event, EVENTS
from ._hook import check_file, check_hooks, Hooks
from ._journal import Run
from ._notify import BadMailConfig, default_sender, Delivery, MailConfig, Notifier, State
from ._settings import Settings

# What concerns a port and not the cluster.
EVENTS_FOR_MAINTAINERS: tuple[Event, ...] = ("failure", "plist", "broken_built", "builds_again")


class Told(t.NamedTuple):
    """What became of the events.

    C(sent), C(spooled) and C(repeated) are the events whose messages were; C(problems) says what went wrong, C(untold) are
    the events of which somebody will never hear. C(events) are for the administrator's C(tasks), a file.
    """

    sent: list[str]
    spooled: list[str]
    repeated: list[str]
    problems: list[str]
    untold: list[str]
    tasks: str
    events: list[dict[str, t.Any]]

    def for_tasks(self) -> dict[str, t.Any]:
        """Return what the role that includes the administrator's tasks must know."""
        return {"tasks": self.tasks if self.events else "", "events": self.events}


NOTHING = Told([], [], [], [], [], "", [])


def check_telling(settings: Settings) -> None:
    """Raise PortbuildError for settings by which nobody could be told anything, before there is something to tell."""
    check_hooks(settings.hook, settings.hook_tasks)
    if settings.mail_templates and not os.path.isdir(settings.mail_templates):
        raise BadMailConfig(
            f"portbuild_mail_templates is {settings.mail_templates}, which is no directory.",
            remedy="Without it, the templates that are shipped are used.",
            details={"reason": "controller"},
        )


def make_notifier(context: StepContext) -> Notifier:
    """Return the notifier of the branch as the settings describe it."""
    settings = context.settings
    if not settings.mail_host:
        return Notifier(None, context.layout.spool)
    config = MailConfig(
        host=settings.mail_host,
        port=settings.mail_port,
        sender=settings.mail_from or default_sender(),
        to={**settings.mail_events, "default": settings.mail_to},
        maintainer=EVENTS_FOR_MAINTAINERS if settings.mail_maintainers else (),
        starttls=settings.mail_tls == "starttls",
        username=settings.mail_username,
        password=settings.mail_password,
        templates=settings.mail_templates,
        repeat=settings.mail_repeat,
    )
    return Notifier(config, context.layout.spool)


def tell(
    context: StepContext,
    events: c.Sequence[c.Mapping[str, t.Any]],
    *,
    check_tasks: c.Callable[[str], None] = check_file,
) -> Told:
    """Send or spool the messages of the events, and tell the hooks. Without an event, send what waits.

    That nobody can be told is no reason to lose a build: it is returned. A task file that does not pass C(check_tasks),
    by BadHook, is not to be included.
    """
    settings = context.settings
    marks = os.path.join(context.layout.spool, "hooked")
    hooks = Hooks(settings.hook, settings.hook_tasks, marks, limit=settings.hook_timeout, check_tasks=check_tasks)
    deliveries: list[Delivery] = []
    problems, untold, for_tasks = [], [], []
    if not events:
        try:
            deliveries.extend(make_notifier(context).flush())
            hooks.forget_old()
        except (PortbuildError, OSError) as error:
            problems.append(f"No mail can be sent: {error}")
    for event in events:
        if event.get("event") not in EVENTS:
            problems.append(f"{event.get('event')!r:.100} is no event: it must be one of {', '.join(EVENTS)}.")
            continue
        try:
            deliveries.extend(make_notifier(context).notify(event["event"], event))
        except (PortbuildError, OSError) as error:
            problems.append(f"Nobody could be told of {event['event']}: {error}")
            untold.append(event["event"])
        try:
            for_tasks += hooks.tell(event)
        except OSError as error:
            problems.append(f"The hooks could not be told of {event['event']}: {error}")
            untold.append(event["event"])
    spooled = _those(deliveries, "spooled")
    if spooled:
        waiting = len(make_notifier(context).waiting())
        problems.append(f"The mail server took no message now; {waiting} wait in {context.layout.spool}.")
    for lost in deliveries:
        if lost.state == "rejected":
            about = f"{lost.event} of {lost.package}" if lost.package else lost.event
            problems.append(f"{', '.join(lost.recipients)} cannot be told of {about}: {lost.detail}")
    sent, repeated = _those(deliveries, "delivered"), _those(deliveries, "repeated")
    return Told(sent, spooled, repeated, [*problems, *hooks.problems], [*untold, *hooks.untold], hooks.tasks, for_tasks)


def _those(deliveries: c.Iterable[Delivery], state: State) -> list[str]:
    """Return the events whose messages came to that in the end: what waits is tried with each of several events."""
    last = {(delivery.key, delivery.recipients): delivery for delivery in deliveries}
    return [delivery.event for delivery in last.values() if delivery.state == state]


# -- events that are no builds -----------------------------------------------------------------------------------------


def strange_results(context: StepContext, lease: c.Mapping[str, t.Any], error: PortbuildError) -> dict[str, t.Any]:
    """Return the event of results that could not be taken over."""
    return {
        **{name: lease[name] for name in ("package", "machine", "queue", "token")},
        **_where(context),
        "event": "fetch_problem",
        "at": time.time(),
        "outcome": "infrastructure" if error.details.get("infrastructure") else "error",
        "reason": str(error.details.get("reason") or "error"),
        "phase": "fetch_results",
        "detail": error.message,
        "problems": [str(error)],
    }


def machine_event(context: StepContext, event: Event, machine: str, *, since: float, **more: t.Any) -> dict[str, t.Any]:
    """Return the event of a machine that went offline C(since) then, or that is back."""
    return {**_where(context), "event": event, "machine": machine, "since": since, "at": time.time(), **more}


def bulk_event(context: StepContext, run: Run, summary: c.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the event of a bulk build that has ended, from its summary."""
    parts = ("built", "stayed", "failed", "skipped", "ignored", "unfinished", "given_up", "unknown")
    return {
        **_where(context),
        "event": "bulk_ended",
        "run": run.number,
        "begun": run.begun,
        "at": summary["ended"],
        "since": summary["began"],
        "seconds": summary["seconds"],
        "outcome": "built" if summary["ok"] else "failed",
        "counts": {part: len(summary[part]) for part in parts},
        "failed": summary["failed"],
        "summary": os.path.join(context.layout.bulk, "summary.json"),
    }


def _where(context: StepContext) -> dict[str, str]:
    return {"arch": context.settings.arch, "branch": context.settings.branch}
