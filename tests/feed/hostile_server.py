"""A server that answers anything with garbage: no HTTP, bad HTTP, bad WebSocket frames, and good messages of every
source with something wrong in them."""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import json
import random
import struct
from typing import Any

from fake_jetstream import Happened, rev_of
from fake_mastodon import Toot
from virtual_time import START

ID = str(((int(START * 1000) - 1_288_834_974_657) << 22) + 7)
X_POST = {
    "id": ID,
    "text": "news über 東京 &amp; 🚀",
    "author_id": "12",
    "created_at": "2026-11-23T00:00:00.000Z",
    "edit_history_tweet_ids": ["20", ID],
    "note_tweet": {"text": "long"},
    "referenced_tweets": [{"type": "quoted", "id": "5"}],
    "lang": "en",
}
USERS = {"users": [{"id": "12", "username": "nasa", "name": "NASA"}]}
X: list[Any] = [
    {"data": X_POST, "includes": USERS, "matching_rules": [{"id": "1", "tag": "x"}]},
    {"data": [X_POST, X_POST], "includes": USERS, "meta": {"next_token": "abc", "result_count": 2}},
    {"data": {"delete": {"tweet": {"id": ID, "author_id": "12"}, "event_at": "2026-11-23T00:00:00Z"}}},
    {"data": {"user_suspend": {"user": {"id": "12"}, "event_at": "2026-11-23T00:00:00Z"}}},
    {"data": {"tweet_edit": {"tweet": {"id": ID}, "initial_tweet_id": "20", "edit_tweet_ids": ["20", ID]}}},
    {"errors": [{"title": "operational-disconnect", "detail": "d", "type": "https://api.x.com/2/problems/x"}]},
    {"data": {"id": "1", "status": "complete", "upload_url": "/2/up", "download_url": "/2/down"}},
    {"data": [{"id": "1", "value": "news", "tag": "gigafactory:x"}], "meta": {"summary": {"created": 1}}},
]
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
US = int(START * 1e6)
HAPPENED = [
    Happened(1, US, "did:plc:a", "create", "3k", "hello"),
    Happened(2, US + 1, "did:plc:a", "update", "3k", "hello again"),
    Happened(3, US + 2, "did:plc:a", "delete", "3k"),
    Happened(4, US + 3, "did:plc:a", "identity", text="ann.test"),
    Happened(5, US + 4, "did:plc:a", "account", status="deleted"),
    Happened(6, US + 5, "did:plc:a", "account"),
]
JETSTREAM: list[Any] = [each.v1() for each in HAPPENED]
JETSTREAM_2: list[Any] = [each.v2() for each in HAPPENED]
JETSTREAM_2.append({"$type": "error", "error": "ConsumerTooSlow", "message": "m"})
TOOT = Toot("109", "ann", START, "hello #news", "news").json("m.test")
MASTODON: list[Any] = [
    {"stream": ["hashtag", "news"], "event": "update", "payload": json.dumps(TOOT)},
    {"stream": ["hashtag", "news"], "event": "status.update", "payload": json.dumps(TOOT)},
    {"stream": ["hashtag", "news"], "event": "delete", "payload": "109"},
    [TOOT, TOOT],
    {"configuration": {"urls": {"streaming": "wss://elsewhere.test"}}},
    {"error": "no"},
]
FEEDS: list[Any] = [
    """<?xml version="1.0"?><rss version="2.0"><channel><title>t</title><link>https://a.test</link><item><guid>g1</guid>
    <title>News &amp; more</title><pubDate>Mon, 23 Nov 2026 00:00:00 GMT</pubDate><description>d
    &lt;b&gt;x</description></item></channel></rss>""",
    """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:at="http://purl.org/atompub/tombstones/1.0"><id>f</id><title>t
    </title><updated>2026-11-23T00:00:00Z</updated><entry><id>e1</id><title>a</title><updated>2026-11-23T00:00:00Z
    </updated><content>c</content></entry><at:deleted-entry ref="e0" when="2026-11-23T00:00:00Z"/></feed>""",
    {"version": "https://jsonfeed.org/version/1.1", "title": "t", "items": [{"id": "1", "content_text": "c"}]},
    '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]><rss><channel>&c;</channel></rss>',
]
CORPUS = {
    "toots": [TOOT, TOOT, "109"],
    "x": X,
    "jetstream": JETSTREAM,
    "jetstream-2": JETSTREAM_2,
    "mastodon": MASTODON,
    "feed": FEEDS,
}
HEADERS = [
    "Retry-After: soon\r\n",
    "Retry-After: 99999999999\r\n",
    "ETag: \xff\r\n",
    "x-rate-limit-remaining: 0\r\nx-rate-limit-reset: 99999999999\r\n",
    "Location: http://127.0.0.1:1/\r\n",
    "Content-Type: text/xml; charset=utf-7\r\n",
]
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    "",
    "x" * 5000,
    "\ud800\0",
    "9" * 19,
    rev_of(US),
    "2026-13-45T99:99:99Z",
    "0001-01-01T00:00:00+23:59",
    [],
    {},
    [[]],
    {"id": {}},
]


class HostileServer:
    """kind: of CORPUS. rng decides everything. sent: answers and connections so far."""

    def __init__(self, kind: str, rng: random.Random) -> None:
        self.kind = kind
        self.rng = rng
        self.asked: list[str] = []
        self.sent_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.host = ""

    async def __aenter__(self) -> HostileServer:
        self._server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split("\r\n", 1)[0].split(" ", 2)
        self.asked.append(f"{method} {target}")
        pairs = (line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        headers = {name.lower(): value for name, value in pairs}
        await reader.readexactly(int(headers.get("content-length", 0)))
        mood = self.rng.random()
        if mood < 0.02:
            await asyncio.sleep(1000)  # accepts and says nothing
        elif mood < 0.06:
            await self._send(writer, self.rng.randbytes(self.rng.randrange(200)))
        elif mood < 0.1:
            await self._send(writer, mangled(self.rng, b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\nX: y\r\n\r\n{}"))
        elif mood < 0.2:
            status = self.rng.choice([204, 301, 304, 400, 401, 403, 404, 409, 410, 429, 500, 503])
            # what ends a source for good is rare, or nothing else would be seen
            status = 503 if status in (400, 401, 403, 404, 410) and self.rng.random() < 0.9 else status
            await self._whole(writer, status, self._message())
        elif "upgrade" in headers.get("connection", "").lower():
            await self._socket(writer, headers)
        elif "stream" in target.split("?")[0] and "rules" not in target:
            await self._endless(writer)
        elif "rules" in target and self.rng.random() < 0.8:
            await self._whole(writer, 200 if method == "GET" else 201, json.dumps(X[7]).encode())
        else:
            await self._whole(writer, 200, self._message())

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.sent_bytes += len(data)
        writer.write(data)
        await writer.drain()

    def _message(self, kind: str = "") -> bytes:
        """A message of the source, mostly with something wrong."""
        message = copy.deepcopy(self.rng.choice(CORPUS[kind or self.kind]))
        if not isinstance(message, str):
            for _ in range(self.rng.choice([0, 0, 0, 1, 2])):
                message = altered(self.rng, message)
            message = json.dumps(message)
        other = str(int(ID) + self.rng.randrange(1 << 40))
        data = message.replace(ID, other).replace('"12"', f'"{other[-9:]}"').encode("utf-8", "surrogatepass")
        return mangled(self.rng, data) if self.rng.random() < 0.2 else data

    async def _whole(self, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        length = len(body) + (self.rng.choice([-1, 1, 10**12]) if self.rng.random() < 0.05 else 0)
        more = self.rng.choice([*HEADERS, *[""] * 2 * len(HEADERS)])
        lines = f"HTTP/1.1 {status} Odd\r\nConnection: close\r\nContent-Length: {max(length, 0)}\r\n{more}\r\n"
        await self._send(writer, lines.encode("latin-1") + body)

    async def _endless(self, writer: asyncio.StreamWriter) -> None:
        """Lines for a while: of X or events of Mastodon; cut, too long, too many, never ending."""
        await self._send(writer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(self.rng.randrange(100)):
            if self.kind == "mastodon":
                name = self.rng.choice([b"update", b"delete", b"status.update", b"", b"\xff"])
                data = b"event: " + name + b"\ndata: " + self._message("toots").replace(b"\n", b" ") + b"\n\n"
            else:
                data = self._message() + b"\r\n"
            if self.rng.random() < 0.03:
                data = b"y" * self.rng.choice([1 << 16, 3 << 20])
            chunk = f"{len(data):x}".encode()
            if self.rng.random() < 0.01:
                chunk = mangled(self.rng, chunk)
            await self._send(writer, chunk + b"\r\n" + data + b"\r\n")
            await asyncio.sleep(self.rng.choice([0] * 9 + [0.1, 0.1, 5, 25]))
        if self.rng.random() < 0.7:
            await self._send(writer, b"0\r\n\r\n")

    async def _socket(self, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
        """Frames by hand, so that they can be wrong in every way. The handshake itself is right, mostly."""
        magic = base64.b64encode(hashlib.sha1((headers.get("sec-websocket-key", "") + GUID).encode()).digest()).decode()
        protocol = headers.get("sec-websocket-protocol", "")
        accept = magic if self.rng.random() < 0.95 else "wrong"
        lines = f"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
        lines += f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
        await self._send(writer, lines.encode() + b"\r\n")
        for _ in range(self.rng.randrange(100)):
            data = self._message()
            if self.rng.random() < 0.02:
                data = b"z" * self.rng.choice([1 << 16, 3 << 20])
            code, fate = 0x81, self.rng.random()
            if fate < 0.03:
                code = self.rng.randrange(256)
            length = len(data) if fate > 0.01 else 2**62
            if length < 126:
                size = bytes([length])
            else:
                size = b"\x7e" + struct.pack(">H", length) if length < 65536 else b"\x7f" + struct.pack(">Q", length)
            await self._send(writer, bytes([code]) + size + data)
            await asyncio.sleep(self.rng.choice([0] * 9 + [0.1, 0.1, 5, 25]))


def altered(rng: random.Random, value: Any) -> Any:
    """The same JSON with one thing in it replaced, dropped, doubled or nested."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        fate = rng.random()
        if fate < 0.15:
            del value[key]
        elif fate < 0.25:
            value[str(rng.choice(ODD))[:50]] = copy.deepcopy(rng.choice(ODD))
        else:
            value[key] = altered(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        value[place] = altered(rng, value[place])
        flat = len(value) < 5 and not isinstance(value[place], list)  # lists of lists would grow without end
        return value * rng.choice([1, 1, 1, 2, 20]) if flat else value
    if isinstance(value, str) and value[:2] == '{"' and rng.random() < 0.7:
        return json.dumps(altered(rng, json.loads(value)))
    nested: Any = copy.deepcopy(rng.choice(ODD))
    for _ in range(rng.choice([0, 0, 0, 0, 3, 500])):
        nested = [nested]
    return nested


def mangled(rng: random.Random, data: bytes) -> bytes:
    """Bytes with some flipped, cut out, doubled or put in."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(out) + 1)
        fate = rng.randrange(4)
        if fate == 0 and place < len(out):
            out[place] ^= 1 << rng.randrange(8)
        elif fate == 1:
            del out[place : place + rng.randrange(20)]
        elif fate == 2:
            out[place:place] = out[max(place - 20, 0) : place]
        else:
            out[place:place] = rng.randbytes(rng.randrange(8))
    return bytes(out)
