"""A timeline: scripted events, the posts that tell them, chatter around them, and what is true when.

The oracle is here: `Event.truth` says which value holds from when, and every post knows what it states. Nothing that
answers a question sees more than the feed's events.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from bench.replay.values import Value
from gigafactory.feed.post import Delete, DeleteAuthor, Post
from gigafactory.feed.post import Event as FeedEvent

FACTS = ("fact", "correction", "copy")  # what a post of these stances states counts
NEVER = float("inf")


@dataclass(slots=True)
class Told:
    """A post and what it is about. stance: fact, correction, copy (of another post), rumour, denial, satire, injected,
    history, preview, react or chatter. states: what it says of the event. edits: later revisions and what they state.
    of: the post that a copy copies."""

    post: Post
    event: int
    stance: str
    states: dict[str, Value]
    edits: list[tuple[Post, dict[str, Value]]] = field(default_factory=list)
    deleted_at: float = NEVER
    of: int = -1
    by_author: bool = False  # deleted with the whole account

    def key(self) -> tuple[str, str]:
        return self.post.source, self.post.id

    def visible(self, at: float) -> bool:
        return self.post.seen_at <= at < self.deleted_at

    def now(self, at: float) -> tuple[Post, dict[str, Value]]:
        """The revision that counts at a time, and what it states."""
        found = self.post, self.states
        for post, states in self.edits:
            if post.seen_at <= at:
                found = post, states
        return found


@dataclass(slots=True)
class Event:
    """Something that happens. known_at: when it is first told as a fact. changed_at: when a correction, an edit or new
    figures come; NEVER for none. hidden: what no post says. near: events that it may be taken for. again: other times
    that the same happened."""

    number: int
    kind: str
    plot: str
    fields: dict[str, str]
    known_at: float
    truth: dict[str, list[tuple[float, Value]]]
    changed_at: float = NEVER
    hidden: str = ""
    near: list[int] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    told: list[int] = field(default_factory=list)

    def holds(self, attribute: str, at: float) -> Value | None:
        """The value that is true of an attribute, as far as it can be known at a time."""
        history = self.truth.get(attribute, [])
        place = bisect_right([since for since, _ in history], at)
        return history[place - 1][1] if place else None


@dataclass(slots=True)
class Timeline:
    """start, end: Unix seconds. told: every post, in the order of its creation. taken: names that are in use."""

    seed: int
    start: float
    end: float
    events: list[Event]
    told: list[Told]

    def feed(self) -> list[tuple[float, FeedEvent]]:
        """What a source would send: (Unix seconds, event), in the order of arrival."""
        return sorted(self._feed(), key=lambda item: item[0])

    def _feed(self) -> Iterator[tuple[float, FeedEvent]]:
        gone: set[tuple[str, str]] = set()
        for told in self.told:
            yield told.post.seen_at, told.post
            for post, _ in told.edits:
                yield post.seen_at, post
            if told.deleted_at == NEVER:
                continue
            source, author = told.post.source, told.post.author_id
            if not told.by_author:
                yield told.deleted_at, Delete(source, told.post.id, told.deleted_at)
            elif (source, author) not in gone:
                gone.add((source, author))
                yield told.deleted_at, DeleteAuthor(source, author, told.deleted_at)

    def supports(self, event: Event, attribute: str, value: Value, at: float) -> list[Told]:
        """Visible posts that state a value as a fact."""
        return [
            told
            for told in (self.told[index] for index in event.told)
            if told.visible(at) and told.stance in FACTS and told.now(at)[1].get(attribute) == value
        ]


def edited(post: Post, text: str, at: float) -> Post:
    """The next revision of a post."""
    return replace(post, text=text, rev=post.rev + 1, seen_at=at)
