"""What a batch of events does to a store: the rules, without a store. Each keeps them by loading what the batch touches
(`Before`), asking here, and writing what comes out (`After`) in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gigafactory.feed.intake import clean, cleaned
from gigafactory.feed.post import EVERY_REVISION, Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.store import Applied

Name = tuple[str, str]  # source and id, or source and author_id


class Stored(NamedTuple):
    """What the rules need of a post in the store. key: where it is kept; None: it came with this batch."""

    key: int | None
    rev: int
    author_id: str
    also: tuple[str, ...]


class Tombstone(NamedTuple):
    """Of a post. root: the id that its Delete named; all tombstones of one Delete have it, and Restore takes them away
    together. by_author: it only says why the post is gone, and it is the author's tombstone that holds it back."""

    rev: int
    at: float
    reason: str
    root: str
    by_author: str | None = None


@dataclass(slots=True)
class Before:
    """What the store holds of that which the events touch.

    posts: of every id of an event, of every post that has such an id among its others, and of every author to delete.
    named: id -> posts that have it among their others. authored: author to delete -> posts. tombstones: of every id of
    an event and other id of a post in it, and those with the same root. authors: tombstones of authors in the events.
    """

    posts: dict[Name, Stored] = field(default_factory=dict)
    named: dict[Name, list[Name]] = field(default_factory=dict)
    authored: dict[Name, list[Name]] = field(default_factory=dict)
    tombstones: dict[Name, Tombstone] = field(default_factory=dict)
    authors: dict[Name, tuple[float, str]] = field(default_factory=dict)
    horizon: float = 0.0


@dataclass(slots=True)
class After:
    """What to write. drop: keys of posts to take out. put: posts to add. In tombstones and authors None is to remove.
    changes: (source, id, rev, at, reason), in order."""

    applied: Applied
    drop: list[int]
    put: list[Post]
    tombstones: dict[Name, Tombstone | None]
    authors: dict[Name, tuple[float, str] | None]
    changes: list[tuple[str, str, int | None, float, str]]


@dataclass(slots=True)
class Touched:
    """Names to load for `Before`."""

    posts: set[Name] = field(default_factory=set)
    aliases: set[Name] = field(default_factory=set)
    deletes: set[Name] = field(default_factory=set)
    restores: set[Name] = field(default_factory=set)
    authors: set[Name] = field(default_factory=set)
    deleted_authors: set[Name] = field(default_factory=set)
    restored_authors: set[Name] = field(default_factory=set)


def cleaned_events(events: Iterable[Event]) -> list[Event]:
    """The events as stores keep them; see `intake.cleaned`."""
    return [cleaned(event) if isinstance(event, Post) else _cleaned_other(event) for event in events]


def _cleaned_other(event: Delete | DeleteAuthor | Restore) -> Event:
    if isinstance(event, Delete):
        rev = max(-EVERY_REVISION, min(event.rev, EVERY_REVISION))
        return Delete(clean(event.source), clean(event.id), event.at, clean(event.reason), rev)
    if isinstance(event, DeleteAuthor):
        return DeleteAuthor(clean(event.source), clean(event.author_id), event.at, clean(event.reason))
    id, author_id = (None if name is None else clean(name) for name in (event.id, event.author_id))
    return Restore(clean(event.source), event.at, id, author_id)


def touched(events: Iterable[Event]) -> Touched:
    names = Touched()
    for event in events:
        if isinstance(event, Post):
            names.posts.add((event.source, event.id))
            names.authors.add((event.source, event.author_id))
            if event.also:
                names.aliases.update((event.source, other) for other in event.also)
        elif isinstance(event, Delete):
            names.deletes.add((event.source, event.id))
        elif isinstance(event, DeleteAuthor):
            names.deleted_authors.add((event.source, event.author_id))
        else:
            if event.id is not None:
                names.restores.add((event.source, event.id))
            if event.author_id is not None:
                names.restored_authors.add((event.source, event.author_id))
    return names


def merge(events: Sequence[Event], before: Before) -> After:
    """One after the other, as if each came alone; see the events in `post.py` for what they mean."""
    batch = _Batch(before)
    for event in events:
        if isinstance(event, Post):
            batch.post(event)
        elif isinstance(event, Delete):
            batch.delete(event)
        elif isinstance(event, DeleteAuthor):
            batch.delete_author(event)
        else:
            batch.restore(event)
    return batch.after()


class _Batch:
    def __init__(self, before: Before) -> None:
        self._posts = before.posts
        self._named = before.named
        self._authored = before.authored
        self._tombstones = before.tombstones
        self._authors = before.authors
        self._horizon = before.horizon
        self._put: dict[Name, Post] = {}
        self._drop: list[int] = []
        self._tombstone_writes: dict[Name, Tombstone | None] = {}
        self._author_writes: dict[Name, tuple[float, str] | None] = {}
        self._changes: list[tuple[str, str, int | None, float, str]] = []
        self._added = self._revised = self._deleted = self._held_back = 0

    def after(self) -> After:
        applied = Applied(self._added, self._revised, self._deleted, self._held_back)
        put = list(self._put.values())
        return After(applied, self._drop, put, self._tombstone_writes, self._author_writes, self._changes)

    def post(self, post: Post) -> None:
        source, name = post.source, (post.source, post.id)
        if post.created_at < self._horizon or (source, post.author_id) in self._authors:
            self._held_back += 1
            return
        if self._tombstones and any(self._holds(source, id, post.rev) for id in (post.id, *post.also)):
            self._held_back += 1
            return
        stored = self._posts.get(name)
        if stored is None:
            self._added += 1
        elif post.rev <= stored.rev:
            return
        else:
            self._revised += 1
            self._changes.append((source, post.id, post.rev, post.seen_at, "edited"))
            self._remove(name, stored)
        self._put[name] = post
        self._posts[name] = Stored(None, post.rev, post.author_id, post.also)
        for other in post.also:
            self._named.setdefault((source, other), []).append(name)

    def delete(self, event: Delete) -> None:
        source, named = event.source, (event.source, event.id)
        self._bury(named, Tombstone(event.rev, event.at, event.reason, event.id))
        for name in dict.fromkeys((named, *self._named.get(named, ()))):
            stored = self._posts.get(name)
            if stored is None or stored.rev > event.rev:
                continue
            for id in (name[1], *stored.also):
                self._bury((source, id), Tombstone(event.rev, event.at, event.reason, event.id))
            self._gone(name, stored, event.at, event.reason)

    def delete_author(self, event: DeleteAuthor) -> None:
        author = (event.source, event.author_id)
        if author not in self._authors:
            self._authors[author] = self._author_writes[author] = (event.at, event.reason)
        of_batch = (name for name, post in self._put.items() if (post.source, post.author_id) == author)
        for name in sorted({*self._authored.get(author, ()), *of_batch}):
            stored = self._posts.get(name)
            if stored is None or stored.author_id != event.author_id:
                continue
            for id in (name[1], *stored.also):
                if (event.source, id) not in self._tombstones:
                    tombstone = Tombstone(stored.rev, event.at, event.reason, name[1], event.author_id)
                    self._write((event.source, id), tombstone)
            self._gone(name, stored, event.at, event.reason)

    def restore(self, event: Restore) -> None:
        if event.id is not None:
            tombstone = self._tombstones.get((event.source, event.id))
            if tombstone is not None:
                self._unbury(event.source, lambda other: other.root == tombstone.root)
        if event.author_id is not None:
            author = (event.source, event.author_id)
            if self._authors.pop(author, None) is not None:
                self._author_writes[author] = None
            self._unbury(event.source, lambda other: other.by_author == event.author_id)

    def _holds(self, source: str, id: str, rev: int) -> bool:
        tombstone = self._tombstones.get((source, id))
        return tombstone is not None and tombstone.by_author is None and tombstone.rev >= rev

    def _bury(self, name: Name, tombstone: Tombstone) -> None:
        before = self._tombstones.get(name)
        if before is None or before.by_author is not None or before.rev < tombstone.rev:
            self._write(name, tombstone)

    def _write(self, name: Name, tombstone: Tombstone) -> None:
        self._tombstones[name] = self._tombstone_writes[name] = tombstone

    def _unbury(self, source: str, which: Callable[[Tombstone], bool]) -> None:
        for name in [name for name, other in self._tombstones.items() if name[0] == source and which(other)]:
            del self._tombstones[name]
            self._tombstone_writes[name] = None

    def _gone(self, name: Name, stored: Stored, at: float, reason: str) -> None:
        self._deleted += 1
        self._changes.append((*name, None, at, reason))
        self._remove(name, stored)

    def _remove(self, name: Name, stored: Stored) -> None:
        del self._posts[name]
        for other in stored.also:
            names = self._named.get((name[0], other), [])
            if name in names:
                names.remove(name)
        if stored.key is None:
            del self._put[name]
        else:
            self._drop.append(stored.key)
