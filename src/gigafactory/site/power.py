"""Power: what a site needs per month against what its sources give, the first month that falls short, and energy."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.report.format import duration, significant, with_unit
from gigafactory.site.activities import assumed
from gigafactory.site.draws import Draws
from gigafactory.site.load import firm_w, it_power_w, phase_days, pue, utilization
from gigafactory.site.remedies import Remedy, plain, remedies
from gigafactory.site.schedule import Schedule
from gigafactory.site.swings import Swings, swings

RANKS = (0.1, 0.5, 0.9)
DAY_S, KWH_J = 86400.0, 3.6e6
_PER_MONTH = 3
_YEAR_MONTHS = 12
_MOST_MONTHS = 120
_MATTERS = 0.2  # of the futures: rarer months of shortfall get no remedies
_ENOUGH = 1e-6  # of the need: below it a shortfall is rounding


@dataclass(frozen=True)
class Power:
    """Facility power by month. After the last month everything stays as in it.

    months: first days of calendar months. pue: [draws]. utilization: mean over peak power. [draws, months]: peak_w,
    the most that all installed chips need at once, cooling included; supply_w, the least that all sources together
    give round the clock; short_w, the largest of need less supply, at least 0; energy_j and energy_usd, taken by the
    chips that have power, from the site's first day on. sources: names of site.power with energy, and source_energy_j
    and source_usd [draws, sources] of the last twelve months. battery_w, battery_j: [months] of all batteries
    there in the median. forbidden:
    [phases] share of the futures in which a phase may not run. it_w_per_chip: name -> peak. useful: [draws] chips that
    work in the end. remedies: for each of the spells.
    """

    months: tuple[datetime.date, ...]
    pue: np.ndarray
    utilization: float
    peak_w: np.ndarray
    supply_w: np.ndarray
    short_w: np.ndarray
    energy_j: np.ndarray
    energy_usd: np.ndarray
    sources: tuple[str, ...]
    source_energy_j: np.ndarray
    source_usd: np.ndarray
    battery_w: np.ndarray
    battery_j: np.ndarray
    forbidden: dict[str, float]
    it_w_per_chip: dict[str, float]
    useful: np.ndarray
    remedies: tuple[tuple[Remedy, ...], ...]
    swings: Swings | None
    no_swings: str

    @property
    def mean_w(self) -> np.ndarray:
        """[draws, months] mean facility power of all installed chips at work."""
        return self.peak_w * self.utilization

    @property
    def is_short(self) -> np.ndarray:
        """[draws, months] whether the sources fall short in a month."""
        return self.short_w > _ENOUGH * np.maximum(self.peak_w, 1.0)

    @property
    def first_short(self) -> tuple[int | None, float]:
        """(month with the median of the first shortfalls, or none; share of the futures with any)."""
        ever = self.is_short.any(axis=1)
        if not ever.any():
            return None, 0.0
        first = np.argmax(self.is_short[ever], axis=1)
        return int(np.quantile(first, 0.5, method="inverted_cdf")), float(ever.mean())

    @property
    def spells(self) -> tuple[tuple[int, int], ...]:
        """First and last month of each run of months that are short in at least a fifth of the futures."""
        short = np.concatenate([[False], self.is_short.mean(axis=0) >= _MATTERS, [False]])
        edges = np.flatnonzero(np.diff(short.astype(int)))
        return tuple((int(first), int(after) - 1) for first, after in zip(edges[::2], edges[1::2], strict=True))

    def worst_w(self, spell: tuple[int, int]) -> np.ndarray:
        """[draws] largest shortfall in the months of a spell."""
        return self.short_w[:, spell[0] : spell[1] + 1].max(axis=1)

    @property
    def year_energy_j(self) -> np.ndarray:
        """[draws] energy of the last twelve months."""
        return self.energy_j[:, -_YEAR_MONTHS:].sum(axis=1)

    @property
    def year_usd(self) -> np.ndarray:
        """[draws] its price."""
        return self.energy_usd[:, -_YEAR_MONTHS:].sum(axis=1)

    def told(self) -> dict[str, Any]:
        """Plain data: quantiles by month, the first month short, what would close it, the swings."""
        first, probability = self.first_short
        worst = self.short_w.max(axis=1)
        return {
            "months": [month.isoformat() for month in self.months],
            "need_w": bands(self.peak_w),
            "mean_need_w": bands(self.mean_w),
            "supply_w": bands(self.supply_w),
            "short_w": bands(self.short_w),
            "short_probability": self.is_short.mean(axis=0).tolist(),
            "first_short": {
                "month": None if first is None else self.months[first].isoformat(),
                "probability": probability,
                "short_w": 0.0 if first is None else _middle(self.short_w[self.is_short.any(axis=1), first]),
            },
            "worst_short_w": _quantiles(worst),
            "spells": [
                {"first": self.months[spell[0]].isoformat(), "last": self.months[spell[1]].isoformat()}
                | {"lasts": spell[1] == len(self.months) - 1, "short_w": _quantiles(self.worst_w(spell))}
                | {"bridged_s": self.bridged_s(spell), "remedies": [remedy.told() for remedy in found]}
                for spell, found in zip(self.spells, self.remedies, strict=True)
            ],
            "battery": {"power_w": self.battery_w.tolist(), "energy_j": self.battery_j.tolist()},
            "forbidden": self.forbidden,
            "pue": _quantiles(self.pue),
            "utilization": self.utilization,
            "it_w_per_chip": self.it_w_per_chip,
            "facility_w_per_useful_chip": _quantiles(self._w_per_useful()),
            "energy_j": bands(self.energy_j),
            "energy_usd": bands(self.energy_usd),
            "year_energy_j": _quantiles(self.year_energy_j),
            "year_usd": _quantiles(self.year_usd),
            "sources": [
                {"name": name, "year_energy_j": _quantiles(self.source_energy_j[:, index])}
                | {"year_usd": _quantiles(self.source_usd[:, index])}
                for index, name in enumerate(self.sources)
            ],
            "swings": None if self.swings is None else self.swings.told(),
            "no_swings": self.no_swings,
            "sentences": self.sentences(),
        }

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        need = self.peak_w[:, -1]
        said = [
            f"All chips need {_w(_middle(need))} at their peak ({_w(_middle(need / self.pue))} of it IT, PUE"
            f" {significant(_middle(self.pue))}), {_w(_middle(self._w_per_useful()))} for each that works, and"
            f" {_w(_middle(need) * self.utilization)} on average; the plan's last twelve months take"
            f" {with_unit(_middle(self.year_energy_j) / 3600, 'Wh')} for {with_unit(_middle(self.year_usd), '$')}."
        ]
        spells = sorted(range(len(self.spells)), key=lambda index: -_middle(self.worst_w(self.spells[index])))
        more: list[str] = []
        if not self.sources:
            said.append("The file names no sources of power (site.power), so nothing waits for them.")
        else:
            said.append(self._first())
        for index in spells:
            ways = plain(self.remedies[index], self._amount(self.spells[index]))
            (more if index != spells[0] else said).append(self._spell(self.spells[index]))
            (more if index != spells[0] else said).extend(ways[:1])
            more += ways[1:]
        if self.swings is not None:
            said.append(self.swings.summary())
        said += more
        said += [self._bridged(spell) for spell in self.spells if self.battery_j[spell[1]] > 0]
        for name, share in self.forbidden.items():
            said.append(f"In {100 * share:.0f} % of the futures the {name} may not run.")
        return said

    def _first(self) -> str:
        first, probability = self.first_short
        if first is None:
            return "The sources give enough in every month of every future."
        share = "under 1" if probability < 0.005 else f"{100 * probability:.0f}"
        when = f"{self.months[first]:%B %Y}"
        return f"Power falls short in {share} % of the futures, first in {when} in the median of these."

    def _spell(self, spell: tuple[int, int]) -> str:
        begin, end = spell
        worst = begin + np.argmax(self.short_w[:, begin : end + 1], axis=1)[:, None]
        short = np.take_along_axis(self.is_short, worst, axis=1)[:, 0]
        short_w, need_w, there_w = (
            _middle(np.take_along_axis(values, worst, axis=1)[short])
            for values in (self.short_w, self.peak_w, self.supply_w)
        )
        until = "for good" if end == len(self.months) - 1 else f"to {self.months[end]:%B %Y}"
        return (
            f"Short from {self.months[begin]:%B %Y} {until} ({100 * short.mean():.0f} % of the futures), at the worst"
            f" by {_w(short_w)}: {_w(need_w)} are needed and {_w(there_w)} are there, in"
            f" {self.months[int(np.median(worst[short]))]:%B %Y} in the median."
        )

    def _amount(self, spell: tuple[int, int]) -> str:
        begin, end = spell
        worst, months = self.worst_w(spell), end - begin + 1
        until = f"on (priced for {months} months)" if end == len(self.months) - 1 else f"to {self.months[end]:%B %Y}"
        return f"{_w(_middle(worst[worst > 0]))} from {self.months[begin]:%B %Y} {until}"

    def _bridged(self, spell: tuple[int, int]) -> str:
        bridged, size = self.bridged_s(spell), _w(float(self.battery_w[spell[1]]))
        words = f"bridge the shortfall for {duration(bridged)}" if bridged else "are too small to bridge the shortfall"
        since = f"{self.months[spell[0]]:%B %Y}"
        return f"Batteries give no energy of their own: those there ({size}) {words} from {since} on."

    def bridged_s(self, spell: tuple[int, int]) -> float:
        """How long the batteries there carry the median of the worst of a spell; 0 where their power is too small."""
        worst = self.worst_w(spell)
        middle = _middle(worst[worst > 0])
        return float(self.battery_j[spell[1]]) / middle if self.battery_w[spell[1]] >= middle else 0.0

    def _w_per_useful(self) -> np.ndarray:
        return self.peak_w[:, -1] / np.maximum(self.useful, 1.0)


def power(factory: Factory, draws: Draws, schedule: Schedule) -> Power:
    """Power of a site by month. UserError where a chip's power is not known."""
    site, lots = factory.site, schedule.lots
    on, off = phase_days(factory, draws)
    months, days = _calendar(schedule, on, off)
    kinds = {name: it_power_w(factory, name) for name in dict.fromkeys(lots.chip)}
    weighted = replace(lots, count=lots.count * np.array([kinds[name] for name in lots.chip]))
    ratio = pue(factory, draws)
    need_w = weighted.curve("installed", days) * ratio[:, None]
    firm = firm_w(factory)
    there = [((on[:, [i]] <= days) & (days < off[:, [i]])) * watts for i, watts in enumerate(firm)]
    supply_w = sum(there, np.zeros(need_w.shape)) if len(firm) else np.full(need_w.shape, np.inf)
    first = np.searchsorted(days, [(month - schedule.start).days for month in months[1:]], side="right")
    bounds = np.concatenate([[0], first])
    short_w = np.maximum(np.maximum.reduceat(need_w - supply_w, bounds, axis=1), 0.0)
    busy = utilization(factory)
    demand_w = weighted.curve("powered", days) * ratio[:, None] * busy
    interval_s = np.diff(days, prepend=0.0) * DAY_S
    prices = _prices(factory, draws)
    taken = _dispatch(demand_w, there, prices) if len(firm) else [demand_w]
    kept = [i for i in range(len(firm)) if firm[i] > 0] if len(firm) else [0]
    energy = [np.add.reduceat(_between(taken[i]) * interval_s, bounds, axis=1) for i in kept]
    usd = [joules / KWH_J * prices[i][:, None] for i, joules in zip(kept, energy, strict=True)]
    year = slice(-_YEAR_MONTHS, None)
    battery_w, battery_j = _batteries(factory, months, schedule, on, off)
    result = Power(
        months=months,
        pue=ratio,
        utilization=busy,
        peak_w=np.maximum.reduceat(need_w, bounds, axis=1),
        supply_w=np.minimum.reduceat(supply_w, bounds, axis=1),
        short_w=short_w,
        energy_j=np.sum(energy, axis=0),
        energy_usd=np.sum(usd, axis=0),
        sources=tuple(_name(factory, i) for i in kept) if len(firm) else (),
        source_energy_j=np.stack([joules[:, year].sum(axis=1) for joules in energy], axis=1),
        source_usd=np.stack([each[:, year].sum(axis=1) for each in usd], axis=1),
        battery_w=battery_w,
        battery_j=battery_j,
        forbidden={
            _name(factory, i): float(np.isinf(on[:, i]).mean())
            for i, phase in enumerate(site.power)
            if phase.legal_risk
        },
        it_w_per_chip=kinds,
        useful=(lots.count * (lots.useful <= days[-1])).sum(axis=1),
        remedies=(),
        swings=None,
        no_swings="",
    )
    wave, reason = _swings(factory)
    ways = tuple(_remedies(factory, schedule, result, spell) for spell in result.spells)
    return replace(result, remedies=ways, swings=wave, no_swings=reason)


def _calendar(schedule: Schedule, on: np.ndarray, off: np.ndarray) -> tuple[tuple[datetime.date, ...], np.ndarray]:
    """(first days of months, days at which power is looked at, in rising order).

    A year longer than anything still changes in most futures. Looked at: four days of each month, its last among them,
    and the first day without each source that ends.
    """
    lots = schedule.lots
    ends = [np.quantile(each, 0.9, method="inverted_cdf", axis=0) for each in (lots.installed, lots.powered, on)]
    changes = np.concatenate([*(np.ravel(end) for end in ends), off[0] if len(off) else []])
    if schedule.target:
        changes = np.append(changes, schedule.day(schedule.target))
    last = float(np.max(changes[np.isfinite(changes)], initial=0.0))
    month = schedule.start.replace(day=1)
    months = [month]
    while (months[-1] - schedule.start).days <= last and len(months) < _MOST_MONTHS - _YEAR_MONTHS:
        months.append(_next(months[-1]))
    for _ in range(_YEAR_MONTHS):
        months.append(_next(months[-1]))
    days: list[float] = []
    for begin, end in itertools.pairwise(months):
        first, after = max((begin - schedule.start).days, 0), (end - schedule.start).days
        days += [first + (after - first) * part / _PER_MONTH for part in range(1, _PER_MONTH + 1)]
    gone = [day for day in np.unique(off[np.isfinite(off)]) if 0 < day < days[-1]]
    return tuple(months[:-1]), np.unique([*days, *gone])


def _batteries(
    factory: Factory, months: tuple[datetime.date, ...], schedule: Schedule, on: np.ndarray, off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """[months] power and energy of the batteries that are there at the end of each month in half of the futures."""
    ends = np.array([(_next(month) - schedule.start).days for month in months])
    power_w, energy_j = np.zeros(len(months)), np.zeros(len(months))
    for index, phase in enumerate(factory.site.power):
        if phase.kind == "battery":
            there = (np.median(on[:, index]) < ends) & (ends <= off[0, index])
            power_w += there * phase.power_w
            energy_j += there * (phase.energy_j or 0.0)
    return power_w, energy_j


def _next(month: datetime.date) -> datetime.date:
    return (month + datetime.timedelta(days=31)).replace(day=1)


def _prices(factory: Factory, draws: Draws) -> list[np.ndarray]:
    """[draws] price of a kilowatt-hour of each of site.power; of the site where there is none."""
    usual = draws.of(
        "site.money.energy_usd_per_kwh", assumed("energy_usd_per_kwh", factory.site.money.energy_usd_per_kwh)
    )
    prices = []
    for index, phase in enumerate(factory.site.power):
        own = phase.energy_usd_per_kwh
        path = f"site.power[{index}].energy_usd_per_kwh"
        prices.append(usual if own is None else draws.of(path, Spread(p10=own, p50=own, p90=own)))
    return prices or [usual]


def _dispatch(demand_w: np.ndarray, there: list[np.ndarray], prices: list[np.ndarray]) -> list[np.ndarray]:
    """[draws, days] power taken from each source, the cheapest in the median first."""
    left = demand_w
    taken = [np.zeros(0)] * len(there)
    for index in sorted(range(len(there)), key=lambda i: float(np.median(prices[i]))):
        taken[index] = np.minimum(left, there[index])
        left = left - taken[index]
    return taken


def _between(values: np.ndarray) -> np.ndarray:
    """[draws, days] mean of the value on each day and on the one before."""
    before = np.concatenate([np.zeros((len(values), 1)), values[:, :-1]], axis=1)
    return (before + values) / 2


def _name(factory: Factory, index: int) -> str:
    phase = factory.site.power[index]
    return f"{phase.kind} of {_w(phase.power_w)} from {phase.start}"


def _remedies(factory: Factory, schedule: Schedule, found: Power, spell: tuple[int, int]) -> tuple[Remedy, ...]:
    """For one spell, in the median of the futures that fall short in it."""
    begin, end = spell
    worst = found.worst_w(spell)
    short = worst > 0
    within = slice(begin, end + 1)
    month_s = np.array([(_next(month) - month).days for month in found.months[within]]) * DAY_S
    lots = schedule.lots
    counts = {name: float(lots.count[[kind == name for kind in lots.chip]].sum()) for name in found.it_w_per_chip}
    first = begin + int(np.median(np.argmax(found.is_short[short, within], axis=1)))
    installed = _middle(found.peak_w[short, end]) / _middle(found.peak_w[short, -1])
    price = found.energy_usd.sum(axis=1) / np.maximum(found.energy_j.sum(axis=1), 1.0) * KWH_J
    return remedies(
        factory,
        short_w=_middle(worst[short]),
        energy_j=_middle((found.short_w[short, within] * month_s).sum(axis=1)) * found.utilization,
        first=found.months[first],
        pue=_middle(found.pue[short]),
        chips={name: count * installed for name, count in counts.items()},
        energy_usd_per_kwh=_middle(price),
    )


def _swings(factory: Factory) -> tuple[Swings | None, str]:
    try:
        return swings(factory), ""
    except UserError as error:
        return None, str(error)


def bands(values: np.ndarray) -> dict[str, list[float | None]]:
    """p10, p50, p90 of [draws, months] by month; none where infinite."""
    found = np.quantile(values, RANKS, axis=0, method="inverted_cdf")
    return {
        f"p{rank * 100:.0f}": [float(value) if np.isfinite(value) else None for value in row]
        for rank, row in zip(RANKS, found, strict=True)
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    found = np.quantile(values, RANKS)
    return {f"p{rank * 100:.0f}": float(value) for rank, value in zip(RANKS, found, strict=True)}


def _middle(values: np.ndarray) -> float:
    return float(np.median(values))


def _w(watts: float) -> str:
    return with_unit(watts, "W")
