# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Telling people what happened, as the settings of the branch say."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ..module_utils._errors import PortbuildError
from ._context import StepContext
from ._notify import default_sender, Event, MailConfig, Notifier

# What concerns a port and not the cluster.
EVENTS_FOR_MAINTAINERS: tuple[Event, ...] = ("failure", "plist", "broken_built", "builds_again")


class Told(t.NamedTuple):
    """What became of the messages: the events that were sent or spooled, and what could not be told."""

    sent: list[str]
    spooled: list[str]
    problems: list[str]


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
    )
    return Notifier(config, context.layout.spool)


def tell(context: StepContext, events: c.Iterable[c.Mapping[str, t.Any]]) -> Told:
    """Send or spool the messages of the events. That nobody can be told is no reason to lose a build: it is returned."""
    notifier = make_notifier(context)
    deliveries = []
    problems = []
    for event in events:
        try:
            deliveries.extend(notifier.notify(event["event"], event))
        except PortbuildError as error:
            problems.append(f"Nobody could be told of {event['event']}: {error}")
    spooled = [delivery.event for delivery in deliveries if delivery.state == "spooled"]
    if spooled:
        problems.append(f"The mail server took no message now; {len(spooled)} wait in {context.layout.spool}.")
    return Told([delivery.event for delivery in deliveries if delivery.state == "delivered"], spooled, problems)


def strange_results(context: StepContext, lease: c.Mapping[str, t.Any], error: PortbuildError) -> dict[str, t.Any]:
    """Return the event of results that could not be taken over."""
    return {
        **{name: lease[name] for name in ("package", "machine", "queue", "token")},
        "event": "fetch_problem",
        "arch": context.settings.arch,
        "branch": context.settings.branch,
        "outcome": "infrastructure" if error.details.get("infrastructure") else "error",
        "reason": str(error.details.get("reason") or "error"),
        "phase": "fetch_results",
        "detail": error.message,
        "problems": [str(error)],
    }
