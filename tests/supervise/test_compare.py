"""Who is slow, whose copies differ: laws of the comparison."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from gigafactory.supervise.runtime.compare import STRAGGLER_STEPS, minority_of, straggler


def test_a_straggler_is_who_makes_steps_longer_for_most_of_them() -> None:
    chance = random.Random(0)
    own_s = {f"w{n}": [0.1 * chance.uniform(0.9, 1.1) for _ in range(STRAGGLER_STEPS)] for n in range(4)}
    assert straggler(own_s, [0.2] * STRAGGLER_STEPS, 1.3) is None
    own_s["w2"] = [time_s + 0.3 for time_s in own_s["w2"]]
    found = straggler(own_s, [0.5] * STRAGGLER_STEPS, 1.3)
    assert found is not None
    assert found[0] == "w2"
    assert 2.3 < found[1] < 2.7  # steps of 0.2 s take 0.5 s


def test_a_short_burst_or_what_takes_no_time_of_the_step_is_no_straggler() -> None:
    usual = [0.1] * STRAGGLER_STEPS
    burst = [5.0] * (STRAGGLER_STEPS // 2) + [0.1] * (STRAGGLER_STEPS - STRAGGLER_STEPS // 2)
    assert straggler({"a": usual, "b": usual, "c": burst}, [0.2] * STRAGGLER_STEPS, 1.3) is None
    thrice = [0.003] * STRAGGLER_STEPS
    once = [0.001] * STRAGGLER_STEPS
    assert straggler({"a": once, "b": thrice}, [0.1] * STRAGGLER_STEPS, 1.3) is None
    assert straggler({"a": once}, once, 1.3) is None
    assert straggler({}, [], 1.3) is None


@given(st.floats(1e-3, 10.0), st.integers(2, 6), st.floats(1.5, 20.0))
def test_what_slows_all_slows_nobody_and_the_slowest_is_named(step_s: float, workers: int, factor: float) -> None:
    own_s = {f"w{n}": [0.5 * step_s] * STRAGGLER_STEPS for n in range(workers)}
    assert straggler(own_s, [step_s] * STRAGGLER_STEPS, 1.3) is None
    slow_s = step_s * factor
    own_s["w1"] = [0.5 * step_s + slow_s - step_s] * STRAGGLER_STEPS
    found = straggler(own_s, [slow_s] * STRAGGLER_STEPS, 1.3)
    if workers > 2:
        assert found is not None
        assert found[0] == "w1"
        assert abs(found[1] - factor) < 1e-6 * factor


def test_the_minority_differs_from_the_most_and_a_tie_blames_nobody() -> None:
    assert minority_of({}) == ()
    assert minority_of({"p@0": {1: ["a", "b", "c"], 2: ["d"]}}) == ("d",)
    assert minority_of({"p@0": {1: ["a"], 2: ["b"]}}) == ()
    assert minority_of({"p@0": {1: ["a", "b"], 2: ["c"]}, "q@0": {5: ["a", "c"], 6: ["b"]}}) == ("b", "c")
    assert minority_of({"p@0": {1: ["a", "b"], 2: ["c"]}, "q@0": {5: ["a"], 6: ["b"]}}) == ()
