"""Both stores against plain dictionaries, over random histories."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from store_kinds import Kind
from store_oracle import Oracle

from gigafactory.feed.post import EVERY_REVISION, Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.store import Query

SOURCES, IDS, OTHERS, AUTHORS = ("x", "y"), ("1", "2", "3", "4"), ("1", "o1", "o2"), ("a", "b", "c")
TEXTS = ("red fox", "Red", "blue FOX, 8-5", "green", "")
TIMES = tuple(1000.0 + t for t in (0, 0.0004, 0.0006, 0.5, 1, 9, 11, 11, 25, 38.9991, 38.9994))
sources, ids = st.sampled_from(SOURCES), st.sampled_from(IDS)

posts = st.builds(
    lambda source, id, rev, author, created_at, text, also, train_ok: Post(
        source, id, rev, author.upper(), author, created_at, created_at + 1, text, "u", "en", also, (), train_ok
    ),
    sources, ids, st.integers(0, 3), st.sampled_from(AUTHORS), st.sampled_from(TIMES), st.sampled_from(TEXTS),
    st.lists(st.sampled_from(OTHERS), max_size=2, unique=True).map(tuple), st.booleans(),
)  # fmt: skip
deletes = st.builds(
    Delete, sources, ids | st.sampled_from(OTHERS), st.sampled_from(TIMES), st.just("deleted"),
    st.sampled_from((EVERY_REVISION, 1, 2)),
)  # fmt: skip
authors_gone = st.builds(DeleteAuthor, sources, st.sampled_from(AUTHORS), st.sampled_from(TIMES))
restores = st.builds(Restore, sources, st.just(1.0), ids | st.sampled_from(OTHERS)) | st.builds(
    Restore, sources, st.just(1.0), st.none(), st.sampled_from(AUTHORS)
)
events = st.one_of(posts, posts, posts, posts, deletes, authors_gone, restores)
some_words = st.lists(st.sampled_from(("fox", "RED", "8-5", "blue", "no", "?")), max_size=3).map(tuple)
some_authors = st.lists(st.sampled_from(("a", "@B")), max_size=1).map(tuple)
queries = st.builds(
    Query, some_words, st.sampled_from(("any", "all")), st.none() | st.sampled_from(TIMES),
    st.none() | st.sampled_from(TIMES), some_authors, some_authors,
    st.lists(sources, max_size=1).map(tuple), st.sampled_from((1, 2, 3, 300)),
)  # fmt: skip


def machine(kind: Kind) -> type[RuleBasedStateMachine]:
    class StoreMachine(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.folder = tempfile.TemporaryDirectory()
            self.kind = kind.fresh(Path(self.folder.name))
            self.store = self.kind.open(part_s=10.0)
            self.oracle = Oracle()

        @rule(batch=st.lists(events, min_size=1, max_size=6), cursor=st.none() | st.integers(0, 99).map(str))
        def apply(self, batch: Sequence[Event], cursor: str | None) -> None:
            cursors = {} if cursor is None else {"x": cursor}
            assert self.store.apply(batch, cursors) == self.oracle.apply(batch, cursors)

        @rule(queries=st.lists(queries, min_size=1, max_size=4))
        def search(self, queries: list[Query]) -> None:
            for query in queries:
                assert self.store.search(query) == self.oracle.search(query), query

        @rule(after=st.sampled_from(TIMES))
        def retain(self, after: float) -> None:
            assert self.store.retain(after) == self.oracle.retain(after)

        @rule()
        def purge(self) -> None:
            waiting = self.store.held().waiting
            assert self.store.purge() == waiting
            assert self.store.held().waiting == 0

        @rule()
        def reopen(self) -> None:
            self.store.close()
            self.store = self.kind.open(part_s=10.0)

        @invariant()
        def same(self) -> None:
            store, oracle = self.store, self.oracle
            for source in SOURCES:
                for id in {*IDS, *OTHERS}:
                    assert store.get(source, id) == oracle.get(source, id)
                    assert store.gone(source, id) == oracle.gone(source, id)
                for author in AUTHORS:
                    wrote = any((post.source, post.author_id) == (source, author) for post in oracle.posts.values())
                    assert store.wrote(source, author) == wrote
            assert store.search(Query()) == oracle.search(Query())
            assert store.cursor("x") == oracle.cursors.get("x")
            assert _unordered(store.changes(0)) == _unordered(oracle.log)
            held = store.held()
            newest = max((post.created_at for post in oracle.posts.values()), default=None)
            assert (held.posts, held.serial, held.newest_created_at) == (len(oracle.posts), len(oracle.log), newest)
            assert held.newest_seen_at == oracle.newest_seen_at

        def teardown(self) -> None:
            if hasattr(self, "store"):
                self.store.close()
                self.folder.cleanup()

    return StoreMachine


def _unordered(changes: Sequence[Any]) -> list[Any]:
    """Retention tells in any order what it drops."""
    told = [(c.reason != "retention" and c.serial, c.source, c.id, c.rev, c.at, c.reason) for c in changes]
    serials = [change.serial for change in changes]
    assert serials == list(range(1, len(serials) + 1))
    return sorted(told, key=str)


def test_a_store_holds_what_its_history_says(kind: Kind, parts_of_3: None) -> None:
    _run(kind, 12 if kind.name == "sqlite" else 4, 12)


@pytest.mark.slow
def test_a_store_holds_what_long_histories_say(kind: Kind, parts_of_3: None) -> None:
    _run(kind, 1_000 if kind.name == "sqlite" else 200, 40)


def _run(kind: Kind, examples: int, steps: int) -> None:
    checks = list(HealthCheck)
    run_state_machine_as_test(
        machine(kind),
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks
        ),
    )
