"""What a plan's answers hang on: each uncertain input alone from its p10 to its p90, and all jointly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.site.draws import Draws

SCAN_DRAWS = 1000


@dataclass(frozen=True)
class Effect:
    """One input on one outcome. low, high: the input's p10 and p90. at_low, at_high: the outcome's median with the input
    held there, all else as drawn (none: never). rank_correlation: of input and outcome over the draws. share: of the
    outcome's variance (of its ranks) that this input alone explains."""

    name: str
    low: float
    high: float
    at_low: float | None
    at_high: float | None
    rank_correlation: float
    share: float


@dataclass(frozen=True)
class Outcome:
    """One answer of the plan. unit: "days", "USD", "USD/h". p10, p50, p90: with all inputs as drawn (none: never).
    effects: the largest first. explained: share of the variance that the inputs one by one explain together."""

    name: str
    title: str
    unit: str
    p10: float | None
    p50: float | None
    p90: float | None
    effects: tuple[Effect, ...]
    explained: float


@dataclass(frozen=True)
class Sensitivity:
    """outcomes: names all-useful, first-short, usd-per-useful-chip-hour, capex."""

    outcomes: tuple[Outcome, ...]

    def told(self) -> dict[str, Any]:
        """outcomes: [{name, title, unit, p10, p50, p90, explained, effects: [{name, low, high, at_low, at_high,
        rank_correlation, share}]}] for tornado charts."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """Per outcome, the inputs that move it most."""
        raise NotImplementedError


def sensitivity(
    factory: Factory, draws: Draws, goodput: Spread | None = None, scan_draws: int = SCAN_DRAWS
) -> Sensitivity:
    """Jointly from ``draws``; one at a time with the first ``scan_draws`` futures' worth of draws of the same seed."""
    raise NotImplementedError
