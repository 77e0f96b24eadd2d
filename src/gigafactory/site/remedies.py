"""What would close a shortfall of power: more generation, fewer chips, a limit per chip, giving way at peaks."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Any

from gigafactory.factory.catalog import PowerSource, assumption, chip, power_sources
from gigafactory.factory.file import Factory
from gigafactory.report.format import significant, with_unit
from gigafactory.site.load import it_power_w
from gigafactory.twin.ranges import Range, exactly, of_fact, plus

_KWH_J = 3.6e6


@dataclass(frozen=True)
class Remedy:
    """power_w: that it adds or saves. usd: what it costs over the shortfall, none where money is not the price.
    lead_weeks: from the order. order_by: for power in the first month that is short. speed: share of the site's speed
    that is left, compared with the chips all running. works: whether it closes the shortfall by itself."""

    name: str
    title: str
    power_w: float
    works: bool
    usd: Range | None = None
    lead_weeks: Range | None = None
    order_by: datetime.date | None = None
    late: bool = False
    speed: Range | None = None
    detail: str = ""

    def told(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "title": self.title,
            "power_w": self.power_w,
            "works": self.works,
            "usd": None if self.usd is None else self.usd.told(),
            "lead_weeks": None if self.lead_weeks is None else self.lead_weeks.told(),
            "order_by": None if self.order_by is None else self.order_by.isoformat(),
            "late": self.late,
            "speed": None if self.speed is None else self.speed.told(),
            "detail": self.detail,
            "sentence": self.sentence(),
        }

    def sentence(self) -> str:
        """The remedy in words."""
        said = [self.title]
        if not self.works:
            said.append("does not close it alone")
        if self.usd is not None:
            said.append(f"{_between(self.usd, 1e-6)} M$")
        if self.lead_weeks is not None and self.order_by is not None:
            said.append(f"to be ordered {_between(self.lead_weeks, 1.0)} weeks ahead, by {self.order_by}")
        if self.speed is not None:
            said.append(f"leaves {_between(self.speed, 100.0)} % of the speed")
        if self.detail:
            said.append(self.detail)
        return "; ".join(said) + "."


def plain(found: tuple[Remedy, ...], amount: str) -> list[str]:
    """All remedies of ``amount`` in words, the cheapest first; what comes too late even if ordered on the site's first
    day in one sentence."""
    in_time = sorted(
        (each for each in found if not each.late), key=lambda each: each.usd.value if each.usd else math.inf
    )
    said = [f"{'Or' if index else f'To close {amount}'}: {each.sentence()}" for index, each in enumerate(in_time)]
    late = [f"{each.name} ({each.lead_weeks.value:.0f} weeks)" for each in found if each.late and each.lead_weeks]
    if late:
        said.append(f"Too late for its first month if ordered on the site's first day: {', '.join(late)}.")
    return said


def remedies(
    factory: Factory,
    *,
    short_w: float,
    energy_j: float,
    first: datetime.date,
    pue: float,
    chips: dict[str, float],
    energy_usd_per_kwh: float,
) -> tuple[Remedy, ...]:
    """Every way to close a shortfall of ``short_w`` facility power from the month ``first`` on.

    energy_j: that is missing in its months. chips: kinds and how many are
    installed at the worst. energy_usd_per_kwh: the site's. Sources in order of their lead time.
    """
    start = factory.site.start
    assert start is not None
    sources = sorted(power_sources().values(), key=lambda source: source.lead_weeks.value)
    return (
        *(_source(source, short_w, energy_j, first, start, energy_usd_per_kwh) for source in sources),
        _fewer(factory, short_w, pue, chips),
        *_capped(factory, short_w, pue, chips),
    )


def _source(
    source: PowerSource,
    short_w: float,
    energy_j: float,
    first: datetime.date,
    start: datetime.date,
    energy_usd_per_kwh: float,
) -> Remedy:
    lead = of_fact(source.lead_weeks)
    order_by = first - datetime.timedelta(weeks=lead.value)
    price = of_fact(source.energy_usd_per_kwh) if source.energy_usd_per_kwh else exactly(energy_usd_per_kwh)
    usd = price.scaled(energy_j / _KWH_J)
    if source.usd_per_w:
        usd = plus(usd, of_fact(source.usd_per_w).scaled(short_w))
    detail = ""
    if source.shed_hours_per_year:
        detail = f"gives way for {_between(of_fact(source.shed_hours_per_year), 1.0)} hours a year"
    return Remedy(
        source.name,
        source.title,
        short_w,
        True,
        usd,
        lead,
        order_by,
        order_by < start,
        detail=detail,
    )


def _fewer(factory: Factory, short_w: float, pue: float, chips: dict[str, float]) -> Remedy:
    total = sum(chips.values())
    it_w = sum(it_power_w(factory, name) * count for name, count in chips.items()) / total
    node = factory.cluster.node
    group = node.chips * node.per_rack * node.racks_per_group
    off = min(math.ceil(short_w / (it_w * pue) / group) * group, total)
    title = f"{off:,.0f} of {total:,.0f} chips off, in groups of {group:,}"
    return Remedy("fewer-chips", title, short_w, True, speed=exactly(1.0 - off / total))


def _capped(factory: Factory, short_w: float, pue: float, chips: dict[str, float]) -> tuple[Remedy, ...]:
    """The same share of its rated power for every chip, as far as chips can be limited."""
    now_w = {name: _limit_w(factory, name) for name in chips}
    total_w = sum(now_w[name] * count for name, count in chips.items()) * pue
    if total_w <= 0:
        return ()
    least = assumption("least_power_cap_share").value
    share = max(1.0 - short_w / total_w, least)
    saved_w = (1.0 - share) * total_w
    caps = ", ".join(f"{name} at {share * now_w[name]:,.0f} W" for name in chips)
    title = f"a limit per chip ({caps}) saves {with_unit(saved_w, 'W')}"
    return (Remedy("power-cap", title, saved_w, saved_w >= short_w * (1 - 1e-9), speed=speed_at(share)),)


def _limit_w(factory: Factory, name: str) -> float:
    """What a chip may draw now: its rated power or its limit; 0 where the catalogue has no power."""
    fact = chip(name).power_w
    if fact is None:
        return 0.0
    groups = [group for group in factory.cluster.chips if group.name == name]
    if not groups:
        return fact.value
    limits_w = [group.count * min(group.power_cap_w or fact.value, fact.value) for group in groups]
    return sum(limits_w) / sum(group.count for group in groups)


def speed_at(share: float) -> Range:
    """Training speed of a chip at a share of its rated power, over that at its rated power: share ** exponent."""
    exponent = of_fact(assumption("power_cap_exponent"))
    return Range(share**exponent.value, share**exponent.high, share**exponent.low)


def _between(number: Range, factor: float) -> str:
    low, value, high = (significant(end * factor) for end in (number.low, number.value, number.high))
    return value if low == high else f"{value} ({low} to {high})"
