"""What limits the race: wafers make the world's new compute, money buys an owner's.

All functions are of (factory, draws); times are years since the origin, the last day of the data that are used.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from gigafactory.factory import catalog
from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.site.activities import spread_of
from gigafactory.site.draws import Draws, quantile
from gigafactory.site.ownership import WORLD, Basis, added, held, year_before

_MONTHS = 12.0
_PRICE_DAY = datetime.date(2025, 12, 31)  # of usd_per_h100e
_SHARED = 0.5  # of the variance of money's growth: the whole industry's


def spread(factory: Factory, name: str) -> Spread:
    """An input of the race: the factory file's, else the catalogue's."""
    given = factory.race.assume.get(name)
    return given if given is not None else spread_of(catalog.race_inputs()[name].value)


def drawn(factory: Factory, draws: Draws, name: str) -> np.ndarray:
    """[draws] of an input of the race; its stream is its path in the factory file."""
    return draws.of(f"race.assume.{name}", spread(factory, name))


@dataclass(frozen=True)
class Supply:
    """The world's new compute. wafers: [year ends, draws] per month; years: of them, since the origin.

    per_wafer: [draws] H100 equivalents of a wafer in the year before the origin. growth: [draws] of that, factor per
    year. later: [draws] growth of wafers beyond the last year end.
    """

    years: np.ndarray
    wafers: np.ndarray
    per_wafer: np.ndarray
    growth: np.ndarray
    later: np.ndarray

    def rate(self, at: float) -> np.ndarray:
        """[draws] H100 equivalents made per year, at ``at`` years since the origin."""
        last = self.years[-1]
        if at > last:
            wafers = self.wafers[-1] * self.later ** (at - last)
        else:
            after = int(np.clip(np.searchsorted(self.years, at), 1, len(self.years) - 1))
            low, high = self.years[after - 1], self.years[after]
            part = np.clip((at - low) / (high - low), 0.0, 1.0)
            wafers = self.wafers[after - 1] ** (1 - part) * self.wafers[after] ** part
        # The middle of the year in which per_wafer was measured is half a year before the origin.
        return wafers * _MONTHS * self.per_wafer * self.growth ** (at + 0.5)


def supply(factory: Factory, draws: Draws, origin: datetime.date, basis: Basis, world: np.ndarray) -> Supply:
    """From CoWoS wafers to H100 equivalents, by what the year before ``origin`` made of its wafers.

    Year ends up to one after the origin's year are taken as known by their sources; wafers grow from there. world:
    [draws] of the world's compute at the origin (its error is that of the output, too).
    """
    years = [
        year for year in range(origin.year - 1, origin.year + 2) if f"cowos_wafers_{year}" in catalog.race_inputs()
    ]
    wafers = np.stack([drawn(factory, draws, f"cowos_wafers_{year}") for year in years])
    at = np.array([(datetime.date(year, 12, 31) - origin).days / 365.25 for year in years])
    made = added(WORLD, origin, basis)
    used = _MONTHS * (wafers[0] + wafers[1]) / 2
    return Supply(
        years=at,
        wafers=wafers,
        per_wafer=made * (world / (held(WORLD, origin, basis) or 1.0)) / used,
        growth=drawn(factory, draws, "wafer_compute_growth"),
        later=drawn(factory, draws, "wafer_growth"),
    )


@dataclass(frozen=True)
class Money:
    """What owners can spend on compute: [draws] USD in the first year, its growth per year as a factor; by owner.

    implied: owners whose spending is not known; theirs is what their last year's new compute cost, grown like others'.
    usd: [draws] per new H100 equivalent at the origin. fall: [draws] factor per year by which it falls.
    """

    first: dict[str, np.ndarray]
    growth: dict[str, np.ndarray]
    implied: tuple[str, ...]
    usd: np.ndarray
    fall: np.ndarray

    def rate(self, owner: str, at: float) -> np.ndarray:
        """[draws] USD per year at ``at`` years since the origin; until the first year's middle it is even."""
        return self.first[owner] * self.growth[owner] ** max(at - 0.5, 0.0)

    def price(self, at: float) -> np.ndarray:
        """[draws] USD per new H100 equivalent at ``at`` years since the origin."""
        return self.usd * self.fall**-at


def money(factory: Factory, draws: Draws, owners: tuple[str, ...], origin: datetime.date, basis: Basis) -> Money:
    """Spending of the year after ``origin`` as the file or the catalogue has it, and its growth.

    Growth is half the industry's and half the owner's own. On another basis the money buys the same chips: the price
    of an H100 equivalent falls by what the last year's chips count more.
    """
    fall = drawn(factory, draws, "usd_fall")
    usd = drawn(factory, draws, "usd_per_h100e") * fall ** ((_PRICE_DAY - origin).days / 365.25)
    first: dict[str, np.ndarray] = {}
    growth: dict[str, np.ndarray] = {}
    implied = []
    for owner in owners:
        stream = f"race.spend_usd.{owner}"
        whole, own = (f"{kind}_{origin.year + 1}_{owner.lower()}_usd" for kind in ("capex", "ai_capex"))
        if stream in draws.fixed:
            first[owner] = np.full(draws.count, float(draws.fixed[stream]))
        elif owner in factory.race.spend_usd:
            first[owner] = draws.of(stream, factory.race.spend_usd[owner])
        elif own in catalog.race_inputs():
            first[owner] = draws.of(stream, spread(factory, own))
        elif whole in catalog.race_inputs():
            first[owner] = draws.of(stream, spread(factory, whole)) * drawn(factory, draws, "ai_share_of_capex")
        else:
            # At the price of the middle of that year.
            cost = added(owner, origin, "int8") * usd * fall**0.5
            first[owner] = cost * _half_shared(factory, draws, "first_money_growth", owner)
            implied.append(owner)
        growth[owner] = _half_shared(factory, draws, "money_growth", owner)
    return Money(first, growth, tuple(implied), usd / _counts_more(origin, basis), fall)


def _half_shared(factory: Factory, draws: Draws, name: str, owner: str) -> np.ndarray:
    """[draws] of an input that every owner has its own of, but that all owners' share a part of."""
    fixed = draws.fixed.get(f"race.{name}.{owner}", draws.fixed.get(f"race.assume.{name}"))
    if fixed is not None:
        return np.full(draws.count, float(fixed))
    shared, own = ndtri(draws.uniform(f"race.assume.{name}")), ndtri(draws.uniform(f"race.{name}.{owner}"))
    return quantile(spread(factory, name), ndtr(np.sqrt(_SHARED) * shared + np.sqrt(1 - _SHARED) * own))


def _counts_more(origin: datetime.date, basis: Basis) -> float:
    """The last year's new chips on a basis over their 8-bit figure."""
    start = year_before(origin)

    def new(on: Basis) -> float:
        return (held(WORLD, origin, on, start) or 0.0) - (held(WORLD, start, on, start) or 0.0)

    return new(basis) / new("int8")
