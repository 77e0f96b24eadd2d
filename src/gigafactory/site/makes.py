"""What a site makes: training FLOP by month, days and money for a named model, tokens served, compute per watt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.catalog import chip as catalogued
from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.site.activities import assumed
from gigafactory.site.draws import Draws
from gigafactory.site.jobs import OWN, Job, jobs, own_mfu
from gigafactory.site.makes_told import sentences, told
from gigafactory.site.money import Money
from gigafactory.site.months import Months
from gigafactory.site.schedule import Schedule
from gigafactory.site.serving import roofline

DAY_S, HOUR_S = 86400.0, 3600.0
_YEAR_MONTHS = 12


@dataclass(frozen=True)
class Run:
    """A job on the site's chips. finished: [draws] days since the site's start if it begins with the first useful chip
    and gets every chip that comes, inf where not within the plan's months. days: [draws] on all chips. chip_hours,
    usd, energy_j: [draws] of these, energy inf where no chip gets power."""

    job: Job
    mfu: np.ndarray
    finished: np.ndarray
    days: np.ndarray
    chip_hours: np.ndarray
    usd: np.ndarray
    energy_j: np.ndarray


@dataclass(frozen=True)
class Makes:
    """months: calendar months from the site's start on. useful_chips: [draws, months] that work, mean of each month.
    training_flop: [draws, months], all of them training. peak_flops: number format to FLOP/s of all chips on order.
    chips: on order. mfu: of the 16-bit peak, goodput: [draws]. flops: [draws] FLOP/s that stay, once all chips work.
    flops_per_w: [draws] the same over the mean facility power of the last twelve months; flop_per_usd: over the price
    of a useful chip-hour. serving_model: which one is served. tokens_per_s: [draws] that all chips could serve.
    """

    months: Months
    chips: int
    useful_chips: np.ndarray
    training_flop: np.ndarray
    peak_flops: dict[str, float]
    mfu: np.ndarray
    mfu_source: str
    goodput: np.ndarray
    goodput_source: str
    flops: np.ndarray
    flops_per_w: np.ndarray
    flop_per_usd: np.ndarray
    runs: tuple[Run, ...]
    serving_model: str
    serving_chips: int
    tokens_per_s: np.ndarray

    def shared(self, serving: float) -> dict[str, np.ndarray]:
        """[draws] training_flop_per_month, tokens_per_day where a share of the chips serves and the rest trains."""
        return {
            "training_flop_per_month": self.flops * (1 - serving) * DAY_S * 365.25 / _YEAR_MONTHS,
            "tokens_per_day": self.tokens_per_s * serving * DAY_S,
        }

    def told(self) -> dict[str, Any]:
        """Plain data: quantiles of all fields."""
        return told(self)

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        return sentences(self)


def training_flop(chips: float, peak_flops: float, mfu: float, days: float, goodput: float = 1.0) -> float:
    """Model FLOP that so many chips make in so many days."""
    return chips * peak_flops * mfu * goodput * days * DAY_S


def makes(
    factory: Factory, draws: Draws, schedule: Schedule, power: Any, money: Money, goodput: Spread | None = None
) -> Makes:
    """What the site makes. goodput: useful share of the working chips' time, as simulated; none is twin.goodput of the
    file, else the catalogue's. All chips of a site train the same way: their peaks times one MFU."""
    site = factory.site
    assert site.start is not None
    first = money.months.index(site.start)
    months = Months(site.start, money.months.firsts[first:])
    peaks = {order.chip: catalogued(order.chip).peak_bf16_flops.value for order in site.orders}
    by_kind = {name: _useful(schedule, months, name) for name in peaks}
    useful = np.sum(list(by_kind.values()), axis=0)
    peak = np.sum([peaks[name] * chips for name, chips in by_kind.items()], axis=0)  # [draws, months]

    spread, mfu_source = own_mfu(factory)
    mfu = draws.of("site.mfu", spread)
    share, goodput_source = _goodput(factory, goodput)
    kept = np.minimum(draws.of("site.goodput", share), 1.0)
    seconds = np.diff(months.edges) * DAY_S
    flop = peak * (mfu * kept)[:, None] * seconds
    counts = {name: sum(order.count for order in site.orders if order.chip == name) for name in peaks}
    useful_in_end, whole = useful[:, -1], peak[:, -1]
    flops = whole * mfu * kept
    spent_w = money.months.aligned(power.months, power.energy_j)[:, -_YEAR_MONTHS:].sum(axis=1) / (
        np.diff(money.months.edges)[-_YEAR_MONTHS:].sum() * DAY_S
    )
    named = jobs(factory, money.chip, money.chips)
    hour_usd = money.useful_hour_usd
    runs = tuple(
        _run(job, draws, months, peak * kept[:, None] * seconds, whole * kept, useful_in_end, hour_usd, spent_w)
        for job in named
    )
    served = named[0]
    context = draws.of("site.serving_context_tokens", assumed("serving_context_tokens"))
    efficiency = np.minimum(draws.of("site.serving_efficiency", assumed("serving_efficiency")), 1.0)
    roofs = {name: roofline(served.model, catalogued(name), context) for name in peaks}
    tokens = np.sum([by_kind[name][:, -1] * roof.tokens_per_s_per_chip for name, roof in roofs.items()], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        flops_per_w = np.where(spent_w > 0, flops / spent_w, 0.0)
        per_usd = np.where(useful_in_end > 0, flops * HOUR_S / (useful_in_end * hour_usd), 0.0)
    return Makes(
        months=months,
        chips=money.chips,
        useful_chips=useful,
        training_flop=flop,
        peak_flops=_peaks(counts),
        mfu=mfu,
        mfu_source=mfu_source,
        goodput=kept,
        goodput_source=goodput_source,
        flops=flops,
        flops_per_w=flops_per_w,
        flop_per_usd=per_usd,
        runs=runs,
        serving_model="the file's model" if served.title == OWN else served.title.split(",")[0],
        serving_chips=max(roof.chips for roof in roofs.values()),
        tokens_per_s=tokens * efficiency,
    )


def _run(
    job: Job,
    draws: Draws,
    months: Months,
    peak_flop: np.ndarray,
    peak_flops: np.ndarray,
    chips: np.ndarray,
    hour_usd: np.ndarray,
    site_w: np.ndarray,
) -> Run:
    """peak_flop: [draws, months] what all useful chips' peaks would make in the time that counts; peak_flops: [draws]
    the same per second in the end."""
    mfu = draws.of("site.mfu" if job.title == OWN else f"site.mfu.{job.name}", job.mfu)
    done = np.cumsum(peak_flop, axis=1) * mfu[:, None]
    enough = done >= job.flop
    month = np.where(enough.any(axis=1), np.argmax(enough, axis=1), len(months) - 1)
    row = np.arange(draws.count)
    made = peak_flop[row, month] * mfu
    part = np.where(made > 0, 1 - (done[row, month] - job.flop) / np.maximum(made, 1.0), 1.0)
    day = months.edges[month] + np.clip(part, 0.0, 1.0) * np.diff(months.edges)[month]
    with np.errstate(divide="ignore", invalid="ignore"):
        days = np.where(peak_flops > 0, job.flop / (peak_flops * mfu) / DAY_S, np.inf)
        hours = np.where(chips > 0, chips * days * 24.0, np.inf)
        usd = np.where(np.isfinite(hours), hours * hour_usd, np.inf)
        energy = np.where(np.isfinite(days), site_w * days * DAY_S, np.inf)
    return Run(job, mfu, np.where(enough.any(axis=1), day, np.inf), days, hours, usd, energy)


def _useful(schedule: Schedule, months: Months, chip: str) -> np.ndarray:
    """[draws, months] chips of a kind that work, mean over each month."""
    at = schedule.lots.curve("useful", months.edges, chip)
    return (at[:, 1:] + at[:, :-1]) / 2


def _goodput(factory: Factory, given: Spread | None) -> tuple[Spread, str]:
    if given is not None:
        return given, "the simulated supervisor"
    own = factory.twin.goodput
    if own is not None:
        return Spread(p10=own, p50=own, p90=own), "twin.goodput of the file"
    return assumed("goodput"), "the catalogue's assumption"


def _peaks(counts: dict[str, int]) -> dict[str, float]:
    """FLOP/s of all chips by number format, of those that all chips have."""
    found = {}
    for dtype in ("bf16", "fp8", "fp4"):
        facts = {name: getattr(catalogued(name), f"peak_{dtype}_flops") for name in counts}
        if all(facts.values()):
            found[dtype] = sum(counts[name] * fact.value for name, fact in facts.items())
    return found
