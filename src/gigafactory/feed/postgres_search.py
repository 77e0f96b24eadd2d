"""Search in the PostgreSQL store: newest first, part by part, until there are enough or the time is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gigafactory.feed.intake import END_KEY, first_key, millisecond, ms_of, order
from gigafactory.feed.post import Post
from gigafactory.feed.postgres_write import array, hash_of, one, parts
from gigafactory.feed.rows import COLUMNS, post_of
from gigafactory.feed.store import Found, Query
from gigafactory.feed.words import Wanted

if TYPE_CHECKING:
    from gigafactory.feed.postgres_server import Session

_PAGE_MIN = 100
_LOOKED_AT = 3  # posts that are looked at one by one, for each that is wanted


def find(db: Session, query: Query, want: Wanted, left_s: Callable[[], float] | None) -> Found:
    """left_s: of the time for this search; None: there is no limit."""
    from psycopg.errors import QueryCanceled

    found: list[Post] = []
    complete, last_ms = True, -1
    since = -math.inf if query.since is None else query.since
    until = math.inf if query.until is None else query.until
    try:
        for key, post in _newest_first(db, query, want, left_s):
            if len(found) >= query.limit and ms_of(key) != last_ms:  # within a millisecond keys are in no order
                break
            if since <= post.created_at < until:
                found.append(post)
                last_ms = ms_of(key)
    except (QueryCanceled, TimeoutError):
        complete = False
    found.sort(key=order)
    return Found(tuple(found[: max(query.limit, 0)]), complete)


def _newest_first(
    db: Session, query: Query, want: Wanted, left_s: Callable[[], float] | None
) -> Iterator[tuple[int, Post]]:
    low = 0 if query.since is None else first_key(millisecond(query.since))
    high = END_KEY if query.until is None else first_key(millisecond(query.until) + 1)
    condition, values = _condition(want)
    page = max(query.limit + 1, _PAGE_MIN)
    frequent = not want.groups or any(len(group) == 1 for group in want.groups)
    end = high
    for n, first in reversed(parts(db)):
        if first < high and low < end:
            below = high
            while True:
                _limit_time(db, left_s)
                if frequent or not want.positive:
                    looked, rows = _look_at_newest(db, n, (low, below), condition, values, page)
                    yield from rows
                    frequent = len(rows) >= page
                    if looked is None:
                        break
                    below = looked
                    continue
                rows = _look_up(db, n, (low, below), condition, values, page)
                yield from rows
                if len(rows) < page:
                    break
                below = rows[-1][0]
        end = first


def _look_at_newest(
    db: Session, n: int, keys: tuple[int, int], condition: str, values: list[Any], page: int
) -> tuple[int | None, list[tuple[int, Post]]]:
    """Matches among the newest posts of a part, one by one, which is best where most match. And the key down to which
    it looked; None: to the end."""
    among = page * _LOOKED_AT
    (lowest,) = one(
        db,
        f"SELECT min(key) FROM (SELECT key FROM words_{n} WHERE key >= %s AND key < %s ORDER BY key DESC LIMIT %s) t",
        (*keys, among),
    )
    if lowest is None:
        return None, []
    newest = f"SELECT key, terms FROM words_{n} WHERE key >= %s AND key < %s ORDER BY key DESC OFFSET 0"
    matching = f"SELECT key FROM ({newest}) t WHERE true{condition}"
    return lowest, _posts(db, n, matching, (lowest, keys[1], *values))


def _look_up(
    db: Session, n: int, keys: tuple[int, int], condition: str, values: list[Any], page: int
) -> list[tuple[int, Post]]:
    """The newest matches of a part by the index, which is best where few match."""
    # "+ 0" lest the planner goes by the keys and looks at the terms of every post
    matching = f"SELECT key FROM words_{n} WHERE key + 0 >= %s AND key + 0 < %s{condition}"
    statement = f"WITH m AS MATERIALIZED ({matching}) SELECT key FROM m ORDER BY key DESC LIMIT %s"
    return _posts(db, n, statement, (*keys, *values, page))


def _posts(db: Session, n: int, keys: str, values: Sequence[Any]) -> list[tuple[int, Post]]:
    rows = db.execute(
        f"SELECT w.key, {COLUMNS} FROM ({keys}) w JOIN posts_{n} p ON p.key = w.key ORDER BY w.key DESC", values
    )
    return [(row[0], post_of(row[1:])) for row in rows]


def _limit_time(db: Session, left_s: Callable[[], float] | None) -> None:
    if left_s is not None:
        left_ms = math.ceil(min(left_s(), 1e6) * 1000)
        if left_ms <= 0:
            raise TimeoutError
        db.execute(f"SET LOCAL statement_timeout TO {left_ms}")


def _condition(want: Wanted) -> tuple[str, list[Any]]:
    """Of a row of words_N, with AND before it, and its values."""
    conditions: list[str] = []
    values: list[Any] = []
    if want.groups:
        any_of: list[str] = []
        if singles := [hash_of(group[0]) for group in want.groups if len(group) == 1]:
            any_of.append("terms && %s")
            values.append(array(singles))
        for group in want.groups:
            if len(group) > 1:
                any_of.append("terms @> %s")
                values.append(array(map(hash_of, group)))
        conditions.append(f"({' OR '.join(any_of)})")
    for marks in want.one_of:
        conditions.append("terms && %s")
        values.append(array(map(hash_of, marks)))
    if want.none_of:
        conditions.append("NOT terms && %s")
        values.append(array(map(hash_of, want.none_of)))
    return "".join(f" AND {condition}" for condition in conditions), values
