"""What a transaction on the SQLite store loads and writes. Tables: `sqlite_file.py`; rules: `merge.py`.

Every function here runs inside a transaction that its caller began and ends.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gigafactory.feed.intake import first_key, millisecond, ms_of, new_keys, order, parts_to_open
from gigafactory.feed.load import STORED, TOMBSTONE
from gigafactory.feed.merge import After
from gigafactory.feed.post import Post
from gigafactory.feed.rows import COLUMNS, post_of, row_of
from gigafactory.feed.sqlite_file import WORDS_TABLE
from gigafactory.feed.store import CHANGES_KEPT
from gigafactory.feed.words import author_id_mark, term_text

# A purge rewrites the index of a part in one go, a microsecond or two for each post, and nobody writes meanwhile.
PART_POSTS = 50_000


class Asked:
    """See `load.Asked`."""

    posts = "posts"

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._db.execute(statement, values).fetchall()

    def among(self, column: str, source: str, names: list[str]) -> tuple[str, Sequence[Any]]:
        return f"t.source = ? AND t.{column} IN (SELECT value FROM json_each(?))", (source, json.dumps(names))

    def of_author(self, source: str, author_id: str) -> list[Any]:
        return rows_of_author(self._db, source, author_id, STORED)


def rows_of_author(db: sqlite3.Connection, source: str, author_id: str, columns: str, limit: int = -1) -> list[Any]:
    """Rows of posts p of an author."""
    rows: list[Any] = []
    for n, _ in parts(db):
        statement = (
            f"SELECT {columns} FROM words_{n} w JOIN posts p ON p.key = -w.rowid WHERE words_{n} MATCH ? LIMIT ?"
        )
        rows += db.execute(statement, (f'"{author_id_mark(source, author_id)}"', limit))
        if 0 < limit <= len(rows):
            break
    return rows


def parts(db: sqlite3.Connection) -> list[tuple[int, int]]:
    """Parts of the index, oldest first: number and first key."""
    return db.execute("SELECT n, first FROM parts ORDER BY first").fetchall()


def write(db: sqlite3.Connection, after: After, cursors: Mapping[str, str], part_ms: int) -> None:
    """part_ms: a new part of the index begins when the newest one spans this."""
    if after.drop:
        drop(db, after.drop)
    if after.put:
        _put(db, after.put, part_ms)
    for (source, id), t in after.tombstones.items():
        if t is None:
            db.execute("DELETE FROM tombstones WHERE id = ? AND source = ?", (id, source))
        else:
            row = (id, source, t.rev, t.at, t.reason, t.root, t.by_author)
            db.execute(f"INSERT OR REPLACE INTO tombstones({TOMBSTONE}) VALUES(?, ?, ?, ?, ?, ?, ?)", row)
    for (source, author_id), gone in after.authors.items():
        if gone is None:
            db.execute("DELETE FROM authors WHERE author_id = ? AND source = ?", (author_id, source))
        else:
            db.execute("INSERT OR REPLACE INTO authors VALUES(?, ?, ?, ?)", (author_id, source, *gone))
    if after.changes:
        add_changes(db, after.changes)
    db.executemany("INSERT OR REPLACE INTO cursors VALUES(?, ?)", cursors.items())


def add_changes(db: sqlite3.Connection, changes: Sequence[tuple[str, str, int | None, float, str]]) -> None:
    serial = db.execute("SELECT serial FROM state").fetchone()[0]
    numbered = ((serial + i, *change) for i, change in enumerate(changes, 1))
    db.executemany("INSERT INTO changes VALUES(?, ?, ?, ?, ?, ?)", numbered)
    serial += len(changes)
    db.execute("UPDATE state SET serial = ?", (serial,))
    db.execute("DELETE FROM changes WHERE serial <= ?", (serial - CHANGES_KEPT,))


def drop(db: sqlite3.Connection, keys: Sequence[int], *, from_index: bool = True) -> None:
    """Takes posts out. from_index: also out of the index of words, which is not needed where that part goes anyway."""
    listed = json.dumps(keys)
    where = "key IN (SELECT value FROM json_each(?))"
    if from_index:
        rows = db.execute(f"SELECT key, {COLUMNS} FROM posts WHERE {where} ORDER BY key", (listed,)).fetchall()
        for n, of_part in _by_part(parts(db), [(row[0], term_text(post_of(row[1:]))) for row in rows]).items():
            db.executemany(f"INSERT INTO words_{n}(words_{n}, rowid, words) VALUES('delete', ?, ?)", _rows(of_part))
            db.execute("UPDATE parts SET posts = posts - ?1, dirty = dirty + ?1 WHERE n = ?2", (len(of_part), n))
    db.execute(f"DELETE FROM aliases WHERE {where}", (listed,))
    db.execute(f"DELETE FROM posts WHERE {where}", (listed,))
    db.execute("UPDATE state SET posts = posts - ?", (len(keys),))


def _by_part(found: list[tuple[int, int]], keyed: list[tuple[int, str]]) -> dict[int, list[tuple[int, str]]]:
    firsts = [first for _, first in found]
    if not keyed or firsts[-1] <= keyed[0][0]:  # as nearly always: all in the newest
        return {found[-1][0]: keyed} if keyed else {}
    by_part = defaultdict(list)
    for item in keyed:
        by_part[found[bisect_right(firsts, item[0]) - 1][0]].append(item)
    return by_part


def _rows(keyed: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """For the index, in the order of its rows: they are the keys negated, so that the newest come first."""
    return [(-key, text) for key, text in reversed(keyed)]


def _put(db: sqlite3.Connection, posts: list[Post], part_ms: int) -> None:
    posts.sort(key=order, reverse=True)
    milliseconds = [millisecond(post.created_at) for post in posts]
    newest = db.execute("SELECT max(key) FROM posts").fetchone()[0]
    newest_ms = -1 if newest is None else ms_of(newest)
    keys = new_keys(milliseconds, _taken(db, {ms for ms in milliseconds if ms <= newest_ms}))
    _open_parts(db, keys, newest_ms, part_ms)
    places = ", ".join("?" * 14)
    db.executemany(f"INSERT INTO posts(key, {COLUMNS}) VALUES({places})", map(row_of, posts, keys))
    aliases = [(other, post.source, key) for post, key in zip(posts, keys, strict=True) for other in set(post.also)]
    db.executemany("INSERT INTO aliases VALUES(?, ?, ?)", aliases)
    keyed = sorted((key, term_text(post)) for post, key in zip(posts, keys, strict=True))
    for n, of_part in _by_part(parts(db), keyed).items():
        db.executemany(f"INSERT INTO words_{n}(rowid, words) VALUES(?, ?)", _rows(of_part))
        db.execute("UPDATE parts SET posts = posts + ? WHERE n = ?", (len(of_part), n))
    seen_at = max(post.seen_at for post in posts)
    db.execute(
        "UPDATE state SET posts = posts + ?, newest_seen_at = max(coalesce(newest_seen_at, ?2), ?2)",
        (len(posts), seen_at),
    )


def _taken(db: sqlite3.Connection, milliseconds: set[int]) -> dict[int, int]:
    """The largest key in use of each of these milliseconds that has one."""
    ranges = json.dumps([[ms, first_key(ms), first_key(ms + 1)] for ms in milliseconds])
    largest = "(SELECT max(key) FROM posts WHERE key >= value ->> 1 AND key < value ->> 2)"
    found = db.execute(f"SELECT value ->> 0, {largest} FROM json_each(?)", (ranges,))
    return {ms: key for ms, key in found if key is not None}


def _open_parts(db: sqlite3.Connection, keys: Sequence[int], newest_ms: int, part_ms: int) -> None:
    newest = db.execute("SELECT n, first, posts FROM parts ORDER BY first DESC LIMIT 1").fetchone()
    for n, first in parts_to_open(keys, newest_ms, newest, part_ms, PART_POSTS):
        db.execute(WORDS_TABLE.format(n=n))
        db.execute("INSERT INTO parts VALUES(?, ?, 0, 0)", (n, first))
