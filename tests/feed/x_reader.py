"""A runner as small as can be: what X's connector emits goes into a store of plain dictionaries, with its cursor."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fake_x import TOKEN, FakeX
from store_oracle import Oracle
from virtual_time import VirtualClock
from x_world import World

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSource
from gigafactory.feed.connector import Batch, Health
from gigafactory.feed.post import Event, Post
from gigafactory.feed.store import Applied, Found, Query
from gigafactory.feed.x import XConnector


class DictStore(Oracle):
    """Searched from threads, as stores are."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()

    def apply(self, events: Sequence[Event], cursors: Mapping[str, str] | None = None) -> Applied:
        with self._turn:
            return super().apply(events, cursors)

    def search(self, query: Query) -> Found:
        with self._turn:
            return super().search(query)

    def wrote(self, source: str, author_id: str) -> bool:
        return any(post.author_id == author_id for post in self.posts.values())


@dataclass
class Told(Health):
    """Keeps every error, not the newest alone."""

    all: list[str] = field(default_factory=list)

    def error(self, message: str, at: float) -> None:
        super().error(message, at)
        self.all.append(self.last_error)


class Reader:
    """crash() loses what was emitted and not committed, and what the connector knew; start() goes on from the store."""

    def __init__(self, fake: FakeX, rules: tuple[str, ...] = ("news",), budget_usd: float | None = None) -> None:
        self.store = DictStore()
        self.section = FeedSource(
            name="x", kind="x", url=fake.url, token_env="X_TOKEN", rules=rules, budget_usd=budget_usd
        )
        self.waiting: list[Batch] = []
        self.commit_every = 1  # batches
        self.told: list[str] = []
        self.events: list[Event] = []
        self.task: asyncio.Task[None] | None = None
        self.start()

    def start(self) -> None:
        self.connector = XConnector(self.section, TOKEN, VirtualClock(), self.store)
        self.connector.health = Told(secrets=self.connector.health.secrets, all=self.told)
        self.task = asyncio.create_task(self.connector.run(self._emit, self.store.cursors.get("x")))

    async def _emit(self, batch: Batch) -> None:
        await asyncio.sleep(0)
        self.waiting.append(batch)
        if len(self.waiting) >= self.commit_every:
            self.commit()

    def commit(self) -> None:
        for batch in self.waiting:
            self.events.extend(batch.events)
            self.store.apply(batch.events, {"x": batch.cursor} if batch.cursor is not None else {})
        self.waiting = []

    async def crash(self) -> None:
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, UserError):
            await self.task
        self.waiting = []

    def posts(self) -> dict[str, Post]:
        return {id: post for (_, id), post in self.store.posts.items()}


@contextlib.asynccontextmanager
async def reading(
    rules: tuple[str, ...] = ("news",), budget_usd: float | None = None, **options: Any
) -> AsyncIterator[tuple[World, FakeX, Reader]]:
    """A world, X and one who reads it; everything ends with the block."""
    world = World(VirtualClock())
    async with FakeX(world, **options) as fake:
        reader = Reader(fake, rules, budget_usd)
        try:
            yield world, fake, reader
        finally:
            await reader.crash()


def wrong(world: World, reader: Reader) -> list[str]:
    """What the store holds and should not, or the other way round; by the world alone."""
    must = world.alive(lambda text: "news" in text.split())
    has = reader.posts()
    faults = [f"lost {id}" for id in must.keys() - has.keys()] + [f"ghost {id}" for id in has.keys() - must.keys()]
    for id in must.keys() & has.keys():
        newest = must[id].versions[-1]
        if (has[id].text, has[id].rev, has[id].author) != (newest.text, int(newest.id), must[id].author):
            faults.append(f"{id} is {has[id].text!r}, must be {newest.text!r}")
    return sorted(faults)
