"""The race: compute per owner into the future, and when one owner has more than its rivals together.

Every owner aims at a growth of its own (that of the last year's quarters, pulled to what all owners aim at), buys
no more than its money pays and than a largest share of the year's output, and where all want more than is made, all
get the same part of it. So the world slows down with its wafers, and owners are correlated through them.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri

from gigafactory.errors import UserError
from gigafactory.factory import catalog
from gigafactory.factory.file import Factory
from gigafactory.site import ownership
from gigafactory.site.draws import Draws
from gigafactory.site.ownership import OTHERS, WORLD, YEAR_DAYS, Basis, Fit
from gigafactory.site.race_limits import Money, Supply, drawn, money, spread, supply

Count = Literal["owned", "used"]
Stage = Literal["delivered", "published"]
HOLDS = ("aim", "money", "share", "supply")  # what sets an owner's growth in a step
LATEST = datetime.date(2050, 12, 31)


@dataclass(frozen=True)
class Race:
    """Compute per owner until a date.

    dates: [steps], the first is the data's last day. stock: [draws, steps, owners] H100 equivalents on ``basis``.
    aims: [draws, owners] growth per year that each aims at, mean over the time, as a factor.
    held_by: [steps - 1, 4] share of draws in which each of HOLDS sets the owner's growth. leased: H100 equivalents
    that the owner owns and another uses, taken off where ``count`` is "used".
    """

    owner: str
    rivals: tuple[str, ...]
    owners: tuple[str, ...]
    dates: tuple[datetime.date, ...]
    stock: np.ndarray
    aims: np.ndarray
    held_by: np.ndarray
    fits: dict[str, Fit]
    supply: Supply
    money: Money
    basis: Basis
    count: Count
    stage: Stage
    leased: float

    def of(self, name: str) -> np.ndarray:
        """[draws, steps] of one owner; "world" is the sum of all."""
        if name == WORLD:
            return self.stock.sum(axis=2)
        return self.stock[:, :, self.owners.index(name)]

    @property
    def _let(self) -> float:
        return self.leased if self.count == "used" else 0.0

    @property
    def mine(self) -> np.ndarray:
        """[draws, steps] of the owner, by the count asked for."""
        return np.maximum(self.of(self.owner) - self._let, 1.0)

    @property
    def theirs(self) -> np.ndarray:
        """[draws, steps] of the rivals together. What the owner lets to others is the rest of the world's."""
        if self.rivals == (WORLD,):
            return self.of(WORLD) - self.of(self.owner) + self._let
        return np.sum([self.of(name) for name in self.rivals], axis=0)

    @property
    def probability(self) -> np.ndarray:
        """[steps] that the owner has more than the rivals together on each date."""
        return np.mean(self.mine > self.theirs, axis=0)

    @property
    def ratio(self) -> np.ndarray:
        """[draws] the owner's compute over the rivals' on the last date."""
        return self.mine[:, -1] / self.theirs[:, -1]

    def passing(self) -> np.ndarray:
        """[draws] years since the first date at which the owner first has more; inf: not by the last date."""
        ahead = self.mine > self.theirs
        years = np.array([(day - self.dates[0]).days / YEAR_DAYS for day in self.dates])
        return np.where(ahead.any(axis=1), years[ahead.argmax(axis=1)], np.inf)

    def growth(self, name: str) -> np.ndarray:
        """[draws] factor per year of an owner (or the world) over the whole time."""
        stock = self.of(name)
        years = (self.dates[-1] - self.dates[0]).days / YEAR_DAYS
        return (stock[:, -1] / stock[:, 0]) ** (1 / years)


def race(
    factory: Factory,
    draws: Draws,
    *,
    owner: str = "xAI",
    rivals: Sequence[str] = (WORLD,),
    by: datetime.date = datetime.date(2030, 12, 31),
    basis: Basis = "int8",
    count: Count = "owned",
    stage: Stage = "delivered",
    origin: datetime.date | None = None,
) -> Race:
    """Who has how much compute until ``by``, from the data until ``origin`` (a year end; none is the newest).

    rivals: names, or "world" alone for everybody else. stage "delivered": owners of whom the data count running chips
    get what their growth puts between delivery and running; "published": as the data are. Inputs can be fixed by
    name: race.growth.OWNER, race.growth.rivals, race.money_growth.OWNER and race.assume.NAME.

    Raises UserError for an unknown owner and for a date out of range.
    """
    start = ownership.last_day() if origin is None else origin
    if by <= start:
        raise UserError(f"race: --by {by}: must be after the data's last day, {start}")
    if by > LATEST:
        raise UserError(f"race: --by {by}: must not be after {LATEST}; nothing supports a forecast beyond")
    for field in ("growth", "spend_usd"):
        for name in getattr(factory.race, field):
            if ownership.owner_named(name, f"race.{field}", (OTHERS,)) != name:
                raise UserError(f"race.{field}.{name}: write {ownership.owner_named(name, field, (OTHERS,))!r}")
    owner = ownership.owner_named(owner, "race: --owner")
    named = _rivals(owner, rivals)
    found = ownership.fits(start, basis, spread(factory, "level_correlation").p50)
    level = ownership.levels(start, draws, basis)
    for name in (owner, *named):
        if name not in level and name != WORLD:
            raise UserError(f"race: {name}: the data have no estimate of {name} on {start}")
    world = np.sum(list(level.values()), axis=0)
    limit = supply(factory, draws, start, basis, world)
    owners = tuple(level)
    funds = money(factory, draws, owners, start, basis)
    stock = np.stack(list(level.values()), axis=1)
    if stage == "delivered":
        stock = stock * np.exp(_undelivered(factory, draws, owners, found))
    dates = _quarters(start, by)
    aims = _aims(factory, draws, owners, owner, found)
    largest = drawn(factory, draws, "largest_share")
    error = drawn(factory, draws, "output_error")
    apart = spread(factory, "owner_error")
    errors = np.stack([error * draws.of(f"race.owner_error.{name}", apart) for name in owners], axis=1)
    stocks, holds = _run(stock, dates, aims, limit, funds, largest, error, errors, owners, owner)
    leased = catalog.race_inputs().get(f"leased_h100e_{owner.lower()}")
    return Race(
        owner=owner,
        rivals=named,
        owners=owners,
        dates=dates,
        stock=stocks,
        aims=_mean_aim(aims, (by - start).days / YEAR_DAYS),
        held_by=holds,
        fits=found,
        supply=limit,
        money=funds,
        basis=basis,
        count=count,
        stage=stage,
        leased=0.0 if leased is None else leased.value.value,
    )


def _rivals(owner: str, rivals: Sequence[str]) -> tuple[str, ...]:
    named = tuple(dict.fromkeys(ownership.owner_named(one, "race: --rivals", (WORLD, OTHERS)) for one in rivals))
    if not named:
        raise UserError("race: --rivals: name at least one owner, or world")
    if WORLD in named and len(named) > 1:
        raise UserError("race: --rivals: world is everybody else; name it alone")
    if owner in named:
        raise UserError(f"race: --rivals: {owner} cannot be its own rival")
    return named


def _undelivered(factory: Factory, draws: Draws, owners: tuple[str, ...], found: dict[str, Fit]) -> np.ndarray:
    """[draws, owners] log of delivered over counted chips: growth over the lag where running ones are counted."""
    lag = drawn(factory, draws, "deploy_lag_years")
    own = [found[name].own if ownership.counts_of(name) == "deployed" else 0.0 for name in owners]
    return lag[:, None] * np.array(own)


def _quarters(start: datetime.date, by: datetime.date) -> tuple[datetime.date, ...]:
    days = [start]
    while days[-1] < by:
        last = days[-1]
        year, month = (last.year, last.month + 3) if last.month <= 9 else (last.year + 1, last.month - 9)
        following = datetime.date(year + month // 12, month % 12 + 1, 1) - datetime.timedelta(days=1)
        days.append(min(following, by))
    return tuple(days)


def _aims(
    factory: Factory, draws: Draws, owners: tuple[str, ...], owner: str, found: dict[str, Fit]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Growth aimed at, log per year: [draws, owners] of the first and of the last, and [draws] memory.

    A growth that the file or a fixed input gives has no memory: it stays.
    """
    demand = np.log(drawn(factory, draws, "demand_growth"))
    memory = drawn(factory, draws, "growth_memory")
    differ = ownership.spread_of_growth(found)
    early, late = np.empty((draws.count, len(owners))), np.empty((draws.count, len(owners)))
    for column, name in enumerate(owners):
        fixed = draws.fixed.get(f"race.growth.{name}", draws.fixed.get("race.growth.rivals") if name != owner else None)
        if fixed is not None:
            early[:, column] = late[:, column] = np.log(fixed)
        elif name in factory.race.growth:
            aim = draws.of(f"race.growth.{name}", factory.race.growth[name])
            early[:, column] = late[:, column] = np.log(aim)
        else:
            fit = found[name]
            early[:, column] = fit.own + fit.sd * ndtri(draws.uniform(f"race.growth.{name}"))
            late[:, column] = demand + differ * ndtri(draws.uniform(f"race.later_growth.{name}"))
    return early, late, memory


def _mean_aim(aims: tuple[np.ndarray, np.ndarray, np.ndarray], years: float) -> np.ndarray:
    early, late, memory = aims
    at = (np.arange(40) + 0.5) / 40 * years
    kept = (memory[:, None] ** at).mean(axis=1)[:, None]
    return np.exp(early * kept + late * (1 - kept))


def _run(
    stock: np.ndarray,
    dates: tuple[datetime.date, ...],
    aims: tuple[np.ndarray, np.ndarray, np.ndarray],
    limit: Supply,
    funds: Money,
    largest: np.ndarray,
    error: np.ndarray,
    errors: np.ndarray,
    owners: tuple[str, ...],
    owner: str,
) -> tuple[np.ndarray, np.ndarray]:
    """[draws, steps, owners] of compute, and [steps - 1, HOLDS] what set the owner's growth.

    largest, error: [draws], as the catalogue's largest_share and output_error. errors: [draws, owners] of what each
    gets for its money.
    """
    early, late, memory = aims
    place = owners.index(owner)
    stocks, holds = [stock], []
    for before, after in itertools.pairwise(dates):
        years = (after - before).days / YEAR_DAYS
        at = (before - dates[0]).days / YEAR_DAYS + years / 2
        kept = (memory**at)[:, None]
        aimed = stocks[-1] * np.expm1(np.maximum(early * kept + late * (1 - kept), 0.0) * years)
        made = limit.rate(at) * years * error
        paid = _paid(funds, owners, at) * years * errors
        share = (largest * made)[:, None]
        wanted = np.minimum(np.minimum(aimed, paid), share)
        part = made / np.maximum(wanted.sum(axis=1), made)
        stocks.append(stocks[-1] + wanted * part[:, None])
        mine = np.stack([aimed[:, place], paid[:, place], share[:, 0]], axis=1)
        least = mine.argmin(axis=1)
        least = np.where((least == HOLDS.index("aim")) & (part < 1.0), HOLDS.index("supply"), least)
        holds.append(np.bincount(least, minlength=len(HOLDS)) / len(stock))
    return np.stack(stocks, axis=1), np.array(holds)


def _paid(funds: Money, owners: tuple[str, ...], at: float) -> np.ndarray:
    """[draws, owners] H100 equivalents per year that each owner's money buys."""
    return np.stack([funds.rate(name, at) / funds.price(at) for name in owners], axis=1)
