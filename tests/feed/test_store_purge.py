"""After a purge the words of a deleted post are in no file of the store. The files are searched, byte by byte."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import Postgres
from store_kinds import Kind

from gigafactory.feed.post import Delete, DeleteAuthor, Post
from gigafactory.feed.store import Query, Store

T0 = 1_700_000_000.0
DELETED, OF_AUTHOR, EDITED, OLD = "xylophonquarz", "zebrafinkwolke", "yaktrommelbaum", "vulkanpudelmond"
LONG, JAPANESE = "walnusskaiser", "鸞龍亀"


def posts() -> list[Post]:
    """Some hundreds of parts' worth of ordinary posts, and those that will go."""
    words = random.Random(1)
    vocabulary = [f"word{i}" for i in range(500)]
    ordinary = [
        Post("x", f"{i}", 1, f"user{i % 9}", f"u{i % 9}", T0 + i, T0 + i, " ".join(words.choices(vocabulary, k=15)))
        for i in range(600)
    ]
    kept_short = "x" * 20
    special = [
        Post("x", "deleted", 1, "anna", "a", T0 + 100.5, T0, f"hello {DELETED} {kept_short}", url=f"https://{DELETED}"),
        Post("x", "long", 1, "anna", "a", T0 + 101.5, T0, " ".join(f"{LONG}{i}" for i in range(3000))),
        Post("x", "japanese", 1, "anna", "a", T0 + 102.5, T0, JAPANESE * 3),
        Post("x", "author", 1, OF_AUTHOR, "b", T0 + 300.5, T0, f"{OF_AUTHOR} said so", refs=(f"quote:{OF_AUTHOR}",)),
        Post("x", "edited", 1, "cora", "c", T0 + 500.5, T0, f"first {EDITED}"),
        Post("x", "old", 1, "dora", "d", T0 - 9e6, T0, OLD),
    ]
    return sorted([*ordinary, *special], key=lambda post: post.created_at)


@pytest.fixture
def store(kind: Kind, parts_of_100: None) -> Iterator[Store]:
    store = kind.open()
    everything = posts()
    for start in range(0, len(everything), 50):
        store.apply(everything[start : start + 50])
    yield store
    store.close()


@pytest.fixture
def folder(kind: Kind, request: pytest.FixtureRequest) -> Path:
    """Of all files of the store."""
    if kind.url is None:
        assert kind.folder is not None
        return kind.folder
    server: Postgres = request.getfixturevalue("postgres")
    return server.data


def files_with(folder: Path, *texts: str) -> dict[str, list[str]]:
    """Which files hold which of the texts, in UTF-8."""
    found: dict[str, list[str]] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # the server made away with it meanwhile
                continue
            for text in texts:
                if text.encode() in content:
                    found.setdefault(text, []).append(str(path.relative_to(folder)))
    return found


def delete_all(store: Store) -> int:
    applied = store.apply(
        [
            Delete("x", "deleted", T0),
            Delete("x", "long", T0),
            Delete("x", "japanese", T0),
            DeleteAuthor("x", "b", T0),
            Post("x", "edited", 2, "cora", "c", T0 + 500.5, T0, "second words"),
        ]
    )
    assert (applied.deleted, applied.revised) == (4, 1)
    assert store.retain(T0 - 1e6) == 1
    return 6


def test_after_a_purge_no_file_holds_what_was_deleted(store: Store, folder: Path) -> None:
    all_words = (DELETED, OF_AUTHOR, EDITED, OLD, f"{LONG}1234", JAPANESE[:2])
    assert set(files_with(folder, *all_words)) >= {DELETED, OF_AUTHOR, EDITED, OLD}, "the search of files finds them"
    gone = delete_all(store)
    for word in all_words:
        assert store.search(Query((word,))).posts == (), "no longer searchable at once"
    assert store.held().waiting == gone
    assert store.purge() == gone
    assert files_with(folder, *all_words) == {}
    assert store.held().waiting == 0
    assert len(store.search(Query(limit=1000)).posts) == 601, "and nothing else is gone"
    assert store.search(Query(("word7",), limit=1000)).posts
    assert store.purge() == 0


def test_a_purge_between_other_batches_takes_what_was_deleted_before(store: Store, folder: Path) -> None:
    for round_ in range(3):
        word = f"{DELETED}{round_}"
        store.apply([Post("x", f"r{round_}", 1, "e", "e", T0 + 700 + round_, T0 + 700, f"now {word}")])
        store.apply([Delete("x", f"r{round_}", T0)])
        store.apply([Post("x", f"more{round_}", 1, "e", "e", T0 + 700 + round_, T0 + 700, "more")])
        assert store.purge() == 1
        assert files_with(folder, word) == {}


def test_a_purge_waits_for_readers_and_says_if_it_could_not(
    store: Store, kind: Kind, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gigafactory.feed.sqlite._CHECKPOINT_TRIES", 2)
    monkeypatch.setattr("gigafactory.feed.postgres._SNAPSHOT_TRIES", 2)
    with kind.old_snapshot():
        store.apply([Delete("x", "deleted", T0)])
        assert store.purge() == 0
        assert store.held().waiting == 1
    assert store.purge() == 1
    assert files_with(folder, DELETED) == {}
