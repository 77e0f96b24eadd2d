"""The page of the race: fans of compute per owner, probability over time, what flips it, definitions, backtest.

Takes the plain data of site.race_told.Answer.told().
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from gigafactory.report import format as fmt
from gigafactory.report import page
from gigafactory.report.figures import Axis, Mark, Series, line_chart
from gigafactory.report.tornado import Swing, tornado

Told = Mapping[str, Any]
Rows = tuple[list[str], list[list[str]]]

_DATE = Axis("", "date", show=lambda day: datetime.date.fromordinal(round(day)).isoformat())
_H100E = Axis("H100 equivalents", "log", show=fmt.count)
_BANDS = "Until the data end, medians as published; then the median and the band of eight of ten futures."
_SHOWN = 9
_STEPS = "Steps are where the data begin to cover a supplier (Google's TPU in 2023, Amazon's Trainium in 2024)."
_OWNERS_A_CHART = 2
_WHOLE = 1128  # width of a chart across the page


def race_page(told: Told) -> str:
    """The whole document about one race."""
    first, *rest = told["sentences"]
    rivals = "everybody else" if told["rivals"] == ["world"] else ", ".join(told["rivals"])
    return page.page(
        f"{told['owner']} against {rivals}",
        badge="forecast",
        lead=first,
        body=[
            page.tiles(_tiles(told)),
            page.section("In words", "".join(f"<p>{page.text(sentence)}</p>" for sentence in rest)),
            page.section("Compute", page.grid([_against(told), _probability(told), *_fans(told)])),
            page.section("What moves the answer", _tornado(told) + page.table(*flip_rows(told), {1, 2, 3, 4})),
            page.section("Owners", page.table(*owner_rows(told), range(1, 7)), OWNERS_NOTE),
            page.section(
                "The path to it against the limits", page.table(*path_rows(told), range(1, 6)), _path_note(told)
            ),
            page.section("The claim as arithmetic", page.table(*claim_rows(told), range(3)), _CLAIM_NOTE),
            page.section("Concentration", _concentration(told), _CONCENTRATION_NOTE),
            page.section("The largest single clusters", page.table(*cluster_rows(told), {2, 3}), _CLUSTER_NOTE),
            page.section(
                "The method on older data", page.table(*backtest_rows(told), range(2, 7)), _backtest_note(told)
            ),
            page.section("How it is counted", page.table([], told["definitions"])),
        ],
        footer=f"Written by gigafactory race, {told['draws']:,} futures. {told['credit']}.",
    )


OWNERS_NOTE = (
    "Growth is a factor per year: of the last year, aimed at (mean), and got under the limits of wafers and money. "
    "*: what the owner spends is not known; it is taken as what its last year's chips cost, grown like others'. "
    "†: the data count running chips, of the others delivered ones."
)
_CLAIM_NOTE = "From the medians as published, without limits: what the owner needs at a growth of its rivals."
_CONCENTRATION_NOTE = (
    "Share of the three largest owners, and the sum of squared shares (1 is one owner); owners that the data do not "
    "name count as many small ones."
)
_CLUSTER_NOTE = "Fleets and clusters are two rankings: the owner of the largest cluster need not own most compute."


def owner_rows(told: Told) -> Rows:
    """Table of owners: as published, growth of the last year, aimed at and got, and the forecast."""
    rows = []
    for one in told["owners"]:
        aims = one["aims_at"]["p50"] if one["aims_at"] else None
        marks = ("*" if one["spending"] == "implied" else "") + ("†" if one["counts"] == "deployed" else "")
        rows.append(
            [
                one["owner"] + marks,
                fmt.count(one["published"]),
                _times(one["last_year_growth"]),
                _times(aims),
                _times(one["growth"]["p50"]),
                fmt.count(one["then"]["p50"]),
                f"{fmt.count(one['then']['p10'])} to {fmt.count(one['then']['p90'])}",
            ]
        )
    return ["owner", told["from"][:7], "last year", "aims at", "gets", told["by"][:7], "80 %"], rows


def flip_rows(told: Told) -> Rows:
    """Table of inputs: their range, the ratio and the probability at its ends, and where the answer flips."""
    rows = []
    for one in told["flips"]["inputs"]:
        rows.append(
            [
                one["words"],
                f"{_value(one['low'])} to {_value(one['high'])}",
                f"{_ratio(one['ratio'][0])} to {_ratio(one['ratio'][1])}",
                " to ".join(dict.fromkeys(_percent(chance) for chance in one["likely"])),
                "" if one["farthest"] is None else "never" if one["needed"] is None else _value(one["needed"]),
            ]
        )
    return ["input", "from, to", "ratio", "probability", "flips at"], rows


def path_rows(told: Told) -> Rows:
    """Table of the years of the constant growth that reaches the rivals' median."""
    words = {"share": "share of one owner", "nvidia": "Nvidia's output", "money": "money"}
    rows = [
        [
            str(one["year"]),
            fmt.count(one["new"]),
            f"{fmt.share(one['share'])} (limit {fmt.share(one['share_limit'])})",
            fmt.share(one["nvidia_share"]),
            f"{fmt.count(one['cost_usd'])}$",
            f"{fmt.count(one['money_usd'])}$",
            ", ".join(words[name] for name in one["breaks"]) or "none",
        ]
        for one in told["path"]
    ]
    return ["year", "new H100e", "of all made", "of Nvidia's", "costs", "has", "exceeds"], rows


def claim_rows(told: Told) -> Rows:
    """Table of the claim's arithmetic."""
    rows = [[_times(growth), _times(needed), fmt.count(level)] for growth, needed, level in told["claim"]["needed"]]
    return ["rivals grow per year", f"{told['owner']} must grow", f"to, on {told['by']}"], rows


def cluster_rows(told: Told) -> Rows:
    """Table of the largest single clusters."""
    rows = [
        [one["title"], one["owner"], fmt.count(one["h100_equivalents"]), one["operational"], one["note"]]
        for one in told["clusters"]
    ]
    return ["cluster", "owner", "H100 equivalents", "running since", "note"], rows


def backtest_rows(told: Told) -> Rows:
    """Table of the method's forecasts a year ahead against what the data have since."""
    rows = [
        [
            one["owner"],
            one["origin"],
            one["day"],
            f"{fmt.count(one['p10'])} to {fmt.count(one['p90'])}",
            fmt.count(one["p50"]),
            fmt.count(one["actual"]),
            "yes" if one["within"] else "no",
        ]
        for one in told["backtest"]
    ]
    return ["owner", "data until", "forecast of", "80 %", "median", "came", "within"], rows


def _tiles(told: Told) -> list[page.Tile]:
    ratio, passing = told["ratio"], told["passing"]
    mine = next(one for one in told["owners"] if one["owner"] == told["owner"])
    late = f"p10 {passing['p10'] or 'later'}, p90 {passing['p90'] or 'later'}"
    alone = told["flips"]["inputs"][0]
    return [
        page.Tile("Probability", _percent(told["probability"]), f"more than the rivals on {told['by']}"),
        page.Tile("Over the rivals'", _ratio(ratio["p50"]), f"80 %: {_ratio(ratio['p10'])} to {_ratio(ratio['p90'])}"),
        page.Tile("Date", passing["p50"] or "not by then", late),
        page.Tile("Gap", f"{told['claim']['gap']:.2f}x a year", "faster than the rivals, from the published medians"),
        page.Tile("Grows", f"{_times(mine['growth']['p50'])} a year", f"{_times(told['needed_growth'])} is needed"),
        page.Tile("Widest effect", f"{_ratio(alone['ratio'][0])} to {_ratio(alone['ratio'][1])}", alone["words"]),
    ]


def _history(told: Told, names: Sequence[str]) -> list[tuple[float, float]]:
    """Sum of what is published, on the days that all of them have."""
    series = [dict(map(tuple, told["history"][name])) for name in names if name in told["history"]]
    days = sorted(set.intersection(*(set(one) for one in series))) if series else []
    return [(_ordinal(day), sum(one[day] for one in series)) for day in days]


def _fan(told: Told, name: str, key: str, color: int, past: list[tuple[float, float]]) -> Series:
    days = [_ordinal(day) for day in told["curves"]["dates"]]
    fan = told["curves"][key]
    band = list(zip(days, fan["p10"], fan["p90"], strict=True))
    ahead = list(zip(days, fan["p50"], strict=True))
    return Series(name, [point for point in past if point[0] < days[0]] + ahead, color, band=band)


def _against(told: Told) -> str:
    owner, rivals = told["owner"], told["rivals"]
    words = "everybody else" if rivals == ["world"] else "rivals together"
    past = _history(told, rivals)
    if rivals == ["world"]:
        mine = dict(_history(told, [owner]))
        past = [(day, value - mine.get(day, 0.0)) for day, value in past]
    series = [
        _fan(told, owner, owner, 1, _history(told, [owner])),
        _fan(told, words, "rivals", 0, past),
    ]
    return _chart(f"{owner} and {words}", _BANDS, series, _H100E, [Mark("data end", x=_ordinal(told["from"]))])


def _fans(told: Told) -> list[str]:
    names = [one["owner"] for one in told["owners"] if one["owner"] not in ("world", "others")]
    level = {one["owner"]: one["then"]["p50"] for one in told["owners"]}
    names.sort(key=lambda name: -level[name])
    charts = []
    for first in range(0, len(names), _OWNERS_A_CHART):
        shown = names[first : first + _OWNERS_A_CHART]
        series = [_fan(told, name, name, color, _history(told, [name])) for color, name in enumerate(shown)]
        charts.append(_chart(", ".join(shown), _STEPS, series, _H100E))
    return charts


def _probability(told: Told) -> str:
    points = [(_ordinal(day), value) for day, value in told["probability_by_date"]]
    axis = Axis("probability", show=fmt.share, from_zero=True)
    name = f"{told['owner']} has more"
    return _chart(
        "Probability by date", "That the owner has more than the rivals together.", [Series(name, points, 1)], axis
    )


def _tornado(told: Told) -> str:
    swings = [
        Swing(one["words"], one["ratio"][0], one["ratio"][1], _value(one["low"]), _value(one["high"]))
        for one in told["flips"]["inputs"][:_SHOWN]
    ]
    base = told["ratio"]["p50"]
    near = max(base, *(end for one in swings for end in (one.low, one.high))) > 0.3
    goal = (1.0, "equal") if near else None
    caption = "One input at a time"
    note = (
        "Median of the owner's compute over the rivals', with the input at the low (blue) and at the high end (orange) "
        "of its range; at 1 they are equal."
    )
    figure = page.figure(
        caption, note, lambda width: tornado(caption, swings, base=base, show=_ratio, goal=goal, width=_across(width))
    )
    return f'<div class="whole">{figure}</div>'


def _concentration(told: Told) -> str:
    series = []
    for color, (name, words) in enumerate((("top3", "three largest"), ("herfindahl", "sum of squared shares"))):
        rows = [(_ordinal(one["day"]), one[name]) for one in told["concentration"]]
        band = [(day, value["p10"], value["p90"]) for day, value in rows if "p10" in value]
        series.append(Series(words, [(day, value["p50"]) for day, value in rows], color, band=band))
    axis = Axis("share", show=fmt.share, from_zero=True)
    caption = "Concentration of compute"
    figure = page.figure(
        caption, _BANDS, lambda width: line_chart(caption, series, x=_DATE, y=axis, width=_across(width))
    )
    return f'<div class="whole">{figure}</div>'


def _across(width: int) -> int:
    return _WHOLE if width > 400 else width


def _chart(caption: str, note: str, series: Sequence[Series], y: Axis, marks: Sequence[Mark] = ()) -> str:
    return page.figure(caption, note, lambda width: line_chart(caption, series, x=_DATE, y=y, marks=marks, width=width))


def _path_note(told: Told) -> str:
    return (
        f"A constant growth of {_times(told['needed_growth'])} a year reaches the rivals' median forecast (of the "
        "world: half of all). Each year of it against medians: the share that one owner gets, Nvidia's output, money."
    )


def _backtest_note(told: Told) -> str:
    shares = ", ".join(f"{fmt.share(share)} of the owners ({day})" for day, share in told["coverage"].items())
    missed = [one for one in told["backtest"] if not one["within"]]
    above = sum(one["actual"] > one["p90"] for one in missed)
    return (
        f"Within the band that should hold 80 %: {shares}; {above} of {len(missed)} misses came out above. The bands "
        "are as wide as the method's errors in these two years, which are no independent proof; errors are largely the "
        "world's, so owners miss together. An export ban (China) and a site that starts at once (xAI) are not foreseen."
    )


def _ordinal(day: str) -> float:
    return float(datetime.date.fromisoformat(day).toordinal())


def _times(factor: float | None) -> str:
    return fmt.MISSING if factor is None else f"{factor:.2f}x"


def _ratio(value: float) -> str:
    return f"{fmt.significant(value, 2)}x"


def _value(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return fmt.count(value) if value >= 1e6 else fmt.significant(value)


def _percent(share: float) -> str:
    return "< 0.1 %" if share < 1e-3 else fmt.share(share)
