"""The page of a plan: whole plans, parts that are missing, and the charts that it brought."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
from test_run_page import _check

from gigafactory.report.figures import Axis, Mark, Series, line_chart
from gigafactory.report.gantt import Bar, gantt
from gigafactory.report.plan_page import PARTS, plan_page, tiles
from gigafactory.report.scales import date_ticks

MONTHS = [f"2025-{month:02d}-01" for month in range(1, 13)]


def bands(values: list[float]) -> dict[str, list[float]]:
    return {"p10": [0.8 * value for value in values], "p50": values, "p90": [1.2 * value for value in values]}


def spread(p10: float | None, p50: float | None, p90: float | None) -> dict[str, Any]:
    days = {"p10": p10, "p50": p50, "p90": p90}
    start = datetime.date(2025, 1, 1)
    dates = {name: None if day is None else str(start + datetime.timedelta(day)) for name, day in days.items()}
    return {"days": days, "dates": dates, "never": 0.0 if p90 is not None else 0.2}


def told() -> dict[str, Any]:
    """A plan of a thousand chips, with markup where a user's words come in."""
    curve = bands([0.0, 400.0, 1000.0]) | {"mean": [0.0, 400.0, 990.0]}
    growing = [1e6 * month for month in range(12)]
    return {
        "name": "a <site>",
        "place": "<b>here</b>",
        "seed": 1,
        "draws": 100,
        "chips": 1000,
        "when": {
            "sentences": ["All <1,000> chips are useful by 2025-06-01."],
            "start": "2025-01-01",
            "target": {"date": "2025-07-01", "probability": {"useful": 0.42}},
            "chips": 1000,
            "milestones": [
                {"name": "all-useful", "title": "all useful"} | spread(100.0, 150.0, None),
                {"name": "order-1-useful", "title": "order <1>"} | spread(90.0, 120.0, 200.0),
            ],
            "activities": [
                {"name": "shell", "start": spread(0.0, 0.0, 0.0), "finish": spread(40.0, 50.0, 80.0)},
                {"name": "never", "start": spread(0.0, 0.0, 0.0), "finish": spread(40.0, None, None)},
                {"name": "hall", "start": spread(40.0, 50.0, 80.0), "finish": spread(40.0, 50.0, 80.0)},
            ],
            "constraints": [
                {
                    "name": "shell",
                    "title": "the roof",
                    "critical": 0.6,
                    "slack_days": {"p10": 0.0, "p50": 3.0, "p90": None},
                    "gain_days": 12.0,
                }
            ],
            "curves": {"dates": ["2025-01-01", "2025-03-01", "2025-06-01"], "delivered": curve, "useful": curve},
        },
        "power": {
            "sentences": ["Short from March on."],
            "months": MONTHS,
            "need_w": bands(growing),
            "supply_w": bands([5e6] * 12),
            "short_w": bands([max(0.0, value - 5e6) for value in growing]),
            "first_short": {"month": "2025-06-01", "probability": 0.9},
            "spells": [
                {
                    "first": "2025-06-01",
                    "last": "2025-12-01",
                    "lasts": True,
                    "remedies": [
                        {
                            "title": "rented <turbines>",
                            "power_w": 6e6,
                            "works": True,
                            "usd": {"value": 2e6, "low": 1e6, "high": 2e6},
                            "lead_weeks": None,
                        }
                    ],
                }
            ],
            "swings": {"sentences": ["12 MW a step: fail"]},
        },
        "bill": {
            "sentences": ["125 servers."],
            "rows": [{"group": "compute", "what": "servers", "count": 125, "unit": "", "usd": {"p50": 3.4e7}}],
            "tables": [{"title": "Fat <tree>", "headers": ["tier", "switches"], "rows": [["leaf", 8]], "note": "why"}],
        },
        "money": {
            "sentences": [],
            "months": MONTHS,
            "spent_usd": bands(growing),
            "funds_usd": [5e6] * 12,
            "capex_usd": {"p10": 1e7, "p50": 2e7, "p90": 3e7},
            "usd_per_useful_chip_hour": {"p10": 1.5, "p50": 2.0, "p90": None},
            "rounds": [
                {
                    "date": "2025-01-05",
                    "usd": 5e6,
                    "until": "2025-06-01",
                    "needed_usd": {"p10": 4e6, "p50": 6e6, "p90": 8e6},
                    "covered": 0.25,
                    "buys_bare_chips": {"p50": 178.0},
                    "buys_all_in_chips": {"p50": 100.0},
                }
            ],
            "assumptions": [["interest", "10 %", "<a source>"]],
        },
        "rent": {
            "sentences": ["Build."],
            "months": MONTHS,
            "rent_usd": bands(growing),
            "build_usd": bands([6e6] * 12),
            "build_cheaper": 0.7,
        },
        "makes": {"sentences": ["1e24 FLOP."], "months": MONTHS, "training_flop": bands([1e24] * 12)},
    }


def test_a_plan_has_its_page() -> None:
    text = _check(plan_page(told()))
    for expected in (
        "a <site>", "<b>here</b>", "All <1,000> chips", "Chips over time", "Steps of building", "the roof",
        "Power needed and supplied", "12 MW a step: fail", "rented <turbines>",
        "2.00 M$ (1.00 M$ to 2.00 M$)", "Fat <tree>", "Cash needed and raised", "Rent or build",
        "Training FLOP a day, by month", "<a source>", "never in 20 %", "critical 60 %, slack 3 d",
    ):  # fmt: skip
        assert expected in text, expected


@pytest.mark.parametrize("name", [name for name, _ in PARTS])
@pytest.mark.parametrize("left", [None, {}, {"sentences": ["alone"]}])
def test_a_part_that_is_missing_is_left_out(name: str, left: dict[str, Any] | None) -> None:
    text = _check(plan_page(told() | {name: left}))
    assert ("alone" in text) == bool(left)


def test_the_headline_numbers() -> None:
    found = {tile.label: (tile.value, tile.note) for tile in tiles(told())}
    assert found["All chips useful"] == ("May 2025", "2025-04-11 to never")
    assert found["By the target"] == ("42 %", "all useful by 2025-07-01")
    assert found["Power needed"] == ("11.0 MW", "short from 2025-06 on")
    assert found["Capital"] == ("20.0 M$", "10.0 M$ to 30.0 M$")
    assert found["$ per useful GPU-hour"] == ("2.00", "1.50 to no end")
    assert found["Building is cheaper"][0] == "70 %"


def test_bands_and_marks_lie_in_their_chart() -> None:
    first = float(datetime.date(2025, 1, 1).toordinal())
    points = [(first + day, float(day)) for day in range(0, 360, 30)]
    band = [(x, y - 50, y + 50) for x, y in points]
    marks = [Mark("goal", y=500.0), Mark("target", x=first + 100), Mark("far away", x=first + 1000)]
    names = [f"a curve with a long name {number}" for number in range(4)]
    series = [Series(name, points, color, band=band) for color, name in enumerate(names)]
    svg = line_chart("c", series, x=Axis("", "date"), y=Axis("chips"), marks=marks, width=340)
    assert svg.count('class="band') == 4
    assert "goal" in svg
    assert "far away" not in svg, "a mark outside the dates is left out"
    assert "2025-07" in svg
    places = [
        float(x) for path in re.findall(r'class="band p\d" d="M([^z]*)z', svg) for x in re.findall(r"([\d.]+) ", path)
    ]
    assert min(places) >= 0
    assert max(places) <= 340
    lines = re.findall(r'<text class="key" x="([\d.]+)" y="(\d+)\.0">a curve', svg)
    assert len({y for _, y in lines}) == 4, "a legend that does not fit breaks into lines"


def test_bars_tell_their_slack() -> None:
    svg = gantt(
        "g", [Bar("shell", 10.0, 20.0, 18.0, 30.0, 40.0, "slack 20 d", True), Bar("roof", 20.0, 25.0, 22.0, 28.0)]
    )
    assert svg.count('class="k4"') == 1
    assert svg.count('class="k1"') == 1
    assert "slack 20 d" in svg
    assert "no data" in gantt("g", [])


@pytest.mark.parametrize("days", [3, 20, 70, 400, 3000, 30000])
def test_ticks_of_dates_are_few_and_inside(days: int) -> None:
    low = float(datetime.date(2024, 5, 3).toordinal())
    ticks = date_ticks(low, low + days, 7)
    assert 1 <= len(ticks) <= 8
    assert all(low <= tick <= low + days for tick in ticks)
    assert ticks == sorted(ticks)
