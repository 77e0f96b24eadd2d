"""The fit finds constants that are known, holds out against outliers, and keeps what the runs do not tell."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.twin import calibrate
from gigafactory.twin.case import Array, Cases, Machine, Network, Plan, Software, Work
from gigafactory.twin.constants import Constant, Constants

NAMES = ("fast", "slow", "start_s", "unused")
TRUE = Constants({"fast": 1.3, "slow": 0.6, "start_s": 0.2, "unused": 1.0})


def constant(name: str, value: float = 1.0, spread: float = 0.7) -> Constant:
    return Constant(name, value, 0.01, 100.0, value, spread, source="a test", meaning="a test")


CONSTANTS = {name: constant(name) for name in NAMES}


def predict(cases: Cases, c: Constants) -> Array:
    """Two kinds of work at two speeds, behind a fixed start."""
    return c.start_s + cases.network.hidden / c.fast + cases.network.ffn / c.slow


def some_cases(count: int, seed: int = 0) -> Cases:
    random = np.random.default_rng(seed)
    hidden, ffn = random.uniform(0.05, 3.0, (2, count))
    machine = Machine(9.0, 1e15, 1e15, 132.0, 80e9, 3e12, 8.0, 450e9, 50e9)
    network = Network(layers=1.0, hidden=hidden, heads=1.0, kv_heads=1.0, head_dim=1.0, ffn=ffn, vocab=1.0)
    return Cases(network, Plan(), Work(1.0, 1.0, 1.0), machine, Software())


@settings(max_examples=25, deadline=None)
@given(
    fast=st.floats(0.3, 3.0),
    slow=st.floats(0.3, 3.0),
    start_s=st.floats(0.1, 2.0),
    noise=st.floats(0.0, 0.03),
    wrong=st.integers(0, 15),
    seed=st.integers(0, 99),
)
def test_known_constants_are_found_through_noise_and_outliers(
    fast: float, slow: float, start_s: float, noise: float, wrong: int, seed: int
) -> None:
    cases, random = some_cases(100, seed), np.random.default_rng(1000 + seed)
    truth = TRUE.replace(fast=fast, slow=slow, start_s=start_s)
    measured = predict(cases, truth) * np.exp(random.laplace(0.0, 1.0, 100) * noise)
    measured[:wrong] *= random.choice([0.4, 2.5, 4.0], wrong)
    found = calibrate.fit(cases, measured, predict, CONSTANTS)
    for name in ("fast", "slow", "start_s"):
        allowed = 0.03 + 4.0 * found.sigma[name]
        assert abs(math.log(found.constants[name] / truth[name])) < allowed, name
    assert found.silent == ("unused",)
    assert found.at_bound == ()
    assert found.constants["unused"] == CONSTANTS["unused"].value
    assert np.median(np.abs(found.residual)) <= 1.5 * noise + 0.005


def test_sigma_says_how_far_off_the_constants_are() -> None:
    """Over many noisy tables the errors in units of sigma have a standard deviation near 1."""
    deviations = []
    for seed in range(60):
        cases, random = some_cases(60, seed), np.random.default_rng(1000 + seed)
        measured = predict(cases, TRUE) * np.exp(random.laplace(0.0, 0.05, 60))
        found = calibrate.fit(cases, measured, predict, CONSTANTS)
        deviations += [math.log(found.constants[name] / TRUE[name]) / found.sigma[name] for name in ("fast", "slow")]
    assert 0.7 < np.std(deviations) < 1.3


def test_outliers_count_by_size_not_by_square() -> None:
    cases = some_cases(40)
    measured = predict(cases, TRUE)
    spoiled = measured.copy()
    spoiled[::10] *= 3.0
    clean, robust = (calibrate.fit(cases, one, predict, CONSTANTS) for one in (measured, spoiled))
    assert clean.error < 1e-3
    assert np.abs(np.delete(robust.residual, np.arange(0, 40, 10))).max() < 0.03
    assert robust.residual[0] == pytest.approx(math.log(3.0), abs=0.03)


def test_one_run_moves_little_and_by_prior() -> None:
    """A firm prior stays, a loose one gives way: one run cannot tell which constant is off."""
    cases = some_cases(1)
    constants = CONSTANTS | {"fast": constant("fast", 1.0, 0.01), "slow": constant("slow", 1.0, 0.5)}
    measured = 1.5 * predict(cases, Constants({name: one.value for name, one in constants.items()}))
    found = calibrate.fit(cases, measured, predict, constants)
    assert abs(math.log(found.constants["fast"])) < 0.02
    assert found.constants["slow"] < 0.9
    assert found.residual[0] < math.log(1.5)


def test_a_bound_holds_and_is_told() -> None:
    cases = some_cases(50)
    constants = CONSTANTS | {"fast": dataclasses.replace(CONSTANTS["fast"], high=1.1)}
    found = calibrate.fit(cases, predict(cases, TRUE), predict, constants)
    assert found.constants["fast"] <= 1.1
    assert found.at_bound == ("fast",)


def test_further_starts_find_a_better_end() -> None:
    """Two valleys: without further starts the fit stays in the one where it begins."""

    def folded(cases: Cases, c: Constants) -> Array:
        depth = np.where(np.log(c.fast) > 0, 0.0, 0.3)
        return cases.network.hidden * np.exp(depth + np.abs(np.abs(np.log(c.fast)) - 1.0))

    cases = some_cases(30)
    constants = {"fast": constant("fast", 0.8, 3.0)}
    measured = folded(cases, Constants({"fast": math.e}))
    near = calibrate.fit(cases, measured, folded, constants)
    best = calibrate.fit(cases, measured, folded, constants, starts=calibrate.draws(constants, 8))
    assert near.constants["fast"] == pytest.approx(1 / math.e, rel=0.05)
    assert best.constants["fast"] == pytest.approx(math.e, rel=0.05)
    assert best.error < 0.01 < near.error


def test_rows_of_no_weight_do_not_count() -> None:
    cases = some_cases(40)
    measured = predict(cases, TRUE)
    weights = np.ones(40)
    weights[:10] = 0.0
    measured[:10] *= 2.0
    found = calibrate.fit(cases, measured, predict, CONSTANTS, weights=weights)
    assert np.abs(found.residual[10:]).max() < 0.01


def test_left_out_runs_are_predicted_by_a_fit_without_them() -> None:
    """A group that follows other constants is predicted badly when it is left out, and well when it is not."""
    cases = some_cases(60)
    groups = np.array(["a", "b", "c"]).repeat(20)
    measured = predict(cases, TRUE)
    measured[groups == "c"] = predict(cases, TRUE.replace(fast=0.4))[groups == "c"]
    full = calibrate.fit(cases, measured, predict, CONSTANTS)
    left_out = calibrate.leave_out(cases, measured, predict, CONSTANTS, groups, full=full)
    error = np.abs(np.log(measured / left_out))
    only = np.flatnonzero(groups != "c")
    alone = calibrate.fit(
        dataclasses.replace(
            cases,
            network=dataclasses.replace(cases.network, hidden=cases.network.hidden[only], ffn=cases.network.ffn[only]),
        ),
        measured[only],
        predict,
        CONSTANTS,
    )
    assert left_out[groups == "c"] == pytest.approx(predict(cases, alone.constants)[groups == "c"], rel=0.03)
    assert error[groups == "c"].mean() > 0.1
    with pytest.raises(ValueError, match="one group"):
        calibrate.leave_out(cases, measured, predict, CONSTANTS, np.zeros(60), full=full)


def test_releases_of_one_layout_stay_in_one_part() -> None:
    cases = some_cases(12)
    hidden, ffn = (np.repeat(getattr(cases.network, name)[:6], 2) for name in ("hidden", "ffn"))
    cases = cases.replace(hidden=hidden, ffn=ffn, months=np.arange(12.0))
    labels = calibrate.same_layout(cases)
    assert len(set(labels)) == 6
    assert np.array_equal(labels[::2], labels[1::2])
    parts = calibrate.folds(labels, 3, seed=4)
    assert np.array_equal(parts[::2], parts[1::2])
    assert set(parts) == {0, 1, 2}
    assert np.array_equal(parts, calibrate.folds(labels, 3, seed=4))


def test_a_layout_measured_often_counts_as_the_root_of_its_runs() -> None:
    """Nine batches of one layout and one of another: 3 against 1."""
    cases = some_cases(10)
    hidden = np.where(np.arange(10) < 9, 1.0, 2.0)
    cases = cases.replace(hidden=hidden, ffn=1.0, global_rows=np.arange(1.0, 11.0), data=np.arange(1.0, 11.0))
    weights = calibrate.balance(cases)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[:9].sum() / weights[9] == pytest.approx(3.0)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_measurement_is_refused(wrong: float) -> None:
    cases = some_cases(5)
    measured = predict(cases, TRUE)
    measured[3] = wrong
    with pytest.raises(ValueError, match="measurement 3"):
        calibrate.fit(cases, measured, predict, CONSTANTS)


def test_priors_of_one_machine_are_the_fitted_values() -> None:
    fitted = dataclasses.replace(CONSTANTS["fast"], value=1.3, sigma=0.02)
    unknown = dataclasses.replace(CONSTANTS["slow"], sigma=0.7)
    believed = calibrate.of_one_machine({"fast": fitted, "slow": unknown})
    assert believed["fast"].prior == 1.3
    assert believed["fast"].spread == pytest.approx(math.hypot(0.02, calibrate.MACHINE_SPREAD))
    assert believed["slow"].spread == 0.7
