"""What a plan waits for: slack that holds, gains that are found, one chain of reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gigafactory.factory.load import load_factory, parse_factory
from gigafactory.site import waits
from gigafactory.site.activities import site_times
from gigafactory.site.build import build
from gigafactory.site.draws import Draws
from gigafactory.site.schedule import schedule
from gigafactory.site.supply import deliveries

EXAMPLES = Path(__file__).parents[2] / "examples"

SITE = """
[site]
kind = "retrofit"
start = 2024-01-01
racks_per_day = { p10 = 1, p50 = 3, p90 = 9 }
[[site.power]]
start = 2024-03-01
kind = "grid"
power_w = 3e6
delay_weeks = { p10 = 0, p50 = 10, p90 = 30 }
[[site.power]]
start = 2024-04-01
kind = "turbine"
power_w = 5e6
delay_weeks = { p10 = 0, p50 = 4, p90 = 20 }
[[site.orders]]
chip = "h100-sxm"
count = 2048
placed = 2024-01-01
lead_weeks = { p10 = 5, p50 = 10, p90 = 30 }
delivery_weeks = 4
[[site.orders]]
chip = "h200-sxm"
count = 1024
placed = 2024-01-01
lead_weeks = { p10 = 5, p50 = 14, p90 = 20 }
"""


@pytest.mark.parametrize("sets", [(), ("site.power=[]",), ("site.kind=greenfield",)])
def test_the_chain_of_reasons_gives_the_last_day_again(sets: tuple[str, ...]) -> None:
    for factory in (parse_factory(SITE, "f", sets), load_factory(EXAMPLES / "colossus.toml", sets)):
        draws = Draws(300, 2)
        times = site_times(factory, draws)
        built = build(factory, draws, deliveries(factory, draws), times)
        again = waits._last(waits._chain(factory, built, times))
        assert np.allclose(again, built.lots.useful.max(axis=1))


def test_every_future_waits_for_something_and_slack_is_never_negative() -> None:
    found = schedule(parse_factory(SITE, "f"), Draws(500, 3))
    slack = np.stack([each.slack for each in found.constraints])
    assert np.all(slack >= -1e-6)
    named = np.stack([each.slack for each in found.constraints if each.kind in ("activity", "order", "power")])
    assert np.all(named.min(axis=0) <= 1e-6)


@pytest.mark.parametrize("name", ["order-1", "order-2", "power-1", "power-2", "shell", "transformers"])
def test_what_comes_later_by_its_slack_moves_nothing_and_by_more_does(name: str) -> None:
    """In a single future, so that the input can be fixed a little later."""
    weeks = {
        "order-1": "site.orders[0].lead_weeks",
        "order-2": "site.orders[1].lead_weeks",
        "power-1": "site.power[0].delay_weeks",
        "power-2": "site.power[1].delay_weeks",
    }
    factory = parse_factory(SITE, "f")
    moved = 0
    for seed in range(12):
        base = schedule(factory, Draws(1, seed))
        slack = float(next(each.slack[0] for each in base.constraints if each.name == name))
        if not np.isfinite(slack):
            continue
        if name in weeks:
            path, unit = weeks[name], 7.0
            kind, _, field = path.removeprefix("site.").partition("[")
            section = getattr(factory.site, kind)[int(field[0])]
            value = Draws(1, seed).of(path, getattr(section, path.rsplit(".", 1)[1]))[0]
        else:
            path, unit = f"site.activities.{name}.days", 1.0
            column = base.times.names.index(name)
            days = base.times.finish[0, column] - base.times.start[0, column]
            fixed = Draws(1, seed, {path: 1.0})
            value = days / (site_times(factory, fixed).of(name)[0] - site_times(factory, fixed).start[0, column])
            unit = days / value
        later = schedule(factory, Draws(1, seed, {path: value + slack / unit}))
        assert later.last_day[0] == pytest.approx(base.last_day[0], abs=1e-6)
        later = schedule(factory, Draws(1, seed, {path: value + (slack + 400) / unit}))
        moved += later.last_day[0] > base.last_day[0] + 1
    assert moved > 0


def test_the_gain_is_that_of_a_plan_without_it() -> None:
    factory = parse_factory(SITE, "f", ["site.power=[]"])
    base, fast = (schedule(factory, Draws(400, 4, fixed)) for fixed in ({}, {"site.racks_per_day": 1e9}))
    gain = next(each.gain_days for each in base.constraints if each.name == "installation")
    assert gain == pytest.approx(float((base.last_day - fast.last_day).mean()), abs=0.01)


def test_an_activity_that_gains_most_is_named_first() -> None:
    slow = "site.activities=[{name='substation', days={p10=300, p50=400, p90=600}}]"
    found = schedule(parse_factory(SITE, "f", ["site.power=[]", slow]), Draws(300, 5))
    assert found.constraints[0].name == "substation"
    assert found.constraints[0].critical > 0.95
    assert "First thing to fix: substation" in " ".join(found.sentences())
