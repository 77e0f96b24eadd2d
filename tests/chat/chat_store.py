"""A store of posts in a dict, and a service over it whose answers quote posts that share a word with the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gigafactory.chat import service as service_module
from gigafactory.chat.answer import Answer, Citation, Claim, Cost, Verdict, Window
from gigafactory.chat.saved import SavedAnswers
from gigafactory.chat.service import Service
from gigafactory.factory.chat import ChatSection
from gigafactory.feed.post import Delete, Event, Post
from gigafactory.feed.store import Applied, Change, Found, Held, Query

NOW = 1_772_449_200.0  # 2026-03-02 11:00:00 UTC


class PlainStore:
    """What the server and the saved answers need of a store."""

    def __init__(self) -> None:
        self.posts: dict[tuple[str, str], Post] = {}
        self.tombs: dict[tuple[str, str], Delete] = {}
        self.log: list[Change] = []
        self.trimmed = 0

    def apply(self, events: Sequence[Event], cursors: Mapping[str, str] | None = None) -> Applied:
        for event in events:
            if isinstance(event, Post):
                key = (event.source, event.id)
                if key in self.tombs:
                    continue
                if key in self.posts:
                    self._changed(key, event.rev, event.seen_at)
                self.posts[key] = event
            elif isinstance(event, Delete):
                key = (event.source, event.id)
                self.tombs[key] = event
                if self.posts.pop(key, None):
                    self._changed(key, None, event.at, event.reason)
        return Applied()

    def _changed(self, key: tuple[str, str], rev: int | None, at: float, reason: str = "") -> None:
        self.log.append(Change(len(self.log) + 1, *key, rev, at, reason))

    def cursor(self, source: str) -> str | None:
        return None

    def get(self, source: str, id: str) -> Post | None:
        return self.posts.get((source, id))

    def gone(self, source: str, id: str) -> Delete | None:
        return self.tombs.get((source, id))

    def search(self, query: Query) -> Found:
        posts = sorted(self.posts.values(), key=lambda post: -post.created_at)
        kept = [p for p in posts if set(p.text.lower().split()) & {w.lower() for w in query.words} or not query.words]
        return Found(tuple(kept[: query.limit]))

    def changes(self, since: int, limit: int = 10_000) -> list[Change]:
        return [change for change in self.log if change.serial > max(since, self.trimmed)][:limit]

    def held(self) -> Held:
        newest = max((post.created_at for post in self.posts.values()), default=None)
        return Held(len(self.posts), newest, newest, len(self.log), 0, 0)

    def retain(self, after: float) -> int:
        return 0

    def purge(self) -> int:
        return 0

    def close(self) -> None:
        pass


def post(id: str, text: str, **fields: Any) -> Post:
    made = Post("wire", id, 1, "alice", "alice", NOW - 60, NOW - 59, text, url=f"https://posts.example/{id}")
    return replace(made, **fields)


def quoting(
    question: str, store: Any, now: float, section: Any, trust: Any, writer: Any, window: Window | None, *rest: Any
) -> Answer:
    """A stand-in for `ask`: each post that shares a word with the question is a supported claim."""
    authors, not_authors, sources, _ = rest
    found = store.search(Query(tuple(question.split()))).posts
    kept = [p for p in found if p.created_at < now and (not authors or p.author in authors)]
    kept = [p for p in kept if p.author not in not_authors and (not sources or p.source in sources)]
    claims = tuple(Claim(f"@{p.author}: {p.text}", Verdict.SUPPORTED, 1.0, (Citation.of(p, p.text),)) for p in kept[:3])
    nearest = () if claims else tuple(Citation.of(p, p.text) for p in list(store.posts.values())[:2])
    text = " ".join(claim.text for claim in claims) or "No post supports an answer."
    abstained = "" if claims else "nothing supports an answer"
    shown = window or Window()
    cost = Cost(posts_read=len(found), seconds=0.001)
    return Answer(question, text, claims, bool(claims), now, 60.0, abstained, nearest, window=shown, cost=cost)


def make_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> Service:
    """A service over a PlainStore with three posts, and a clock that stands still."""
    monkeypatch.setattr(service_module, "ask", quoting)
    store = PlainStore()
    store.apply(
        [
            post("p1", "The harbour bridge is closed until Friday"),
            post("p2", "Rovers won 3-1 against City", author="bob", created_at=NOW - 7200),
            post("p3", "The bridge carries <b>42,000</b> cars a day ![x](http://evil/x.png)", author="carol"),
        ]
    )
    section = fields.pop("section", ChatSection())
    return Service(store, section, lambda: NOW, SavedAnswers(tmp_path / "answers.db"), real=lambda: NOW, **fields)
