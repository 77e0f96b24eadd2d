"""Recorded posts, played again: one JSON object a line.

{"t": 1760000000.5, "op": "post", "id": "p1", "author": "handle", "text": "..."}: t is when it reached us (Unix seconds,
or "2026-03-02T09:00:00Z"). Optional: author_id (default author), created_at (default t), rev (default microseconds of
t), url, lang, also, refs, source (default: the name in the factory file), train_ok (false wins over the factory file).
op "edit": the same fields, with created_at. "delete": id, and if need be reason, rev. "author_delete": author_id.
"restore": id or author_id. A first line {"op": "clock", "t": T0} says when the replay opens: what is before T0 is there
at once, the rest follows at the speed of the clock. Unknown fields are ignored, and so is a torn last line.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSource
from gigafactory.feed.connector import Batch, Clock, Emit, Health
from gigafactory.feed.post import EVERY_REVISION, Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.store import Store

LONGEST_LINE = 1 << 20  # bytes
BATCH = 500  # events that were due at the same time go together, up to so many


def shipped() -> Path:
    """The recorded posts that come with the package, played where the factory file names no source."""
    return Path(str(files("gigafactory.feed") / "posts.jsonl"))


@dataclass(frozen=True, slots=True)
class Timed:
    """An event, when it happens (Unix seconds), and the byte after its line. event None: the line opens the replay."""

    t: float
    event: Event | None
    end: int


class ReplayClock:
    """The time of recorded posts: it begins at `start` and runs `speed` times real time; 0 stands still.

    real: seconds of a clock that never jumps back.
    """

    def __init__(self, start: float, speed: float, real: Callable[[], float]) -> None:
        self._start, self.speed, self._real = start, speed, real
        self._began = real()

    def now(self) -> float:
        return self._start + (self._real() - self._began) * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait until `seconds` of this clock have passed; where it stands still nothing is waited for."""
        await asyncio.sleep(seconds / self.speed if self.speed else 0)


def parse(line: bytes | str, source: str, train_ok: bool = False) -> tuple[float, Event | None]:
    """(t, event) of one line; event None for a clock line. Raises ValueError that says what is wrong with it."""
    raise NotImplementedError


def line_of(event: Event) -> str:
    """The line (without its end) that `parse` reads as the same event."""
    raise NotImplementedError


def read(
    path: Path, source: str, train_ok: bool = False, *, offset: int = 0, bad: Callable[[str], None] | None = None
) -> Iterator[Timed]:
    """The events of a file from byte `offset` on, in their order.

    bad: told of each line that is left out ("line 17: ..."); without it such a line raises UserError. A torn last line
    (no line end, no JSON) is left out silently.
    """
    raise NotImplementedError


def opening(path: Path) -> float:
    """When the replay opens: t of its clock line, else of its first line. UserError for a file without events."""
    raise NotImplementedError


def load(path: Path, store: Store, source: str = "replay", train_ok: bool = False) -> float:
    """Everything into the store at once; returns the last t, at which the clock then stands still."""
    raise NotImplementedError


class Replay:
    """Connector of kind "replay". The cursor is the byte it has read up to and the t of that line."""

    def __init__(self, source: FeedSource, path: Path, clock: Clock) -> None:
        self.name = source.name
        self.health = Health()

    async def run(self, emit: Emit, cursor: str | None) -> None:
        """Ends with the file."""
        raise NotImplementedError
