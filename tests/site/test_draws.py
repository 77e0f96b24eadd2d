"""Spreads as draws: through the three percentiles, rising, never below zero, one stream per name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from gigafactory.factory.quantity import Spread
from gigafactory.site.draws import Draws, quantile

POINTS = np.array([0.1, 0.5, 0.9])
RANKS = np.linspace(1e-4, 1 - 1e-4, 4001)


def spread(low: float, first: float, second: float) -> Spread:
    return Spread(p10=low, p50=low + first, p90=low + first + second)


STEPS = st.floats(0.01, 1e6)
ANY = st.builds(spread, st.floats(-1e6, 1e6), st.one_of(st.just(0.0), STEPS), st.one_of(st.just(0.0), STEPS))


@given(ANY)
def test_goes_through_its_percentiles_and_rises(given_: Spread) -> None:
    assert quantile(given_, POINTS) == pytest.approx([given_.p10, given_.p50, given_.p90], rel=1e-9, abs=1e-6)
    values = quantile(given_, RANKS)
    size = max(abs(given_.p10), abs(given_.p90))
    assert np.all(np.diff(values) >= -1e-12 * size)
    assert np.all(np.isfinite(values))
    if given_.p10 >= 0:
        assert values.min() >= 0


@given(st.builds(spread, st.floats(0.01, 1e3), st.floats(0.01, 1e3), st.floats(0.01, 1e3)))
def test_rises_strictly_where_the_percentiles_differ(given_: Spread) -> None:
    assert np.all(np.diff(quantile(given_, RANKS)) > 0)


@pytest.mark.parametrize(
    "given_", [Spread(p10=5, p50=17, p90=53), Spread(p10=0, p50=2, p90=8), Spread(p10=-3, p50=0, p90=9)]
)
def test_is_smooth(given_: Spread) -> None:
    """No kink at the median: the slope on both sides of it is the same."""
    around = quantile(given_, np.array([0.5 - 2e-4, 0.5 - 1e-4, 0.5 + 1e-4, 0.5 + 2e-4]))
    left, right = around[1] - around[0], around[3] - around[2]
    assert left == pytest.approx(right, rel=1e-2)


def test_a_certain_number_is_one_value() -> None:
    assert set(Draws(50, 1).of("x", Spread(p10=3, p50=3, p90=3))) == {3.0}


def test_streams_depend_on_seed_and_name_alone() -> None:
    one, other = Draws(1000, 1), Draws(1000, 1, {"b": 2.0})
    assert np.array_equal(one.uniform("a"), other.uniform("a"))
    assert not np.array_equal(one.uniform("a"), one.uniform("b"))
    assert not np.array_equal(one.uniform("a"), Draws(1000, 2).uniform("a"))
    assert set(other.of("b", Spread(p10=0, p50=1, p90=5))) == {2.0}
    assert abs(np.corrcoef(one.uniform("a"), one.uniform("b"))[0, 1]) < 0.1


def test_draws_fill_the_ranks_evenly() -> None:
    values = Draws(1000, 3).of("x", Spread(p10=1, p50=4, p90=30))
    assert (values < 1).sum() == 100
    assert (values < 4).sum() == 500
    assert (values < 30).sum() == 900


@given(st.floats(0, 0.99))
@settings(max_examples=20, deadline=None)
def test_an_opposed_input_keeps_its_spread_and_is_low_where_the_other_is_high(correlation: float) -> None:
    spread, draws = Spread(p10=1, p50=3, p90=9), Draws(4000, 2)
    found = draws.of("a", spread, ("b", correlation))
    assert np.quantile(found, [0.1, 0.5, 0.9]) == pytest.approx([1, 3, 9], rel=0.12)
    other = draws.of("b", spread)
    assert spearmanr(found, other).statistic == pytest.approx(-6 / np.pi * np.arcsin(correlation / 2), abs=0.06)
    held = Draws(4000, 2, {"b": 3.0})
    assert (held.of("a", spread, ("b", correlation)) == draws.of("a", spread)).all()
