"""The pages of a prediction and of a search, and their bar."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_run_page import _check

from gigafactory.report import format as fmt
from gigafactory.report.bars import Piece, stacked_bar
from gigafactory.report.search_page import search_page
from gigafactory.report.twin_page import MEMORY, PARTS, length, run_rows, seconds, tiles, twin_page, usd


def between(value: float) -> dict[str, float]:
    return {"value": value, "low": 0.9 * value, "high": 1.1 * value}


def told(**changes: Any) -> dict[str, Any]:
    """A prediction of a small job."""
    plan = {"tensor": 8, "pipe": 4, "context": 1, "data": 2, "expert": 1, "micro_batches": 16, "micro_rows": 1}
    return {
        "name": "mine <b>",
        "model_parameters": 7e10,
        "trainer": "megatron",
        "release": "25.09",
        "format": "fp8",
        "chips": 64,
        "kinds": [{"name": "h100-sxm", "count": 64}],
        "plan": plan | {"global_rows": 32, "sequence": 8192},
        "definitions": {"mfu": "what <i>it</i> is"},
        "step_s": between(13.0),
        "parts_s": {name: 1.0 for name, _, _ in PARTS},
        "tokens_per_step": 262144.0,
        "tokens_per_s": between(2e4),
        "tokens_per_s_per_chip": between(312.0),
        "mfu": between(0.4),
        "hfu": between(0.5),
        "memory_bytes": between(7 * 2.0**33),
        "memory_classes_bytes": {name: 2.0**33 for name, _, _ in MEMORY},
        "memory_limit_bytes": 77 * 2.0**30,
        "memory_left_bytes": 21 * 2.0**30,
        "fits": True,
        "ways_to_fit": [],
        "tokens": 1e12,
        "run_s": between(4e6),
        "wall_s": between(5e6),
        "goodput": {"share": 0.8, "source": "a <simulation>"},
        "chip_hours": between(8e4),
        "it_power_w": between(950.0),
        "site_power_w": between(8e4),
        "energy_kwh": between(1.1e5),
        "energy_usd_per_kwh": between(0.08),
        "energy_usd": between(9e3),
        "rent_usd_per_hour": between(2.5),
        "rent_usd": between(2e5),
        "mixed": None,
        "operators": [
            {"name": f"op <{n}>", "phase": "forward", "kind": "matmul", "flops": 1e12, "bytes": 0.0, "seconds": 0.01}
            for n in range(40)
        ]
        + [{"name": "send", "phase": "forward", "kind": "data", "flops": 0.0, "bytes": 1e9, "seconds": 0.02}],
        "constants": [{"name": "c", "value": 0.8, "source": "<s>", "meaning": "m"}],
        "calibration": None,
        "caution": None,
        "assumptions": [("power", "1 W", "a <source>")],
    } | changes


def test_a_prediction_has_its_page() -> None:
    text = _check(twin_page(told()))
    for expected in ("13.0 s", "40.0 %", "of 77.0 GiB: fits", "pipeline bubble", "100 TFLOP/s", "16 smaller ones"):
        assert expected in text
    assert "a <source>" in text
    assert "80.0 % of the time trains (a <simulation>)" in text


def test_what_does_not_fit_is_told_with_ways() -> None:
    ways = [{"change": "recompute <all>", "memory_bytes": 2.0**36}]
    text = _check(twin_page(told(fits=False, memory_left_bytes=-(2.0**33), ways_to_fit=ways)))
    assert "8.00 GiB are missing" in text
    assert "recompute <all>" in text


def test_what_is_not_known_is_left_out() -> None:
    unknown = {"energy_kwh": None, "energy_usd": None, "rent_usd": None, "it_power_w": None, "site_power_w": None}
    page = told(**unknown, goodput=None)
    _check(twin_page(page))
    assert [row[0] for row in run_rows(page)] == ["at full speed", "goodput", "GPU-hours"]
    assert [tile.label for tile in tiles(page)] == ["Step", "Tokens/s", "MFU", "Memory", "Run"]


def test_mixed_chips_have_their_table() -> None:
    mixed = {
        "step_s": {"h100-sxm": 13.0, "h200-sxm": 11.0},
        "counts": {"h100-sxm": 48, "h200-sxm": 16},
        "pace": "h100-sxm",
        "balanced_s": 12.5,
        "gain": 0.038,
    }
    text = _check(twin_page(told(mixed=mixed)))
    assert "sets the pace" in text
    assert "would save 3.8 %" in text


def test_colours_of_pieces_are_all_different() -> None:
    for table in (PARTS, MEMORY):
        colours = [colour for _, _, colour in table]
        assert len(set(colours)) == len(colours)


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=13), st.floats(1e-6, 1e13), st.sampled_from([340, 560, 1128]))
def test_pieces_lie_side_by_side_inside_the_frame(values: list[float], limit: float, width: int) -> None:
    pieces = [Piece(f"p{n}", value, n) for n, value in enumerate(values)]
    total = sum(values)
    svg = stacked_bar(
        "t", pieces, show=fmt.byte_size, limit=(limit, "limit"), ends=(0.9 * total, 1.1 * total), width=width
    )
    if not total > 0:
        assert "no data yet" in svg
        return
    boxes = re.findall(r'</title><rect class="k\d+" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)
    assert len(boxes) == sum(value > 0 for value in values)
    ends = [float(left) + float(wide) for left, wide in boxes]
    assert all(float(left) >= 14 for left, _ in boxes)
    assert all(end <= width for end in ends)
    assert max(float(x) for x in re.findall(r'class="limit" d="M([\d.]+)', svg)) <= width


def test_a_search_has_its_page_and_its_map() -> None:
    gib = 2.0**30
    searched = {
        "name": "mine",
        "lead": "all <layouts>",
        "limit_bytes": 77 * gib,
        "sample": [(n * gib, 1e3 * n) for n in range(1, 400)],
        "front": [(10 * gib, 2e4), (70 * gib, 9e4)],
        "best": [(70 * gib, 9e4)],
        "tiles": [("Fastest", "9", "note")],
        "ranking": (("layout", "step"), [("tensor 8", "1 s")]),
        "neighbours": (("change", "why"), [("tensor 4", "does <not> fit")]),
        "lines": "[layout]\nmodel = 8\n",
    }
    page = search_page(searched)
    text = _check(page)
    assert "does <not> fit" in text
    assert 'class="limit"' in page
    assert "the fastest that fit (1)" in text
    _check(search_page(searched | {"sample": [], "front": [], "best": [], "ranking": ((), []), "lines": ""}))


@pytest.mark.parametrize(
    ("value", "words"), [(21.31, "21.3 s"), (0.31, "310 ms"), (4.1e-5, "41.0 us"), (0.0, "0 s"), (0.9999, "1.00 s")]
)
def test_seconds(value: float, words: str) -> None:
    assert seconds(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(5.85e6, "67.7 d"), (7600.0, "2.11 h"), (510.0, "8.50 min"), (31.0, "31.0 s")]
)
def test_lengths(value: float, words: str) -> None:
    assert length(value) == words


def test_money() -> None:
    assert (usd(83.2), usd(4.123e6), usd(2.5e9)) == ("83 $", "4.12 M$", "2.50 G$")
