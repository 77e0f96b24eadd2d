"""Batches computed ahead of the step that needs them, by one background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """An iterator over make(start), make(start + 1), ... up to make(stop - 1), at most ``ahead`` of them in hand.

    An exception of ``make`` is raised by the ``next`` that would have returned its result. Close it (or use ``with``):
    the thread ends once the call that it is in returns.
    """

    def __init__(self, make: Callable[[int], T], start: int, stop: int, *, ahead: int = 2) -> None:
        self._make, self._start, self._stop = make, start, stop
        self._ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._next = start
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        for step in range(self._start, self._stop):
            try:
                item: tuple[T | None, BaseException | None] = (self._make(step), None)
            except BaseException as error:  # the consumer's to handle
                item = (None, error)
            while not self._closed.is_set():
                try:
                    self._ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._closed.is_set() or item[1] is not None:
                return

    def __iter__(self) -> Prefetcher[T]:
        return self

    def __next__(self) -> T:
        if self._closed.is_set() or self._next >= self._stop:
            raise StopIteration
        result, error = self._ready.get()
        self._next += 1
        if error is not None:
            self.close()
            raise error
        return result  # type: ignore[return-value]

    def close(self) -> None:
        """Stop the thread and wait for it. May be called more than once."""
        self._closed.set()
        self._thread.join()

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
