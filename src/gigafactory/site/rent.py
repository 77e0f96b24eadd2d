"""Rent, build, or rent then build: with the price of renting as a process that can fall and rise again."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws
from gigafactory.site.money import Money
from gigafactory.site.schedule import Schedule

OPTIONS = ("rent", "build", "rent_then_build")


@dataclass(frozen=True)
class Rent:
    """start: the first day on which chips could be rented. months: of the comparison. chips: that are needed.

    market_usd: [draws, months] price of an hour of one chip by contract. rent_usd: [draws, months] what renting costs
    per chip-hour in each month (the offer, then the market). cost_usd: option to [draws] of the whole comparison.
    hours: option to [draws] chip-hours that it gives. per_hour_usd: option to [draws]. cheapest: option to the
    probability that its chip-hour is cheapest of all. break_even_month: [draws] months after start at which building
    has cost no more than renting, inf where never. hand_over_day: [draws] days since the site's start at which the own
    chips replace the rented. flips: what changes the answer, as told.
    """

    chip: str
    start: datetime.date
    months: int
    chips: int
    market_usd: np.ndarray
    rent_usd: np.ndarray
    cost_usd: dict[str, np.ndarray]
    hours: dict[str, np.ndarray]
    per_hour_usd: dict[str, np.ndarray]
    cheapest: dict[str, float]
    break_even_month: np.ndarray
    hand_over_day: np.ndarray
    flips: tuple[dict[str, Any], ...]

    def told(self) -> dict[str, Any]:
        """Plain data: quantiles of all fields."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        raise NotImplementedError


def rent(factory: Factory, draws: Draws, schedule: Schedule, money: Money) -> Rent | None:
    """Renting against building; none where no price of renting the site's main chip is known."""
    raise NotImplementedError
