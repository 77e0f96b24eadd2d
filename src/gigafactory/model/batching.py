"""Many texts from one model at once: continuous batching over a paged key/value cache.

Requests join while others are being written and leave when they end; each token step runs all that are active. Keys and
values lie in pages that a request holds; whole pages of a prompt are kept after it, so that the next prompt with the
same beginning (a system message, a conversation) does not read it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gigafactory.model.serve import Generator

Finish = Literal["", "stop", "length"]


class Busy(Exception):
    """As many requests wait as may."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how to go on from it; the fields mean what they mean to `Generator.generate`."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Written:
    """One more token of a request (None where it ended before one), and whether that was the end: "stop" before a stop
    id, "length" after max_tokens or where the model's context is full."""

    request: int
    token: int | None
    finish: Finish = ""


class Batch:
    """Slots that write together. Pure of clocks and threads: `step` does the next piece of work when it is called.

    The ids of a request are those of `Generator.generate` with the same arguments (up to the end of the context),
    whoever else is being written, unless two tokens are as likely as each other within float rounding.
    """

    def __init__(self, generator: Generator, *, slots: int = 8, waiting: int = 64) -> None:
        raise NotImplementedError

    def submit(self, request: Request) -> int:
        """A number for the request. Raises Busy when `waiting` wait already, UserError for a prompt that is empty, too
        long for the context or has unknown ids."""
        raise NotImplementedError

    def cancel(self, request: int) -> None:
        """Forget a request, wherever it is; one that ended or never was is no error."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Nothing is being written and nothing waits."""
        raise NotImplementedError

    def step(self) -> Sequence[Written]:
        """Read a piece of a prompt, or one token of every active request; what came of it."""
        raise NotImplementedError
