"""How far off a prediction may be: intervals whose width was measured on runs that the fit had not seen.

An error is the logarithm of measured over predicted. Its typical size depends on a few features of the run; the
interval is that size times a quantile of |error| / size over the runs left out (split conformal prediction with a
scale, Lei et al., arXiv:1604.04173, section 5.2), so it holds however wrong the sizes are, for runs like those.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from gigafactory.errors import UserError
from gigafactory.twin.case import Array, Cases
from gigafactory.twin.prediction import Memory, StepTime


@dataclass(frozen=True)
class Width:
    """Size of an error: exp(sum of weight * feature). weights: feature -> number. quantiles: |error| / size stays
    below them in `shares` of the runs left out. runs: how many they were. source: which. factor: on all sizes, from
    a calibration on a user's own runs.
    """

    weights: dict[str, float]
    shares: tuple[float, ...]
    quantiles: tuple[float, ...]
    runs: int
    source: str
    factor: float = 1.0

    def size(self, features: dict[str, Array]) -> Array:
        return np.exp(sum(weight * features[name] for name, weight in self.weights.items()))

    def reach(self, features: dict[str, Array], share: float) -> Array:
        """The |error| that `share` of runs with these features stay below."""
        if not self.shares[0] <= share <= self.shares[-1]:
            raise ValueError(f"share must be {self.shares[0]} to {self.shares[-1]}, got {share}")
        return self.factor * np.interp(share, self.shares, self.quantiles) * self.size(features)


def step_width() -> Width:
    """Of step times, as shipped (factory/catalog/intervals.toml)."""
    return _shipped()["step"]


def memory_width() -> Width:
    """Of peak memory, as shipped."""
    return _shipped()["memory"]


def load(path: Path) -> tuple[Width, Width]:
    """Of step times and of memory, with the factors of a calibration file (of `gigafactory twin calibrate`)."""
    try:
        told = json.loads(path.read_text(encoding="utf-8")).get("interval", {})
        factors = [float(told.get(what, {}).get("factor", 1.0)) for what in ("step", "memory")]
    except (OSError, ValueError, TypeError, AttributeError):
        raise UserError(f"{path}: not a calibration file: `gigafactory twin calibrate` writes one") from None
    for what, factor in zip(("step", "memory"), factors, strict=True):
        if not 0 < factor < math.inf:
            raise UserError(f"{path}: interval.{what}.factor: must be more than 0, got {factor}")
    step, memory = factors
    return dataclasses.replace(step_width(), factor=step), dataclasses.replace(memory_width(), factor=memory)


def interval(cases: Cases, step: StepTime, share: float = 0.8, width: Width | None = None) -> tuple[Array, Array]:
    """(low_s, high_s) that hold the measured step time in `share` (0.5 to 0.95) of runs that the fit has not seen."""
    return _around(step.step_s, (width or step_width()).reach(step_features(cases, step), share))


def memory_interval(
    cases: Cases, memory: Memory, share: float = 0.8, width: Width | None = None
) -> tuple[Array, Array]:
    """(low_bytes, high_bytes) of peak memory, as `interval`."""
    return _around(memory.memory_bytes, (width or memory_width()).reach(memory_features(cases), share))


def step_features(cases: Cases, step: StepTime) -> dict[str, Array]:
    """What makes a step harder to predict: a mixture, narrow formats, many chips, and whatever is no matmul in it."""
    part, whole = step.parts, step.step_s
    comm = part["tensor_comm"] + part["context_comm"] + part["expert_comm"] + part["pipe_comm"] + part["data_comm"]
    return {
        "all": 1.0 + 0.0 * whole,
        "mixture": np.minimum(cases.network.experts, 1.0) + 0.0 * whole,
        "low": cases.work.low + 0.0 * whole,
        "chips": np.log2(cases.plan.chips) / 10.0 + 0.0 * whole,
        "communication": comm / whole,
        "waiting": (part["bubble"] + part["imbalance"] + part["scale"]) / whole,
        "host": (part["host"] + part["optimizer"]) / whole,
        "memory_bound": part["memory_bound"] / whole,
    }


def memory_features(cases: Cases) -> dict[str, Array]:
    """One size for all: published runs with a measured peak are too few and too alike to tell more."""
    return {"all": 1.0 + 0.0 * np.asarray(cases.plan.chips, dtype=float)}


@cache
def _shipped() -> dict[str, Width]:
    text = resources.files("gigafactory.factory").joinpath("catalog", "intervals.toml").read_text(encoding="utf-8")
    return {
        name: Width(**(table | {key: tuple(table[key]) for key in ("shares", "quantiles")}))
        for name, table in tomllib.loads(text).items()
    }


def _around(value: Array, reach: Array) -> tuple[Array, Array]:
    return value * np.exp(-reach), value * np.exp(reach)
