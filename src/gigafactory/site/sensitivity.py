"""What a plan's answers hang on: each uncertain input alone from its p10 to its p90, and all jointly.

Inputs are found by listening to the draws: whatever a part draws is one. An input is held by `Draws.fixed`; a stream
that only ranks (a supplier's quarter, whether a source is forbidden) by its rank. What the prices of several chips
share is no input of its own: it is in each of them.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from scipy.stats import rankdata

from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.report.format import share as percent
from gigafactory.report.format import significant
from gigafactory.site.activities import site_times
from gigafactory.site.build import build
from gigafactory.site.draws import Draws
from gigafactory.site.makes import makes
from gigafactory.site.money import money
from gigafactory.site.money_told import dollars, usd
from gigafactory.site.percentiles import percentile
from gigafactory.site.power import power
from gigafactory.site.schedule import Schedule
from gigafactory.site.supply import deliveries

SCAN_DRAWS = 1000
"""Futures for each held input; enough for the first inputs to keep their places (tests)."""

BINS = 20
"""Of an input's ranks, where the spread that it explains is found."""

NEVER_DAYS = 3650.0
"""What counts for "never" where inputs are ranked by how far they move a date."""

MOST_SAID = 3

LEAST_SAID = 0.02
"""Of an outcome's spread, and of its band from p10 to p90: what moves it less is noise or not worth a word."""

_PRICES = "site.money."


@dataclass(frozen=True)
class Effect:
    """One input on one outcome. low, high: the input's p10 and p90; of a stream that only ranks 0.1 and 0.9. at_low,
    at_high: the outcome with the input held there, all else as drawn: its median (none: never), of a probability the
    mean. rank_correlation: of input and outcome over the draws. share: of the variance of the outcome's ranks that this
    input alone explains, however it acts."""

    name: str
    low: float
    high: float
    at_low: float | None
    at_high: float | None
    rank_correlation: float
    share: float

    @property
    def moves(self) -> float:
        """How far the outcome goes from one end to the other."""
        low, high = (NEVER_DAYS if value is None else value for value in (self.at_low, self.at_high))
        return abs(high - low)


@dataclass(frozen=True)
class Outcome:
    """One answer of the plan. unit: "days", "%", "USD", "USD/h", "FLOP". p10, p50, p90: with all inputs as drawn (none:
    never); of a probability all three are it. effects: what moves it farthest first, without those below LEAST_SAID.
    explained: the sum of all shares; what is missing to 1 is interplay, and inputs that go together count twice."""

    name: str
    title: str
    unit: str
    p10: float | None
    p50: float | None
    p90: float | None
    effects: tuple[Effect, ...]
    explained: float

    def sentence(self, start: datetime.date) -> str:
        """The inputs that move it most, and those that explain most of its spread where these are others."""
        if not self.effects:
            return f"{self.title} is {self.word(self.p50, start)}, whichever input is low or high."
        first = self.effects[:MOST_SAID]
        words = [
            f"{each.name} ({significant(each.low)} to {significant(each.high)}: {self.word(each.at_low, start)} to"
            f" {self.word(each.at_high, start)}, {percent(each.share)} of the spread)"
            for each in first
        ]
        named = {each.name for each in first}
        rest = [
            f"{each.name} ({percent(each.share)})"
            for each in sorted(self.effects, key=lambda each: -each.share)[:MOST_SAID]
            if each.name not in named and each.share >= LEAST_SAID
        ]
        also = f" Beside these, its spread comes from {'; '.join(rest)}." if rest else ""
        return f"{self.title}, {self.word(self.p50, start)} in the middle, hangs most on {'; '.join(words)}.{also}"

    def word(self, value: float | None, start: datetime.date) -> str:
        """A value as a date, a share, money or FLOP."""
        if value is None:
            return "never"
        match self.unit:
            case "days":
                return str(start + datetime.timedelta(days=value))
            case "%":
                return f"{significant(value)} %"
            case "USD/h":
                return f"{dollars(value)} an hour"
            case "USD":
                return usd(value)
        return f"{significant(value)} {self.unit}"


@dataclass(frozen=True)
class Sensitivity:
    """outcomes: all-useful, by-target (where the file has a target), first-short (where it can be), capex,
    usd-per-useful-chip-hour, flop-per-month. scan_draws: futures for each held input."""

    start: datetime.date
    scan_draws: int
    outcomes: tuple[Outcome, ...]

    def told(self) -> dict[str, Any]:
        """outcomes: [{name, title, unit, p10, p50, p90, explained, effects: [{name, low, high, at_low, at_high,
        rank_correlation, share}]}] for tornado charts."""
        return {
            "start": self.start.isoformat(),
            "scan_draws": self.scan_draws,
            "outcomes": [asdict(each) | {"effects": [asdict(one) for one in each.effects]} for each in self.outcomes],
        }

    def sentences(self) -> list[str]:
        """Per outcome, the inputs that move it most."""
        return [each.sentence(self.start) for each in self.outcomes]


def sensitivity(
    factory: Factory, draws: Draws, goodput: Spread | None = None, scan_draws: int = SCAN_DRAWS
) -> Sensitivity:
    """Jointly from ``draws``; one at a time from at most ``scan_draws`` draws with the same seed. goodput as `plan`.

    UserErrors as of `plan`.
    """
    heard = _Heard(draws.count, draws.seed, draws.fixed)
    values, prices = _outcomes(factory, heard, goodput)
    few = Draws(min(scan_draws, draws.count), draws.seed, draws.fixed)
    ends = {name: _ends(factory, few, goodput, name, heard.spreads.get(name)) for name in heard.names}
    rank = {name: rankdata(prices[name]) if name in prices else draws.uniform(name) for name in heard.names}
    start = factory.site.start
    assert start is not None
    found = tuple(_outcome(name, values[name], heard, rank, ends) for name in values)
    return Sensitivity(start, few.count, found)


_TITLES = {
    "all-useful": ("The date on which all chips are useful", "days"),
    "by-target": ("The probability that all are useful by the target", "%"),
    "first-short": ("The first month short of power", "days"),
    "capex": ("Capital", "USD"),
    "usd-per-useful-chip-hour": ("The price of a useful chip's hour", "USD/h"),
    "flop-per-month": ("Training FLOP a month once all chips work", "FLOP"),
}


@dataclass(frozen=True)
class _Heard(Draws):
    """Draws that remember what was drawn. spreads: uncertain inputs. ranks: streams drawn as ranks."""

    spreads: dict[str, Spread] = field(default_factory=dict)
    ranks: dict[str, None] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All inputs that may be held, in the order in which they were first drawn."""
        alone = [name for name in self.ranks if not name.startswith(_PRICES)]
        return tuple(dict.fromkeys(name for name in (*self.spreads, *alone) if name not in self.fixed))

    def uniform(self, name: str) -> np.ndarray:
        self.ranks[name] = None
        return super().uniform(name)

    def of(self, name: str, spread: Spread, opposed: tuple[str, float] | None = None) -> np.ndarray:
        if name not in self.fixed and spread.p10 < spread.p90:
            self.spreads[name] = spread
        return Draws(self.count, self.seed, self.fixed).of(name, spread, opposed)


@dataclass(frozen=True)
class _Held(Draws):
    """Draws with some streams held at a rank."""

    held: Mapping[str, float] = field(default_factory=dict)

    def uniform(self, name: str) -> np.ndarray:
        return np.full(self.count, self.held[name]) if name in self.held else super().uniform(name)


def _outcomes(
    factory: Factory, draws: Draws, goodput: Spread | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(outcome -> [draws], inf for never; prices by their path -> [draws]), by the parts of a plan that they need."""
    times = site_times(factory, draws)
    lots = build(factory, draws, deliveries(factory, draws), times).lots
    site = factory.site
    assert site.start is not None
    when = Schedule(site.start, site.target, factory.cluster.chip_count, lots, times, (), (), ())
    watts = power(factory, draws, when)
    cost = money(factory, draws, when, watts)
    made = makes(factory, draws, when, watts, cost, goodput)
    month = np.array([max((first - site.start).days, 0) for first in watts.months], dtype=float)
    short = np.where(watts.is_short.any(axis=1), month[np.argmax(watts.is_short, axis=1)], np.inf)
    target = {} if site.target is None else {"by-target": 100.0 * (when.last_day < when.day(site.target) + 1)}
    found = (
        {"all-useful": when.last_day}
        | target
        | {"first-short": short, "capex": cost.total_capex_usd, "usd-per-useful-chip-hour": cost.useful_hour_usd}
        | {"flop-per-month": made.shared(0.0)["training_flop_per_month"]}
    )
    return found, cost.inputs


def _ends(
    factory: Factory, draws: Draws, goodput: Spread | None, name: str, spread: Spread | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Outcome -> its middle, with one input low and high."""

    def held(rank: float, value: float | None) -> dict[str, float]:
        if value is None:
            changed: Draws = _Held(draws.count, draws.seed, draws.fixed, {name: rank})
        else:
            changed = replace(draws, fixed={**draws.fixed, name: value})
        return {each: _middle(each, values) for each, values in _outcomes(factory, changed, goodput)[0].items()}

    return held(0.1, None if spread is None else spread.p10), held(0.9, None if spread is None else spread.p90)


def _middle(name: str, values: np.ndarray) -> float:
    return float(values.mean()) if name == "by-target" else percentile(values, 0.5)


def _outcome(
    name: str,
    values: np.ndarray,
    heard: _Heard,
    rank: Mapping[str, np.ndarray],
    ends: Mapping[str, tuple[dict[str, float], dict[str, float]]],
) -> Outcome:
    title, unit = _TITLES[name]
    ranked = rankdata(values)
    effects = []
    for each, ranks in rank.items():
        spread = heard.spreads.get(each, Spread(p10=0.1, p50=0.5, p90=0.9))
        low, high = (end[name] for end in ends[each])
        correlation, share = joint(ranks, ranked)
        effects.append(Effect(each, spread.p10, spread.p90, _known(low), _known(high), correlation, share))
    explained = sum(one.share for one in effects)
    mean = float(values.mean()) if name == "by-target" else None
    p10, p50, p90 = (_known(percentile(values, at)) if mean is None else mean for at in (0.1, 0.5, 0.9))
    least = 0.0 if p10 is None or p90 is None else LEAST_SAID * (p90 - p10)
    effects = [one for one in effects if one.moves > least or one.share >= LEAST_SAID]
    effects.sort(key=lambda one: (-one.moves, -one.share))
    return Outcome(name, title, unit, p10, p50, p90, tuple(effects), explained)


def joint(rank: np.ndarray, outcome: np.ndarray) -> tuple[float, float]:
    """(rank correlation, share of the variance) of an outcome's ranks by an input's, both [draws].

    The share is the correlation ratio over BINS bins of the input, less what bins of chance would explain (Kelley's
    epsilon squared): a first-order Sobol index, without runs of its own. 0, 0 for an outcome that does not vary.
    """
    count = len(rank)
    if outcome.min() == outcome.max():
        return 0.0, 0.0
    order = np.argsort(rank)
    correlation = float(np.corrcoef(np.argsort(order), outcome)[0, 1])
    bins = [part.mean() for part in np.array_split(outcome[order], BINS)]
    sizes = [len(part) for part in np.array_split(order, BINS)]
    between = float(np.average((np.array(bins) - outcome.mean()) ** 2, weights=sizes))
    ratio = between / float(outcome.var())
    return correlation, max(1 - (1 - ratio) * (count - 1) / (count - BINS), 0.0)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
