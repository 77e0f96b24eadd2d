"""Search in the SQLite store: newest first, part by part of the index, until there are enough or the time is over."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator

from gigafactory.feed.intake import END_KEY, first_key, millisecond, ms_of, order
from gigafactory.feed.post import Post
from gigafactory.feed.rows import COLUMNS, post_of
from gigafactory.feed.sqlite_write import parts
from gigafactory.feed.store import Found, Query
from gigafactory.feed.words import Wanted, author_mark

_STEPS = 2_000  # of SQLite's machine between two looks at the clock
_POST = ", ".join(f"p.{column}" for column in COLUMNS.split(", "))


def find(db: sqlite3.Connection, query: Query, want: Wanted, expired: Callable[[], bool] | None) -> Found:
    """expired: whether the time for this search is over; None: there is no limit."""
    low = 0 if query.since is None else first_key(millisecond(query.since))
    high = END_KEY if query.until is None else first_key(millisecond(query.until) + 1)
    rows = _by_words(db, want, low, high) if want.positive else _by_time(db, want, low, high)
    since = -math.inf if query.since is None else query.since
    until = math.inf if query.until is None else query.until
    found: list[Post] = []
    last_ms, complete = -1, True
    if expired is not None:
        db.set_progress_handler(lambda: int(expired()), _STEPS)
    try:
        if expired is not None and expired():
            return Found((), False)
        for key, post in rows:
            if len(found) >= query.limit and ms_of(key) != last_ms:  # within a millisecond keys are in no order
                break
            if since <= post.created_at < until:
                found.append(post)
                last_ms = ms_of(key)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        complete = False
    finally:
        if expired is not None:
            db.set_progress_handler(None, 0)
    found.sort(key=order)
    return Found(tuple(found[: max(query.limit, 0)]), complete)


def _by_words(db: sqlite3.Connection, want: Wanted, low: int, high: int) -> Iterator[tuple[int, Post]]:
    expression = match_expression(want)
    end = high
    for n, first in reversed(parts(db)):
        if first < high and low < end:
            rows = db.execute(
                f"SELECT p.key, {_POST} FROM words_{n} w JOIN posts p ON p.key = -w.rowid"
                f" WHERE words_{n} MATCH ? AND w.rowid > ? AND w.rowid <= ? ORDER BY w.rowid",
                (expression, -high, -low),
            )
            for row in rows:
                yield row[0], post_of(row[1:])
        end = first


def _by_time(db: sqlite3.Connection, want: Wanted, low: int, high: int) -> Iterator[tuple[int, Post]]:
    without = set(want.none_of)
    statement = f"SELECT key, {COLUMNS} FROM posts WHERE key >= ? AND key < ? ORDER BY key DESC"
    for row in db.execute(statement, (low, high)):
        if not without or author_mark(row[4]) not in without:
            yield row[0], post_of(row[1:])


def match_expression(want: Wanted) -> str:
    """In the language of FTS5. Terms hold no quotes."""
    needed = [_any(" AND ".join(map(_quoted, group)) for group in want.groups)] if want.groups else []
    needed += [_any(map(_quoted, marks)) for marks in want.one_of]
    expression = " AND ".join(needed)
    return f"({expression}) NOT {_any(map(_quoted, want.none_of))}" if want.none_of else expression


def _quoted(term: str) -> str:
    return f'"{term}"'


def _any(terms: Iterable[str]) -> str:
    return f"({' OR '.join(f'({term})' for term in terms)})"
