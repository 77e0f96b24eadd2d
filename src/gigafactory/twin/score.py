"""How wrong predictions of measured runs are, per source and per kind of run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gigafactory.twin.case import Cases
from gigafactory.twin.runs import Problem, Runs


@dataclass(frozen=True)
class Predicted:
    """Of N cases, arrays of length N. low, high: 80 % interval of the step time. memory_bytes: peak per chip."""

    step_s: np.ndarray
    low: np.ndarray
    high: np.ndarray
    memory_bytes: np.ndarray


@dataclass(frozen=True)
class Errors:
    """Of a group of rows; shares of the measured value. mean: of |error|; median: of |error|; bias: mean of error;
    within: share of rows within 10 %; coverage: share inside the interval."""

    rows: int
    mean: float
    median: float
    bias: float
    within: float
    coverage: float


@dataclass(frozen=True)
class Score:
    """step, memory: group of rows ("all", "source vtrain", "chip H100 ...") -> errors; memory where any row has it.
    baselines: mean |error| of constants that know less, on the same rows."""

    step: dict[str, Errors]
    memory: dict[str, Errors]
    baselines: dict[str, Errors]
    step_error: np.ndarray
    memory_error: np.ndarray
    predicted: Predicted
    problems: list[Problem]


def score(runs: Runs, predict: Callable[[Cases], Predicted]) -> Score:
    """Predicts every run and compares."""
    raise NotImplementedError


def step_errors(runs: Runs, step_s: np.ndarray) -> np.ndarray:
    """predicted / measured - 1 of each run."""
    raise NotImplementedError
