"""RSS, Atom, JSON Feed and WebSub against servers that do whatever goes wrong."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import random
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback_http import Asked, LoopbackHttp
from plain_store import PlainStore
from virtual_time import START, VirtualClock, run_virtually

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSection, FeedSource
from gigafactory.feed import fetch as fetching
from gigafactory.feed import run as runner
from gigafactory.feed.feed_parse import parse_feed
from gigafactory.feed.feeds import WebFeed
from gigafactory.feed.listen import Listener, Request
from gigafactory.feed.run import Feed
from gigafactory.feed.stream import Failure
from gigafactory.feed.websub import Subscription, acceptable_hub

ATOM = "http://www.w3.org/2005/Atom"
DELETED = "http://purl.org/atompub/tombstones/1.0"


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


@dataclass
class Item:
    id: str
    title: str
    text: str
    published: float
    updated: float
    deleted: float | None = None


@dataclass
class FakeSite:
    """A site whose feed changes every minute. faults: of each answer in turn; "" and none left: it goes well."""

    seed: int
    kind: str
    faults: list[str] = field(default_factory=list)
    items: dict[str, Item] = field(default_factory=dict)
    times: list[tuple[float, str]] = field(default_factory=list)
    hub: str = ""
    version: int = 0

    async def __aenter__(self) -> FakeSite:
        self.rng = random.Random(self.seed)
        self.clock = VirtualClock()
        self.http = await LoopbackHttp(self._answer).__aenter__()
        self.task = asyncio.create_task(self._live())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await self.http.__aexit__()

    async def _live(self) -> None:
        while True:
            self.happen()
            await asyncio.sleep(60)

    def happen(self) -> None:
        rng, now = self.rng, self.clock.now()
        self.version += 1
        alive = [item for item in self.items.values() if item.deleted is None]
        choice = rng.random()
        if choice < 0.5 or len(alive) < 3:
            id = f"tag:site,{len(self.items)}"
            text = f"<p>The line {len(self.items)} &amp; <b>more</b> \U0001f31e</p><script>alert(1)</script>"
            self.items[id] = Item(id, f"News {len(self.items)}", text, now, now)
        elif choice < 0.8 or self.kind != "atom":
            item = rng.choice(alive)
            item.title += "!"
            item.updated = now
        else:
            rng.choice(alive).deleted = now

    def truth(self) -> dict[str, str]:
        return {
            item.id: f"{item.title}\nThe line {item.id[9:]} & more \U0001f31e"
            for item in self.items.values()
            if item.deleted is None
        }

    def document(self) -> tuple[str, str]:
        shown = sorted((item for item in self.items.values() if item.deleted is None), key=lambda item: -item.published)
        if self.kind == "json":
            items = [
                {
                    "id": item.id,
                    "url": f"/{item.id[9:]}",
                    "title": item.title,
                    "content_html": item.text,
                    "date_published": iso(item.published),
                    "date_modified": iso(item.updated),
                }
                for item in shown
            ]
            feed = {"version": "https://jsonfeed.org/version/1.1", "title": "Site", "items": items}
            return json.dumps(feed), "application/feed+json"
        if self.kind == "rss":
            # without dates of changes: a change is seen by its text
            entries = "".join(
                f"<item><guid isPermaLink='false'>{item.id}</guid><title>{escape(item.title)}</title>"
                f"<link>http://site.example/{item.id[9:]}</link><description>{escape(item.text)}</description>"
                f"<pubDate>{format_datetime(datetime.fromtimestamp(item.published, UTC))}</pubDate></item>"
                for item in shown
            )
            return (
                f"<?xml version='1.0'?><rss version='2.0'><channel><title>Site</title>{entries}</channel></rss>",
                "x/y",
            )
        entries = "".join(
            f"<entry><id>{item.id}</id><title>{escape(item.title)}</title><link href='/{item.id[9:]}'/>"
            f"<content type='html'>{escape(item.text)}</content><author><name>Ann</name></author>"
            f"<published>{iso(item.published)}</published><updated>{iso(item.updated)}</updated></entry>"
            for item in shown
        )
        gone = "".join(
            f"<at:deleted-entry ref='{item.id}' when='{iso(item.deleted)}'/>"
            for item in self.items.values()
            if item.deleted is not None
        )
        hub = f"<link rel='hub' href='{self.hub}'/>" if self.hub else ""
        head = f"<link rel='self' href='http://{self.http.host}/feed'/>{hub}<title>Site</title>"
        return f"<feed xmlns='{ATOM}' xmlns:at='{DELETED}'>{head}{gone}{entries}</feed>", "application/atom+xml"

    async def _answer(self, asked: Asked) -> None:
        fault = self.faults.pop(0) if self.faults else ""
        self.times.append((self.clock.now() - START, fault))
        text, kind = self.document()
        etag = f'"v{self.version}"'
        if fault.startswith("http"):
            code, _, wait = fault.removeprefix("http ").partition(" ")
            await asked.answer(int(code), "no", **({"Retry_After": wait} if wait else {}))
        elif fault == "moved":
            await asked.answer(301, "", Location="/elsewhere")
        elif fault == "garbage":
            await asked.answer(200, self.rng.choice([b"\xff\x00<rss", b"", b"<html><p>hello", b"{", b"[1]", b"{}"]))
        elif fault == "bomb":
            await asked.answer(200, gzip.compress(b" " * (64 << 20)), Content_Encoding="gzip")
        elif fault == "entities":
            text = '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><rss version="2.0">&b;</rss>'
            await asked.answer(200, text)
        elif fault == "cut":
            data = text.encode()
            asked.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[: len(data) // 2])
        elif fault == "stall":
            asked.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n<rss")
            await asyncio.sleep(3600)
        elif asked.headers.get("if-none-match") == etag:
            await asked.answer(304)
        else:
            await asked.answer(200, gzip.compress(text.encode()), Content_Type=kind, ETag=etag, Content_Encoding="gzip")


async def read(
    site: FakeSite, store: PlainStore, seconds: float, connector: WebFeed | None = None, **given: Any
) -> Feed:
    source = FeedSource(name="site", kind="feed", url=f"http://{site.http.host}/feed", **given)
    clock = VirtualClock()
    connector = connector or WebFeed(source, clock)
    feed = Feed(FeedSection(sources=(source,)), store, clock, tell=[].append, connectors=[connector], real=clock)
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await feed.run(stop, until_ended=True)
    return feed


def texts(store: PlainStore) -> dict[str, str]:
    return {id: post.text for (_, id), post in store.posts.items()}


@pytest.fixture(autouse=True)
def _seldom_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours pass here: every status would cost a thread."""
    monkeypatch.setattr(runner, "STATUS_S", 600.0)


FAULTS = (
    "http 500",
    "http 503 900",
    "http 429 120",
    "http 404",
    "moved",
    "garbage",
    "entities",
    "cut",
    "stall",
    "bomb",
)


@pytest.mark.parametrize("kind", ["rss", "atom", "json"])
def test_the_store_follows_the_feed_whatever_fails(kind: str) -> None:
    rng = random.Random(kind)
    faults = [rng.choice(("", *FAULTS)) for _ in range(20)]
    store = PlainStore()

    async def main() -> None:
        async with FakeSite(3, kind, faults) as site:
            while site.faults:  # stopped and started again
                await read(site, store, rng.uniform(1, 800), poll_s=30)
                await asyncio.sleep(100)
            await asyncio.sleep(60 - site.clock.now() % 60 + 10)
            site.task.cancel()
            feed = await read(site, store, 10, poll_s=30)
            assert site.faults == []
            assert feed.status().sources[0].bad_lines == 0
            assert texts(store) == site.truth()

    run_virtually(main())
    revised = [post for post in store.posts.values() if "!" in post.text]
    assert revised
    assert all(post.url.endswith(f"/{post.id[9:]}") for post in store.posts.values())
    assert {post.author for post in store.posts.values()} == {"Ann" if kind == "atom" else "Site"}


def test_it_asks_only_for_what_changed_and_when_it_may() -> None:
    store = PlainStore()

    async def main() -> None:
        async with FakeSite(1, "rss", ["", "", "http 503 1000", "http 500", "http 500"]) as site:
            await read(site, store, 3000, poll_s=300)
            first, second = site.http.asked[:2]
            assert "if-none-match" not in first.headers
            assert second.headers["if-none-match"] == '"v1"'
            at = [round(time) for time, _ in site.times]
            assert at[:7] == [0, 300, 600, 1600, 1610, 1630, 1930]

    run_virtually(main())
    assert store.batches[0] == 1


def test_a_little_that_unpacks_to_a_lot_is_stopped() -> None:
    async def main() -> None:
        async with FakeSite(1, "rss", ["bomb"]) as site:
            feed = await read(site, PlainStore(), 1, poll_s=300)
            assert "the answer is larger than 8.4 MB" in feed.status().sources[0].last_error

    run_virtually(main())


def test_a_feed_that_is_gone_ends_the_source() -> None:
    async def main() -> None:
        async with FakeSite(1, "rss", ["", "http 410"]) as site:
            with pytest.raises(UserError, match=r"the feed is gone for good \(HTTP 410\): take it out of the file"):
                await read(site, PlainStore(), 1000, poll_s=300)

    run_virtually(main())


# what is understood


def atom(inner: str, prolog: str = "") -> bytes:
    return f"<?xml version='1.0'?>{prolog}<feed xmlns='{ATOM}' xmlns:at='{DELETED}'>{inner}</feed>".encode()


@pytest.mark.parametrize(
    "prolog",
    [
        "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>]>",
        "<!-- <feed> --><!doctype x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
        "<?x <feed> ?>\n<!DOCTYPE x SYSTEM 'http://127.0.0.1/x.dtd' [ %a; ]>",
    ],
)
def test_declared_entities_are_refused(prolog: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        body = f"{prolog}<feed xmlns='{ATOM}'><title>&a;</title></feed>".encode(encoding)
        with pytest.raises(ValueError, match="declares entities"):
            parse_feed(body, "", "http://a.b/")


def test_a_named_document_type_is_read_and_an_article_about_entities_too() -> None:
    entry = "<entry><id>1</id><title>On &lt;!ENTITY</title><content>&lt;!DOCTYPE a [ &lt;!ENTITY b ></content></entry>"
    document = parse_feed(atom(entry, "<!DOCTYPE feed PUBLIC '-//x' 'http://a.b/x.dtd'>"), "", "http://a.b/")
    assert document.entries[0].text == "On <!ENTITY\n<!DOCTYPE a [ <!ENTITY b >"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "windows-1252", "shift_jis"])
def test_encodings(encoding: str) -> None:
    text = "日本" if encoding == "shift_jis" else "Grüße"
    body = f"<?xml version='1.0' encoding='{encoding}'?><rss version='2.0'><channel><item><title>{text}</title></item>"
    document = parse_feed(f"{body}</channel></rss>".encode(encoding), "text/xml; charset=utf-8", "http://a.b/")
    assert document.entries[0].text == text


def test_ids_without_ids_and_links_of_all_kinds() -> None:
    items = (
        "<item><title>One</title><link>http://a.b/1</link></item>"
        "<item><title>Two</title><link>http://a.b/2</link></item>"
        "<item><title>Three</title><link>http://a.b/2</link></item>"
        "<item><title>Four</title><link>javascript:alert(1)</link></item>"
        "<item><description></description></item>"
    )
    body = f"<rss version='2.0'><channel>{items}</channel></rss>".encode()
    one, two, three, four = parse_feed(body, "", "http://a.b/").entries
    assert one.id == "http://a.b/1"
    assert two.id != three.id
    assert two.id.startswith("http://a.b/2#")
    assert four.url == ""


def test_a_headline_that_begins_the_text_is_not_said_twice() -> None:
    entry = "<entry><id>1</id><title>A storm is com...</title><summary>A storm is coming.</summary></entry>"
    assert parse_feed(atom(entry), "", "http://a.b/").entries[0].text == "A storm is coming."


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f"<rss version='2.0'>{text}".encode()))
def test_garbage_is_refused_in_good_order(body: bytes) -> None:
    try:
        document = parse_feed(body, "text/xml", "http://a.b/")
    except ValueError:
        return
    assert document.entries == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["id", "url", "title", "content_text", "content_html", "authors", "date_published", "language"])


@given(st.lists(st.dictionaries(names, json_values), max_size=3), json_values, json_values)
def test_any_json_is_read_or_refused(items: list[Any], hubs: object, authors: object) -> None:
    feed = {"version": "https://jsonfeed.org/version/1", "items": items, "hubs": hubs, "authors": authors}
    document = parse_feed(json.dumps(feed).encode(), "application/json", "http://a.b/")
    assert len(document.entries) <= len(items)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": format_datetime(datetime.fromtimestamp(START + 60, UTC))}, 60.0),
        ({"retry-after": "999999999"}, 86_400.0),
        ({"retry-after": "soon"}, 0.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": iso(START + 30)}, 30.0),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": iso(START + 30)}, 0.0),
        ({}, 0.0),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], wait_s: float) -> None:
    assert fetching.retry_after_s(headers, START) == pytest.approx(wait_s)


def test_what_a_server_asks_for_goes_before_our_own_rules_but_never_hastens() -> None:
    assert fetching.pause_s(Failure.RATE, 1, 20.0) == 20.0
    assert fetching.pause_s(Failure.RATE, 1, 0.0) == 60.0
    assert fetching.pause_s(Failure.SERVER, 100, 1.0) == 16.0


# pushed


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /hook?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"200"),
        (b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n" + b"x" * 9999, b"413"),
        (b"POST /hook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024, b"413"),
        (b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"\x16\x03\x01 not http\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 70_000, b"431"),
        (b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", b""),  # and then nothing
    ],
)
def test_the_listener_is_bounded(sent: bytes, status: bytes) -> None:
    async def main() -> None:
        async def handle(request: Request) -> tuple[int, str]:
            assert (request.method, request.query, request.body) == ("POST", {"a": "b"}, b"abc")
            return 200, "ok"

        listener = await Listener.add("127.0.0.1:0", "/hook", handle, 1000)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(sent)
        answer = await reader.read()
        assert answer[9:12] == status
        writer.close()
        await listener.remove("/hook")

    run_virtually(main())


@dataclass
class FakeHub:
    """Accepts subscriptions, verifies them, and pushes on demand."""

    lease_s: int = 3600
    forms: list[dict[str, str]] = field(default_factory=list)
    challenges: list[bool] = field(default_factory=list)

    async def __aenter__(self) -> FakeHub:
        self.http = await LoopbackHttp(self._answer).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.__aexit__()

    async def _answer(self, asked: Asked) -> None:
        form = asked.form
        self.forms.append(form)
        await asked.answer(202)
        query = {"hub.mode": "subscribe", "hub.topic": form["hub.topic"], "hub.challenge": "a1b2"}
        query["hub.lease_seconds"] = str(self.lease_s)
        async with fetching.client() as web:
            wrong = query | {"hub.topic": "http://elsewhere/"}
            for params in (wrong, query):
                answer = await fetching.fetch(web, "GET", form["hub.callback"], params=params, limit_bytes=100)
                self.challenges.append(answer.status == 200 and answer.body == b"a1b2")

    async def push(self, body: str, secret: str | None = None, method: str = "sha256") -> int:
        form = self.forms[-1]
        key = (form["hub.secret"] if secret is None else secret).encode()
        digest = hmac.new(key, body.encode(), getattr(hashlib, method)).hexdigest()
        headers = {"X-Hub-Signature": f"{method}={digest}", "Content-Type": "application/atom+xml"}
        async with fetching.client() as web:
            answer = await web.post(form["hub.callback"], content=body.encode(), headers=headers)
            return answer.status_code


def test_a_hub_pushes_and_proves_itself() -> None:
    store = PlainStore()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        unused_port = free.getsockname()[1]

    async def main() -> None:
        async with FakeHub() as hub, FakeSite(1, "atom") as site:
            site.task.cancel()
            site.happen()
            site.hub = f"http://{hub.http.host}/"
            address = f"127.0.0.1:{unused_port}"
            given = {"callback": f"http://{address}/push", "listen": address, "poll_s": 300}
            reading = asyncio.create_task(read(site, store, 9000, **given))
            await asyncio.sleep(5)
            assert hub.challenges == [False, True]
            (form,) = hub.forms
            assert form["hub.topic"] == f"http://{site.http.host}/feed"
            assert form["hub.callback"].startswith(f"http://{address}/push/")
            assert len(form["hub.secret"]) == 64

            site.happen()
            polls = len(site.http.asked)
            assert await hub.push(site.document()[0]) == 202
            await asyncio.sleep(1)
            assert texts(store) == site.truth()
            assert len(site.http.asked) == polls  # it was not asked for

            forged = site.document()[0].replace("News", "Lies")
            assert await hub.push(forged, secret="guessed") == 202
            assert await hub.push("<html>", method="sha1") == 202
            await asyncio.sleep(1)
            assert texts(store) == site.truth()

            await asyncio.sleep(2900)
            assert len(hub.forms) == 2  # renewed before the lease ended
            assert len(site.http.asked) <= polls + 2
            feed = await reading
            assert feed.status().sources[0].bad_lines == 2

    run_virtually(main())


def test_the_states_of_a_subscription() -> None:
    subscription = Subscription("https://hub.example/", "https://a.b/feed", "https://me.example/x", "s" * 64)
    query = {
        "hub.mode": "subscribe",
        "hub.topic": "https://a.b/feed",
        "hub.challenge": "c",
        "hub.lease_seconds": "1000",
    }
    assert subscription.verify(query, START) == (404, "")  # nobody asked
    assert subscription.due(START)
    subscription.request(START)
    assert not subscription.due(START + 60)
    assert subscription.due(START + 3600)  # nothing came of it
    assert subscription.verify(query | {"hub.topic": "https://a.b/other"}, START) == (404, "")
    assert subscription.verify(query | {"hub.mode": "unsubscribe"}, START) == (404, "")
    assert subscription.verify(query, START) == (200, "c")
    assert subscription.verify(query, START) == (404, "")  # once
    assert (subscription.live(START + 999), subscription.live(START + 1000)) == (True, False)
    assert (subscription.due(START + 799), subscription.due(START + 800)) == (False, True)
    assert subscription.verify({"hub.mode": "denied", "hub.topic": "https://a.b/feed"}, START) == (200, "")
    assert not subscription.live(START)
    assert not subscription.proves_itself({"x-hub-signature": "md5=00"}, b"")
    assert not subscription.proves_itself({"x-hub-signature": "sha256=é"}, b"")


@pytest.mark.parametrize(
    ("hub", "feed", "right"),
    [
        ("https://hub.example/", "https://a.b/", True),
        ("http://127.0.0.1:9200/", "https://a.b/", False),
        ("http://169.254.169.254/latest", "https://a.b/", False),
        ("http://[::1]/", "https://a.b/", False),
        ("http://router/", "https://a.b/", False),
        ("file:///etc/passwd", "https://a.b/", False),
        ("http://127.0.0.1:1/", "http://127.0.0.1:2/feed", True),
    ],
)
def test_a_feed_cannot_make_us_post_to_our_own_network(hub: str, feed: str, right: bool) -> None:
    assert acceptable_hub(hub, feed) is right
