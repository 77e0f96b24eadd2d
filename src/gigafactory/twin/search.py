"""The best layouts of a space: every layout is priced by `step_time` and `peak_memory`, or pruned by a bound."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.twin.case import Cases
from gigafactory.twin.constants import Constants
from gigafactory.twin.prediction import Memory, StepTime
from gigafactory.twin.space import Space


@dataclass(frozen=True)
class Candidate:
    """One layout with its prediction."""

    case: Cases
    step: StepTime
    memory: Memory
    tokens_per_s: float


@dataclass(frozen=True)
class Counts:
    """Complete layouts: all, against the rules, over the chip's memory, excluded by a bound without being priced."""

    layouts: int
    illegal: int
    too_big: int
    pruned: int


@dataclass(frozen=True)
class Found:
    """best: the fastest that fit, fastest first. front: no other is both faster and smaller, smallest first.
    points: (tokens_per_s, memory_bytes) of a sample of all priced layouts, for a map. nearest: when none fits, the
    one with the least memory."""

    best: list[Candidate]
    front: list[Candidate]
    points: list[tuple[float, float]]
    counts: Counts
    nearest: Candidate | None


def search(space: Space, c: Constants, top: int = 10) -> Found:
    """The `top` fastest layouts of the space that fit in the chip's memory, proven so by pricing or bounding all."""
    raise NotImplementedError
