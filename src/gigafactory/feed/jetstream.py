"""Bluesky's posts by Jetstream, over both of its wires: /subscribe (v1) and subscribeEvents (v2). No key is needed.

A post is at://DID/app.bsky.feed.post/RKEY and its revision is the repository's, which only grows. Deleted posts,
deleted, suspended and deactivated accounts, and repositories that were put together anew are followed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSource
from gigafactory.feed.connector import Batch, Clock, Emit, Health, resumed
from gigafactory.feed.fetch import keep_connected
from gigafactory.feed.plain import plain
from gigafactory.feed.post import Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.socket import SILENCE_S, open_socket

# The public servers, tried in turn. Each numbers and times its events by itself.
PUBLIC = tuple(f"wss://jetstream{n}.us-{side}.bsky.network/subscribe" for side in ("east", "west") for n in (2, 1))
POSTS = "app.bsky.feed.post"
V2 = "/xrpc/network.bsky.jetstream.subscribeEvents"
V2_PROTOCOL = "xrpc.v1.json"
AHEAD_S = 86_400.0  # that a server's clock may be ahead of ours
REWIND_US = 5_000_000  # on another server than the cursor is of
LONGEST_FRAME = 4 << 20  # bytes
BATCH = 500  # events that are there at once go together, up to so many
HANDLES = 50_000  # of accounts whose identity events passed by are remembered
MOST_DIDS = 10_000
TRIES = 3  # connections to one public server before the next one has its turn

_TID = "234567abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server is read up to. us: Unix microseconds by its clock. seq: its number of the event (v2)."""

    host: str
    us: int
    seq: int | None = None

    @classmethod
    def of(cls, cursor: str) -> Place:
        record = json.loads(cursor)
        seq = record["seq"]
        return cls(_string(record["host"]), _whole(record["us"]), None if seq is None else _whole(seq))

    def __str__(self) -> str:
        return json.dumps({"host": self.host, "us": self.us, "seq": self.seq})


class CursorRefusedError(Exception):
    """The server has no such number, or no longer; it is asked again by time."""


class Jetstream:
    """Connector of kind "jetstream". url: a server; with the path of subscribeEvents it is read by v2, else by v1.
    rules: DIDs of the authors wanted; none is everybody."""

    def __init__(self, source: FeedSource, clock: Clock) -> None:
        for i, did in enumerate(source.rules):
            if not re.fullmatch(r"did:[a-z]+:[A-Za-z0-9._:%-]+", did):
                raise UserError(f"rules[{i}]: must be a DID such as did:plc:eygmaihciaxprqvxpfvl6flk, got {did!r}")
        if len(source.rules) > MOST_DIDS:
            raise UserError(f"rules: at most {MOST_DIDS} authors, got {len(source.rules)}")
        self.name = source.name
        self.health = Health()
        self._clock = clock
        self._urls = (_websocket(source.url),) if source.url else PUBLIC
        self._dids = source.rules
        self._reader = Reader(source.name, source.train_ok)
        self._place: Place | None = None
        self._by_time = False  # the server refused our number

    async def run(self, emit: Emit, cursor: str | None) -> None:
        self._place = resumed(cursor, Place.of, self.health, self._clock.now())
        turns = itertools.count()
        url = self._urls[0]

        async def once() -> None:
            nonlocal url
            url = self._urls[next(turns) // TRIES % len(self._urls)]
            try:
                await self._read(url, emit)
            except CursorRefusedError as error:
                self._by_time = True
                self.health.error(str(error), self._clock.now())
                await self._read(url, emit)

        await keep_connected(once, lambda: urlsplit(url).netloc, self.health, self._clock, final=len(self._urls) == 1)

    async def _read(self, url: str, emit: Emit) -> None:
        """One connection, until it raises why it is over."""
        host, v2 = urlsplit(url).netloc, _is_v2(url)
        place = self._place
        address = f"{url}?{_query(v2, self._dids, _cursor(place, host, v2, self._by_time))}"
        protocol = V2_PROTOCOL if v2 else None
        try:
            async with open_socket(
                address, subprotocol=protocol, largest_bytes=LONGEST_FRAME, queued=BATCH
            ) as connection:
                await self._listen(connection, host, v2, emit)
        except InvalidStatus as error:
            if b"CursorTooOld" in (error.response.body or b"") and not self._by_time:
                raise CursorRefusedError("events were missed: the server no longer keeps what followed ours") from None
            raise

    async def _listen(self, connection: ClientConnection, host: str, v2: bool, emit: Emit) -> None:
        place = self._place if self._place is not None and self._place.host == host else None
        self.health.connected = True
        had = place.seq if place is not None and not self._by_time else None  # it is sent once more
        while True:
            # everybody is never silent; single authors may be, and pings tell whether the connection lives
            async with asyncio.timeout(None if self._dids else SILENCE_S):
                frames = [await connection.recv(decode=False)]
            frames += await _at_once(connection)
            read, over = self._understood(frames, v2)
            events: list[Event] = []
            for one in read:
                if one.seq is not None and had is not None and one.seq <= had:
                    continue
                events += one.events
                place = Place(host, max(one.us, place.us if place is not None else 0), one.seq)
            if place is not None and read:
                await emit(Batch(tuple(events), str(place)))
                self._place, self._by_time = place, False
                self.health.posts += sum(isinstance(event, Post) for event in events)
            if over:
                raise ConnectionResetError(over)

    def _understood(self, frames: Sequence[bytes], v2: bool) -> tuple[list[Read], str]:
        """What these frames say; and why the server ends the stream, if it does."""
        now = self._clock.now()
        self.health.last_line_at = now
        understood, over = [], ""
        for frame in frames:
            try:
                read = self._reader.v2(frame, now) if v2 else self._reader.v1(frame, now)
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                self.health.bad_line(f"no {error}" if isinstance(error, KeyError) else str(error), now)
                continue
            if read.us > (now + AHEAD_S) * 1e6:  # it would become our cursor
                self.health.bad_line("an event of the future", now)
                continue
            if read.notice == "FutureCursor" and not self._by_time:
                raise CursorRefusedError("the server knows nothing of our cursor; it is asked by time")
            if read.notice:
                self.health.error(read.notice, now)
            over = over or read.over
            if read.us:
                understood.append(read)
        return understood, over


@dataclass(frozen=True, slots=True)
class Read:
    """What one frame said. us: when, by the server; 0 for what is no event. notice: a word of the server about the
    stream. over: why it ends the stream."""

    events: tuple[Event, ...] = ()
    us: int = 0
    seq: int | None = None
    notice: str = ""
    over: str = ""


class Reader:
    """Frames of either wire -> events. It remembers handles: posts only carry the author's DID."""

    def __init__(self, source: str, train_ok: bool) -> None:
        self._source, self._train_ok = source, train_ok
        self._handles: OrderedDict[str, str] = OrderedDict()

    def v1(self, frame: bytes, now: float) -> Read:
        """Raises ValueError, KeyError, TypeError or AttributeError for what is no frame of v1."""
        record = json.loads(frame)
        us = _whole(record["time_us"])
        did = _string(record["did"])
        match record.get("kind"):
            case "commit":
                events = self._commit(did, us, record["commit"], now)
            case "account":
                events = self._account(did, us, record["account"])
            case "identity":
                events = self._identity(did, record["identity"])
            case _:
                events = ()
        return Read(events, us)

    def v2(self, frame: bytes, now: float) -> Read:
        """The same of v2."""
        record = json.loads(frame)
        if record["$type"] == "error":
            return Read(over=plain(f"{record.get('error')}: {record.get('message', '')}", 200))
        payload = record["payload"]
        kind = _string(payload["$type"]).rpartition("#")[2]
        if kind == "info":
            name = plain(_string(payload["name"]), 200)
            return Read(notice=name if name == "FutureCursor" else plain(f"{name}: {payload.get('message', '')}", 200))
        us = _micros(_string(payload.get("witnessedAt") or payload["time"]))
        did = _string(payload["did"])
        match kind:
            case "commit":
                events = self._commit(did, us, payload, now)
            case "account":
                events = self._account(did, us, payload["account"])
            case "identity":
                events = self._identity(did, payload["identity"])
            case "sync":  # the whole repository follows; what does not come again is gone
                at = us / 1e6
                events = (
                    DeleteAuthor(self._source, did, at, "repository put together anew"),
                    Restore(self._source, at, author_id=did),
                )
            case _:
                events = ()
        return Read(events, us, _whole(payload["seq"]))

    def _commit(self, did: str, us: int, commit: Mapping[str, Any], now: float) -> tuple[Event, ...]:
        if commit["collection"] != POSTS:
            return ()
        rkey = _string(commit["rkey"])
        uri = plain(f"at://{did}/{POSTS}/{rkey}")
        rev = tid(_string(commit["rev"]))
        at = us / 1e6
        if commit["operation"] == "delete":
            return (Delete(self._source, uri, at, "deleted by the author", rev),)
        if commit["operation"] not in ("create", "update"):
            return ()
        record = commit["record"]
        try:  # the author's clock may be wrong: a post is not of the future
            created_at = min(_micros(_string(record["createdAt"])) / 1e6, at)
        except (KeyError, ValueError, TypeError, OverflowError):
            created_at = at
        languages = record.get("langs")
        return (
            Post(
                source=self._source,
                id=uri,
                rev=rev,
                author=self._handles.get(did, plain(did)),
                author_id=plain(did),
                created_at=created_at,
                seen_at=now,
                text=plain(_string(record["text"])),
                url=plain(f"https://bsky.app/profile/{did}/post/{rkey}"),
                lang=plain(str(languages[0]), 20) if isinstance(languages, list) and languages else "",
                refs=_refs(record),
                train_ok=self._train_ok,
            ),
        )

    def _account(self, did: str, us: int, account: Mapping[str, Any]) -> tuple[Event, ...]:
        at = us / 1e6
        if account["active"] is True:
            return (Restore(self._source, at, author_id=plain(did)),)
        status = account.get("status")
        if status in ("desynchronized", "throttled"):  # a server's trouble, not the author's wish
            return ()
        return (DeleteAuthor(self._source, plain(did), at, f"account {plain(str(status or 'inactive'), 40)}"),)

    def _identity(self, did: str, identity: Mapping[str, Any]) -> tuple[Event, ...]:
        handle = identity.get("handle")
        if isinstance(handle, str) and handle:
            self._handles[did] = plain(handle, 253)
            self._handles.move_to_end(did)
            if len(self._handles) > HANDLES:
                self._handles.popitem(last=False)
        return ()


def tid(text: str) -> int:
    """The number that a timestamp identifier (13 signs of base 32) stands for; it sorts as the text does."""
    if len(text) != 13 or text[0] not in _TID[:16]:
        raise ValueError(f"rev: must be 13 signs of base 32, got {text!r:.60}")
    number = 0
    for sign in text:
        number = number << 5 | _TID.index(sign)
    return number


def _cursor(place: Place | None, host: str, v2: bool, by_time: bool) -> int | None:
    """What to ask the server for: its own number, or a time, a little earlier on a server that counts by itself."""
    if place is None:
        return None
    if place.host != host:
        return place.us - REWIND_US
    return place.seq if v2 and place.seq is not None and not by_time else place.us


def _query(v2: bool, dids: Sequence[str], cursor: int | None) -> str:
    names = ("collections", "dids") if v2 else ("wantedCollections", "wantedDids")
    pairs = [(names[0], POSTS), *((names[1], did) for did in dids)]
    return urlencode(pairs + ([("cursor", str(cursor))] if cursor is not None else []))


def _is_v2(url: str) -> bool:
    return urlsplit(url).path.rstrip("/") == V2


def _websocket(url: str) -> str:
    """The address of a stream of what the user names: a host alone is read by v1."""
    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"url: must be like wss://jetstream2.us-east.bsky.network/subscribe, got {url!r}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}{parts.path if parts.path.strip('/') else '/subscribe'}"


async def _at_once(connection: ClientConnection) -> list[bytes]:
    """Frames that have come already."""
    frames: list[bytes] = []
    while len(frames) < BATCH - 1:
        try:
            async with asyncio.timeout(0):
                frames.append(await connection.recv(decode=False))
        except TimeoutError:
            break
        except ConnectionClosed:  # it is met again when these frames are done
            break
    return frames


def _refs(record: Mapping[str, Any]) -> tuple[str, ...]:
    refs = []
    reply, embed = record.get("reply"), record.get("embed")
    if isinstance(reply, dict) and isinstance(parent := reply.get("parent"), dict):
        refs.append(("reply", parent.get("uri")))
    if isinstance(embed, dict):
        quoted = embed.get("record")
        if isinstance(quoted, dict) and isinstance(quoted.get("record"), dict):  # with pictures it lies one deeper
            quoted = quoted["record"]
        if isinstance(quoted, dict):
            refs.append(("quote", quoted.get("uri")))
    return tuple(f"{kind}:{plain(uri, 1000)}" for kind, uri in refs if isinstance(uri, str))


def _micros(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    us = round(moment.timestamp() * 1e6)
    if us < 0:
        raise ValueError("a time before 1970")
    return us


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"must be a whole number, got {value!r:.60}")
    return value


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be text, got {value!r:.60}")
    return value
