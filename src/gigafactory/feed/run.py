"""The feed runs: connectors -> a bounded queue -> one writer -> the store; purge, retention, status, a clean stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from gigafactory.factory.feed import FeedSection, FeedSource
from gigafactory.feed.connector import Clock, Connector
from gigafactory.feed.status import Status
from gigafactory.feed.store import Store


def prepared(section: FeedSection, base: Path) -> FeedSection:
    """The section with paths (replays, SQLite file) made absolute by the folder of the factory file, and the shipped
    replay where it names no source."""
    raise NotImplementedError


def place(section: FeedSection, base: Path) -> Path:
    """Beside what files the status and the lock of this store lie: the SQLite file, or a name made of the server's."""
    raise NotImplementedError


@contextmanager
def only_writer(at: Path) -> Iterator[bool]:
    """True for the one process that may write the store of `place`; False while another holds it. Freed by any end."""
    raise NotImplementedError
    yield False


def clock_of(section: FeedSection, store: Store) -> Clock:
    """The clock that questions and posts go by: the machine's; where every source is a replay the recorded one, which
    begins where the replay opens, or where the store has it read up to."""
    raise NotImplementedError


def connect(source: FeedSource, field: str, clock: Clock, environ: Mapping[str, str]) -> Connector:
    """The connector of a source. field: its name in the factory file, for errors ("feed.sources[0]")."""
    raise NotImplementedError


class Feed:
    """One feed over one store, which only this object writes.

    section: as `prepared`. tell: gets each line that a person should read (a source that fails, a store that is full
    and when it takes posts again). status_path: a file that `feed status` of other processes reads.
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
    ) -> None:
        raise NotImplementedError

    async def run(self, stop: asyncio.Event, *, until_ended: bool = False) -> None:
        """Until `stop` is set (or, with until_ended, every source has ended): then what was read is stored, and the
        cursors with it. A source that fails for good is told of and the others go on; UserError when all have failed.
        """
        raise NotImplementedError

    def status(self) -> Status:
        """Of this moment; any thread may ask."""
        raise NotImplementedError
