"""An event loop whose time jumps to the next timer when all is idle: minutes of waiting take no time, and sockets on
loopback between tasks of the same loop work as ever."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
START = 1_795_392_000.0  # 2026-11-23 00:00:00 UTC
GRACE_S = 0.001  # what is sent over loopback has arrived by then


class _Selector(selectors.DefaultSelector):
    """Where the loop would wait for a timer, its time jumps there, unless a socket or a thread has something."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(None if self.loop.in_threads else GRACE_S)
        if not ready:
            self.loop.passed_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """passed_s: virtual seconds since it began. in_threads: calls that run in threads; time stands still for them."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.in_threads = 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.passed_s

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = super().run_in_executor(executor, func, *args)
        self.in_threads += 1

        def done(_: Any) -> None:
            self.in_threads -= 1

        future.add_done_callback(done)
        return future


class VirtualClock:
    """The clock of the running VirtualLoop, from START on."""

    def now(self) -> float:
        return START + asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtually(main: Coroutine[Any, Any, T], limit_s: float = 7 * 86_400.0) -> T:
    """Run it to its end in virtual time; TimeoutError when it waits longer than limit_s of that time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(asyncio.wait_for(main, limit_s))
