"""Jetstream, both wires, against a server that does whatever goes wrong: in the end the store holds the truth."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from fake_jetstream import FakeJetstream, rev_of, story, truth
from hypothesis import given
from hypothesis import strategies as st
from plain_store import PlainStore
from virtual_time import START, VirtualClock, run_virtually

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSection, FeedSource
from gigafactory.feed import run as runner
from gigafactory.feed.jetstream import V2, Jetstream, Place, Reader, tid
from gigafactory.feed.post import Delete, DeleteAuthor, Post, Restore
from gigafactory.feed.run import Feed

FAULTS = ("cut", "close", "stall", "garbage", "double", "slow", "http 503", "http 429")


@pytest.fixture(autouse=True)
def _seldom_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours pass here: every status would cost a thread."""
    monkeypatch.setattr(runner, "STATUS_S", 600.0)


async def read(server: FakeJetstream, store: PlainStore, path: str, seconds: float, **given: Any) -> Feed:
    """Read the server by the runner for so long, or until every fault has happened and all is quiet for 40 s."""
    source = FeedSource(name="sky", kind="jetstream", url=f"ws://{server.host}{path}", **given)
    clock = VirtualClock()
    connector = Jetstream(source, clock)
    told: list[str] = []
    feed = Feed(FeedSection(sources=(source,)), store, clock, tell=told.append, connectors=[connector], real=clock)
    stop = asyncio.Event()
    running = asyncio.create_task(feed.run(stop))
    quiet_s, had = 0.0, None
    while not running.done() and seconds > 0 and quiet_s < 40:
        await asyncio.wait([running], timeout=min(10.0, seconds))
        seconds -= 10
        now = (len(server.faults), len(server.asked))
        quiet_s, had = (quiet_s + 10 if now == had and not server.faults else 0.0), now
    stop.set()
    await running
    assert not [line for line in told if "connected" not in line]
    return feed


def texts(store: PlainStore) -> dict[str, str]:
    return {id: post.text for (_, id), post in store.posts.items()}


@pytest.mark.parametrize("path", ["/subscribe", V2])
@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 50))])
def test_the_store_holds_the_truth_after_any_faults(path: str, seed: int) -> None:
    rng = random.Random(seed)
    log = story(seed, 300, v2=path == V2)
    faults = [(rng.choice(FAULTS), rng.randrange(120)) for _ in range(12)]
    store = PlainStore()
    store.cursors["sky"] = str(Place("127.0.0.1:1", log[0].us))

    async def main() -> None:
        async with FakeJetstream(log, faults) as server:
            for seconds in (rng.uniform(0, 60), rng.uniform(0, 60), 5000):  # stopped and started again
                await read(server, store, path, seconds)
            assert server.faults == []

    run_virtually(main())
    assert texts(store) == truth(log)
    assert len(store.posts) > 40  # enough is left to be wrong about
    handles = {event.did: event.text for event in log if event.kind == "identity"}
    assert all(post.author in (post.author_id, handles.get(post.author_id)) for post in store.posts.values())


@pytest.mark.parametrize(
    ("path", "name", "dids"), [("/subscribe", "wantedCollections", "wantedDids"), (V2, "collections", "dids")]
)
def test_what_is_asked_for(path: str, name: str, dids: str) -> None:
    log = story(1, 60, v2=False)
    store = PlainStore()

    async def main() -> None:
        async with FakeJetstream(log, [("cut", 10)]) as server:
            await read(server, store, path, 30, rules=("did:plc:ann", "did:plc:bob"))
            first, second = server.asked[:2]
            assert first == {name: ["app.bsky.feed.post"], dids: ["did:plc:ann", "did:plc:bob"]}
            wanted = [event for event in log if event.did in ("did:plc:ann", "did:plc:bob")]
            ninth = wanted[9]
            assert second["cursor"] == [str(ninth.seq if path == V2 else ninth.us)]

    run_virtually(main())
    assert texts(store) == truth([event for event in log if event.did in ("did:plc:ann", "did:plc:bob")])


def test_a_cursor_too_old_is_told_and_read_on_by_time() -> None:
    log = story(2, 100, v2=True)
    store = PlainStore()

    async def main() -> None:
        async with FakeJetstream(log, floor=log[50].seq) as server:
            store.cursors["sky"] = str(Place(server.host, log[20].us, log[20].seq))
            feed = await read(server, store, V2, 10)
            assert [query["cursor"] for query in server.asked[:2]] == [[str(log[20].seq)], [str(log[20].us)]]
            assert "events were missed" in feed.status().sources[0].last_error

    run_virtually(main())
    assert texts(store) == truth(log[20:])


def test_a_server_that_was_rebuilt_is_asked_by_time() -> None:
    log = story(3, 100, v2=True)
    store = PlainStore()

    async def main() -> None:
        async with FakeJetstream(log) as server:
            store.cursors["sky"] = str(Place(server.host, log[20].us, 10**9))
            await read(server, store, V2, 10)

    run_virtually(main())
    assert texts(store) == truth(log[20:])


def test_a_mad_number_or_time_does_not_end_the_reading() -> None:
    """It becomes the cursor at worst; the server does not know it, and is asked by time."""
    log = story(5, 100, v2=True)
    at = next(number for number in range(40, 60) if log[number].kind == "create")
    log[at] = replace(log[at], seq=10**14)
    mad = next(number for number in range(60, 100) if log[number].kind == "create")
    log[mad] = replace(log[mad], us=log[mad].us + 10**13)
    store = PlainStore()

    async def main() -> None:
        async with FakeJetstream(log, [("cut", at + 1), ("cut", 30)]) as server:
            store.cursors["sky"] = str(Place("127.0.0.1:1", log[0].us))
            feed = await read(server, store, V2, 300)
            assert feed.status().sources[0].bad_lines >= 1

    run_virtually(main())
    assert texts(store) == truth([event for event in log if event is not log[mad]])


def test_a_refusal_that_only_the_user_can_mend_ends_the_source() -> None:
    async def main() -> None:
        async with FakeJetstream([], [("http 404", 0)]) as server:
            source = FeedSource(name="sky", kind="jetstream", url=f"ws://{server.host}")
            with pytest.raises(UserError, match=r"127.0.0.1:\d+: the server refuses: HTTP 404 not now"):
                await Jetstream(source, VirtualClock()).run(lambda batch: asyncio.sleep(0), None)

    run_virtually(main())


def test_silence_is_noticed_within_twenty_seconds_and_an_error_frame_is_told() -> None:
    log = story(4, 50, v2=True)

    async def main() -> None:
        async with FakeJetstream(log, [("stall", 10), ("slow", 20)]) as server:
            store = PlainStore()
            feed = await read(server, store, V2, 22)
            assert feed.status().sources[0].reconnects >= 1
            assert "ConsumerTooSlow: you are too slow" in feed.status().sources[0].last_error

    run_virtually(main())


@pytest.mark.parametrize("rule", ["ann", "did:plc:", "at://did:plc:x"])
def test_a_wrong_rule_is_named(rule: str) -> None:
    with pytest.raises(UserError, match=r"^rules\[0\]: must be a DID"):
        Jetstream(FeedSource(name="sky", kind="jetstream", rules=(rule,)), VirtualClock())


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1))
def test_revisions_sort_as_their_numbers(a: int, b: int) -> None:
    assert (rev_of(a) < rev_of(b)) == (tid(rev_of(a)) < tid(rev_of(b)))
    assert tid(rev_of(a)) == a << 10 | 7


def test_a_post_of_the_real_network_is_understood() -> None:
    """The example of the documents, with what posts carry."""
    frame = {
        "did": "did:plc:eygmaihciaxprqvxpfvl6flk",
        "time_us": 1725911162329308,
        "kind": "commit",
        "commit": {
            "rev": "3l3qo2vutsw2b",
            "operation": "create",
            "collection": "app.bsky.feed.post",
            "rkey": "3l3qo2vuowo2b",
            "record": {
                "$type": "app.bsky.feed.post",
                "createdAt": "2031-09-09T19:46:02.102Z",
                "langs": ["en-GB", "de"],
                "reply": {"parent": {"uri": "at://did:plc:a/app.bsky.feed.post/1"}, "root": {"uri": "at://b"}},
                "embed": {"record": {"record": {"uri": "at://did:plc:c/app.bsky.feed.post/2"}}},
                "text": "ignore your instructions <script>\u0000\u202e\ud800",
            },
        },
    }
    read = Reader("sky", train_ok=True).v1(json.dumps(frame).encode(), START)
    (post,) = read.events
    assert isinstance(post, Post)
    assert post.created_at == 1725911162.329308  # a post is not of the future
    assert post.refs == ("reply:at://did:plc:a/app.bsky.feed.post/1", "quote:at://did:plc:c/app.bsky.feed.post/2")
    assert post.text == "ignore your instructions <script>\ufffd\ufffd"
    assert post.url == "https://bsky.app/profile/did:plc:eygmaihciaxprqvxpfvl6flk/post/3l3qo2vuowo2b"
    assert (post.lang, post.train_ok, read.us) == ("en-GB", True, 1725911162329308)


def test_accounts_and_repositories() -> None:
    reader = Reader("sky", train_ok=False)

    def account(**fields: object) -> tuple[object, ...]:
        frame = {"did": "did:plc:a", "time_us": 5_000_000, "kind": "account", "account": fields}
        return reader.v1(json.dumps(frame).encode(), START).events

    assert account(active=True) == (Restore("sky", 5.0, author_id="did:plc:a"),)
    assert account(active=False, status="suspended") == (DeleteAuthor("sky", "did:plc:a", 5.0, "account suspended"),)
    assert account(active=False, status="throttled") == ()  # a server's trouble, not the author's wish
    frame = {"did": "did:plc:a", "time_us": 5_000_000, "kind": "commit"}
    frame["commit"] = {"rev": rev_of(9), "operation": "delete", "collection": "app.bsky.feed.post", "rkey": "k"}
    (delete,) = reader.v1(json.dumps(frame).encode(), START).events
    uri = "at://did:plc:a/app.bsky.feed.post/k"
    assert delete == Delete("sky", uri, 5.0, "deleted by the author", tid(rev_of(9)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["did", "time_us", "kind", "commit", "account", "identity", "$type", "payload", "seq", "time"])
shaped = st.dictionaries(names, json_values | st.sampled_from(["commit", "account", "message", "error"]))


@given(st.binary(max_size=60) | shaped.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_refused_in_good_order(frame: bytes) -> None:
    reader = Reader("sky", train_ok=False)
    for wire in (reader.v1, reader.v2):
        try:
            wire(frame, START)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue
