"""Posts in one SQLite file: the store of one machine. One process writes, any number reads while it does."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.feed.intake import clean, first_key, millisecond
from gigafactory.feed.load import load
from gigafactory.feed.merge import cleaned_events, merge, touched
from gigafactory.feed.post import Delete, Event, Post
from gigafactory.feed.rows import COLUMNS, post_of
from gigafactory.feed.sqlite_file import BUSY_S, check_format, connect, create, lock_for_writing, speaking
from gigafactory.feed.sqlite_search import find
from gigafactory.feed.sqlite_write import Asked, add_changes, drop, parts, rows_of_author, write
from gigafactory.feed.store import Applied, Change, Found, Held, Query
from gigafactory.feed.words import wanted

_RETAIN_POSTS = 5_000  # posts that one transaction of retain deletes: others get in between
_TURN_S = 0.005  # between two transactions of a long task, so that who waits for the lock gets it
_REST = 2.0  # a purge rests this times as long as it has kept the writer waiting
_CHECKPOINT_TRIES, _CHECKPOINT_WAIT_S = 10, 0.2
_SPARE, _VACUUM_PAGES = 0.25, 1_000  # free share of the file that is kept; pages given back in one go


class SqliteStore:
    """See `store.Store`. write: makes the file if need be, and is its only writer; otherwise the store only reads.

    part_s: posts of this long share one part of the index. clock: seconds, for deadlines of searches.
    """

    def __init__(
        self, path: Path, *, write: bool, part_s: float = 86_400.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._part_ms = max(1, round(part_s * 1000))
        self._clock = clock
        self._writing = threading.RLock()
        self._pool: list[sqlite3.Connection] = []
        self._pool_lock = threading.Lock()
        self._closed = False
        self._lock = lock_for_writing(path) if write else None
        self._writer: sqlite3.Connection | None = None
        try:
            with speaking(path):
                if write:
                    create(path)
                elif not path.exists():
                    raise UserError(f"{path}: no posts yet; `gigafactory feed run` fills it")
                connection = connect(path, write=write)
                try:
                    check_format(path, connection)
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            self._unlock()
            raise
        if write:
            self._writer = connection
        else:
            self._pool.append(connection)

    def apply(self, events: Sequence[Event], cursors: Mapping[str, str] | None = None) -> Applied:
        cleaned = cleaned_events(events)
        told = {clean(source): clean(cursor) for source, cursor in (cursors or {}).items()}
        with self._transaction() as db:
            after = merge(cleaned, load(Asked(db), touched(cleaned)))
            write(db, after, told, self._part_ms)
        return after.applied

    def cursor(self, source: str) -> str | None:
        with self._reading() as db:
            row = db.execute("SELECT cursor FROM cursors WHERE source = ?", (clean(source),)).fetchone()
        return row[0] if row else None

    def get(self, source: str, id: str) -> Post | None:
        source, id = clean(source), clean(id)
        with self._reading() as db:
            row = db.execute(f"SELECT {COLUMNS} FROM posts WHERE id = ? AND source = ?", (id, source)).fetchone()
            if row is None:
                where = "key IN (SELECT key FROM aliases WHERE id = ? AND source = ?)"
                newest = f"SELECT {COLUMNS} FROM posts WHERE {where} ORDER BY created_at DESC, id LIMIT 1"
                row = db.execute(newest, (id, source)).fetchone()
        return post_of(row) if row else None

    def gone(self, source: str, id: str) -> Delete | None:
        source, id = clean(source), clean(id)
        with self._reading() as db:
            if db.execute("SELECT 1 FROM posts WHERE id = ? AND source = ?", (id, source)).fetchone():
                return None
            columns = "at, reason, rev"
            row = db.execute(f"SELECT {columns} FROM tombstones WHERE id = ? AND source = ?", (id, source)).fetchone()
        return Delete(source, id, *row) if row else None

    def wrote(self, source: str, author_id: str) -> bool:
        with self._reading() as db:
            return bool(rows_of_author(db, clean(source), clean(author_id), "1", limit=1))

    def search(self, query: Query) -> Found:
        want = wanted(query)
        if want is None:
            return Found(())
        expired = None
        if query.deadline_s is not None:
            end = self._clock() + query.deadline_s
            expired = lambda: self._clock() >= end  # noqa: E731
        with self._reading() as db:
            return find(db, query, want, expired)

    def changes(self, since: int, limit: int = 10_000) -> list[Change]:
        statement = "SELECT serial, source, id, rev, at, reason FROM changes WHERE serial > ? ORDER BY serial LIMIT ?"
        with self._reading() as db:
            return [Change(*row) for row in db.execute(statement, (since, limit))]

    def held(self) -> Held:
        with self._reading() as db:
            posts, serial, newest_seen_at = db.execute("SELECT posts, serial, newest_seen_at FROM state").fetchone()
            (newest,) = db.execute("SELECT max(key) FROM posts").fetchone()
            (waiting,) = db.execute("SELECT sum(dirty) FROM parts").fetchone()
            created_at = None
            if newest is not None:
                of_millisecond = "SELECT max(created_at) FROM posts WHERE key >= ?"
                (created_at,) = db.execute(of_millisecond, (first_key(newest >> 21),)).fetchone()
        return Held(posts, created_at, newest_seen_at, serial, waiting, self._bytes())

    def retain(self, after: float) -> int:
        with self._transaction() as db:
            db.execute("UPDATE state SET horizon = max(horizon, ?)", (after,))
            db.execute("DELETE FROM tombstones WHERE at < ?", (after,))
        total, more = 0, True
        while more:
            deleted, more = self._retain_some(after)
            total += deleted
            time.sleep(_TURN_S)
        if total:
            self._give_back()
        return total

    def _retain_some(self, after: float) -> tuple[int, bool]:
        """How many were deleted, and whether to go on."""
        below = first_key(millisecond(after) + 1)
        with self._transaction() as db:
            found = parts(db)
            whole = len(found) > 1 and found[1][1] <= first_key(millisecond(after))  # the oldest part goes
            end = found[1][1] if whole else below
            statement = "SELECT key, source, id FROM posts WHERE key < ? AND created_at < ? ORDER BY key LIMIT ?"
            rows = db.execute(statement, (end, after, _RETAIN_POSTS)).fetchall()
            if rows:
                add_changes(db, [(source, id, None, after, "retention") for _, source, id in rows])
                drop(db, [row[0] for row in rows], from_index=not whole)
            full = len(rows) == _RETAIN_POSTS
            if whole:
                (n, _), (next_n, _) = found[:2]
                db.execute("UPDATE parts SET dirty = dirty + ? WHERE n = ?", (len(rows), next_n))
                if not full:
                    dirty = "dirty + (SELECT dirty FROM parts WHERE n = ?)"
                    db.execute(f"UPDATE parts SET dirty = {dirty} WHERE n = ?", (n, next_n))
                    db.execute(f"DROP TABLE words_{n}")
                    db.execute("DELETE FROM parts WHERE n = ?", (n,))
                    db.execute("UPDATE parts SET first = 0 WHERE n = ?", (next_n,))
        return len(rows), full or whole

    def _give_back(self) -> None:
        """Room to the disk, but not what the posts of the next days will fill again."""
        with self._writing, speaking(self._path):
            db = self._its_writer()
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
        spare = max(0, int(free - _SPARE * pages))
        for start in range(0, spare, _VACUUM_PAGES):
            with self._writing, speaking(self._path):
                count = min(_VACUUM_PAGES, spare - start)
                # a script, since execute() ends after the first page
                self._its_writer().executescript(f"PRAGMA incremental_vacuum({count})")

    def purge(self) -> int:
        with self._reading() as db:
            dirty = db.execute("SELECT n, dirty FROM parts WHERE dirty > 0").fetchall()
        if not dirty:
            return 0
        for n, _ in dirty:
            with self._transaction() as db:
                began = time.monotonic()
                db.execute(f"INSERT INTO words_{n}(words_{n}) VALUES('optimize')")
            time.sleep(_REST * (time.monotonic() - began))
        if not self._checkpoint():
            return 0
        with self._transaction() as db:
            db.executemany("UPDATE parts SET dirty = dirty - ?2 WHERE n = ?1", dirty)
        return sum(count for _, count in dirty)

    def _checkpoint(self) -> bool:
        """Empties the write-ahead log, which holds old pages; False if readers were in the way all the time."""
        for _ in range(_CHECKPOINT_TRIES):
            with self._writing, speaking(self._path):
                db = self._its_writer()
                db.execute(f"PRAGMA busy_timeout={round(_CHECKPOINT_WAIT_S * 1000)}")
                try:
                    if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0:
                        return True
                finally:
                    db.execute(f"PRAGMA busy_timeout={round(BUSY_S * 1000)}")
        return False

    def close(self) -> None:
        with self._writing, self._pool_lock:
            self._closed = True
            for connection in (*self._pool, *([self._writer] if self._writer else [])):
                connection.close()
            self._pool, self._writer = [], None
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _its_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            raise ValueError("the store was opened for reading, or is closed")
        return self._writer

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing, speaking(self._path):
            db = self._its_writer()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite has itself rolled back after some errors
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one moment of the store."""
        with self._pool_lock:
            if self._closed:
                raise ValueError("the store is closed")
            db = self._pool.pop() if self._pool else None
        with speaking(self._path):
            if db is None:
                db = connect(self._path, write=False)
            try:
                db.execute("BEGIN")
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                with self._pool_lock:
                    if self._closed:
                        db.close()
                    else:
                        self._pool.append(db)

    def _bytes(self) -> int:
        files = (self._path.with_name(f"{self._path.name}{ending}") for ending in ("", "-wal", "-shm"))
        return sum(file.stat().st_size for file in files if file.exists())
