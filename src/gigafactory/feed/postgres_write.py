"""What a transaction on the PostgreSQL store loads and writes. Tables: `postgres_server.py`; rules: `merge.py`.

Every function here runs inside a transaction that its caller began and ends.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from gigafactory.feed.intake import first_key, millisecond, ms_of, new_keys, order, parts_to_open
from gigafactory.feed.load import STORED, TOMBSTONE
from gigafactory.feed.merge import After
from gigafactory.feed.post import Post
from gigafactory.feed.postgres_server import create_part
from gigafactory.feed.rows import COLUMNS, row_of
from gigafactory.feed.store import CHANGES_KEPT
from gigafactory.feed.words import author_id_mark, terms

if TYPE_CHECKING:
    from gigafactory.feed.postgres_server import Session

PART_POSTS = 50_000  # a purge rewrites the posts of a part in one go and locks them meanwhile


@lru_cache(maxsize=262_144)  # of a language most words are few
def hash_of(term: str) -> int:
    return int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "little", signed=True)


def array(numbers: Iterable[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"


class Asked:
    """See `load.Asked`."""

    posts = "ids"

    def __init__(self, db: Session) -> None:
        self._db = db

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._db.execute(statement, values).fetchall()

    def among(self, column: str, source: str, names: list[str]) -> tuple[str, Sequence[Any]]:
        return f"t.source = %s AND t.{column} = ANY(%s)", (source, names)

    def of_author(self, source: str, author_id: str) -> list[Any]:
        keys = keys_of_author(self._db, source, author_id)
        return self.rows(f"SELECT {STORED} FROM ids p WHERE key = ANY(%s)", (keys,))


def keys_of_author(db: Session, source: str, author_id: str, limit: int | None = None) -> list[int]:
    keys: list[int] = []
    mark = array([hash_of(author_id_mark(source, author_id))])
    for n, _ in parts(db):
        keys += [row[0] for row in db.execute(f"SELECT key FROM words_{n} WHERE terms @> %s LIMIT %s", (mark, limit))]
        if limit is not None and len(keys) >= limit:
            break
    return keys


def one(db: Session, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
    row = db.execute(statement, values).fetchone()
    assert row is not None, statement
    return row


def parts(db: Session) -> list[tuple[int, int]]:
    """Parts, oldest first: number and first key."""
    return [(n, first) for n, first in db.execute("SELECT n, first FROM parts ORDER BY first")]


def part_of(db: Session, key: int) -> int:
    """Number of the part that has this key."""
    (n,) = one(db, "SELECT n FROM parts WHERE first <= %s ORDER BY first DESC LIMIT 1", (key,))
    return int(n)


def write(db: Session, after: After, cursors: Mapping[str, str], part_ms: int) -> None:
    """part_ms: a new part begins when the newest one spans this."""
    if after.drop:
        drop(db, after.drop)
    if after.put:
        _put(db, after.put, part_ms)
    _write_tombstones(db, after)
    if after.changes:
        add_changes(db, after.changes)
    statement = "INSERT INTO cursors VALUES(%s, %s) ON CONFLICT(source) DO UPDATE SET cursor = excluded.cursor"
    for cursor in cursors.items():
        db.execute(statement, cursor)


def _write_tombstones(db: Session, after: After) -> None:
    buried = [(id, source, t) for (source, id), t in after.tombstones.items()]
    with db.cursor() as cursor:
        if buried:
            removed = [(id, source) for id, source, _ in buried]
            cursor.executemany("DELETE FROM tombstones WHERE id = %s AND source = %s", removed)
        if laid := [(id, source, t.rev, t.at, t.reason, t.root, t.by_author) for id, source, t in buried if t]:
            statement = f"INSERT INTO tombstones({TOMBSTONE}) VALUES(%s, %s, %s, %s, %s, %s, %s)"
            cursor.executemany(statement, laid)
        for (source, author_id), gone in after.authors.items():
            cursor.execute("DELETE FROM authors WHERE author_id = %s AND source = %s", (author_id, source))
            if gone is not None:
                cursor.execute("INSERT INTO authors VALUES(%s, %s, %s, %s)", (author_id, source, *gone))


def add_changes(db: Session, changes: Sequence[tuple[str, str, int | None, float, str]]) -> None:
    (serial,) = one(db, "SELECT serial FROM state")
    _copy(db, "changes", ((serial + i, *change) for i, change in enumerate(changes, 1)))
    serial += len(changes)
    db.execute("UPDATE state SET serial = %s", (serial,))
    db.execute("DELETE FROM changes WHERE serial <= %s", (serial - CHANGES_KEPT,))


def _copy(db: Session, table: str, rows: Iterable[Sequence[Any]]) -> None:
    with db.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def drop(db: Session, keys: Sequence[int]) -> None:
    """Takes posts out."""
    for n, of_part in _by_part(parts(db), sorted((key, key) for key in keys)).items():
        listed = [key for key, _ in of_part]
        db.execute(f"DELETE FROM posts_{n} WHERE key = ANY(%s)", (listed,))
        db.execute(f"DELETE FROM words_{n} WHERE key = ANY(%s)", (listed,))
        change = (len(listed), len(listed), n)
        db.execute("UPDATE parts SET posts = posts - %s, dirty = dirty + %s WHERE n = %s", change)
    db.execute("DELETE FROM aliases WHERE key = ANY(%s)", (list(keys),))
    db.execute("DELETE FROM ids WHERE key = ANY(%s)", (list(keys),))
    db.execute("UPDATE state SET posts = posts - %s", (len(keys),))


def _by_part(found: list[tuple[int, int]], keyed: Sequence[tuple[int, Any]]) -> dict[int, list[tuple[int, Any]]]:
    firsts = [first for _, first in found]
    by_part = defaultdict(list)
    for item in keyed:
        by_part[found[bisect_right(firsts, item[0]) - 1][0]].append(item)
    return by_part


def _put(db: Session, posts: list[Post], part_ms: int) -> None:
    posts.sort(key=order, reverse=True)
    milliseconds = [millisecond(post.created_at) for post in posts]
    (newest,) = one(db, "SELECT max(key) FROM ids")
    newest_ms = -1 if newest is None else ms_of(newest)
    keys = new_keys(milliseconds, _taken(db, {ms for ms in milliseconds if ms <= newest_ms}))
    _open_parts(db, keys, newest_ms, part_ms)
    rows = [row_of(post, key) for post, key in zip(posts, keys, strict=True)]
    _copy(db, "ids", ((row[1], row[2], row[0], row[3], row[5], row[11]) for row in rows))
    aliases = [(other, post.source, key) for post, key in zip(posts, keys, strict=True) for other in set(post.also)]
    if aliases:
        _copy(db, "aliases", aliases)
    keyed = sorted(zip(keys, zip(posts, rows, strict=True), strict=True), key=lambda item: item[0])
    for n, of_part in _by_part(parts(db), keyed).items():
        _copy(db, f"posts_{n}(key, {COLUMNS})", (row for _, (_, row) in of_part))
        _copy(db, f"words_{n}", ((key, array(set(map(hash_of, terms(post))))) for key, (post, _) in of_part))
        db.execute("UPDATE parts SET posts = posts + %s WHERE n = %s", (len(of_part), n))
    seen_at = max(post.seen_at for post in posts)
    statement = "UPDATE state SET posts = posts + %s, newest_seen_at = greatest(newest_seen_at, %s)"
    db.execute(statement, (len(posts), seen_at))


def _taken(db: Session, milliseconds: set[int]) -> dict[int, int]:
    """The largest key in use of each of these milliseconds that has one."""
    if not milliseconds:
        return {}
    listed = list(milliseconds)
    ranges = (listed, [first_key(ms) for ms in listed], [first_key(ms + 1) for ms in listed])
    largest = "(SELECT max(key) FROM ids WHERE key >= low AND key < high)"
    statement = f"SELECT ms, {largest} FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS t(ms, low, high)"
    return {ms: key for ms, key in db.execute(statement, ranges) if key is not None}


def _open_parts(db: Session, keys: Sequence[int], newest_ms: int, part_ms: int) -> None:
    n, first, posts = one(db, "SELECT n, first, posts FROM parts ORDER BY first DESC LIMIT 1")
    for number, key in parts_to_open(keys, newest_ms, (n, first, posts), part_ms, PART_POSTS):
        create_part(db, number)
        db.execute("INSERT INTO parts VALUES(%s, %s, 0, 0)", (number, key))
