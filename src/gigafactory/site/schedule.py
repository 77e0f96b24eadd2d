"""When: lots, activities, milestones with their spread, the critical path, and the probability of a date."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.activities import site_times
from gigafactory.site.allocation import Allocation, allocations
from gigafactory.site.build import Built, build
from gigafactory.site.draws import Draws
from gigafactory.site.graph import Times
from gigafactory.site.lots import STAGES, Lots
from gigafactory.site.percentiles import RANKS, bands, percentile, percentiles
from gigafactory.site.supply import deliveries
from gigafactory.site.waits import Constraint, constraints

SHARES = (("quarter", 0.25, "a quarter"), ("half", 0.5, "half"), ("all", 1.0, "all"))
CURVE_POINTS = 120
MOST_NAMED = 5


@dataclass(frozen=True)
class Milestone:
    """title: in words. stage: of lots.STAGES. count: chips that must have reached it. day: [draws] since the start,
    inf where never."""

    name: str
    title: str
    stage: str
    count: int
    day: np.ndarray


@dataclass(frozen=True)
class Schedule:
    """Day 0 is the start. cluster_chips: of the cluster section, 0 where it names none. milestones in order of time;
    constraints with what would gain most first. allocations: of the orders whose supplier's output is known."""

    start: datetime.date
    target: datetime.date | None
    cluster_chips: int
    lots: Lots
    times: Times
    milestones: tuple[Milestone, ...]
    constraints: tuple[Constraint, ...]
    allocations: tuple[Allocation, ...]

    @property
    def chip_count(self) -> int:
        """Chips of all orders."""
        return int(self.lots.count.sum())

    @property
    def last_day(self) -> np.ndarray:
        """[draws] the day on which all chips are useful."""
        return self.lots.useful.max(axis=1)

    def day(self, date: datetime.date) -> float:
        """Days from the start to a date."""
        return float((date - self.start).days)

    def date(self, day: float) -> datetime.date | None:
        """The date of a day, none where it never comes."""
        return self.start + datetime.timedelta(days=float(day)) if np.isfinite(day) and day < 2e5 else None

    def probability(self, date: datetime.date, stage: str = "useful", count: float | None = None) -> float:
        """That ``count`` chips (none: all orders) have reached a stage by the end of a date."""
        day = self.lots.reached(stage, self.chip_count if count is None else count)
        return float((day < self.day(date) + 1).mean())

    def curve_days(self) -> np.ndarray:
        """[days] at which the curves are told: from the start until most futures have all chips, or a while after the
        target."""
        last = self.last_day
        ends = [percentile(last, rank) for rank in RANKS]
        ends += [self.day(self.target) * 1.1] if self.target else []
        ends += [float(self.lots.installed.max(axis=1).mean())]
        end = max(day for day in ends if np.isfinite(day))
        return np.linspace(0.0, np.ceil(end * 1.02) + 1, CURVE_POINTS)

    def told(self) -> dict[str, Any]:
        """Plain data: dates and quantiles, the curves, what the plan waits for."""
        days = self.curve_days()
        return {
            "start": self.start.isoformat(),
            "target": None if self.target is None else self._target(self.target),
            "draws": len(self.last_day),
            "chips": self.chip_count,
            "milestones": [
                {"name": each.name, "title": each.title, "stage": each.stage, "count": each.count}
                | self.spread(each.day)
                | self._to_target(each.day)
                for each in self.milestones
            ],
            "activities": [
                {"name": name, "after": list(self.times.after[name])}
                | {"start": self.spread(self.times.start[:, column])}
                | {"finish": self.spread(self.times.finish[:, column])}
                for column, name in enumerate(self.times.names)
            ],
            "constraints": [
                {"name": each.name, "title": each.title, "kind": each.kind, "critical": each.critical}
                | {"slack_days": percentiles(each.slack), "gain_days": each.gain_days}
                for each in self.constraints
            ],
            "allocations": [each.told() for each in self.allocations],
            "curves": {"days": days.tolist(), "dates": [str(self.date(day)) for day in days]}
            | {stage: _curve(self.lots.curve(stage, days)) for stage in STAGES},
        }

    def spread(self, day: np.ndarray) -> dict[str, Any]:
        """days and dates of the percentiles p10, p50, p90 (none: never), and the share of futures without."""
        days = percentiles(day)
        dates = {name: None if value is None else str(self.date(value)) for name, value in days.items()}
        return {"days": days, "dates": dates, "never": float(np.isinf(day).mean())}

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        every = next(each for each in self.milestones if each.name == "all-useful")
        said = [f"All {self.chip_count:,} chips are useful by {self._between(every.day)}."]
        never = float(np.isinf(every.day).mean())
        if never >= 0.005:
            said.append(f"In {_percent(never)} of the futures not all chips ever get power: the sources are too small.")
        if self.target is not None:
            by = self._target(self.target)["probability"]
            stages = ", ".join(f"{stage} {_percent(by[stage])}" for stage in STAGES)
            said.append(f"By the target {self.target}, the probability that all are {stages}.")
        if self.cluster_chips not in (0, self.chip_count):
            said.append(f"The orders are for {self.chip_count:,} chips, the cluster has {self.cluster_chips:,}.")
        said += self._first_to_fix()
        path = sorted((each for each in self.constraints if each.critical >= 0.05), key=lambda each: -each.critical)
        path = [each for each in path if each.kind != "burn-in"][:MOST_NAMED]
        if path:
            names = "; ".join(f"{each.title} ({_percent(each.critical)})" for each in path)
            said.append(f"The last chip waits most often for: {names}.")
        left = [(float(np.median(each.slack)), each.title) for each in self.constraints if each.critical < 0.05]
        idle = sorted((days, title) for days, title in left if np.isfinite(days))[:MOST_NAMED]
        if idle:
            said.append(f"Least slack beside: {'; '.join(f'{title} {days:,.0f} days' for days, title in idle)}.")
        said += [each.sentence() for each in self.allocations if np.median(each.of_quarter) >= 0.01]
        return said

    def _to_target(self, day: np.ndarray) -> dict[str, Any]:
        """Days left to the target, p10 the least, and the probability to have any."""
        if self.target is None:
            return {}
        left = self.day(self.target) + 1 - day
        return {"to_target_days": percentiles(left), "by_target": float((left > 0).mean())}

    def _first_to_fix(self) -> list[str]:
        first = self.constraints[0]
        if first.gain_days < 0.5:
            return []
        said = (
            f"First thing to fix: {first.title}. The last chip waits for it in {_percent(first.critical)} of the"
            f" futures; without it, it would be useful {first.gain_days:,.0f} days earlier in the mean"
        )
        if first.name == "power":
            source = max(
                (each for each in self.constraints if each.name.startswith("power-")), key=lambda each: each.gain_days
            )
            if source.gain_days >= 0.5:
                said += f" ({source.gain_days:,.0f} with the {source.title} from the first day)"
        return [f"{said}."]

    def _target(self, date: datetime.date) -> dict[str, Any]:
        return {"date": date.isoformat(), "probability": {stage: self.probability(date, stage) for stage in STAGES}}

    def _between(self, day: np.ndarray) -> str:
        dates = [self.date(percentile(day, rank)) for rank in RANKS]
        low, middle, high = ("never" if date is None else date.isoformat() for date in dates)
        return low if low == high else f"{middle} in the median (80 % between {low} and {high})"


def schedule(factory: Factory, draws: Draws) -> Schedule:
    """The schedule of a factory with site.start and orders; UserError where one is missing or activities do not fit."""
    times = site_times(factory, draws)
    built = build(factory, draws, deliveries(factory, draws), times)
    return _schedule(factory, draws, times, built)


def _schedule(factory: Factory, draws: Draws, times: Times, built: Built) -> Schedule:
    lots, start = built.lots, factory.site.start
    assert start is not None
    total = int(lots.count.sum())
    found = []
    for stage in STAGES:
        counts = [int(np.ceil(share * total)) for _, share, _ in SHARES]
        days = lots.reached_each(stage, [1, *counts])
        if stage == "useful":
            found.append(Milestone("first-useful", "first chip useful", stage, 1, days[0]))
        for (name, _, words), count, day in zip(SHARES, counts, days[1:], strict=True):
            found.append(Milestone(f"{name}-{stage}", f"{words} of {total:,} chips {stage}", stage, count, day))
    for index, order in enumerate(factory.site.orders):
        title = f"order {index + 1} useful ({order.count:,} {order.chip})"
        day = lots.order_end("useful", index)
        found.append(Milestone(f"order-{index + 1}-useful", title, "useful", order.count, day))
    ranked = sorted(found, key=lambda each: (percentile(each.day, 0.5), each.count))
    return Schedule(
        start,
        factory.site.target,
        factory.cluster.chip_count,
        lots,
        times,
        tuple(ranked),
        constraints(factory, built, times),
        allocations(factory, draws),
    )


def _curve(chips: np.ndarray) -> dict[str, list[float]]:
    """p10, p50, p90 and mean of [draws, days], by day."""
    return bands(chips) | {"mean": chips.mean(axis=0).tolist()}


def _percent(share: float) -> str:
    return "under 1 %" if 0 < share < 0.005 else "over 99 %" if 0.995 < share < 1 else f"{100 * share:.0f} %"
