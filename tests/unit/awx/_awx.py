# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A double of AWX's API: it keeps what is posted, finds it by name, and refuses what AWX would refuse of a survey."""

from __future__ import annotations

import collections.abc as c
import http.server
import json
import threading
import typing as t
import urllib.parse

from ansible_collections.portbuild.cluster.tests.awx_surveys import spec_problems

Item = dict[str, t.Any]
RELATED = ("credentials", "instance_groups", "hosts", "children")


class Awx:
    """Objects by endpoint; those that are there from the beginning are named."""

    def __init__(self, playbooks: c.Collection[str], **there: list[str]) -> None:
        self.playbooks = playbooks
        self.items: dict[str, dict[int, Item]] = {}
        self.surveys: dict[int, Item] = {}
        self.related: dict[tuple[str, int, str], list[int]] = {}
        self.refused: list[str] = []
        self._last = 0
        for endpoint, names in there.items():
            for name in names:
                self.add(endpoint, {"name": name})

    def add(self, endpoint: str, fields: Item) -> Item:
        """Keep a new object."""
        self._last += 1
        url = f"/api/v2/{endpoint}/{self._last}/"
        related = {name: f"{url}{name}/" for name in (*RELATED, "survey_spec")}
        item = {
            "id": self._last, "url": url, "type": endpoint, "related": related, "status": "successful",
            "scm_revision": "", "summary_fields": {}, **fields,
        }  # fmt: skip
        self.items.setdefault(endpoint, {})[self._last] = item
        return item

    def named(self, endpoint: str) -> dict[str, Item]:
        """Return the objects by name."""
        return {item["name"]: item for item in self.items.get(endpoint, {}).values()}

    def names_related(self, item: Item, kind: str) -> list[str]:
        """Return the names of what is associated with an object."""
        ids = self.related.get((item["type"], item["id"], kind), [])
        return [self.items[kind][number]["name"] for number in ids]

    # -- requests --------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Item) -> tuple[int, t.Any]:
        """Return a status and what is said."""
        words = path.strip("/").split("/")[2:]  # api, v2
        if len(words) == 1:
            return self._collection(method, words[0], query, body)
        endpoint, number = words[0], int(words[1])
        item = self.items[endpoint][number]
        if len(words) == 2:
            if method == "PATCH":
                item.update(body)
            return 200, item
        if words[2] == "survey_spec":
            return self._survey(method, number, body)
        return self._association(method, endpoint, number, words[2], body)

    def _collection(self, method: str, endpoint: str, query: dict[str, str], body: Item) -> tuple[int, t.Any]:
        if method == "POST":
            problems = self._problems(endpoint, body)
            self.refused += problems
            return (400, {"__all__": problems}) if problems else (201, self.add(endpoint, body))
        where = ["job_templates"] if endpoint == "unified_job_templates" else [endpoint]
        found = [
            item
            for kind in where
            for item in self.items.get(kind, {}).values()
            if all(str(item.get(key)) == value for key, value in query.items())
        ]
        return 200, {"count": len(found), "next": None, "results": found}

    def _problems(self, endpoint: str, body: Item) -> list[str]:
        if endpoint == "job_templates" and body["playbook"] not in self.playbooks:
            return [f"Playbook {body['playbook']} not found for project."]
        if endpoint == "schedules" and not body["rrule"].startswith("DTSTART:"):
            return ["A valid DTSTART is needed in the rrule."]
        return []

    def _survey(self, method: str, number: int, body: Item) -> tuple[int, t.Any]:
        if method == "POST":
            problems = spec_problems(body)
            self.refused += problems
            if problems:
                return 400, {"error": "; ".join(problems)}
            self.surveys[number] = body
        return 200, self.surveys.get(number, {})

    def _association(self, method: str, endpoint: str, number: int, kind: str, body: Item) -> tuple[int, t.Any]:
        found = self.related.setdefault((endpoint, number, kind), [])
        if method == "POST":
            found.append(body["id"])
            return 204, None
        return 200, {"count": len(found), "next": None, "results": [self.items[kind][number] for number in found]}


def serve(awx: Awx) -> http.server.ThreadingHTTPServer:
    """Return a server that speaks for it on a loopback address, started."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _do(self) -> None:
            address = urllib.parse.urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            try:
                status, said = awx.answer(
                    self.command,
                    address.path,
                    dict(urllib.parse.parse_qsl(address.query, keep_blank_values=True)),
                    body,
                )
            except (KeyError, ValueError) as error:
                status, said = 404, {"detail": repr(error)}
            data = b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-API-Product-Name", "AWX")
            self.send_header("X-API-Product-Version", "24.6.1")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _do

        def log_message(self, *_arguments: t.Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
