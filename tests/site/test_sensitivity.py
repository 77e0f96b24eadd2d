"""What a plan hangs on: inputs found by themselves, the right sign, a ranking that fewer draws keep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gigafactory.factory.load import load_factory
from gigafactory.site.draws import Draws
from gigafactory.site.plan import plan
from gigafactory.site.sensitivity import Outcome, Sensitivity, joint, sensitivity

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def lab() -> Sensitivity:
    return sensitivity(load_factory(EXAMPLES / "lab-64.toml"), Draws(2000, 1), scan_draws=400)


def outcome(found: Sensitivity, name: str) -> Outcome:
    return next(each for each in found.outcomes if each.name == name)


def test_outcomes_are_the_plans(lab: Sensitivity) -> None:
    whole = plan(load_factory(EXAMPLES / "lab-64.toml"), Draws(2000, 1))
    last = np.quantile(whole.when.last_day, [0.1, 0.5, 0.9], method="inverted_cdf")
    found = outcome(lab, "all-useful")
    assert [found.p10, found.p50, found.p90] == last.tolist()
    assert outcome(lab, "capex").p50 == np.quantile(whole.money.total_capex_usd, 0.5, method="inverted_cdf")
    assert whole.when.target is not None
    assert outcome(lab, "by-target").p50 == pytest.approx(100 * whole.when.probability(whole.when.target))


def test_a_longer_lead_time_is_later_and_what_hangs_on_nothing_is_left_out(lab: Sensitivity) -> None:
    first = outcome(lab, "all-useful").effects[0]
    assert first.name == "site.orders[0].lead_weeks"
    assert (first.low, first.high) == (4, 14)
    assert first.at_low is not None
    assert first.at_high is not None
    assert first.at_low + 30 < first.at_high
    assert first.rank_correlation > 0.5
    assert 0.3 < first.share < 0.6
    assert not any(one.name.startswith("site.money") for one in outcome(lab, "all-useful").effects)
    assert [one.name for one in outcome(lab, "flop-per-month").effects[:2]] == ["site.goodput", "site.mfu"]


def test_prices_that_go_together_are_inputs_by_their_whole_value(lab: Sensitivity) -> None:
    names = [one.name for one in outcome(lab, "capex").effects]
    assert names[0] == "site.money.chip_usd.h100-sxm"
    assert "site.money.chip_usd" not in names
    assert outcome(lab, "capex").effects[0].share > 0.3


def test_an_input_that_is_held_explains_nothing() -> None:
    draws = Draws(500, 1, {"site.orders[0].lead_weeks": 8.0})
    found = sensitivity(load_factory(EXAMPLES / "lab-64.toml"), draws, scan_draws=60)
    for each in found.outcomes:
        assert "site.orders[0].lead_weeks" not in [one.name for one in each.effects]


def test_a_permits_risk_is_held_by_its_rank() -> None:
    sets = ["site.power[0].legal_risk=0.3", "site.power[0].delay_weeks=0"]
    found = sensitivity(load_factory(EXAMPLES / "lab-64.toml", sets), Draws(400, 1), scan_draws=60)
    first = outcome(found, "all-useful").effects[0]
    assert first.name == "site.power[0].legal_risk"
    assert (first.low, first.high) == (0.1, 0.9)
    assert first.at_low is None, "forbidden: never"
    assert first.at_high is not None


def test_fewer_draws_keep_the_ranking(lab: Sensitivity) -> None:
    """The scan's 400 futures against 1,000 of another seed: the first three of each outcome, the ends within 3 %."""
    more = sensitivity(load_factory(EXAMPLES / "lab-64.toml"), Draws(2000, 7), scan_draws=1000)
    for name in ("all-useful", "capex", "usd-per-useful-chip-hour", "flop-per-month"):
        one, other = outcome(lab, name).effects, outcome(more, name).effects
        count = min(3, len(other))
        assert [each.name for each in one[:count]] == [each.name for each in other[:count]], name
        for few, many in zip(one[:count], other[:count], strict=True):
            assert few.at_low == pytest.approx(many.at_low, rel=0.03)
            assert few.at_high == pytest.approx(many.at_high, rel=0.03)


def test_told_is_plain_and_sentences_name_paths(lab: Sensitivity) -> None:
    told = json.loads(json.dumps(lab.told(), allow_nan=False))
    assert told["outcomes"][0]["effects"][0]["name"] == "site.orders[0].lead_weeks"
    assert "site.orders[0].lead_weeks (4.00 to 14.0: 2025-" in lab.sentences()[0]


def test_share_of_the_variance_by_hand() -> None:
    """y = 3 a + 4 b of uniforms: shares 0.36 and 0.64; a hump has a share without a correlation; chance has neither."""
    random = np.random.default_rng(1)
    a, b = random.random((2, 20_000))
    assert joint(a, 3 * a + 4 * b) == (pytest.approx(0.6, abs=0.02), pytest.approx(0.36, abs=0.02))
    correlation, share = joint(a, np.abs(a - 0.5))
    assert abs(correlation) < 0.02
    assert share > 0.98
    assert joint(a, b)[1] < 0.002
    assert joint(a, np.zeros(20_000)) == (0.0, 0.0)
