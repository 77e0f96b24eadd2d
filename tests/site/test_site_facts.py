"""What the catalogue says of supply and building is what the tables say that it comes from."""

from __future__ import annotations

import csv
import datetime
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from gigafactory.factory import catalog
from gigafactory.factory.load import parse_factory
from gigafactory.site.activities import HALL, site_times
from gigafactory.site.draws import Draws

DATA = Path(__file__).parents[3] / "shared" / "data"
FAMILIES = {
    "A100": "nvidia-a100",
    "H100": "nvidia-hopper",
    "H800": "nvidia-h800",
    "H20": "nvidia-h20",
    "B200": "nvidia-b200",
    "B300": "nvidia-b300",
}


def table(path: str) -> list[dict[str, str]]:
    file = DATA / path
    if not file.exists():
        pytest.skip(f"{file} is not here: the third-party tables stay outside the project")
    return list(csv.DictReader(file.open(encoding="utf-8")))


def test_output_per_quarter_is_epochs_table() -> None:
    rows = table("epoch/chip_counts/csv_export/nvidia_calendar_quarter_chip_timelines.csv")
    found = 0
    for row in rows:
        month, day, year = map(int, row["Start date"].split("/"))
        start = datetime.date(year, month, day)
        if row["Chip type"] not in FAMILIES or start == datetime.date(2026, 1, 1):
            continue
        fact = catalog.outputs()[FAMILIES[row["Chip type"]]].quarters[start]
        names = ("Number of Units (5th percentile)", "Number of Units", "Number of Units (95th percentile)")
        assert [fact.low, fact.value, fact.high] == [float(row[name]) for name in names]
        found += 1
    assert found == sum(len(entry.quarters) for entry in catalog.outputs().values())


def test_quarters_are_without_gaps_and_chips_are_catalogued() -> None:
    for entry in catalog.outputs().values():
        days = list(entry.quarters)
        assert days == sorted(days)
        assert all(85 < (after - before).days < 95 for before, after in itertools.pairwise(days))
        assert all(catalog.chip(name) for name in entry.chips)


def test_halls_after_the_first_open_as_on_the_dated_campuses() -> None:
    power: dict[str, list[tuple[datetime.date, float]]] = defaultdict(list)
    begun: dict[str, datetime.date] = {}
    for row in table("epoch/hub/data_center_timelines.csv"):
        day = datetime.date.fromisoformat(row["Date"])
        begun[row["Data center"]] = min(day, begun.get(row["Data center"], day))
        if float(row["Power (MW)"] or 0) > 0:
            power[row["Data center"]].append((day, 1e6 * float(row["Power (MW)"])))
    first = [min(days)[1] for days in power.values()]
    fact = catalog.assumption("first_hall_power_w")
    assert np.quantile(first, [0.1, 0.5, 0.9]) == pytest.approx([fact.low, fact.value, fact.high], rel=0.02)
    pace = []
    for name, days in power.items():
        (begin, least), (end, most) = min(days), max(days, key=lambda each: each[1])
        if most > least and begun[name].year >= 2023:
            pace.append((most - least) / (end - begin).days)
    fact = catalog.assumption("halls_w_per_day")
    assert len(pace) == 11
    assert np.quantile(pace, [0.1, 0.5, 0.9]) == pytest.approx([fact.low, fact.value, fact.high], rel=0.05)


def test_the_retrofits_factor_puts_both_known_retrofits_at_the_ends_of_its_band() -> None:
    """First racks on day 61 and day 135: see the fact's source."""
    factory = parse_factory("[site]\nkind='greenfield'\nstart=2024-01-01\n", "f")
    usual = float(np.median(site_times(factory, Draws(4000, 1)).of(HALL)))
    fact = catalog.assumption("retrofit_factor")
    assert [fact.low, fact.value, fact.high] == pytest.approx(
        [61 / usual, np.sqrt(61 * 135) / usual, 135 / usual], rel=0.03
    )


def test_named_competitors_leave_something() -> None:
    assert 0.4 < sum(entry.share.value for entry in catalog.buyers().values()) < 0.7
