"""What a store must look up before `merge` can say what a batch does: the same questions to SQLite and PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from gigafactory.feed.merge import Before, Name, Stored, Tombstone, Touched
from gigafactory.feed.rows import names_of

STORED = "p.key, p.source, p.id, p.rev, p.author_id, p.also"
TOMBSTONE = "id, source, rev, at, reason, root, by_author"


class Asked(Protocol):
    """A store inside a transaction. posts: its table that has the columns STORED of every post."""

    posts: str

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Of a statement without values, or of what `among` gave."""
        ...

    def among(self, column: str, source: str, names: list[str]) -> tuple[str, Sequence[Any]]:
        """A condition that t.source is this and t.COLUMN one of the names, and its values."""
        ...

    def of_author(self, source: str, author_id: str) -> list[Any]:
        """STORED of the posts of an author."""
        ...


def load(store: Asked, names: Touched) -> Before:
    """What the store holds of the names that a batch touches."""
    before = Before(horizon=store.rows("SELECT horizon FROM state")[0][0])
    stored = STORED.replace("p.", "t.")
    _keep(before, _by_name(store, f"SELECT {stored} FROM {store.posts} t", names.posts | names.deletes))
    aliased = f"SELECT {STORED}, t.id FROM aliases t JOIN {store.posts} p ON p.key = t.key"
    for *row, other in _by_name(store, aliased, names.deletes):
        before.named.setdefault((row[1], other), []).append((row[1], row[2]))
        _keep(before, [row])
    for other_ids in before.named.values():
        other_ids.sort()
    for source, author_id in names.deleted_authors:
        rows = store.of_author(source, author_id)
        before.authored[source, author_id] = [(row[1], row[2]) for row in rows]
        _keep(before, rows)
    if store.rows("SELECT 1 FROM authors LIMIT 1"):
        authors = names.authors | names.deleted_authors | names.restored_authors
        statement = "SELECT source, author_id, at, reason FROM authors t"
        for source, author_id, at, reason in _by_name(store, statement, authors, "author_id"):
            before.authors[source, author_id] = (at, reason)
    if store.rows("SELECT 1 FROM tombstones LIMIT 1"):
        _load_tombstones(store, before, names)
    return before


def _load_tombstones(store: Asked, before: Before, names: Touched) -> None:
    others = {(name[0], other) for name, stored in before.posts.items() for other in stored.also}
    wanted = names.posts | names.aliases | names.deletes | names.restores | set(before.posts) | others
    statement = f"SELECT {TOMBSTONE} FROM tombstones t"
    _bury(before, _by_name(store, statement, wanted))
    if names.restores:  # an event before it in the batch may have laid any of these
        found = {(name[0], before.tombstones[name].root) for name in names.restores & before.tombstones.keys()}
        _bury(before, _by_name(store, statement, found | wanted, "root"))
    _bury(before, _by_name(store, statement, names.restored_authors, "by_author"))


def _by_name(store: Asked, statement: str, names: Iterable[Name], column: str = "id") -> list[Any]:
    by_source = defaultdict(list)
    for source, name in names:
        by_source[source].append(name)
    found: list[Any] = []
    for source, of_source in by_source.items():
        condition, values = store.among(column, source, of_source)
        found += store.rows(f"{statement} WHERE {condition}", values)
    return found


def _keep(before: Before, rows: Iterable[Sequence[Any]]) -> None:
    for key, source, id, rev, author_id, also in rows:
        before.posts[source, id] = Stored(key, rev, author_id, names_of(also))


def _bury(before: Before, rows: Iterable[Sequence[Any]]) -> None:
    for id, source, *rest in rows:
        before.tombstones[source, id] = Tombstone(*rest)
