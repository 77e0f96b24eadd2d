"""The race answered: the forecast, the claim as arithmetic, the limits, what flips it, how the method did before."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gigafactory.factory import catalog
from gigafactory.factory.file import Factory
from gigafactory.report import format as fmt
from gigafactory.site.draws import Draws
from gigafactory.site.ownership import (
    OTHERS,
    WORLD,
    YEAR_DAYS,
    Basis,
    Fit,
    concentration,
    counts_of,
    held,
    owner_names,
)
from gigafactory.site.race import HOLDS, Count, Race, Stage, race
from gigafactory.site.race_backtest import ORIGINS, Row, backtest, coverage
from gigafactory.site.race_claim import Claim, PathYear, claim, path
from gigafactory.site.race_flips import Flip, Flips, flips
from gigafactory.site.race_limits import drawn, spread

BANDS = (0.1, 0.5, 0.9)
_CREDIT = "Data: Epoch AI (CC-BY 4.0)"
_BASIS = {
    "int8": "8-bit operations/s over those of an H100",
    "bf16": "bf16 operations/s over those of an H100",
    "fp4": "FP4 operations/s, of a chip without FP4 its 8-bit ones, over an H100's 8-bit ones",
}
_STAGE = {
    "delivered": "delivered chips; where the data count running ones, the lag's growth is added",
    "published": "as published: some owners' delivered chips, others' running ones",
}
_COUNT = {"owned": "by who owns the chips", "used": "by who uses them, as far as leases are known"}
_BROKEN = {"share": "the share that one owner gets", "nvidia": "what Nvidia makes", "money": "its money"}


@dataclass(frozen=True)
class Answer:
    """All of it, for one owner against its rivals."""

    race: Race
    claim: Claim
    needed_growth: float
    path: tuple[PathYear, ...]
    flips: Flips
    backtest: tuple[Row, ...]

    def told(self) -> dict[str, Any]:
        """Plain data for --json and the page; quantiles are {p10, p50, p90}, null where it does not happen in time."""
        run = self.race
        return {
            "owner": run.owner,
            "rivals": list(run.rivals),
            "from": run.dates[0].isoformat(),
            "by": run.dates[-1].isoformat(),
            "draws": len(run.stock),
            "definitions": definitions(run),
            "lead": self.sentences()[0],
            "sentences": self.sentences(),
            "probability": float(run.probability[-1]),
            "probability_by_date": [[str(day), float(p)] for day, p in zip(run.dates, run.probability, strict=True)],
            "passing": _dates(run),
            "ratio": _bands(run.ratio),
            "owners": [_owner(run, name) for name in (*run.owners, WORLD)],
            "curves": _curves(run),
            "history": history(run.basis),
            "held_by": {name: [float(x) for x in run.held_by[:, index]] for index, name in enumerate(HOLDS)},
            "claim": {**asdict(self.claim), "origin": str(self.claim.origin), "by": str(self.claim.by)},
            "needed_growth": self.needed_growth,
            "path": [asdict(one) for one in self.path],
            "flips": {
                "inputs": [{**asdict(one), "swing": one.swing} for one in self.flips.inputs],
                "alone": [one.name for one in self.flips.flipping],
                "together": list(self.flips.together),
                "needed_growth": self.flips.needed_growth,
            },
            "concentration": _concentration(run),
            "clusters": clusters(),
            "backtest": [
                {**asdict(row), "origin": str(row.origin), "day": str(row.day), "within": row.within}
                for row in self.backtest
            ],
            "coverage": {str(day): coverage(rows) for day, rows in _by_day(self.backtest).items()},
            "credit": _CREDIT,
        }

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        run, by = self.race, self.race.dates[-1]
        rivals = "everybody else" if run.rivals == (WORLD,) else " + ".join(run.rivals)
        chance = float(run.probability[-1])
        low, middle, high = np.quantile(run.ratio, BANDS)
        return [
            f"{run.owner} has more compute than {rivals} together on {by} with a probability of {_percent(chance)}.",
            f"Its compute over theirs then: {_times(middle)} (80 %: {_times(low)} to {_times(high)}).",
            _passing_words(run),
            _claim_words(self.claim, run.owner, rivals),
            *_limits_words(run, self.needed_growth, self.path),
            _flip_words(self.flips, run.owner),
        ]


def answer(
    factory: Factory,
    draws: Draws,
    *,
    owner: str,
    rivals: Sequence[str],
    by: datetime.date,
    basis: Basis = "int8",
    count: Count = "owned",
    stage: Stage = "delivered",
) -> Answer:
    """Forecast, arithmetic, limits, flips and backtests. Raises UserError as `race`."""
    run = race(factory, draws, owner=owner, rivals=rivals, by=by, basis=basis, count=count, stage=stage)
    growth, years = path(run, drawn(factory, draws, "largest_share"), spread(factory, "nvidia_wafer_share").p50)
    return Answer(
        race=run,
        claim=claim(run.owner, run.rivals, by, basis=basis),
        needed_growth=growth,
        path=years,
        flips=flips(factory, draws, run, by),
        backtest=tuple(row for origin in ORIGINS for row in backtest(factory, draws, origin)),
    )


def definitions(run: Race) -> list[list[str]]:
    """[what, how it is taken here] of all that changes the answer."""
    covered = ", ".join(run.owners)
    rows = [
        ["unit", f"H100 equivalents: {_BASIS[run.basis]} (--basis)"],
        ["owned or used", f"{_COUNT[run.count]} (--count)"],
        ["delivered or running", f"{_STAGE[run.stage]} (--stage)"],
        ["rivals", "everybody else in the data" if run.rivals == (WORLD,) else ", ".join(run.rivals)],
        ["world", f"Nvidia, TPU, Trainium and AMD chips sold: {covered}; without Huawei and smuggled chips"],
        ["fleet or cluster", "fleets: all chips of an owner; the largest single clusters are another ranking, below"],
        ["retired chips", "none: stocks are what was ever delivered"],
        ["not foreseen", "mergers, export bans, other kinds of chips; what owners say of 2027 and later is not used"],
        ["last data", f"{run.dates[0]}; later quarters are incomplete at the source"],
    ]
    if run.leased:
        let = fmt.count(run.leased)
        rows[1][1] += f"; {run.owner} lets {let} H100 equivalents to another"
    return rows


def clusters() -> list[dict[str, Any]]:
    """The largest single clusters of the catalogue, by size."""
    found = sorted(catalog.clusters().values(), key=lambda one: -one.h100_equivalents.value)
    return [
        {
            "title": one.title,
            "owner": one.owner,
            "operational": str(one.operational),
            "h100_equivalents": one.h100_equivalents.value,
            "note": one.h100_equivalents.note or "",
            "source": one.source,
        }
        for one in found
    ]


def history(basis: Basis) -> dict[str, list[list[Any]]]:
    """Owner (and the world) -> [day, median] as published, at the quarter ends that were estimated."""
    days = sorted({day for one in catalog.owners().values() for day in one.quarters})
    return {
        name: [[str(day), value] for day in days if (value := held(name, day, basis)) is not None]
        for name in (*owner_names(), WORLD)
    }


def _owner(run: Race, name: str) -> dict[str, Any]:
    stock = run.of(name)
    fit: Fit | None = run.fits.get(name)
    spends = name in run.money.first
    return {
        "owner": name,
        "counts": counts_of(name) if name not in (WORLD, OTHERS) else "delivered",
        "published": held(name, run.dates[0], run.basis) if name != OTHERS else None,
        "now": _bands(stock[:, 0]),
        "last_year_growth": float(np.exp(fit.own)) if fit else None,
        "fitted_on": fit.points if fit else None,
        "aims_at": _bands(run.aims[:, run.owners.index(name)]) if name in run.owners else None,
        "growth": _bands(run.growth(name)),
        "then": _bands(stock[:, -1]),
        "spends_usd": _bands(run.money.first[name]) if spends else None,
        "spending": ("implied" if name in run.money.implied else "reported") if spends else None,
    }


def _curves(run: Race) -> dict[str, Any]:
    curves: dict[str, Any] = {"dates": [str(day) for day in run.dates]}
    for name, stock in (*((one, run.of(one)) for one in run.owners), ("rivals", run.theirs)):
        curves[name] = {f"p{100 * q:.0f}": np.quantile(stock, q, axis=0).tolist() for q in BANDS}
    return curves


def _concentration(run: Race) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for year in range(2023, run.dates[0].year + 1):
        day = datetime.date(year, 12, 31)
        stock = {name: value for name in owner_names() if (value := held(name, day, run.basis)) is not None}
        stock[OTHERS] = (held(WORLD, day, run.basis) or 0.0) - sum(stock.values())
        found = concentration(stock)
        rows.append({"day": str(day), **{name: {"p50": float(value)} for name, value in found.items()}})
    for step, day in enumerate(run.dates):
        if step and (day.month == 12 or day == run.dates[-1]):
            found = concentration({name: run.of(name)[:, step] for name in run.owners})
            rows.append({"day": str(day), **{name: _bands(value) for name, value in found.items()}})
    return rows


def _bands(values: np.ndarray) -> dict[str, float]:
    return {f"p{100 * q:.0f}": float(value) for q, value in zip(BANDS, np.quantile(values, BANDS), strict=True)}


def _dates(run: Race) -> dict[str, str | None]:
    # An inverse by order, not between: halfway to never is no date.
    years = np.quantile(run.passing(), BANDS, method="inverted_cdf")
    days = [None if np.isinf(one) else run.dates[0] + datetime.timedelta(days=one * YEAR_DAYS) for one in years]
    return {f"p{100 * q:.0f}": None if day is None else str(day) for q, day in zip(BANDS, days, strict=True)}


def _by_day(rows: Sequence[Row]) -> dict[datetime.date, tuple[Row, ...]]:
    return {day: tuple(row for row in rows if row.day == day) for day in dict.fromkeys(row.day for row in rows)}


def _passing_words(run: Race) -> str:
    dates = {name: day or f"not by {run.dates[-1]}" for name, day in _dates(run).items()}
    if len(set(dates.values())) == 1:
        return f"The date of passing: {dates['p50']} at p10, p50 and p90."
    return "The date of passing: " + ", ".join(f"{name} {day}" for name, day in dates.items()) + "."


def _claim_words(one: Claim, owner: str, rivals: str) -> str:
    growth, needed, level = one.needed[0]
    return (
        f"As published on {one.origin}, {owner} has {fmt.count(one.mine)} and {rivals} {fmt.count(one.theirs)} H100 "
        f"equivalents: it must grow {one.gap:.2f} times faster per year than they do; if they grow {growth:g}x a year, "
        f"{needed:.2f}x, to {fmt.count(level)}."
    )


def _limits_words(run: Race, growth: float, years: Sequence[PathYear]) -> list[str]:
    broken = [one for one in years if one.breaks]
    mean = run.held_by.mean(axis=0)
    most = HOLDS[int(mean.argmax())]
    words = {
        "aim": "what it aims at",
        "money": "its money",
        "share": "the largest share of new compute that one owner gets",
        "supply": "what the wafers give",
    }
    said = [f"What holds {run.owner} most is {words[most]} ({_percent(float(mean.max()))} of the time and draws)."]
    if not broken:
        return [*said, f"Passing the rivals' median needs {growth:.2f}x a year, which exceeds no limit's median."]
    first, last = broken[0], broken[-1]
    said.append(
        f"Passing the rivals' median needs {growth:.2f}x a year. In {first.year} that exceeds "
        f"{_and(_BROKEN[name] for name in first.breaks)}: {fmt.count(first.new)} new H100 equivalents for "
        f"{fmt.count(first.cost_usd)}$ against {fmt.count(first.money_usd)}$, {_percent(first.share)} of all that is "
        f"made."
    )
    if last is not first:
        said.append(
            f"In {last.year}: {fmt.count(last.new)} for {fmt.count(last.cost_usd)}$ against "
            f"{fmt.count(last.money_usd)}$, {_percent(last.share)} of all, where one owner gets at most "
            f"{_percent(last.share_limit)}."
        )
    return said


def _flip_words(found: Flips, owner: str) -> str:
    strongest = found.inputs[0]
    if found.flipping:
        best: Flip = found.flipping[0]
        if best.needed is None:
            return f"What flips the answer: {best.words} ({best.low} or {best.high})."
        assert not isinstance(best.low, str)
        assert not isinstance(best.high, str)
        inside = best.low <= best.needed <= best.high
        words = (
            f"What flips the answer alone: {best.words}, at {_value(best.needed)} ({'within' if inside else 'outside'} "
            f"its 80 % range, {_value(best.low)} to {_value(best.high)})."
        )
        if inside:
            return words
        also = f" The input with the widest effect is {strongest.words}."
        if found.together and len(found.together) > 1:
            names = _and(one.words for name in found.together for one in found.inputs if one.name == name)
            also += f" Without the rivals it takes all of: {names}, at the ends that were tried."
        return words + also
    if found.together:
        names = _and(one.words for name in found.together for one in found.inputs if one.name == name)
        return f"No input flips the answer alone; the strongest is {strongest.words}. Together: {names}, at their ends."
    return f"Nothing that was tried flips the answer; the strongest input is {strongest.words}."


def _value(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return fmt.count(value) if value >= 1e6 else fmt.significant(value)


def _and(words: Any) -> str:
    listed = list(words)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 1e-3 else fmt.share(share)


def _times(ratio: float) -> str:
    return f"{fmt.significant(float(ratio), 2)}x"
