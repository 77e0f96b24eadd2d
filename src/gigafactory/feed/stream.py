"""Tools that streams share: when to connect again, lines out of bytes, a timeout on silence, a watch on the volume."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum


class Failure(StrEnum):
    """Why a stream ended."""

    CLOSED = "closed"  # by the server, in good order
    STALLED = "stalled"  # silence, heartbeats included
    NETWORK = "network"  # no connection, or it broke
    SERVER = "server"  # HTTP 5xx
    RATE = "rate"  # HTTP 429
    CROWDED = "crowded"  # too many connections: our old one is not forgotten yet


class Stalled(Exception):
    """Nothing came for the read timeout."""


def delay_s(failure: Failure, attempt: int) -> float:
    """Seconds to wait before the attempt after `attempt` failures in a row (1 is the first); pure.

    At once after the first broken, stalled or closed connection, then 250 ms more each time up to 16 s; server errors
    5 s doubling to 320 s; rate limits and too many connections 60 s doubling to 960 s.
    """
    raise NotImplementedError


class Lines:
    """Lines out of chunks of bytes that are cut anywhere; at most `limit_bytes` of a line are held.

    push(chunk) -> complete lines without their \\n or \\r\\n (empty lines too: they are heartbeats). A longer line is
    left out and counted in `overlong`. rest: bytes of the last, incomplete line.
    """

    overlong: int

    def __init__(self, limit_bytes: int = 1 << 20) -> None:
        raise NotImplementedError

    def push(self, chunk: bytes) -> list[bytes]:
        raise NotImplementedError


def watched(chunks: AsyncIterator[bytes], timeout_s: float) -> AsyncIterator[bytes]:
    """The same chunks; raises Stalled when the next one takes longer than timeout_s."""
    raise NotImplementedError


class Volume:
    """Watches how much comes: a stream may be open, with heartbeats, and bring nothing for hours.

    seen(at): a post came. low(at) -> posts expected in the last window_s where hardly any came, else None.
    """

    def __init__(self, window_s: float = 120.0) -> None:
        raise NotImplementedError

    def seen(self, at: float) -> None:
        raise NotImplementedError

    def low(self, at: float) -> float | None:
        raise NotImplementedError
