"""What the tasks of one X source share: how far each stream is read, which gaps are open, what is spent; one cursor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gigafactory.feed.connector import Batch, Clock, Emit, Health
from gigafactory.feed.post import Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.store import Store
from gigafactory.feed.x_budget import Budget
from gigafactory.feed.x_payload import BadLineError, Message, of_ours, parse_message

VERSION = 1
MOST_GAPS = 100  # open at a time; the oldest are joined beyond
REMEMBERED = 100_000  # ids of posts on their way to the store, and of deletions whose post may still come


class SpentError(Exception):
    """The budget of the month is spent."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Posts created in [since, until) are missing. Unix seconds."""

    since: float
    until: float


class XState:
    """Events leave through `hand_on` alone: what they change here and the cursor that says so go out together, in the
    order of the changes, whichever task they come from."""

    def __init__(self, source: str, clock: Clock, health: Health, budget: Budget, store: Store, emit: Emit) -> None:
        self.source = source
        self.clock = clock
        self.health = health
        self.budget = budget
        self.store = store
        self.emit = emit
        self.read_to: dict[str, float] = {}
        self.gaps: list[Gap] = []
        self.checked_at: float | None = None
        self.doubt_since: float | None = None
        self.rules: frozenset[str] = frozenset()
        self.new_gap = asyncio.Event()
        self.doubted = asyncio.Event()
        self._turn = asyncio.Lock()
        self._on_their_way = _Recent()
        self._deleted = _Recent()

    async def hand_on(self, work: Callable[[], Sequence[Event]]) -> None:
        """Run `work`, which may change this state, and emit its events with the cursor after it."""
        async with self._turn:
            events = tuple(work())
            await self.emit(Batch(events, self.dump()))

    def charged(self, raw: dict[str, Any], now: float) -> Message:
        """A message with posts; what X charges for it is counted. Raises BadLineError."""
        message = parse_message(raw, self.source, now)
        self.budget.read(message.post_ids, message.user_ids, now)
        self.health.spent_usd = self.budget.spent_usd(now)
        return message

    def events(self, message: Message, now: float) -> list[Event]:
        """What a message does to the store; nothing where no rule of ours matched."""
        if not of_ours(message, self.rules):
            return []
        events: list[Event] = [Delete(self.source, id, now, "withheld") for id in message.withheld]
        for post in message.posts:
            ids = (post.id, *post.also, "@" + post.author_id)
            if not any(id in self._deleted for id in ids):
                self._on_their_way.add(ids)
                self.health.posts += 1
                events.append(post)
        return events

    def lines(self, lines: Iterable[bytes], parse: Callable[[bytes, float], Iterable[Event]]) -> list[Event]:
        """The events of lines of a stream; empty ones are heartbeats, bad ones are counted and told."""
        now = self.clock.now()
        self.health.last_line_at = now
        events: list[Event] = []
        for line in lines:
            if line.strip():
                try:
                    events.extend(parse(line, now))
                except BadLineError as error:
                    self.health.bad_line(str(error), now)
        return events

    def deletions(self, events: Iterable[Event]) -> list[Event]:
        """X tells of every deletion anywhere: those of posts that we hold or that are on their way to the store. Others
        are kept in mind for a while: their post may come later."""
        kept = []
        for event in events:
            if isinstance(event, Delete):
                self._deleted.add((event.id,))
                ours = event.id in self._on_their_way or self.held(event.id) is not None
            elif isinstance(event, DeleteAuthor):
                self._deleted.add(("@" + event.author_id,))
                ours = "@" + event.author_id in self._on_their_way or self.store.wrote(self.source, event.author_id)
            else:
                ours = True
            if isinstance(event, Restore):
                self._deleted.drop(event.id if event.id is not None else f"@{event.author_id}")
            if ours:
                kept.append(event)
        return kept

    def held(self, id: str) -> Post | None:
        return self.store.get(self.source, id)

    def missing(self, since: float, until: float) -> None:
        """A gap that must be filled by asking."""
        self.gaps.append(Gap(since, until))
        if len(self.gaps) > MOST_GAPS:
            first, second = self.gaps[:2]
            self.gaps[:2] = [Gap(min(first.since, second.since), max(first.until, second.until))]
        self.new_gap.set()

    def doubt(self, since: float) -> None:
        """Posts created since then may have been deleted without our knowing: they came late, by backfill or recovery,
        and what X told of them before may be forgotten."""
        self.doubt_since = since if self.doubt_since is None else min(since, self.doubt_since)
        self.doubted.set()

    def check_budget(self, lines: float = 1) -> None:
        """Raises SpentError where so many more posts do not fit."""
        if self.budget.lines_left(self.clock.now()) < lines:
            raise SpentError

    def dump(self) -> str:
        return json.dumps(
            {
                "version": VERSION,
                "read_to": self.read_to,
                "gaps": [[gap.since, gap.until] for gap in self.gaps],
                "checked_at": self.checked_at,
                "doubt_since": self.doubt_since,
                "spent": self.budget.dump(),
            },
            separators=(",", ":"),
        )

    def load(self, cursor: str | None) -> None:
        """What dump() gave. A cursor that cannot be read is told and starts anew from now."""
        try:
            saved = json.loads(cursor) if cursor else {}
            read_to = {str(key): _time(at) for key, at in saved.get("read_to", {}).items()}
            gaps = [Gap(_time(since), _time(until)) for since, until in saved.get("gaps", [])]
            checked_at, doubt_since = saved.get("checked_at"), saved.get("doubt_since")
            self.budget.load(saved.get("spent"))
            self.read_to, self.gaps = read_to, gaps
            self.checked_at = None if checked_at is None else _time(checked_at)
            if doubt_since is not None:
                self.doubt(_time(doubt_since))
        except (ValueError, TypeError, AttributeError, RecursionError):
            self.health.error("the saved place in the stream cannot be read: reading on from now", self.clock.now())
        if self.gaps:
            self.new_gap.set()


def _time(value: Any) -> float:
    at = float(value)
    if not 0 <= at < 1e11:
        raise ValueError(f"{at} is no time")
    return at


class _Recent:
    """The newest ids, so many."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._ids

    def add(self, ids: Iterable[str]) -> None:
        for id in ids:
            self._ids.pop(id, None)
            self._ids[id] = None
        while len(self._ids) > REMEMBERED:
            del self._ids[next(iter(self._ids))]

    def drop(self, id: str) -> None:
        self._ids.pop(id, None)
