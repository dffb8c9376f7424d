# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Mail about what people want to know of: what failed, what is strange, what works again.

A message is first written to the spool and then sent from there, so that none is lost when the mail server is away:
each later message is an occasion to try again. Sending never holds up a dispatch for longer than the budget, whatever
the server does. What has been sent leaves a marker, so that a step that is repeated sends nothing twice. A problem that
comes again for the same cause is counted for some time, and told with the next message.
"""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import email.message
import email.policy
import email.utils
import fcntl
import os
import re
import smtplib
import socket
import ssl
import threading
import time
import typing as t

from ..module_utils._errors import PortbuildError
from ..module_utils._files import BadFile, read_json, write_json
from ._events import Event, EVENTS, facts_of, identity_of, is_problem, MENDED, sequence
from ._repeats import Repeats
from ._text import duration, one_line, printable, tail

try:
    import jinja2
    import jinja2.sandbox
except ImportError:  # pragma: no cover
    HAS_JINJA2 = False
else:
    HAS_JINJA2 = True

T = t.TypeVar("T")

State = t.Literal["delivered", "spooled", "rejected", "duplicate", "repeated"]

LOG_LINES = 1000
BUDGET = 10.0  # seconds that sending may add to a dispatch
RENDERING = 5.0  # seconds that a template may take: a lock is held meanwhile
_PARTING = 1.0  # seconds for saying goodbye to the server
BACK_OFF = 60.0  # seconds without an attempt after the server let us wait for the whole budget
EXPIRES = 7 * 86400.0  # after this nobody wants to read it any more
REMEMBERED = 90 * 86400.0

_TEMPLATES = os.path.join(os.path.dirname(__file__), "_templates")
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}(?:@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?)?")
_MAINTAINER = re.compile(r"[^<>]*<([^<>\s]+)>|([^<>\s]+)")  # Name <address>, or the address alone
_SUFFIX = ".json"
# How RFC 2047 begins an encoded word. Python's email package decodes what looks like one, and where it is not quite new
# it writes a line break that was hidden in it as it is, which begins another header.
_ENCODED = "=?"
_SPOOL_SCHEMA = 1


class BadMailConfig(PortbuildError):
    """The portbuild_mail_ settings are not what they should be."""


class Delivery(t.NamedTuple):
    """What became of a message for these recipients. C(key) is of its event, as C(identity_of) gives it."""

    event: str
    package: str
    recipients: tuple[str, ...]
    state: State
    detail: str = ""
    key: str = ""


# -- configuration -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class MailConfig:
    """Where mail goes to: the C(portbuild_mail_) settings.

    C(to) is by event, with C(default) for those that it does not name; C(maintainer) are the events that the package's
    maintainer hears of too. Templates in the directory C(templates) are taken before our own. A problem is not told again
    for C(repeat) seconds when its cause is the same.
    """

    host: str
    port: int = 25
    sender: str = ""
    to: c.Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    maintainer: tuple[Event, ...] = ()
    starttls: bool = False
    username: str = ""
    password: str = dataclasses.field(default="", repr=False)
    templates: str = ""
    repeat: float = 0.0

    def __post_init__(self) -> None:
        if not self.sender:
            object.__setattr__(self, "sender", f"portbuild@{_host_name()}")
        for address in (self.sender, *(address for addresses in self.to.values() for address in addresses)):
            if not is_address(address):
                raise BadMailConfig(f"{address!r:.100} is not a plain mail address such as ports@example.org.")
        for event in (*self.to, *self.maintainer):
            if event != "default":
                _check_event(event)

    def recipients(self, event: Event) -> tuple[str, ...]:
        """Return who hears of the event, whatever package it is about."""
        return self.to.get(event, self.to.get("default", ()))


def _check_event(event: str) -> None:
    if event not in EVENTS:
        raise BadMailConfig(f"{event!r:.100} is no event that can be mailed: it must be one of {', '.join(EVENTS)}.")


def is_address(value: t.Any) -> bool:
    """Whether the value is a plain address; a name of this host's mail system is one too."""
    fits = isinstance(value, str) and len(value) <= 254 and _ADDRESS.fullmatch(value) is not None
    return fits and _ENCODED not in value


def default_sender() -> str:
    """Return the sender of mail for which none is set."""
    return f"portbuild@{_host_name()}"


def _host_name() -> str:
    # Not getfqdn, which may wait for a name server.
    name = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()).strip(".-")
    return name or "localhost"


# -- messages ----------------------------------------------------------------------------------------------------------


def render(
    config: MailConfig, event: Event, context: c.Mapping[str, t.Any], *, log_lines: int = LOG_LINES
) -> tuple[str, str]:
    """Return subject and text. A template of the administrator's that cannot be used is replaced by ours, which says so."""
    if not HAS_JINJA2:
        raise PortbuildError("Messages need the Python library Jinja2 >= 3.0.", remedy="Install it on the controller.")
    values = _template_values(event, context, log_lines)
    try:
        if not config.templates:
            return _render([_TEMPLATES], event, values)
        late = f"it did not end within {RENDERING:.0f} s"
        return _in_time(lambda: _render([config.templates, _TEMPLATES], event, values), RENDERING, late)
    except Exception as error:  # an administrator's template may do anything
        if not config.templates:
            raise PortbuildError(f"The template {event}.j2 cannot be used: {type(error).__name__}: {error}.") from error
        subject, body = _render([_TEMPLATES], event, values)
        why = one_line(f"{type(error).__name__}: {error}", 500)
        return subject, f"{body}\nThe template {event}.j2 in {config.templates} cannot be used: {why}\n"


def _render(directories: c.Sequence[str], event: Event, values: c.Mapping[str, t.Any]) -> tuple[str, str]:
    environment = jinja2.sandbox.SandboxedEnvironment(
        loader=jinja2.FileSystemLoader(directories),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # plain text
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["duration"] = duration
    end, pieces = time.monotonic() + RENDERING, []
    for piece in environment.get_template(f"{event}.j2").generate(values):
        if time.monotonic() > end:  # else it goes on filling the memory when nobody waits for it any more
            raise TimeoutError(f"it did not end within {RENDERING:.0f} s")
        pieces.append(piece)
    text = "".join(pieces)
    text.encode()  # half a character, as an escape in a template makes it, cannot be sent: said here, ours is taken
    head, _separator, body = text.lstrip("\n").partition("\n")
    subject = head.removeprefix("Subject:")
    return one_line(subject, 200), body.strip("\n") + "\n"


def _template_values(event: Event, context: c.Mapping[str, t.Any], log_lines: int) -> dict[str, t.Any]:
    """Return every value that templates use: the event's facts, and what only a message has."""
    values = facts_of({**context, "event": event})
    values["repeats"] = int(context.get("repeats") or 0)
    values["log_lines"] = [printable(line) for line in sequence(context.get("log_lines")) if isinstance(line, str)]
    if event == "failure" and not values["log_lines"] and isinstance(context.get("log"), str) and context["log"]:
        try:
            values["log_lines"] = tail(context["log"], log_lines)
        except (OSError, ValueError) as error:
            values["log_lines"] = [f"(the log cannot be read: {getattr(error, 'strerror', error)})"]
    return values


def compose(
    sender: str, recipients: c.Sequence[str], subject: str, body: str, *, headers: c.Mapping[str, str], date: float
) -> str:
    """Return the message in a form that every mail server takes: ASCII, lines of at most 998 characters."""
    message = email.message.EmailMessage(policy=email.policy.SMTP.clone(cte_type="7bit"))
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject.replace(_ENCODED, "= ?")
    message["Date"] = email.utils.formatdate(date)
    message["Auto-Submitted"] = "auto-generated"
    for name, value in headers.items():
        message[name] = value
    message.set_content(body, charset="utf-8")
    return message.as_bytes().decode("ascii")


# -- sending -----------------------------------------------------------------------------------------------------------


class Notifier:
    """Sends messages about one branch of one arch, and its machines, from the spool directory."""

    def __init__(
        self,
        config: MailConfig | None,
        spool: str,
        *,
        budget: float = BUDGET,
        now: c.Callable[[], float] = time.time,
        monotonic: c.Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._spool = spool
        self._sent = os.path.join(spool, "sent")
        self._hung = os.path.join(spool, ".hung")
        self._repeats = Repeats(os.path.join(spool, "causes"), now=now)
        self._budget = budget
        self._now = now
        self._monotonic = monotonic

    def notify(self, event: Event, context: c.Mapping[str, t.Any]) -> list[Delivery]:
        """Tell about the event, once, and send what waits; return what became of each message.

        Which event it is, say arch, branch, package, queue and token in the context, of other events than those of
        builds what C(identity_of) goes by.
        """
        config = self._config
        if config is None:
            return []
        _check_event(event)
        context = {**context, "event": event}
        if event in MENDED:
            self._repeats.forget("failure", context)
        package = one_line(context.get("package"), 200)
        recipients, deliveries = self._recipients(config, event, context)
        if not recipients:
            return deliveries + self.flush()
        for directory in (self._spool, self._sent):
            os.makedirs(directory, exist_ok=True)
        key = identity_of(context)
        if os.path.exists(self._path(key)) or os.path.exists(os.path.join(self._sent, key)):
            why = "it has been sent or waits to be sent"
            deliveries.append(Delivery(event, package, recipients, "duplicate", why, key))
            return deliveries + self.flush()
        if not self._write_unless_repeated(config, key, event, package, recipients, context):
            deliveries.append(Delivery(event, package, recipients, "repeated", "the same has been told lately", key))
            return deliveries + self.flush()
        flushed = self.flush()
        if not any(delivery.key == key for delivery in flushed):
            flushed.append(Delivery(event, package, recipients, "spooled", "it waits for the next attempt", key))
        return deliveries + flushed

    def flush(self) -> list[Delivery]:
        """Send what waits, within the budget; return what became of each message that was tried."""
        if self._config is None:
            return []
        waiting = self.waiting()
        if not waiting or self._backing_off():
            return []
        os.makedirs(self._sent, exist_ok=True)  # whoever has cleared it away must not get each message again and again
        end = self._monotonic() + self._budget
        deliveries: list[Delivery] = []
        session = _Session(self._config, end, self._monotonic)
        try:
            for path in waiting:
                if self._monotonic() >= end:
                    break
                with _locked(path) as spooled:
                    if spooled is not None:
                        deliveries += self._send(session, path, spooled)
        except _ServerProblem as problem:
            deliveries += problem.deliveries
            if self._monotonic() >= end:
                with contextlib.suppress(OSError), open(self._hung, "w", encoding="ascii"):
                    os.utime(self._hung, (self._now(), self._now()))
        finally:
            session.close()
        self._forget()
        return deliveries

    # -- parts --------------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> str:
        return os.path.join(self._spool, key + _SUFFIX)

    def _recipients(
        self, config: MailConfig, event: Event, context: c.Mapping[str, t.Any]
    ) -> tuple[tuple[str, ...], list[Delivery]]:
        recipients = list(config.recipients(event))
        deliveries = []
        maintainer = context.get("maintainer")
        if event in config.maintainer and maintainer:
            found = _MAINTAINER.fullmatch(one_line(maintainer, 320))
            address = found[1] or found[2] if found else ""
            if is_address(address) and "@" in address:
                recipients.append(address)
            else:
                shown = one_line(maintainer, 80)
                package = one_line(context.get("package"), 200)
                deliveries.append(Delivery(event, package, (shown,), "rejected", "the maintainer has no mail address"))
        return tuple(dict.fromkeys(recipients)), deliveries

    def _write_unless_repeated(
        self,
        config: MailConfig,
        key: str,
        event: Event,
        package: str,
        recipients: tuple[str, ...],
        context: c.Mapping[str, t.Any],
    ) -> bool:
        """Put the message into the spool; return False if the same cause has been told lately, and was only counted."""
        if not config.repeat or not is_problem(context):
            self._write(config, key, event, package, recipients, context)
            return True
        with self._repeats.cause(context) as cause:
            if cause.counts(key, config.repeat):
                return False
            self._write(config, key, event, package, recipients, {**context, "repeats": cause.times})
            cause.told(key)  # whoever dies before this tells it once more: better than never
        return True

    def _write(
        self,
        config: MailConfig,
        key: str,
        event: Event,
        package: str,
        recipients: tuple[str, ...],
        context: c.Mapping[str, t.Any],
    ) -> None:
        subject, body = render(config, event, context)
        domain = config.sender.rpartition("@")[2]
        # The same Message-ID whenever it is sent: should a crash send it twice, the reader's program sees that.
        headers = {"Message-ID": f"<{key.rpartition('.')[2]}.portbuild@{domain}>", "X-Portbuild-Event": event}
        message = compose(config.sender, recipients, subject, body, headers=headers, date=self._now())
        spooled = {
            "schema": _SPOOL_SCHEMA,
            "event": event,
            "package": package,
            "since": self._now(),
            "sender": config.sender,
            "recipients": list(recipients),
            "message": message,
        }
        write_json(self._path(key), spooled, mode=0o640)

    def waiting(self) -> list[str]:
        """Return the spooled messages, the oldest first."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._spool) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX) and not entry.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((entry.stat().st_mtime, entry.path))
        return [path for _time, path in sorted(found)]

    def _backing_off(self) -> bool:
        try:
            return abs(self._now() - os.stat(self._hung).st_mtime) < BACK_OFF
        except FileNotFoundError:
            return False

    def _send(self, session: _Session, path: str, spooled: dict[str, t.Any]) -> list[Delivery]:
        event, package = spooled["event"], spooled["package"]

        def delivery(recipients: c.Iterable[str], state: State, detail: str = "") -> list[Delivery]:
            found = tuple(recipients)
            return [Delivery(event, package, found, state, detail, _key_of(path))] if found else []

        try:
            outcome = session.send(spooled["sender"], spooled["recipients"], spooled["message"])
        except _ServerProblem as problem:
            if self._now() - spooled["since"] > EXPIRES:
                self._done(path)
                return delivery(spooled["recipients"], "rejected", f"given up after a week: {problem.detail}")
            problem.deliveries = delivery(spooled["recipients"], "spooled", problem.detail)
            raise
        if outcome.later and self._now() - spooled["since"] <= EXPIRES:
            write_json(path, {**spooled, "recipients": outcome.later}, mode=0o640)
        else:
            outcome = outcome._replace(refused=outcome.refused + outcome.later, later=[])
            self._done(path)
        return (
            delivery(outcome.delivered, "delivered")
            + delivery(outcome.later, "spooled", outcome.detail)
            + delivery(outcome.refused, "rejected", outcome.detail)
        )

    def _done(self, path: str) -> None:
        """Leave a marker instead of the message: one rename, so that no crash sends it again."""
        marker = os.path.join(self._sent, _key_of(path))
        os.replace(path, marker)
        with contextlib.suppress(OSError):
            os.truncate(marker, 0)
            os.utime(marker, (self._now(), self._now()))

    def _forget(self) -> None:
        forget_old(self._sent, self._now())
        self._repeats.forget_old(REMEMBERED)


def _key_of(path: str) -> str:
    return os.path.basename(path).removesuffix(_SUFFIX)


def forget_old(directory: str, now: float) -> None:
    """Remove the markers in the directory that nobody will ask for any more."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if now - entry.stat().st_mtime > REMEMBERED:
                os.unlink(entry.path)


@contextlib.contextmanager
def _locked(path: str) -> c.Iterator[dict[str, t.Any] | None]:
    """The message, held against other senders; None if another one has it, or it is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield None  # sent meanwhile, or another user's
        return
    try:
        spooled: dict[str, t.Any] | None = None
        with contextlib.suppress(OSError, BadFile):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                spooled = _checked_spool(read_json(path))
        yield spooled
    finally:
        os.close(descriptor)


def _checked_spool(value: dict[str, t.Any]) -> dict[str, t.Any] | None:
    good = (
        value.get("schema") == _SPOOL_SCHEMA  # what a later version has spooled waits for that
        and all(isinstance(value.get(name), str) for name in ("event", "package", "sender", "message"))
        and isinstance(value.get("since"), (int, float))
        and isinstance(value.get("recipients"), list)
        and all(is_address(address) for address in (*value["recipients"], value["sender"]))
        and value["message"].isascii()
    )
    return value if good else None


class _Outcome(t.NamedTuple):
    delivered: list[str]
    later: list[str]
    refused: list[str]
    detail: str


class _ServerProblem(Exception):
    """The server is not there, or does not work for anybody: trying the next message would be of no use."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.deliveries: list[Delivery] = []


class _Session:
    """One connection to the mail server, made when it is first needed, with one end for everything that it does."""

    def __init__(self, config: MailConfig, end: float, monotonic: c.Callable[[], float]) -> None:
        self._config = config
        self._end = end
        self._monotonic = monotonic
        self._server: smtplib.SMTP | None = None

    def left(self) -> float:
        """Return the seconds until the end."""
        return self._end - self._monotonic()

    def send(self, sender: str, recipients: list[str], message: str) -> _Outcome:
        refused: dict[str, tuple[int, t.Any]]
        try:
            server = self._connected()
            refused = server.sendmail(sender, recipients, message.encode("ascii"))
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except smtplib.SMTPDataError as error:
            refused = dict.fromkeys(recipients, (error.smtp_code, error.smtp_error))
        except smtplib.SMTPSenderRefused as error:
            if error.smtp_code == 421:  # it hangs up
                raise self._problem(error) from error
            # This message's sender or size: others need not wait for it, and a setting may be mended.
            why = f"{error.smtp_code} {_text(error.smtp_error)}"
            return _Outcome([], recipients, [], one_line(f"{sender}: {why}", 500))
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise self._problem(error) from error
        later = [recipient for recipient in recipients if recipient in refused and refused[recipient][0] < 500]
        never = [recipient for recipient in recipients if recipient in refused and recipient not in later]
        detail = "; ".join(f"{name}: {code} {_text(text)}" for name, (code, text) in refused.items())
        return _Outcome([one for one in recipients if one not in refused], later, never, one_line(detail, 500))

    def close(self) -> None:
        if self._server is not None:
            self._end = min(self._end, self._monotonic() + _PARTING)  # everything is done: only good manners
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self._server.quit()
            self._server.close()

    def _problem(self, error: Exception) -> _ServerProblem:
        why = str(error)
        if self.left() < 0.01:  # smtplib has more than one name for that
            why = "it did not answer in time"
        elif isinstance(error, smtplib.SMTPResponseException):
            why = f"{error.smtp_code} {_text(error.smtp_error)}"
        return _ServerProblem(f"mail server {self._config.host}:{self._config.port}: {one_line(why, 300)}")

    def _connected(self) -> smtplib.SMTP:
        if self._server is None:
            config = self._config
            server = _Smtp(self.left)
            self._server = server
            code, greeting = server.connect(config.host, config.port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, greeting)
            server.ehlo_or_helo_if_needed()
            if config.starttls:
                context = ssl.create_default_context()
                context.sslsocket_class = _bounded(ssl.SSLSocket, self.left)
                # What certificates are checked against; connect() does not tell it.
                server._host = config.host  # type: ignore[attr-defined]
                server.starttls(context=context)
            if config.username:
                server.login(config.username, config.password)
        return self._server


def _text(value: t.Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _bounded(base: type[t.Any], left: c.Callable[[], float]) -> type[t.Any]:
    """Return the socket class with one end for everything, however slowly the bytes come."""

    class Bounded(base):
        def _arm(self) -> None:
            seconds = left()
            if seconds <= 0:
                raise TimeoutError("it did not answer in time")
            self.settimeout(seconds)

        def connect(self, *arguments: t.Any) -> t.Any:
            self._arm()
            return super().connect(*arguments)

        def recv_into(self, *arguments: t.Any, **keywords: t.Any) -> t.Any:
            self._arm()
            return super().recv_into(*arguments, **keywords)

        def send(self, *arguments: t.Any, **keywords: t.Any) -> t.Any:
            self._arm()
            return super().send(*arguments, **keywords)

        def sendall(self, *arguments: t.Any, **keywords: t.Any) -> t.Any:
            self._arm()
            return super().sendall(*arguments, **keywords)

    return Bounded


class _Smtp(smtplib.SMTP):
    """An SMTP client that is done at a given time, whatever the server does."""

    def __init__(self, left: c.Callable[[], float]) -> None:
        super().__init__(local_hostname=_host_name())  # else it asks a name server
        self._left = left

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002  smtplib's hook
        bounded = _bounded(socket.socket, self._left)
        problem: OSError = OSError("the name has no address")
        for family, kind, protocol, _name, address in self._addresses(host, port):
            connection = bounded(family, kind, protocol)
            try:
                connection.connect(address)
            except OSError as error:
                connection.close()
                problem = error
            else:
                return t.cast("socket.socket", connection)
        raise problem

    def _addresses(self, host: str, port: int) -> list[t.Any]:
        def resolve() -> list[t.Any]:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

        return _in_time(resolve, max(0.0, self._left()), "the name server did not answer in time")


def _in_time(work: c.Callable[[], T], seconds: float, late: str) -> T:
    """Do the work in a thread, where nothing else bounds it. What is late goes on, but nobody waits for it."""
    found: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:  # it is raised below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if found:
        return found[0]
    raise failed[0] if failed else TimeoutError(late)
