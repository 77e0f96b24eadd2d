"""A connection that cuts clients too slow to be served: headers that do not come, answers that are not read."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 10.0  # longest that a request line and its headers may take
READING_S = 20.0  # longest that a client may leave an answer unread
CONNECTIONS = 512  # more are closed at once


class CuttingProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with both times bounded."""

    _headers_due: asyncio.TimerHandle | None = None
    _reading_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._headers_due = self.loop.call_later(HEADERS_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop_headers()
        elif (self.cycle is None or self.cycle.response_complete) and self._headers_due is None:
            # the first bytes of a next request: uvicorn has just stopped its own timer for idle connections
            self._headers_due = self.loop.call_later(HEADERS_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading_due is None:
            self._reading_due = self.loop.call_later(READING_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_headers()
        self._stop_reading()
        super().connection_lost(exc)

    def _stop_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _stop_reading(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None
