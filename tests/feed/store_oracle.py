"""What a store must hold, by the meaning of the events alone: plain dictionaries, every question a scan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gigafactory.feed.post import Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.store import Applied, Change, Found, Query


class Oracle:
    def __init__(self) -> None:
        self.posts: dict[tuple[str, str], Post] = {}
        self.deletes: dict[tuple[str, str], tuple[Delete, str]] = {}  # with the id that the event named
        self.by_author: dict[tuple[str, str], tuple[Delete, str]] = {}  # with the author
        self.authors: set[tuple[str, str]] = set()
        self.cursors: dict[str, str] = {}
        self.log: list[Change] = []
        self.newest_seen_at: float | None = None
        self.horizon = 0.0

    def apply(self, events: Sequence[Event], cursors: Mapping[str, str] | None = None) -> Applied:
        self.cursors.update(cursors or {})
        counts = {"added": 0, "revised": 0, "deleted": 0, "held_back": 0}
        for event in events:
            if isinstance(event, Post):
                counts[self._post(event)] += 1 if self._post_counts else 0
            elif isinstance(event, Delete):
                counts["deleted"] += self._delete(event)
            elif isinstance(event, DeleteAuthor):
                counts["deleted"] += self._delete_author(event)
            else:
                self._restore(event)
        kept = [event.seen_at for event in events if isinstance(event, Post) and event in self.posts.values()]
        self.newest_seen_at = max(
            [*kept, *([] if self.newest_seen_at is None else [self.newest_seen_at])], default=None
        )
        return Applied(**counts)

    def _post(self, post: Post) -> str:
        self._post_counts = True
        forbids = [
            self.deletes[post.source, i][0].rev for i in (post.id, *post.also) if (post.source, i) in self.deletes
        ]
        if (
            (post.source, post.author_id) in self.authors
            or post.created_at < self.horizon
            or any(rev >= post.rev for rev in forbids)
        ):
            return "held_back"
        old = self.posts.get((post.source, post.id))
        if old is not None and old.rev >= post.rev:
            self._post_counts = False
            return "added"
        self.posts[post.source, post.id] = post
        if old is None:
            return "added"
        self._change(post.source, post.id, post.rev, post.seen_at, "edited")
        return "revised"

    def _delete(self, event: Delete) -> int:
        victims = [
            post
            for post in self.posts.values()
            if post.source == event.source and event.id in (post.id, *post.also) and post.rev <= event.rev
        ]
        victims.sort(key=lambda post: (post.id != event.id, post.id))
        ids = {event.id, *(id for post in victims for id in (post.id, *post.also))}
        for id in ids:
            before = self.deletes.get((event.source, id))
            if before is None or before[0].rev < event.rev:
                self.deletes[event.source, id] = (Delete(event.source, id, event.at, event.reason, event.rev), event.id)
                self.by_author.pop((event.source, id), None)
        for post in victims:
            del self.posts[post.source, post.id]
            self._change(post.source, post.id, None, event.at, event.reason)
        return len(victims)

    def _delete_author(self, event: DeleteAuthor) -> int:
        author = (event.source, event.author_id)
        self.authors.add(author)
        victims = sorted(
            (post for post in self.posts.values() if (post.source, post.author_id) == author), key=lambda post: post.id
        )
        for post in victims:
            for id in (post.id, *post.also):
                name = (post.source, id)
                if name not in self.deletes and name not in self.by_author:
                    gone = Delete(post.source, id, event.at, event.reason, post.rev)
                    self.by_author[name] = (gone, f"{event.author_id}/{post.id}")
            del self.posts[post.source, post.id]
            self._change(post.source, post.id, None, event.at, event.reason)
        return len(victims)

    def _restore(self, event: Restore) -> None:
        if event.id is not None:
            name = (event.source, event.id)
            if name in self.deletes or name in self.by_author:
                root = self.deletes[name][1] if name in self.deletes else self.by_author[name][1].split("/")[1]
                self.deletes = {n: v for n, v in self.deletes.items() if n[0] != event.source or v[1] != root}
                self.by_author = {
                    n: v for n, v in self.by_author.items() if n[0] != event.source or v[1].split("/")[1] != root
                }
        if event.author_id is not None:
            self.authors.discard((event.source, event.author_id))
            self.by_author = {
                n: v for n, v in self.by_author.items() if n[0] != event.source or v[1].split("/")[0] != event.author_id
            }

    def _change(self, source: str, id: str, rev: int | None, at: float, reason: str) -> None:
        self.log.append(Change(len(self.log) + 1, source, id, rev, at, reason))

    def retain(self, after: float) -> int:
        self.horizon = max(self.horizon, after)
        self.deletes = {name: value for name, value in self.deletes.items() if value[0].at >= after}
        self.by_author = {name: value for name, value in self.by_author.items() if value[0].at >= after}
        old = [post for post in self.posts.values() if post.created_at < after]
        for post in old:
            del self.posts[post.source, post.id]
            self._change(post.source, post.id, None, after, "retention")
        return len(old)

    def get(self, source: str, id: str) -> Post | None:
        if (source, id) in self.posts:
            return self.posts[source, id]
        named = [post for post in self.posts.values() if post.source == source and id in post.also]
        return min(named, key=lambda post: (-post.created_at, post.id), default=None)

    def gone(self, source: str, id: str) -> Delete | None:
        if (source, id) in self.posts:
            return None
        name = (source, id)
        return self.deletes[name][0] if name in self.deletes else self.by_author.get(name, (None,))[0]

    def search(self, query: Query) -> Found:
        asked = [set(_words(word)) for word in query.words if _words(word)]
        if query.words and not asked:
            return Found(())
        found = []
        for post in self.posts.values():
            has = set(_words(post.text))
            matches = [group <= has for group in asked]
            if asked and not (all(matches) if query.match == "all" else any(matches)):
                continue
            if query.since is not None and post.created_at < query.since:
                continue
            if query.until is not None and post.created_at >= query.until:
                continue
            if query.authors and post.author.lower() not in [name.lower().lstrip("@") for name in query.authors]:
                continue
            if post.author.lower() in [name.lower().lstrip("@") for name in query.not_authors]:
                continue
            if query.sources and post.source not in query.sources:
                continue
            found.append(post)
        found.sort(key=lambda post: (-post.created_at, post.source, post.id))
        return Found(tuple(found[: query.limit]))


def _words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())
