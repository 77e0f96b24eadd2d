"""How long things take in a simulation: drawn from quantiles of the catalogue or of the factory file."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from gigafactory.factory.catalog import durations
from gigafactory.factory.quantity import Spread
from gigafactory.factory.supervise import SimulateSection

_NORMAL = NormalDist()
Z90 = _NORMAL.inv_cdf(0.9)
Z99 = _NORMAL.inv_cdf(0.99)
_LEAST_S = 1e-3


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A duration whose logarithm is a straight line in the normal score between known quantiles, and beyond them.

    With two quantiles it is the log-normal through both; more make a mixture with another tail.
    points: (normal score, log seconds), ascending; at least one.
    """

    points: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, *, p50_s: float, p90_s: float, p10_s: float | None = None, p99_s: float | None = None) -> Quantiles:
        known = [(-Z90, p10_s), (0.0, p50_s), (Z90, p90_s), (Z99, p99_s)]
        return cls(tuple((z, math.log(max(value, _LEAST_S))) for z, value in known if value is not None))

    def at(self, score: float) -> float:
        """Seconds at this normal score: 0 is the median, 1.2816 the 90th percentile."""
        points = self.points
        if len(points) == 1:
            return math.exp(points[0][1])
        index = 1
        while index < len(points) - 1 and score > points[index][0]:
            index += 1
        (z0, log0), (z1, log1) = points[index - 1], points[index]
        return math.exp(log0 + (log1 - log0) * (score - z0) / (z1 - z0))


class Durations:
    """Draws durations by name for a job of some size, each name from a stream of its own.

    So two policies that ask for different things in another order still meet the same n-th repair. chips: of the job,
    for what grows with size. Names are those of the catalogue's durations; `simulate.durations` wins over them.
    """

    def __init__(self, section: SimulateSection, *, chips: int, seed: int) -> None:
        self._quantiles: dict[str, Quantiles] = {}
        self._streams: dict[str, random.Random] = {}
        own = section.durations
        for name, entry in durations().items():
            if name in own:
                spread = own[name]
                self._quantiles[name] = Quantiles.of(p10_s=spread.p10, p50_s=spread.p50, p90_s=spread.p90)
            else:
                grown = (chips / entry.at_chips.value) ** entry.growth.value if entry.at_chips and entry.growth else 1.0
                self._quantiles[name] = Quantiles.of(p50_s=entry.p50_s.value * grown, p90_s=entry.p90_s.value * grown)
            self._streams[name] = random.Random(f"{seed}/durations/{name}")

    def draw(self, name: str) -> float:
        """Seconds, the next of this name's stream."""
        return self._quantiles[name].at(_NORMAL.inv_cdf(1.0 - self._streams[name].random()))

    def growth(self, name: str) -> float:
        """The power of the number of chips that it grows with."""
        fact = durations()[name].growth
        return fact.value if fact else 0.0

    def at(self, name: str, share: float) -> float:
        """Seconds that this share of the draws stays below, 0 < share < 1."""
        return self._quantiles[name].at(_NORMAL.inv_cdf(share))


MEASURED = {"detect_s": "seen-exit", "form_s": "first-step"}
"""Phases of bench/results/recovery.json (recoveries.measured) -> the duration that each is a measurement of.

What grows with the number of processes (leaving and forming a world) is not taken from a few processes.
"""


def from_measurement(content: Mapping[str, Any], kind: str = "crash") -> dict[str, Spread]:
    """Durations measured on real runs, by catalogue name, from what `recoveries.measured` writes.

    A phase's p10 is taken as far below its median as its p90 is above, since only upper quantiles are kept.
    """
    spreads = {}
    phases = content["kinds"].get(kind) or content["kinds"]["all"]
    for phase, name in MEASURED.items():
        if (spread := phases.get(phase)) is not None:
            p50, p90 = max(spread["p50"], _LEAST_S), max(spread["p90"], spread["p50"], _LEAST_S)
            spreads[name] = Spread(p10=p50 * p50 / p90, p50=p50, p90=p90)
    return spreads
