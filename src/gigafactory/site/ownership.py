"""Compute per owner as the catalogue's table has it: levels with their uncertainty, and growth fitted to them.

H100 equivalents are 8-bit unless another basis is asked for. Owners are those of the table plus OTHERS, the rest of
what was sold. Data: Epoch AI (CC-BY 4.0).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri

from gigafactory.errors import UserError
from gigafactory.factory import catalog
from gigafactory.factory.catalog import Holding, suggest
from gigafactory.site.draws import Draws

Basis = Literal["int8", "bf16", "fp4"]
WORLD, OTHERS = "world", "others"
YEAR_DAYS = 365.25

_Z95 = float(ndtri(0.95))
# A chip without a number format computes in the next wider one that it has.
_FORMATS: dict[Basis, tuple[str, ...]] = {"int8": (), "bf16": ("bf16",), "fp4": ("fp4", "fp8", "int8", "bf16")}
_LEAST_POINTS = 3  # of a fit
_LEAST_REST = 0.25  # the others are never less than this part of their median


@dataclass(frozen=True)
class Fit:
    """An owner's growth in the year before the origin, as log per year.

    own: of its compute. relative: own less the world's. sd: of relative, from the scatter of the quarters and from
    the intervals of the levels. points: quarter ends used; 0 when there are too few, then relative is 0.
    """

    own: float
    relative: float
    sd: float
    points: int


def owner_names() -> tuple[str, ...]:
    """Owners of the table in its order, without the rest and the world."""
    return tuple(dict.fromkeys(one.owner for one in catalog.owners().values() if one.owner != WORLD))


def owner_named(name: str, field: str, extra: tuple[str, ...] = ()) -> str:
    """The owner as the table writes it; an unknown one is a UserError that names ``field``."""
    known = {one.lower(): one for one in (*owner_names(), *extra)}
    if name.strip().lower() not in known:
        raise UserError(f"{field}: no owner {name.strip()!r} in the data; {suggest(name, list(known.values()))}")
    return known[name.strip().lower()]


def last_day() -> datetime.date:
    """The newest quarter end of the table."""
    return max(day for one in catalog.owners().values() for day in one.quarters)


def year_before(day: datetime.date) -> datetime.date:
    """The same day a year earlier (quarter ends only, so there is one)."""
    return day.replace(year=day.year - 1)


def basis_factor(holding: Holding, day: datetime.date, basis: Basis) -> float:
    """H100 equivalents on a basis over 8-bit ones, for a holding's mix of chips on a day (between year ends: linear).

    An H100 without FP4 counts its FP8 rate on the basis fp4; chips outside the catalogue stay at their 8-bit figure.
    """
    if basis == "int8":
        return 1.0
    days = sorted(holding.mix)
    factors = [sum(share * _chip_factor(chip, basis) for chip, share in holding.mix[one].items()) for one in days]
    return float(np.interp(day.toordinal(), [one.toordinal() for one in days], factors))


def held(owner: str, day: datetime.date, basis: Basis, since: datetime.date | None = None) -> float | None:
    """An owner's median on a day; None where the table has no estimate. since: only suppliers estimated then too."""
    total, known = 0.0, False
    for holding in _holdings(owner):
        if min(holding.quarters) > (since or day):
            continue
        if day not in holding.quarters:
            return None
        total += holding.quarters[day].value * basis_factor(holding, day, basis)
        known = True
    return total if known else None


def added(owner: str, origin: datetime.date, basis: Basis) -> float:
    """What an owner (or OTHERS) got new in the year before ``origin``; all it has where the table begins later."""
    if owner == OTHERS:
        return added(WORLD, origin, basis) - sum(added(name, origin, basis) for name in owner_names())
    start = year_before(origin)
    return (held(owner, origin, basis) or 0.0) - (held(owner, start, basis) or 0.0)


def levels(origin: datetime.date, draws: Draws, basis: Basis) -> dict[str, np.ndarray]:
    """[draws] of each owner's compute on a quarter end, and of OTHERS: what is left of the world's.

    Errors of one supplier's owners share a part, that of the supplier's total; the rest is each owner's own. Owners
    that the table does not know on that day are left out (they are among the others).
    """
    found: dict[str, np.ndarray] = {}
    common = {one.supplier: ndtri(draws.uniform(f"race.level.{one.supplier}")) for one in catalog.owners().values()}
    sizes = {one.supplier: _log_sd(one, origin) for one in _holdings(WORLD)}
    for name in (*owner_names(), WORLD):
        if held(name, origin, basis) is None:
            continue
        total = np.zeros(draws.count)
        for holding in _holdings(name):
            if origin not in holding.quarters:
                continue
            fact, shared = holding.quarters[origin], 0.0
            if _log_sd(holding, origin) > 0:
                shared = min(sizes[holding.supplier] / _log_sd(holding, origin), 1.0)
            alone = ndtri(draws.uniform(f"race.level.{holding.name}"))
            score = shared * common[holding.supplier] + np.sqrt(1 - shared**2) * alone
            up = float(np.log((fact.high or fact.value) / fact.value))
            down = float(np.log(fact.value / (fact.low or fact.value)))
            total += (
                fact.value * basis_factor(holding, origin, basis) * np.exp(np.where(score > 0, up, down) / _Z95 * score)
            )
        found[name] = total
    world = found.pop(WORLD)
    named = np.sum(list(found.values()), axis=0)
    rest = held(WORLD, origin, basis) or 0.0
    rest -= sum(held(name, origin, basis) or 0.0 for name in found)
    return {**found, OTHERS: np.maximum(world - named, _LEAST_REST * rest)}


def fits(origin: datetime.date, basis: Basis, level_correlation: float) -> dict[str, Fit]:
    """Growth of each owner and of OTHERS over the year before ``origin``, from the quarters' medians.

    Only suppliers that were estimated a year before count, on both sides, so that what the table begins to cover is
    not taken for growth. level_correlation: of an owner's errors between two year ends.
    """
    start = year_before(origin)
    days = sorted({day for one in _holdings(WORLD) for day in one.quarters if start <= day <= origin})
    world = {day: held(WORLD, day, basis, start) for day in days}
    named = {
        name: {day: value for day in days if (value := held(name, day, basis, max(start, _first(name)))) is not None}
        for name in owner_names()
    }
    rest = {day: (world[day] or 0.0) - sum(of.get(day, 0.0) for of in named.values()) for day in days}
    world_growth = np.log((world[origin] or 1.0) / (world[start] or 1.0))
    found = {}
    for name, points in {**named, OTHERS: rest}.items():
        if origin not in points:
            continue
        noise = _own_log_sd(name, origin) * np.sqrt(2 * (1 - level_correlation)) if name != OTHERS else 0.0
        found[name] = _fit(points, world, world_growth, noise)
    # What cannot be fitted may grow like any owner.
    spread = spread_of_growth(found)
    return {name: fit if fit.points else Fit(world_growth, 0.0, spread, 0) for name, fit in found.items()}


def spread_of_growth(found: Mapping[str, Fit]) -> float:
    """Root mean square of the owners' growth against the world's: how different owners are, log per year."""
    return float(np.sqrt(np.mean([fit.relative**2 for fit in found.values() if fit.points])))


def concentration(stock: Mapping[str, float | np.ndarray]) -> dict[str, np.ndarray]:
    """Herfindahl index (sum of squared shares) and the share of the three largest; the others count as many small."""
    values = np.stack([np.asarray(value) for value in stock.values()])
    shares = values / values.sum(axis=0)
    named = shares[[index for index, name in enumerate(stock) if name != OTHERS]]
    return {"herfindahl": (named**2).sum(axis=0), "top3": np.sort(named, axis=0)[-3:].sum(axis=0)}


def counts_of(owner: str) -> str:
    """Whether the table counts an owner's delivered or its deployed chips."""
    return next((one.counts for one in _holdings(owner)), "delivered")


def _holdings(owner: str) -> list[Holding]:
    return [one for one in catalog.owners().values() if one.owner == owner]


def _first(owner: str) -> datetime.date:
    return min(day for one in _holdings(owner) for day in one.quarters)


def _log_sd(holding: Holding, day: datetime.date) -> float:
    fact = holding.quarters.get(day)
    if fact is None or not fact.low or not fact.high:
        return 0.0
    return float(np.log(fact.high / fact.low) / (2 * _Z95))


def _own_log_sd(owner: str, day: datetime.date) -> float:
    """Of the owner's sum over suppliers, their errors taken as independent."""
    parts = [(one.quarters[day].value, _log_sd(one, day)) for one in _holdings(owner) if day in one.quarters]
    total = sum(value for value, _ in parts)
    return float(np.sqrt(sum((value * sd) ** 2 for value, sd in parts)) / total) if total else 0.0


def _fit(
    points: Mapping[datetime.date, float],
    world: Mapping[datetime.date, float | None],
    world_growth: float,
    noise: float,
) -> Fit:
    """Least squares of log(owner / world) on time."""
    days = [day for day in points if points[day] > 0]
    if len(days) < _LEAST_POINTS:
        return Fit(world_growth, 0.0, 0.0, 0)
    years = np.array([(day - days[0]).days / YEAR_DAYS for day in days])
    ratio = np.log([points[day] / (world[day] or 1.0) for day in days])
    years = years - years.mean()
    slope = float((years * ratio).sum() / (years**2).sum())
    scatter = ratio - ratio.mean() - slope * years
    error = float(np.sqrt((scatter**2).sum() / max(len(days) - 2, 1) / (years**2).sum()))
    return Fit(world_growth + slope, slope, float(np.hypot(error, noise)), len(days))


def _chip_factor(name: str, basis: Basis) -> float:
    if name not in catalog.chips():
        return 1.0
    chip, h100 = catalog.chip(name), catalog.chip("h100-sxm")
    return _rate(chip, basis) / _rate(h100, basis) / chip.h100_equivalents.value


def _rate(chip: catalog.Chip, basis: Basis) -> float:
    known = [getattr(chip, f"peak_{kind}_flops") for kind in _FORMATS[basis]]
    return max(fact.value for fact in known if fact is not None)
