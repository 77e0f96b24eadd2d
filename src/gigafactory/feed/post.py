"""What a source says: posts, and what becomes of them. Every connector emits these, every store takes them.

Times are Unix seconds (UTC). A post is known by (source, id); its newest revision is the post.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERY_REVISION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Post:
    """One revision of a post.

    source: its name in the factory file. id: what the source calls it and never changes; an edited post of X keeps the
    id of its first version. rev: larger is newer; the same or a smaller one than the store has changes nothing.
    author: handle to show and to filter by, without "@". author_id: what a purge of the author goes by.
    seen_at: when it reached us. also: other ids of the same post (versions of X), by which it may be deleted.
    refs: "reply:ID", "quote:ID", "repost:ID" of the same source. train_ok: training may read it; never so for X.
    """

    source: str
    id: str
    rev: int
    author: str
    author_id: str
    created_at: float
    seen_at: float
    text: str
    url: str = ""
    lang: str = ""
    also: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()
    train_ok: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """A post is gone, now and if it arrives later: revisions up to `rev` never show again."""

    source: str
    id: str
    at: float
    reason: str = "deleted"
    rev: int = EVERY_REVISION


@dataclass(frozen=True, slots=True)
class DeleteAuthor:
    """All posts of an author are gone, now and if they arrive later, until Restore."""

    source: str
    author_id: str
    at: float
    reason: str = "account deleted"


@dataclass(frozen=True, slots=True)
class Restore:
    """A post (id) or an author (author_id) may be stored again; what was deleted does not come back by itself."""

    source: str
    at: float
    id: str | None = None
    author_id: str | None = None


Event = Post | Delete | DeleteAuthor | Restore
