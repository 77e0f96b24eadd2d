"""A Mastodon server on loopback that does whatever goes wrong, and an oracle of what must be stored.

Time passes in steps of half a second; in each, somebody writes, edits or deletes. What happens while nobody listens to
the stream is not told again: of those posts only the timelines know.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from loopback_http import Asked, LoopbackHttp
from virtual_time import VirtualClock
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

STEP_S = 0.5
TOKEN = "secret-of-the-user"
TAGS = ("news", "räder")


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass
class Toot:
    id: str
    author: str
    created_at: float
    text: str
    tag: str
    visibility: str = "public"
    edited_at: float | None = None
    gone: bool = False
    changed_at: float = 0.0  # when it was edited or deleted
    unsure: bool = False  # edited or deleted when the stream may not have told it

    @property
    def wanted(self) -> bool:
        return self.visibility == "public" and self.author not in ("hidden", "shy")

    def json(self, host: str) -> dict[str, Any]:
        account = {"id": f"9{len(self.author)}", "acct": self.author, "noindex": self.author == "hidden"}
        account |= {"discoverable": False} if self.author == "shy" else {}
        return {
            "id": self.id,
            "created_at": iso(self.created_at),
            "edited_at": iso(self.edited_at) if self.edited_at else None,
            "visibility": self.visibility,
            "language": "de",
            "url": f"https://{host}/@{self.author}/{self.id}",
            "uri": "tag:x",
            "content": f"<p>{self.text} &amp; <a href='javascript:1'><span class='invisible'>https://</span>a.b</a></p>",
            "spoiler_text": "",
            "account": account,
            "reblog": None,
            "in_reply_to_id": None,
        }


@dataclass
class Listener:
    """fault: what this connection does, and after how many messages."""

    tags: set[str]
    send: Any
    cut: Any
    fault: str
    after: int
    sent: int = 0
    told_at: float = 0.0


@dataclass
class FakeMastodon:
    """faults: of each stream in turn ("cut", "close", "stall", "garbage", "double", "reorder", "long", "http 503",
    "http 429"), after so many messages; none left: it goes well. limited: how many pages of timelines are refused."""

    seed: int
    scheme: str = "ws"  # who streams: a server for WebSocket beside this one, or this one itself
    faults: list[tuple[str, int]] = field(default_factory=list)
    limited: int = 0
    toots: dict[str, Toot] = field(default_factory=dict)
    listeners: list[Listener] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    heartbeat_s: float = 15.0

    async def __aenter__(self) -> FakeMastodon:
        self.rng = random.Random(self.seed)
        self.clock = VirtualClock()
        self.http = await LoopbackHttp(self._http).__aenter__()
        self.sockets = await serve(self._socket, "127.0.0.1", 0, process_request=self._upgrade, ping_interval=None)
        self.port = self.sockets.sockets[0].getsockname()[1]
        self.task = asyncio.create_task(self._live())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        self.sockets.close()
        await self.http.__aexit__()

    @property
    def host(self) -> str:
        return self.http.host

    # what happens

    async def _live(self) -> None:
        beat = self.clock.now()
        while True:
            await asyncio.sleep(STEP_S)
            await self._happen()
            if self.clock.now() - beat >= self.heartbeat_s:
                beat = self.clock.now()
                for listener in [one for one in self.listeners if one.fault != "stalled"]:
                    await listener.send(None)

    async def _happen(self) -> None:
        rng, now = self.rng, self.clock.now()
        alive = [toot for toot in self.toots.values() if not toot.gone]
        choice = rng.random()
        if choice < 0.6 or not alive:
            late_s = rng.choice([0, 0, 0, 5, 30])  # of another server: its id is of when it was written
            id = str(int((now - late_s) * 1000) << 16 | rng.randrange(1 << 16))
            author = rng.choice(["ann", "bob@far.example", "hidden", "shy", "cy"])
            visibility = rng.choice(["public"] * 8 + ["unlisted", "private"])
            text = f"Zug {len(self.toots)} \U0001f682 中文"
            toot = self.toots[id] = Toot(id, author, now - late_s, text, rng.choice(TAGS), visibility)
            await self._tell(toot, "update")
        elif choice < 0.8:
            toot = rng.choice(alive)
            toot.text, toot.edited_at, toot.changed_at = f"{toot.text}!", now, now
            toot.unsure |= not self._heard(toot)
            await self._tell(toot, "status.update")
        else:
            toot = rng.choice(alive)
            toot.gone, toot.changed_at = True, now
            toot.unsure |= not self._heard(toot)
            await self._tell(toot, "delete")

    def _heard(self, toot: Toot) -> bool:
        return any(listener.fault != "stalled" and self._wants(listener, toot) for listener in self.listeners)

    def _wants(self, listener: Listener, toot: Toot) -> bool:
        return not listener.tags or toot.tag in listener.tags

    async def _tell(self, toot: Toot, event: str) -> None:
        payload = toot.id if event == "delete" else json.dumps(toot.json("here.example"), ensure_ascii=False)
        for listener in list(self.listeners):
            if not self._wants(listener, toot) or listener.fault == "stalled":
                continue
            listener.sent += 1
            if listener.fault and listener.sent > listener.after and await self._fault(listener):
                toot.unsure |= event != "update"
                continue
            await listener.send((toot.tag, event, payload))
            if listener.fault == "double":
                await listener.send((toot.tag, event, payload))

    async def _fault(self, listener: Listener) -> bool:
        """True when this listener hears nothing more."""
        if listener.fault in ("cut", "close"):
            self.listeners.remove(listener)
            await listener.cut(listener.fault)
            return True
        if listener.fault == "stall":
            listener.fault = "stalled"
            return True
        if listener.fault == "garbage":
            for payload in ("{", "[]", '{"id": 5}', '{"id": "7", "account": null}', "null", "[" * 5000):
                await listener.send(("news", "update", payload))
            await listener.send(("news", "delete", '{"not": "an id"}'))
            await listener.send(("news", "sing", "la"))
        if listener.fault == "long":
            await listener.send(("news", "update", "x" * (2 << 20)))
        listener.fault = "double" if listener.fault == "double" else ""
        return False

    def doubt(self) -> None:
        """The reader has just stopped: what was told in its last second may not have reached it."""
        for toot in self.toots.values():
            toot.unsure |= toot.changed_at >= self.clock.now() - 1.0

    def truth(self, stored: dict[str, str], since: float, tags: tuple[str, ...] = ()) -> None:
        """Every post that must be there is there, as it is now; none that must not; the unsure ones may be either."""
        wanted = {
            toot.id: toot
            for toot in self.toots.values()
            if toot.wanted and toot.created_at >= since and (not tags or toot.tag in tags)
        }
        sure = {id: f"{toot.text} & https://a.b" for id, toot in wanted.items() if not toot.gone and not toot.unsure}
        missing = [
            toot for toot in map(self.toots.get, sure) if toot is not None and stored.get(toot.id) != sure[toot.id]
        ]
        assert not missing, [(toot, stored.get(toot.id)) for toot in missing]
        unsure = {id for id, toot in self.toots.items() if toot.unsure}
        early = {id for id, toot in self.toots.items() if toot.created_at < since and toot.wanted}
        assert not (more := set(stored) - set(sure) - unsure - early), [self.toots[id] for id in more]
        gone = [self.toots[id] for id in stored if id not in unsure and self.toots[id].gone]
        assert not gone, gone
        assert len(unsure & set(wanted)) < max(len(wanted) / 3, 20), (len(unsure), len(wanted))

    # over HTTP

    async def _http(self, asked: Asked) -> None:
        self.paths.append(asked.path)
        if asked.path == "/api/v2/instance":
            if self.scheme == "http":
                await asked.answer(404, {"error": "Not found"})  # an older server
                return
            await asked.answer(200, {"configuration": {"urls": {"streaming": f"ws://127.0.0.1:{self.port}"}}})
            return
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            await asked.answer(401, {"error": "The access token is invalid"})
        elif asked.path.startswith("/api/v1/timelines/"):
            await self._timeline(asked)
        else:
            await self._events(asked)

    async def _timeline(self, asked: Asked) -> None:
        if self.limited:
            self.limited -= 1
            reset = iso(self.clock.now() + 20)
            await asked.answer(429, {"error": "Too many"}, X_RateLimit_Remaining="0", X_RateLimit_Reset=reset)
            return
        tag = unquote(asked.path.rpartition("/")[2])
        found = sorted(
            (
                toot
                for toot in self.toots.values()
                if not toot.gone and toot.visibility == "public" and tag in ("public", toot.tag)
            ),
            key=lambda toot: int(toot.id),
        )
        limit = min(int(asked.query["limit"]), 40)
        if "min_id" in asked.query:
            found = [toot for toot in found if int(toot.id) > int(asked.query["min_id"])][:limit]
        await asked.answer(200, [toot.json("here.example") for toot in reversed(found[-limit:])])

    def _next_fault(self) -> tuple[str, int]:
        return self.faults.pop(0) if self.faults else ("", 0)

    async def _events(self, asked: Asked) -> None:
        kind, after = self._next_fault()
        if kind.startswith("http"):
            await asked.answer(int(kind.split()[1]), {"error": "not now"})
            return
        await asked.begin(Content_Type="text/event-stream")
        over = asyncio.Event()

        async def send(message: tuple[str, str, str] | None) -> None:
            text = ":thump" if message is None else f"event: {message[1]}\ndata: {message[2]}"
            data = f"{text}\n\n".encode()
            cut = self.rng.randrange(1, len(data))  # anywhere, inside of a letter too
            try:
                for part in (data[:cut], data[cut:]):
                    await asked.chunk(part)
            except ConnectionError:
                over.set()

        async def cut(how: str) -> None:
            asked.writer.write(b"0\r\n\r\n" if how == "close" else b"zz")
            over.set()

        tag = asked.query.get("tag", "")
        listener = Listener({tag} if tag else set(), send, cut, kind, after)
        self.listeners.append(listener)
        try:
            await over.wait()
        finally:
            if listener in self.listeners:
                self.listeners.remove(listener)

    # over WebSocket

    def _upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "no\n")
        if self.faults and self.faults[0][0].startswith("http"):
            return connection.respond(HTTPStatus(int(self._next_fault()[0].split()[1])), "not now\n")
        return None

    async def _socket(self, connection: ServerConnection) -> None:
        kind, after = self._next_fault()

        async def send(message: tuple[str, str, str] | None) -> None:
            if message is None:
                return
            tag, event, payload = message
            stream = ["hashtag", tag] if listener.tags else ["public"]
            frame = json.dumps({"stream": stream, "event": event, "payload": payload})
            await connection.send(frame)

        async def cut(how: str) -> None:
            if how == "close":
                await connection.close(1001, "restarting")
            else:
                connection.transport.abort()

        listener = Listener(set(), send, cut, kind, after)
        joined = False
        try:
            async for frame in connection:
                asked = json.loads(frame)
                assert asked["type"] == "subscribe"
                if asked["stream"] == "hashtag":
                    listener.tags.add(asked["tag"])
                if not joined:
                    self.listeners.append(listener)
                    joined = True
        finally:
            if listener in self.listeners:
                self.listeners.remove(listener)
