"""Mastodon by events and by WebSocket, against a server that does whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from fake_mastodon import TAGS, TOKEN, FakeMastodon
from hypothesis import given
from hypothesis import strategies as st
from loopback_http import Asked, LoopbackHttp
from plain_store import PlainStore
from virtual_time import START, VirtualClock, run_virtually

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSection, FeedSource
from gigafactory.feed import run as runner
from gigafactory.feed.mastodon import Mastodon
from gigafactory.feed.mastodon_payload import FAULTS, event_of, later
from gigafactory.feed.post import Delete, Post
from gigafactory.feed.run import Feed

STREAM_FAULTS = ("cut", "close", "stall", "garbage", "double", "long", "http 503")


@pytest.fixture(autouse=True)
def _seldom_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours pass here: every status would cost a thread."""
    monkeypatch.setattr(runner, "STATUS_S", 600.0)


async def read(
    server: FakeMastodon, store: PlainStore, scheme: str, seconds: float, token: str = TOKEN, **given: Any
) -> tuple[Feed, list[str]]:
    source = FeedSource(name="toots", kind="mastodon", url=f"{scheme}://{server.host}", token_env="T", **given)
    clock = VirtualClock()
    connector = Mastodon(source, clock, token)
    told: list[str] = []
    feed = Feed(FeedSection(sources=(source,)), store, clock, tell=told.append, connectors=[connector], real=clock)
    stop = asyncio.Event()
    running = asyncio.create_task(feed.run(stop, until_ended=True))
    await asyncio.wait([running], timeout=seconds)
    stop.set()
    await running
    server.doubt()
    return feed, told


def texts(store: PlainStore) -> dict[str, str]:
    return {id: post.text for (_, id), post in store.posts.items()}


CASES = [("http", (), 0), ("ws", TAGS, 0), ("http", TAGS, 1), ("ws", (), 1)]
MORE = [(scheme, tags, seed) for scheme in ("http", "ws") for tags in ((), TAGS) for seed in range(2, 25)]


@pytest.mark.parametrize(
    ("scheme", "tags", "seed"), CASES + [pytest.param(*case, marks=pytest.mark.slow) for case in MORE]
)
def test_nothing_written_is_missed_whatever_fails(scheme: str, tags: tuple[str, ...], seed: int) -> None:
    rng = random.Random(seed)
    faults = [(rng.choice(STREAM_FAULTS), rng.randrange(30)) for _ in range(4)]
    store = PlainStore()

    async def main() -> None:
        async with FakeMastodon(seed, scheme, faults, limited=2) as server:
            await asyncio.sleep(50)
            feed, told = await read(server, store, scheme, 40, rules=tags)
            await asyncio.sleep(rng.uniform(0, 60))  # nobody reads
            feed, more = await read(server, store, scheme, 300, rules=tags)
            assert not [line for line in told + more if "connected" not in line]
            assert feed.status().sources[0].state == "live", feed.status().sources[0].last_error
            # what was written before the first cursor was kept is not asked for
            first = min(post.created_at for post in store.posts.values())
            server.truth(texts(store), max(first, START + 90), tags)

    run_virtually(main())


def test_a_refused_token_ends_it_in_one_line_that_does_not_show_it() -> None:
    store = PlainStore()

    async def main() -> None:
        async with FakeMastodon(0, "http") as server:
            with pytest.raises(UserError) as error:
                await read(server, store, "http", 10, token="secret-but-wrong")
            assert "the server refuses: HTTP 401" in str(error.value)
            assert "secret-but-wrong" not in str(error.value)

    run_virtually(main())


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_a_gap_that_could_not_be_filled_is_filled_at_the_next_start(scheme: str) -> None:
    """While the timelines refuse, live posts are stored, but do not count as read up to."""
    store = PlainStore()

    async def main() -> None:
        async with FakeMastodon(4, scheme) as server:
            await read(server, store, scheme, 40)
            await asyncio.sleep(60)
            server.limited = 10**6
            had = len(store.posts)
            await read(server, store, scheme, 30)
            assert len(store.posts) > had
            server.limited = 0
            await read(server, store, scheme, 30)
            server.truth(texts(store), START + 40)

    run_virtually(main())


def test_no_redirect_takes_the_token_elsewhere() -> None:
    seen: list[str] = []

    async def main() -> None:
        async with FakeMastodon(0, "http") as server, LoopbackHttp(thief) as elsewhere:

            async def moved(asked: Asked) -> None:
                await asked.answer(301, "", Location=f"http://{elsewhere.host}{asked.path}")

            server.http.handle = moved
            feed, _ = await read(server, PlainStore(), "ws", 30)
            assert "HTTP 301 redirects to http" in feed.status().sources[0].last_error
            with pytest.raises(UserError, match="HTTP 404"):
                await read(server, PlainStore(), "http", 30)

    async def thief(asked: Asked) -> None:
        seen.append(asked.headers.get("authorization", ""))
        await asked.answer(404, "")

    run_virtually(main())
    assert seen
    assert set(seen) == {""}


def test_the_first_start_begins_now_and_the_next_where_it_ended() -> None:
    store = PlainStore()

    async def main() -> None:
        async with FakeMastodon(5) as server:
            await asyncio.sleep(300)
            await read(server, store, "ws", 1)
            first = json.loads(store.cursors["toots"])["public"]
            assert first in server.toots
            assert len(store.posts) < 5
            await asyncio.sleep(300)
            await read(server, store, "ws", 20)
            asked = [asked.query for asked in server.http.asked if "min_id" in asked.query]
            assert int(asked[0]["min_id"]) == int(first) - (60_000 << 16)

    run_virtually(main())


def status(**fields: Any) -> dict[str, Any]:
    account = {"id": "1", "acct": "ann", "noindex": False}
    base = {"id": "10", "created_at": "2026-11-22T10:00:00.000Z", "content": "<p>hi</p>", "account": account}
    return base | {"url": "https://here.example/10", "visibility": "public", "language": "en"} | fields


def event(kind: str, payload: object) -> Any:
    return event_of(kind, payload, "toots", "here.example", False, START)


def test_html_becomes_text() -> None:
    content = (
        "<p>First &lt;b&gt; <a href='x'><span class='invisible'>https://</span>a.b<span>/c</span></a><br>line</p>"
        "<p>Second<script>alert(1)</script> <img src=x onerror=alert(1)></p><ul><li>one<li>two</ul><style>p{}</style>"
    )
    post = event("update", json.dumps(status(content=content, spoiler_text="Warning")))
    assert post.text == "Warning\nFirst <b> https://a.b/c\nline\n\nSecond\n\none\ntwo"
    poll = {"options": [{"title": "yes"}, {"title": "no"}]}
    assert event("update", status(poll=poll)).text == "hi\n- yes\n- no"


def test_edits_deletes_and_authors_who_opt_out() -> None:
    first, second = event("update", status()), event("status.update", status(edited_at="2026-11-22T11:00:00Z"))
    assert first.rev < second.rev
    assert (first.author, first.created_at, first.seen_at) == ("ann@here.example", 1795341600.0, START)
    assert event("delete", "10") == Delete("toots", "10", START, "deleted by the author")
    hidden = status(account={"id": "1", "acct": "ann", "noindex": True})
    assert event("update", hidden) is None
    assert event("status.update", hidden) == Delete("toots", "10", START, "the author does not want to be found")
    assert event("update", status(visibility="unlisted")) is None
    assert event("update", status(reblog=status())) is None
    assert event("notification", "{}") is None
    quoting = status(in_reply_to_id="8", quote={"state": "accepted", "quoted_status": {"id": "7"}})
    assert event("update", quoting).refs == ("reply:8", "quote:7")
    assert event("update", status(url="javascript:alert(1)", uri="https://here.example/u")).url.endswith("/u")


def test_ids_grow_with_their_length() -> None:
    assert later("99", "100") == "100"
    assert later("", "9") == "9"
    assert later("AbK2", "AbJ9") == "AbK2"


@pytest.mark.parametrize("url", ["https://", "https://mastodon.social/about", "wss://x/?a=b"])
def test_a_wrong_address_is_named(url: str) -> None:
    with pytest.raises(UserError, match=r"^url: must be like https://mastodon\.social"):
        Mastodon(FeedSource(name="t", kind="mastodon", url=url, token_env="T"), VirtualClock(), "t")


def test_a_wrong_hashtag_is_named() -> None:
    source = FeedSource(name="t", kind="mastodon", url="https://a.b", token_env="T", rules=("two words",))
    with pytest.raises(UserError, match=r"^rules\[0\]: must be a hashtag, got 'two words'"):
        Mastodon(source, VirtualClock(), "t")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.sampled_from(["update", "status.update", "delete", "x"]),
    json_values | st.dictionaries(st.sampled_from(list(status())), json_values).map(lambda odd: status(**odd)),
)
def test_garbage_is_refused_in_good_order(kind: str, payload: object) -> None:
    try:
        understood = event(kind, json.dumps(payload))
    except FAULTS:
        return
    assert understood is None or isinstance(understood, Post | Delete)
