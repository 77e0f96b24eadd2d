"""The feed runs: connectors -> a bounded queue -> one writer -> the store; purge, retention, status, a clean stop."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSection, FeedSource
from gigafactory.feed.connector import Batch, Clock, Connector, SystemClock
from gigafactory.feed.post import Post
from gigafactory.feed.sources import clock_of, connect, only_writer, place, prepared, status_path
from gigafactory.feed.status import Delays, SourceStatus, Status, quantiles, write_status
from gigafactory.feed.store import Held, Store
from gigafactory.feed.stream import Failure, delay_s

__all__ = ["Feed", "clock_of", "connect", "only_writer", "place", "prepared", "status_path"]

QUEUED = 20_000  # events that wait for the store, at most, before the sources wait
HEARTBEATS = 100  # cursors without events that wait for the next commit, at most
COMMITTED = 5_000  # events of one transaction, at most
STATUS_S = 2.0
LOOKS = 3  # at a source that is not connected, before that is told
LONGEST_RETRY_S = 30.0  # between attempts at a store that takes nothing
RETAIN_S = 600.0


@dataclass(slots=True)
class _Source:
    section: FeedSource
    connector: Connector
    state: str = "connecting"
    away: int = 0  # looks in a row at which it was not connected; -1: that is told
    delays: Delays = field(default_factory=Delays)


class Feed:
    """One feed over one store, which only this object writes.

    section: as `prepared`. tell: gets each line that a person should read (a source that fails, a store that is full
    and when it takes posts again). status_path: a file that `feed status` of other processes reads. real: waits, pauses
    and rates go by it, whatever time the posts are of.
    """

    def __init__(
        self,
        section: FeedSection,
        store: Store,
        clock: Clock,
        *,
        tell: Callable[[str], None],
        status_path: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        connectors: Sequence[Connector] | None = None,
        real: Clock | None = None,
    ) -> None:
        self._section, self._store, self._clock, self._tell = section, store, clock, tell
        self._status_path = status_path
        self._real = real if real is not None else SystemClock()
        if connectors is None:
            connectors = [
                connect(source, f"feed.sources[{i}]", clock, environ, store) for i, source in enumerate(section.sources)
            ]
        self._sources = [_Source(*pair) for pair in zip(section.sources, connectors, strict=True)]
        self._waiting: deque[tuple[_Source, Batch]] = deque()
        self._queued = 0
        self._arrived, self._room, self._closing = asyncio.Event(), asyncio.Event(), False
        self._room.set()
        self._delays = Delays()
        self._store_error = ""
        self._held = Held(0, None, None, 0, 0, 0)
        self._state = "running"
        self._began_at = clock.now()  # what was written before is caught up on: its age is no delay

    async def run(self, stop: asyncio.Event, *, until_ended: bool = False) -> None:
        """Until `stop` is set (or, with until_ended, every source has ended): then what was read is stored, and the
        cursors with it. A source that fails for good is told of and the others go on; UserError when all have failed.
        """
        drivers = [asyncio.create_task(self._drive(source)) for source in self._sources]
        writer = asyncio.create_task(self._write(stop))
        keepers = [asyncio.create_task(self._purge()), asyncio.create_task(self._retain())]
        keepers.append(asyncio.create_task(self._publish()))
        stopped = asyncio.create_task(stop.wait())
        ended = asyncio.gather(*drivers, return_exceptions=True)
        try:
            watched: set[asyncio.Future[Any]] = {stopped, writer, *keepers}
            watched |= {ended} if until_ended else set()
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if failed := [task for task in (writer, *keepers) if task in done]:
                failed[0].result()  # a fault of ours: it ends the feed
            await _end(drivers)
            self._closing = True
            self._arrived.set()
            await writer
        finally:
            await _end([*drivers, writer, *keepers, stopped])
            self._state = "stopped"
            await self._publish_once()
        if self._sources and not stop.is_set() and all(source.state == "failed" for source in self._sources):
            raise UserError(f"every source has failed; the first: {self._sources[0].connector.health.last_error}")

    def status(self) -> Status:
        """Of this moment; any thread may ask."""
        at = self._real.now()
        p50, p99 = quantiles(self._delays.recent(at)[1])
        return Status(
            at=at,
            now=self._clock.now(),
            pid=os.getpid(),
            state=self._state,
            posts=self._held.posts,
            bytes=self._held.bytes,
            waiting=self._held.waiting,
            newest_created_at=self._held.newest_created_at,
            queued=self._queued,
            posts_per_s=self._delays.per_s(at),
            searchable_p50_s=p50,
            searchable_p99_s=p99,
            store_error=self._store_error,
            sources=tuple(self._source_status(source, at) for source in self._sources),
        )

    def _source_status(self, source: _Source, at: float) -> SourceStatus:
        health = source.connector.health
        source_s, searchable_s = source.delays.recent(at)
        state = source.state
        if state == "live":
            state = "waiting" if self._store_error else "live" if health.connected else "connecting"
        return SourceStatus(
            source.connector.name,
            source.section.kind,
            state,
            health.posts,
            source.delays.per_s(at),
            *quantiles(source_s),
            *quantiles(searchable_s),
            health.bad_lines,
            health.reconnects,
            health.spent_usd,
            source.section.budget_usd,
            health.last_line_at,
            health.last_error,
            health.last_error_at,
        )

    async def _drive(self, source: _Source) -> None:
        """One source until it ends or fails for good. A fault of the connector is retried: one odd post of one source
        must not end the others."""
        connector, health = source.connector, source.connector.health

        async def emit(batch: Batch) -> None:
            while self._queued >= QUEUED:
                self._room.clear()
                await self._room.wait()
            last = self._waiting[-1] if self._waiting else None
            if last is not None and last[0] is source and not batch.events and not last[1].events:
                self._waiting.pop()  # a heartbeat's cursor waits for the next commit, and takes the place of the last
            self._waiting.append((source, batch))
            self._queued += len(batch.events)
            if self._queued or len(self._waiting) > HEARTBEATS:
                self._arrived.set()

        attempt = 0
        while True:
            cursor = await self._cursor(connector.name)
            source.state = "live"
            try:
                await connector.run(emit, cursor)
            except UserError as error:
                source.state = "failed"
                health.error(str(error), self._real.now())
                self._tell(f"{connector.name}: {health.last_error}")
                return
            except Exception as error:
                attempt += 1
                wait_s = delay_s(Failure.SERVER, attempt)
                at = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(at.filename).name}:{at.lineno}"
                health.error(f"a fault ({where}: {type(error).__name__}: {error})", self._real.now())
                self._tell(f"{connector.name}: {health.last_error}; it starts again in {wait_s:g} s")
                health.reconnects += 1
                health.connected, source.away = False, -1
                await self._real.sleep(wait_s)
            else:
                source.state = "ended"
                return

    async def _cursor(self, name: str) -> str | None:
        """What is committed; waits while the store cannot be asked."""
        while True:
            try:
                return await asyncio.to_thread(self._store.cursor, name)
            except UserError as error:
                if str(error) != self._store_error:
                    self._tell(f"{error}; the feed waits and tries again")
                self._store_error = str(error)
                await self._real.sleep(STATUS_S)

    async def _write(self, stop: asyncio.Event) -> None:
        """Commits at once what comes after a pause, and then twice in commit_s, so that a post that waits for the next
        commit and its end is searchable within it; until closed and empty."""
        commit_s = self._section.store.commit_s / 2
        began = -commit_s
        loop = asyncio.get_running_loop()
        while True:
            if self._closing and not self._waiting:
                return
            if not self._closing and not self._queued and len(self._waiting) <= HEARTBEATS:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            if not self._closing and self._queued < COMMITTED and (pause_s := began + commit_s - loop.time()) > 0:
                await asyncio.sleep(pause_s)
            began = loop.time()
            if not await self._commit(self._take(), stop):
                return

    def _take(self) -> list[tuple[_Source, Batch]]:
        taken: list[tuple[_Source, Batch]] = []
        count = 0
        while self._waiting and (not taken or count + len(self._waiting[0][1].events) <= COMMITTED):
            taken.append(self._waiting.popleft())
            count += len(taken[-1][1].events)
        return taken

    async def _commit(self, taken: list[tuple[_Source, Batch]], stop: asyncio.Event) -> bool:
        """Store it, however long the store takes nothing; False when the feed is stopped before it did."""
        events = [event for _, batch in taken for event in batch.events]
        cursors = {source.connector.name: batch.cursor for source, batch in taken if batch.cursor is not None}
        attempt = 0
        while True:
            stopping = stop.is_set()
            try:
                await asyncio.to_thread(self._store.apply, events, cursors)
                break
            except UserError as error:
                attempt += 1
                if stopping:
                    self._tell(
                        f"{error}; {self._queued} events read are not stored: they are read again at the next start"
                    )
                    return False
                if str(error) != self._store_error:
                    self._tell(f"{error}; the feed waits and tries again, nothing read is lost")
                self._store_error = str(error)
                await _either(stop, min(2.0 ** min(attempt - 1, 10), LONGEST_RETRY_S), self._real)
        if self._store_error:
            self._tell(f"the store takes posts again: {len(events)} waited")
            self._store_error = ""
        self._queued -= len(events)
        self._room.set()
        self._measure(taken)
        return True

    def _measure(self, taken: list[tuple[_Source, Batch]]) -> None:
        now, at = self._clock.now(), self._real.now()
        total: list[tuple[float, float]] = []
        for source, batch in taken:
            delays = [
                (max(post.seen_at - post.created_at, 0.0), max(now - post.created_at, 0.0))
                for post in batch.events
                if isinstance(post, Post) and post.created_at >= self._began_at
            ]
            if delays:
                source.delays.add(at, delays)
                total += delays
        if total:
            self._delays.add(at, total)

    async def _purge(self) -> None:
        """Twice in purge_s, so that a purge that takes its time still ends within it."""
        while True:
            await self._real.sleep(self._section.store.purge_s / 2)
            await self._keep("purge", self._store.purge)

    async def _retain(self) -> None:
        kept_s = self._section.store.retention_days * 86_400
        while True:
            await self._keep("delete old posts", partial(self._store.retain, self._clock.now() - kept_s))
            await self._real.sleep(min(RETAIN_S, kept_s / 10))

    async def _keep(self, doing: str, call: Callable[[], int]) -> None:
        try:
            await asyncio.to_thread(call)
        except UserError as error:  # tried again at the next turn
            if not self._store_error:
                self._tell(f"cannot {doing}: {error}")

    async def _publish(self) -> None:
        while True:
            await self._publish_once()
            for source in self._sources:
                self._look_at(source)
            await self._real.sleep(STATUS_S)

    def _look_at(self, source: _Source) -> None:
        """Tell once that a source is away for longer than a reconnect takes, and once that it is back."""
        health = source.connector.health
        if health.connected or source.state != "live":
            if source.away < 0 and source.state == "live":
                self._tell(f"{source.connector.name}: connected again")
            source.away = 0
        elif source.away >= 0 and health.last_error:
            source.away += 1
            if source.away >= LOOKS:
                source.away = -1
                self._tell(f"{source.connector.name}: not connected ({health.last_error}); it is tried again and again")

    async def _publish_once(self) -> None:
        try:
            self._held = await asyncio.to_thread(self._store.held)
        except UserError as error:
            self._store_error = self._store_error or str(error)
        if self._status_path is not None:
            try:
                await asyncio.to_thread(write_status, self._status_path, self.status())
            except OSError:  # a full disk: told by the store, and a status is nobody's data
                return


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel what still runs and wait for it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _either(stop: asyncio.Event, seconds: float, clock: Clock) -> None:
    """Wait for `seconds`, or until stopped."""
    tasks = [asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(stop.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
