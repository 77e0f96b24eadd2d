"""Money: what a site costs by class and by month, whether its financing covers it, and the price of a GPU-hour."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.capital import KWH_J, Capital, capital, price
from gigafactory.site.draws import Draws
from gigafactory.site.load import it_power_w, phase_days, pue, utilization
from gigafactory.site.money_told import sentences, told
from gigafactory.site.months import HOURS_PER_MONTH, HOURS_PER_YEAR, MONTHS_PER_YEAR, Months, plan_months
from gigafactory.site.schedule import Schedule

_NEARLY = 0.99


@dataclass(frozen=True)
class HourCost:
    """USD per hour of one chip, each [draws] or scalar: see `hour_cost`."""

    capital_usd: Any
    energy_usd: Any
    interest_usd: Any
    operation_usd: Any
    colocation_usd: Any

    @property
    def total_usd(self) -> Any:
        """The sum of all parts."""
        return self.capital_usd + self.energy_usd + self.interest_usd + self.operation_usd + self.colocation_usd


@dataclass(frozen=True)
class Round:
    """One round of financing. until: the next round or the end of payments for what is bought. needed_usd: [draws] all
    payments until then. covered: share of the futures in which what was raised so far is enough for that."""

    date: datetime.date
    usd: float
    raised_usd: float
    until: datetime.date
    needed_usd: np.ndarray
    covered: float


@dataclass(frozen=True)
class Money:
    """Days are since the site's start; [months] are those of `months`.

    chips: of all orders. chip: the kind most of them are. capital: what is bought. paid_usd, energy_usd,
    operation_usd, colocation_usd, interest_usd (of the debt), depreciation_usd: [draws, months]. raised_usd: [months]
    money that came in until the end of each month, income not counted. hour: a chip's hour over its life.
    useful_share: [draws] share of a chip's life, from its delivery on, in which it works. inputs: path to [draws] of
    uncertain prices.
    """

    months: Months
    chips: int
    chip: str
    capital: Capital
    paid_usd: np.ndarray
    energy_usd: np.ndarray
    operation_usd: np.ndarray
    colocation_usd: np.ndarray
    interest_usd: np.ndarray
    depreciation_usd: np.ndarray
    raised_usd: np.ndarray
    rounds: tuple[Round, ...]
    interest_per_year: np.ndarray
    life_years: np.ndarray
    hour: HourCost
    useful_share: np.ndarray
    inputs: dict[str, np.ndarray]

    @property
    def capex_usd(self) -> dict[str, np.ndarray]:
        """Class (servers, fabric, building, generation, batteries) to [draws]."""
        return self.capital.classes

    @property
    def total_capex_usd(self) -> np.ndarray:
        """[draws] over all classes."""
        return np.sum(list(self.capex_usd.values()), axis=0)

    @property
    def usd_per_chip(self) -> np.ndarray:
        """[draws] all that is bought over the chips: the all-in price of a chip."""
        return self.total_capex_usd / self.chips

    @property
    def running_usd(self) -> np.ndarray:
        """[draws, months] energy, operation and rented halls."""
        return self.energy_usd + self.operation_usd + self.colocation_usd

    @property
    def need_usd(self) -> np.ndarray:
        """[draws, months] all payments until the end of each month, interest on debt included."""
        return np.cumsum(self.paid_usd + self.running_usd + self.interest_usd, axis=1)

    @property
    def short_month(self) -> np.ndarray:
        """[draws] index of the first month, from the first round on, in which the need exceeds what was raised; inf
        where it never does."""
        short = (self.need_usd > self.raised_usd) & (np.arange(len(self.months)) >= self.first_round)
        return np.where(short.any(axis=1), np.argmax(short, axis=1), np.inf)

    @property
    def first_round(self) -> int:
        """Index of the month in which money first comes in; what is paid before it must come from elsewhere."""
        return int(np.argmax(self.raised_usd > 0)) if self.rounds else 0

    @property
    def gap_usd(self) -> np.ndarray:
        """[draws] the largest excess of the need over what was raised from the first round on, at least 0."""
        return np.maximum((self.need_usd - self.raised_usd)[:, self.first_round :].max(axis=1), 0.0)

    @property
    def hour_usd(self) -> np.ndarray:
        """[draws] USD per hour of a chip that is there."""
        return np.asarray(self.hour.total_usd)

    @property
    def useful_hour_usd(self) -> np.ndarray:
        """[draws] USD per hour of a chip that works, inf where none ever does."""
        with np.errstate(divide="ignore"):
            return self.hour_usd / self.useful_share

    def told(self) -> dict[str, Any]:
        """Plain data: quantiles of all fields, the need by month against what was raised, which inputs matter."""
        return told(self)

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        return sentences(self)


def money(factory: Factory, draws: Draws, schedule: Schedule, power: Any) -> Money:
    """Money of a factory. power: site.power's result (months, energy_usd, energy_j).

    Servers: a share with the order, the rest some days after each delivery; buildings evenly until an order's last
    chip is installed; generators and batteries on the day they supply. Operation and depreciation begin with a chip's
    power. UserError where a chip on order has no known price.
    """
    site, lots, months = factory.site, schedule.lots, plan_months(factory)
    bought = capital(factory, draws)
    own = dict(bought.inputs)

    def of(name: str, given: float | None = None) -> np.ndarray:
        own[f"site.money.{name}"] = price(factory, draws, name, given)
        return own[f"site.money.{name}"]

    life = of("depreciation_years", site.money.depreciation_years)
    interest = of("interest_per_year", site.money.interest_per_year)
    operation = of("operation_share_per_year", site.money.operation_share_per_year)
    paid = _paid(factory, draws, schedule, bought, months, np.minimum(of("deposit_share"), 1.0), of("payment_days"))

    serving = np.zeros((draws.count, len(months)))  # what was bought and has power, by the month in which it got it
    for index in range(len(site.orders)):
        chosen = lots.order == index
        each_usd = (bought.server_usd + bought.fabric_usd + bought.building_usd)[:, index, None]
        serving += months.sums(lots.powered[:, chosen], each_usd * lots.count[chosen])
    on, _ = phase_days(factory, draws)
    serving += months.sums(on, bought.source_usd)
    in_service = np.cumsum(serving, axis=1)
    energy = months.aligned(power.months, power.energy_usd)
    spent_j = power.energy_j.sum(axis=1)
    kwh_usd = np.where(spent_j > 0, power.energy_usd.sum(axis=1) * KWH_J / np.maximum(spent_j, 1.0), 0.0)
    own["site.pue"] = pue(factory, draws)
    it_w = np.array([it_power_w(factory, order.chip) for order in site.orders])
    mean_w = float(it_w @ bought.count / bought.count.sum())
    colocation = np.zeros((draws.count, len(months)))
    colocation_hour = np.zeros(draws.count)
    if site.kind == "colocation":
        per_w = of("colocation_usd_per_kw_month") / 1e3
        there = np.cumsum(months.sums(lots.delivered, lots.count * it_w[lots.order]), axis=1)
        colocation = per_w[:, None] * there
        colocation_hour = per_w * mean_w / HOURS_PER_MONTH
    raised, debt = _raised(factory, months)
    chips = round(float(bought.count.sum()))
    totals = np.sum(list(bought.classes.values()), axis=0)
    kinds = {order.chip: 0 for order in site.orders}
    for order in site.orders:
        kinds[order.chip] += order.count
    result = Money(
        months=months,
        chips=chips,
        chip=max(kinds, key=lambda name: kinds[name]),
        capital=bought,
        paid_usd=paid,
        energy_usd=energy,
        operation_usd=operation[:, None] * in_service / MONTHS_PER_YEAR,
        colocation_usd=colocation,
        interest_usd=interest[:, None] * debt / MONTHS_PER_YEAR,
        depreciation_usd=_depreciation(in_service, life),
        raised_usd=raised,
        rounds=(),
        interest_per_year=interest,
        life_years=life,
        hour=hour_cost(
            totals / chips,
            life_years=life,
            power_w=mean_w * own["site.pue"] * utilization(factory),
            energy_usd_per_kwh=kwh_usd,
            interest_per_year=interest,
            operation_share_per_year=operation,
            colocation_usd_per_hour=colocation_hour,
        ),
        useful_share=_useful_share(schedule, life),
        inputs=own | {"energy_usd_per_kwh": kwh_usd},
    )
    return Money(**{**vars(result), "rounds": _rounds(factory, result)})


def hour_cost(
    capex_usd: Any,
    *,
    life_years: Any,
    power_w: Any,
    energy_usd_per_kwh: Any,
    interest_per_year: Any,
    operation_share_per_year: Any,
    colocation_usd_per_hour: Any = 0.0,
) -> HourCost:
    """One chip's hour, scalars or [draws]: all capital in a straight line over one life, energy at the site's meter
    (power_w with cooling), the cost of capital on half of it as the mean balance, and a share of it per year for
    operation. What is left after that life is not credited; `rent` does that."""
    return HourCost(
        capital_usd=capex_usd / (life_years * HOURS_PER_YEAR),
        energy_usd=power_w / 1e3 * energy_usd_per_kwh,
        interest_usd=capex_usd / 2 * interest_per_year / HOURS_PER_YEAR,
        operation_usd=capex_usd * operation_share_per_year / HOURS_PER_YEAR,
        colocation_usd=colocation_usd_per_hour,
    )


def reads_as(usd: float, chips: int, bare_usd: float, all_in_usd: float) -> str:
    """Whether a sum for so many chips is nearer to the price of bare chips or to the all-in price: "bare" or
    "all-in"."""
    each = usd / chips
    return "bare" if abs(np.log(each / bare_usd)) < abs(np.log(each / all_in_usd)) else "all-in"


def _paid(
    factory: Factory,
    draws: Draws,
    schedule: Schedule,
    bought: Capital,
    months: Months,
    deposit: np.ndarray,
    later_days: np.ndarray,
) -> np.ndarray:
    """[draws, months] payments for what is bought."""
    lots = schedule.lots
    paid = np.zeros((draws.count, len(months)))
    equipment = bought.equipment_usd
    for index, order in enumerate(factory.site.orders):
        placed = np.full((draws.count, 1), schedule.day(order.placed))
        paid += months.sums(placed, (deposit * equipment[:, index])[:, None])
        chosen = lots.order == index
        rest = ((1 - deposit) * equipment[:, index] / order.count)[:, None]
        paid += months.sums(lots.delivered[:, chosen] + later_days[:, None], rest * lots.count[chosen])
        begin = np.full(draws.count, max(schedule.day(order.placed), 0.0))
        built = months.evenly(begin, lots.installed[:, chosen].max(axis=1))
        paid += (bought.building_usd[:, index] * order.count)[:, None] * built
    on, _ = phase_days(factory, draws)
    return paid + months.sums(on, bought.source_usd)


def _depreciation(in_service: np.ndarray, life_years: np.ndarray) -> np.ndarray:
    """[draws, months] what was in service [draws, months] (sum until then) in straight lines over a life."""
    life = np.maximum(np.round(life_years * MONTHS_PER_YEAR), 1).astype(int)
    place = np.arange(in_service.shape[1])[None, :] - life[:, None]
    written_off = np.where(place >= 0, np.take_along_axis(in_service, np.maximum(place, 0), axis=1), 0.0)
    return (in_service - written_off) / life[:, None]


def _raised(factory: Factory, months: Months) -> tuple[np.ndarray, np.ndarray]:
    """[months] money raised until the end of each, and of it debt."""
    raised, debt = np.zeros(len(months)), np.zeros(len(months))
    for each in factory.site.money.rounds:
        place = months.index(each.date)
        raised[place:] += each.equity_usd + each.debt_usd
        debt[place:] += each.debt_usd
    return raised, debt


def _rounds(factory: Factory, found: Money) -> tuple[Round, ...]:
    """What each round has to last for: until the month before the next; the last until nearly all that is bought is
    paid, in the mean of the futures."""
    given = sorted(factory.site.money.rounds, key=lambda each: each.date)
    need = found.need_usd
    spent = np.cumsum(found.paid_usd.mean(axis=0))
    end = int(np.searchsorted(spent, _NEARLY * spent[-1]))
    rounds = []
    for index, each in enumerate(given):
        place = found.months.index(each.date)
        following = found.months.index(given[index + 1].date) - 1 if index + 1 < len(given) else max(end, place)
        last = min(max(following, place), len(found.months) - 1)
        raised = float(found.raised_usd[last])
        rounds.append(
            Round(
                date=each.date,
                usd=each.equity_usd + each.debt_usd,
                raised_usd=raised,
                until=found.months.firsts[last],
                needed_usd=need[:, last],
                covered=float((need[:, last] <= raised).mean()),
            )
        )
    return tuple(rounds)


def _useful_share(schedule: Schedule, life_years: np.ndarray) -> np.ndarray:
    """[draws] share of the hours of a life, from delivery on, in which a chip works; 0 where it never does."""
    lots = schedule.lots
    life = (life_years * HOURS_PER_YEAR / 24.0)[:, None]
    with np.errstate(invalid="ignore"):
        waits = np.where(np.isfinite(lots.useful), lots.useful - lots.delivered, np.inf)
    left = np.clip((life - waits) / life, 0.0, 1.0) @ lots.count
    # Failed chips come back one by one: each share is lost for its mean time of repair.
    lost = (lots.dead * lots.repair_days + lots.early * lots.infancy_days) / life[:, 0]
    return left / lots.count.sum() * (1 - np.minimum(lost, 1.0))
