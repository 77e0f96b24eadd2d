"""How far off a prediction may be: intervals whose width was measured on runs that the fit had not seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gigafactory.twin.case import Array, Cases
from gigafactory.twin.prediction import Memory, StepTime


@dataclass(frozen=True)
class Width:
    """Size of the error, as the logarithm of measured over predicted: exp(sum of weight * feature) times the number
    of its quantile. weights: feature -> number. shares, quantiles: |error| / size stays below the quantile in that
    share of runs left out. runs: how many they were. factor: what a calibration on a user's own runs makes of it.
    """

    weights: dict[str, float]
    shares: tuple[float, ...]
    quantiles: tuple[float, ...]
    runs: int
    source: str
    factor: float = 1.0


def step_width() -> Width:
    """Of step times, as shipped (factory/catalog/intervals.toml)."""
    raise NotImplementedError


def memory_width() -> Width:
    """Of peak memory, as shipped."""
    raise NotImplementedError


def load(path: Path) -> tuple[Width, Width]:
    """Of step times and of memory, narrowed or widened by a calibration file (see `gigafactory twin calibrate`)."""
    raise NotImplementedError


def interval(cases: Cases, step: StepTime, share: float = 0.8, width: Width | None = None) -> tuple[Array, Array]:
    """(low_s, high_s) that hold the measured step time in `share` (0.5 to 0.95) of runs that the fit has not seen."""
    raise NotImplementedError


def memory_interval(
    cases: Cases, memory: Memory, share: float = 0.8, width: Width | None = None
) -> tuple[Array, Array]:
    """(low_bytes, high_bytes) of peak memory, as `interval`."""
    raise NotImplementedError


def measure_width(features: dict[str, np.ndarray], residual: np.ndarray, source: str) -> Width:
    """The width that the residuals ([N], logarithm of measured over predicted) of runs left out ask for."""
    raise NotImplementedError
