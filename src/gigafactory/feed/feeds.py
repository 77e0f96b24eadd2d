"""RSS, Atom and JSON Feed: asked for when they may have changed, or pushed by a WebSub hub.

How fresh a feed is hangs on poll_s, unless a hub pushes; the status shows what it really was. An entry is known by its
own id, and is revised when its text changes; entries that a feed says are deleted are deleted here.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSource
from gigafactory.feed.connector import Batch, Clock, Emit, Health, resumed
from gigafactory.feed.feed_parse import LARGEST_FEED, Document, Entry, parse_feed
from gigafactory.feed.fetch import HttpError, checked, client, failure_of, fetch, pause_s
from gigafactory.feed.listen import Listener, Request
from gigafactory.feed.post import Delete, Event, Post
from gigafactory.feed.stream import Failure
from gigafactory.feed.websub import Subscription, acceptable_hub

REMEMBERED = 1_000  # entries of a feed whose text is known, to see what changes
PUSHED_POLL = 10  # times poll_s, while a hub pushes
QUEUED = 16  # pushed documents that wait
ACCEPT = ", ".join(
    (
        *("application/atom+xml", "application/rss+xml", "application/feed+json"),
        *("application/xml;q=0.9", "application/json;q=0.8", "*/*;q=0.1"),
    )
)
DELETED = "deleted"  # in the place of a digest
GONE = 410


@dataclass(slots=True)
class Known:
    """What is known of a feed, kept as the cursor. entries: digest, rev and created_at of each id, oldest first."""

    etag: str = ""
    modified: str = ""
    entries: dict[str, tuple[str, int, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, cursor: str) -> Known:
        record = json.loads(cursor)
        entries = {id: (str(one[0]), int(one[1]), float(one[2])) for id, one in record["entries"].items()}
        return cls(str(record["etag"]), str(record["modified"]), entries)

    def __str__(self) -> str:
        return json.dumps({"etag": self.etag, "modified": self.modified, "entries": self.entries}, ensure_ascii=False)


class WebFeed:
    """Connector of kind "feed"."""

    def __init__(self, source: FeedSource, clock: Clock) -> None:
        parts = urlsplit(source.url or "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"url: must be like https://example.org/feed.xml, got {source.url!r}")
        if source.callback and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s/]+):\d{1,5}", source.listen):
            raise UserError(f"listen: must be HOST:PORT, got {source.listen!r}")
        self.name = source.name
        self.health = Health()
        self._clock, self._url, self._host = clock, source.url or "", parts.netloc
        self._poll_s, self._train_ok = source.poll_s, source.train_ok
        self._callback, self._listen = source.callback, source.listen
        self._known = Known()
        self._subscription: Subscription | None = None
        self._pushed: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue(QUEUED)

    async def run(self, emit: Emit, cursor: str | None) -> None:
        self._known = resumed(cursor, Known.of, self.health, self._clock.now()) or Known()
        # an address that only the hub is told: nobody else can guess where to push
        path = f"{urlsplit(self._callback or '').path.rstrip('/')}/{secrets.token_urlsafe(24)}"
        listener = await Listener.add(self._listen, path, self._hear, LARGEST_FEED) if self._callback else None
        try:
            async with client(Accept=ACCEPT) as web:
                failures = 0
                while True:
                    wait_s, failed = await self._poll(web, emit, failures)
                    failures = failures + 1 if failed else 0
                    await self._subscribe(web, path)
                    until = self._clock.now() + wait_s
                    if self._subscription is not None:
                        until = min(until, max(self._subscription.renew_at, self._clock.now() + self._poll_s))
                    await self._until(until, emit)
        finally:
            if listener is not None:
                await listener.remove(path)

    async def _poll(self, web: httpx.AsyncClient, emit: Emit, failures: int) -> tuple[float, bool]:
        """Ask once; seconds until the next time, and whether it failed."""
        conditions = {"If-None-Match": self._known.etag, "If-Modified-Since": self._known.modified}
        now = self._clock.now()
        try:
            headers = {name: value for name, value in conditions.items() if value}
            answer = checked(await fetch(web, "GET", self._url, headers=headers, limit_bytes=LARGEST_FEED), now)
            self.health.last_line_at = now
            if answer.status != 304:
                etag, modified = answer.headers.get("etag", ""), answer.headers.get("last-modified", "")
                kind = answer.headers.get("content-type", "")
                document = await asyncio.to_thread(parse_feed, answer.body, kind, answer.url)
                self._find_hub(document, answer.headers.get("link", ""))
                await self._take(document, emit, etag, modified)
            self.health.connected = True
        except ValueError as error:
            self.health.bad_line(f"{self._host}: {error}", now)
            return self._poll_s, False
        except Exception as error:
            if isinstance(error, HttpError) and error.status == GONE:
                raise UserError(
                    f"{self._host}: the feed is gone for good (HTTP 410): take it out of the file"
                ) from None
            kind_of, why, asked_s = failure_of(error)
            self.health.connected = False
            self.health.error(f"{self._host}: {why}", now)
            soon_s = pause_s(Failure.SERVER if kind_of is Failure.NETWORK else kind_of, failures + 1, asked_s)
            return (max(self._poll_s, asked_s) if asked_s else min(soon_s, self._poll_s)), True
        live = self._subscription is not None and self._subscription.live(now)
        return self._poll_s * (PUSHED_POLL if live else 1), False

    async def _take(self, document: Document, emit: Emit, etag: str, modified: str) -> None:
        """Emit what is new or changed, with what is known from then on."""
        now = self._clock.now()
        entries = dict(self._known.entries)
        events: list[Event] = []
        for id, when in document.deleted:
            digest, rev, _ = entries.pop(id, ("", 0, 0.0))
            if digest != DELETED:
                rev = max(rev, round(when * 1e6))
                events.append(Delete(self.name, id, min(when, now), "deleted by the feed", rev))
            entries[id] = (DELETED, rev, 0.0)
        for entry in reversed(document.entries):  # feeds are newest first
            digest, rev, created_at = entries.pop(entry.id, ("", -1, 0.0))
            if digest != entry.digest:
                created_at = created_at or min(entry.created_at or now, now)
                rev = max(rev + 1, round(1e6 * min(entry.updated_at or created_at, now)))
                events.append(self._post(entry, rev, created_at, now))
            entries[entry.id] = (entry.digest, rev, created_at)
        while len(entries) > max(REMEMBERED, len(document.entries)):
            del entries[next(iter(entries))]
        known = Known(etag, modified, entries)
        if events or (etag, modified) != (self._known.etag, self._known.modified):
            await emit(Batch(tuple(events), str(known)))
            self.health.posts += sum(isinstance(event, Post) for event in events)
        self._known = known

    def _post(self, entry: Entry, rev: int, created_at: float, now: float) -> Post:
        author = entry.author or self._host
        return Post(
            source=self.name,
            id=entry.id,
            rev=rev,
            author=author,
            author_id=author,
            created_at=created_at,
            seen_at=now,
            text=entry.text,
            url=entry.url,
            lang=entry.lang,
            train_ok=self._train_ok,
        )

    # pushed

    def _find_hub(self, document: Document, link: str) -> None:
        """The hub that the feed names, in its text or in the Link header, if we can be reached."""
        if self._callback is None:
            return
        linked = {rel: url for url, rel in re.findall(r'<([^<>\s]{1,2000})>[^,]{0,200}?rel="?(hub|self)"?', link)}
        hubs = [*([linked["hub"]] if "hub" in linked else []), *document.hubs]
        hub = next((hub for hub in hubs if acceptable_hub(hub, self._url)), None)
        topic = linked.get("self") or document.topic or self._url
        had = self._subscription
        if hub is not None and (had is None or (had.hub, had.topic) != (hub, topic)):
            self._subscription = Subscription(hub, topic, "", secrets.token_hex(32))

    async def _subscribe(self, web: httpx.AsyncClient, path: str) -> None:
        """Ask the hub, when it is time; polling goes on whatever comes of it."""
        subscription, now = self._subscription, self._clock.now()
        if subscription is None or not subscription.due(now):
            return
        base = urlsplit(self._callback or "")
        subscription.callback = f"{base.scheme}://{base.netloc}{path}"
        form = subscription.request(now)
        try:
            checked(await fetch(web, "POST", subscription.hub, data=form, limit_bytes=1 << 16), now)
        except Exception as error:
            _, why, _ = failure_of(error)
            self.health.error(f"hub {urlsplit(subscription.hub).netloc}: {why}; the feed is polled", now)

    async def _hear(self, request: Request) -> tuple[int, str]:
        """What came to our address: the hub asks whether we asked, or delivers."""
        subscription, now = self._subscription, self._clock.now()
        if subscription is None:
            return 404, ""
        if request.method == "GET":
            answer = subscription.verify(request.query, now)
            if subscription.denied:
                self.health.error(f"the hub denies: {subscription.denied}; the feed is polled", now)
            return answer
        if request.method != "POST":
            return 405, ""
        if not subscription.proves_itself(request.headers, request.body):
            self.health.bad_line("a delivery without the hub's signature", now)
            return 202, ""  # as the standard wants: who guesses is not told
        try:
            self._pushed.put_nowait((request.body, request.headers.get("content-type", "")))
        except asyncio.QueueFull:
            return 503, ""
        return 202, ""

    async def _until(self, at: float, emit: Emit) -> None:
        """Wait until `at`, and take what is pushed meanwhile."""
        waiting = asyncio.ensure_future(self._clock.sleep(max(at - self._clock.now(), 0.0)))
        while not waiting.done():
            pushed = asyncio.ensure_future(self._pushed.get())
            try:
                await asyncio.wait((waiting, pushed), return_when=asyncio.FIRST_COMPLETED)
                if not pushed.done():
                    return
                body, kind = pushed.result()
                now = self.health.last_line_at = self._clock.now()
                document = await asyncio.to_thread(parse_feed, body, kind, self._url)
                await self._take(document, emit, self._known.etag, self._known.modified)
            except ValueError as error:
                self.health.bad_line(f"pushed: {error}", now)
            except asyncio.CancelledError:
                waiting.cancel()
                raise
            finally:
                pushed.cancel()
