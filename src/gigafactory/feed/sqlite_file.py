"""The SQLite file of posts: its tables, who may open it, and its errors in the user's words.

One file holds everything, so that one transaction changes posts, tombstones and cursors. Only the index of words is in
parts, each of a stretch of time: what a purge rewrites is small, and retention drops whole parts.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.files import disk_errors

FORMAT = 1
APPLICATION = 0x47664665  # "GfFe", at a place of the file where `file` and SQLite look for it
BUSY_S = 10.0

_TABLES = """
CREATE TABLE posts(
  key INTEGER PRIMARY KEY, source TEXT NOT NULL, id TEXT NOT NULL, rev INTEGER NOT NULL, author TEXT NOT NULL,
  author_id TEXT NOT NULL, created_at REAL NOT NULL, seen_at REAL NOT NULL, text TEXT NOT NULL, url TEXT NOT NULL,
  lang TEXT NOT NULL, also TEXT NOT NULL, refs TEXT NOT NULL, train_ok INTEGER NOT NULL);
CREATE UNIQUE INDEX posts_id ON posts(id, source);
CREATE TABLE aliases(
  id TEXT NOT NULL, source TEXT NOT NULL, key INTEGER NOT NULL, PRIMARY KEY(id, source, key)) WITHOUT ROWID;
CREATE INDEX aliases_key ON aliases(key);
CREATE TABLE tombstones(
  id TEXT NOT NULL, source TEXT NOT NULL, rev INTEGER NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL,
  root TEXT NOT NULL, by_author TEXT, PRIMARY KEY(id, source)) WITHOUT ROWID;
CREATE INDEX tombstones_root ON tombstones(root, source);
CREATE INDEX tombstones_author ON tombstones(by_author, source) WHERE by_author IS NOT NULL;
CREATE TABLE authors(
  author_id TEXT NOT NULL, source TEXT NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY(author_id, source)) WITHOUT ROWID;
CREATE TABLE cursors(source TEXT PRIMARY KEY, cursor TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE changes(
  serial INTEGER PRIMARY KEY, source TEXT NOT NULL, id TEXT NOT NULL, rev INTEGER, at REAL NOT NULL,
  reason TEXT NOT NULL);
-- posts of keys from `first` up to the next part's are in the index words_N; dirty: how many were taken out of it
-- since the last purge
CREATE TABLE parts(
  n INTEGER PRIMARY KEY, first INTEGER NOT NULL UNIQUE, posts INTEGER NOT NULL, dirty INTEGER NOT NULL);
CREATE TABLE state(posts INTEGER NOT NULL, serial INTEGER NOT NULL, newest_seen_at REAL, horizon REAL NOT NULL);
INSERT INTO state VALUES(0, 0, NULL, 0);
INSERT INTO parts VALUES(0, 0, 0, 0);
"""
# Neither positions nor texts nor lengths: only which words a post has. The tokenizer takes every character beyond
# ASCII for a letter, so that it leaves words as `words.py` cut them.
WORDS_TABLE = (
    "CREATE VIRTUAL TABLE words_{n} USING fts5(words, content='', detail=none, columnsize=0, tokenize='ascii')"
)


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection for any thread, one at a time; transactions are begun and ended by statements."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_S,
        cached_statements=2_000,  # one for each part of the index
    )
    connection.execute("PRAGMA temp_store=MEMORY")  # posts never get into a temporary file
    connection.execute("PRAGMA cache_size=-65536")
    if write:
        connection.execute("PRAGMA synchronous=FULL")  # what apply has acknowledged survives a power cut
        connection.execute("PRAGMA secure_delete=ON")  # zeros over what is deleted
    else:
        connection.execute("PRAGMA query_only=ON")
    return connection


def create(path: Path) -> None:
    """Makes the file if it is not there. It gets its name when it is whole."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_errors(path, "create"):
            temporary.touch(exist_ok=False)
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # room of retained posts goes back to the disk
            connection.execute("BEGIN")
            for statement in [*_TABLES.split(";\n"), WORDS_TABLE.format(n=0)]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={FORMAT}")
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
        with disk_errors(path, "create"):
            os.replace(temporary, path)
    finally:
        for leftover in path.parent.glob(f"{temporary.name}*"):
            leftover.unlink(missing_ok=True)


def check_format(path: Path, connection: sqlite3.Connection) -> None:
    """Raises UserError where the file is no store of posts, or one of another version."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION:
        raise UserError(f"{path}: not a store of posts, but another SQLite database")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != FORMAT:
        age = "newer" if found > FORMAT else "older"
        raise UserError(
            f"{path}: store format {found} of {'a' if age == 'newer' else 'an'} {age} gigafactory, "
            f"this one reads {FORMAT}"
        )


def lock_for_writing(path: Path) -> int:
    """A descriptor that holds the writer's lock until it is closed, at the latest when the process ends."""
    lock = path.with_name(f"{path.name}-lock")
    with disk_errors(lock, "open"):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 20).decode().strip() or "?"
        os.close(descriptor)
        raise UserError(f"{path}: another process (pid {holder}) writes to this store; stop it first") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


@contextmanager
def speaking(path: Path) -> Iterator[None]:
    """Turns what SQLite says about the file, the disk or another process into a UserError of one line."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        why = _reason(error)
        if why is None:  # a mistake in a statement, not in the file
            raise
        raise UserError(f"{path}: {why}") from error


def _reason(error: sqlite3.DatabaseError) -> str | None:
    return {
        sqlite3.SQLITE_FULL: "cannot write: the disk is full",
        sqlite3.SQLITE_READONLY: "cannot write: no permission, or the file system is read-only",
        sqlite3.SQLITE_CANTOPEN: "cannot open: no such file, or no permission for it and its directory",
        sqlite3.SQLITE_PERM: "cannot open: no permission",
        sqlite3.SQLITE_BUSY: f"another process held it locked for {BUSY_S:g} s",
        sqlite3.SQLITE_NOTADB: "not a store of posts",
        sqlite3.SQLITE_CORRUPT: "the file is damaged; move it away and let the sources fill a new one",
        sqlite3.SQLITE_IOERR: f"the disk does not read or write it ({error})",
    }.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
