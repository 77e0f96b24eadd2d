"""What every store of posts does. `sqlite.py` and `postgres.py` keep this promise; one test suite holds both to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gigafactory.feed.post import Delete, Event, Post

CHANGES_KEPT = 1_000_000


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch changed. Duplicates and posts that are held back count in neither of the first three. held_back: a
    tombstone forbids them, or they were created before what `retain` was last told."""

    added: int = 0
    revised: int = 0
    deleted: int = 0
    held_back: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """Posts to look for; newest first.

    words: as a person types them; the store folds case and accents and splits text without spaces (Chinese, Japanese).
    No words: every post of the window. match: all of the words, or any. since, until: created_at in [since, until).
    authors, sources: only these (handles without "@", in any case); not_authors: none of these.
    deadline_s: give what was found by then, with complete=False.
    """

    words: tuple[str, ...] = ()
    match: str = "any"
    since: float | None = None
    until: float | None = None
    authors: tuple[str, ...] = ()
    not_authors: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    limit: int = 300
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """posts: newest first. complete: False where the deadline cut the search."""

    posts: tuple[Post, ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """After change number `serial`, (source, id) is no longer what it was. rev: the new one; None: it is gone."""

    serial: int
    source: str
    id: str
    rev: int | None
    at: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """What a store holds. newest_seen_at: when the latest post came that it ever kept. serial: of the newest change.
    waiting: deleted posts whose bytes are not yet purged. bytes: on disk."""

    posts: int
    newest_created_at: float | None
    newest_seen_at: float | None
    serial: int
    waiting: int
    bytes: int


class Store(Protocol):
    """Posts, tombstones and cursors. Every call may come from any thread; one process writes, others may read.

    Raises UserError where its file or server cannot be used, with the reason.
    """

    def apply(self, events: Sequence[Event], cursors: Mapping[str, str] | None = None) -> Applied:
        """One transaction: events in their order, and where each source is read up to. When it returns, they are
        durable and searchable; before, none of them is."""
        ...

    def cursor(self, source: str) -> str | None: ...

    def get(self, source: str, id: str) -> Post | None:
        """The newest revision, by its id or one of its other ids; None if it is unknown or gone."""
        ...

    def gone(self, source: str, id: str) -> Delete | None:
        """The tombstone of a post, if it was deleted."""
        ...

    def wrote(self, source: str, author_id: str) -> bool:
        """Whether a post of this author is here."""
        ...

    def search(self, query: Query) -> Found: ...

    def changes(self, since: int, limit: int = 10_000) -> list[Change]:
        """Revisions and deletions of posts that were there, after change number `since`, in their order.

        Serials have no gaps. Only the newest CHANGES_KEPT are kept: a first serial beyond since + 1, or none while
        held().serial is larger, says that some are forgotten, and that every post in question must be looked up."""
        ...

    def held(self) -> Held: ...

    def retain(self, after: float) -> int:
        """Delete posts created before `after`; how many. From now on the store holds such posts back, so that it may
        forget tombstones older than that. Bytes go with the next purge, at the latest."""
        ...

    def purge(self) -> int:
        """Take the bytes of everything deleted out of every file of the store; how many posts that were."""
        ...

    def close(self) -> None: ...
