"""What a plan's money comes to, as plain data and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gigafactory.report.format import count, share, significant
from gigafactory.site.percentiles import bands, percentile, percentiles

if TYPE_CHECKING:
    from gigafactory.site.money import Money

CLASSES = {
    "servers": "servers with their chips",
    "fabric": "switches, optics, cables",
    "building": "building, cooling, electrical",
    "generation": "generators",
    "batteries": "batteries",
}
PARTS = {
    "capital_usd": "capital",
    "energy_usd": "energy",
    "interest_usd": "cost of capital",
    "operation_usd": "staff, spares, repair",
    "colocation_usd": "rented hall",
}


def told(found: Money) -> dict[str, Any]:
    """Plain data: quantiles of all fields, the need by month against what was raised, which inputs matter."""
    return {
        "months": [first.isoformat() for first in found.months.firsts],
        "chips": found.chips,
        "capex_usd": percentiles(found.total_capex_usd),
        "capex_by_class_usd": {name: percentiles(usd) for name, usd in found.capex_usd.items()},
        "usd_per_chip": percentiles(found.usd_per_chip),
        "spent_usd": bands(found.need_usd),
        "paid_usd": bands(found.paid_usd),
        "energy_usd": bands(found.energy_usd),
        "running_usd": bands(found.running_usd),
        "depreciation_usd": bands(found.depreciation_usd),
        "interest_usd": bands(found.interest_usd),
        "funds_usd": found.raised_usd.tolist() if found.rounds else None,
        "first_short": _short(found),
        "rounds": [
            {
                "date": each.date.isoformat(),
                "usd": each.usd,
                "raised_usd": each.raised_usd,
                "until": each.until.isoformat(),
                "needed_usd": percentiles(each.needed_usd),
                "covered": each.covered,
                "buys_bare_chips": percentiles(_buys(each.usd, found.capital.chip_usd[:, 0])),
                "buys_all_in_chips": percentiles(_buys(each.usd, found.usd_per_chip)),
            }
            for each in found.rounds
        ],
        "usd_per_chip_hour": percentiles(found.hour_usd),
        "usd_per_useful_chip_hour": percentiles(found.useful_hour_usd),
        "chip_hour_parts_usd": {name: percentiles(np.atleast_1d(getattr(found.hour, name))) for name in PARTS},
        "useful_share": percentiles(found.useful_share),
        "matters": matters(found.inputs, found.useful_hour_usd),
        "tables": _tables(found),
        "notes": [
            "USD of the day, no inflation; no income from what the site makes is counted",
            "grid connections are part of the building; rented generators are part of the price of energy",
        ],
    }


def matters(inputs: dict[str, np.ndarray], outcome: np.ndarray) -> list[dict[str, Any]]:
    """Uncertain inputs by what they move: the outcome's median where an input is in its lowest and highest fifth."""
    found = []
    for name, values in inputs.items():
        low, high = np.quantile(values, (0.2, 0.8))
        if high <= low:
            continue
        ends = float(np.median(outcome[values <= low])), float(np.median(outcome[values >= high]))
        if np.isfinite(ends).all():
            found.append({"input": name, "low_usd": ends[0], "high_usd": ends[1], "moves_usd": abs(ends[1] - ends[0])})
    return sorted(found, key=lambda each: -float(str(each["moves_usd"])))


def _short(found: Money) -> dict[str, Any] | None:
    if not found.rounds:
        return None
    ever = np.isfinite(found.short_month)
    first = int(percentile(found.short_month[ever], 0.5)) if ever.any() else None
    return {
        "month": None if first is None else found.months.firsts[first].isoformat(),
        "probability": float(ever.mean()),
        "before_first_round_usd": percentiles(
            found.need_usd[:, max(found.first_round - 1, 0)] * (found.first_round > 0)
        ),
        "gap_usd": percentiles(found.gap_usd),
    }


def sentences(found: Money) -> list[str]:
    """The answer in words, the most important first."""
    total, each = percentiles(found.total_capex_usd), percentiles(found.usd_per_chip)
    largest = sorted(found.capex_usd.items(), key=lambda item: -float(np.median(item[1])))[:2]
    parts = " and ".join(f"{CLASSES[name]} {usd(percentile(values, 0.5))}" for name, values in largest)
    said = [
        f"{found.chips:,} chips cost {usd(total['p50'])} ({usd(total['p10'])} to {usd(total['p90'])}),"
        f" {usd(each['p50'])} a chip all-in: {parts}."
    ]
    hour, useful = percentiles(found.hour_usd), percentiles(found.useful_hour_usd)
    said.append(
        f"A chip's hour costs {dollars(hour['p50'])} ({dollars(hour['p10'])} to {dollars(hour['p90'])}), an hour of a"
        f" chip that works {dollars(useful['p50'])} ({dollars(useful['p10'])} to {dollars(useful['p90'])})."
    )
    short = _short(found)
    if short is None:
        return [*said, "The file has no rounds of financing, so nothing says whether there is cash."]
    if short["month"] is None:
        said.append("What is raised covers all payments in every future.")
    else:
        gap = short["gap_usd"]
        said.append(
            f"Without income the cash runs out in {share(short['probability'])} of the futures, most likely about"
            f" {short['month'][:7]}; the largest gap is {usd(gap['p50'])} ({usd(gap['p10'])} to {usd(gap['p90'])})."
        )
    before = short["before_first_round_usd"]["p50"]
    if before:
        said.append(
            f"Before the first round {usd(before)} must come from elsewhere (deposits of orders placed by then)."
        )
    said += [
        f"The {usd(one.usd)} of {one.date} would buy {_chips(one.usd, found.capital.chip_usd[:, 0])} bare chips or"
        f" {_chips(one.usd, found.usd_per_chip)} with all around them; with what came before it lasts until"
        f" {one.until:%Y-%m} with a probability of {share(one.covered)} ({usd(percentile(one.needed_usd, 0.5))} are"
        " needed)."
        for one in found.rounds
    ]
    return said


def _tables(found: Money) -> list[dict[str, Any]]:
    """Capital by class, a chip's hour by part, and what moves it: cells as words."""

    def row(words: str, values: np.ndarray, say: Any) -> list[str]:
        three = percentiles(np.atleast_1d(values))
        return [words, *(say(three[name]) for name in ("p10", "p50", "p90"))]

    heads = ["", "p10", "p50", "p90"]
    bought = [row(CLASSES[name], values, usd) for name, values in found.capex_usd.items() if np.any(values)]
    parts = [(words, np.atleast_1d(getattr(found.hour, name))) for name, words in PARTS.items()]
    moved = matters(found.inputs, found.useful_hour_usd)[:8]
    return [
        {
            "title": "What is bought",
            "headers": heads,
            "rows": [
                *bought,
                row("in all", found.total_capex_usd, usd),
                row("a chip, all-in", found.usd_per_chip, usd),
                row("a bare chip", found.capital.chip_usd @ found.capital.count / found.chips, usd),
            ],
            "note": "USD of the day. Ranges hold what sources disagree on.",
        },
        {
            "title": "A chip's hour",
            "headers": heads,
            "rows": [
                *(row(words, values, dollars) for words, values in parts if np.any(values)),
                row("a chip's hour", found.hour_usd, dollars),
                row("an hour of a chip that works", found.useful_hour_usd, dollars),
            ],
            "note": "All capital in a straight line over the life of servers, cost of capital on half of it.",
        },
        {
            "title": "What moves the price of a useful chip-hour",
            "headers": ["input", "in its lowest fifth", "in its highest fifth"],
            "rows": [[each["input"], dollars(each["low_usd"]), dollars(each["high_usd"])] for each in moved],
            "note": "Medians over the futures in which the input is low or high.",
        },
    ]


def _buys(amount_usd: float, each_usd: np.ndarray) -> np.ndarray:
    """[draws] how many of a thing a sum buys, inf where it costs nothing."""
    with np.errstate(divide="ignore"):
        return amount_usd / each_usd


def _chips(amount_usd: float, each_usd: np.ndarray) -> str:
    number = percentile(_buys(amount_usd, each_usd), 0.5)
    return f"{float(f'{number:.2e}'):,.0f}" if np.isfinite(number) else "any number of"


def usd(amount: float | None) -> str:
    """A sum of money in words: 4.70 G$, 47.1 k$."""
    return f"{count(amount)}$" if amount is not None and abs(amount) >= 999.5 else f"{significant(amount)} $"


def dollars(amount: float | None) -> str:
    """A price of an hour: 2.02 $."""
    return "never" if amount is None else f"{amount:.2f} $"
