"""Uncertain numbers as draws: every input has a stream of its own, named after it.

A draw is one possible future; arrays of draws line up, so that draw i of every quantity belongs to the same future.
Streams depend on (seed, name) alone: an input that is added or fixed changes no other.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr, ndtri

from gigafactory.factory.quantity import Spread

Z90 = float(ndtri(0.9))


@dataclass(frozen=True)
class Draws:
    """``count`` futures. fixed: inputs that are held at one value, by name (for sensitivities and tests)."""

    count: int
    seed: int
    fixed: Mapping[str, float] = field(default_factory=dict)

    def uniform(self, name: str) -> np.ndarray:
        """[count] evenly spread ranks between 0 and 1 in random order, of the stream ``name``."""
        random = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        return (random.permutation(self.count) + random.random(self.count)) / self.count

    def of(self, name: str, spread: Spread, opposed: tuple[str, float] | None = None) -> np.ndarray:
        """[count] values of an input with these percentiles; see `quantile`.

        opposed: (another input, correlation of the normal scores, 0 to 1): high where the other is low. A held input
        opposes nothing.
        """
        if name in self.fixed:
            return np.full(self.count, float(self.fixed[name]))
        rank = self.uniform(name)
        if opposed is not None and opposed[0] not in self.fixed:
            other, correlation = opposed
            own = np.sqrt(1 - correlation**2) * ndtri(rank)
            rank = ndtr(own - correlation * ndtri(self.uniform(other)))
        return quantile(spread, rank)


def certain(value: float) -> Spread:
    """The spread of a number that is known."""
    return Spread(p10=value, p50=value, p90=value)


def quantile(spread: Spread, rank: np.ndarray) -> np.ndarray:
    """The value at each rank (0 to 1, any shape) of a distribution with the spread's 10th, 50th and 90th percentile.

    A bent normal: with z the rank's normal score it is median + mean slope * z + half the difference of the slopes *
    (sqrt(z^2 + bend^2) - bend), scaled to go through all three points. The bend is chosen so that it rises everywhere;
    it is sharp only where two percentiles are equal. For p10 > 0 the logarithm is bent, so values stay above 0; for
    p10 = 0 what would be negative is 0.
    """
    score = ndtri(rank)
    if spread.p10 > 0:
        value = np.exp(_bent(np.log(spread.p10), np.log(spread.p50), np.log(spread.p90), score))
    else:
        value = _bent(spread.p10, spread.p50, spread.p90, score)
    flat = ((score <= 0) & (spread.p10 == spread.p50)) | ((score >= 0) & (spread.p50 == spread.p90))
    value = np.where(flat, spread.p50, value)  # exactly, rounding aside
    return np.maximum(value, 0.0) if spread.p10 >= 0 else value


def _bent(p10: float, p50: float, p90: float, score: np.ndarray) -> np.ndarray:
    slope = (p90 - p10) / (2 * Z90)
    bow = (p90 - p50) - (p50 - p10)  # twice what both ends lie above a straight line
    if slope <= 0:
        return np.full(np.shape(score), float(p50))
    lean = min(abs(bow) / (p90 - p10), 1.0)
    # The bow's slope tends to 1 / reach of what it is at the ends: reach > lean keeps the sum rising.
    reach = (1 + lean) / 2
    bend = Z90 * (1 - reach**2) / (2 * reach)
    return p50 + slope * score + bow / 2 * (np.sqrt(score**2 + bend**2) - bend) / (Z90 * reach)
