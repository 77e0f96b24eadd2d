"""Every connector against a server that sends garbage: none falls over or runs wild, each tells what it left out.

Seconds in the usual tests; minutes with the mark "slow".
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import tracemalloc
from dataclasses import astuple

import pytest
from hostile_server import HostileServer
from store_oracle import Oracle
from virtual_time import VirtualClock, run_virtually

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSource
from gigafactory.feed.connector import Batch, Connector
from gigafactory.feed.post import Event
from gigafactory.feed.sources import connect

TOKEN = "tokenoftheuser0123456789"
MOST_BYTES = 96 << 20
SESSIONS = {
    "x": ("x", "http://{}", "x", ("news",)),
    "jetstream": ("jetstream", "ws://{}", "jetstream", ()),
    "jetstream-2": ("jetstream", "ws://{}/xrpc/network.bsky.jetstream.subscribeEvents", "jetstream-2", ()),
    "mastodon-events": ("mastodon", "http://{}", "mastodon", ("news",)),
    "mastodon-socket": ("mastodon", "ws://{}", "mastodon", ("news",)),
    "feed": ("feed", "http://{}/feed", "feed", ()),
}


class Held(Oracle):
    def wrote(self, source: str, author_id: str) -> bool:
        return True


class Session:
    """One source and one hostile server for some virtual time."""

    def __init__(self, name: str, seed: int, session_s: float = 300.0) -> None:
        self.session_s = session_s
        self.kind, self.url, self.corpus, self.rules = SESSIONS[name]
        self.rng = random.Random(f"{name} {seed}")
        self.events = 0
        self.bad_lines = 0
        self.starts = 0
        self.asked = 0
        self.health_lines: set[str] = set()

    def run(self) -> None:
        run_virtually(self._main())

    async def _main(self) -> None:
        async with HostileServer(self.corpus, self.rng) as server:
            source = FeedSource(
                name="s", kind=self.kind, url=self.url.format(server.host), token_env="T", rules=self.rules, poll_s=5
            )
            store = Held()
            cursor: str | None = None

            async def emit(batch: Batch) -> None:
                nonlocal cursor
                for event in batch.events:
                    check(event)
                self.events += len(batch.events)
                store.apply(batch.events)
                for key in list(store.posts)[:-1000]:  # the store is not what is measured here
                    del store.posts[key]
                store.deletes, store.by_author, store.log = {}, {}, []
                cursor = batch.cursor if batch.cursor is not None else cursor

            loop = asyncio.get_running_loop()
            while loop.time() < self.session_s:
                connector = connect(source, "feed.sources[0]", VirtualClock(), {"T": TOKEN}, store)
                self.starts += 1
                told: str | None = None
                with contextlib.suppress(TimeoutError):
                    try:
                        async with asyncio.timeout(self.session_s - loop.time()):
                            await connector.run(emit, cursor)
                        told = "ended"
                    except UserError as error:
                        told = str(error)
                        assert told
                        assert TOKEN not in told
                        assert "\n" not in told
                        assert len(told) < 1000
                self._look_at(connector)
                if told is None:
                    break
                await asyncio.sleep(30)
                if self.rng.random() < 0.3:
                    cursor = self.rng.choice(["", "{", "[]", "null", "5", '{"version":1,"read_to":5}', "\ud800"])
            self.asked = len(server.asked)

    def _look_at(self, connector: Connector) -> None:
        health = connector.health
        self.bad_lines += health.bad_lines
        assert TOKEN not in repr(health)
        assert health.last_error.isprintable() or health.last_error == ""
        assert len(health.last_error) <= 300
        if health.bad_lines or health.reconnects:
            assert health.last_error
            assert health.last_error_at is not None


def check(event: Event) -> None:
    """What every store relies on."""
    for value in astuple(event):
        texts = value if isinstance(value, tuple) else (value,)
        for text in texts:
            if isinstance(text, str):
                text.encode()
                assert "\0" not in text
                assert len(text) < 5 << 20
            else:
                assert text is None or isinstance(text, bool | int | float)
    assert event.source == "s"


@pytest.mark.parametrize("name", SESSIONS)
def test_garbage_for_two_minutes_of_virtual_time(name: str) -> None:
    sessions = [Session(name, seed, 60.0) for seed in range(2)]
    for session in sessions:
        session.run()
        assert session.asked < 1000, "it runs wild"
    # garbage that is refused whole would show nothing
    assert sum(session.events for session in sessions) > 3
    assert sum(session.bad_lines for session in sessions) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SESSIONS)
def test_garbage_for_a_minute_of_real_time_in_bounded_memory(name: str) -> None:
    began, seed, bad_lines = time.monotonic(), 1000, 0
    tracemalloc.start()
    try:
        while time.monotonic() - began < 60:
            session = Session(name, seed)
            session.run()
            assert session.asked < 3000, "it runs wild"
            bad_lines += session.bad_lines
            seed += 1
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert bad_lines > 0
