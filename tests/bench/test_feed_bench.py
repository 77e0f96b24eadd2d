"""The benchmark of the stores makes the posts that it says, and measures what it did."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import feed  # noqa: E402
from feed_posts import ACCENTED, JAPANESE, WORDS_MEAN, Made  # noqa: E402

from gigafactory.feed.sqlite import SqliteStore  # noqa: E402
from gigafactory.feed.words import words  # noqa: E402


def test_made_posts_are_the_same_for_a_seed_and_as_told() -> None:
    made = Made(1).posts(range(3000))
    assert made == Made(1).posts(range(3000))
    assert len({post.id for post in made}) == 3000
    foreign = [not post.text.isascii() for post in made]
    assert sum(foreign) / 3000 == pytest.approx(ACCENTED + JAPANESE, abs=0.04)
    counts = [len(words(post.text)) for post in made if post.text.isascii()]
    assert sum(counts) / len(counts) == pytest.approx(WORDS_MEAN, rel=0.03)


def test_what_it_tells_is_of_a_store_that_it_filled(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "posts.db", write=True)
    told = feed.ingest(store, Made(1), 2000, until=1.79e9)
    assert told["posts"] == store.held().posts == 2000
    assert told["posts_per_s"] > 0
    assert told["bytes"] == store.held().bytes
    queries = feed.random_queries(store, 30, seed=1)
    assert all(2 <= len(query) <= 3 for query in queries)
    searched = feed.search(store, 30)
    assert {match: found["count"] for match, found in searched.items()} == dict.fromkeys(
        ("any", "any_cpu", "all", "all_cpu"), 30
    )
    store.close()


def test_milliseconds() -> None:
    assert feed.milliseconds([0.001] * 99 + [0.101]) == {"p50_ms": 1.0, "p99_ms": 2.0, "max_ms": 101.0, "count": 100}
