"""Rent, build, or rent then build: with the price of renting as a process that can fall and rise again."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.site import RentOffer
from gigafactory.site.capital import price
from gigafactory.site.draws import Draws
from gigafactory.site.money import Money
from gigafactory.site.months import HOURS_PER_MONTH, HOURS_PER_YEAR, MONTHS_PER_YEAR, Months
from gigafactory.site.rent_market import DAYS_PER_YEAR, Process, fit, paths, ratio, today_usd
from gigafactory.site.rent_told import sentences, told
from gigafactory.site.schedule import Schedule

OPTIONS = ("rent", "build", "rent_then_build")
RESIDUAL_YEARS = 4.0
"""Age that residual_share is given for; it falls by the same factor every year."""
_WORTH = "worth of an early chip-hour over its rent; above, bridging pays"
_BRIDGE_MONTHS = 12  # longer contracts are no way to bridge


@dataclass(frozen=True)
class Flip:
    """An input that changes which is cheaper: what it is now, and where renting and building cost the same [draws] (in
    the input's own unit, which its title says)."""

    name: str
    title: str
    now: float
    threshold: np.ndarray
    within: bool


@dataclass(frozen=True)
class Rent:
    """Renting against building a site, over `months` calendar months from the day on which chips could be rented.

    What is needed: rented chips from the first day, and as many as the own site would have once those are more.
    chips: the former. market_usd: [draws, months] price of a chip's hour by contract; hour_usd: the same as paid (the
    offer, then the market). needed, useful: [draws, months] chips needed, and that work on the own site. cost_usd,
    hours: option to [draws], all that an option costs and the chip-hours that it gives; building with the cost of
    capital from the first payment on and less what is left at the end. spent_usd: option to [draws, months] cash until
    then. short_usd: [draws] price by the hour, lost_worth: what a lost chip-hour is worth over that. hand_over: [draws]
    days since the site's start until the own chips are as many as the rented, inf where never in these months.
    residual_usd: [draws] what is left at the end.
    """

    chip: str
    start: datetime.date
    months: Months
    chips: int
    offers: int
    process: Process
    market_usd: np.ndarray
    hour_usd: np.ndarray
    needed: np.ndarray
    useful: np.ndarray
    cost_usd: dict[str, np.ndarray]
    hours: dict[str, np.ndarray]
    spent_usd: dict[str, np.ndarray]
    short_usd: np.ndarray
    lost_worth: np.ndarray
    hand_over: np.ndarray
    residual_usd: np.ndarray
    capex_usd: np.ndarray
    flips: tuple[Flip, ...] = ()

    @property
    def per_hour_usd(self) -> dict[str, np.ndarray]:
        """Option to [draws] USD per chip-hour, inf where it gives none."""
        with np.errstate(divide="ignore"):
            return {name: self.cost_usd[name] / self.hours[name] for name in OPTIONS}

    @property
    def build_cheaper(self) -> float:
        """Probability that a chip-hour of the own site costs less than a rented one."""
        each = self.per_hour_usd
        return float((each["build"] < each["rent"]).mean())

    @property
    def same_work_usd(self) -> dict[str, np.ndarray]:
        """Option to [draws] cost of the same work: what building alone lacks counts at its worth."""
        lost = (self.hours["rent"] - self.hours["build"]) * self.short_usd * self.lost_worth
        return {**self.cost_usd, "build": self.cost_usd["build"] + np.maximum(lost, 0.0)}

    @property
    def cheapest(self) -> dict[str, float]:
        """Option to the probability that it does the same work for the least."""
        table = np.stack([self.same_work_usd[name] for name in OPTIONS])
        best = np.argmin(table, axis=0)
        return {name: float((best == index).mean()) for index, name in enumerate(OPTIONS)}

    @property
    def break_even_months(self) -> np.ndarray:
        """[draws] months from which on renting has cost more cash than building, inf where it has not by the end."""
        dearer = self.spent_usd["build"] > self.spent_usd["rent"]
        last = len(self.months) - np.argmax(dearer[:, ::-1], axis=1)
        return np.where(dearer[:, -1], np.inf, np.where(dearer.any(axis=1), last, 0.0))

    def told(self) -> dict[str, Any]:
        """Plain data: quantiles of all fields."""
        return told(self)

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        return sentences(self)


def contract_usd_per_hour(usd: float, chips: int, years: float) -> float:
    """What a sum for so many chips over so many years is per chip and hour."""
    return usd / (chips * years * HOURS_PER_YEAR)


def rent(factory: Factory, draws: Draws, schedule: Schedule, money: Money) -> Rent | None:
    """Renting against building; none where nothing is known of the price of renting the chip most of the site has.

    The offers of the file for that chip, and the market beyond their number and after their end, for the longest of
    them, or where that is less than half a life of servers, for that life; without offers the market alone, from the
    site's start on. Chips of other kinds count as that one. UserError for offers that begin after the plan's end.
    """
    if not ratio(money.chip):
        return None
    site, process = factory.site, fit(factory, draws)
    assert site.start is not None
    taken = [(index, offer) for index, offer in enumerate(site.money.rent) if offer.chip == money.chip]
    start = min((offer.start for _, offer in taken), default=site.start)
    whole = money.months
    begin = whole.index(start)
    life = round(float(np.median(money.life_years)) * MONTHS_PER_YEAR)
    longest = max((offer.months for _, offer in taken), default=0)
    if begin >= len(whole):
        raise UserError(
            f"site.money.rent: its first day {start} lies after the plan's last month, {whole.firsts[-1]:%Y-%m}"
        )
    count = min(longest if 2 * longest >= life else life, len(whole) - begin)
    months = Months(site.start, whole.firsts[begin : begin + count])
    chips = min(sum(offer.count for _, offer in taken), money.chips) if taken else money.chips

    prices = [
        draws.of(f"site.money.rent[{index}].usd_per_chip_hour", offer.usd_per_chip_hour) for index, offer in taken
    ]
    now = _mean(prices, [offer.count for _, offer in taken]) if taken else today_usd(process, money.chip, start)
    market = paths(factory, draws, process, money.chip, np.maximum(now, 1e-3), count)
    useful = _useful(schedule, months)
    needed = np.maximum(useful, float(chips))
    hour, offered = _blended(market, taken, prices, needed, months)

    short = market * process.premium[:, None]
    bridging = np.maximum(needed - useful, 0.0)
    bridge_hour, bridged = _bridge(short, taken, prices, bridging, months, float(chips))
    built = _built(factory, draws, schedule, money, months)
    rented_usd = needed * hour * HOURS_PER_MONTH
    bridge_usd = bridged * bridge_hour * HOURS_PER_MONTH
    own_usd, own_cash = built.cost_usd, built.cash_usd
    found = Rent(
        chip=money.chip,
        start=start,
        months=months,
        chips=chips,
        offers=offered,
        process=process,
        market_usd=market,
        hour_usd=hour,
        needed=needed,
        useful=useful,
        cost_usd={
            "rent": rented_usd.sum(axis=1),
            "build": own_usd,
            "rent_then_build": own_usd + bridge_usd.sum(axis=1),
        },
        hours={
            "rent": needed.sum(axis=1) * HOURS_PER_MONTH,
            "build": useful.sum(axis=1) * HOURS_PER_MONTH,
            "rent_then_build": np.maximum(needed, useful + bridging).sum(axis=1) * HOURS_PER_MONTH,
        },
        spent_usd={
            "rent": np.cumsum(rented_usd, axis=1),
            "build": own_cash,
            "rent_then_build": own_cash + np.cumsum(bridge_usd, axis=1),
        },
        short_usd=(short * bridging).sum(axis=1) / np.maximum(bridging.sum(axis=1), 1e-9),
        lost_worth=price(factory, draws, "worth_of_early_hours"),
        hand_over=schedule.lots.reached("useful", chips),
        residual_usd=built.residual_usd,
        capex_usd=money.total_capex_usd,
    )
    return Rent(**{**vars(found), "flips": _flips(found)})


@dataclass(frozen=True)
class _Built:
    """[draws] cost of the own site until the end and what is left then; [draws, months] cash until each month."""

    cost_usd: np.ndarray
    residual_usd: np.ndarray
    cash_usd: np.ndarray


def _built(factory: Factory, draws: Draws, schedule: Schedule, money: Money, months: Months) -> _Built:
    begin = money.months.index(months.firsts[0])
    end = begin + len(months)
    paid = money.paid_usd
    book = np.cumsum(paid - money.depreciation_usd, axis=1)[:, :end]
    capital = np.maximum(book, 0.0).sum(axis=1) * money.interest_per_year / MONTHS_PER_YEAR
    cash = np.cumsum(paid + money.running_usd, axis=1)[:, :end]
    share = price(factory, draws, "residual_share")
    life = price(factory, draws, "building_life_years")
    left = np.zeros(draws.count)
    last_day, lots, bought = months.edges[-1], schedule.lots, money.capital
    for index in range(len(bought.count)):
        chosen = lots.order == index
        # inf, for what never comes, is not paid for and leaves nothing.
        there = lots.delivered[:, chosen] < last_day
        age = np.maximum(last_day - np.minimum(lots.delivered[:, chosen], last_day), 0.0) / DAYS_PER_YEAR
        weight = there * lots.count[chosen] / bought.count[index]
        mean_age = (age * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-9)
        worth = bought.equipment_usd[:, index] * share ** (mean_age / RESIDUAL_YEARS)
        hall = bought.building_usd[:, index] * bought.count[index] * np.maximum(1 - mean_age / life, 0.0)
        left += weight.sum(axis=1) * (worth + hall)
    years = max(last_day, 0.0) / DAYS_PER_YEAR
    left += bought.source_usd.sum(axis=1) * np.maximum(1 - years / life, 0.0)
    return _Built(cash[:, -1] + capital - left, left, cash[:, begin:])


def _useful(schedule: Schedule, months: Months) -> np.ndarray:
    """[draws, months] chips that work, mean over each month."""
    edges = schedule.lots.curve("useful", months.edges)
    return (edges[:, 1:] + edges[:, :-1]) / 2


def _blended(
    market: np.ndarray,
    taken: list[tuple[int, RentOffer]],
    prices: list[np.ndarray],
    needed: np.ndarray,
    months: Months,
) -> tuple[np.ndarray, int]:
    """[draws, months] mean price of an hour, the offers first and the market for the rest; and chips offered."""
    cost, left = np.zeros_like(market), needed.copy()
    for (_, offer), each_usd in zip(taken, prices, strict=True):
        first = months.index(offer.start)
        term = (np.arange(len(months)) >= first) & (np.arange(len(months)) < first + offer.months)
        used = np.minimum(left, offer.count) * term
        cost += used * each_usd[:, None]
        left -= used
    return (cost + left * market) / needed, sum(offer.count for _, offer in taken)


def _bridge(
    short: np.ndarray,
    taken: list[tuple[int, RentOffer]],
    prices: list[np.ndarray],
    bridging: np.ndarray,
    months: Months,
    chips: float,
) -> tuple[np.ndarray, np.ndarray]:
    """[draws, months] price of an hour and chips paid for, until the own site has enough: by the hour, or by an offer
    of at most a year, which is paid to its end."""
    brief = [
        (offer, each_usd) for (_, offer), each_usd in zip(taken, prices, strict=True) if offer.months <= _BRIDGE_MONTHS
    ]
    if not brief:
        return short, bridging
    cost, paid, left = np.zeros_like(short), np.zeros_like(short), np.full_like(short, chips)
    for offer, each_usd in brief:
        first = months.index(offer.start)
        term = (np.arange(len(months)) >= first) & (np.arange(len(months)) < first + offer.months)
        used = np.minimum(left, offer.count) * term
        cost, paid, left = cost + used * each_usd[:, None], paid + used, left - used
    more = np.maximum(bridging - paid, 0.0)
    total = paid + more
    return (cost + more * short) / np.maximum(total, 1e-9), total


def _mean(prices: list[np.ndarray], counts: list[int]) -> np.ndarray:
    """[draws] mean of prices by the number of chips."""
    result: np.ndarray = np.average(np.stack(prices), axis=0, weights=counts)
    return result


def _flips(found: Rent) -> tuple[Flip, ...]:
    """Where renting and building cost the same per chip-hour, input by input."""
    each = found.per_hour_usd
    rented, build = each["rent"], each["build"]
    low, high = np.quantile(rented, (0.1, 0.9))
    least, most = np.quantile(found.lost_worth, (0.1, 0.9))
    with np.errstate(divide="ignore", invalid="ignore"):
        each_early = (found.cost_usd["rent_then_build"] - found.cost_usd["build"]) / np.maximum(
            found.hours["rent"] - found.hours["build"], 1e-9
        )
        early = each_early / np.maximum(found.short_usd, 1e-9)
        used = build / (found.market_usd * found.process.premium[:, None]).mean(axis=1)
        late = (found.hours["build"] - found.cost_usd["build"] / rented) / (found.useful[:, -1] * HOURS_PER_MONTH)
        whole = found.cost_usd["build"] + found.residual_usd
        left = (whole - rented * found.hours["build"]) / found.capex_usd
    late = np.where(np.isfinite(late), late, -np.inf)
    now, early_now = float(np.median(rented)), float(np.median(found.lost_worth))
    worth = float(np.median(found.residual_usd / found.capex_usd))
    middle = {"used": float(np.median(used)), "late": float(np.median(late)), "left": float(np.median(left))}
    return (
        Flip("price", "price of a rented chip-hour, USD", now, build, bool(low <= np.median(build) <= high)),
        Flip("utilisation", "share of the hours that are used", 1.0, used, 0.4 <= middle["used"] <= 1.0),
        Flip("delay", "months by which the own site comes later", 0.0, late, abs(middle["late"]) <= MONTHS_PER_YEAR),
        Flip("residual", "what is left at the end over what was bought", worth, left, 0.0 <= middle["left"] <= 0.5),
        Flip("worth", _WORTH, early_now, early, bool(least <= np.median(early) <= most)),
    )
