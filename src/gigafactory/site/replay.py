"""The planner on dated real sites, with what was known when each began: predicted against actual.

Every dated site of the catalogue is predicted by base rate from the other sites. Those with a case of their own are
planned too, by the same activities, orders and power gate as any plan. The time that building takes comes from the base
rates of all other sites (``left out``), from those of what could be known on the first day of work (``as known``), or,
with the racks per day that were published of the site later, from the catalogue's factor, which was made from these
very sites (``as published``): the last shows that the planner agrees with them, not that it foresaw them.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.catalog import DatedSite, ReplayCase, ReplayMilestone, dated_sites, replays
from gigafactory.factory.file import Factory
from gigafactory.factory.load import parse_factory
from gigafactory.factory.quantity import Spread
from gigafactory.report.format import significant, with_unit
from gigafactory.site.activities import HALL, assumed, racks_per_day, site_times
from gigafactory.site.baserates import ORDINARY_START, Prediction, fit
from gigafactory.site.build import build
from gigafactory.site.draws import Draws
from gigafactory.site.load import firm_w, it_power_w, phase_days, pue
from gigafactory.site.lots import Lots
from gigafactory.site.percentiles import percentile
from gigafactory.site.supply import deliveries

LEFT_OUT = "left out"
AS_KNOWN = "as known"
PUBLISHED = "as published"


@dataclass(frozen=True)
class Row:
    """One thing that was predicted. p10, p50, p90 (inf: never) and actual in ``unit``: days since start, W, racks/day.

    by: base rate or plan. how: LEFT_OUT, from all sites but this one; AS_KNOWN, from what could be known at the start;
    PUBLISHED, with the site's own racks per day and the catalogue's factors, which were made from this site too.
    rank: probability that was given to at most the actual value. projected: the actual value is itself a projection.
    """

    site: str
    milestone: str
    by: str
    how: str
    unit: str
    start: datetime.date
    p10: float
    p50: float
    p90: float
    actual: float
    rank: float
    projected: bool
    source: str

    @property
    def inside(self) -> bool:
        """The actual value lies in the 80 % band."""
        return self.p10 <= self.actual <= self.p90

    def word(self, value: float) -> str:
        """A value as a date, power or rate."""
        if math.isinf(value):
            return "never"
        if self.unit == "days":
            return str(self.start + datetime.timedelta(days=value))
        return with_unit(value, self.unit) if self.unit == "W" else f"{significant(value)} {self.unit}"

    def told(self) -> dict[str, Any]:
        """Plain data: the values in words, and as numbers under "values"."""
        values = {name: getattr(self, name) for name in ("p10", "p50", "p90", "actual")}
        return (
            {"site": self.site, "milestone": self.milestone, "by": self.by, "how": self.how, "unit": self.unit}
            | {name: self.word(value) for name, value in values.items()}
            | {"inside": self.inside, "projected": self.projected, "rank": self.rank, "start": str(self.start)}
            | {"values": {name: value if math.isfinite(value) else None for name, value in values.items()}}
            | {"source": self.source}
        )


@dataclass(frozen=True)
class Replay:
    """rows: plans first, then base rates by start. ordinary: days of an ordinary site on open land (150 MW, begun in
    2024) by base rate. graph: the same by the catalogue's activities. notes: what a planner would have said then."""

    rows: tuple[Row, ...]
    ordinary: Spread
    graph: Spread
    notes: tuple[str, ...]

    def of(self, by: str, how: str = LEFT_OUT, projected: bool | None = None) -> tuple[Row, ...]:
        """Rows in days by "base rate" or "plan", of observed or projected dates alone or of both."""
        return tuple(
            row
            for row in self.rows
            if row.by == by and row.unit == "days" and projected in (None, row.projected) and row.how == how
        )

    def told(self) -> dict[str, Any]:
        """rows (see Row.told), coverage, bias, ordinary, graph, notes."""
        groups = {
            "sites": self.of("base rate"),
            "observed": self.of("base rate", projected=False),
            "projected": self.of("base rate", projected=True),
            "plans": self.of("plan", PUBLISHED),
            "plans_left_out": self.of("plan"),
            "plans_as_known": self.of("plan", AS_KNOWN),
        }
        return {
            "rows": [row.told() for row in self.rows],
            "coverage": {
                name: {"inside": sum(row.inside for row in rows), "of": len(rows)} for name, rows in groups.items()
            },
            "bias": {name: bias(rows) for name, rows in groups.items()},
            "ordinary_days": self.ordinary.model_dump(),
            "graph_days": self.graph.model_dump(),
            "notes": list(self.notes),
        }

    def sentences(self) -> list[str]:
        """Coverage, bias, and what it would have said about Colossus."""
        observed, projected = (self.of("base rate", projected=each) for each in (False, True))
        every = self.of("base rate")
        published, left_out, as_known = (self.of("plan", how) for how in (PUBLISHED, LEFT_OUT, AS_KNOWN))
        return [
            f"The 80 % band covers {_of(every)} of {len(every)} dated sites, each predicted from the others"
            f" ({_of(observed)} of {len(observed)} observed, {_of(projected)} of {len(projected)} still projected).",
            f"Of the {len(published)} milestones of planned sites it covers {_of(published)} with what is published"
            f" of them by now; {_of(left_out)} with the site left out; {_of(as_known)} with what was"
            " known on its first day.",
            f"Observed sites took {bias(observed):.2f} times the predicted median in the mean; planned milestones"
            f" {bias(published):.2f}, {bias(left_out):.2f} and {bias(as_known):.2f} times.",
            f"An ordinary site on open land takes {self.ordinary.p50:.0f} days in the median by these sites (80 %"
            f" {self.ordinary.p10:.0f} to {self.ordinary.p90:.0f}), {self.graph.p50:.0f} by the catalogue's activities"
            f" ({self.graph.p10:.0f} to {self.graph.p90:.0f}).",
            *self.notes,
        ]


def bias(rows: Sequence[Row]) -> float:
    """Geometric mean of actual over the predicted median; 1 is none."""
    return float(np.exp(np.mean([math.log(row.actual / row.p50) for row in rows])))


def _of(rows: Sequence[Row]) -> int:
    return sum(row.inside for row in rows)


def replay(draws: Draws) -> Replay:
    """All dated sites of the catalogue."""
    sites = dated_sites()
    latest = max(site.seen for site in sites.values())
    every = list(sites.values())
    rows, notes = [], []
    for case in replays().values():
        found, said = _planned(draws, case, sites[case.site], every, latest)
        rows += found
        notes += said
    for site in every:
        predicted = _predicted(draws, site, every, latest)
        rows.append(
            Row(
                site.title,
                "first building operational",
                "base rate",
                LEFT_OUT,
                "days",
                site.start,
                *_three(predicted.spread()),
                site.days,
                predicted.rank(site.days),
                site.projected,
                site.source,
            )
        )
    ordinary = fit(draws, every, latest).days("greenfield", ORDINARY_START, 150e6).spread()
    return Replay(tuple(rows), ordinary, _graph(draws), tuple(notes))


def _predicted(draws: Draws, site: DatedSite, sites: Iterable[DatedSite], as_of: datetime.date) -> Prediction:
    others = [other for other in sites if other is not site]
    return fit(draws, others, as_of).days(site.kind, site.start, site.first_phase_w.value)


def _graph(draws: Draws, **fixed: float) -> Spread:
    """Days of the catalogue's activities on open land, until a first job can run."""
    factory = parse_factory(f"site.kind = 'greenfield'\nsite.start = {ORDINARY_START}", "ordinary site")
    hall = site_times(factory, Draws(draws.count, draws.seed, fixed)).of(HALL)
    low, middle, high = _percentiles(hall + draws.of("site.first_job_days", assumed("first_job_days")))
    return Spread(p10=low, p50=middle, p90=high)


def _build_factor(draws: Draws, case: ReplayCase, factory: Factory, predicted: Prediction) -> Spread:
    """A base rate as a factor on the catalogue's activities. The dated day is that of the first milestone: before it,
    its racks came in at the usual pace and were tested."""
    node, site = factory.cluster.node, factory.site
    racks = case.milestones[0].chips / (node.chips * node.per_rack)
    behind = racks / assumed("racks_per_day", site.racks_per_day).p50 + assumed("burn_in_days", site.burn_in_days).p50
    usual = _graph(draws, **{"site.build_pace": 1.0}).p50 - assumed("first_job_days").p50
    low, middle, high = (max(days - behind, 1.0) / usual for days in _three(predicted.spread()))
    return Spread(p10=low, p50=middle, p90=high)


def _planned(
    draws: Draws, case: ReplayCase, site: DatedSite, sites: Sequence[DatedSite], latest: datetime.date
) -> tuple[list[Row], list[str]]:
    """Rows and notes of one case."""
    factory = parse_factory(case.factory, case.name)
    start = factory.site.start
    assert start is not None
    rows: list[Row] = []
    left_out, as_known = (
        {"build_factor": _build_factor(draws, case, factory, _predicted(draws, site, sites, as_of))}
        for as_of in (latest, start)
    )
    for how, change in ((PUBLISHED, _published(case)), (LEFT_OUT, left_out), (AS_KNOWN, as_known)):
        planned = factory.model_copy(update={"site": factory.site.model_copy(update=change)})
        lots = build(planned, draws, deliveries(planned, draws), site_times(planned, draws)).lots
        rows += [_milestone(case, each, how, start, lots) for each in case.milestones]
    rows += list(_others(draws, case, factory, start))
    return rows, [*_said(case, start, rows), *_short(draws, case, factory, start)]


def _published(case: ReplayCase) -> dict[str, Spread]:
    """The site's own racks per day, where more than one rate is known: the least and the most as p10 and p90."""
    rates = sorted(each.racks_per_day for each in case.milestones if each.racks_per_day is not None)
    if len(rates) < 2:
        return {}
    return {"racks_per_day": Spread(p10=rates[0], p50=math.sqrt(rates[0] * rates[-1]), p90=rates[-1])}


def _milestone(case: ReplayCase, milestone: ReplayMilestone, how: str, start: datetime.date, lots: Lots) -> Row:
    day = lots.reached(milestone.stage, milestone.chips)
    actual = float((milestone.date - start).days)
    return Row(
        case.title.split(":")[0],
        f"{milestone.title} ({milestone.stage})",
        "plan",
        how,
        "days",
        start,
        *_percentiles(day),
        actual,
        float((day < actual + 1).mean()),
        False,
        milestone.source,
    )


def _others(draws: Draws, case: ReplayCase, factory: Factory, start: datetime.date) -> Iterator[Row]:
    """Facility power and racks per day of the milestones that know them."""
    pace = racks_per_day(factory, draws)
    for milestone in case.milestones:
        for unit, drawn, actual in (
            ("W", _need_w(draws, factory, milestone.chips), milestone.facility_w),
            ("racks/day", pace, milestone.racks_per_day),
        ):
            if actual is not None:
                yield Row(
                    case.title.split(":")[0],
                    f"facility power of {milestone.chips:,} chips" if unit == "W" else f"racks up to {milestone.title}",
                    "plan",
                    AS_KNOWN,
                    unit,
                    start,
                    *_percentiles(drawn),
                    actual,
                    float((drawn <= actual).mean()),
                    False,
                    milestone.source,
                )


def _need_w(draws: Draws, factory: Factory, chips: float) -> np.ndarray:
    """[draws] peak facility power of the first so many chips of a cluster, in the order of the file."""
    it_w, left = 0.0, chips
    for group in factory.cluster.chips:
        it_w += min(group.count, left) * it_power_w(factory, group.name)
        left -= min(group.count, left)
    return it_w * pue(factory, draws)


def _said(case: ReplayCase, start: datetime.date, rows: Iterable[Row]) -> list[str]:
    """What the planner would have said on the first day of work, about each milestone."""
    words = [
        f"{row.milestone} by {row.word(row.p50)} (80 % {row.word(row.p10)} to {row.word(row.p90)}; it was"
        f" {row.word(row.actual)}, given {100 * row.rank:.0f} %)"
        for row in rows
        if row.how == AS_KNOWN and row.unit == "days"
    ]
    return [f"{case.title.split(':')[0]}, on {start}, without its own and later dates: {'; '.join(words)}."]


def _short(draws: Draws, case: ReplayCase, factory: Factory, start: datetime.date) -> list[str]:
    """Where a milestone's power was not there on its date from the sources known at the start, and until when."""
    on, off = phase_days(factory, Draws(1, draws.seed, _on_time(factory)))
    found = []
    for milestone in case.milestones:
        need_w = float(np.median(_need_w(draws, factory, milestone.chips)))
        day = float((milestone.date - start).days)

        def supply_w(at: float) -> float:
            return float(firm_w(factory) @ ((on[0] <= at) & (at < off[0])))

        if supply_w(day) >= need_w:
            continue
        later = [each for each in sorted({day, *on[0]}) if each >= day]
        spells = [(each, supply_w(each)) for each in later]
        steps = ", ".join(
            f"{with_unit(power_w, 'W')} from {start + datetime.timedelta(days=each)}" for each, power_w in spells
        )
        found.append(
            f"{case.title.split(':')[0]}: on {milestone.date}, {milestone.chips:,} chips need {with_unit(need_w, 'W')}"
            f" and the known sources give {steps}: {with_unit(need_w - spells[0][1], 'W')} are missing on that day,"
            f" {with_unit(max(need_w - spells[-1][1], 0.0), 'W')} with the last of them."
        )
    return found


def _on_time(factory: Factory) -> dict[str, float]:
    return {f"site.power[{index}].delay_weeks": 0.0 for index in range(len(factory.site.power))}


def _percentiles(values: np.ndarray) -> tuple[float, float, float]:
    return percentile(values, 0.1), percentile(values, 0.5), percentile(values, 0.9)


def _three(spread: Spread) -> tuple[float, float, float]:
    return spread.p10, spread.p50, spread.p90
