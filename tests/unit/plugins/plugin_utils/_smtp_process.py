# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mail server in a process of its own, with files for a memory: it can be killed, and started again where it was.

How it behaves stands in the file C(mode), which it reads whenever a client connects:

accept
    takes every message
later, never
    refuses each recipient, for now (451) or for good (550)
later:ADDRESS, never:ADDRESS
    refuses that recipient alone
silent
    takes the connection and never says a word
stall
    takes the beginning of a message and falls silent
mute
    takes a message, whole, and does not say so
die
    is gone, all of it, in the middle of a message
"""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.message
import email.policy
import json
import os
import pathlib
import subprocess
import sys
import time
import typing as t


class SmtpProcess:
    """The server as a test has it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.port = 0
        self._process: subprocess.Popen | None = None
        self.mode("accept")
        self.start()

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.stop()

    @property
    def settings(self) -> dict[str, t.Any]:
        """The settings by which a dispatch uses it."""
        return {"mail_host": "127.0.0.1", "mail_port": self.port}

    def mode(self, mode: str) -> None:
        self.directory.joinpath("mode").write_text(mode, encoding="utf-8")

    def start(self) -> None:
        """Start it, on the port that it had before."""
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        self._process = subprocess.Popen([sys.executable, "-I", __file__, str(self.directory), str(self.port)])
        end = time.monotonic() + 30
        while not ready.exists():
            assert self._process.poll() is None and time.monotonic() < end, "the mail server does not start"
            time.sleep(0.01)
        self.port = int(ready.read_text(encoding="utf-8"))

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait(self) -> None:
        """Wait until it has died by itself."""
        if self._process is not None:
            self._process.wait(10)

    @property
    def callers(self) -> int:
        """How many clients have connected so far."""
        path = self.directory / "callers"
        return path.stat().st_size if path.exists() else 0

    @property
    def taken(self) -> list[tuple[list[str], email.message.EmailMessage]]:
        """What it has taken: recipients and message, in that order."""
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.directory.glob("[0-9]*.json"))]
        return [
            (entry["recipients"], email.message_from_string(entry["data"], policy=email.policy.default))
            for entry in found
        ]

    def about(self, event: str) -> list[email.message.EmailMessage]:
        """Return the messages about such an event."""
        return [message for _recipients, message in self.taken if message["X-Portbuild-Event"] == event]


class _Server:
    """The server as it runs in its process."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._count = len(list(directory.glob("[0-9]*.json")))

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", port)
        temporary = self._directory / ".ready"
        temporary.write_text(str(server.sockets[0].getsockname()[1]), encoding="utf-8")
        temporary.rename(self._directory / "ready")
        await server.serve_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._directory.joinpath("callers").open("ab") as stream:
            stream.write(b".")
        mode, _separator, whom = self._directory.joinpath("mode").read_text(encoding="utf-8").partition(":")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await _Conversation(self, reader, writer, mode, whom).run()
        writer.close()

    def take(self, recipients: list[str], data: str) -> None:
        self._count += 1
        temporary = self._directory / ".message"
        temporary.write_text(json.dumps({"recipients": recipients, "data": data}), encoding="utf-8")
        temporary.rename(self._directory / f"{self._count:04}.json")


class _Conversation:
    def __init__(
        self, server: _Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mode: str, whom: str
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._mode = mode
        self._whom = whom

    async def run(self) -> None:
        recipients: list[str] = []
        if self._mode == "silent":
            await asyncio.sleep(3600)
        self._say("220 ready")
        while line := (await self._reader.readline()).decode("ascii").strip():
            verb = line[:4].upper()
            if verb == "MAIL":
                recipients = []
            if verb == "RCPT":
                address = line.partition("<")[2].partition(">")[0]
                if self._mode in ("later", "never") and self._whom in ("", address):
                    self._say("451 not now" if self._mode == "later" else "550 no such user")
                    continue
                recipients.append(address)
            if verb == "DATA":
                self._say("354 go on")
                data = await self._data()
                self._server.take(recipients, data)
                if self._mode == "mute":
                    await asyncio.sleep(3600)
            self._say("221 bye" if verb == "QUIT" else "250 fine")
            if verb == "QUIT":
                break

    async def _data(self) -> str:
        lines = []
        while (line := (await self._reader.readline()).decode("ascii")) not in (".\r\n", ""):
            lines.append(line.removeprefix("."))
            if self._mode == "stall":
                await asyncio.sleep(3600)
            if self._mode == "die":
                os._exit(1)
        if not line:
            raise ConnectionResetError
        return "".join(lines)

    def _say(self, text: str) -> None:
        self._writer.write(f"{text}\r\n".encode("ascii"))


if __name__ == "__main__":
    asyncio.run(_Server(pathlib.Path(sys.argv[1])).serve(int(sys.argv[2])))
