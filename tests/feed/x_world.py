"""What happens on X while a test looks: people post, edit, delete, are suspended; and what a store must hold then."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gigafactory.feed.connector import Clock

EPOCH_MS = 1_288_834_974_657


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(at * 1000) % 1000:03d}Z"


@dataclass
class Version:
    id: str
    text: str
    at: float


@dataclass
class WorldPost:
    author: str
    versions: list[Version]
    refs: list[tuple[str, str]] = field(default_factory=list)
    deleted_at: float | None = None

    @property
    def id(self) -> str:
        return self.versions[0].id

    def payload(self, upto: int = 0) -> dict[str, Any]:
        """One version as X shows it; 0 is the newest."""
        versions = self.versions[:upto] if upto else self.versions
        newest = versions[-1]
        data: dict[str, Any] = {
            "id": newest.id,
            "text": newest.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
            "author_id": author_id(self.author),
            "created_at": moment(newest.at),
            "edit_history_tweet_ids": [version.id for version in versions],
            "lang": "en",
        }
        if len(newest.text) > 280:
            data["note_tweet"] = {"text": data["text"]}
            data["text"] = data["text"][:270] + "…"
        if self.refs:
            data["referenced_tweets"] = [{"type": kind, "id": id} for kind, id in self.refs]
        return data


def author_id(author: str) -> str:
    return str(1000 + sum(ord(letter) * 131**i for i, letter in enumerate(author)) % 10**9)


class World:
    """What happens on X. clock: gives ids and times. Listeners hear of each event at once."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.posts: dict[str, WorldPost] = {}  # by the id of every version
        self.order: list[tuple[float, WorldPost, int]] = []  # when, post, number of versions then
        self.compliance: list[tuple[float, str, str, dict[str, Any]]] = []  # when, "tweets" or "users", id, event
        self.gone_authors: set[str] = set()
        self.listeners: list[Callable[[str, Any], None]] = []
        self._count = 0

    def new_id(self) -> str:
        self._count += 1
        return str(((int(self.clock.now() * 1000) - EPOCH_MS) << 22) + self._count % 4096)

    def post(self, author: str, text: str, refs: Iterable[tuple[str, str]] = ()) -> str:
        post = WorldPost(author, [Version(self.new_id(), text, self.clock.now())], list(refs))
        self._published(post)
        return post.id

    def edit(self, id: str, text: str) -> str:
        post = self.posts[id]
        post.versions.append(Version(self.new_id(), text, self.clock.now()))
        newest = post.versions[-1].id
        self._published(post)
        body = {"tweet": {"id": newest}, "initial_tweet_id": post.id, "edit_tweet_ids": [v.id for v in post.versions]}
        self._tell("tweets", newest, {"tweet_edit": body})
        return newest

    def delete(self, id: str) -> None:
        post = self.posts[id]
        post.deleted_at = self.clock.now()
        newest = post.versions[-1].id
        body = {"tweet": {"id": newest, "author_id": author_id(post.author)}}
        self._tell("tweets", newest, {"delete": body})

    def suspend(self, author: str) -> None:
        self.gone_authors.add(author)
        for post in self.posts.values():
            if post.author == author and post.deleted_at is None:
                post.deleted_at = self.clock.now()
        self._tell("users", author_id(author), {"user_suspend": {"user": {"id": author_id(author)}}})

    def alive(self, matches: Callable[[str], bool]) -> dict[str, WorldPost]:
        """The oracle: the posts that a store must hold, in their newest version; by id of the first."""
        return {
            post.id: post for post in self.posts.values() if post.deleted_at is None and matches(post.versions[0].text)
        }

    def _published(self, post: WorldPost) -> None:
        self.posts[post.versions[-1].id] = post
        entry = (self.clock.now(), post, len(post.versions))
        self.order.append(entry)
        for listener in self.listeners:
            listener("post", entry)

    def _tell(self, kind: str, id: str, event: dict[str, Any]) -> None:
        for body in event.values():
            body["event_at"] = moment(self.clock.now())
        entry = (self.clock.now(), kind, id, event)
        self.compliance.append(entry)
        for listener in self.listeners:
            listener("compliance", entry)
