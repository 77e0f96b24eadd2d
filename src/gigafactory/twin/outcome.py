"""What a step time means for a whole run: speed, utilisation, days, energy and money, each with an interval."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.factory.file import Factory
from gigafactory.twin.case import Cases, Machine
from gigafactory.twin.constants import Constants
from gigafactory.twin.prediction import Memory, StepTime


@dataclass(frozen=True)
class Range:
    """A number with the ends of its 80 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """All that the twin says about one case; fields of step and memory are plain numbers."""

    cases: Cases
    step: StepTime
    memory: Memory
    step_s: Range
    memory_bytes: Range


def predict(factory: Factory, *, machine: Machine | None = None, c: Constants | None = None) -> Prediction:
    """Step time and memory of a factory file's run. machine: as in `build.cases_of`; c: the shipped constants."""
    raise NotImplementedError
