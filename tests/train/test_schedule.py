"""The learning-rate factor against its closed formulas, and the laws it keeps for any settings."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.factory.training import OptimizerSection
from gigafactory.train.schedule import schedule_factor


def factors(section: OptimizerSection, total: int) -> np.ndarray:
    # always 150 steps: one shape compiles once
    return np.asarray(jax.vmap(lambda step: schedule_factor(section, step, total))(np.arange(150)))[:total]


def test_cosine_is_the_closed_formula() -> None:
    section = OptimizerSection(schedule="cosine", warmup_steps=10, final_fraction=0.1)
    got = factors(section, 110)
    rise = [(step + 1) / 10 for step in range(10)]
    fall = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 10) / 100)) for step in range(10, 110)]
    np.testing.assert_allclose(got, rise + fall, rtol=1e-5)
    assert schedule_factor(section, 110, 110) == pytest.approx(0.1)


def test_wsd_is_flat_then_a_straight_line() -> None:
    section = OptimizerSection(schedule="wsd", warmup_steps=4, decay_fraction=0.25, final_fraction=0.2)
    got = factors(section, 40)
    want = [(step + 1) / 4 for step in range(4)] + [1.0] * 26 + [1 - 0.8 * (step - 30) / 10 for step in range(30, 40)]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_constant_stays_at_the_peak_after_the_warmup() -> None:
    np.testing.assert_allclose(factors(OptimizerSection(schedule="constant", warmup_steps=2), 6), [0.5, 1, 1, 1, 1, 1])


def test_warmup_takes_at_most_half_of_a_short_run() -> None:
    got = factors(OptimizerSection(schedule="cosine", warmup_steps=100, final_fraction=0.0), 10)
    assert got.argmax() in (4, 5)
    assert got[-1] < 0.2


def test_total_steps_may_be_traced() -> None:
    section = OptimizerSection(schedule="wsd")
    traced = jax.jit(lambda step, total: schedule_factor(section, step, total))
    for total in (50, 400, 1000):
        assert traced(total - 3, total) == pytest.approx(float(schedule_factor(section, total - 3, total)), rel=1e-6)


SECTIONS = st.builds(
    OptimizerSection,
    schedule=st.sampled_from(["cosine", "wsd", "constant"]),
    warmup_steps=st.integers(0, 60),
    decay_fraction=st.floats(0, 1),
    final_fraction=st.floats(0, 1),
)


@settings(deadline=None, max_examples=60)
@given(section=SECTIONS, total=st.sampled_from([1, 2, 7, 64, 150]))
def test_rises_then_never_rises_again_and_stays_within_bounds(section: OptimizerSection, total: int) -> None:
    got = factors(section, total)
    warmup = min(section.warmup_steps, total // 2)
    assert np.all(got > 0) or section.final_fraction == 0
    assert np.all((got >= 0) & (got <= 1 + 1e-6))
    assert np.all(np.diff(got[:warmup]) > 0)
    assert np.all(np.diff(got[warmup:]) <= 1e-6)
    assert np.all(got[warmup:] >= section.final_fraction - 1e-6)


@settings(deadline=None, max_examples=30)
@given(section=SECTIONS, total=st.sampled_from([2, 64, 150]))
def test_ends_at_the_final_share(section: OptimizerSection, total: int) -> None:
    ends_low = section.schedule == "cosine" or (section.schedule == "wsd" and section.decay_fraction * total >= 1)
    want = section.final_fraction if ends_low else 1.0
    if section.schedule != "wsd" or ends_low or section.decay_fraction == 0:
        assert schedule_factor(section, total, total) == pytest.approx(want, abs=1e-5)
