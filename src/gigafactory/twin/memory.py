"""Peak memory of the fullest chip, by class, and what would make a case fit."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.twin.case import Array, Cases
from gigafactory.twin.constants import Constants
from gigafactory.twin.prediction import Memory


@dataclass(frozen=True)
class Way:
    """One change that makes a case fit: in words, the fields of Plan and Work to set, and the memory it then takes."""

    change: str
    fields: dict[str, float]
    memory_bytes: float


def peak_memory(cases: Cases, c: Constants) -> Memory:
    """Bytes of the fullest chip and their classes (names of prediction.MEMORY), arrays of the cases' shape."""
    raise NotImplementedError


def memory_bytes(cases: Cases, c: Constants) -> Array:
    """peak_memory(cases, c).memory_bytes alone, for the search."""
    raise NotImplementedError


def ways_to_fit(case: Cases, budget_bytes: float, c: Constants) -> list[Way]:
    """Single changes to one case (plain numbers) with which it takes at most budget_bytes, least disturbing first."""
    raise NotImplementedError
