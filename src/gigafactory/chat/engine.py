"""A model of ours that writes for many at once: the thread that drives it, conversations in, text out as it comes.

The only module of the chat that imports JAX; import it where a model is really wanted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gigafactory.model.batching import Busy

__all__ = ["Busy", "Engine", "Piece", "Sampling", "open_engine"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to write. stop: strings that end the text before they would appear. The same seed gives the same text."""

    max_tokens: int = 512
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that became certain. finish: "" until the last piece, which has it and the counts of tokens."""

    text: str
    finish: Literal["", "stop", "length"] = ""
    prompt_tokens: int = 0
    output_tokens: int = 0


class Engine:
    """One model, one thread that drives it, any number of callers."""

    name: str  # what `model` is called in the API: "smollm2", or the name of the run directory
    context: int  # tokens

    def stream(self, messages: Sequence[Mapping[str, str]], sampling: Sampling) -> Iterator[Piece]:
        """Answer to messages of {"role", "content"}, piece by piece. Closing the iterator cancels it.

        A model without a chat template goes on from the contents of the messages. Raises at once: Busy when the queue
        is full (HTTP 429), UserError for a prompt that does not fit the context (HTTP 400).
        """
        raise NotImplementedError

    def astream(self, messages: Sequence[Mapping[str, str]], sampling: Sampling) -> AsyncIterator[Piece]:
        """As `stream`, for a coroutine; cancelling the task or closing the iterator cancels the request."""
        raise NotImplementedError

    def close(self) -> None:
        """End all that is being written and the thread."""
        raise NotImplementedError


def open_engine(where: str, *, slots: int = 8, waiting: int = 64) -> Engine:
    """The model of a run directory, a weights folder, a .gguf file or package:NAME, with its thread started.

    Raises UserError when it cannot be read.
    """
    raise NotImplementedError
