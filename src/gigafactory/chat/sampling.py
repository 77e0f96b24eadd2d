"""How a model is to write, and the text as it comes: cut at stop strings, wherever its tokens end. No JAX here."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.model.requests import BusyError, Finish

__all__ = ["BusyError", "Piece", "Sampling", "StopText"]


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
    finish: Finish = ""
    prompt_tokens: int = 0
    output_tokens: int = 0


class StopText:
    """Text in any pieces in, the same text up to the first stop string out.

    First is the one that is complete first (of two that end together the longer), so that it does not matter how the
    text is cut. Text that may be the start of a stop string waits until that is known.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self.met = False

    def push(self, text: str) -> str:
        """What is certain now; nothing more after a stop string was `met`."""
        if self.met:
            return ""
        self._held += text
        ends = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if ends:
            self.met = True
            return self._held[: min(ends)[1]]
        keep = max((self._overlap(stop) for stop in self._stop), default=0)
        sure = len(self._held) - keep
        certain, self._held = self._held[:sure], self._held[sure:]
        return certain

    def rest(self) -> str:
        """What waited, where the text ends without a stop string."""
        return "" if self.met else self._held

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of what is held that a stop string starts with."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if stop.startswith(self._held[-size:])), 0)
