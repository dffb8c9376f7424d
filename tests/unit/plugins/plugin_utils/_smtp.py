# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small mail server on loopback that can be as bad as real ones are."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import email
import email.message
import email.policy
import socketserver
import ssl
import threading
import time


@dataclasses.dataclass
class Mail:
    sender: str
    recipients: list[str]
    data: bytes

    @property
    def message(self) -> email.message.EmailMessage:
        return email.message_from_bytes(self.data, policy=email.policy.default)


class SmtpServer(socketserver.ThreadingTCPServer):
    """Speaks enough SMTP (RFC 5321) for a client to deliver.

    C(replies) are answers that differ from the usual, by the line that they answer; C(hang) is the verb before whose
    answer the server falls silent, C(drip) the seconds before each byte of an answer.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Session)
        self.connections = 0
        self.mails: list[Mail] = []
        self.lines: list[str] = []
        self.replies: dict[str, str] = {}
        self.hang = ""
        self.drip = 0.0
        self.tls: ssl.SSLContext | None = None
        self.stopping = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @contextlib.contextmanager
    def running(self) -> c.Iterator[SmtpServer]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            self.shutdown()
            thread.join()
            self.server_close()


class _Session(socketserver.StreamRequestHandler):
    server: SmtpServer

    def handle(self) -> None:
        self.server.connections += 1
        self.sender, self.recipients = "", []  # type: ignore[var-annotated]
        with contextlib.suppress(OSError):
            if not self.answer("CONNECT", "220 test"):
                return
            while line := self.rfile.readline().decode("ascii").rstrip("\r\n"):
                command, bracket, rest = line.partition("<")  # case matters in addresses alone
                line = command.upper() + bracket + rest
                self.server.lines.append(line)
                if not self.command(line):
                    return

    def command(self, line: str) -> bool:
        verb = line.partition(" ")[0]
        if verb == "EHLO":
            return self.answer(
                line, "250-test\r\n250-AUTH PLAIN\r\n250 " + ("STARTTLS" if self.server.tls else "8BITMIME")
            )
        if verb == "STARTTLS" and self.server.tls:
            self.answer(line, "220 go on")
            self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
            self.rfile = self.connection.makefile("rb")
            self.wfile = self.connection.makefile("wb", buffering=0)
            return True
        if verb == "MAIL":
            self.sender, self.recipients = _address(line), []
        elif verb == "RCPT" and not self.server.replies.get(line):
            self.recipients.append(_address(line))
        elif verb == "DATA" and not self.server.replies.get(line):
            return self.answer(line, "354 go on") and self.data()
        elif verb == "QUIT":
            self.answer(line, "221 bye")
            return False
        return self.answer(line, "235 welcome" if verb == "AUTH" else "250 fine")

    def data(self) -> bool:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                return False
            lines.append(line[1:] if line.startswith(b".") else line)
        if not self.server.replies.get("END"):
            self.server.mails.append(Mail(self.sender, self.recipients, b"".join(lines)))
        return self.answer("END", "250 taken")

    def answer(self, line: str, usual: str) -> bool:
        if self.server.hang and line.startswith(self.server.hang):
            self.server.stopping.wait(30)
            return False
        reply = (self.server.replies.get(line) or usual).encode("ascii") + b"\r\n"
        if not self.server.drip:
            self.wfile.write(reply)
            return True
        for byte in reply:
            time.sleep(self.server.drip)
            self.wfile.write(bytes([byte]))
        return True


def _address(line: str) -> str:
    return line.partition("<")[2].partition(">")[0]
