"""Answers and conversations that are kept, and that change with the posts they cite.

One SQLite file. It holds the words of posts only inside answers; when a cited post is edited or deleted, `follow`
rewrites the answers that show it, and `purge` leaves no old byte in the file (a rollback journal, no WAL; VACUUM).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from gigafactory.chat.answer import Answer
from gigafactory.chat.recheck import Touched, cited, recheck
from gigafactory.errors import UserError
from gigafactory.feed.store import Store

AT_ONCE = 1000  # changes of the store followed in one transaction
WAIT_S = 10.0  # for another process that writes the file
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, conversation TEXT NOT NULL,
  asked_at REAL NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS of_conversation ON answers (owner, conversation);
CREATE TABLE IF NOT EXISTS cites (
  source TEXT NOT NULL, post TEXT NOT NULL, answer INTEGER NOT NULL REFERENCES answers ON DELETE CASCADE,
  PRIMARY KEY (source, post, answer)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS of_answer ON cites (answer);
CREATE TABLE IF NOT EXISTS followed (one INTEGER PRIMARY KEY CHECK (one = 1), serial INTEGER NOT NULL);
INSERT OR IGNORE INTO followed VALUES (1, 0);
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it may be shown now. owner: who asked (a digest of the API key, "" without keys). asked_at: wall
    clock, Unix seconds. touched: the cited posts that were edited or deleted since. metadata: the client's own."""

    id: str
    owner: str
    conversation: str
    asked_at: float
    answer: Answer
    model: str = "grok"
    touched: tuple[Touched, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversation:
    """id; title: its first question; answers: how many; asked_at: of the newest."""

    id: str
    title: str
    answers: int
    asked_at: float


KEPT = TypeAdapter(Kept)


class SavedAnswers:
    """The kept answers of one file. Calls may come from any thread. Raises UserError where the file is unusable."""

    def __init__(self, path: Path | str, most: int = 10_000) -> None:
        """most: answers kept; the oldest go first."""
        self.path, self.most = Path(path), most
        self._lock = threading.RLock()
        self._unpurged = True  # a process that died may have left bytes
        try:
            self._db = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise UserError(f"{path}: cannot hold saved answers: {error}") from None

    def keep(self, kept: Kept, store: Store, serial: int) -> Kept:
        """Save an answer made when the store's newest change was `serial`; as it stands if posts changed meanwhile."""
        with self._transaction():
            if serial < self._followed():  # those changes were followed before there was this answer
                kept = _rechecked(kept, store, kept.asked_at)
            self._write(kept)
            (newest,) = self._db.execute("SELECT max(number) FROM answers").fetchone()
            old = self._db.execute("DELETE FROM answers WHERE number <= ?", (newest - self.most,)).rowcount
            self._unpurged |= old > 0
        return kept

    def get(self, id: str, owner: str) -> Kept | None:
        with self._transaction():
            row = self._db.execute("SELECT body FROM answers WHERE id = ? AND owner = ?", (id, owner)).fetchone()
        return KEPT.validate_json(row[0]) if row else None

    def delete(self, id: str, owner: str) -> bool:
        with self._transaction():
            gone = self._db.execute("DELETE FROM answers WHERE id = ? AND owner = ?", (id, owner)).rowcount
            self._unpurged |= gone > 0
        return gone > 0

    def conversations(self, owner: str, limit: int = 50) -> list[Conversation]:
        """Newest first."""
        with self._transaction():
            rows = self._db.execute(
                """SELECT conversation, count(*), max(asked_at), min(number) FROM answers WHERE owner = ?
                   GROUP BY conversation ORDER BY max(number) DESC LIMIT ?""",
                (owner, limit),
            ).fetchall()
            bodies = [self._db.execute("SELECT body FROM answers WHERE number = ?", (row[3],)) for row in rows]
            titles = [KEPT.validate_json(body.fetchone()[0]).answer.question for body in bodies]
        return [Conversation(row[0], title, row[1], row[2]) for row, title in zip(rows, titles, strict=True)]

    def conversation(self, id: str, owner: str) -> list[Kept]:
        """Its answers, oldest first; none where there is no such conversation."""
        with self._transaction():
            rows = self._db.execute(
                "SELECT body FROM answers WHERE owner = ? AND conversation = ? ORDER BY number", (owner, id)
            ).fetchall()
        return [KEPT.validate_json(body) for (body,) in rows]

    def delete_conversation(self, id: str, owner: str) -> int:
        """How many answers went with it."""
        with self._transaction():
            gone = self._db.execute("DELETE FROM answers WHERE owner = ? AND conversation = ?", (owner, id)).rowcount
            self._unpurged |= gone > 0
        return gone

    def follow(self, store: Store, now: float) -> int:
        """Recheck the answers that cite posts which changed since the last call; how many answers are different now."""
        different = 0
        while True:
            with self._transaction():
                serial, newest = self._followed(), store.held().serial
                (some,) = self._db.execute("SELECT EXISTS (SELECT 1 FROM answers)").fetchone()
                changes = store.changes(serial, AT_ONCE) if some and newest > serial else []
                if newest < serial or (changes and changes[0].serial > serial + 1):
                    # another store, or one that no longer knows all that happened: every answer is looked at
                    numbers = [number for (number,) in self._db.execute("SELECT number FROM answers")]
                    reached = newest
                else:
                    posts = dict.fromkeys((change.source, change.id) for change in changes)
                    find = "SELECT answer FROM cites WHERE source = ? AND post = ?"
                    found = [self._db.execute(find, post).fetchall() for post in posts]
                    numbers = sorted({number for rows in found for (number,) in rows})
                    reached = changes[-1].serial if changes else newest
                different += sum(self._recheck(number, store, now) for number in numbers)
                if reached != serial:
                    self._db.execute("UPDATE followed SET serial = ?", (reached,))
            if len(changes) < AT_ONCE or reached == newest:
                return different

    def purge(self) -> bool:
        """Leave no byte in the file of what was rewritten or deleted; False where nothing was."""
        with self._lock:
            if not self._unpurged:
                return False
            self._db.execute("VACUUM")
            self._unpurged = False
        return True

    def close(self) -> None:
        with self._lock:
            self.purge()
            self._db.close()

    def _followed(self) -> int:
        return int(self._db.execute("SELECT serial FROM followed").fetchone()[0])

    def _recheck(self, number: int, store: Store, now: float) -> bool:
        (body,) = self._db.execute("SELECT body FROM answers WHERE number = ?", (number,)).fetchone()
        old = KEPT.validate_json(body)
        new = _rechecked(old, store, now)
        if new == old:
            return False
        self._write(new)
        self._unpurged = True
        return True

    def _write(self, kept: Kept) -> None:
        (number,) = self._db.execute(
            """INSERT INTO answers (id, owner, conversation, asked_at, body) VALUES (?, ?, ?, ?, ?)
               ON CONFLICT (id) DO UPDATE SET body = excluded.body RETURNING number""",
            (kept.id, kept.owner, kept.conversation, kept.asked_at, KEPT.dump_json(kept)),
        ).fetchone()
        self._db.execute("DELETE FROM cites WHERE answer = ?", (number,))
        self._db.executemany(
            "INSERT INTO cites VALUES (?, ?, ?)", ((source, post, number) for source, post in cited(kept.answer))
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise UserError(f"{self.path}: {error}") from None


def _rechecked(kept: Kept, store: Store, now: float) -> Kept:
    result = recheck(kept.answer, store, now)
    if result.stands and result.answer == kept.answer:
        return kept
    known = {(touch.source, touch.id, touch.at): touch for touch in (*kept.touched, *result.touched)}
    return replace(kept, answer=result.answer, touched=tuple(known.values()))
