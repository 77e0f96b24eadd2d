"""A store in memory, for tests of what is built on stores: the plainest that keeps the promise of feed/store.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gigafactory.feed.post import Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.store import Applied, Change, Found, Held, Query
from gigafactory.feed.words import asked, words


class PlainStore:
    def __init__(self, *posts: Post) -> None:
        self.posts: dict[tuple[str, str], Post] = {}
        self.tombs: dict[tuple[str, str], Delete] = {}
        self.log: list[Change] = []
        self.apply(posts)

    def apply(self, events: Sequence[Event], cursors: Mapping[str, str] | None = None) -> Applied:
        for event in events:
            if isinstance(event, Post):
                old = self.posts.get((event.source, event.id))
                if (event.source, event.id) not in self.tombs and (old is None or old.rev < event.rev):
                    self.posts[event.source, event.id] = event
                    if old:
                        self._changed(event.source, event.id, event.rev, event.seen_at)
            elif isinstance(event, Delete):
                self.tombs[event.source, event.id] = event
                if self.posts.pop((event.source, event.id), None):
                    self._changed(event.source, event.id, None, event.at)
            elif isinstance(event, DeleteAuthor | Restore):
                raise NotImplementedError("not needed here")
        return Applied(added=len(events))

    def _changed(self, source: str, id: str, rev: int | None, at: float) -> None:
        self.log.append(Change(len(self.log) + 1, source, id, rev, at))

    def cursor(self, source: str) -> str | None:
        return None

    def get(self, source: str, id: str) -> Post | None:
        return self.posts.get((source, id))

    def gone(self, source: str, id: str) -> Delete | None:
        return self.tombs.get((source, id))

    def wrote(self, source: str, author_id: str) -> bool:
        return any(post.author_id == author_id for post in self.posts.values())

    def search(self, query: Query) -> Found:
        wanted = [asked(word) for word in query.words]
        if query.words and not any(wanted):
            return Found(())
        hit = []
        for post in self.posts.values():
            if query.since is not None and post.created_at < query.since:
                continue
            if query.until is not None and post.created_at >= query.until:
                continue
            author = post.author.lower()
            if query.authors and author not in [name.lower() for name in query.authors]:
                continue
            if author in [name.lower() for name in query.not_authors]:
                continue
            if query.sources and post.source not in query.sources:
                continue
            held = set(words(post.text))
            matches = [set(parts) <= held for parts in wanted if parts]
            if not matches or (all(matches) if query.match == "all" else any(matches)):
                hit.append(post)
        hit.sort(key=lambda post: (-post.created_at, post.source, post.id))
        return Found(tuple(hit[: query.limit]))

    def changes(self, since: int, limit: int = 10_000) -> list[Change]:
        return [change for change in self.log if change.serial > since][:limit]

    def held(self) -> Held:
        newest = max((post.created_at for post in self.posts.values()), default=None)
        return Held(len(self.posts), newest, newest, len(self.log), 0, 0)

    def retain(self, after: float) -> int:
        raise NotImplementedError("not needed here")

    def purge(self) -> int:
        raise NotImplementedError("not needed here")

    def close(self) -> None:
        pass
