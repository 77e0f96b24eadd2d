"""One open stream of the fake X, with the faults that a test asks for."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Connection:
    """One open stream. silent: nothing more is sent, not even heartbeats. mute: heartbeats alone."""

    path: str
    writer: asyncio.StreamWriter
    rng: random.Random
    wants: Callable[[str, Any], dict[str, Any] | None]
    noise: float
    silent: bool = False
    mute: bool = False
    last_at: float = 0.0
    held: list[bytes] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: dict[str, Any]) -> None:
        """A message, perhaps twice, perhaps after the next one."""
        if self.mute:
            return
        line = json.dumps(shuffled(message, self.rng), ensure_ascii=self.rng.random() < 0.3).encode() + b"\r\n"
        if self.rng.random() < self.noise:
            self.held.append(line)
            asyncio.get_running_loop().call_later(5.0, self.release)
            return
        self.raw(line)
        if self.rng.random() < self.noise:
            self.raw(line)
        self.release()

    def release(self) -> None:
        held, self.held = self.held, []
        for line in held:
            self.raw(line)

    def raw(self, data: bytes) -> None:
        """Bytes as they are, cut anywhere."""
        if self.silent or self.over.is_set():
            return
        self.last_at = asyncio.get_running_loop().time()
        cuts = sorted({0, len(data), *(self.rng.randrange(len(data) + 1) for _ in range(self.rng.randrange(4)))})
        for begin, end in itertools.pairwise(cuts):
            self.writer.write(f"{end - begin:x}\r\n".encode() + data[begin:end] + b"\r\n")

    def close(self, how: str) -> None:
        """clean: the body ends as it should. cut: in the middle of a line, in good order. reset: it breaks."""
        if how == "cut":
            self.raw('{"data":{"id":"1","text":"ü'.encode()[:-1])
        if how != "reset" and not self.silent:
            self.writer.write(b"0\r\n\r\n")
        self.over.set()
        if how == "reset":
            self.writer.transport.abort()


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same JSON with its fields in another order."""
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {key: shuffled(each, rng) for key, each in items}
    return [shuffled(each, rng) for each in value] if isinstance(value, list) else value
