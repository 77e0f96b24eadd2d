"""Intervals of independent factors."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.factory.catalog import Fact
from gigafactory.twin.ranges import Range, exactly, of_fact, per, plus, times

POSITIVE = st.floats(1e-3, 1e6)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    value = draw(POSITIVE)
    return Range(value, value / draw(st.floats(1, 10)), value * draw(st.floats(1, 10)))


def test_a_certain_factor_moves_the_ends_with_the_value() -> None:
    product = times(Range(2.0, 1.0, 8.0), exactly(3.0))
    assert (product.value, product.low, product.high) == pytest.approx((6.0, 3.0, 24.0))


def test_two_equal_uncertainties_make_one_wider_by_the_root_of_two() -> None:
    product = times(Range(1.0, 0.5, 2.0), Range(1.0, 0.5, 2.0))
    assert product.high == pytest.approx(2.0 ** math.sqrt(2.0))
    assert product.low == pytest.approx(0.5 ** math.sqrt(2.0))
    total = plus(Range(10.0, 7.0, 14.0), Range(10.0, 6.0, 13.0))
    assert (total.value, total.low, total.high) == pytest.approx((20.0, 15.0, 25.0))


def test_what_is_free_costs_nothing_and_what_may_be_free_may_cost_nothing() -> None:
    assert times(Range(2.0, 1.0, 4.0), exactly(0.0)) == exactly(0.0)
    perhaps = times(Range(2.0, 1.0, 4.0), Range(1.0, 0.0, 2.0))
    assert (perhaps.value, perhaps.low) == (2.0, 0.0)


@given(ranges(), ranges())
def test_the_product_is_no_surer_than_a_factor_and_no_wilder_than_both(one: Range, other: Range) -> None:
    product = times(one, other)
    assert product.low <= product.value * (1 + 1e-9)
    assert product.value <= product.high * (1 + 1e-9)
    assert product.high / product.value >= max(one.high / one.value, other.high / other.value) * (1 - 1e-9)
    assert product.high <= one.high * other.high * (1 + 1e-9)
    assert product.low >= one.low * other.low * (1 - 1e-9)


@given(ranges(), POSITIVE)
def test_a_rate_turns_round_its_ends(rate: Range, amount: float) -> None:
    found = per(amount, rate)
    assert found.low * rate.high == pytest.approx(amount)
    assert found.high * rate.low == pytest.approx(amount)


def test_a_fact_without_ends_is_certain() -> None:
    assert of_fact(Fact(value=3.0, source="x")) == exactly(3.0)
    assert of_fact(Fact(value=3.0, low=1.0, high=4.0, source="x")) == Range(3.0, 1.0, 4.0)
