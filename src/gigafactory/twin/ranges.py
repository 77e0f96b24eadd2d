"""Numbers with an interval, and how intervals add up along a chain of factors that err independently."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gigafactory.factory.catalog import Fact
from gigafactory.factory.quantity import Spread

SHARE = 0.8  # of what is measured lies between low and high


@dataclass(frozen=True)
class Range:
    """A number with the ends of its 80 % interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Range:
        return Range(self.value * factor, self.low * factor, self.high * factor)

    def told(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def exactly(value: float) -> Range:
    return Range(value, value, value)


def of_fact(fact: Fact) -> Range:
    """A catalogue's number; its low and high are about the 10th and 90th percentile."""
    low, high = (fact.value, fact.value) if fact.low is None or fact.high is None else (fact.low, fact.high)
    return Range(fact.value, low, high)


def of_spread(spread: Spread) -> Range:
    return Range(spread.p50, spread.p10, spread.p90)


def times(*factors: Range) -> Range:
    """The product of numbers, none below 0: logarithms of the ends add up in quadrature, to each side."""
    value = math.prod(one.value for one in factors)
    if value == 0.0:  # something is free: nothing to be unsure of
        return exactly(0.0)
    down = math.hypot(*(math.log(one.value / one.low) if one.low > 0 else math.inf for one in factors))
    up = math.hypot(*(math.log(one.high / one.value) for one in factors))
    return Range(value, value * math.exp(-down), value * math.exp(up))


def plus(*terms: Range) -> Range:
    """The sum: distances to the ends add up in quadrature, to each side."""
    value = sum(one.value for one in terms)
    down = math.hypot(*(one.value - one.low for one in terms))
    up = math.hypot(*(one.high - one.value for one in terms))
    return Range(value, value - down, value + up)


def per(amount: float, rate: Range) -> Range:
    """amount / rate."""
    return Range(amount / rate.value, amount / rate.high, amount / rate.low)
