"""What a batched model is asked and what it says. No JAX here, so that a server without a model starts at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Finish = Literal["", "stop", "length"]


class BusyError(Exception):
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
    """One more token of a request (None where it ended without one), and whether that was its end: "stop" before a stop
    id, "length" after max_tokens or where the context is full."""

    request: int
    token: int | None
    finish: Finish = ""
