"""A WebSocket to a source: one address, no redirects, bounded frames, and a watch on its life."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import CloseCode

from gigafactory import __version__

SILENCE_S = 20.0  # longest that a connection lives without an answer to our pings
OPENED_S = 20.0


class _ConnectOnce(connect):
    """A redirect is an answer like others: followed, it would carry our token to whoever it names."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


@asynccontextmanager
async def open_socket(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocol: str | None = None,
    largest_bytes: int,
    queued: int = 16,
) -> AsyncIterator[ClientConnection]:
    """Raises OSError, TimeoutError or a WebSocketException when it is entered.

    largest_bytes: of a frame. queued: frames that wait."""
    connection = await _ConnectOnce(
        url,
        additional_headers=headers,
        subprotocols=[Subprotocol(subprotocol)] if subprotocol else None,
        compression=None,
        open_timeout=OPENED_S,
        ping_interval=SILENCE_S / 2,
        ping_timeout=SILENCE_S,
        close_timeout=1.0,
        max_size=largest_bytes,
        max_queue=queued,
        user_agent_header=f"gigafactory/{__version__}",
    )
    try:
        yield connection
    finally:
        await connection.close(CloseCode.GOING_AWAY)
