"""Charts are well-formed SVG that says what it shows, whatever the data."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.report import format as fmt
from gigafactory.report.figures import Axis, Series, heat_map, line_chart, standalone

values = st.floats(allow_nan=True, allow_infinity=True)
points = st.lists(st.tuples(st.floats(0, 1e9), values), max_size=40).map(sorted)


def _numbers(svg: str) -> list[float]:
    places = re.findall(r' (?:x|y|x1|y1|cx|cy)="([^"]*)"', svg)
    paths = "".join(re.findall(r' d="([^"]*)"', svg))
    return [float(number) for number in places + re.findall(r"-?\d+(?:\.\d+)?", paths)]


@given(points, st.sampled_from(["linear", "log"]), st.sampled_from(["linear", "time"]), st.booleans())
def test_any_series_gives_well_formed_svg_inside_its_frame(
    data: list[tuple[float, float]], y_scale: str, x_scale: str, from_zero: bool
) -> None:
    series = [Series("<a> & 'b'", data, style=style) for style in ("line", "faint", "dots")]  # type: ignore[arg-type]
    y = Axis("loss", y_scale, from_zero=from_zero)  # type: ignore[arg-type]
    svg = line_chart("A title", series, x=Axis("step", x_scale), y=y)  # type: ignore[arg-type]
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert (root.get("aria-label") or "").startswith("A title. ")
    assert all(-1 <= number <= 561 for number in _numbers(svg))


def test_a_curve_is_drawn_where_its_values_are() -> None:
    svg = line_chart("t", [Series("up", [(0, 0), (50, 5), (100, 10)])], x=Axis("x"), y=Axis("y"), hover=False)
    (path,) = (
        element for element in ET.fromstring(svg) if element.get("class") == "line s0" and "L" in element.get("d", "")
    )
    (x0, y0), (x1, y1), (x2, y2) = (map(float, at.split()) for at in path.get("d", "")[1:].split("L"))
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    assert math.isclose(x1, (x0 + x2) / 2, abs_tol=0.1)
    assert math.isclose(y1, (y0 + y2) / 2, abs_tol=0.1)


def test_the_read_out_names_every_curve_at_every_column() -> None:
    curves = [
        Series("training", [(float(step), 2.0) for step in range(200)]),
        Series("held out", [(0, 3.0), (199, 1.0)]),
    ]
    svg = line_chart("t", curves, x=Axis("step", show=lambda step: f"{step:.0f}"), y=Axis("loss"))
    columns = [element for element in ET.fromstring(svg) if element.get("class") == "col"]
    texts = [column[-1].text for column in columns]
    assert len(columns) == 48
    assert texts[0] == "step 0: training 2.00 · held out 3.00"
    assert texts[-1] == "step 199: training 2.00 · held out 1.00"


def test_long_series_stay_small() -> None:
    noise = [(float(step), math.sin(step * step)) for step in range(100_000)]
    svg = line_chart("t", [Series("a", noise, style="faint"), Series("a", noise)], x=Axis("x"), y=Axis("y"))
    assert len(svg) < 30_000


def test_nothing_to_draw_says_so() -> None:
    empty = Series("a", [(1.0, math.nan)])
    assert "no data yet" in line_chart("t", [empty], x=Axis("x"), y=Axis("y"))
    assert "no data yet" in heat_map("t", [], x=Axis("x"), x_range=(0, 1))


@pytest.mark.parametrize(
    ("axis", "ticks", "written"),
    [
        (Axis("a", show=fmt.share), [0, 0.05, 0.1], ["0 %", "5 %", "10 %"]),
        (Axis("a"), [0, 5000, 10000], ["0", "5 k", "10 k"]),
        (Axis("a"), [0, 0.001, 0.0015], ["0", "0.001", "0.0015"]),
        (Axis("a", "time"), [0, 30, 60, 90, 7200, 86400], ["0", "30 s", "1 min", "1:30", "2 h", "1 d"]),
    ],
)
def test_tick_texts(axis: Axis, ticks: list[float], written: list[str]) -> None:
    assert axis.ticks_text(ticks) == written


@given(st.lists(st.lists(values, min_size=1, max_size=9), min_size=1, max_size=5), st.integers(1, 3))
def test_any_heat_map_is_well_formed(rows: list[list[float]], copies: int) -> None:
    svg = heat_map("Load", [("layer <1>", rows)] * copies, x=Axis("step"), x_range=(0, 100))
    root = ET.fromstring(svg)
    assert (root.get("aria-label") or "").startswith("Load. ")


def test_heat_is_coloured_by_distance_from_the_even_share() -> None:
    svg = heat_map("Load", [("layer", [[1.0, 2.0], [0.0, 1.5]])], x=Axis("step"), x_range=(0, 1))
    cells = {
        (path.get("class"), path.get("fill-opacity")): path.get("d", "").count("M")
        for path in ET.fromstring(svg).findall("path")[9:]  # the first nine are the legend's
    }
    assert cells == {("under", "1.00"): 1, ("over", "0.50"): 1, ("over", "1.00"): 1}


def test_a_standalone_file_brings_its_colours() -> None:
    svg = standalone(line_chart("t", [Series("a", [(0, 1), (1, 2)])], x=Axis("x"), y=Axis("y")))
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    style = root[0].text or ""
    used = set(re.findall(r"var\((--\w+)\)", style))
    assert used
    assert all(f"{name}:" in style for name in used)
    assert "prefers-color-scheme:dark" in style
