"""Durations have the quantiles that were given, and do not depend on who else asks."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.factory import catalog
from gigafactory.factory.supervise import SimulateSection
from gigafactory.supervise.simulation.durations import Z90, Z99, Durations, Quantiles, from_measurement

SECTION = SimulateSection()


def test_draws_have_the_catalogues_quantiles() -> None:
    drawn = Durations(SECTION, chips=8, seed=1)
    for name, entry in catalog.durations().items():
        if entry.growth is None:
            values = [drawn.draw(name) for _ in range(4000)]
            cuts = statistics.quantiles(values, n=10)
            assert cuts[4] == pytest.approx(entry.p50_s.value, rel=0.25), name
            assert cuts[8] == pytest.approx(entry.p90_s.value, rel=0.35), name


@pytest.mark.parametrize(("chips", "published_s"), [(2048, 454), (4096, 545), (8192, 635), (16384, 768)])
def test_a_requeue_takes_what_byterobust_measured(chips: int, published_s: float) -> None:
    assert Durations(SECTION, chips=chips, seed=0).at("requeue", 0.5) == pytest.approx(published_s, rel=0.02)


def test_the_factory_files_own_durations_win() -> None:
    own = SimulateSection.model_validate({"durations": {"probe": {"p10": 2, "p50": 5, "p90": 50}, "form": 7}})
    drawn = Durations(own, chips=100_000, seed=0)
    assert [drawn.at("probe", share) for share in (0.1, 0.5, 0.9)] == pytest.approx([2, 5, 50])
    assert drawn.draw("form") == pytest.approx(7)


def test_each_name_has_a_stream_of_its_own() -> None:
    alone, busy = Durations(SECTION, chips=8, seed=5), Durations(SECTION, chips=8, seed=5)
    first = [alone.draw("spawn") for _ in range(5)]
    second = []
    for _ in range(5):
        busy.draw("probe")
        second.append(busy.draw("spawn"))
    assert first == second
    assert first != [Durations(SECTION, chips=8, seed=6).draw("spawn") for _ in range(5)]


@given(
    p50=st.floats(0.01, 1e5),
    below=st.floats(1.0, 50.0),
    above=st.floats(1.0, 50.0),
    tail=st.floats(1.0, 50.0),
    scores=st.lists(st.floats(-5, 5), min_size=2, max_size=8),
)
def test_quantiles_go_through_what_is_known_and_never_fall(
    p50: float, below: float, above: float, tail: float, scores: list[float]
) -> None:
    curve = Quantiles.of(p10_s=p50 / below, p50_s=p50, p90_s=p50 * above, p99_s=p50 * above * tail)
    assert curve.at(0.0) == pytest.approx(p50)
    assert curve.at(Z90) == pytest.approx(p50 * above)
    assert curve.at(Z99) == pytest.approx(p50 * above * tail)
    assert curve.at(-Z90) == pytest.approx(max(p50 / below, 1e-3))
    values = [curve.at(score) for score in sorted(scores)]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(values))


def test_measured_phases_become_durations() -> None:
    spread = {"p50": 0.4, "p90": 1.6, "p99": 3.0, "max": 3.0, "mean": 0.6}
    kinds = {"all": {"detect_s": spread, "form_s": spread}, "crash": {"detect_s": spread, "form_s": None}}
    found = from_measurement({"kinds": kinds})
    assert set(found) == {"seen-exit"}
    assert (found["seen-exit"].p10, found["seen-exit"].p50, found["seen-exit"].p90) == pytest.approx((0.1, 0.4, 1.6))
    section = SimulateSection(durations=found)
    assert Durations(section, chips=8, seed=0).at("seen-exit", 0.9) == pytest.approx(1.6)


def test_unknown_names_are_told() -> None:
    with pytest.raises(ValueError, match=r"durations\.form-wrld: unknown; did you mean 'form"):
        SimulateSection.model_validate({"durations": {"form-wrld": 3}})
    with pytest.raises(ValueError, match=r"facts\.lemons: unknown"):
        SimulateSection.model_validate({"facts": {"lemons": 3}})
