"""A Jetstream server on loopback, both wires, that does whatever goes wrong; and an oracle of what must be stored.

It holds a log of events of random accounts, each with a number and a time. A connection gets what its cursor asks for,
until its fault happens.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from virtual_time import START
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

SIGNS = "234567abcdefghijklmnopqrstuvwxyz"
POSTS = "app.bsky.feed.post"


def rev_of(us: int) -> str:
    number = us << 10 | 7
    return "".join(SIGNS[number >> 5 * place & 31] for place in range(12, -1, -1))


def iso(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class Happened:
    """kind: create, update, delete, account, identity, sync, like (another collection)."""

    seq: int
    us: int
    did: str
    kind: str
    rkey: str = ""
    text: str = ""
    status: str = ""  # of an account; "" is active

    def v1(self) -> dict[str, object] | None:
        event: dict[str, object] = {"did": self.did, "time_us": self.us}
        if self.kind == "sync":
            return None
        if self.kind == "account":
            account = {"active": not self.status, "did": self.did, "seq": 1, "time": iso(self.us)}
            return event | {"kind": "account", "account": account | ({"status": self.status} if self.status else {})}
        if self.kind == "identity":
            return event | {"kind": "identity", "identity": {"did": self.did, "handle": self.text, "seq": 1}}
        return event | {"kind": "commit", "commit": self._commit()}

    def v2(self) -> dict[str, object]:
        kind = {"account": "account", "identity": "identity", "sync": "sync"}.get(self.kind, "commit")
        payload: dict[str, object] = {"$type": f"network.bsky.jetstream.subscribeEvents#{kind}", "seq": self.seq}
        payload |= {"did": self.did, "time": iso(self.us)}
        if kind == "commit":
            payload |= self._commit()
        elif kind == "sync":
            payload["sync"] = {"did": self.did, "rev": rev_of(self.us), "seq": 3}
        else:
            whole = self.v1()
            assert whole is not None
            payload[kind] = whole[kind]
        return {"$type": "message", "payload": payload}

    def _commit(self) -> dict[str, object]:
        collection = "app.bsky.feed.like" if self.kind == "like" else POSTS
        operation = "create" if self.kind == "like" else self.kind
        commit: dict[str, object] = {"rev": rev_of(self.us), "operation": operation, "collection": collection}
        commit["rkey"] = self.rkey
        if operation != "delete":
            commit["record"] = {"$type": collection, "createdAt": iso(self.us), "text": self.text, "langs": ["en"]}
        return commit


def story(seed: int, count: int, *, v2: bool) -> list[Happened]:
    """`count` events of some accounts: posts written, edited, deleted and written anew, accounts come and go."""
    rng = random.Random(seed)
    dids = [f"did:plc:{name}" for name in ("ann", "bob", "cy", "dee", "eve", "flo", "gus", "hal", "ida", "jon")]
    posts: dict[str, set[str]] = {did: set() for did in dids}
    gone: set[str] = set()
    us = int(START * 1e6) - 3_600_000_000
    log: list[Happened] = []
    while len(log) < count:
        us += rng.randrange(1, 400_000)
        did = rng.choice(dids)
        seq = len(log) + 1 + (len(log) // 50) * 1000  # numbers have holes
        choice = rng.random()
        text = f"post {len(log)} \U0001f31e é 中文 <b>&amp;</b>"
        if did in gone:
            if choice < 0.3:
                gone.discard(did)
                log.append(Happened(seq, us, did, "account"))
            continue
        if choice < 0.55 or not posts[did]:
            rkey = f"r{len(log)}"
            posts[did].add(rkey)
            log.append(Happened(seq, us, did, "create", rkey, text))
        elif choice < 0.70:
            log.append(Happened(seq, us, did, "update", rng.choice(sorted(posts[did])), text))
        elif choice < 0.79:
            log.append(Happened(seq, us, did, "delete", rng.choice(sorted(posts[did]))))
        elif choice < 0.86:
            log.append(Happened(seq, us, did, "like", f"l{len(log)}"))
        elif choice < 0.965:
            log.append(Happened(seq, us, did, "identity", text=f"{did[8:]}.example"))
        elif choice < 0.98 or not v2:
            gone.add(did)
            posts[did].clear()
            status = rng.choice(["deleted", "takendown", "suspended", "deactivated"])
            log.append(Happened(seq, us, did, "account", status=status))
        else:
            kept = sorted(posts[did])[::2]
            posts[did] = set(kept)
            log.append(Happened(seq, us, did, "sync"))
            for rkey in kept:
                us += 1
                seq = len(log) + 1 + (len(log) // 50) * 1000
                log.append(Happened(seq, us, did, "create", rkey, f"again {rkey}"))
    return log[:count]


def truth(log: list[Happened]) -> dict[str, str]:
    """What must be stored when everything was read: the text of each post by its uri."""
    texts: dict[str, str] = {}
    for event in log:
        uri = f"at://{event.did}/{POSTS}/{event.rkey}"
        if event.kind in ("create", "update"):
            texts[uri] = event.text
        elif event.kind == "delete":
            texts.pop(uri, None)
        elif event.kind == "sync" or (event.kind == "account" and event.status):
            texts = {at: text for at, text in texts.items() if not at.startswith(f"at://{event.did}/")}
    return texts


@dataclass
class FakeJetstream:
    """faults: of each connection in turn, ("cut" | "close" | "stall" | "garbage" | "double" | "slow" | "http 503",
    after so many events); none left: it goes well. floor: smallest number that is kept (v2)."""

    log: list[Happened]
    faults: list[tuple[str, int]] = field(default_factory=list)
    floor: int = 0
    pause_s: float = 0.0
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    server: Server | None = None

    async def __aenter__(self) -> FakeJetstream:
        self.server = await serve(self._serve, "127.0.0.1", 0, process_request=self._request, ping_interval=None)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.server is not None
        self.server.close()

    @property
    def host(self) -> str:
        assert self.server is not None
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        self.asked.append(query)
        self.paths.append(parts.path)
        if self.faults and self.faults[0][0].startswith("http"):
            status = int(self.faults.pop(0)[0].split()[1])
            return connection.respond(HTTPStatus(status), "not now\n")
        cursor = int(query["cursor"][0]) if "cursor" in query else None
        if "xrpc" in parts.path:
            if any(name.startswith("wanted") for name in query):
                return connection.respond(HTTPStatus.BAD_REQUEST, '{"error":"InvalidRequest"}')
            if cursor is not None and cursor < 10**15 and cursor < self.floor:
                error = {"error": "CursorTooOld", "message": f"floor is {self.floor}"}
                return connection.respond(HTTPStatus.BAD_REQUEST, json.dumps(error))
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        parts = urlsplit(connection.request.path)
        query = parse_qs(parts.query)
        v2 = "xrpc" in parts.path
        cursor = int(query["cursor"][0]) if "cursor" in query else None
        dids = query.get("dids" if v2 else "wantedDids", [])
        kind, after = self.faults.pop(0) if self.faults else ("", 0)
        log = [event for event in self.log if not dids or event.did in dids]
        if v2 and cursor is not None and cursor < 10**15 and cursor > self.log[-1].seq + 1:
            info = {"$type": "network.bsky.jetstream.subscribeEvents#info", "name": "FutureCursor", "message": "tip"}
            await connection.send(json.dumps({"$type": "message", "payload": info}))
            log = []
        elif cursor is not None:
            log = [event for event in log if (event.seq if cursor < 10**15 else event.us) >= cursor]
        for number, event in enumerate(log):
            if kind and number == after and await self._fault(connection, kind, v2):
                return
            frame = event.v2() if v2 else event.v1()
            if frame is None:
                continue
            await connection.send(json.dumps(frame, ensure_ascii=number % 2 == 0))
            if kind == "double":
                await connection.send(json.dumps(frame))
            await asyncio.sleep(self.pause_s)
        await connection.wait_closed()

    async def _fault(self, connection: ServerConnection, kind: str, v2: bool) -> bool:
        """True when this connection is over."""
        if kind == "cut":
            connection.transport.abort()
            return True
        if kind == "close":
            await connection.close(1012, "restarting")
            return True
        if kind == "stall":
            connection.transport.pause_reading()
            await asyncio.sleep(3600)
            return True
        if kind == "slow":
            if v2:
                error = {"$type": "error", "error": "ConsumerTooSlow", "message": "you are too slow"}
                await connection.send(json.dumps(error))
            await connection.close(1008, "ConsumerTooSlow")
            return True
        if kind == "garbage":
            for frame in (b"\xff\xfe\x00", "{", "[]", '{"did": 3}', '{"kind":"commit"}', "[" * 5000, "x" * 70_000):
                await connection.send(frame)
            for record in ({"text": 5}, None, [], {"createdAt": "yesterday"}):
                broken = {"rev": rev_of(1), "operation": "create", "collection": POSTS, "rkey": "x", "record": record}
                event = {"did": "did:plc:mal", "time_us": 1, "kind": "commit", "commit": broken}
                await connection.send(json.dumps(event))
        return False
