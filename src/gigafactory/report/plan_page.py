"""The page of a plan: when, power, bill of materials, money, rent or build, what the site makes.

Takes plain data (`site.plan.Plan.told` says what is in it); whatever is missing is left out. Percentiles are
{"p10", "p50", "p90"}, of numbers or of lists over a part's months.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gigafactory.report import format as fmt
from gigafactory.report import page
from gigafactory.report.figures import Axis, Mark, Series, line_chart
from gigafactory.report.gantt import Bar, gantt

Told = Mapping[str, Any]

PARTS = (
    ("when", "When"),
    ("power", "Power"),
    ("bill", "Bill of materials"),
    ("money", "Money"),
    ("rent", "Rent or build"),
    ("makes", "What it makes"),
)
"""Parts of a plan: name in the data, heading."""

STAGES = (
    ("delivered", "delivered", 3),
    ("powered", "powered", 1),
    ("commissioned", "commissioned", 0),
    ("useful", "useful", 2),
)
"""Curves of chips: stage, words, colour."""

MILESTONES = ("first-useful", "all-delivered", "all-installed", "all-powered", "half-useful", "all-useful")
"""Those that are told first."""

MOST_EFFECTS = 10
"""Inputs that are told per outcome."""

SHORT = 16
"""Characters of a cell that stays on one line."""

CRITICAL = 0.10
"""Share of the futures from which on a bar is drawn as critical."""

_DATE = Axis("", "date", show=lambda day: datetime.date.fromordinal(round(day)).isoformat())
_MONTH_DAYS = 365.25 / 12
_BANDS_NOTE = "The line is the median, the band holds eight of ten futures."


def plan_page(told: Told) -> str:
    """The whole document about one plan."""
    figures = {
        "when": _curves_figure(told) + _bars_figure(told) + _milestones_table(told) + _waits_table(told),
        "power": _power_figures(told),
        "bill": _bill_table(told),
        "money": _money_figure(told) + _rounds_table(told),
        "rent": _rent_figures(told),
        "makes": _makes_figure(told),
    }
    body = [page.tiles(tiles(told))]
    for name, heading in PARTS:
        part = told.get(name) or {}
        words = _paragraphs(part.get("sentences", ()))
        body.append(page.section(heading, words + figures[name] + _tables(part)))
    body.append(_sensitivity(told))
    body.append(_assumptions(told))
    body.append(page.section("What the words mean", page.table((), list(DEFINITIONS.items()))))
    return page.page(
        f"Plan of {told['name']}",
        badge="planned",
        lead=lead(told),
        body=body,
        footer="Written by gigafactory plan; docs/planning.md answers the usual questions. "
        "Facts on sites, owners and prices partly from Epoch AI (CC-BY 4.0).",
    )


DEFINITIONS = {
    "delivered": "on the site, in its crate",
    "installed": "in its rack, cabled, with cooling",
    "powered": "electricity suffices for the peak of all that was installed before it, and for it",
    "commissioned": "its group passed its burn-in",
    "useful": "works together with the others: network ready, dead and early failures taken off until repaired",
    "p10, p50, p90": "one, five and nine of ten futures are at or below (for dates: by) this",
    "critical": "share of the futures in which the last chip waits for this",
    "slack": "days by which this may be later without moving the last chip, all else as it is",
    "gain": "days by which the last chip would be earlier in the mean without this",
    "short": "the peak need of all installed chips exceeds what all sources give",
}


def lead(told: Told) -> str:
    """What was planned, in a sentence."""
    place = f" in {told['place']}" if told.get("place") else ""
    when = told.get("when") or {}
    start = f", begun on {when['start']}" if when.get("start") else ""
    return f"{told['chips']:,} chips{place}{start}: {told['draws']:,} futures, seed {told['seed']}."


def tiles(told: Told) -> list[page.Tile]:
    """The numbers that sum a plan up; those that are not there are left out."""
    found = []
    when, power, money, rent = (told.get(name) or {} for name in ("when", "power", "money", "rent"))
    every = next((one for one in when.get("milestones", ()) if one["name"] == "all-useful"), None)
    if every:
        dates = every["dates"]
        found.append(
            page.Tile("All chips useful", _month(dates["p50"]), f"{_date(dates['p10'])} to {_date(dates['p90'])}")
        )
    target = when.get("target")
    if target:
        found.append(
            page.Tile("By the target", fmt.share(target["probability"]["useful"]), f"all useful by {target['date']}")
        )
    if power.get("need_w"):
        short = power.get("first_short") or {}
        peak = fmt.with_unit(max(power["need_w"]["p50"]), "W")
        month = short.get("month")
        found.append(page.Tile("Power needed", peak, f"short from {month[:7]} on" if month else "never short"))
    if money.get("capex_usd"):
        found.append(page.Tile("Capital", usd(money["capex_usd"]["p50"]), interval(money["capex_usd"], usd)))
    hour = money.get("usd_per_useful_chip_hour")
    if hour:
        found.append(page.Tile("$ per useful GPU-hour", _cents(hour["p50"]), interval(hour, _cents)))
    if rent.get("build_cheaper") is not None:
        found.append(page.Tile("Building is cheaper", fmt.share(rent["build_cheaper"]), "probability, per GPU-hour"))
    return found


def usd(value: float | None) -> str:
    """Money: 83 $, 4.12 M$, 5.41 G$."""
    if value is None:
        return fmt.MISSING
    return f"{fmt.count(value)}$" if abs(value) >= 1e3 else f"{value:.0f} $"


def _cents(value: float | None) -> str:
    return "no end" if value is None else f"{value:.2f}"


def interval(bands: Mapping[str, Any], show: Callable[[Any], str]) -> str:
    """The two ends of an interval."""
    return f"{show(bands['p10'])} to {show(bands['p90'])}"


def _paragraphs(sentences: Sequence[str]) -> str:
    lines = "".join(f"<li>{page.text(sentence)}</li>" for sentence in sentences)
    return f'<ul class="answers">{lines}</ul>' if lines else ""


def _series(name: str, days: Sequence[float], bands: Told, color: int) -> Series:
    points = list(zip(days, bands["p50"], strict=True))
    band = list(zip(days, bands["p10"], bands["p90"], strict=True))
    return Series(name, points, color, band=band)


def _wide(caption: str, note: str, draw: Callable[[int], str]) -> str:
    return f'<div class="whole">{page.figure(caption, note, lambda width: draw(1128 if width > 400 else width))}</div>'


def _curves_figure(told: Told) -> str:
    when = told.get("when") or {}
    curves = when.get("curves")
    if not curves:
        return ""
    days = [_ordinal(date) for date in curves["dates"]]
    series = [_series(words, days, curves[stage], color) for stage, words, color in STAGES if stage in curves]
    marks = [Mark(f"{when['chips']:,} on order", y=float(when["chips"]))]
    if when.get("target"):
        marks.append(Mark(f"target {when['target']['date']}", x=_ordinal(when["target"]["date"])))
    caption = "Chips over time"
    chips = Axis("chips", show=fmt.count, from_zero=True)
    return _wide(
        caption,
        _BANDS_NOTE,
        lambda width: line_chart(
            caption, series, x=_DATE, y=chips, marks=marks, width=width, height=340, hover=width > 400
        ),
    )


def _bars_figure(told: Told) -> str:
    when = told.get("when") or {}
    waits = {one["name"]: one for one in when.get("constraints", ())}
    start = _ordinal(when["start"]) if when.get("start") else 0.0
    bars = []
    for one in sorted(when.get("activities", ()), key=lambda one: _middle(one["start"])):
        begin, end = one["start"]["days"], one["finish"]["days"]
        if None in (begin["p50"], end["p10"], end["p50"], end["p90"]) or end["p50"] <= begin["p50"]:
            continue  # the planner's own markers take no time
        wait = waits.get(one["name"])
        slack = wait["slack_days"]["p50"] if wait else None
        note = f"critical {fmt.share(wait['critical'])}" if wait else ""
        if slack is not None:
            note += f", slack {slack:,.0f} d"
        bars.append(
            Bar(
                one["name"],
                start + begin["p50"],
                start + end["p50"],
                start + end["p10"],
                start + end["p90"],
                None if slack is None else start + end["p50"] + slack,
                note,
                bool(wait and wait["critical"] >= CRITICAL),
            )
        )
    if not bars:
        return ""
    target = when.get("target")
    marks = [Mark(f"target {target['date']}", x=_ordinal(target["date"]))] if target else []
    caption = "Steps of building"
    note = (
        "From the median start to the median end; the thin line is the end's p10 to p90, pale is slack."
        f" Another colour: the last chip waits for it in {fmt.share(CRITICAL)} of the futures or more."
    )
    return _wide(caption, note, lambda width: gantt(caption, bars, marks=marks, width=width))


def _milestones_table(told: Told) -> str:
    when = told.get("when") or {}
    first: list[Sequence[object]] = []
    others: list[Sequence[object]] = []
    for one in when.get("milestones", ()):
        dates = one["dates"]
        never = f"never in {fmt.share(one['never'])}" if one["never"] else ""
        row = (one["title"], *(_date(dates[rank]) for rank in ("p10", "p50", "p90")), never)
        (first if one["name"] in MILESTONES else others).append(row)
    headers = ("milestone", "p10", "p50", "p90", "")
    more = page.table(headers, others, numbers=(1, 2, 3, 4))
    return page.table(headers, first, numbers=(1, 2, 3, 4)) + (page.folded(f"{len(others)} more", more) if more else "")


def _waits_table(told: Told) -> str:
    when = told.get("when") or {}
    first: list[Sequence[object]] = []
    others: list[Sequence[object]] = []
    for one in when.get("constraints", ()):
        slack = one["slack_days"]
        days = [fmt.MISSING if slack[rank] is None else f"{slack[rank]:,.0f}" for rank in ("p10", "p50", "p90")]
        row = (one["title"], fmt.share(one["critical"]), " / ".join(days), f"{one['gain_days']:,.1f}")
        (first if one["critical"] >= 0.02 or one["gain_days"] >= 1 else others).append(row)
    headers = ("what the last chip waits for", "critical", "slack in days, p10 / p50 / p90", "gain in days")
    more = page.table(headers, others, numbers=(1, 2, 3))
    words = f"{len(others)} that hardly matter"
    return page.table(headers, first, numbers=(1, 2, 3)) + (page.folded(words, more) if more else "")


def _power_figures(told: Told) -> str:
    power = told.get("power") or {}
    if not power.get("months") or not power.get("need_w"):
        return ""
    days = [_ordinal(month) for month in power["months"]]
    watts = Axis("W", show=lambda value: fmt.with_unit(value, "W"), from_zero=True)
    series = [_series("needed", days, power["need_w"], 1), _series("supplied", days, power["supply_w"], 2)]
    month = (power.get("first_short") or {}).get("month")
    marks = [Mark(f"short from {month[:7]}", x=_ordinal(month))] if month else []
    caption = "Power needed and supplied, by month"
    found = [
        page.figure(
            caption,
            "Peak of all installed chips, cooling included, against the tightest moment of all sources.",
            lambda width: line_chart(caption, series, x=_DATE, y=watts, marks=marks, width=width, hover=width > 400),
        )
    ]
    if power.get("short_w"):
        missing = [_series("missing", days, power["short_w"], 1)]
        title = "What is missing"
        found.append(
            page.figure(
                title,
                _BANDS_NOTE,
                lambda width: line_chart(title, missing, x=_DATE, y=watts, width=width, hover=width > 400),
            )
        )
    return page.grid(found) + _remedies_table(power) + _swings_table(power.get("swings") or {})


def _remedies_table(power: Told) -> str:
    found = []
    for spell in power.get("spells", ()):
        rows = []
        for one in spell.get("remedies", ()):
            lead, cost = one.get("lead_weeks"), one.get("usd")
            rows.append(
                (
                    one["title"],
                    fmt.with_unit(one["power_w"], "W"),
                    "too late" if one.get("late") else "yes" if one["works"] else "not alone",
                    _range(cost, usd) if cost else "",
                    _range(lead, lambda weeks: f"{weeks:.0f}") if lead else "",
                )
            )
        headers = ("what would close it", "gives", "enough", "cost", "weeks ahead")
        until = "for good" if spell["lasts"] else f"to {spell['last'][:7]}"
        heading = f"<h3>Short from {page.text(spell['first'][:7])} {page.text(until)}</h3>"
        table = page.table(headers, rows, numbers=(1, 2, 3, 4))
        found.append(f'<div class="part">{heading}{table}</div>' if table else "")
    return "".join(found)


def _swings_table(swings: Told) -> str:
    words = _paragraphs(swings.get("sentences", ()))
    rows = []
    for one in swings.get("options", ()):
        verdicts = (one["step_passes"], one["checkpoint_passes"], one["start_passes"])
        cost = usd(one["cost_per_year_usd"])
        rows.append((one["title"], *("pass" if passed else "fail" for passed in verdicts), cost))
    table = page.table(("way to smooth", "step", "checkpoint", "start and end", "a year"), rows, numbers=(1, 2, 3, 4))
    return f'<div class="part"><h3>Load swings of a training step</h3>{words}{table}</div>' if words or table else ""


def _range(number: Mapping[str, float | None], show: Callable[[float], str]) -> str:
    """A value with its low and high, where they are known."""
    value, low, high = (number.get(name) for name in ("value", "low", "high"))
    if value is None:
        return ""
    return show(value) if low is None or high is None or low == high else f"{show(value)} ({show(low)} to {show(high)})"


def _bill_table(told: Told) -> str:
    rows = []
    for one in (told.get("bill") or {}).get("rows", ()):
        cost = one.get("usd")
        price = usd(cost["p50"]) if isinstance(cost, Mapping) else usd(cost) if cost else ""
        unit, count = one.get("unit", ""), one["count"]
        amount = fmt.with_unit(count, unit) if unit == "B" else f"{count:,.0f} {unit}".strip()
        power = fmt.with_unit(one["power_w"], "W") if one.get("power_w") else ""
        rows.append((one.get("group", ""), one["what"], amount, power, price, one.get("note", "")))
    return page.table(("", "what", "amount", "power", "cost", ""), rows, numbers=(2, 3, 4))


def _money_figure(told: Told) -> str:
    money = told.get("money") or {}
    if not money.get("months") or not money.get("spent_usd"):
        return ""
    days = [_ordinal(month) for month in money["months"]]
    series = [_series("needed", days, money["spent_usd"], 1)]
    if money.get("funds_usd") and any(money["funds_usd"]):
        series.append(Series("raised", _stairs(days, money["funds_usd"]), 2))
    dollars = Axis("$", show=usd, from_zero=True)
    caption = "Cash needed and raised, together until each month"
    return _wide(
        caption,
        _BANDS_NOTE,
        lambda width: line_chart(caption, series, x=_DATE, y=dollars, width=width, hover=width > 400),
    )


def _rounds_table(told: Told) -> str:
    rows = [
        (
            one["date"],
            usd(one["usd"]),
            *(fmt.count(one[key]["p50"]) for key in ("buys_bare_chips", "buys_all_in_chips")),
            one["until"],
            usd(one["needed_usd"]["p50"]),
            fmt.share(one["covered"]),
        )
        for one in (told.get("money") or {}).get("rounds", ())
    ]
    headers = ("round", "brings", "as bare chips", "as chips all-in", "to last until", "needed by then", "lasts")
    return page.table(headers, rows, numbers=range(7))


def _rent_figures(told: Told) -> str:
    rent = told.get("rent") or {}
    found = []
    for caption, note, keys, axis in (
        (
            "Cost until each month",
            "Rented chips against own ones. " + _BANDS_NOTE,
            (("rent", "rent_usd", 3), ("build", "build_usd", 2), ("rent, then build", "rent_then_build_usd", 1)),
            Axis("$", show=usd, from_zero=True),
        ),
        (
            "Price of renting a GPU for an hour",
            "Of a contract by the month in which it is made. " + _BANDS_NOTE,
            (("market", "market_usd", 3),),
            Axis("$ per hour", show=lambda value: f"{value:.2f} $", from_zero=True),
        ),
    ):
        if not rent.get("months"):
            continue
        days = [_ordinal(month) for month in rent["months"]]
        series = [_series(words, days, rent[key], color) for words, key, color in keys if rent.get(key)]
        if series:
            found.append(_figure(caption, note, series, axis))
    return page.grid(found)


def _makes_figure(told: Told) -> str:
    makes = told.get("makes") or {}
    if not makes.get("months") or not makes.get("training_flop"):
        return ""
    days = [_ordinal(month) for month in makes["months"]]
    lengths = [after - day for day, after in itertools.pairwise(days)] + [_MONTH_DAYS]
    daily = {
        rank: [flop / length for flop, length in zip(month, lengths, strict=True)]
        for rank, month in makes["training_flop"].items()
    }
    series = [_series("training", days, daily, 0)]
    flop = Axis("FLOP", show=lambda value: f"{value:.2e}".replace("e+", "e"), from_zero=True)
    caption = "Training FLOP a day, by month"
    return _wide(
        caption,
        _BANDS_NOTE,
        lambda width: line_chart(caption, series, x=_DATE, y=flop, width=width, hover=width > 400),
    )


def _figure(caption: str, note: str, series: Sequence[Series], axis: Axis) -> str:
    return page.figure(
        caption, note, lambda width: line_chart(caption, series, x=_DATE, y=axis, width=width, hover=width > 400)
    )


def _tables(part: Told) -> str:
    found = []
    for one in part.get("tables", ()):
        columns = range(1, min((len(row) for row in one["rows"]), default=0))
        short = [column for column in columns if max(len(str(row[column])) for row in one["rows"]) <= SHORT]
        table = page.table(one.get("headers", ()), one["rows"], numbers=short)
        heading = f"<h3>{page.text(one['title'])}</h3>" if one.get("title") else ""
        note = f"<p>{page.text(one['note'])}</p>" if one.get("note") else ""
        found.append(f'<div class="part">{heading}{note}{table}</div>' if table else "")
    return "".join(found)


def _sensitivity(told: Told) -> str:
    found = []
    start = (told.get("when") or {}).get("start")
    for outcome in (told.get("sensitivity") or {}).get("outcomes", ()):
        show = _shown(outcome["unit"], start)
        rows = [
            (
                one["name"],
                f"{fmt.significant(one['low'])} to {fmt.significant(one['high'])}",
                show(one["at_low"]),
                show(one["at_high"]),
                fmt.share(one["share"]),
            )
            for one in outcome["effects"][:MOST_EFFECTS]
        ]
        ends = " / ".join(dict.fromkeys(show(outcome[rank]) for rank in ("p10", "p50", "p90")))
        heading = f"<h3>{page.text(outcome['title'])}: {page.text(ends)}</h3>"
        headers = ("input", "its p10 to p90", "with it low", "with it high", "of the spread")
        found.append(f'<div class="part">{heading}{page.table(headers, rows, numbers=(1, 2, 3, 4))}</div>')
    note = "Each input alone at its p10 and its p90, all else as drawn; medians. The headings have all inputs jointly."
    return page.section("What it hangs on", "".join(found), note)


def _shown(unit: str, start: str | None) -> Callable[[float | None], str]:
    """How an outcome is written: days since the start as a date."""

    def show(value: float | None) -> str:
        if value is None:
            return "never"
        if unit == "days" and start:
            return (datetime.date.fromisoformat(start) + datetime.timedelta(days=value)).isoformat()
        return usd(value) if unit == "USD" else f"{fmt.significant(value)} {unit.replace('USD', '$')}"

    return show


def _assumptions(told: Told) -> str:
    rows = list(told.get("assumptions", ()))
    for name, heading in PARTS:
        rows += [(f"{heading}: {row[0]}", *row[1:]) for row in (told.get(name) or {}).get("assumptions", ())]
    note = "What the plan rests on beside the factory file; `gigafactory catalog show assumptions` has their spread."
    return page.section("Assumptions", page.table(("what", "value", "source"), rows), note)


def _stairs(days: Sequence[float], levels: Sequence[float]) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for index, (day, level) in enumerate(zip(days, levels, strict=True)):
        if index:
            points.append((day, levels[index - 1]))
        points.append((day, level))
    return points


def _ordinal(date: str) -> float:
    return float(datetime.date.fromisoformat(date).toordinal())


def _middle(spread: Told) -> float:
    value = spread["days"]["p50"]
    return float("inf") if value is None else float(value)


def _month(date: str | None) -> str:
    return "never" if date is None else f"{datetime.date.fromisoformat(date):%b %Y}"


def _date(date: str | None) -> str:
    return "never" if date is None else date
