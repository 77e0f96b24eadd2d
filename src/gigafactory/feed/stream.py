"""Tools that streams share: when to connect again, lines out of bytes, a timeout on silence, a watch on the volume."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from enum import StrEnum


class Failure(StrEnum):
    """Why a stream ended."""

    CLOSED = "closed"  # by the server, in good order
    STALLED = "stalled"  # silence, heartbeats included; or heartbeats alone where posts were due
    NETWORK = "network"  # no connection, or it broke
    SERVER = "server"  # HTTP 5xx
    RATE = "rate"  # HTTP 429
    CROWDED = "crowded"  # too many connections: our old one is not forgotten yet


class StalledError(Exception):
    """Nothing came for the read timeout."""


def delay_s(failure: Failure, attempt: int) -> float:
    """Seconds to wait before the attempt after `attempt` failures in a row (1 is the first); pure.

    At once after the first broken, stalled or closed connection, then 250 ms more each time up to 16 s; server errors
    5 s doubling to 320 s; rate limits and too many connections 60 s doubling to 960 s.
    """
    doublings = min(attempt - 1, 30)
    match failure:
        case Failure.SERVER:
            return min(5.0 * 2**doublings, 320.0)
        case Failure.RATE | Failure.CROWDED:
            return min(60.0 * 2**doublings, 960.0)
        case _:
            return min(0.25 * (attempt - 1), 16.0)


class Lines:
    """Lines out of chunks of bytes that are cut anywhere; at most `limit_bytes` of a line are held.

    push(chunk) -> complete lines without their \\n or \\r\\n (empty lines too: they are heartbeats). A longer line is
    left out and counted in `overlong`, once it is over. rest: there are bytes of an incomplete last line.
    """

    def __init__(self, limit_bytes: int = 1 << 20) -> None:
        self.limit_bytes = limit_bytes
        self.overlong = 0
        self._held = bytearray()
        self._skipping = False

    @property
    def rest(self) -> bool:
        return bool(self._held) or self._skipping

    def push(self, chunk: bytes) -> list[bytes]:
        lines = []
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            if not self._hold(chunk[start:end]):
                self.overlong += 1
            else:
                lines.append(bytes(self._held).removesuffix(b"\r"))
            self._held.clear()
            self._skipping = False
            start = end + 1
        self._hold(chunk[start:])
        return lines

    def _hold(self, piece: bytes) -> bool:
        """Keep a piece of the present line; False when the line has become too long."""
        if not self._skipping and len(self._held) + len(piece) <= self.limit_bytes:
            self._held += piece
        else:
            self._skipping = True
            self._held.clear()
        return not self._skipping


async def watched(chunks: AsyncIterator[bytes], timeout_s: float) -> AsyncGenerator[bytes, None]:
    """The same chunks; raises StalledError when the next one takes longer than timeout_s."""
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise StalledError(f"nothing came for {timeout_s:g} s, no heartbeat either") from None
        yield chunk


class Volume:
    """Watches how much comes: a stream may be open, with heartbeats, and bring nothing for hours.

    The rate is a mean that forgets with a half-life of `memory_s`. Low is a window without one post where at least
    `sure` were due by a rate known from as many, so that chance cannot leave it empty; the window doubles with every
    alarm until a post comes.
    """

    def __init__(self, window_s: float = 120.0, memory_s: float = 3600.0, sure: float = 30.0) -> None:
        self.window_s = window_s
        self.memory_s = memory_s
        self.sure = sure
        self.last_post_at: float | None = None
        self._began: float | None = None
        self._quiet_since = 0.0
        self._patience_s = window_s
        self._count = 0.0  # posts until last_post_at, each halved every memory_s

    def connected(self, at: float) -> None:
        """A new connection: silence is counted from here."""
        self._began = at if self._began is None else self._began
        self._quiet_since = at

    def seen(self, at: float) -> None:
        """A post came."""
        if self._began is None:
            self._began = at
        last = at if self.last_post_at is None else max(at, self.last_post_at)
        self._count = self._count * 0.5 ** ((last - (self.last_post_at or last)) / self.memory_s) + 1
        self.last_post_at = self._quiet_since = last
        self._patience_s = self.window_s

    def low(self, at: float) -> float | None:
        """Posts that were due in the silence, where there should have been some; None: all is well."""
        if self._began is None or self.last_post_at is None or at - self._quiet_since < self._patience_s:
            return None
        decay = math.log(2) / self.memory_s
        remembered_s = (1 - math.exp(-decay * max(self.last_post_at - self._began, self.window_s))) / decay
        remembered = self._count * math.exp(-decay * (at - self.last_post_at))
        due = remembered / remembered_s * (at - self._quiet_since)
        if min(due, remembered) < self.sure:  # a rate is not known by a handful of posts
            return None
        self._patience_s *= 2
        return due
