"""A small HTTP listener for what others push to us: bounded in everything, one handler per path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import h11

from gigafactory.errors import UserError

REQUEST_S = 30.0  # for a whole request
MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Request:
    """headers: names in lower case."""

    method: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


Handler = Callable[[Request], Awaitable[tuple[int, str]]]


class Listener:
    """Serves handlers under paths of one address; those of one event loop that share it share the socket."""

    _all: dict[tuple[int, str, int], Listener] = {}  # noqa: RUF012

    def __init__(self, host: str, port: int, limit_bytes: int) -> None:
        self._host, self._port, self._limit_bytes = host, port, limit_bytes
        self._handlers: dict[str, Handler] = {}
        self._server: asyncio.Server | None = None
        self._busy = 0

    @classmethod
    async def add(cls, address: str, path: str, handler: Handler, limit_bytes: int) -> Listener:
        """Serve `path` at "HOST:PORT" from now on. Raises UserError where that cannot be listened on."""
        host, _, port = address.rpartition(":")
        key = (id(asyncio.get_running_loop()), host, int(port))
        listener = cls._all.get(key) or cls(host, int(port), limit_bytes)
        if listener._server is None:
            try:
                listener._server = await asyncio.start_server(listener._client, host.strip("[]"), int(port))
            except OSError as error:
                raise UserError(f"listen: cannot listen on {address}: {error.strerror or error}") from None
            cls._all[key] = listener
        listener._handlers[path] = handler
        return listener

    async def remove(self, path: str) -> None:
        """The last handler takes the socket with it."""
        self._handlers.pop(path, None)
        if not self._handlers and self._server is not None:
            self._server.close()
            self._server = None
            for key in [key for key, value in self._all.items() if value is self]:
                del self._all[key]

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        self._busy += 1
        try:
            async with asyncio.timeout(REQUEST_S):
                status, body = (503, "") if self._busy > MOST_AT_ONCE else await self._answer(connection, reader)
                data = body.encode()
                fields = [("content-length", str(len(data))), ("content-type", "text/plain"), ("connection", "close")]
                for part in (
                    h11.Response(status_code=status, headers=fields),
                    h11.Data(data=data),
                    h11.EndOfMessage(),
                ):
                    writer.write(connection.send(part) or b"")
                await writer.drain()
        except (TimeoutError, OSError, h11.ProtocolError):
            pass  # a stranger's connection; nothing of ours depends on it
        finally:
            self._busy -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[int, str]:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                return error.error_status_hint, ""
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65_536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._limit_bytes:
                    return 413, ""
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                break
            else:
                return 400, ""
        parts = urlsplit(head.target.decode("ascii", "replace"))
        handler = self._handlers.get(parts.path)
        if handler is None:
            return 404, ""
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=50))
        return await handler(Request(head.method.decode("ascii"), query, headers, bytes(body)))
