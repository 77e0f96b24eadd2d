"""Failures, spares and lost work: published numbers (P5, P6) and laws."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

from gigafactory.errors import UserError
from gigafactory.factory.catalog import fabric
from gigafactory.factory.load import parse_factory
from gigafactory.site.spares import (
    best_interval_s,
    failures_by_cause,
    first_failure_s,
    hardware_spread,
    lost_chip_days,
    rebuilt_chip_days,
    spares,
)

YEAR_S = 365 * 86400.0
LLAMA = '[[cluster.chips]]\nname = "h100-sxm"\ncount = 16384\n'


def test_p5_the_first_of_very_many_links_fails_within_the_hour() -> None:
    mttf = fabric("spectrum-x-400g").link_mttf_s
    assert mttf is not None
    assert mttf.value == 5 * YEAR_S
    assert first_failure_s(100_000, mttf.value) / 60 == pytest.approx(26.28)
    assert round(first_failure_s(50_000, 4 * YEAR_S) / 60, 2) == 42.05
    assert first_failure_s(0, YEAR_S) == math.inf


def test_p6_a_checkpoint_interval_of_a_large_cluster_is_many_chip_days() -> None:
    assert lost_chip_days(100_000, 99 * 2) == pytest.approx(229, rel=0.01)


def test_memory_from_a_replica_costs_a_step_and_the_copy() -> None:
    """2.3 GPU-days for a step of 2 s, 1.85 for 80 GB over 400 Gb/s, which takes 1.6 s."""
    copy = lost_chip_days(100_000, 80e9 / 50e9)
    assert 80e9 / 50e9 == 1.6
    assert lost_chip_days(100_000, 2) == pytest.approx(2.3, rel=0.01)
    assert copy == pytest.approx(1.85, rel=0.01)
    assert rebuilt_chip_days(100_000, 2, 80e9, 50e9) == pytest.approx(2.3 + 1.85, rel=0.01)


def test_failures_of_the_llama_3_cluster_come_back() -> None:
    """363 of hardware and 56 of software in 54 days, on as many chips."""
    found = failures_by_cause(parse_factory(LLAMA, "x.toml", ()))
    by_cause = {rate.cause: rate.per_day for rate in found}
    assert sum(by_cause.values()) * 54 == pytest.approx(363 + 56, rel=0.01)
    assert by_cause["gpu"] * 54 == pytest.approx(148, rel=0.01)
    assert next(iter(by_cause)) == "gpu"


def test_the_published_fleets_span_the_chosen_one() -> None:
    spread = hardware_spread(parse_factory(LLAMA, "x.toml", ()))
    assert spread.p10 < spread.p50 < spread.p90
    twice = hardware_spread(parse_factory(LLAMA, "x.toml", ("supervise.simulate.rate_factor=2",)))
    assert twice.p50 == pytest.approx(2 * spread.p50)


@given(st.floats(0, 500), st.floats(0.01, 30), st.floats(1e-4, 0.5))
def test_spares_are_the_fewest_that_hold_the_promise(per_day: float, days: float, stockout: float) -> None:
    count = spares(per_day, days, stockout)
    assert poisson.sf(count, per_day * days) <= stockout * (1 + 1e-6) + 1e-12
    if count:
        assert poisson.sf(count - 1, per_day * days) >= stockout * (1 - 1e-6)
    assert spares(2 * per_day, days, stockout) >= count
    assert spares(per_day, days, stockout / 2) >= count


def test_no_spares_without_failures_and_no_certainty() -> None:
    assert spares(0, 5, 0.01) == 0
    with pytest.raises(UserError, match="must be above 0"):
        spares(1, 1, 0)


@given(st.floats(0.01, 100), st.floats(0.01, 1000))
def test_the_best_interval_loses_least(save_s: float, per_day: float) -> None:
    best = best_interval_s(save_s, per_day)

    def lost(interval: float) -> float:
        return save_s / interval + per_day / 86400 * interval / 2

    assert lost(best) <= min(lost(best * 0.9), lost(best * 1.1))
