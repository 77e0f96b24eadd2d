"""The runner: what a connector emitted is stored once it can be, with its cursor, in order; failures cost one line."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_store import PlainStore
from virtual_time import START, VirtualClock, run_virtually

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSection, FeedSource, StoreSection
from gigafactory.feed import run as runner
from gigafactory.feed.connector import Batch, Emit, Health
from gigafactory.feed.post import Delete, Post
from gigafactory.feed.run import Feed
from gigafactory.feed.status import read_status

Script = Callable[["Scripted", Emit, str | None], Awaitable[None]]


def post(source: str, number: int, at: float = START) -> Post:
    return Post(source, str(number), 1, "ann", "1", at, at + 1, f"post {number}")


class Scripted:
    """A connector that does what a function says."""

    def __init__(self, name: str, script: Script) -> None:
        self.name, self.script, self.health = name, script, Health()
        self.began: list[str | None] = []

    async def run(self, emit: Emit, cursor: str | None) -> None:
        self.began.append(cursor)
        self.health.connected = True
        await self.script(self, emit, cursor)


def counting(count: int, *, pause_s: float = 0.0, step: int = 1) -> Script:
    """Emits posts 0, 1, ..., from the cursor on; the cursor is the next number."""

    async def script(connector: Scripted, emit: Emit, cursor: str | None) -> None:
        for first in range(int(cursor or 0), count, step):
            numbers = range(first, min(first + step, count))
            await asyncio.sleep(pause_s)
            at = VirtualClock().now()
            await emit(Batch(tuple(post(connector.name, n, at) for n in numbers), str(numbers[-1] + 1)))
            connector.health.posts += len(numbers)

    return script


async def forever(connector: Scripted, emit: Emit, cursor: str | None) -> None:
    await asyncio.sleep(1e9)


def feed_of(
    store: PlainStore, *connectors: Scripted, status: Path | None = None, **settings: float
) -> tuple[Feed, list[str]]:
    section = FeedSection(
        sources=tuple(FeedSource(name=connector.name, kind="jetstream") for connector in connectors),
        store=StoreSection(**settings),
    )
    told: list[str] = []
    clock = VirtualClock()
    feed = Feed(section, store, clock, tell=told.append, connectors=connectors, real=clock, status_path=status)
    return feed, told


def test_everything_is_stored_in_order_with_its_cursor() -> None:
    store = PlainStore()
    two = (Scripted("a", counting(1000, step=7)), Scripted("b", counting(300)))

    async def main() -> list[str]:
        feed, told = feed_of(store, *two)
        await feed.run(asyncio.Event(), until_ended=True)
        assert [source.state for source in feed.status().sources] == ["ended", "ended"]
        return told

    assert run_virtually(main()) == []
    assert set(store.posts) == {("a", str(n)) for n in range(1000)} | {("b", str(n)) for n in range(300)}
    assert store.cursors == {"a": "1000", "b": "300"}


def test_a_post_after_a_pause_is_stored_at_once_and_a_burst_twice_in_commit_s() -> None:
    at: list[float] = []

    class Timed(PlainStore):
        def apply(self, events, cursors=None):  # type: ignore[no-untyped-def]
            at.append(clock.now() - START)
            return super().apply(events, cursors)

    store = Timed()
    clock = VirtualClock()

    async def script(connector: Scripted, emit: Emit, cursor: str | None) -> None:
        await asyncio.sleep(1.0)
        for number in range(100):
            await emit(Batch((post("a", number),), str(number)))
            await asyncio.sleep(0.01)

    async def main() -> None:
        nonlocal clock
        loop = asyncio.get_running_loop()
        clock = type("Fixed", (), {"now": lambda self: START + loop.time()})()
        feed, _ = feed_of(store, Scripted("a", script), commit_s=0.1)
        await feed.run(asyncio.Event(), until_ended=True)

    run_virtually(main())
    assert at[0] == pytest.approx(1.0)
    gaps = [later - sooner for sooner, later in pairwise(at[:-1])]
    assert gaps
    assert all(gap == pytest.approx(0.05, abs=0.011) for gap in gaps)
    assert len(store.posts) == 100


def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "QUEUED", 50)
    monkeypatch.setattr(runner, "COMMITTED", 20)
    store = PlainStore()
    most = 0

    async def main() -> None:
        nonlocal most
        feed, _ = feed_of(store, Scripted("a", counting(2000, step=10)))
        store.fails = ["posts.db: cannot write: the disk is full"] * 3

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, feed.status().queued)
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        await feed.run(asyncio.Event(), until_ended=True)
        watching.cancel()

    run_virtually(main())
    assert len(store.posts) == 2000
    assert 50 <= most <= 60
    assert 0 < min(store.batches) <= max(store.batches) <= 20


def test_a_full_store_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    store = PlainStore()
    store.fails = ["posts.db: cannot write: the disk is full"] * 5

    async def main() -> list[str]:
        feed, told = feed_of(store, Scripted("a", counting(100, pause_s=0.05)), status=tmp_path / "status.json")
        running = asyncio.create_task(feed.run(asyncio.Event(), until_ended=True))
        await asyncio.sleep(4)
        status = read_status(tmp_path / "status.json")
        assert status is not None
        assert status.store_error == "posts.db: cannot write: the disk is full"
        assert status.sources[0].state == "waiting"
        await running
        return told

    told = run_virtually(main())
    assert told[0] == "posts.db: cannot write: the disk is full; the feed waits and tries again, nothing read is lost"
    assert told[1].startswith("the store takes posts again")
    assert len(told) == 2
    assert len(store.posts) == 100
    status = read_status(tmp_path / "status.json")
    assert status is not None
    assert (status.state, status.store_error, status.posts) == ("stopped", "", 100)


def test_stopped_while_the_store_is_full_the_next_start_reads_it_again() -> None:
    store = PlainStore()
    connector = Scripted("a", counting(10, pause_s=1.0))

    async def main(fails: int) -> list[str]:
        store.fails = ["posts.db: cannot write: the disk is full"] * fails
        feed, told = feed_of(store, connector)
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(3.5, stop.set)
        await feed.run(stop)
        return told

    told = run_virtually(main(1000))
    assert told[-1].endswith("3 events read are not stored: they are read again at the next start")
    assert (store.posts, store.cursors) == ({}, {})
    assert run_virtually(main(0)) == []
    assert set(store.posts) == {("a", str(n)) for n in range(3)}
    assert store.cursors == {"a": "3"}


def test_a_source_that_fails_for_good_is_told_and_the_others_go_on() -> None:
    store = PlainStore()

    async def refused(connector: Scripted, emit: Emit, cursor: str | None) -> None:
        raise UserError("the token is refused (HTTP 401)")

    async def main() -> list[str]:
        feed, told = feed_of(store, Scripted("bad", refused), Scripted("good", counting(50)))
        await feed.run(asyncio.Event(), until_ended=True)
        assert [source.state for source in feed.status().sources] == ["failed", "ended"]
        return told

    assert run_virtually(main()) == ["bad: the token is refused (HTTP 401)"]
    assert len(store.posts) == 50

    async def alone() -> None:
        feed, _ = feed_of(store, Scripted("bad", refused))
        await feed.run(asyncio.Event(), until_ended=True)

    with pytest.raises(UserError, match="every source has failed; the first: the token is refused"):
        run_virtually(alone())


def test_a_fault_of_a_connector_is_retried_from_the_committed_cursor() -> None:
    store = PlainStore()
    inner = counting(20, pause_s=0.2)

    async def faulty(connector: Scripted, emit: Emit, cursor: str | None) -> None:
        if len(connector.began) < 3:
            async with asyncio.timeout(1.1):
                await inner(connector, emit, cursor)
        await inner(connector, emit, cursor)

    connector = Scripted("a", faulty)

    async def main() -> list[str]:
        feed, told = feed_of(store, connector, Scripted("b", counting(50)))
        await feed.run(asyncio.Event(), until_ended=True)
        return told

    told = run_virtually(main())
    assert connector.began == [None, "5", "10"]
    ends = [line.rpartition("; ")[2] for line in told]
    assert ends == ["it starts again in 5 s", "it starts again in 10 s", "a: connected again"]
    assert "TimeoutError" in told[0]
    assert len(store.posts) == 70


def test_purge_retention_and_the_status_of_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "STATUS_S", 60.0)
    store = PlainStore()

    async def script(connector: Scripted, emit: Emit, cursor: str | None) -> None:
        for number in range(300):
            at = VirtualClock().now()
            await emit(Batch((Post("a", str(number), 1, "ann", "1", at - 2.0, at - 0.5, "x"),), str(number)))
            await asyncio.sleep(0.2)
        await emit(Batch((Delete("a", "0", VirtualClock().now()),)))
        await asyncio.sleep(1e9)

    async def main() -> None:
        feed, told = feed_of(store, Scripted("a", script), purge_s=60.0, retention_days=1.0, commit_s=0.05)
        stop = asyncio.Event()
        running = asyncio.create_task(feed.run(stop))
        await asyncio.sleep(59.9)
        status = feed.status()
        assert status.posts_per_s == pytest.approx(5, rel=0.07)
        (source,) = status.sources
        assert source.source_delay_p50_s == pytest.approx(1.5)
        assert source.searchable_p99_s == pytest.approx(2.05, abs=0.06)
        await asyncio.sleep(40)  # the delete came at 60 s
        assert store.waiting == 0
        await asyncio.sleep(1200)
        assert feed.status().posts_per_s == 0.0
        assert feed.status().searchable_p99_s is None
        stop.set()
        await running
        assert told == []

    run_virtually(main())
    assert store.purges == pytest.approx(1300 / 30, abs=2)
    assert [at - START + 86_400 for at in store.retained] == pytest.approx([600.0 * n for n in range(3)], abs=1)


def test_a_source_that_is_away_is_one_line_and_one_when_it_is_back() -> None:
    async def script(connector: Scripted, emit: Emit, cursor: str | None) -> None:
        for connected, seconds in ((True, 60), (False, 1), (True, 60), (False, 600), (True, 60)):
            connector.health.connected = connected
            if not connected:
                connector.health.error("server.example: the connection broke", START)
            await asyncio.sleep(seconds)

    async def main() -> list[str]:
        feed, told = feed_of(PlainStore(), Scripted("a", script))
        await feed.run(asyncio.Event(), until_ended=True)
        return told

    assert run_virtually(main()) == [
        "a: not connected (server.example: the connection broke); it is tried again and again",
        "a: connected again",
    ]


def test_heartbeats_take_no_transaction_but_their_cursor_is_kept() -> None:
    store = PlainStore()

    async def script(connector: Scripted, emit: Emit, cursor: str | None) -> None:
        await emit(Batch((post("a", 1),), "one"))
        for beat in range(50):
            await asyncio.sleep(20)
            await emit(Batch((), f"beat {beat}"))
        await asyncio.sleep(1e9)

    async def main() -> None:
        feed, _ = feed_of(store, Scripted("a", script))
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(2000, stop.set)
        await feed.run(stop)

    run_virtually(main())
    assert store.batches == [1, 0]
    assert store.cursors == {"a": "beat 49"}


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_exactly_once_whatever_happens(seed: int) -> None:
    """Stops, faults and a store that fails at any time: in the end every post is there, and no cursor is ahead."""
    rng = random.Random(seed)
    store = PlainStore()
    inner = counting(60, pause_s=0.01, step=4)

    async def moody(connector: Scripted, emit: Emit, cursor: str | None) -> None:
        async def checked(batch: Batch) -> None:
            await emit(batch)
            if rng.random() < 0.1:
                raise OSError("broken")

        await inner(connector, checked, cursor)

    async def main() -> None:
        store.fails = ["full"] * rng.choice([0, 0, 3, 100])
        feed, _ = feed_of(store, Scripted("a", moody), Scripted("b", moody), commit_s=0.02)
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(rng.uniform(0, 30), stop.set)
        await feed.run(stop, until_ended=True)
        for name in "ab":
            read = int(store.cursors.get(name, 0))
            assert {id for source, id in store.posts if source == name} >= {str(n) for n in range(read)}

    for _ in range(40):
        run_virtually(main())
        if len(store.posts) == 120 and store.cursors == {"a": "60", "b": "60"}:
            return
    raise AssertionError("it never came to an end")
