"""Load swings: shape and spectrum of the step, laws of what smooths it, pass or fail against limits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.factory.catalog import assumption
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory
from gigafactory.site.smoothing import Means, Wave, needed_battery, smoothed
from gigafactory.site.swings import BANDS_HZ, Swings, energy_shares, swings

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT = 1.67e5  # 10 MW a minute

WAVE = Wave(
    chips=100_000,
    step_s=2.0,
    dips=1,
    dip_s=0.3,
    edge_s=0.1,
    busy=0.9,
    rated_w=70e6,
    work_w=66e6,
    wait_w=30e6,
    idle_w=8e6,
    job_w=100e6,
    checkpoint_s=1.0,
    checkpoint_every_s=600.0,
    allowed_w=3e6,
)


def colossus(*sets: str) -> Factory:
    return load_factory(EXAMPLES / "colossus.toml", sets)


def by_name(found: Swings) -> dict[str, bool]:
    return {option.name: option.passes for option in found.options}


def test_swings_of_colossus_are_tens_of_megawatts_in_the_band_that_was_measured() -> None:
    found = swings(colossus())
    # Tens of MW (Llama 3's report, of a smaller cluster); 0.2 to 3 Hz (arXiv 2508.14318).
    assert 10e6 < found.wave.swing_w < 100e6
    assert 0.2 < found.frequency_hz < 3
    assert found.calm.swing_w < found.wave.swing_w < found.rough.swing_w
    assert found.wave.start_w > found.wave.swing_w
    assert found.watched_share > 0.9
    assert sum(found.energy_share) == pytest.approx(1.0)


def test_the_cluster_of_llama_3_swings_by_about_ten_megawatts() -> None:
    found = swings(load_factory(EXAMPLES / "llama-405b.toml"))
    per_chip_w = found.rough.start_w / found.chips
    assert 24_576 * per_chip_w == pytest.approx(15e6, rel=0.5)  # Google: an AI site swings by 15 MW


def test_the_mean_of_the_wave_is_what_the_twin_says_of_busy_chips() -> None:
    found = swings(colossus())
    wave = found.wave
    mean_w = wave.work_w * (1 - wave.low_share) + wave.wait_w * wave.low_share
    busy = 0.606  # of the twin's step of this file
    waiting = assumption("waiting_power_share").value
    assert mean_w == pytest.approx(wave.rated_w * (busy + waiting * (1 - busy)), rel=0.02)


def test_a_power_cap_makes_swings_smaller() -> None:
    kinds = '[{{name="h100-sxm", count=150000{0}}}, {{name="h200-sxm", count=50000{0}}}]'
    free = swings(colossus("cluster.chips=" + kinds.format("")))
    capped = swings(colossus("cluster.chips=" + kinds.format(", power_cap_w=500")))
    assert capped.wave.swing_w < free.wave.swing_w
    assert capped.wave.job_w < free.wave.job_w


def test_pass_or_fail_follows_the_limit_of_the_file() -> None:
    strict = swings(colossus())
    assert not strict.limit_given
    assert not strict.passes
    assert strict.best is not None
    assert strict.best.name == "site-battery"
    loose = swings(colossus("site.ramp_limit_w_per_s=1e10"))
    assert loose.limit_given
    assert loose.passes
    assert "site.ramp_limit_w_per_s" in " ".join(loose.sentences())
    assert swings(colossus("site.swing_limit_w=2e8")).passes


def test_without_batteries_the_cheapest_that_passes_is_named_with_its_price() -> None:
    found = swings(colossus("site.power=[]"))
    assert found.best is not None
    assert found.best.name == "new-battery"
    assert found.best.once_usd.low > 0
    names = by_name(found)
    assert names["filler"]
    assert not names["power-cap"]
    assert "power-floor" not in names  # no chip of this site has one
    filler = next(option for option in found.options if option.name == "filler")
    assert filler.year_usd.value > 0
    assert filler.speed.value < 1
    costs = [option.cost_per_year_usd for option in found.options if option.passes]
    assert costs == sorted(costs)


def test_gb300_has_a_floor_and_storage_in_its_racks() -> None:
    chips = 'cluster.chips=[{name="gb300-nvl72", count=196608}]'
    found = swings(colossus(chips, "site.power=[]", "cluster.node.chips=4", "cluster.node.nics=4"))
    names = by_name(found)
    assert {"power-floor", "rack-storage"} <= names.keys()
    racks = next(option for option in found.options if option.name == "rack-storage")
    assert racks.means.storage_j == 65 * 196_608
    assert racks.left.step_w < found.rough.swing_w
    assert not racks.left.start_passes  # 65 J a chip carry no ramp of minutes
    floor = next(option for option in found.options if option.name == "power-floor")
    assert floor.left.start_passes


def test_a_lab_swings_too_little_for_a_grid_to_mind() -> None:
    assert swings(load_factory(EXAMPLES / "llama-8b.toml")).passes


def test_what_has_no_job_or_no_chips_says_so() -> None:
    with pytest.raises(UserError, match=r"cluster\.chips: is empty"):
        swings(load_factory(EXAMPLES / "laptop.toml"))
    with pytest.raises(UserError, match=r"layout: takes one of 200,000 chips"):
        swings(colossus("layout={}", "train.accumulate=1"))


def test_told_is_plain() -> None:
    told = swings(colossus()).told()
    assert json.loads(json.dumps(told)) == told
    assert told["options"][0]["passes"]


def test_a_slow_wave_has_its_energy_low_and_a_fast_one_high() -> None:
    slow = energy_shares(replace(WAVE, step_s=100.0, dip_s=40.0, edge_s=5.0))
    fast = energy_shares(replace(WAVE, step_s=0.1, dip_s=0.04, edge_s=0.005))
    assert slow[0] > 0.9
    assert fast[BANDS_HZ.index((7.0, 20.0))] > 0.7
    # A square wave has 8 / pi^2 of its energy in its first harmonic.
    square = energy_shares(replace(WAVE, step_s=2.0, dip_s=1.0, edge_s=1e-6))
    assert square[BANDS_HZ.index((0.1, 1.0))] == pytest.approx(0.8106, abs=0.002)


def test_a_battery_for_a_start_holds_half_the_square_of_the_jump_over_the_ramp() -> None:
    power_w, energy_j = needed_battery([WAVE], LIMIT)
    assert power_w == pytest.approx(58e6)
    ramp_j = 58e6**2 / (2 * LIMIT)
    assert energy_j == pytest.approx(max(ramp_j, 58e6 * assumption("battery_least_s").value))
    assert smoothed(WAVE, Means(battery_w=power_w, battery_j=ramp_j), LIMIT).passes
    assert not smoothed(WAVE, Means(battery_w=power_w, battery_j=0.5 * ramp_j), LIMIT).start_passes


def test_storage_in_racks_takes_dips_up_to_its_energy() -> None:
    assert smoothed(WAVE, Means(storage_j=WAVE.dip_j), LIMIT).step_w == 0
    half = smoothed(WAVE, Means(storage_j=WAVE.dip_j / 2), LIMIT)
    assert half.step_w == pytest.approx(WAVE.swing_w / 2)


def test_a_floor_leaves_what_is_above_it() -> None:
    left = smoothed(WAVE, Means(floor_w=64e6), LIMIT)
    assert left.step_w == pytest.approx(2e6)
    assert left.passes


amounts = st.floats(0, 2e8)


@settings(deadline=None, max_examples=200)
@given(amounts, amounts, st.floats(0, 1e12), amounts, st.floats(1e4, 1e9))
def test_more_of_any_means_never_leaves_more(
    floor_w: float, battery_w: float, battery_j: float, storage_j: float, limit: float
) -> None:
    nothing = smoothed(WAVE, Means(), limit)
    some = Means(floor_w / 2, 1.0, storage_j / 2, battery_w / 2, battery_j / 2)
    more = Means(floor_w, 1.0, storage_j, battery_w, battery_j)
    for name in ("step_w", "checkpoint_w", "start_w"):
        values = [getattr(smoothed(WAVE, means, limit), name) for means in (Means(), some, more)]
        assert values[0] >= values[1] - 1e-6
        assert values[1] >= values[2] - 1e-6
        assert values[2] >= 0
    if nothing.passes:
        assert smoothed(WAVE, more, limit).passes
    looser = smoothed(WAVE, some, limit * 2)
    assert looser.passes or not smoothed(WAVE, some, limit).passes
