"""The pages of goodput: whole ledgers, ledgers of nothing, and damaged ones."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from test_run_page import _check

from gigafactory.report.figures import Axis, Series, Stretch, scatter, strip
from gigafactory.report.goodput_page import KINDS, brief, label, sections, simulation_page, tiles
from gigafactory.report.run_page import run_page
from gigafactory.report.run_records import read_run

ASSUMED = [("step time", "1.3 s", "a <source>")]


def told(hours: float = 30.0) -> dict[str, Any]:
    """What a ledger of some hours says: an interruption an hour."""
    wall_s = 3600.0 * hours
    shares = {"productive": 0.9, "detection": 0.04, "re_forming": 0.05, "degraded": 0.01}
    return {
        "start_s": 1e9,
        "end_s": 1e9 + wall_s,
        "workers": 16,
        "held": 20,
        "chips_per_worker": 8,
        "effective": 0.9,
        "published": 0.91,
        "of_paid": 0.72,
        "share": shares,
        "wall_s": {name: share * wall_s for name, share in shares.items()},
        "classes": {"detection": "until called", "re_forming": "left and formed", "degraded": "fewer"},
        "unplanned": 30,
        "mtbf_s": 3600.0,
        "causes": {"crash": 25, "<b>hang</b>": 5, "link flap": 3},
        "rode_through": {"link flap": 3},
        "recoveries": {"spare": {"count": 30, "p50_s": 60.0, "p99_s": 200.0, "max_s": None}},
        "spares_used": 3,
        "worst_hour": {"at_s": 1e9 + 3600.0, "share": 0.5},
        "worst_stretch": {"at_s": 1e9, "lasted_s": 700.0},
        "timeline": {
            "sliding": [[wall_s * (n + 1) / 600, 0.9] for n in range(600)],
            "interruptions": [
                [3600.0 * n, 60.0 + n, "crash" if n % 6 else "<b>hang</b>", "spare", 0] for n in range(30)
            ],
            "standby": [[0.0, 0], [10.0, 4], [3600.0, 1], [7200.0, 4]],
            "worst_hour": [[3600.0, 5400.0, {"productive": 1800.0}], [5400.0, 7200.0, {"detection": 1800.0}]],
        },
        "decisions": [[3600.0, "GF101", "crash", "spare", "n1: killed <by> signal 9"]],
    }


def test_a_simulation_has_its_page() -> None:
    text = _check(simulation_page(told(), name="colossus", lead="30 hours of it.", assumptions=ASSUMED))
    for expected in ("90.00 %", "72.00 %", "60 min", "The 10.00 % that were lost", "re-forming", "The worst hour"):
        assert expected in text
    assert "a <source>" in text
    assert "n1: killed <by> signal 9" in text
    assert "GPU-hours" in text


@pytest.mark.parametrize(
    "missing", ["timeline", "share", "causes", "recoveries", "worst_hour", "decisions", "held", "classes", "mtbf_s"]
)
def test_what_is_missing_is_left_out(missing: str) -> None:
    known = told()
    del known[missing]
    _check(simulation_page(known, name="x", lead="", assumptions=[]))


def test_a_ledger_of_nothing_has_a_page() -> None:
    _check(simulation_page({}, name="x", lead="", assumptions=[]))
    assert [tile.value for tile in tiles({})][:3] == ["–", "–", "–"]


def test_a_run_shows_where_its_time_went(tmp_path: Path) -> None:
    known = told() | {"chips_per_worker": 1}
    (tmp_path / "ledger.json").write_text(json.dumps(known) + "\n")
    text = _check(run_page(read_run(tmp_path)))
    assert "Where the time went" in text
    assert "worker-hours" in text
    assert "GF101" in text


@pytest.mark.parametrize("damaged", ["{", '{"timeline": 3}', '{"share": {"productive": "x"}}', "[1]", '{"held": null}'])
def test_a_damaged_ledger_does_not_break_the_page_of_a_run(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "ledger.json").write_text(damaged)
    _check(run_page(read_run(tmp_path)))


def test_a_run_without_a_ledger_says_nothing_of_goodput(tmp_path: Path) -> None:
    assert "Where the time went" not in run_page(read_run(tmp_path))


def test_short_runs_have_no_daily_mean() -> None:
    assert "one day" in "".join(sections(told(hours=72.0)))
    assert "one day" not in "".join(sections(told(hours=2.0)))


def test_lengths_of_time_in_one_unit() -> None:
    given = (0.25, 63.4, 119.0, 150.0, 3600.0, 7300.0, 400000.0, math.nan)
    assert [brief(seconds) for seconds in given] == [
        "0.25 s", "63 s", "119 s", "2.50 min", "60 min", "2.03 h", "4.63 d", "–"
    ]  # fmt: skip
    assert label("re_forming") == "re-forming"


def test_every_stretch_lies_in_its_strip() -> None:
    stretches = [Stretch(0.0, 30.0, "productive"), Stretch(30.0, 90.0, "detection", 0.2, 0.8)]
    svg = strip("s", stretches, KINDS, x=Axis("x"), x_range=(0.0, 60.0), width=340)
    boxes = re.findall(r'<rect class="k\d" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)
    assert len(boxes) == 4  # two of the legend
    assert all(float(place) >= 0 and float(place) + float(width) <= 340 for place, width in boxes)
    assert "productive" in svg
    assert "restoring" not in svg  # the legend names what is there


def test_a_scatter_holds_every_point() -> None:
    groups = [Series("a", [(1.0, 10.0), (2.0, 100.0)]), Series("b", [(3.0, 1.0)], 1), Series("none", [], 2)]
    svg = scatter("s", groups, x=Axis("time"), y=Axis("lasted", "log"), x_high=4.0, y_marks=(1, 10, 100))
    assert svg.count('r="3.0"') == 3
    assert "a (2)" in svg
    assert "none" not in svg.split("aria-label")[1].split(">", 1)[1]
