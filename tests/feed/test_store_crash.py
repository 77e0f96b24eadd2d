"""A writer killed at any moment, on both stores; PostgreSQL's server, too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres_server import Postgres
from store_kinds import Kind
from store_oracle import Oracle

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import feed_kill  # noqa: E402

from gigafactory.feed.post import Delete  # noqa: E402
from gigafactory.feed.store import Query  # noqa: E402


def test_what_must_be_there_is_what_the_batches_say() -> None:
    oracle = Oracle()
    for number in range(60):
        assert {post.id: post.rev for post in oracle.posts.values()} == feed_kill.expected(number)
        oracle.apply(feed_kill.batch(number))


def test_the_check_sees_what_is_lost_doubled_or_wrong(kind: Kind) -> None:
    with kind.opened() as store:
        for number in range(5):
            store.apply(feed_kill.batch(number), {"x": str(number)})
        assert feed_kill.check(store, 4) == feed_kill.Round(5, 5, 0, 0, 0)
        assert feed_kill.check(store, 5).lost == 1, "a batch was acknowledged and is not there"
        store.apply([Delete("x", "4-7", 0.0)])
        broken = feed_kill.check(store, 4)
        assert broken.lost == 1
        assert broken.wrong > 0


@pytest.mark.alone
def test_a_killed_writer_loses_nothing_and_doubles_nothing(kind: Kind, request: pytest.FixtureRequest) -> None:
    _rounds(kind, request, 3)


@pytest.mark.slow
@pytest.mark.alone
def test_fifty_killed_writers_lose_nothing_and_double_nothing(kind: Kind, request: pytest.FixtureRequest) -> None:
    _rounds(kind, request, 50)


def _rounds(kind: Kind, request: pytest.FixtureRequest, count: int) -> None:
    also_kill: Callable[[], None] | None = None
    if kind.url is not None:
        server: Postgres = request.getfixturevalue("postgres")

        def also_kill() -> None:
            server.kill()
            server.start()

    results = feed_kill.rounds(kind.full_url, count, seed=count, also_kill=also_kill, last_s=0.3)
    found = feed_kill.summary(results)
    assert found["acknowledged_posts_lost"] == found["posts_duplicated"] == found["posts_wrong"] == 0, results
    assert found["batches"] > count
    with kind.opened() as store:  # it goes on as if nothing had been
        store.apply(feed_kill.batch(found["batches"]), {"x": str(found["batches"])})
        assert store.search(Query((f"batch{found['batches']}",))).posts
