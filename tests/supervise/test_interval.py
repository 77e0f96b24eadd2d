"""The interval between copies loses the least time: against trying them all, and the published numbers."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.supervise.interval import best_interval_s, expected_stretch, interval_steps

costs_s = st.floats(1e-4, 100.0)
steps_s = st.floats(0.01, 60.0)
failures_s = st.floats(60.0, 1e6)


@given(cost_s=costs_s, step_s=steps_s, failure_s=failures_s)
def test_no_other_interval_is_noticeably_better(cost_s: float, step_s: float, failure_s: float) -> None:
    """Daly's series is not exact: within 0.01 % of the run's time, where a copy costs less than half of it all."""
    chosen = interval_steps(cost_s, step_s, failure_s)
    tried = {*range(1, 200), *(max(1, chosen * percent // 100) for percent in range(20, 500, 5))}
    best = min(expected_stretch(steps, cost_s, step_s, failure_s) for steps in tried)
    assert expected_stretch(chosen, cost_s, step_s, failure_s) <= best * (1.0001 if cost_s < failure_s / 2 else 1.05)


@given(cost_s=costs_s, step_s=steps_s, failure_s=failures_s, at_most=st.integers(1, 1000))
def test_it_keeps_to_the_bounds(cost_s: float, step_s: float, failure_s: float, at_most: int) -> None:
    free = interval_steps(cost_s, step_s, failure_s)
    assert free >= 1
    assert interval_steps(cost_s, step_s, failure_s, at_most=at_most) == min(free, at_most)


@pytest.mark.parametrize(
    ("cost_s", "mean_minutes", "about_s"),
    # Young's rule of thumb for 200,000 GPUs at two published failure rates
    [(0.04, 15.2, 9), (5, 15.2, 95), (60, 15.2, 331), (0.04, 8.9, 7), (5, 8.9, 73), (60, 8.9, 253)],
)
def test_the_usual_sizes(cost_s: float, mean_minutes: float, about_s: float) -> None:
    assert best_interval_s(cost_s, mean_minutes * 60) == pytest.approx(about_s, rel=0.2)


def test_a_copy_that_costs_nearly_nothing_is_taken_each_step() -> None:
    assert interval_steps(0.01, 10.0, 15 * 60) == 1


def test_the_expected_stretch_is_what_happens() -> None:
    """Against running it: failures drawn at random, each throws back to the last copy."""
    cost_s, step_s, failure_s, every = 2.0, 1.0, 60.0, 12
    chance = random.Random(5)
    taken = []
    for _ in range(200):
        clock_s = 0.0
        next_failure_s = chance.expovariate(1 / failure_s)
        done = 0
        while done < 20:
            end_s = clock_s + every * step_s + cost_s
            if next_failure_s < end_s:
                clock_s = next_failure_s
                next_failure_s = clock_s + chance.expovariate(1 / failure_s)
            else:
                clock_s, done = end_s, done + 1
        taken.append(clock_s / (20 * every * step_s))
    expected = expected_stretch(every, cost_s, step_s, failure_s)
    assert statistics.mean(taken) == pytest.approx(expected, rel=0.02)
