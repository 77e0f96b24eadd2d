"""What a connector is: it reads one source for ever and emits events with the place it has read up to.

The runner owns the task, the queue and the store. It writes a batch's cursor in the same transaction as its events, so
what was committed is never asked for again and what was not is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from gigafactory.feed.post import Event

T = TypeVar("T")
LONGEST_ERROR = 300  # characters; a server's message may be of any length
SHORTEST_SECRET = 6  # what is shorter is no secret, and cutting it out would spoil every word


class Clock(Protocol):
    """Time, passed in: tests bring their own. now: Unix seconds."""

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in their order, and where the source is read up to once they are stored. cursor None: as it was."""

    events: tuple[Event, ...]
    cursor: str | None = None


Emit = Callable[[Batch], Awaitable[None]]  # waits while the queue is full


@dataclass(slots=True)
class Health:
    """How a source does, for the status; the connector writes it, others read it.

    last_line_at: when anything came, heartbeats included. bad_lines: what could not be understood and was left out.
    secrets: never shown; cut out of every error.
    """

    connected: bool = False
    posts: int = 0
    bad_lines: int = 0
    reconnects: int = 0
    spent_usd: float = 0.0
    last_line_at: float | None = None
    last_error: str = ""
    last_error_at: float | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def error(self, message: str, at: float) -> None:
        """Keep the newest error: one line, no control characters, no secrets, bounded."""
        for secret in self.secrets:
            if len(secret) >= SHORTEST_SECRET:
                message = message.replace(secret, "***")
        line = " ".join("".join(sign if sign.isprintable() else " " for sign in message).split())
        self.last_error, self.last_error_at = line[:LONGEST_ERROR], at

    def bad_line(self, why: str, at: float) -> None:
        self.bad_lines += 1
        self.error(f"left out a line: {why}", at)


def resumed(cursor: str | None, parse: Callable[[str], T], health: Health, at: float) -> T | None:
    """What a cursor says; None for none, and for one that a source of another kind wrote under this name, which is
    told."""
    if cursor is None:
        return None
    try:
        return parse(cursor)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        health.error("the store's cursor is of another kind of source: it begins anew", at)
        return None


class Connector(Protocol):
    """name: of the source. run: from `cursor` on (None: from now on), until cancelled or the source ends.

    Failures that pass are told in `health` and retried within; UserError is raised where only the user can help (a
    refused token, a wrong rule, a spent budget). Cancelling loses nothing that was not emitted: it is read again.
    """

    name: str
    health: Health

    async def run(self, emit: Emit, cursor: str | None) -> None: ...
