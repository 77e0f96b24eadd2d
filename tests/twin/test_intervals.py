"""Intervals cover what they promise on runs that neither the fit nor the width has seen, and narrow honestly."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.twin import calibration, intervals, widths
from gigafactory.twin.case import Cases, Machine, Network, Plan, Software, Work
from gigafactory.twin.intervals import Width
from gigafactory.twin.prediction import PARTS, StepTime


def one_case(**fields: float) -> Cases:
    machine = Machine(9.0, 1e15, 2e15, 132.0, 80e9, 3e12, 8.0, 450e9, 50e9)
    network = Network(layers=8.0, hidden=64.0, heads=4.0, kv_heads=4.0, head_dim=16.0, ffn=256.0, vocab=100.0)
    return Cases(network, Plan(), Work(128.0, 1.0, 8.0), machine, Software()).replace(**fields)


def step(**parts: float) -> StepTime:
    """Of a second, what is not named is matmul."""
    shares = dict.fromkeys(PARTS, 0.0) | parts
    shares["matmul"] = 1.0 - sum(parts.values())
    return StepTime(1.0, shares, 1e12, 1e12)


def some_runs(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features, and errors that are twice as large for mixtures and heavy-tailed."""
    random = np.random.default_rng(seed)
    features = {
        "all": np.ones(count),
        "mixture": random.integers(0, 2, count).astype(float),
        "communication": random.uniform(0.0, 0.5, count),
    }
    size = 0.03 * np.exp(0.7 * features["mixture"] + features["communication"])
    return features, size * random.standard_t(3.0, count)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_the_promised_share_of_new_runs_is_covered(share: float) -> None:
    covered = []
    for seed in range(20):
        features, residual = some_runs(200, seed)
        width = widths.measure_width(features, residual, np.arange(200), "a test")
        new, error = some_runs(500, 1000 + seed)
        covered.append(np.mean(np.abs(error) <= width.reach(new, share)))
    assert share - 0.02 <= np.mean(covered) <= share + 0.03


def test_harder_runs_have_wider_intervals() -> None:
    features, residual = some_runs(400, 0)
    width = widths.measure_width(features, residual, np.arange(400), "a test")
    assert width.weights["mixture"] == pytest.approx(0.7, abs=0.2)
    mixtures = features["mixture"] > 0
    for chosen in (mixtures, ~mixtures):
        reach = width.reach({name: value[chosen] for name, value in features.items()}, 0.8)
        assert 0.7 < np.mean(np.abs(residual[chosen]) <= reach) < 0.9


@settings(max_examples=50, deadline=None)
@given(share=st.floats(0.5, 0.95), more=st.floats(0.0, 0.04), chips=st.sampled_from([1.0, 64.0, 16384.0]))
def test_an_interval_holds_the_prediction_and_grows_with_the_share(share: float, more: float, chips: float) -> None:
    case = one_case(data=chips)
    low, high = intervals.interval(case, step(data_comm=0.1), share)
    wider = intervals.interval(case, step(data_comm=0.1), min(share + more, 0.95))
    assert 0 < wider[0] <= low < 1.0 < high <= wider[1]
    assert low * high == pytest.approx(1.0)


def test_a_share_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        intervals.interval(one_case(), step(), 0.99)


def test_intervals_of_many_cases_have_their_shape() -> None:
    cases = one_case(data=np.array([[1.0, 8.0, 64.0]]), low=np.array([[0.0], [1.0]]))
    width = Width({"all": -3.0, "low": 0.3, "chips": 0.2}, (0.5, 0.95), (1.0, 3.0), 300, "a test")
    low, high = intervals.interval(cases, step(host=0.2), width=width)
    assert low.shape == high.shape == (2, 3)


def shipped_like() -> Width:
    return Width({"all": 0.0}, (0.5, 0.8, 0.95), (0.05, 0.1, 0.2), 300, "a test")


def test_own_runs_narrow_an_interval_only_when_they_are_enough() -> None:
    width = shipped_like()
    few, many = np.full(5, 0.01), np.full(30, 0.01)
    assert widths.of_own_runs(width, {"all": np.ones(5)}, few).factor == 1.0
    assert widths.of_own_runs(width, {"all": np.ones(5)}, few * 30).factor == pytest.approx(3.0)
    assert widths.of_own_runs(width, {"all": np.ones(30)}, many).factor == pytest.approx(0.1)


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 60), share=st.sampled_from([0.5, 0.8, 0.9]))
def test_quantiles_of_few_runs_are_taken_high(count: int, share: float) -> None:
    """The next of n + 1 exchangeable runs lies below with at least the share, where n can tell."""
    values = np.random.default_rng(count).permutation(np.arange(1.0, count + 1.0))
    rank = widths.quantile(values, share)
    assert rank == count or rank / (count + 1) >= share - 1e-9
    assert (rank - 1) / (count + 1) < share


def test_a_calibration_file_scales_the_width(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"constants": {}, "interval": {"step": {"factor": 0.5, "runs": 12}}}))
    own, memory = intervals.load(path)
    assert memory.factor == 1.0
    case, told = one_case(), step(tensor_comm=0.2)
    wide, narrow = (intervals.interval(case, told, width=one) for one in (None, own))
    assert np.log(narrow[1]) == pytest.approx(0.5 * np.log(wide[1]))


@pytest.mark.parametrize("text", ["{", "[]", '{"interval": {"step": {"factor": 0}}}', '{"interval": {"step": 3}}'])
def test_a_file_that_is_no_calibration_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"own\.json") as caught:
        intervals.load(path)
    assert "\n" not in str(caught.value)


def test_what_is_written_to_the_catalogue_reads_back() -> None:
    text = calibration.widths_text({"step": intervals.step_width(), "memory": intervals.memory_width()})
    tables = tomllib.loads(text)
    assert tables["step"]["weights"] == pytest.approx(intervals.step_width().weights, rel=1e-3)
    assert tables["memory"]["quantiles"] == pytest.approx(intervals.memory_width().quantiles, rel=1e-3)
