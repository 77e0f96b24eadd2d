"""A server on a free port of the loopback, in a thread, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gigafactory.chat.server import listen, serve
from gigafactory.chat.service import Service


@contextmanager
def served(service: Service, keys: tuple[str, ...] = ()) -> Iterator[str]:
    """Its address, "http://127.0.0.1:PORT"; it ends with the block, in good order."""
    listener = listen(service.section.server.model_copy(update={"port": 0}))
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
