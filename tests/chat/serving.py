"""A server on a free port of the loopback, in a thread, for clients that block."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gigafactory.chat.server import listen, serve
from gigafactory.chat.service import Service


@contextmanager
def served(service: Service, keys: tuple[str, ...] = (), send_bytes: int | None = None) -> Iterator[str]:
    """Its address, "http://127.0.0.1:PORT"; it ends with the block, in good order. send_bytes: what the kernel takes of
    an answer before somebody reads it."""
    listener = listen(service.section.server.model_copy(update={"port": 0}))
    if send_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
    ready = threading.Event()
    control: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        stop = asyncio.Event()
        control.append((asyncio.get_running_loop(), stop))
        await serve(service, listener, stop, keys, ready.set)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        loop, stop = control[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()
