"""What a site makes, as plain data and in words."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from gigafactory.report.format import count, parameters, share, significant, with_unit
from gigafactory.site.jobs import OWN
from gigafactory.site.money_told import usd
from gigafactory.site.percentiles import bands, percentiles

if TYPE_CHECKING:
    from gigafactory.site.makes import Makes, Run

SHARES = (0.1, 0.25, 0.5, 1.0)


def told(found: Makes) -> dict[str, Any]:
    """Plain data: quantiles of all fields. training_flop: by month, with every useful chip at work."""
    return {
        "months": [first.isoformat() for first in found.months.firsts],
        "useful_chips": bands(found.useful_chips),
        "training_flop": bands(found.training_flop),
        "cumulative_flop": bands(np.cumsum(found.training_flop, axis=1)),
        "peak_flops": found.peak_flops,
        "effective_flops": percentiles(found.flops),
        "mfu": percentiles(found.mfu) | {"source": found.mfu_source},
        "goodput": percentiles(found.goodput) | {"source": found.goodput_source},
        "useful_flop_per_month": percentiles(found.shared(0.0)["training_flop_per_month"]),
        "flops_per_w": percentiles(found.flops_per_w),
        "flop_per_usd": percentiles(found.flop_per_usd),
        "named_models": [_run(found, run) for run in found.runs],
        "named_model_days": percentiles(found.runs[0].days) if found.runs else None,
        "serving": {
            "model": found.serving_model,
            "chips_of_a_group": found.serving_chips,
            "tokens_per_s": percentiles(found.tokens_per_s),
            "shares": [
                {"share": each} | {name: percentiles(values) for name, values in found.shared(each).items()}
                for each in SHARES
            ],
        },
        "tables": _tables(found),
    }


def sentences(found: Makes) -> list[str]:
    """The answer in words, the most important first."""
    month = percentiles(found.shared(0.0)["training_flop_per_month"])
    effective = percentiles(found.flops)["p50"] or 0.0
    peak = found.peak_flops["bf16"]
    if not effective:
        return ["No chips work within the plan's months in most of the futures, so nothing is made."]
    said = [
        f"Once all chips work the site makes {_flop(month['p50'])} a month ({_flop(month['p10'])} to"
        f" {_flop(month['p90'])}): {share(effective / peak)} of a 16-bit peak of {with_unit(peak, 'FLOP/s')},"
        f" with an MFU of {share(percentiles(found.mfu)['p50'])} ({found.mfu_source}) and a goodput of"
        f" {share(percentiles(found.goodput)['p50'])} ({found.goodput_source})."
    ]
    for run in found.runs:
        days, money = percentiles(run.days), percentiles(run.usd)
        if days["p50"] is None:
            said.append(f"{run.job.title}: never.")
            continue
        end = percentiles(run.finished)["p50"]
        when = "" if end is None else f"; begun with the first useful chips it is finished on {_date(found, end)}"
        said.append(
            f"{_title(run)} on {count(run.job.tokens)} tokens takes {_days(days['p50'])} on all chips"
            f" ({_days(days['p10'])} to {_days(days['p90'])}) and {usd(money['p50'])}{when}."
        )
    half = found.shared(0.5)
    said.append(
        f"With half of the chips serving {found.serving_model} the site writes"
        f" {_tokens(percentiles(half['tokens_per_day'])['p50'])} tokens a day and trains half as much."
    )
    watt = percentiles(found.flops_per_w)["p50"]
    if watt:
        said.append(f"A watt at the meter makes {with_unit(watt, 'FLOP/s')} of training that stays.")
    return said


def _title(run: Run) -> str:
    return run.job.title if run.job.title != OWN else f"The file's own run ({run.job.name})"


def _run(found: Makes, run: Run) -> dict[str, Any]:
    end = percentiles(run.finished)
    return {
        "name": run.job.name,
        "title": run.job.title,
        "parameters": run.job.model.parameters(),
        "tokens": run.job.tokens,
        "tokens_source": run.job.tokens_source,
        "flop": run.job.flop,
        "mfu": percentiles(run.mfu) | {"source": run.job.source},
        "days": percentiles(run.days),
        "chip_hours": percentiles(run.chip_hours),
        "usd": percentiles(run.usd),
        "energy_j": percentiles(run.energy_j),
        "finished_days": end,
        "finished": {name: None if day is None else _date(found, day) for name, day in end.items()},
    }


def _tables(found: Makes) -> list[dict[str, Any]]:
    heads = ["", "p10", "p50", "p90"]
    peak = found.peak_flops["bf16"]
    working = found.useful_chips[:, -1] / found.chips
    stages = [
        ("chips that work, over those on order", working),
        ("times MFU", working * found.mfu),
        ("times goodput: what stays, over the peak", found.flops / peak),
    ]
    runs = []
    for run in found.runs:
        days, mfu, money = percentiles(run.days), percentiles(run.mfu), percentiles(run.usd)
        runs.append(
            [
                _title(run),
                f"{parameters(run.job.model.parameters())}, {count(run.job.tokens)} tokens, {_flop(run.job.flop)}",
                share(mfu["p50"]),
                f"{_days(days['p50'])} ({_days(days['p10'])} to {_days(days['p90'])})",
                f"{usd(money['p50'])} ({usd(money['p10'])} to {usd(money['p90'])})",
            ]
        )
    shares = []
    for each in (0.0, *SHARES):
        both = found.shared(each)
        shares.append(
            [
                share(each),
                _flop(percentiles(both["training_flop_per_month"])["p50"]),
                *(_tokens(value) for value in percentiles(both["tokens_per_day"]).values()),
            ]
        )
    return [
        {
            "title": "What becomes of the peak",
            "headers": heads,
            "rows": [[words, *(share(value) for value in percentiles(values).values())] for words, values in stages],
            "note": "Peak of all chips on order: "
            + ", ".join(f"{with_unit(flops, 'FLOP/s')} {dtype}" for dtype, flops in found.peak_flops.items())
            + ".",
        },
        {
            "title": "Models on all chips of the site",
            "headers": ["", "size", "MFU", "days", "cost"],
            "rows": runs,
            "note": "Cost: chip-hours at the price of an hour of a chip that works. The batch grows with the chips;"
            " what that does to learning is not part of it.",
        },
        {
            "title": f"Training and serving {found.serving_model} on one site",
            "headers": ["chips that serve", "training a month", "tokens a day, p10", "p50", "p90"],
            "rows": shares,
            "note": "Serving by memory and arithmetic of the chips, in groups of"
            f" {found.serving_chips}, times an efficiency; prompts are not counted.",
        },
    ]


def _flop(value: float | None) -> str:
    return "none" if not value else f"{value:.2e} FLOP".replace("e+", "e")


def _tokens(value: float | None) -> str:
    return count(value or 0.0)


def _days(value: float | None) -> str:
    return "never" if value is None else f"{significant(value, 2 if value < 100 else 3)} days"


def _date(found: Makes, day: float) -> str:
    return (found.months.start + datetime.timedelta(days=day)).isoformat()
