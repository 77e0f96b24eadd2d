"""Uncertain numbers as draws: every input has a stream of its own, named after it.

A draw is one possible future; arrays of draws line up, so that draw i of every quantity belongs to the same future.
Streams depend on (seed, name) alone: an input that is added or fixed changes no other.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gigafactory.factory.quantity import Spread


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

    def of(self, name: str, spread: Spread) -> np.ndarray:
        """[count] values of an input with these percentiles; see `quantile`."""
        if name in self.fixed:
            return np.full(self.count, float(self.fixed[name]))
        return quantile(spread, self.uniform(name))


def quantile(spread: Spread, rank: np.ndarray) -> np.ndarray:
    """The value at each rank of a distribution with the spread's 10th, 50th and 90th percentile, never below 0 where
    p10 is not."""
    raise NotImplementedError
