"""A store in two dictionaries, written from the promise alone: what connectors are held against."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from gigafactory.errors import UserError
from gigafactory.feed.post import Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.store import Applied, Change, Found, Held, Query

Key = tuple[str, str]


class PlainStore:
    """fails: why the next calls of apply fail, one each."""

    def __init__(self) -> None:
        self.posts: dict[Key, Post] = {}
        self.tombstones: dict[Key, Delete] = {}
        self.authors: dict[Key, DeleteAuthor] = {}
        self.cursors: dict[str, str] = {}
        self.fails: list[str] = []
        self.batches: list[int] = []
        self.purges = 0
        self.retained: list[float] = []
        self.waiting = 0
        self.closed = False
        self._lock = threading.Lock()

    def apply(self, events: Sequence[Event], cursors: Mapping[str, str] | None = None) -> Applied:
        with self._lock:
            if self.fails:
                raise UserError(self.fails.pop(0))
            for event in events:
                self._one(event)
            self.cursors |= cursors or {}
            self.batches.append(len(events))
        return Applied()

    def _one(self, event: Event) -> None:
        match event:
            case Post():
                key = (event.source, event.id)
                gone = self.tombstones.get(key)
                held = self.posts.get(key)
                blocked = (event.source, event.author_id) in self.authors or (gone and event.rev <= gone.rev)
                if not blocked and (held is None or event.rev > held.rev):
                    self.posts[key] = event
            case Delete():
                key = (event.source, event.id)
                if key not in self.tombstones or self.tombstones[key].rev < event.rev:
                    self.tombstones[key] = event
                if key in self.posts and self.posts[key].rev <= event.rev:
                    self._drop(key)
            case DeleteAuthor():
                self.authors[event.source, event.author_id] = event
                for key, post in list(self.posts.items()):
                    if post.source == event.source and post.author_id == event.author_id:
                        self._drop(key)
            case Restore():
                if event.id is not None:
                    self.tombstones.pop((event.source, event.id), None)
                if event.author_id is not None:
                    self.authors.pop((event.source, event.author_id), None)

    def _drop(self, key: Key) -> None:
        del self.posts[key]
        self.waiting += 1

    def cursor(self, source: str) -> str | None:
        return self.cursors.get(source)

    def get(self, source: str, id: str) -> Post | None:
        return self.posts.get((source, id))

    def gone(self, source: str, id: str) -> Delete | None:
        return self.tombstones.get((source, id))

    def search(self, query: Query) -> Found:
        until = float("inf") if query.until is None else query.until
        posts = [post for post in self.posts.values() if post.created_at < until]
        posts.sort(key=lambda post: (-post.created_at, post.source, post.id))
        return Found(tuple(posts[: query.limit]))

    def changes(self, since: int, limit: int = 10_000) -> list[Change]:
        return []

    def held(self) -> Held:
        newest = max((post.created_at for post in self.posts.values()), default=None)
        return Held(len(self.posts), newest, newest, 0, self.waiting, 0)

    def retain(self, after: float) -> int:
        self.retained.append(after)
        return 0

    def purge(self) -> int:
        self.purges += 1
        count, self.waiting = self.waiting, 0
        return count

    def close(self) -> None:
        self.closed = True
