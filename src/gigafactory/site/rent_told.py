"""Rent against build, as plain data and in words."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from gigafactory.report.format import share
from gigafactory.site.money_told import dollars, usd
from gigafactory.site.percentiles import bands, percentiles

if TYPE_CHECKING:
    from gigafactory.site.rent import Rent

WORDS = {"rent": "rent", "build": "build", "rent_then_build": "rent, then build"}


def told(found: Rent) -> dict[str, Any]:
    """Plain data: quantiles of all fields. rent_usd, build_usd and rent_then_build_usd are cash until each month."""
    cheaper = (found.spent_usd["build"] <= found.spent_usd["rent"]).mean(axis=0)
    even = percentiles(found.break_even_months)
    return {
        "chip": found.chip,
        "start": found.start.isoformat(),
        "months": [first.isoformat() for first in found.months.firsts],
        "chips": found.chips,
        "offered": found.offers,
        "market_usd": bands(found.market_usd),
        "hour_usd": bands(found.hour_usd),
        **{f"{name}_usd": bands(usd) for name, usd in found.spent_usd.items()},
        "cost_usd": {name: percentiles(each) for name, each in found.cost_usd.items()},
        "hours": {name: percentiles(each) for name, each in found.hours.items()},
        "per_hour_usd": {name: percentiles(each) for name, each in found.per_hour_usd.items()},
        "cheaper": cheaper.tolist(),
        "build_cheaper": found.build_cheaper,
        "cheapest": found.cheapest,
        "break_even": None if even["p50"] is None else {"months": even["p50"], **even},
        "break_even_probability": float(np.isfinite(found.break_even_months).mean()),
        "hand_over": {
            "days": percentiles(found.hand_over),
            "dates": {name: _date(found, day) for name, day in percentiles(found.hand_over).items()},
        },
        "residual_usd": percentiles(found.residual_usd),
        "process": {
            "return_per_year": percentiles(found.process.return_per_year),
            "level_usd": percentiles(np.exp(found.process.level)),
            "noise_per_root_year": percentiles(found.process.noise),
        },
        "flips": [
            {
                "name": each.name,
                "title": each.title,
                "now": each.now,
                "threshold": percentiles(each.threshold),
                "within": each.within,
            }
            for each in found.flips
        ],
        "tables": _tables(found),
    }


def sentences(found: Rent) -> list[str]:
    """The answer in words, the most important first."""
    each = {name: percentiles(values) for name, values in found.per_hour_usd.items()}
    years = f"{len(found.months)} months from {found.start}"
    if each["build"]["p50"] is None:
        return [f"The own site has no chips that work within {years}; rented ones cost {_three(each['rent'])} an hour."]
    said = [
        f"Over {years} an hour of the own site's chips costs {_three(each['build'])}, less what is left in the end, of"
        f" rented ones {_three(each['rent'])}: building is cheaper with a probability of {share(found.build_cheaper)}."
    ]
    even = percentiles(found.break_even_months)
    if even["p50"] is None:
        chance = float(np.isfinite(found.break_even_months).mean())
        said.append(f"In cash, building has cost less than renting by the end with a probability of {share(chance)}.")
    else:
        ends = " to ".join("never" if even[rank] is None else f"{even[rank]:.0f}" for rank in ("p10", "p90"))
        said.append(f"In cash, renting has cost as much as building after {even['p50']:.0f} months ({ends}).")
    day = percentiles(found.hand_over)["p50"]
    if day is not None:
        extra = found.hours["rent_then_build"] - found.hours["build"]
        more = found.cost_usd["rent_then_build"] - found.cost_usd["build"]
        if np.median(extra) > 0:
            said.append(
                f"Rented chips would bridge until {_date(found, day)}, when {found.chips:,} own ones work: for"
                f" {usd(float(np.median(more)))} more."
            )
    best = found.cheapest
    first = max(best, key=lambda name: best[name])
    said.append(
        f"With lost time at its worth, the cheapest for the same work is most likely to {WORDS[first]}"
        f" ({', '.join(f'{WORDS[name]} {share(best[name])}' for name in best)})."
    )
    price = next(one for one in found.flips if one.name == "price")
    rival = percentiles(price.threshold)
    said.append(
        f"Renting is cheaper below {_three(rival)} an hour"
        + ("; that lies inside the range of its price, so the answer can flip." if price.within else ".")
    )
    return said


def _three(three: dict[str, float | None]) -> str:
    return f"{dollars(three['p50'])} ({dollars(three['p10'])} to {dollars(three['p90'])})"


def _date(found: Rent, day: float | None) -> str | None:
    return None if day is None else (found.months.start + datetime.timedelta(days=day)).isoformat()


def _tables(found: Rent) -> list[dict[str, Any]]:
    heads = ["", "p10", "p50", "p90"]

    def row(words: str, values: np.ndarray, say: Any) -> list[str]:
        three = percentiles(values)
        return [words, *(say(three[name]) for name in ("p10", "p50", "p90"))]

    costs = [row(f"{WORDS[name]}, in all", values, usd) for name, values in found.cost_usd.items()]
    hours = [row(f"{WORDS[name]}, a chip's hour", values, dollars) for name, values in found.per_hour_usd.items()]
    flips = []
    for each in found.flips:
        three = percentiles(each.threshold)
        now, *ends = (_amount(each.name, value) for value in (each.now, *three.values()))
        flips.append([each.title, now, *ends, "yes" if each.within else "no"])
    return [
        {
            "title": "Rent, build, or rent then build",
            "headers": heads,
            "rows": [*costs, *hours],
            "note": "Building: with the cost of capital, less what is left at the end."
            " A lost month costs nothing here; the probabilities for the same work count it.",
        },
        {
            "title": "What flips the answer",
            "headers": ["input", "now", "equal at p10", "p50", "p90", "in reach"],
            "rows": flips,
            "note": "Where a rented and an own chip-hour cost the same, all else as drawn. The market is fitted to"
            " prices of 2023 to 2026: for a plan of an earlier day it knows what came.",
        },
    ]


def _amount(name: str, value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "never"
    if name == "price":
        return dollars(value)
    if name == "worth":
        return f"{value:.2f}"
    if value <= 0 and name != "utilisation":
        return "none"
    if value > 1 and name == "utilisation":
        return "all"
    return f"{value:.0f} months" if name == "delay" else share(value)
