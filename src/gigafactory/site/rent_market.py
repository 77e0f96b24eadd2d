"""The price of renting a chip as a process that falls and rises again, fitted to what was observed.

The logarithm x of the price by contract follows dx = k (m - x) dt + s dW: it is drawn back to a level m, as scarcity
calls for new supply and glut for new use. Scarcities come on top as jumps, which fade at the same rate k. (k, m, s) are
drawn from their likelihood given the observed prices; few observations leave them wide. The level falls as newer chips
do more for the money.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from gigafactory.factory.catalog import Chip, Rental, chip, rentals
from gigafactory.factory.file import Factory
from gigafactory.site.activities import spread_of
from gigafactory.site.capital import chip_price, price
from gigafactory.site.draws import Draws, quantile
from gigafactory.site.months import MONTHS_PER_YEAR

OBSERVED = "h100-sxm"
"""The chip whose prices were observed; others follow it at a constant ratio."""
DAYS_PER_YEAR = 365.25
RETURNS = np.geomspace(0.2, 8.0, 25)
"""k per year that are weighed: the price is drawn halfway back within five weeks to three and a half years."""
OUTSIDE_YEARS = 1.0
"""So long after the last observation it still says what the price is."""


@dataclass(frozen=True)
class Process:
    """Each [draws]: return_per_year k, level m (of the logarithm, for OBSERVED), noise s (per root of a year), premium
    of renting by the hour. years, log_usd: [observations] when, and [draws, observations] logarithms of the price by
    contract."""

    return_per_year: np.ndarray
    level: np.ndarray
    noise: np.ndarray
    premium: np.ndarray
    years: np.ndarray
    log_usd: np.ndarray


def observations() -> list[Rental]:
    """The catalogue's prices of OBSERVED in order of time, but for list prices, which few paid."""
    found = [entry for entry in rentals().values() if entry.chip == OBSERVED and entry.basis != "list"]
    return sorted(found, key=lambda entry: entry.day)


def fit(factory: Factory, draws: Draws) -> Process:
    """The process given the observations, their bands drawn as well.

    Between two of them, dt apart, x is normal with mean m + (x0 - m) a and variance s^2 (1 - a^2) / 2k, a = exp(-k dt).
    For each k of RETURNS the best m and s are in closed form (weighted least squares); k is drawn by its likelihood,
    then s by its chi-square and m by its standard error.
    """
    seen = observations()
    premium = np.maximum(price(factory, draws, "on_demand_premium"), 1.0)
    at = np.array([_years(entry.day) for entry in seen])
    log_usd = np.stack(
        [
            np.log(quantile(spread_of(entry.usd_per_hour), draws.uniform(f"site.money.rentals.{entry.name}")))
            for entry in seen
        ],
        axis=1,
    )
    log_usd -= np.log(premium)[:, None] * [entry.basis == "demand" for entry in seen]
    apart, moves = np.diff(at), len(at) - 1
    fade = np.exp(-RETURNS[:, None] * apart)  # [returns, moves]
    variance = (1 - fade**2) / (2 * RETURNS[:, None])
    weight, pull = (1 - fade) ** 2 / variance, (1 - fade) / variance
    # [draws, returns] sums over moves of (x1 - a x0 - (1 - a) m)^2 / v, by products of matrices.
    first, last = log_usd[:, :-1], log_usd[:, 1:]
    linear = last @ pull.T - first @ (fade * pull).T
    square = (
        (last**2) @ (1 / variance).T - 2 * (last * first) @ (fade / variance).T + (first**2) @ (fade**2 / variance).T
    )
    total = weight.sum(axis=1)
    level = linear / total
    left = np.maximum(square - linear**2 / total, 1e-9)
    likelihood = -0.5 * moves * np.log(left / moves) - 0.5 * np.log(variance).sum(axis=1)
    share = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    rising = np.cumsum(share / share.sum(axis=1, keepdims=True), axis=1)
    drawn = (rising < draws.uniform("site.money.rent.return")[:, None]).sum(axis=1).clip(0, len(RETURNS) - 1)
    row = np.arange(draws.count)
    free = max(moves - 2, 1)
    # Wilson and Hilferty's cube for the quantiles of chi-square.
    score = ndtri(draws.uniform("site.money.rent.noise"))
    chi_square = free * np.maximum(1 - 2 / (9 * free) + score * math.sqrt(2 / (9 * free)), 0.2) ** 3
    noise = np.sqrt(left[row, drawn] / chi_square)
    return Process(
        return_per_year=RETURNS[drawn],
        level=level[row, drawn] + noise / np.sqrt(total[drawn]) * ndtri(draws.uniform("site.money.rent.level")),
        noise=noise,
        premium=premium,
        years=at,
        log_usd=log_usd,
    )


def ratio(name: str) -> float:
    """An hour of a chip over one of OBSERVED: by what both are rented for, else by what they cost; 0 where neither is
    known."""
    own, other = chip(name), chip(OBSERVED)
    rented, bought = _middle(own), _middle(other)
    if name == OBSERVED:
        return 1.0
    if rented and bought:
        return rented / bought
    paid, usual = chip_price(name, own.launched.year), chip_price(OBSERVED, own.launched.year)
    return paid.p50 / usual.p50 if paid is not None and usual is not None else 0.0


def today_usd(process: Process, name: str, day: datetime.date) -> np.ndarray:
    """[draws] price by contract on a day: between the observations around it, or the level where it is far from all."""
    at = _years(day)
    level = process.level
    if process.years[0] <= at <= process.years[-1] + OUTSIDE_YEARS:
        after = int(np.clip(np.searchsorted(process.years, at), 1, len(process.years) - 1))
        before, width = process.years[after - 1], process.years[after] - process.years[after - 1]
        part = min((at - before) / width, 1.0)
        level = process.log_usd[:, after - 1] * (1 - part) + process.log_usd[:, after] * part
    return np.asarray(np.exp(level) * ratio(name))


def paths(factory: Factory, draws: Draws, process: Process, name: str, now_usd: np.ndarray, months: int) -> np.ndarray:
    """[draws, months] price of an hour by contract in each month after a price now [draws]."""
    step = 1.0 / MONTHS_PER_YEAR
    fade = np.exp(-process.return_per_year * step)
    spread = process.noise * np.sqrt((1 - fade**2) / (2 * process.return_per_year))
    scarce = price(factory, draws, "rent_scarcities_per_year")
    fall = price(factory, draws, "rent_fall_per_year")
    rise = np.log(price(factory, draws, "rent_scarcity_rise").clip(1.0))
    # The fitted level is a mean with scarcities in it: between them the price is drawn to less.
    level = process.level + math.log(ratio(name)) - scarce * rise / process.return_per_year
    x = np.log(now_usd)
    result = np.empty((draws.count, months))
    for month in range(months):
        result[:, month] = x
        normal = ndtri(draws.uniform(f"site.money.rent.month-{month}"))
        jump = draws.uniform(f"site.money.rent.scarcity-{month}") < 1 - np.exp(-scarce * step)
        x = level + (x - level) * fade + spread * normal + jump * rise
        level = level - fall * step
    return np.exp(result)


def _years(day: datetime.date) -> float:
    return day.toordinal() / DAYS_PER_YEAR


def _middle(of: Chip) -> float | None:
    """Geometric mean of what a chip is rented for in the catalogue."""
    fact = of.rent_usd_per_hour
    if fact is None:
        return None
    return math.sqrt(fact.low * fact.high) if fact.low and fact.high else fact.value
