"""Posts in PostgreSQL: the store that machines share. Any number of processes write and read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from gigafactory.feed.intake import clean, first_key, millisecond, ms_of
from gigafactory.feed.load import load
from gigafactory.feed.merge import cleaned_events, merge, touched
from gigafactory.feed.post import Delete, Event, Post
from gigafactory.feed.postgres_search import find
from gigafactory.feed.postgres_server import SCHEMA, check_format, connect, create, speaking, transaction
from gigafactory.feed.postgres_write import Asked, add_changes, drop, keys_of_author, one, part_of, parts, write
from gigafactory.feed.rows import COLUMNS, post_of
from gigafactory.feed.store import Applied, Change, Found, Held, Query
from gigafactory.feed.words import wanted

if TYPE_CHECKING:
    from gigafactory.feed.postgres_server import Session

T = TypeVar("T")
_RETAIN_POSTS = 5_000  # posts that one transaction of retain deletes: others get in between
_SNAPSHOT_TRIES, _SNAPSHOT_WAIT_S = 50, 0.1
_READ_TRIES = 3


class PostgresStore:
    """See `store.Store`. write: makes the tables if need be; otherwise the store only reads.

    url: postgresql://USER@HOST/DATABASE, a password from PGPASSWORD or ~/.pgpass. part_s: posts of this long share one
    part. clock: seconds, for deadlines of searches.
    """

    def __init__(
        self, url: str, *, write: bool, part_s: float = 86_400.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._write = write
        self._part_ms = max(1, round(part_s * 1000))
        self._clock = clock
        self._turn, self._purging = threading.RLock(), threading.Lock()
        self._writer: Session | None = None
        self._pool: list[Session] = []
        self._pool_lock = threading.Lock()
        self._closed = False
        session = connect(url)
        try:
            with speaking(url):
                if write:
                    create(session)
                check_format(url, session)
        except BaseException:
            session.close()
            raise
        self._pool.append(session)

    def apply(self, events: Sequence[Event], cursors: Mapping[str, str] | None = None) -> Applied:
        cleaned = cleaned_events(events)
        told = {clean(source): clean(cursor) for source, cursor in (cursors or {}).items()}
        with self._transaction() as db:
            after = merge(cleaned, load(Asked(db), touched(cleaned)))
            write(db, after, told, self._part_ms)
        return after.applied

    def cursor(self, source: str) -> str | None:
        statement, values = "SELECT cursor FROM cursors WHERE source = %s", (clean(source),)
        row = self._read(lambda db: db.execute(statement, values).fetchone())
        return row[0] if row else None

    def get(self, source: str, id: str) -> Post | None:
        name = (clean(id), clean(source))

        def found(db: Session) -> list[Post]:
            keys = db.execute("SELECT key FROM ids WHERE id = %s AND source = %s", name).fetchall()
            if not keys:
                keys = db.execute("SELECT key FROM aliases WHERE id = %s AND source = %s", name).fetchall()
            return [
                post_of(row)
                for (key,) in keys
                for row in db.execute(f"SELECT {COLUMNS} FROM posts_{part_of(db, key)} WHERE key = %s", (key,))
            ]

        return min(self._read(found), key=lambda post: (-post.created_at, post.id), default=None)

    def gone(self, source: str, id: str) -> Delete | None:
        source, id = clean(source), clean(id)
        statement = (
            "SELECT at, reason, rev FROM tombstones t WHERE id = %s AND source = %s"
            " AND NOT EXISTS (SELECT 1 FROM ids WHERE ids.id = t.id AND ids.source = t.source)"
        )
        row = self._read(lambda db: db.execute(statement, (id, source)).fetchone())
        return Delete(source, id, *row) if row else None

    def wrote(self, source: str, author_id: str) -> bool:
        return bool(self._read(lambda db: keys_of_author(db, clean(source), clean(author_id), limit=1)))

    def search(self, query: Query) -> Found:
        want = wanted(query)
        if want is None:
            return Found(())
        left_s = None
        if query.deadline_s is not None:
            end = self._clock() + query.deadline_s
            left_s = lambda: end - self._clock()  # noqa: E731
        return self._read(lambda db: find(db, query, want, left_s))

    def changes(self, since: int, limit: int = 10_000) -> list[Change]:
        statement = "SELECT serial, source, id, rev, at, reason FROM changes WHERE serial > %s ORDER BY serial LIMIT %s"
        rows = self._read(lambda db: db.execute(statement, (since, limit)).fetchall())
        return [Change(*row) for row in rows]

    def held(self) -> Held:
        def look(db: Session) -> Held:
            posts, serial, newest_seen_at = one(db, "SELECT posts, serial, newest_seen_at FROM state")
            (newest,) = one(db, "SELECT max(key) FROM ids")
            (waiting,) = one(db, "SELECT sum(dirty)::bigint FROM parts")
            created_at = None
            if newest is not None:
                of_millisecond = f"SELECT max(created_at) FROM posts_{part_of(db, newest)} WHERE key >= %s"
                (created_at,) = one(db, of_millisecond, (first_key(ms_of(newest)),))
            tables = "FROM pg_class WHERE relkind = 'r' AND relnamespace = %s::regnamespace"
            (bytes_,) = one(db, f"SELECT sum(pg_total_relation_size(oid))::bigint {tables}", (SCHEMA,))
            return Held(posts, created_at, newest_seen_at, serial, waiting, bytes_)

        return self._read(look)

    def retain(self, after: float) -> int:
        with self._transaction() as db:
            db.execute("UPDATE state SET horizon = greatest(horizon, %s)", (after,))
            db.execute("DELETE FROM tombstones WHERE at < %s", (after,))
        total, more = 0, True
        while more:
            deleted, more = self._retain_some(after)
            total += deleted
        return total

    def _retain_some(self, after: float) -> tuple[int, bool]:
        """How many were deleted, and whether to go on."""
        with self._transaction() as db:
            found = parts(db)
            whole = len(found) > 1 and found[1][1] <= first_key(millisecond(after))  # the oldest part goes
            end = found[1][1] if whole else first_key(millisecond(after) + 1)
            rows: list[Any] = []
            for n, first in found:
                if first < end and len(rows) < _RETAIN_POSTS:
                    old = f"SELECT key, source, id FROM posts_{n} WHERE key < %s AND created_at < %s"
                    values = (end, after, _RETAIN_POSTS - len(rows))
                    rows += db.execute(f"{old} ORDER BY key LIMIT %s", values).fetchall()
            if rows:
                add_changes(db, [(source, id, None, after, "retention") for _, source, id in rows])
                drop(db, [row[0] for row in rows])
            full = len(rows) == _RETAIN_POSTS
            if whole and not full:
                (n, _), (next_n, _) = found[:2]
                db.execute(f"DROP TABLE posts_{n}, words_{n}")
                dirty = "dirty + (SELECT dirty FROM parts WHERE n = %s)"
                db.execute(f"UPDATE parts SET dirty = {dirty} WHERE n = %s", (n, next_n))
                db.execute("DELETE FROM parts WHERE n = %s", (n,))
                db.execute("UPDATE parts SET first = 0 WHERE n = %s", (next_n,))
        return len(rows), full or whole

    def purge(self) -> int:
        """On the disk of the server, too: in its tables always; in its log (pg_wal) where we may say CHECKPOINT and
        the server keeps no old segment (wal_recycle = off, no archive)."""
        dirty = self._read(lambda db: db.execute("SELECT n, dirty FROM parts WHERE dirty > 0").fetchall())
        if not dirty:
            return 0
        import psycopg

        self._may_write()
        with self._purging, speaking(self._url), closing(connect(self._url)) as db:
            if not _unseen_before_now(db):
                return 0
            for n, _ in dirty:
                with suppress(psycopg.errors.UndefinedTable):  # retention was faster
                    db.execute(f"VACUUM (FULL) posts_{n}")
            _drop_log(db)
        with self._transaction() as db:
            for n, count in dirty:
                db.execute("UPDATE parts SET dirty = dirty - %s WHERE n = %s", (count, n))
        return sum(count for _, count in dirty)

    def close(self) -> None:
        with self._turn, self._pool_lock:
            self._closed = True
            for session in (*self._pool, *([self._writer] if self._writer else [])):
                session.close()
            self._pool, self._writer = [], None

    def _may_write(self) -> None:
        if not self._write or self._closed:
            raise ValueError("the store was opened for reading, or is closed")

    def _its_writer(self) -> Session:
        self._may_write()
        if self._writer is None or self._writer.closed:
            self._writer = connect(self._url)
        return self._writer

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with self._turn, speaking(self._url):
            db = self._its_writer()
            with transaction(db):
                yield db

    def _read(self, work: Callable[[Session], T]) -> T:
        """What `work` finds, at one moment of the store."""
        from psycopg.errors import UndefinedTable

        for attempt in range(_READ_TRIES):
            with speaking(self._url), self._session() as db:
                db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                try:
                    return work(db)
                except UndefinedTable:  # retention dropped a part between the list of parts and the look at it
                    if attempt == _READ_TRIES - 1:
                        raise
                finally:
                    if not db.closed:
                        db.execute("ROLLBACK")
        raise AssertionError

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with self._pool_lock:
            if self._closed:
                raise ValueError("the store is closed")
            db = self._pool.pop() if self._pool else None
        if db is None or db.closed:
            db = connect(self._url)
        try:
            yield db
        finally:
            with self._pool_lock:
                if self._closed:
                    db.close()
                elif not db.closed:
                    self._pool.append(db)


def _unseen_before_now(db: Session) -> bool:
    """Waits until no session sees what was there before now: VACUUM keeps what one sees."""
    (now,) = one(db, "SELECT pg_current_xact_id()::xid::text")
    statement = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_xmin IS NOT NULL AND age(backend_xmin) > age(%s::text::xid)"
    )
    for attempt in range(_SNAPSHOT_TRIES):
        if attempt:
            time.sleep(_SNAPSHOT_WAIT_S)
        if one(db, statement, (now,)) == (0,):
            return True
    return False


def _drop_log(db: Session) -> None:
    """Ends the segment of the log that may hold deleted posts, so that the server drops it."""
    from psycopg.errors import InsufficientPrivilege

    with suppress(InsufficientPrivilege):
        db.execute("SELECT pg_switch_wal()")
        db.execute("CHECKPOINT")
