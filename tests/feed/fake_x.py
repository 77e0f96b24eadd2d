"""X's API on loopback, by its documentation, with every fault that a test asks for; and what a store must hold then."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from x_connection import Connection
from x_world import World, WorldPost, author_id, moment

HEARTBEAT_S = 20.0
TOKEN = "AAAAAAAAAAAAsecret%2Ftoken0123456789"
TOO_MANY = {
    "title": "ConnectionException",
    "detail": "This stream is currently at the maximum allowed connection limit.",
    "connection_issue": "TooManyConnections",
    "type": "https://api.x.com/2/problems/streaming-connection",
}
OPERATIONAL = {
    "errors": [
        {
            "title": "operational-disconnect",
            "disconnect_type": "UpstreamOperationalDisconnect",
            "detail": "This stream has been disconnected upstream for operational reasons.",
            "type": "https://api.x.com/2/problems/operational-disconnect",
        }
    ]
}
NO_RULES = {
    "title": "ConnectionException",
    "detail": "This stream has no rules.",
    "connection_issue": "RuleConfigurationIssue",
    "type": "https://api.x.com/2/problems/streaming-connection",
}
NOT_ENROLLED = {
    "title": "Client Forbidden",
    "detail": "This plan has no access to this.",
    "type": "https://api.x.com/2/problems/client-forbidden",
}


@dataclass
class Asked:
    at: float
    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes


class FakeX:
    """enterprise: backfill, recovery and compliance streams. jobs: compliance jobs. noise: duplicates and reordering.

    refusals: answers to the next connections of the stream, (status, headers, body); None lets one through. failing:
    path -> answers to its next requests. bad_rules: value -> why X refuses it.
    """

    def __init__(
        self,
        world: World,
        *,
        enterprise: bool = False,
        jobs: bool = True,
        noise: float = 0.0,
        seed: int = 0,
        most: int | None = None,
    ) -> None:
        self.world = world
        self.enterprise = enterprise
        self.jobs = jobs
        self.noise = noise
        self.rng = random.Random(seed)
        self.most = most if most is not None else (2 if enterprise else 1)
        self.rules: dict[str, dict[str, str]] = {}
        self.bad_rules: dict[str, str] = {}
        self.refusals: list[tuple[int, dict[str, str], Any] | None] = []
        self.failing: dict[str, list[tuple[int, dict[str, str], Any]]] = {}
        self.broken_backfills = 0  # connections that break before any of it was sent
        self.asked: list[Asked] = []
        self.connections: list[Connection] = []
        self.charged: set[tuple[str, str]] = set()
        self.job_ids: dict[str, list[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.url = ""
        world.listeners.append(self._heard)

    async def __aenter__(self) -> FakeX:
        self._server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def streams(self, path: str = "/2/tweets/search/stream") -> list[Connection]:
        return [connection for connection in self.connections if connection.path == path]

    def requests(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    def matching(self, text: str) -> list[dict[str, str]]:
        """A rule matches a text that holds all of its words."""
        return [
            {"id": id, "tag": rule["tag"]}
            for id, rule in self.rules.items()
            if all(word in text.split() for word in rule["value"].split())
        ]

    # -- one client ------------------------------------------------------------------------------------------------

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        parts = urlsplit(target)
        params = {name: values[0] for name, values in parse_qs(parts.query).items()}
        asked = Asked(self.world.clock.now(), method, parts.path, params, headers, body)
        self.asked.append(asked)
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return self._answer(writer, 401, {"title": "Unauthorized", "detail": f"bad {headers.get('authorization')}"})
        if self.failing.get(parts.path):
            status, extra, problem = self.failing[parts.path].pop(0)
            return self._answer(writer, status, problem, extra)
        if parts.path.endswith("/stream"):
            return await self._stream(asked, reader, writer)
        if parts.path == "/2/tweets/search/stream/rules":
            return self._answer(writer, *self._rules(asked))
        if parts.path == "/2/tweets/search/recent":
            return self._answer(writer, *self._search(asked))
        if parts.path == "/2/tweets":
            return self._answer(writer, *self._lookup(asked))
        if parts.path.startswith("/2/compliance/jobs"):
            return self._job(asked, writer)
        return self._answer(writer, 404, {"title": "Not Found", "type": "about:blank"})

    def _answer(
        self, writer: asyncio.StreamWriter, status: int, body: Any, headers: dict[str, str] | None = None
    ) -> bool:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n{extra}\r\n".encode() + data)
        return True

    # -- streams ---------------------------------------------------------------------------------------------------

    async def _stream(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        filtered = asked.path == "/2/tweets/search/stream"
        if filtered and self.refusals and (refusal := self.refusals.pop(0)) is not None:
            status, headers, problem = refusal
            return self._answer(writer, status, problem, headers)
        special = {"backfill_minutes", "start_time", "end_time"} & asked.params.keys()
        if not self.enterprise and (special or not filtered):
            return self._answer(writer, 400 if filtered else 403, NOT_ENROLLED)
        if filtered and not self.rules:
            return self._answer(
                writer, 409, {"title": "ConnectionException", "connection_issue": "RuleConfigurationIssue"}
            )
        if filtered and "start_time" not in asked.params and len(self.streams()) >= self.most:
            return self._answer(writer, 429, TOO_MANY)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx-rate-limit-remaining: 40\r\n\r\n")
        wants = self._wants_post if filtered else self._wants_compliance(asked)
        connection = Connection(asked.path, writer, self.rng, wants, self.noise)
        if "start_time" in asked.params:
            since, until = (
                datetime.fromisoformat(asked.params[name]).timestamp() for name in ("start_time", "end_time")
            )
            for kind, entry in self._past(since, until):
                if (message := wants(kind, entry)) is not None:
                    connection.send(message)
            connection.release()
            connection.close("clean")
            return False
        self.connections.append(connection)
        try:
            if "backfill_minutes" in asked.params and self.broken_backfills > 0 and filtered:
                self.broken_backfills -= 1
                asyncio.get_running_loop().call_later(1.0, connection.raw, b"\r\n")
                asyncio.get_running_loop().call_later(2.0, connection.close, "reset")
            elif "backfill_minutes" in asked.params:
                now = self.world.clock.now()
                for kind, entry in self._past(now - 60 * int(asked.params["backfill_minutes"]), now + 1):
                    if (message := wants(kind, entry)) is not None:
                        connection.send(message)
            await self._beat(connection, reader)
        finally:
            self.connections.remove(connection)
        return False

    async def _beat(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        """Heartbeats until somebody hangs up."""
        loop = asyncio.get_running_loop()
        gone = asyncio.ensure_future(reader.read(1))
        over = asyncio.ensure_future(connection.over.wait())
        try:
            while not gone.done() and not over.done():
                wait_s = max(connection.last_at, loop.time() - HEARTBEAT_S) + HEARTBEAT_S - loop.time()
                await asyncio.wait({gone, over}, timeout=wait_s or HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
                if loop.time() - connection.last_at >= HEARTBEAT_S:
                    connection.raw(b"\r\n")
        finally:
            gone.cancel()
            over.cancel()

    def _past(self, since: float, until: float) -> Iterator[tuple[str, Any]]:
        for entry in self.world.order:
            if since <= entry[0] < until:
                yield "post", entry
        for told in self.world.compliance:
            if since <= told[0] < until:
                yield "compliance", told

    def _heard(self, kind: str, entry: Any) -> None:
        for connection in self.connections:
            if (message := connection.wants(kind, entry)) is not None:
                connection.send(message)

    def _wants_post(self, kind: str, entry: Any) -> dict[str, Any] | None:
        if kind != "post":
            return None
        _, post, versions = entry
        matched = self.matching(post.versions[versions - 1].text)
        if not matched:
            return None
        self._charge([post.payload(versions)["id"]], [author_id(post.author)])
        users = [{"id": author_id(post.author), "username": post.author, "name": "x"}]
        return {"data": post.payload(versions), "includes": {"users": users}, "matching_rules": matched}

    def _wants_compliance(self, asked: Asked) -> Callable[[str, Any], dict[str, Any] | None]:
        stream, partition = asked.path.split("/")[2], int(asked.params["partition"])

        def wants(kind: str, entry: Any) -> dict[str, Any] | None:
            if kind != "compliance" or entry[1] != stream or int(entry[2]) % 4 + 1 != partition:
                return None
            return {"data": entry[3]}

        return wants

    def _charge(self, posts: Iterable[str], users: Iterable[str]) -> None:
        day = moment(self.world.clock.now())[:10]
        self.charged |= {(day, f"p{id}") for id in posts} | {(day, f"u{id}") for id in users}

    def charged_usd(self, month: str) -> float:
        ids = [id for day, id in self.charged if day.startswith(month)]
        return sum(0.005 if id.startswith("p") else 0.01 for id in ids)

    # -- the rest --------------------------------------------------------------------------------------------------

    def _rules(self, asked: Asked) -> tuple[int, Any]:
        if asked.method == "GET":
            rules = [{"id": id, **rule} for id, rule in self.rules.items()]
            begin = int(asked.params.get("pagination_token", 0))
            page = rules[begin : begin + 50]
            more = {"next_token": str(begin + 50)} if begin + 50 < len(rules) else {}
            return 200, {"data": page, "meta": {"result_count": len(page), **more}} if page else {"meta": {}}
        body = json.loads(asked.body)
        if "delete" in body:
            for id in body["delete"]["ids"]:
                self.rules.pop(id, None)
            return 200, {"meta": {"summary": {"deleted": len(body["delete"]["ids"])}}}
        errors = [
            {
                "value": rule["value"],
                "details": [self.bad_rules[rule["value"]]],
                "title": "UnprocessableEntity",
                "type": "https://api.x.com/2/problems/invalid-rules",
            }
            for rule in body["add"]
            if rule["value"] in self.bad_rules
        ]
        if errors:
            return 400, {"errors": errors, "meta": {"summary": {"created": 0, "invalid": len(errors)}}}
        if asked.params.get("dry_run") != "true":
            for rule in body["add"]:
                self.rules[self.world.new_id()] = {"value": rule["value"], "tag": rule["tag"]}
        return 201, {"meta": {"summary": {"created": len(body["add"])}}}

    def _search(self, asked: Asked) -> tuple[int, Any]:
        since, until = (datetime.fromisoformat(asked.params[name]).timestamp() for name in ("start_time", "end_time"))
        now = self.world.clock.now()
        if since < now - 7 * 86_400 or until > now - 10:
            return 400, {"title": "Invalid Request", "detail": "start_time or end_time", "type": "x/invalid-request"}
        words = asked.params["query"].split()
        found = [
            post
            for id, post in self.world.posts.items()
            if post.versions[-1].id == id
            and post.deleted_at is None
            and since <= post.versions[-1].at < until
            and all(word in post.versions[-1].text.split() for word in words)
        ]
        found.reverse()
        count, older_than = int(asked.params["max_results"]), asked.params.get("next_token")
        found = [post for post in found if older_than is None or int(post.versions[-1].id) < int(older_than)]
        page = found[:count]
        self._charge([post.versions[-1].id for post in page], [author_id(post.author) for post in page])
        meta: dict[str, Any] = {"result_count": len(page)}
        if len(found) > count:
            meta["next_token"] = page[-1].versions[-1].id
        return 200, {**({"data": [post.payload() for post in page]} if page else {}), **_users(page), "meta": meta}

    def _lookup(self, asked: Asked) -> tuple[int, Any]:
        data, errors, authors = [], [], []
        for id in asked.params["ids"].split(","):
            post = self.world.posts.get(id)
            if post is None or post.deleted_at is not None:
                errors.append(
                    {
                        "resource_id": id,
                        "value": id,
                        "resource_type": "tweet",
                        "title": "Not Found Error",
                        "detail": f"Could not find tweet with ids: [{id}].",
                        "type": "https://api.x.com/2/problems/resource-not-found",
                    }
                )
                continue
            version = next(i for i, version in enumerate(post.versions) if version.id == id)
            payload = post.payload(version + 1)
            payload["edit_history_tweet_ids"] = [each.id for each in post.versions]
            data.append(payload)
            authors.append(post)
        users = "author_id" in asked.params.get("expansions", "")
        self._charge([post["id"] for post in data], [author_id(post.author) for post in authors] if users else [])
        answer: dict[str, Any] = {"data": data} if data else {}
        return 200, answer | (_users(authors) if users else {}) | ({"errors": errors} if errors else {})

    def _job(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        """Compliance jobs: made, filled, asked for, and their results."""
        if not self.jobs:
            return self._answer(writer, 403, NOT_ENROLLED)
        if asked.method == "POST":
            id = str(len(self.job_ids) + 1)
            self.job_ids[id] = []
            place = f"{self.url}/2/compliance/jobs/{id}"
            data = {"id": id, "status": "created", "upload_url": f"{place}/upload", "download_url": f"{place}/results"}
            return self._answer(writer, 200, {"data": data})
        id = asked.path.split("/")[4]
        if asked.method == "PUT":
            self.job_ids[id] = asked.body.decode().split("\n")
            return self._answer(writer, 200, b"")
        if not asked.path.endswith("/results"):
            return self._answer(writer, 200, {"data": {"id": id, "status": "complete"}})
        results = []
        for each in self.job_ids[id]:
            post = self.world.posts.get(each)
            if post is None or post.deleted_at is not None:
                results.append({"id": each, "action": "delete", "reason": "deleted", "redacted_at": None})
            elif post.versions[-1].id != each:
                results.append({"id": each, "action": "rehydrate", "reason": "tweet_edited"})
        return self._answer(writer, 200, "\n".join(map(json.dumps, results)).encode())


def _window(asked: Asked) -> tuple[float, float]:
    since, until = (datetime.fromisoformat(asked.params[name]).timestamp() for name in ("start_time", "end_time"))
    return since, until


def _users(posts: Iterable[WorldPost]) -> dict[str, Any]:
    users = {author_id(post.author): post.author for post in posts}
    return {"includes": {"users": [{"id": id, "username": name, "name": "x"} for id, name in users.items()]}}
