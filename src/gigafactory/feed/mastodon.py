"""Mastodon's public timeline, or hashtags of it, by its streaming API: Server-Sent Events or WebSocket.

A stream tells nothing of what was missed, so after every connection the gap is filled from the timelines, forward from
the last post that was stored. Posts that were deleted or edited while nobody listened cannot be known that way.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
from websockets.exceptions import ConnectionClosedOK

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSource
from gigafactory.feed.connector import Batch, Clock, Emit, Health, resumed
from gigafactory.feed.fetch import REFUSED, HttpError, checked, client, failure_of, fetch, keep_connected, pause_s
from gigafactory.feed.mastodon_payload import FAULTS, event_of, later, status_event
from gigafactory.feed.plain import plain
from gigafactory.feed.post import Event, Post
from gigafactory.feed.socket import open_socket
from gigafactory.feed.stream import Lines, StalledError, watched

SILENCE_S = 20.0  # the server sends ":thump" every 15 s
QUIET_S = 60.0  # without a post, before the timeline is asked whether there is none
LARGEST_PAGE = 16 << 20  # bytes
LARGEST_MESSAGE = 1 << 20
PAGE = 40  # posts; the most that a server gives
MOST_PAGES = 500  # of one gap; the server allows 300 requests in 5 minutes
TRIES = 6  # for one page
LATE_MS = 60_000  # ids are times: posts of other servers arrive that late with an older id
MOST_TAGS = 100

Message = tuple[tuple[str, ...], str, object]  # streams, event, payload


@dataclass(frozen=True, slots=True)
class Channel:
    """tag: "" is the public timeline."""

    tag: str = ""

    @property
    def name(self) -> str:
        return f"hashtag:{self.tag}" if self.tag else "public"

    @property
    def stream(self) -> str:
        """Path and query of the event stream."""
        return f"/api/v1/streaming/hashtag?{urlencode({'tag': self.tag})}" if self.tag else "/api/v1/streaming/public"

    @property
    def timeline(self) -> str:
        return f"/api/v1/timelines/tag/{quote(self.tag)}" if self.tag else "/api/v1/timelines/public"

    @property
    def wanted(self) -> dict[str, str]:
        """What is asked of the WebSocket."""
        return {"stream": "hashtag", "tag": self.tag} if self.tag else {"stream": "public"}


class Mastodon:
    """Connector of kind "mastodon". url: the server; https:// reads by events, wss:// by one WebSocket. rules: hashtags
    wanted; none is the whole public timeline. The cursor is the newest id of each, as JSON."""

    def __init__(self, source: FeedSource, clock: Clock, token: str) -> None:
        parts = urlsplit(source.url or "")
        if not parts.hostname or parts.path.strip("/") or parts.query:
            raise UserError(f"url: must be like https://mastodon.social or wss://mastodon.social, got {source.url!r}")
        for i, tag in enumerate(source.rules):
            if not re.fullmatch(r"#?[^\W_][\w]{0,99}", tag):
                raise UserError(f"rules[{i}]: must be a hashtag, got {tag!r}")
        if len(source.rules) > MOST_TAGS:
            raise UserError(f"rules: at most {MOST_TAGS} hashtags, got {len(source.rules)}")
        self.name = source.name
        self.health = Health(secrets=(token,))
        self._clock, self._token, self._train_ok = clock, token, source.train_ok
        self._secure = parts.scheme in ("https", "wss")
        self._by_socket = parts.scheme in ("ws", "wss")
        self._host = parts.netloc
        self._web = f"http{'s' * self._secure}://{parts.netloc}"
        self._channels = tuple(Channel(tag.removeprefix("#").lower()) for tag in dict.fromkeys(source.rules))
        self._channels = self._channels or (Channel(),)
        self._read: dict[str, str] = {}  # newest id of each channel that was emitted
        self._emitting = asyncio.Lock()

    async def run(self, emit: Emit, cursor: str | None) -> None:
        self._read = resumed(cursor, _ids, self.health, self._clock.now()) or {}
        async with client(Authorization=f"Bearer {self._token}") as web:
            groups = [self._channels] if self._by_socket else [(channel,) for channel in self._channels]
            tasks = [asyncio.create_task(self._keep(web, group, emit)) for group in groups]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, web: httpx.AsyncClient, channels: Sequence[Channel], emit: Emit) -> None:
        open_stream = self._messages_by_socket if self._by_socket else self._messages_by_events

        async def once() -> None:
            base = await self._streaming(web)
            async with aclosing(open_stream(web, base, channels)) as stream:
                await self._listen(web, channels, stream, emit)

        await keep_connected(once, lambda: self._host, self.health, self._clock)

    async def _streaming(self, web: httpx.AsyncClient) -> str:
        """Where the server streams, without "http" or "ws": large ones do it elsewhere and say so. What is encrypted
        stays so."""
        answer = await fetch(web, "GET", f"{self._web}/api/v2/instance", limit_bytes=LARGEST_PAGE)
        try:
            told = json.loads(answer.body)["configuration"]["urls"]["streaming"]
            parts = urlsplit(told)
            if answer.status == 200 and parts.hostname and parts.scheme in ("wss", "https", "ws", "http"):
                secure = self._secure or parts.scheme in ("wss", "https")
                return f"{'s' * secure}://{parts.netloc}{parts.path.rstrip('/')}"
        except FAULTS:
            pass  # an older server, which streams itself
        return f"{'s' * self._secure}://{self._host}"

    async def _messages_by_events(
        self, web: httpx.AsyncClient, base: str, channels: Sequence[Channel]
    ) -> AsyncGenerator[list[Message], None]:
        (channel,) = channels
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        timeout = httpx.Timeout(SILENCE_S, read=None)
        async with web.stream("GET", f"http{base}{channel.stream}", headers=headers, timeout=timeout) as answer:
            if answer.status_code != 200:
                raise HttpError(answer.status_code, "the stream is refused")
            self.health.connected = True
            lines, event, data = Lines(LARGEST_MESSAGE), "", list[str]()
            yield []
            async for chunk in watched(answer.aiter_raw(), SILENCE_S):
                self.health.last_line_at = self._clock.now()
                overlong = lines.overlong
                messages: list[Message] = []
                for line in lines.push(chunk):
                    field, _, value = line.decode("utf-8", "replace").partition(":")
                    value = value.removeprefix(" ")
                    if field == "event":
                        event = value
                    elif field == "data":
                        data.append(value)
                    elif not line:
                        if event and data:
                            messages.append(((channel.name,), event, "\n".join(data)))
                        event, data = "", []
                for _ in range(lines.overlong - overlong):
                    self.health.bad_line(f"longer than {LARGEST_MESSAGE} bytes", self._clock.now())
                    event, data = "", []
                yield messages

    async def _messages_by_socket(
        self, web: httpx.AsyncClient, base: str, channels: Sequence[Channel]
    ) -> AsyncGenerator[list[Message], None]:
        headers = {"Authorization": f"Bearer {self._token}"}
        async with open_socket(f"ws{base}/api/v1/streaming", headers=headers, largest_bytes=LARGEST_MESSAGE) as socket:
            for channel in channels:
                await socket.send(json.dumps({"type": "subscribe", **channel.wanted}))
            self.health.connected = True
            yield []
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        frame = await socket.recv(decode=False)
                except TimeoutError:  # quiet, but alive: pings are answered
                    yield []
                    continue
                except ConnectionClosedOK:
                    return
                now = self.health.last_line_at = self._clock.now()
                try:
                    message = json.loads(frame)
                    if "error" in message:
                        self.health.error(f"{self._host}: {message['error']}", now)
                        continue
                    stream = message["stream"]
                    streams = (":".join(stream[:1] + [tag.lower() for tag in stream[1:]]),)
                    yield [(streams, message["event"], message.get("payload", ""))]
                except FAULTS as error:
                    self.health.bad_line(_words(error), now)

    async def _listen(
        self,
        web: httpx.AsyncClient,
        channels: Sequence[Channel],
        stream: AsyncIterator[list[Message]],
        emit: Emit,
    ) -> None:
        """Emit what the stream brings, at once; its ids count as read when the gap before it is filled."""
        newest = {channel.name: "" for channel in channels}
        turns = itertools.cycle(channels)
        quiet_since = self._clock.now()
        filled: set[str] = set()

        async def fill(channel: Channel) -> None:
            if not self._read.get(channel.name):  # the first time: there is no gap, and what comes now counts
                filled.add(channel.name)
            await self._fill(web, channel, emit)
            filled.add(channel.name)
            await self._emit(emit, [], channel.name, newest[channel.name])

        fills: list[asyncio.Task[None]] = []
        try:
            async for messages in stream:
                if not fills:  # the stream is open: from here on nothing is missed
                    fills = [asyncio.create_task(fill(channel)) for channel in channels]
                for task in fills:
                    if task.done():
                        task.result()
                if not messages and self._clock.now() - quiet_since >= QUIET_S:
                    await self._probe(web, next(turns))
                for streams, event, payload in messages:
                    try:
                        understood = event_of(event, payload, self.name, self._host, self._train_ok, self._clock.now())
                    except FAULTS as error:
                        self.health.bad_line(_words(error), self._clock.now())
                        continue
                    if understood is None:
                        continue
                    name = next((name for name in streams if name in newest), channels[0].name)
                    if event == "update" and isinstance(understood, Post):
                        quiet_since = self._clock.now()
                        newest[name] = later(newest[name], understood.id)
                    await self._emit(emit, [understood], name, newest[name] if name in filled else "")
        finally:
            for task in fills:
                task.cancel()
            await asyncio.gather(*fills, return_exceptions=True)

    async def _emit(self, emit: Emit, events: Sequence[Event], channel: str, id: str) -> None:
        """One batch; `id` is the newest that is read of the channel, "" where that did not change. In turns, so that no
        cursor runs ahead of events of another channel."""
        async with self._emitting:
            read = self._read | {channel: later(self._read.get(channel, ""), id)}
            if events or read != self._read:
                await emit(Batch(tuple(events), json.dumps(read)))
                self._read = read
                self.health.posts += sum(isinstance(event, Post) for event in events)

    async def _fill(self, web: httpx.AsyncClient, channel: Channel, emit: Emit) -> None:
        """Everything of the timeline after the newest id that was read; where none was, that becomes the newest."""
        at = self._read.get(channel.name, "")
        if not at:
            page = await self._page(web, channel, {"limit": "1"})
            await self._emit(emit, [], channel.name, next((id for id, _ in page), ""))
            return
        at = _earlier(at)
        for _ in range(MOST_PAGES):
            page = await self._page(web, channel, {"min_id": at, "limit": str(PAGE)})
            if not page:
                return
            before, at = at, max((id for id, _ in page), key=lambda id: (len(id), id))
            events = [event for _, event in reversed(page) if event is not None]
            await self._emit(emit, events, channel.name, at)
            if at == before:
                return
        self.health.error(f"{self._host}: the gap is too long: posts of {channel.name} were missed", self._clock.now())

    async def _probe(self, web: httpx.AsyncClient, channel: Channel) -> None:
        """Ask the timeline whether a quiet stream has kept something back: it may be open and dead for hours."""
        if at := self._read.get(channel.name, ""):
            page = await self._page(web, channel, {"min_id": at, "limit": str(PAGE)})
            before = self._clock.now() - SILENCE_S
            if any(isinstance(event, Post) and event.created_at < before for _, event in page):
                raise StalledError("the stream is open, but it does not bring what the timeline has")

    async def _page(
        self, web: httpx.AsyncClient, channel: Channel, params: dict[str, str]
    ) -> list[tuple[str, Event | None]]:
        """Ids and posts of one page of a timeline, newest first; nothing, and the reason told, where the server refuses
        it. Raises what went wrong in the last try."""
        for attempt in range(1, TRIES + 1):
            now = self._clock.now()
            try:
                url = f"{self._web}{channel.timeline}"
                answer = checked(await fetch(web, "GET", url, params=params, limit_bytes=LARGEST_PAGE), now)
                return list(self._understood(json.loads(answer.body), now))
            except FAULTS as error:
                self.health.error(f"{self._host}: cannot fill the gap of {channel.name}: {_words(error)}", now)
                return []
            except Exception as error:
                kind, why, asked_s = failure_of(error)
                self.health.error(f"{self._host}: cannot fill the gap of {channel.name}: {why}", now)
                if isinstance(error, HttpError) and error.status in REFUSED:
                    return []
                if attempt == TRIES:
                    raise
                await self._clock.sleep(pause_s(kind, attempt, asked_s))
        raise AssertionError("the last try returns or raises")

    def _understood(self, statuses: list[dict[str, Any]], now: float) -> Iterator[tuple[str, Event | None]]:
        for status in statuses:
            try:
                id = plain(str(status["id"]), 200)
                yield id, status_event(status, self.name, self._host, self._train_ok, now)
            except FAULTS as error:
                self.health.bad_line(_words(error), now)


def _ids(cursor: str) -> dict[str, str]:
    ids = json.loads(cursor)
    if not isinstance(ids, dict) or not all(isinstance(id, str) for id in ids.values()):
        raise ValueError("not ids of channels")
    return ids


def _earlier(id: str) -> str:
    """An id a little older, where ids hold a time (their upper 48 bits are its milliseconds)."""
    if id.isdecimal() and int(id) > LATE_MS << 16:
        return str(int(id) - (LATE_MS << 16))
    return id


def _words(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
