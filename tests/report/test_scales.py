"""Tick marks, thinning and smoothing: laws."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.report.scales import linear_ticks, log_ticks, smooth, thin, thin_extremes, time_ticks

spans = st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
ys = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=400)


@given(spans, st.integers(3, 9))
def test_linear_ticks_are_few_even_and_inside(span: tuple[float, float], most: int) -> None:
    low, high = span
    ticks = linear_ticks(low, high, most)
    slack = 1e-6 * (high - low)
    assert 1 <= len(ticks) <= most
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    assert all(math.isclose(gap, gaps[0], rel_tol=1e-6) for gap in gaps)


@given(st.floats(1e-9, 1e6), st.floats(1.001, 1e9), st.integers(3, 8))
def test_log_ticks_are_few_rising_and_inside(low: float, ratio: float, most: int) -> None:
    ticks = log_ticks(low, low * ratio, most)
    assert len(ticks) <= most
    assert ticks == sorted(set(ticks))
    assert all(low * (1 - 1e-6) <= tick <= low * ratio * (1 + 1e-6) for tick in ticks)
    assert ticks


@given(st.floats(0, 1e9), st.integers(2, 9))
def test_time_ticks_are_few_whole_and_inside(high_s: float, most: int) -> None:
    ticks = time_ticks(high_s, most)
    assert 1 <= len(ticks) <= most + 1
    assert ticks[0] == 0
    assert ticks[-1] <= high_s * (1 + 1e-6)
    assert all(tick == int(tick) for tick in ticks)


def test_ticks_that_people_read_easily() -> None:
    assert linear_ticks(0, 860, 6) == [0, 200, 400, 600, 800]
    assert log_ticks(1.4, 6.2, 6) == [1.5, 2, 3, 4, 5]
    assert time_ticks(180, 7) == [0, 30, 60, 90, 120, 150, 180]
    assert time_ticks(5 * 86400, 6) == [0, 86400, 2 * 86400, 3 * 86400, 4 * 86400, 5 * 86400]


@given(ys, st.integers(2, 50))
def test_thinning_keeps_ends_and_extremes(values: list[float], most: int) -> None:
    points = [(float(index), value) for index, value in enumerate(values)]
    even, extreme = thin(points, most), thin_extremes(points, most)
    assert max(len(even), len(extreme)) <= most
    assert (even[0], even[-1]) == (points[0], points[-1])
    assert {min(values), max(values)} <= {y for _, y in extreme}
    for kept in (even, extreme):
        assert set(kept) <= set(points)
        assert kept == sorted(kept)


@given(ys, st.floats(0, 100))
def test_smoothing_stays_within_the_data(values: list[float], half_life: float) -> None:
    points = [(float(index), value) for index, value in enumerate(values)]
    smoothed = smooth(points, half_life)
    assert [x for x, _ in smoothed] == [x for x, _ in points]
    assert all(min(values) - 1e-6 <= y <= max(values) + 1e-6 for _, y in smoothed)


@pytest.mark.parametrize("half_life", [0.0, 3.0])
def test_smoothing_leaves_a_constant_alone_and_calms_noise(half_life: float) -> None:
    assert smooth([(0, 2.0), (1, 2.0), (2, 2.0)], half_life) == [(0, 2.0), (1, 2.0), (2, 2.0)]
    noisy = [(float(index), float((-1) ** index)) for index in range(200)]
    swing = max(abs(y) for _, y in smooth(noisy, half_life)[100:])
    assert swing == 1.0 if half_life == 0 else swing < 0.2
